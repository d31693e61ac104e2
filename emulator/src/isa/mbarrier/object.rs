//! The `mbarrier` objects of a cluster's blocks: found, kept in step with their bytes, and told of when misused.

use crate::check::Kind;
use crate::check::races::{Access, Release};
use crate::isa::access::window_of;
use crate::isa::address::Target;
use crate::machine::execute::Cx;
use crate::machine::registers::{Mask, WARP};
use crate::memory::mbarrier::{Mbarrier, SIZE};
use crate::memory::shared::SHARED_START;

/// An `mbarrier` of a block, and what those who arrive at it leave for those who wait.
#[derive(Debug)]
pub(crate) struct Object {
    pub barrier: Mbarrier,
    /// Left in the current phase.
    leaving: Release,
    /// Left in the phases that are complete.
    pub(super) left: Release,
}

impl Object {
    pub(super) fn new(barrier: Mbarrier) -> Self {
        Self { barrier, leaving: Release::default(), left: Release::default() }
    }
}

impl Cx<'_> {
    /// The block and the position of the object that one lane's address means; a finding if there can be none.
    pub(in crate::isa) fn mbarrier_position(&mut self, target: Target, lane: usize, address: u64) -> Option<(usize, usize)> {
        let (space, window) = if target == Target::Generic { window_of(address) } else { (target, 0) };
        if space != Target::Shared {
            self.report_at(Kind::InvalidOperation, lane, Some(address), None, || "an mbarrier lies in shared memory".into());
            return None;
        }
        if !self.is_aligned(lane, address, SIZE) {
            return None;
        }
        self.shared_position(lane, address - window, SIZE)
    }

    /// The valid object at a position; a finding if there is none.
    pub(in crate::isa) fn mbarrier(&mut self, rank: usize, position: usize, lane: usize) -> Option<&mut Object> {
        let bytes = self.blocks[rank].shared.read_wide(position, SIZE);
        let Some(object) = self.blocks[rank].mbarriers.get(&position) else {
            self.report_mbarrier(rank, position, lane, || "used without mbarrier.init, or after mbarrier.inval".into());
            return None;
        };
        if object.barrier.image() != bytes {
            self.report_mbarrier(rank, position, lane, || "overwritten by something that is no mbarrier operation".into());
            self.store_image(rank, position);
        }
        self.blocks[rank].mbarriers.get_mut(&position)
    }

    /// Writes what an object's bytes hold now.
    pub(super) fn store_image(&mut self, rank: usize, position: usize) {
        let block = &mut self.blocks[rank];
        if let Some(object) = block.mbarriers.get(&position) {
            block.shared.write_wide(position, SIZE, object.barrier.image());
        }
    }

    /// After an object has changed; `complete`: its phase is over.
    pub(in crate::isa) fn end_phase(&mut self, rank: usize, position: usize, complete: bool) {
        if complete && let Some(object) = self.blocks[rank].mbarriers.get_mut(&position) {
            let leaving = std::mem::take(&mut object.leaving);
            object.left.merge(&leaving);
        }
        self.store_image(rank, position);
    }

    /// Lanes leave what they know to those who wait for the current phase of an object.
    pub(super) fn leave_at_mbarrier(&mut self, rank: usize, position: usize, lanes: Mask) {
        if lanes == 0 {
            return;
        }
        let Some(object) = self.blocks[rank].mbarriers.get_mut(&position) else { return };
        let mut release = std::mem::take(&mut object.leaving);
        self.release(lanes, &mut release);
        if let Some(object) = self.blocks[rank].mbarriers.get_mut(&position) {
            object.leaving = release;
        }
    }

    /// Those who wait for the current phase of an object come after `done`.
    pub(in crate::isa) fn leave_copy_at_mbarrier(&mut self, rank: usize, position: usize, done: &Release) {
        if let Some(object) = self.blocks[rank].mbarriers.get_mut(&position) {
            object.leaving.merge(done);
        }
    }

    /// Counts bytes that have come at an object; a finding if it is not valid or cannot count them.
    pub(in crate::isa) fn complete_bytes(&mut self, rank: usize, position: usize, lane: usize, bytes: u32) {
        let Some(object) = self.mbarrier(rank, position, lane) else { return };
        let complete = object.barrier.complete(bytes);
        self.end_phase(rank, position, complete == Ok(true));
        if let Err(problem) = complete {
            self.report_mbarrier(rank, position, lane, || problem);
        }
    }

    /// Notes that lanes access the object at a position.
    pub(in crate::isa) fn note_mbarrier(&mut self, rank: usize, position: usize, lanes: Mask, access: Access) {
        if self.checked() {
            let positions = [position as u32; WARP];
            self.check_in_flight(rank, &positions, lanes, SIZE, access);
            self.note_shared(rank, &positions, lanes, SIZE, access);
        }
    }

    /// Tells of a misuse of the object at a position.
    #[cold]
    pub(in crate::isa) fn report_mbarrier(&mut self, rank: usize, position: usize, lane: usize, message: impl FnOnce() -> String) {
        let address = SHARED_START + position as u32;
        let (buffer, own) = (self.launch.shared.nearest(address), rank == self.rank);
        self.report_at(Kind::Mbarrier, lane, Some(u64::from(address)), buffer, || {
            let whose = if own { String::new() } else { format!(" of block {rank} of the cluster") };
            format!("mbarrier at shared address {address:#x}{whose}: {}", message())
        });
    }
}
