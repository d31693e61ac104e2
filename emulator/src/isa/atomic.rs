//! `atom` and `red`: read, combine and write in one step.

use super::access::window_of;
use super::address::{AddressOperand, Target};
use super::modifiers;
use super::reduction::{Combine, Reduction, add_f32_flushed, reduction};
use crate::Result;
use crate::check::Kind;
use crate::check::races::Access;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::launch::Order;
use crate::machine::registers::{Bank, Lanes, Mask, Reg, WARP, each_lane};
use crate::machine::scheduler::Random;
use crate::memory::bits::ones;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

/// A register of any bank.
#[derive(Debug, Clone, Copy)]
struct Register {
    bank: Bank,
    index: u32,
    id: u32,
}

/// One value of the vector that a lane updates: where the old value goes, the operands.
struct Element {
    old: Option<Register>,
    b: Register,
    c: Option<Register>,
}

struct Atomic {
    target: Target,
    address: AddressOperand,
    elements: Box<[Element]>,
    /// Bytes of one element.
    size: u32,
    combine: Combine,
    /// The same in global memory, where it can differ.
    combine_global: Combine,
    /// A fence comes before (`.release`, `.acq_rel`), its scope beyond the cluster or not.
    fences: Option<bool>,
    /// What was there does not matter to what is there afterwards.
    overwrites: bool,
}

/// Where one lane's value lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Global { allocation: usize, offset: u64 },
    Shared { rank: usize, position: usize },
}

impl Execute for Atomic {
    fn execute(&self, cx: &mut Cx) -> Flow {
        if let Some(device) = self.fences {
            cx.fence(device);
        }
        let bytes = self.size * self.elements.len() as u32;
        let addresses = self.address.addresses(cx);
        let mut places = [None; WARP];
        for lane in lanes_of(cx.active) {
            if cx.is_aligned(lane, addresses[lane], bytes) {
                places[lane] = place(cx, self.target, lane, addresses[lane], bytes);
            }
        }
        self.account(cx, &places, bytes);
        let mut old = vec![[0u64; WARP]; self.elements.len()];
        let mut undefined: Vec<Mask> = vec![0; self.elements.len()];
        for lane in lane_order(cx) {
            let Some(place) = places[lane] else { continue };
            for (number, element) in self.elements.iter().enumerate() {
                let (value, defined) = self.update(cx, element, lane, addresses[lane], place, number as u32 * self.size);
                old[number][lane] = value;
                undefined[number] |= u32::from(!defined) << lane;
            }
        }
        for ((element, old), undefined) in self.elements.iter().zip(&old).zip(undefined) {
            if let Some(register) = element.old {
                register.set(cx, old);
                if cx.checked() {
                    cx.set_undefined(register.id, undefined);
                }
            }
        }
        Flow::Next
    }
}

impl Atomic {
    /// Updates one value of one lane; what was there, and whether that was defined.
    fn update(&self, cx: &mut Cx, element: &Element, lane: usize, address: u64, place: Place, at: u32) -> (u64, bool) {
        let b = element.b.get(cx, lane);
        let c = element.c.map_or(0, |c| c.get(cx, lane));
        if cx.checked() {
            let operands = [Some(element.b), element.c];
            if operands.iter().flatten().any(|operand| cx.undefined(operand.id) >> lane & 1 == 1) {
                cx.report_at(Kind::Uninitialized, lane, Some(address), cx.buffer_of(address), || {
                    "the operand of an atomic comes from something that was never written".into()
                });
            }
        }
        let all = ones(self.size);
        let changed;
        let (old, defined) = match place {
            Place::Global { allocation, offset } => {
                let (allocation, offset) = (cx.launch.memory.get(allocation), offset + u64::from(at));
                let defined = allocation.is_all_defined() || allocation.defined(offset, self.size) == all;
                let old = allocation.update(offset, self.size, |old| (self.combine_global)(old, b, c));
                allocation.set_defined(offset, self.size, all);
                changed = (self.combine_global)(old, b, c) != old;
                (old, defined)
            }
            Place::Shared { rank, position } => {
                let (shared, position) = (&mut cx.blocks[rank].shared, position + at as usize);
                let defined = shared.defined.get(position, self.size) == all;
                let old = shared.read_wide(position, self.size);
                let new = (self.combine)(old, b, c);
                shared.write_wide(position, self.size, new);
                changed = new != old;
                shared.defined.put(position, self.size, all);
                (old, defined)
            }
        };
        // Nobody waits for a value to stay as it is: a lock that is asked for in vain is not progress.
        cx.worker.effects += u64::from(changed || !defined);
        if !defined && !self.overwrites && cx.checked() {
            cx.report_at(Kind::Uninitialized, lane, Some(address), cx.buffer_of(address), || {
                "an atomic combines its operand with memory that was never written".into()
            });
            return (old, true);
        }
        (old, defined)
    }

