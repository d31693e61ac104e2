//! Asynchronous operations between the moment that a thread asks for them and the moment that they happen.
//!
//! They happen as late as can be: when no warp of the cluster can go on, or at random moments if the launch's order is drawn from
//! a seed. What a kernel did not wait for is then seen to be missing.

use super::execute::Cx;
use super::registers::Mask;
use crate::check::races::Release;

/// One operation that has not happened yet; it lies with the block whose thread asked for it.
pub(crate) struct Transfer {
    /// The instruction.
    pub pc: u32,
    /// The threads that asked: their warp in the block, and their lanes.
    pub warp: usize,
    pub lanes: Mask,
    /// What those threads had done and known by then.
    pub issued: Release,
    /// Rounds of the scheduler since.
    pub age: u32,
    pub operation: Box<dyn Land>,
}

/// The work of a [`Transfer`].
pub(crate) trait Land {
    /// Does it, with the warp, the lanes and the instruction that asked for it in `cx`.
    fn land(&mut self, cx: &mut Cx, issued: &Release);
}

impl Cx<'_> {
    /// Leaves an operation that the threads in `lanes` ask for to be done later.
    pub(crate) fn begin_transfer(&mut self, lanes: Mask, operation: Box<dyn Land>) {
        let mut issued = Release::default();
        self.release(lanes, &mut issued);
        let (pc, warp) = (self.pc, self.warp.index);
        self.block().transfers.push_back(Transfer { pc, warp, lanes, issued, age: 0, operation });
    }
}
