//! Unordered accesses: to shared memory by the threads of a block or cluster, to global memory by different blocks.

use crate::machine::execute::Cx;
use crate::machine::registers::{Lanes, Mask};

/// What an access does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// A read and write in one step, which other atomics may come between but nothing tears.
    Atomic,
}

impl Cx<'_> {
    /// Notes an access of the lanes in `mask` to `size` bytes each of a block's shared memory, at byte positions from its start;
    /// all lie inside.
    #[inline(always)]
    pub(crate) fn note_shared(&mut self, _rank: usize, _positions: &Lanes<u32>, _mask: Mask, _size: u32, _access: Access) {}

    /// Notes an access of the lanes in `mask` to `size` bytes each of an allocation, at byte offsets from its start; all lie
    /// inside.
    #[inline(always)]
    pub(crate) fn note_global(&mut self, _allocation: usize, _offsets: &Lanes<u64>, _mask: Mask, _size: u32, _access: Access) {}
}
