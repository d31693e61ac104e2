//! Whether an access may follow those before it, and what it leaves.

use super::order::BlockClock;
use super::stamp::Stamp;

/// Who accesses, and how.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Accessor<'a> {
    pub clock: &'a BlockClock,
    pub stamp: Stamp,
    pub write: bool,
    /// Stands where a line was split. All stamps of this launch are greater, all of others less.
    pub split: Stamp,
}

/// An access that nothing orders after an earlier one of another block.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Conflict {
    pub lane: usize,
    /// First byte of the granule in its allocation.
    pub offset: u64,
    pub other: Stamp,
    /// The earlier access was a write.
    pub wrote: bool,
}

impl Accessor<'_> {
    fn may_follow(&self, other: Stamp) -> bool {
        other.is_nobody()
            || other.block() == self.clock.block
            || other.is_strong() && self.stamp.is_strong()
            || !other.overlaps(self.stamp)
            || self.clock.is_before(other)
    }

    /// Whether under an access of the block's own lie others that nothing has ordered.
    fn hides(&self, last: Stamp) -> bool {
        let many = last.is_many() && last.block() == self.clock.block && self.clock.knows_nobody();
        many && !self.stamp.is_strong() && last.overlaps(self.stamp)
    }

    /// What the access leaves in place of the last write if it writes, of the last read otherwise. `conflict` is told with whom it
    /// is not ordered, and whether that was a write.
    pub(super) fn follow(&self, last_write: Stamp, last_read: Stamp, mut conflict: impl FnMut(Stamp, bool)) -> Stamp {
        let own = self.clock.block;
        if !self.may_follow(last_write) || self.hides(last_write) {
            conflict(last_write, true);
        }
        if self.write {
            if !self.may_follow(last_read) || self.hides(last_read) {
                conflict(last_read, false);
            }
            let others = !last_write.is_nobody() && last_write.block() != own && !self.clock.is_before(last_write);
            let merged = self.stamp.merged(last_write);
            merged.with_many(self.stamp.is_strong() && (others || last_write.is_many()))
        } else {
            let others = !last_read.is_nobody() && last_read.block() != own && last_read.overlaps(self.stamp);
            self.stamp.merged(last_read).with_many(others || last_read.is_many())
        }
    }

    /// The same if it is ordered after both.
    pub(super) fn follow_ordered(&self, last_write: Stamp, last_read: Stamp) -> Option<Stamp> {
        let mut ordered = true;
        let stamp = self.follow(last_write, last_read, |_, _| ordered = false);
        ordered.then_some(stamp)
    }
}
