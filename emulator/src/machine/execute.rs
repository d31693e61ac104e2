//! What an instruction is to the machine, and what it may touch.

use super::block::Block;
use super::launch::Context;
use super::registers::{Lane, Lanes, Mask, Pred, Reg, WARP};
use super::warp::Warp;
use super::worker::Worker;
use crate::check::{Finding, Kind};

/// What happens to the lanes after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// On to the next instruction.
    Next,
    /// The lanes in `taken` go to `target`, the others on.
    Branch { taken: Mask, target: u32 },
    /// The lanes in `lanes` go to `target`; the other active ones execute the instruction again.
    Jump { lanes: Mask, target: u32 },
    /// The lanes in `lanes` enter a function; the call is executed again, `resumed`, when they have returned. The other active ones
    /// execute it again by themselves.
    Call { lanes: Mask, function: u32 },
    /// The active lanes return from a function, or end if it is the kernel.
    Return,
    /// The active lanes end.
    Exit,
    /// The lanes wait here until something wakes them; the instruction is then executed again with `resumed` set.
    Wait,
    /// On to the next instruction, but other warps first: this one asked for something that has not happened yet.
    Yield,
    /// The block cannot go on.
    Stop,
}

/// One decoded instruction: the code behind it and its operands.
pub(crate) trait Execute: Send + Sync {
    /// Executes it for the lanes in `cx.active` (at least one). Lanes outside of it must not change.
    fn execute(&self, cx: &mut Cx) -> Flow;
}

/// Everything that an instruction may touch.
pub(crate) struct Cx<'a> {
    pub warp: &'a mut Warp,
    /// Lanes that execute.
    pub active: Mask,
    /// The instruction.
    pub pc: u32,
    /// A waiting instruction that was woken.
    pub resumed: bool,
    /// The blocks of the cluster; `blocks[rank]` is the warp's own.
    pub blocks: &'a mut [Block],
    /// Rank of the warp's block in its cluster.
    pub rank: usize,
    pub launch: &'a Context<'a>,
    pub worker: &'a mut Worker,
}

impl Cx<'_> {
    /// The lanes of a register.
    #[inline(always)]
    pub(crate) fn get<T: Lane>(&self, register: Reg<T>) -> &Lanes<T> {
        self.warp.registers.get(register)
    }

    /// Writes the active lanes of a register.
    #[inline(always)]
    pub(crate) fn set<T: Lane>(&mut self, register: Reg<T>, value: &Lanes<T>) {
        let active = self.active;
        let lanes = self.warp.registers.get_mut(register);
        if active == !0 {
            *lanes = *value;
        } else {
            for lane in 0..WARP {
                if active >> lane & 1 == 1 {
                    lanes[lane] = value[lane];
                }
            }
        }
    }

    /// The lanes where a predicate holds.
    #[inline(always)]
    pub(crate) fn predicate(&self, register: Pred) -> Mask {
        self.warp.registers.predicate(register)
    }

    /// Sets a predicate in the active lanes.
    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, register: Pred, value: Mask) {
        let active = self.active;
        self.warp.registers.set_predicate(register, active, value);
    }

    /// Undefined lanes of a register, by its definedness id.
    #[inline(always)]
    pub(crate) fn undefined(&self, id: u32) -> Mask {
        self.warp.registers.undefined(id)
    }

    /// Says which of the active lanes of a register are undefined from now on; for operations with a taint rule of their own.
    #[inline(always)]
    pub(crate) fn set_undefined(&mut self, id: u32, undefined: Mask) {
        let active = self.active;
        self.warp.registers.set_undefined(id, active, undefined);
    }

    /// The block that the warp belongs to.
    #[inline(always)]
    pub(crate) fn block(&mut self) -> &mut Block {
        &mut self.blocks[self.rank]
    }

    /// Whether mistakes are looked for at all.
    #[inline(always)]
    pub(crate) fn checked(&self) -> bool {
        self.launch.checked
    }

    /// Tells of a mistake of one lane.
    #[cold]
    pub(crate) fn report(&mut self, kind: Kind, lane: usize, message: impl FnOnce() -> String) {
        self.report_at(kind, lane, None, None, message);
    }

    /// Tells of a mistake of one lane at an address, in or beside a buffer.
    #[cold]
    pub(crate) fn report_at(
        &mut self,
        kind: Kind,
        lane: usize,
        address: Option<u64>,
        buffer: Option<(String, i64)>,
        message: impl FnOnce() -> String,
    ) {
        let (launch, pc) = (self.launch, self.pc);
        let (block, warp) = (&self.blocks[self.rank], self.warp.index);
        self.worker.findings.report(kind, pc, || Finding {
            address,
            buffer,
            ..launch.finding(kind, message(), pc, block, warp, lane)
        });
    }

    /// Tells of a mistake at another instruction, by the first lane of another warp.
    #[cold]
    pub(crate) fn report_elsewhere(&mut self, kind: Kind, pc: u32, rank: usize, warp: usize, message: impl FnOnce() -> String) {
        let (launch, block) = (self.launch, &self.blocks[rank]);
        self.worker.findings.report(kind, pc, || launch.finding(kind, message(), pc, block, warp, 0));
    }
}

/// Indices of the lanes in a mask.
#[inline(always)]
pub(crate) fn lanes_of(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}