    /// Counts and notes the accesses, those to one buffer together.
    fn account(&self, cx: &mut Cx, places: &[Option<Place>; WARP], bytes: u32) {
        let mut left: Mask = cx.active & super::lanes::mask(|lane| places[lane].is_some());
        while left != 0 {
            let mut lanes = 0;
            match places[left.trailing_zeros() as usize] {
                Some(Place::Global { allocation, offset: first }) => {
                    let mut offsets: Lanes<u64> = [first; WARP];
                    for lane in lanes_of(left) {
                        if let Some(Place::Global { allocation: other, offset }) = places[lane]
                            && other == allocation
                        {
                            offsets[lane] = offset;
                            lanes |= 1 << lane;
                        }
                    }
                    cx.count_global(allocation, lanes, &offsets, bytes, false, Access::Atomic);
                    if cx.checked() {
                        cx.note_global(allocation, &offsets, lanes, bytes, Access::Atomic);
                    }
                }
                Some(Place::Shared { rank, position: first }) => {
                    let mut positions: Lanes<u32> = [first as u32; WARP];
                    for lane in lanes_of(left) {
                        if let Some(Place::Shared { rank: other, position }) = places[lane]
                            && other == rank
                        {
                            positions[lane] = position as u32;
                            lanes |= 1 << lane;
                        }
                    }
                    cx.count_shared(lanes, &positions, bytes, false);
                    if cx.checked() {
                        cx.check_in_flight(rank, &positions, lanes, bytes, Access::Atomic);
                        cx.note_shared(rank, &positions, lanes, bytes, Access::Atomic);
                        cx.note_thread_writes(rank, &positions, lanes, bytes);
                    }
                }
                None => return,
            }
            left &= !lanes;
        }
    }
}

/// Where a lane's atomic goes; a finding if nowhere.
fn place(cx: &mut Cx, target: Target, lane: usize, address: u64, bytes: u32) -> Option<Place> {
    let (target, window) = if target == Target::Generic { window_of(address) } else { (target, 0) };
    match target {
        Target::Shared => {
            let (rank, position) = cx.shared_position(lane, address - window, bytes)?;
            Some(Place::Shared { rank, position })
        }
        Target::Global | Target::Generic => {
            let (allocation, offset) = cx.global_position(lane, address, bytes)?;
            let memory = cx.launch.memory.get(allocation);
            if cx.launch.program.is_constant(cx.launch.variables, memory.address) {
                let buffer = Some((memory.name.clone(), offset as i64));
                cx.report_at(Kind::ReadOnly, lane, Some(address), buffer, || "constant memory cannot be written".into());
                return None;
            }
            Some(Place::Global { allocation, offset })
        }
        Target::Local | Target::Argument => {
            cx.report_at(Kind::InvalidOperation, lane, Some(address), None, || {
                "atomics work on global and shared memory only".into()
            });
            None
        }
    }
}

/// Atomics of a warp on one address come one after the other in an order that nobody promises.
fn lane_order(cx: &Cx) -> impl Iterator<Item = usize> + use<> {
    let mut lanes: Vec<usize> = lanes_of(cx.active).collect();
    if let Order::Seeded(seed) = cx.launch.launch.order {
        Random::new(seed ^ cx.worker.executed).shuffle(&mut lanes);
    }
    lanes.into_iter()
}

impl Register {
    fn get(self, cx: &Cx, lane: usize) -> u64 {
        match self.bank {
            Bank::B16 => u64::from(cx.get(Reg::<u16>::new(self.index, self.id))[lane]),
            Bank::B32 => u64::from(cx.get(Reg::<u32>::new(self.index, self.id))[lane]),
            _ => cx.get(Reg::<u64>::new(self.index, self.id))[lane],
        }
    }

    fn set(self, cx: &mut Cx, value: &Lanes<u64>) {
        match self.bank {
            Bank::B16 => cx.set(Reg::<u16>::new(self.index, self.id), &each_lane(|lane| value[lane] as u16)),
            Bank::B32 => cx.set(Reg::<u32>::new(self.index, self.id), &each_lane(|lane| value[lane] as u32)),
            _ => cx.set(Reg::<u64>::new(self.index, self.id), value),
        }
    }
}

