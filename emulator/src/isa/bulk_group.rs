//! Bulk groups: which of a thread's bulk stores are done. `cp.async.bulk.commit_group`, `cp.async.bulk.wait_group`.

use crate::Result;
use crate::check::races::Release;
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
    /// Left by what is done.
    left: Release,
}

#[derive(Debug)]
struct Operation {
    number: u64,
    lane: usize,
    group: u32,
}

impl BulkGroups {
    /// Adds an operation to a thread's open group; its number.
    pub(crate) fn begin(&mut self, lane: usize) -> u64 {
        self.begun += 1;
        self.unfinished.push(Operation { number: self.begun, lane, group: self.committed[lane] });
        self.begun
    }

    /// Whether a thread has more than `pending` committed groups that are not done.
    fn has_unfinished(&self, lane: usize, pending: u32) -> bool {
        let first_pending = self.committed[lane].saturating_sub(pending);
        self.unfinished.iter().any(|operation| operation.lane == lane && operation.group < first_pending)
    }
}

impl Cx<'_> {
    /// An operation of a bulk group is done: it has read its source and written its destination. Those who wait for it come after
    /// `done`.
    pub(super) fn end_in_group(&mut self, number: u64, done: &Release) {
        let groups = &mut self.warp.bulk;
        groups.left.merge(done);
        if let Some(at) = groups.unfinished.iter().position(|operation| operation.number == number) {
            let lane = groups.unfinished.swap_remove(at).lane;
            let woken = groups.waiting & 1 << lane;
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
        let unfinished = lanes_of(cx.active).filter(|&lane| cx.warp.bulk.has_unfinished(lane, pending[lane]));
        let unfinished = unfinished.fold(0, |mask, lane| mask | 1 << lane);
        if unfinished != 0 {
            cx.warp.bulk.waiting |= unfinished;
            return Flow::Wait;
        }
        let left = std::mem::take(&mut cx.warp.bulk.left);
        let lanes = cx.active;
        cx.acquire(lanes, &left);
        cx.warp.bulk.left = left;
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
