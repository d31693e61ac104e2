//! Bulk groups: which of a thread's bulk stores are done. `cp.async.bulk.commit_group`, `cp.async.bulk.wait_group`.

use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Mask, Reg};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

/// The bulk groups of a warp's threads.
#[derive(Debug, Default)]
pub(crate) struct BulkGroups {
    /// Groups that each thread has committed: the number of the one that is open.
    committed: Lanes<u32>,
    /// Operations that are not done.
    unfinished: Vec<Operation>,
    /// Operations begun so far.
    begun: u64,
    /// Threads that wait.
    waiting: Mask,
}

/// An operation of a bulk group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    number: u64,
    lane: usize,
    /// The thread's groups are numbered from 0.
    pub group: u32,
}

impl BulkGroups {
    /// Adds an operation to a thread's open group.
    pub(super) fn begin(&mut self, lane: usize) -> Operation {
        self.begun += 1;
        let operation = Operation { number: self.begun, lane, group: self.committed[lane] };
        self.unfinished.push(operation);
        operation
    }

    /// How many of a thread's groups, the first ones, must be done if only `pending` may not be.
    fn waited_for(&self, lane: usize, pending: u32) -> u32 {
        self.committed[lane].saturating_sub(pending)
    }

    /// Whether one of a thread's first groups is not done.
    fn has_unfinished(&self, lane: usize, groups: u32) -> bool {
        self.unfinished.iter().any(|operation| operation.lane == lane && operation.group < groups)
    }
}

impl Cx<'_> {
    /// An operation of a bulk group is done: it has read its source and written its destination.
    pub(super) fn end_in_group(&mut self, operation: Operation) {
        let groups = &mut self.warp.bulk;
        if let Some(at) = groups.unfinished.iter().position(|unfinished| *unfinished == operation) {
            groups.unfinished.swap_remove(at);
            let woken = groups.waiting & 1 << operation.lane;
            groups.waiting &= !woken;
            let warp = self.warp.index;
            self.block().woken[warp] |= woken;
        }
    }
}

struct Commit;

impl Execute for Commit {
    fn execute(&self, cx: &mut Cx) -> Flow {
        for lane in lanes_of(cx.active) {
            cx.warp.bulk.committed[lane] += 1;
        }
        Flow::Next
    }
}

/// Operations happen as a whole, so that `.read`, which asks for their reading only, waits for the same.
struct Wait {
    pending: Reg<u32>,
}

impl Execute for Wait {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let pending = *cx.get(self.pending);
        let groups = |lane: usize| cx.warp.bulk.waited_for(lane, pending[lane]);
        let unfinished = lanes_of(cx.active).filter(|&lane| cx.warp.bulk.has_unfinished(lane, groups(lane)));
        let unfinished = unfinished.fold(0, |mask, lane| mask | 1 << lane);
        if unfinished != 0 {
            cx.warp.bulk.waiting |= unfinished;
            return Flow::Wait;
        }
        if cx.checked() {
            for lane in lanes_of(cx.active) {
                let groups = cx.warp.bulk.waited_for(lane, pending[lane]);
                cx.acquire_groups(lane, groups);
            }
        }
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    match modifiers {
        ["commit_group"] => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Copy, Commit)
        }
        ["wait_group"] | ["wait_group", "read"] => {
            let [pending] = cx.operands(i)?;
            let pending = cx.critical(pending)?;
            Decoded::new(Class::Barrier, Wait { pending })
        }
        _ => Err(cx.unsupported(i)),
    }
}
