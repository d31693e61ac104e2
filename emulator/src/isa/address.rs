//! Address operands, and moving bytes between registers and any state space.

use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Bank, Lanes, Reg, WARP};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::program::{Address, Lowering, Symbol};
use crate::ptx::ast::{Operand, Space};

/// Where an access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Decided by each lane's address.
    Generic,
    Global,
    Shared,
    Local,
    /// A kernel's packed arguments.
    Argument,
}

/// `[register + offset]`
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressOperand {
    base: Base,
    offset: i64,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    Wide(Reg<u64>),
    Narrow(Reg<u32>),
    None,
}

impl AddressOperand {
    /// Takes an address operand apart. A variable named in it can say more about the space than the instruction does: inside
    /// device functions parameters lie in local memory.
    pub(crate) fn new(cx: &mut Lowering, operand: &Operand, target: Target) -> Result<(Self, Target)> {
        let Operand::Address { base, offset } = operand else {
            return Err(cx.invalid(format!("`{operand}` is not an address")));
        };
        let Some(name) = base else { return Ok((Self { base: Base::None, offset: *offset }, target)) };
        let at = |fixed: u32| offset.wrapping_add(i64::from(fixed));
        match cx.symbol(name)?.clone() {
            Symbol::Register { bank: Bank::B64, index, id, .. } => {
                cx.note_critical(id);
                Ok((Self { base: Base::Wide(Reg::new(index, id)), offset: *offset }, target))
            }
            Symbol::Register { bank: Bank::B32, index, id, .. } => {
                cx.note_critical(id);
                Ok((Self { base: Base::Narrow(Reg::new(index, id)), offset: *offset }, target))
            }
            Symbol::Memory { space: Space::Shared, offset: fixed } => {
                Ok((Self { base: Base::None, offset: at(fixed) }, Target::Shared))
            }
            Symbol::Memory { offset: fixed, .. } => {
                let base = cx.address_register(Address::Local { offset: at(fixed) });
                Ok((Self { base: Base::Wide(base), offset: 0 }, Target::Local))
            }
            Symbol::Argument { offset: fixed } => Ok((Self { base: Base::None, offset: at(fixed) }, Target::Argument)),
            Symbol::Variable { index, .. } => {
                let base = cx.address_register(Address::Variable { index, offset: *offset });
                Ok((Self { base: Base::Wide(base), offset: 0 }, Target::Global))
            }
            _ => Err(cx.invalid(format!("`{name}` is not an address"))),
        }
    }

    /// Each lane's address.
    #[inline(always)]
    pub(crate) fn addresses(&self, cx: &Cx) -> Lanes<u64> {
        let offset = self.offset as u64;
        match self.base {
            Base::Wide(register) => cx.get(register).map(|base| base.wrapping_add(offset)),
            Base::Narrow(register) => cx.get(register).map(|base| u64::from(base.wrapping_add(offset as u32))),
            Base::None => [offset; WARP],
        }
    }
}

/// What one access moves, lane by lane: up to `W` words of 32 bits, in memory order; shorter data lies in the low bits.
pub(crate) struct Words<const W: usize> {
    pub words: [Lanes<u32>; W],
    /// Undefined bytes of each lane, the first in bit 0.
    pub undefined: Lanes<u32>,
}

impl<const W: usize> Words<W> {
    pub(crate) fn zero() -> Self {
        Self { words: [[0; WARP]; W], undefined: [0; WARP] }
    }
}

/// The space and the address in it that a lane's address means.
fn resolve(target: Target, address: u64) -> (Target, u64) {
    if target != Target::Generic {
        return (target, address);
    }
    for (window, target) in [(SHARED_WINDOW, Target::Shared), (LOCAL_WINDOW, Target::Local), (PARAM_WINDOW, Target::Argument)] {
        if address.wrapping_sub(window) < WINDOW_BYTES {
            return (target, address - window);
        }
    }
    (Target::Global, address)
}

