//! `ld` and `st`.

use super::access::Words;
use super::address::{AddressOperand, Target};
use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Bank, Lanes, Mask, Reg, WARP, each_lane};
use crate::memory::bits::ones;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand, Type};

/// One register that a load fills or a store empties: a part of the bytes that a lane moves.
#[derive(Debug, Clone, Copy)]
struct Element {
    bank: Bank,
    index: u32,
    id: u32,
    /// First byte.
    at: u32,
}

struct Load<const W: usize> {
    target: Target,
    address: AddressOperand,
    elements: Box<[Element]>,
    /// Bytes of one element.
    size: u32,
    signed: bool,
    /// Bytes of all.
    bytes: u32,
}

/// A load of an argument: the same bytes for every lane.
struct LoadArgument {
    offset: u64,
    elements: Box<[Element]>,
    size: u32,
    signed: bool,
}

impl Execute for LoadArgument {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let arguments = &cx.launch.launch.arguments;
        for element in &self.elements {
            let at = self.offset.saturating_add(u64::from(element.at)) as usize;
            let mut word = [0; 8];
            match arguments.get(at..at.saturating_add(self.size as usize)) {
                Some(bytes) => word[..bytes.len()].copy_from_slice(bytes),
                None => {
                    let lane = cx.active.trailing_zeros() as usize;
                    cx.report_at(Kind::OutOfBounds, lane, Some(at as u64), None, || "read beyond the kernel's parameters".into());
                    return Flow::Next;
                }
            }
            let (bits, unused) = (u64::from_le_bytes(word), 64 - self.size * 8);
            let bits = if self.signed { ((bits << unused) as i64 >> unused) as u64 } else { bits };
            match element.bank {
                Bank::B16 => cx.set(Reg::<u16>::new(element.index, element.id), &[bits as u16; WARP]),
                Bank::B32 => cx.set(Reg::<u32>::new(element.index, element.id), &[bits as u32; WARP]),
                _ => cx.set(Reg::<u64>::new(element.index, element.id), &[bits; WARP]),
            }
        }
        Flow::Next
    }
}

struct Store<const W: usize> {
    target: Target,
    address: AddressOperand,
    elements: Box<[Element]>,
    size: u32,
    bytes: u32,
}

impl<const W: usize> Execute for Load<W> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let addresses = self.address.addresses(cx);
        let data: Words<W> = cx.load(self.target, &addresses, self.bytes);
        for element in &self.elements {
            element.fill(cx, &data, self.size, self.signed);
        }
        Flow::Next
    }
}

impl<const W: usize> Execute for Store<W> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let addresses = self.address.addresses(cx);
        let mut data = Words::<W>::zero();
        for element in &self.elements {
            element.empty(cx, &mut data, self.size);
            let undefined = if cx.checked() { cx.undefined(element.id) & cx.active } else { 0 };
            for lane in lanes_of(undefined) {
                data.set_undefined(lane, ones(self.size) << element.at);
            }
        }
        if data.any_undefined && matches!(self.target, Target::Global | Target::Generic) {
            // Told of here, where the value leaves the threads that know where it came from; then it counts as written.
            let lane = lanes_of(cx.active).find(|&lane| data.undefined[lane] != 0).unwrap_or(0);
            if !cx.goes_to_threads(self.target, addresses[lane]) {
                cx.report_at(Kind::Uninitialized, lane, Some(addresses[lane]), cx.buffer_of(addresses[lane]), || {
                    "the value stored comes from something that was never written".into()
                });
                data.any_undefined = false;
            }
        }
        cx.store(self.target, &addresses, self.bytes, &data);
        Flow::Next
    }
}

