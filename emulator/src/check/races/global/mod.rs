//! Races in global memory between the blocks of a launch.
//!
//! For every place the last write and the last read are kept, each with its block and that block's epoch. A block's epoch ends at
//! each of its fences of the device's scope. Who writes a location atomically or otherwise strongly leaves there what the block did
//! before the last fence that the writer executed or knows of through a barrier. Who reads a location so knows what was left there
//! after the next fence of the device's scope by its warp, or at once if the read is an acquire of that scope.
//!
//! A fence counts for all that the block did before it, and what one warp knows all of its block know: this can hide a race and
//! never makes one up. So does the choice to keep one reader and one writer only, and that blocks of a cluster are held to be
//! ordered as soon as they have synchronised at all.

mod access;
mod order;
mod shadow;
mod stamp;

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

pub(super) use access::{Accessor, Conflict};
pub(crate) use order::BlockClock;
use order::Locations;
pub(super) use order::Synchronization;
use shadow::Shadow;
pub(super) use stamp::Stamp;

use crate::machine::registers::{Lanes, Mask};

/// The shadow of a device's global memory.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    allocations: Vec<OnceLock<Shadow>>,
    /// Numbers of this launch's blocks. They are counted over all launches, so that what an earlier launch left stands for nobody
    /// and need not be cleared. The first belongs to no block: its stamp says that a line was split.
    numbers: Range<u32>,
    locations: Locations,
    /// Races are no longer looked for.
    lost: AtomicBool,
}

impl Shadows {
    /// Makes ready for a launch over this many allocations. One of more blocks than can be told apart is not checked.
    pub(crate) fn begin(&mut self, allocations: usize, blocks: u64) {
        self.allocations.resize_with(allocations, OnceLock::new);
        let numbers = blocks.saturating_add(1);
        let end = u64::from(self.numbers.end).saturating_add(numbers);
        if end <= stamp::MAX_BLOCKS {
            self.numbers = self.numbers.end..end as u32;
        } else {
            self.allocations.iter_mut().for_each(|shadow| *shadow = OnceLock::new());
            self.numbers = 0..numbers.min(stamp::MAX_BLOCKS) as u32;
        }
        self.locations = Locations::default();
        self.lost = AtomicBool::new(blocks <= 1 || numbers > stamp::MAX_BLOCKS);
    }

    /// Forgets an allocation that was freed.
    pub(crate) fn free(&mut self, index: usize) {
        if let Some(shadow) = self.allocations.get_mut(index) {
            *shadow = OnceLock::new();
        }
    }

    /// Number of a block of this launch over all launches, by its index in the grid.
    pub(crate) fn number(&self, index: u32) -> u32 {
        (self.numbers.start + 1).saturating_add(index)
    }

    /// Index in the grid of a block of this launch.
    pub(super) fn index(&self, number: u32) -> u32 {
        number.wrapping_sub(self.numbers.start + 1)
    }

    /// The stamp that says that a line was split, less than all others of this launch.
    #[inline(always)]
    pub(super) fn split(&self) -> Stamp {
        Stamp::least(self.numbers.start)
    }

    /// Whether races are looked for.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        !self.lost.load(Relaxed)
    }

    /// Notes the accesses of a warp's lanes to `size` bytes each of an allocation, all inside.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn note(
        &self,
        allocation: usize,
        bytes: u64,
        offsets: &Lanes<u64>,
        mask: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        if let Some(shadow) = self.allocations.get(allocation) {
            shadow.get_or_init(|| Shadow::new(bytes)).note(offsets, mask, size, accessor, conflict);
        }
    }

    /// A strong access to a location takes what was left there if it reads, and leaves something if it writes. When blocks have left
    /// too much, no further races are looked for.
    pub(super) fn synchronize(&self, allocation: usize, offset: u64, clock: &mut BlockClock, access: Synchronization) {
        if !self.locations.synchronize((allocation as u32, offset / 4), clock, access) {
            self.lost.store(true, Relaxed);
        }
    }
}