/// The bank that values of so many bytes lie in.
fn bank(size: u32) -> Bank {
    match size {
        2 => Bank::B16,
        4 => Bank::B32,
        _ => Bank::B64,
    }
}

fn source(cx: &mut Lowering, operand: &Operand, size: u32) -> Result<Register> {
    let (index, id) = match bank(size) {
        Bank::B16 => cx.source::<u16>(operand).map(|register| (register.index, register.id)),
        Bank::B32 => cx.source::<u32>(operand).map(|register| (register.index, register.id)),
        _ => cx.source::<u64>(operand).map(|register| (register.index, register.id)),
    }?;
    Ok(Register { bank: bank(size), index, id })
}

fn old(cx: &mut Lowering, operand: Option<&Operand>, size: u32) -> Result<Option<Register>> {
    match operand {
        None | Some(Operand::Sink) => Ok(None),
        Some(operand) => {
            let (has, index, id) = cx.any_dest(operand)?;
            if has != bank(size) {
                return Err(cx.invalid(format!("register `{operand}` has the wrong width for this operand")));
            }
            Ok(Some(Register { bank: has, index, id }))
        }
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let (mut target, mut operation, mut ty, mut lanes) = (Target::Generic, None, None, 1);
    let (mut noftz, mut hint, mut releases, mut device) = (false, false, false, false);
    for modifier in modifiers(i) {
        match modifier {
            "relaxed" | "acquire" | "cta" | "cluster" => {}
            "release" | "acq_rel" => releases = true,
            "gpu" | "sys" => device = true,
            "global" => target = Target::Global,
            "shared" | "shared::cta" | "shared::cluster" => target = Target::Shared,
            "v2" => lanes = 2,
            "v4" => lanes = 4,
            "v8" => lanes = 8,
            "noftz" => noftz = true,
            "L2::cache_hint" => hint = true,
            "add" | "min" | "max" | "and" | "or" | "xor" | "exch" | "cas" | "inc" | "dec" => operation = Some(modifier),
            other => ty = Some(other),
        }
    }
    let (Some(operation), Some(ty)) = (operation, ty) else { return Err(cx.unsupported(i)) };
    let Some(Reduction { combine, size }) = reduction(operation, ty) else { return Err(cx.unsupported(i)) };
    let half = matches!(ty, "f16" | "bf16" | "f16x2" | "bf16x2");
    let vector = half || ty == "f32" && operation == "add";
    if noftz != half || lanes > 1 && !(vector && target == Target::Global) || lanes as u32 * size > 16 {
        return Err(cx.unsupported(i));
    }
    let operands = if hint {
        let (policy, operands) = i.operands.split_last().ok_or_else(|| cx.unsupported(i))?;
        cx.source::<u64>(policy)?;
        operands
    } else {
        i.operands.as_slice()
    };
    let returns = i.opcode == "atom";
    let (d, address, b, c) = match (returns, operation == "cas", operands) {
        (true, false, [d, address, b]) => (Some(d), address, b, None),
        (true, true, [d, address, b, c]) => (Some(d), address, b, Some(c)),
        (false, false, [address, b]) => (None, address, b, None),
        _ => return Err(cx.unsupported(i)),
    };
    let (address, target) = AddressOperand::new(cx, address, target)?;
    let (d, b) = (d.map(|d| cx.components(d)), cx.components(b));
    if b.len() != lanes || d.is_some_and(|d| d.len() != lanes && *d != [Operand::Sink]) {
        return Err(cx.unsupported(i));
    }
    let mut elements = Vec::new();
    for (number, b) in b.iter().enumerate() {
        let b = source(cx, b, size)?;
        let c = c.map(|c| source(cx, c, size)).transpose()?;
        let old = old(cx, d.and_then(|d| d.get(number)), size)?;
        elements.push(Element { old, b, c });
    }
    let combine_global = if (operation, ty) == ("add", "f32") { add_f32_flushed } else { combine };
    let elements = elements.into_boxed_slice();
    let fences = releases.then_some(device);
    let atomic = Atomic { target, address, elements, size, combine, combine_global, fences, overwrites: operation == "exch" };
    Ok(Decoded::new(Class::Atomic, atomic)?.with_own_taint())
}