impl Element {
    /// Takes the element's bytes into its register, extended to the register's width.
    #[inline(always)]
    fn fill<const W: usize>(&self, cx: &mut Cx, data: &Words<W>, size: u32, signed: bool) {
        let word = (self.at / 4) as usize;
        let low = &data.words[word];
        match (size, self.bank) {
            (4, Bank::B32) => cx.set(Reg::new(self.index, self.id), low),
            (8, Bank::B64) => {
                let high = &data.words[(word + 1).min(W - 1)];
                let wide: Lanes<u64> = each_lane(|lane| u64::from(low[lane]) | u64::from(high[lane]) << 32);
                cx.set(Reg::new(self.index, self.id), &wide);
            }
            _ => {
                let (shift, unused) = (self.at % 4 * 8, 64 - size * 8);
                let high = &data.words[(word + 1).min(W - 1)];
                let value = |lane: usize| -> u64 {
                    let bits = (u64::from(low[lane]) | if size == 8 { u64::from(high[lane]) << 32 } else { 0 }) >> shift;
                    if signed { ((bits << unused) as i64 >> unused) as u64 } else { bits << unused >> unused }
                };
                match self.bank {
                    Bank::B16 => cx.set(Reg::<u16>::new(self.index, self.id), &each_lane(|lane| value(lane) as u16)),
                    Bank::B32 => cx.set(Reg::<u32>::new(self.index, self.id), &each_lane(|lane| value(lane) as u32)),
                    _ => cx.set(Reg::<u64>::new(self.index, self.id), &each_lane(value)),
                }
            }
        }
        if !cx.checked() {
            return;
        }
        let mut undefined: Mask = 0;
        if data.any_undefined {
            let bytes = ones(size) << self.at;
            for lane in 0..WARP {
                undefined |= u32::from(data.undefined[lane] & bytes != 0) << lane;
            }
        }
        cx.set_undefined(self.id, undefined);
    }

