//! `cp.async`: 4, 8 or 16 bytes per thread from global to shared memory, in groups of the thread or tracked by an `mbarrier`.
//!
//! The source is read at once; the bytes land when the thread waits for them, or when the `mbarrier` that tracks them is told.

use super::access::Words;
use super::address::{AddressOperand, Target};
use super::lanes::holds;
use super::{bulk, bulk_group, modifiers, tensor_copy};
use crate::Result;
use crate::check::Kind;
use crate::check::races::{Access, Release};
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Mask, Pred, Reg, WARP, each_lane};
use crate::machine::transfer::Land;
use crate::memory::bits::ones;
use crate::memory::in_flight::Use;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

/// The copies of a warp's threads that have not landed.
#[derive(Default)]
pub(crate) struct Copies {
    /// Groups that each thread has committed: the number of the one that is open.
    committed: Lanes<u32>,
    /// Instructions issued so far.
    issued: u64,
    pending: Vec<Copy>,
}

/// What one instruction copies.
struct Copy {
    pc: u32,
    number: u64,
    /// Threads whose bytes have not landed.
    lanes: Mask,
    group: Lanes<u32>,
    positions: Lanes<u32>,
    size: u32,
    data: Words<4>,
}

/// How many of a thread's bytes come from memory.
#[derive(Clone, Copy)]
enum Source {
    All,
    /// So many; the rest is zero.
    First(Reg<u32>),
    /// None where the predicate holds, or does not hold if negated.
    Unless((Pred, bool)),
}

struct Issue {
    destination: AddressOperand,
    source: AddressOperand,
    source_bytes: Source,
    size: u32,
}

impl Execute for Issue {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (active, size) = (cx.active, self.size);
        let (to, from) = (self.destination.addresses(cx), self.source.addresses(cx));
        let mut lengths = match self.source_bytes {
            Source::All => [size; WARP],
            Source::First(register) => *cx.get(register),
            Source::Unless(predicate) => {
                let ignored = holds(cx, predicate);
                each_lane(|lane| if ignored >> lane & 1 == 1 { 0 } else { size })
            }
        };
        let mut whole: Mask = 0;
        for lane in lanes_of(active) {
            if lengths[lane] > size {
                let length = std::mem::replace(&mut lengths[lane], size);
                cx.report(Kind::InvalidOperation, lane, || format!("{length} source bytes for a copy of {size}"));
            }
            whole |= u32::from(lengths[lane] == size) << lane;
        }
        let mut data = Words::zero();
        if whole != 0 {
            cx.active = whole;
            data = cx.load::<4>(Target::Global, &from, size);
            cx.active = active;
        }
        for lane in lanes_of(active & !whole).filter(|&lane| lengths[lane] > 0) {
            read_part(cx, lane, from[lane], lengths[lane], size, &mut data);
        }
        match cx.shared_place(active, &to, size) {
            Some((rank, positions, contiguous)) if rank == cx.rank => {
                self.issue(cx, active, positions, contiguous, data);
            }
            _ => {
                let (mut lanes, mut positions): (Mask, Lanes<u32>) = (0, [0; WARP]);
                for lane in lanes_of(active) {
                    if cx.is_aligned(lane, to[lane], size)
                        && let Some((rank, position)) = cx.shared_position(lane, to[lane], size)
                    {
                        if rank != cx.rank {
                            cx.report_at(Kind::InvalidOperation, lane, Some(to[lane]), None, || {
                                "cp.async writes to shared memory of its own block only".into()
                            });
                            continue;
                        }
                        lanes |= 1 << lane;
                        positions[lane] = position as u32;
                    }
                }
                if lanes != 0 {
                    self.issue(cx, lanes, positions, false, data);
                }
            }
        }
        Flow::Next
    }
}

impl Issue {
    #[inline(always)]
    fn issue(&self, cx: &mut Cx, lanes: Mask, positions: Lanes<u32>, contiguous: bool, data: Words<4>) {
        let (size, rank) = (self.size, cx.rank);
        cx.count_wavefronts(lanes, &positions, size, contiguous);
        cx.begin_lanes_in_flight(rank, &positions, lanes, size, Use::Writes);
        if cx.checked() {
            // The bytes may change from now on: whoever used them before must be done.
            cx.note_shared(rank, &positions, lanes, size, Access::Write);
        }
        let pc = cx.pc;
        let copies = &mut cx.warp.copies;
        copies.issued += 1;
        copies.pending.push(Copy { pc, number: copies.issued, lanes, group: copies.committed, positions, size, data });
    }
}

