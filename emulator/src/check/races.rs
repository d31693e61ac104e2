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

impl Access {
    /// Whether memory is written.
    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// What threads that arrive somewhere leave for those who come after.
#[derive(Debug, Clone, Default)]
pub(crate) struct Release;

impl Release {
    /// Adds what another release holds.
    pub(crate) fn merge(&mut self, _other: &Self) {}
}

impl Cx<'_> {
    /// Some lanes leave all that they have done and know for those who acquire it.
    pub(crate) fn release(&mut self, _lanes: Mask, _into: &mut Release) {}

    /// Some lanes know from now on what was left.
    pub(crate) fn acquire(&mut self, _lanes: Mask, _from: &Release) {}

    /// Notes that an asynchronous copy reads or writes bytes of a block's shared memory. `issued` is what the thread that asked
    /// for it left then; those who acquire `done` come after it.
    pub(crate) fn note_copy(
        &mut self,
        _issued: &Release,
        _rank: usize,
        _start: u32,
        _bytes: u32,
        _write: bool,
        _done: &mut Release,
    ) {
    }

    /// Notes an access of the lanes in `mask` to `size` bytes each of a block's shared memory, at byte positions from its start;
    /// all lie inside.
    #[inline(always)]
    pub(crate) fn note_shared(&mut self, _rank: usize, _positions: &Lanes<u32>, _mask: Mask, _size: u32, _access: Access) {}

    /// Notes an access of the lanes in `mask` to `size` bytes each of an allocation, at byte offsets from its start; all lie
    /// inside.
    #[inline(always)]
    pub(crate) fn note_global(&mut self, _allocation: usize, _offsets: &Lanes<u64>, _mask: Mask, _size: u32, _access: Access) {}
}