    /// Puts the register's low bytes where the element lies.
    #[inline(always)]
    fn empty<const W: usize>(&self, cx: &Cx, data: &mut Words<W>, size: u32) {
        let word = (self.at / 4) as usize;
        let (shift, mask) = (self.at % 4 * 8, if size >= 4 { !0 } else { ones(size * 8) });
        match self.bank {
            Bank::B16 => {
                let lanes = cx.get(Reg::<u16>::new(self.index, self.id));
                for (out, &value) in data.words[word].iter_mut().zip(lanes) {
                    *out |= (u32::from(value) & mask) << shift;
                }
            }
            Bank::B32 => {
                let lanes = cx.get(Reg::<u32>::new(self.index, self.id));
                for (out, &value) in data.words[word].iter_mut().zip(lanes) {
                    *out |= (value & mask) << shift;
                }
            }
            _ => {
                let lanes = cx.get(Reg::<u64>::new(self.index, self.id));
                for (lane, &value) in lanes.iter().enumerate() {
                    data.words[word][lane] |= (value as u32 & mask) << shift;
                    if size == 8 {
                        data.words[(word + 1).min(W - 1)][lane] = (value >> 32) as u32;
                    }
                }
            }
        }
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let (mut target, mut class, mut lanes, mut ty) = (Target::Generic, Class::Global, 1, None);
    let mut operands = i.operands.as_slice();
    let loading = i.opcode != "st";
    for modifier in modifiers(i) {
        match modifier {
            "global" | "const" => target = Target::Global,
            "shared" | "shared::cta" | "shared::cluster" => (target, class) = (Target::Shared, Class::Shared),
            "local" => (target, class) = (Target::Local, Class::Local),
            "param" | "param::entry" | "param::func" => (target, class) = (Target::Argument, Class::Constant),
            "v2" => lanes = 2,
            "v4" => lanes = 4,
            "v8" => lanes = 8,
            "acquire" if loading => {}
            "release" if !loading => {}
            "volatile" | "relaxed" | "nc" | "weak" | "cta" | "cluster" | "gpu" | "sys" | "ca" | "cg" | "cs" | "lu" | "cv"
            | "wb" | "wt" => {}
            "mmio" => return Err(cx.refused(i, "memory-mapped devices do not exist here")),
            "L1::evict_normal"
            | "L1::evict_unchanged"
            | "L1::evict_first"
            | "L1::evict_last"
            | "L1::no_allocate"
            | "L2::evict_normal"
            | "L2::evict_first"
            | "L2::evict_last" => {}
            "L2::64B" | "L2::128B" | "L2::256B" if loading => {}
            "L2::cache_hint" => {
                let (policy, others) = operands.split_last().ok_or_else(|| cx.unsupported(i))?;
                cx.source::<u64>(policy)?;
                operands = others;
            }
            other => ty = Some(Type::from_name(other).ok_or_else(|| cx.unsupported(i))?),
        }
    }
    let ty = ty.ok_or_else(|| cx.unsupported(i))?;
    let [first, second] = operands else { return Err(cx.invalid(format!("`{i}` takes a register and an address"))) };
    let (register, address) = if loading { (first, second) } else { (second, first) };
    let (address, target) = AddressOperand::new(cx, address, target)?;
    let registers: &[Operand] = cx.components(register);
    if registers.len() != lanes {
        return Err(cx.unsupported(i));
    }
    if ty == Type::B128 {
        return wide(i, cx, loading, (register, address, target), class);
    }
    let size = ty.bytes();
    let mut elements = Vec::new();
    for (number, operand) in registers.iter().enumerate() {
        let at = number as u32 * size;
        if loading {
            if *operand == Operand::Sink {
                continue;
            }
            let (bank, index, id) = cx.any_dest(operand)?;
            elements.push(Element { bank, index, id, at });
        } else {
            let bank = match size {
                8 => Bank::B64,
                4 => Bank::B32,
                _ => Bank::B16,
            };
            let element = match operand {
                Operand::Name(_) if cx.any_register(operand).is_ok() => {
                    let (_, bank, index, id) = cx.any_register(operand)?;
                    cx.note_read(id);
                    Element { bank, index, id, at }
                }
                Operand::Integer(bits) => {
                    let (index, id) = cx.constant(bank, *bits);
                    Element { bank, index, id, at }
                }
                _ if size == 8 => {
                    let register = cx.source::<u64>(operand)?;
                    Element { bank, index: register.index, id: register.id, at }
                }
                _ => {
                    let register = cx.source::<u32>(operand)?;
                    Element { bank: Bank::B32, index: register.index, id: register.id, at }
                }
            };
            elements.push(element);
        }
    }
    let (elements, bytes) = (elements.into_boxed_slice(), size * lanes as u32);
    let signed = matches!(ty, Type::S8 | Type::S16 | Type::S32 | Type::S64);
    if loading
        && target == Target::Argument
        && let Some(offset) = address.fixed()
    {
        return Decoded::new(class, LoadArgument { offset, elements, size, signed });
    }
    macro_rules! sized {
        ($words:literal) => {
            if loading {
                Decoded::new(class, Load::<$words> { target, address, elements, size, signed, bytes })
            } else {
                Decoded::new(class, Store::<$words> { target, address, elements, size, bytes })
            }
        };
    }
    let decoded = match bytes {
        1..=4 => sized!(1),
        8 => sized!(2),
        16 => sized!(4),
        32 => sized!(8),
        _ => return Err(cx.unsupported(i)),
    }?;
    Ok(decoded.with_own_taint())
}

/// 128 bits from or to a register of two slots, the low half first.
fn wide(
    i: &Instruction,
    cx: &mut Lowering,
    loading: bool,
    (register, address, target): (&Operand, AddressOperand, Target),
    class: Class,
) -> Result<Decoded> {
    let (ty, bank, index, id) = cx.any_register(register)?;
    if ty != Type::B128 {
        return Err(cx.unsupported(i));
    }
    let halves = [0, 1].map(|half| Element { bank, index: index + half, id: id + half, at: 8 * half });
    for half in halves {
        if loading { cx.note_write(half.id) } else { cx.note_read(half.id) }
    }
    let elements: Box<[Element]> = halves.into();
    let decoded = if loading {
        Decoded::new(class, Load::<4> { target, address, elements, size: 8, signed: false, bytes: 16 })
    } else {
        Decoded::new(class, Store::<4> { target, address, elements, size: 8, bytes: 16 })
    }?;
    Ok(decoded.with_own_taint())
}