/// Reads the first bytes of a lane's source.
fn read_part(cx: &mut Cx, lane: usize, address: u64, length: u32, size: u32, data: &mut Words<4>) {
    if !cx.is_aligned(lane, address, size) {
        return;
    }
    let Some((index, offset)) = cx.global_position(lane, address, length) else { return };
    let allocation = cx.launch.memory.get(index);
    let mut bytes = [0; 16];
    allocation.read(offset, &mut bytes[..length as usize]);
    for (word, bytes) in data.words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        word[lane] = u32::from_le_bytes(*bytes);
    }
    data.set_undefined(lane, !allocation.defined(offset, length) & ones(length));
    let offsets = [offset; WARP];
    cx.count_global(index, 1 << lane, &offsets, length, false, Access::Read);
    if cx.checked() {
        cx.note_global(index, &offsets, 1 << lane, length, Access::Read);
    }
}

impl Cx<'_> {
    /// Lets the copies land that `is_due` says of a lane and a copy's group and number; `note`: as accesses of the threads now.
    fn land_copies(&mut self, lanes: Mask, note: bool, is_due: impl Fn(usize, u32, u64) -> bool) {
        let mut pending = std::mem::take(&mut self.warp.copies.pending);
        let (pc, rank) = (self.pc, self.rank);
        pending.retain_mut(|copy| {
            let due = lanes_of(copy.lanes & lanes).filter(|&lane| is_due(lane, copy.group[lane], copy.number));
            let due = due.fold(0, |mask, lane| mask | 1 << lane);
            if due == 0 {
                return true;
            }
            self.pc = copy.pc;
            let shared = &mut self.blocks[rank].shared;
            for lane in lanes_of(due) {
                let position = copy.positions[lane] as usize;
                for (word, values) in copy.data.words.iter().enumerate().take(copy.size as usize / 4) {
                    shared.write(position + word * 4, 4, values[lane]);
                }
                let undefined = if copy.data.any_undefined { copy.data.undefined[lane] } else { 0 };
                shared.defined.put(position, copy.size, !undefined);
            }
            if self.checked() {
                for lane in lanes_of(due) {
                    self.end_in_flight(rank, copy.positions[lane] as usize, copy.size as usize, Use::Writes);
                }
                self.note_thread_writes(rank, &copy.positions, due, copy.size);
                if note {
                    self.note_shared(rank, &copy.positions, due, copy.size, Access::Write);
                }
            }
            copy.lanes &= !due;
            copy.lanes != 0
        });
        self.pc = pc;
        self.warp.copies.pending = pending;
    }
}

struct Commit;

impl Execute for Commit {
    fn execute(&self, cx: &mut Cx) -> Flow {
        for lane in lanes_of(cx.active) {
            cx.warp.copies.committed[lane] += 1;
        }
        Flow::Next
    }
}

struct WaitGroup {
    pending: Reg<u32>,
}

impl Execute for WaitGroup {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (pending, committed) = (*cx.get(self.pending), cx.warp.copies.committed);
        cx.land_copies(cx.active, true, |lane, group, _| group < committed[lane].saturating_sub(pending[lane]));
        Flow::Next
    }
}

struct WaitAll;

impl Execute for WaitAll {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.land_copies(cx.active, true, |_, _, _| true);
        Flow::Next
    }
}

/// `cp.async.mbarrier.arrive`: arrives when all copies that the thread has issued so far have landed.
struct Arrive {
    target: Target,
    address: AddressOperand,
    /// The phase waits for one more arrival.
    increments: bool,
}

impl Execute for Arrive {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.worker.effects += 1;
        let addresses = self.address.addresses(cx);
        let mut objects = Vec::new();
        let mut lanes: Mask = 0;
        for lane in lanes_of(cx.active) {
            let Some((rank, position)) = cx.mbarrier_position(self.target, lane, addresses[lane]) else { continue };
            let Some(object) = cx.mbarrier(rank, position, lane) else { continue };
            if self.increments {
                let added = object.barrier.add_pending();
                cx.end_phase(rank, position, false);
                if let Err(problem) = added {
                    cx.report_mbarrier(rank, position, lane, || problem);
                }
            }
            objects.push((lane, rank, position));
            lanes |= 1 << lane;
        }
        if lanes != 0 {
            cx.begin_transfer(lanes, Box::new(Arrival { issued: cx.warp.copies.issued, objects }));
        }
        Flow::Next
    }
}

