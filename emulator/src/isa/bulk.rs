//! `cp.async.bulk`, `cp.reduce.async.bulk`: contiguous bytes between global and shared memory and from block to block.

use super::address::{AddressOperand, Target};
use super::bulk_move::{Completion, End, Move, Reduce, Run};
use super::reduction::{add_f32_flushed, reduction};
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Reg};
use crate::memory::shared::Range;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

/// Alignment of both addresses and of the size, in bytes.
const ALIGNMENT: u32 = 16;

/// Which way the bytes go, and what is needed for it.
#[derive(Clone, Copy)]
enum Direction {
    /// Global to shared memory, of several blocks if there is a mask.
    Load { mbarrier: AddressOperand, blocks: Option<Reg<u16>> },
    /// Shared to global memory.
    Store,
    /// The block's shared memory to that of one of the cluster.
    Send { mbarrier: AddressOperand },
}

struct Bulk {
    direction: Direction,
    to: AddressOperand,
    from: AddressOperand,
    bytes: Reg<u32>,
    reduce: Option<Reduce>,
}

impl Execute for Bulk {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (to, from, bytes) = (self.to.addresses(cx), self.from.addresses(cx), *cx.get(self.bytes));
        let mbarrier: Lanes<u64> = match self.direction {
            Direction::Load { mbarrier, .. } | Direction::Send { mbarrier } => mbarrier.addresses(cx),
            Direction::Store => to,
        };
        for lane in lanes_of(cx.active) {
            let bytes = bytes[lane];
            if bytes % ALIGNMENT != 0 {
                cx.report(Kind::InvalidOperation, lane, || format!("a size of {bytes} bytes is no multiple of {ALIGNMENT}"));
                continue;
            }
            let addresses = Addresses { to: to[lane], from: from[lane], mbarrier: mbarrier[lane] };
            if let Some(operation) = self.operation(cx, lane, addresses, bytes) {
                operation.begin(cx, lane);
            }
        }
        Flow::Next
    }
}

struct Addresses {
    to: u64,
    from: u64,
    mbarrier: u64,
}

impl Bulk {
    /// What one lane asks for; none if it is impossible, which is told.
    fn operation(&self, cx: &mut Cx, lane: usize, at: Addresses, bytes: u32) -> Option<Move> {
        let shared = |range: Range| End::Shared(range.position);
        let runs = |from: End, to: End| if bytes == 0 { Vec::new() } else { vec![Run { from, to, length: bytes }] };
        let reduce = self.reduce;
        match self.direction {
            Direction::Load { blocks, .. } => {
                let destination = cx.shared_range(lane, at.to, bytes, ALIGNMENT)?;
                let counting = match blocks {
                    None => vec![destination.rank],
                    Some(blocks) => {
                        let mask = cx.get(blocks)[lane];
                        cx.multicast_ranks(lane, mask)
                    }
                };
                let position = cx.counting_mbarrier(lane, at.mbarrier, destination.rank, &counting)?;
                if !cx.is_aligned_to(lane, at.from, ALIGNMENT) {
                    return None;
                }
                let from = cx.global_range(lane, at.from, bytes, false)?;
                let destinations = counting.iter().map(|&rank| Range { rank, ..destination }).collect();
                let (runs, completion) = (runs(from, shared(destination)), Completion::Mbarrier(position));
                Some(Move { runs, source: None, destinations, reduce, completion, bytes })
            }
            Direction::Store => {
                let source = cx.shared_range(lane, at.from, bytes, ALIGNMENT)?;
                if !cx.is_aligned_to(lane, at.to, ALIGNMENT) {
                    return None;
                }
                let to = cx.global_range(lane, at.to, bytes, true)?;
                let completion = Completion::Group(cx.warp.bulk.begin(lane));
                let (runs, source) = (runs(shared(source), to), Some(source));
                Some(Move { runs, source, destinations: Vec::new(), reduce, completion, bytes })
            }
            Direction::Send { .. } => {
                let source = cx.shared_range(lane, at.from, bytes, ALIGNMENT)?;
                let destination = cx.shared_range(lane, at.to, bytes, ALIGNMENT)?;
                let position = cx.counting_mbarrier(lane, at.mbarrier, destination.rank, &[destination.rank])?;
                let runs = runs(shared(source), shared(destination));
                let completion = Completion::Mbarrier(position);
                Some(Move { runs, source: Some(source), destinations: vec![destination], reduce, completion, bytes })
            }
        }
    }
}

/// `cp.async.bulk.prefetch`: nothing but the check that the range exists.
struct Prefetch {
    from: AddressOperand,
    bytes: Reg<u32>,
}