impl Cx<'_> {
    /// Reads `size` bytes per active lane.
    pub(crate) fn load<const W: usize>(&mut self, target: Target, addresses: &Lanes<u64>, size: u32) -> Words<W> {
        let mut data = Words::zero();
        for lane in lanes_of(self.active) {
            let (target, address) = resolve(target, addresses[lane]);
            if !self.aligned(lane, address, size) {
                continue;
            }
            match target {
                Target::Shared => {
                    let Some((rank, position)) = self.shared_position(lane, address, size) else { continue };
                    let shared = &self.blocks[rank].shared;
                    data.undefined[lane] = !shared.defined.get(position, size) & crate::memory::bits::ones(size);
                    for (word, bytes) in shared.bytes[position..position + size as usize].chunks(4).enumerate() {
                        data.words[word][lane] = word_of(bytes);
                    }
                }
                Target::Argument => {
                    let arguments = &self.launch.launch.arguments;
                    match arguments.get(address as usize..(address as usize).saturating_add(size as usize)) {
                        Some(bytes) => {
                            for (word, bytes) in bytes.chunks(4).enumerate() {
                                data.words[word][lane] = word_of(bytes);
                            }
                        }
                        None => self.report_at(Kind::OutOfBounds, lane, Some(address), None, || {
                            "read beyond the kernel's parameters".into()
                        }),
                    }
                }
                Target::Local => {
                    let Some(position) = self.local_position(lane, address, size) else { continue };
                    data.undefined[lane] = !self.warp.local_defined.get(position, size) & crate::memory::bits::ones(size);
                    for (word, bytes) in self.warp.local[position..position + size as usize].chunks(4).enumerate() {
                        data.words[word][lane] = word_of(bytes);
                    }
                }
                Target::Global | Target::Generic => {
                    let Some((index, offset)) = self.global_position(lane, address, size) else { continue };
                    let allocation = self.launch.memory.get(index);
                    data.undefined[lane] = !allocation.defined(offset, size) & crate::memory::bits::ones(size);
                    for word in 0..(size as usize).div_ceil(4) {
                        data.words[word][lane] = allocation.load(offset + word as u64 * 4, size.min(4)) as u32;
                    }
                }
            }
        }
        data
    }

    /// Writes `size` bytes per active lane.
    pub(crate) fn store<const W: usize>(&mut self, target: Target, addresses: &Lanes<u64>, size: u32, data: &Words<W>) {
        self.worker.effects += 1;
        for lane in lanes_of(self.active) {
            let (target, address) = resolve(target, addresses[lane]);
            if !self.aligned(lane, address, size) {
                continue;
            }
            let defined = !data.undefined[lane];
            match target {
                Target::Shared => {
                    let Some((rank, position)) = self.shared_position(lane, address, size) else { continue };
                    let shared = &mut self.blocks[rank].shared;
                    shared.defined.put(position, size, defined);
                    for (word, bytes) in shared.bytes[position..position + size as usize].chunks_mut(4).enumerate() {
                        bytes.copy_from_slice(&data.words[word][lane].to_le_bytes()[..bytes.len()]);
                    }
                }
                Target::Argument => {
                    self.report_at(Kind::ReadOnly, lane, Some(address), None, || "a kernel's parameters cannot be written".into());
                }
                Target::Local => {
                    let Some(position) = self.local_position(lane, address, size) else { continue };
                    self.warp.local_defined.put(position, size, defined);
                    for (word, bytes) in self.warp.local[position..position + size as usize].chunks_mut(4).enumerate() {
                        bytes.copy_from_slice(&data.words[word][lane].to_le_bytes()[..bytes.len()]);
                    }
                }
                Target::Global | Target::Generic => {
                    let Some((index, offset)) = self.global_position(lane, address, size) else { continue };
                    let allocation = self.launch.memory.get(index);
                    allocation.set_defined(offset, size, defined);
                    for word in 0..(size as usize).div_ceil(4) {
                        allocation.store(offset + word as u64 * 4, size.min(4), u64::from(data.words[word][lane]));
                    }
                }
            }
        }
    }

    fn aligned(&mut self, lane: usize, address: u64, size: u32) -> bool {
        if address % u64::from(size) == 0 {
            return true;
        }
        self.report_at(Kind::Misaligned, lane, Some(address), None, || {
            format!("{size} bytes at an address that is not a multiple of {size}")
        });
        false
    }

    fn shared_position(&mut self, lane: usize, address: u64, size: u32) -> Option<(usize, usize)> {
        let address = address as u32;
        let rank = match address >> crate::memory::shared::RANK_SHIFT {
            0 => self.rank,
            other => other as usize - 1,
        };
        let position = self.blocks.get(rank).and_then(|block| block.shared.position(address, size));
        if position.is_none() {
            let buffer = self.launch.shared.nearest(address);
            self.report_at(Kind::OutOfBounds, lane, Some(u64::from(address)), buffer, || {
                format!("{size} bytes outside the block's shared memory")
            });
        }
        Some((rank, position?))
    }

    fn local_position(&mut self, lane: usize, address: u64, size: u32) -> Option<usize> {
        if address.saturating_add(u64::from(size)) <= self.warp.local_stride as u64 {
            return Some(lane * self.warp.local_stride + address as usize);
        }
        self.report_at(Kind::OutOfBounds, lane, Some(address), None, || format!("{size} bytes outside the thread's local memory"));
        None
    }

    fn global_position(&mut self, lane: usize, address: u64, size: u32) -> Option<(usize, u64)> {
        let memory = self.launch.memory;
        let index = memory.find(address);
        if let Some(index) = index.filter(|&index| memory.get(index).holds(address, u64::from(size))) {
            return Some((index, address - memory.get(index).address));
        }
        let nearest = index.map(|index| memory.get(index));
        let (kind, message) = match nearest {
            Some(allocation) if allocation.freed && address < allocation.address + allocation.bytes => {
                (Kind::UseAfterFree, format!("{size} bytes in `{}`, which was freed", allocation.name))
            }
            _ => (Kind::OutOfBounds, format!("{size} bytes outside every buffer")),
        };
        let buffer = nearest.map(|allocation| (allocation.name.clone(), address.wrapping_sub(allocation.address) as i64));
        self.report_at(kind, lane, Some(address), buffer, || message);
        None
    }
}

/// Up to four bytes as the low bits of a word.
#[inline(always)]
fn word_of(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}