struct Arrival {
    /// Copies up to this one must have landed.
    issued: u64,
    /// Lanes, and the objects that they arrive at.
    objects: Vec<(usize, usize, usize)>,
}

impl Land for Arrival {
    fn land(&mut self, cx: &mut Cx, issued: &Release) {
        let last = self.issued;
        cx.land_copies(cx.active, false, |_, _, number| number <= last);
        for &(lane, rank, position) in &self.objects {
            cx.leave_copy_at_mbarrier(rank, position, issued);
            let Some(object) = cx.mbarrier(rank, position, lane) else { continue };
            let arrived = object.barrier.arrive(1, 0);
            cx.end_phase(rank, position, arrived == Ok(true));
            if let Err(problem) = arrived {
                cx.report_mbarrier(rank, position, lane, || problem);
            }
        }
    }
}

/// Decodes all of `cp`.
pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match modifiers(i).as_slice() {
        ["async", "bulk", rest @ ("commit_group" | "wait_group"), read @ ..] => {
            bulk_group::decode(i, cx, &[&[*rest], read].concat())
        }
        ["async", "bulk", "tensor", rest @ ..] => tensor_copy::decode(i, cx, rest),
        ["reduce", "async", "bulk", "tensor", rest @ ..] => tensor_copy::decode_reduce(i, cx, rest),
        ["async", "bulk", "prefetch", "tensor", rest @ ..] => tensor_copy::decode_prefetch(i, cx, rest),
        ["async", "bulk", "prefetch", rest @ ..] => bulk::decode_prefetch(i, cx, rest),
        ["async", "bulk", rest @ ..] => bulk::decode(i, cx, rest),
        ["reduce", "async", "bulk", rest @ ..] => bulk::decode_reduce(i, cx, rest),
        ["async", "commit_group"] => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Copy, Commit)
        }
        ["async", "wait_all"] => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Barrier, WaitAll)
        }
        ["async", "wait_group"] => {
            let [pending] = cx.operands(i)?;
            let pending = cx.critical(pending)?;
            Decoded::new(Class::Barrier, WaitGroup { pending })
        }
        ["async", "mbarrier", "arrive", rest @ ..] => {
            let (noinc, space) = match rest {
                ["noinc", space @ .., "b64"] => (true, space),
                [space @ .., "b64"] => (false, space),
                _ => return Err(cx.unsupported(i)),
            };
            let target = match space {
                [] => Target::Generic,
                ["shared" | "shared::cta"] => Target::Shared,
                _ => return Err(cx.unsupported(i)),
            };
            let [address] = cx.operands(i)?;
            let (address, target) = AddressOperand::new(cx, address, target)?;
            Decoded::new(Class::Copy, Arrive { target, address, increments: !noinc })
        }
        ["async", cache @ ("ca" | "cg"), "shared" | "shared::cta", "global", hints @ ..] => issue(i, cx, cache, hints),
        _ => Err(cx.unsupported(i)),
    }
}

fn issue(i: &Instruction, cx: &mut Lowering, cache: &str, hints: &[&str]) -> Result<Decoded> {
    let mut operands = i.operands.as_slice();
    for hint in hints {
        match *hint {
            "L2::cache_hint" => {
                let (policy, others) = operands.split_last().ok_or_else(|| cx.unsupported(i))?;
                cx.source::<u64>(policy)?;
                operands = others;
            }
            "L2::64B" | "L2::128B" | "L2::256B" => {}
            _ => return Err(cx.unsupported(i)),
        }
    }
    let (to, from, size, bytes) = match operands {
        [to, from, Operand::Integer(size)] => (to, from, *size, None),
        [to, from, Operand::Integer(size), bytes] => (to, from, *size, Some(bytes)),
        _ => return Err(cx.unsupported(i)),
    };
    if !matches!((cache, size), ("ca", 4 | 8 | 16) | ("cg", 16)) {
        return Err(cx.invalid(format!("cp.async.{cache} does not copy {size} bytes")));
    }
    let (destination, _) = AddressOperand::new(cx, to, Target::Shared)?;
    let (source, _) = AddressOperand::new(cx, from, Target::Global)?;
    let source_bytes = match bytes {
        None => Source::All,
        Some(bytes) => match cx.pred(bytes) {
            Ok(predicate) if !matches!(bytes, Operand::Integer(_)) => Source::Unless(predicate),
            _ => Source::First(cx.critical(bytes)?),
        },
    };
    Decoded::new(Class::Copy, Issue { destination, source, source_bytes, size: size as u32 })
}