impl Execute for Prefetch {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (from, bytes) = (self.from.addresses(cx), *cx.get(self.bytes));
        for lane in lanes_of(cx.active) {
            if cx.is_aligned_to(lane, from[lane], ALIGNMENT) && cx.is_aligned_to(lane, bytes[lane].into(), ALIGNMENT) {
                cx.global_range(lane, from[lane], bytes[lane], false);
            }
        }
        Flow::Next
    }
}

/// The operands without the cache policy that a hint adds, and the modifiers without the hint.
pub(super) fn without_hint<'i, 'm>(
    i: &'i Instruction,
    cx: &mut Lowering,
    modifiers: &[&'m str],
) -> Result<(&'i [Operand], Vec<&'m str>)> {
    let rest: Vec<&str> = modifiers.iter().copied().filter(|&modifier| modifier != "L2::cache_hint").collect();
    if rest.len() == modifiers.len() {
        return Ok((&i.operands, rest));
    }
    let (policy, operands) = i.operands.split_last().ok_or_else(|| cx.unsupported(i))?;
    cx.source::<u64>(policy)?;
    Ok((operands, rest))
}

/// The rest of `cp.async.bulk`.
pub(super) fn decode(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    let (operands, modifiers) = without_hint(i, cx, modifiers)?;
    lower(i, cx, operands, &modifiers, None)
}

/// The rest of `cp.reduce.async.bulk`.
pub(super) fn decode_reduce(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    let (operands, modifiers) = without_hint(i, cx, modifiers)?;
    let (way, operation, noftz, ty) = match modifiers.as_slice() {
        [way @ .., operation, "noftz", ty] => (way, *operation, true, *ty),
        [way @ .., operation, ty] => (way, *operation, false, *ty),
        _ => return Err(cx.unsupported(i)),
    };
    let half = matches!(ty, "f16" | "bf16");
    let known = matches!(operation, "add" | "min" | "max" | "and" | "or" | "xor" | "inc" | "dec");
    if !known || matches!(ty, "f16x2" | "bf16x2") || noftz != (half && operation == "add") {
        return Err(cx.unsupported(i));
    }
    let reduction = reduction(operation, ty).ok_or_else(|| cx.unsupported(i))?;
    let combine = if (operation, ty) == ("add", "f32") { add_f32_flushed } else { reduction.combine };
    lower(i, cx, operands, way, Some(Reduce { combine, size: reduction.size }))
}

fn lower(i: &Instruction, cx: &mut Lowering, operands: &[Operand], way: &[&str], reduce: Option<Reduce>) -> Result<Decoded> {
    const BYTES: &str = "mbarrier::complete_tx::bytes";
    let address = |cx: &mut Lowering, operand: &Operand, target: Target| Ok(AddressOperand::new(cx, operand, target)?.0);
    let (ends, to, from, bytes, direction) = match (way, operands) {
        (["shared::cluster" | "shared::cta", "global", BYTES], [to, from, bytes, mbarrier]) if reduce.is_none() => {
            let mbarrier = address(cx, mbarrier, Target::Shared)?;
            ((Target::Shared, Target::Global), to, from, bytes, Direction::Load { mbarrier, blocks: None })
        }
        (["shared::cluster", "global", BYTES, "multicast::cluster"], [to, from, bytes, mbarrier, blocks]) if reduce.is_none() => {
            let (mbarrier, blocks) = (address(cx, mbarrier, Target::Shared)?, Some(cx.critical(blocks)?));
            ((Target::Shared, Target::Global), to, from, bytes, Direction::Load { mbarrier, blocks })
        }
        (["global", "shared::cta", "bulk_group"], [to, from, bytes]) => {
            ((Target::Global, Target::Shared), to, from, bytes, Direction::Store)
        }
        (["shared::cluster", "shared::cta", BYTES], [to, from, bytes, mbarrier]) => {
            let mbarrier = address(cx, mbarrier, Target::Shared)?;
            ((Target::Shared, Target::Shared), to, from, bytes, Direction::Send { mbarrier })
        }
        _ => return Err(cx.unsupported(i)),
    };
    let (to, from) = (address(cx, to, ends.0)?, address(cx, from, ends.1)?);
    let bytes = cx.critical(bytes)?;
    Decoded::new(Class::Copy, Bulk { direction, to, from, bytes, reduce })
}

/// The rest of `cp.async.bulk.prefetch`.
pub(super) fn decode_prefetch(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    let (operands, modifiers) = without_hint(i, cx, modifiers)?;
    let (["L2", "global"], [from, bytes]) = (modifiers.as_slice(), operands) else { return Err(cx.unsupported(i)) };
    let (from, _) = AddressOperand::new(cx, from, Target::Global)?;
    let bytes = cx.critical(bytes)?;
    Decoded::new(Class::Copy, Prefetch { from, bytes })
}
