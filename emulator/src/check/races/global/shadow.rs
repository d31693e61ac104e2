//! The last write and the last read of every part of an allocation.
//!
//! A line of 32 bytes has one stamp as long as every access was to the whole of it, which the warps of most kernels see to. The first
//! access to a part of a line splits it for the rest of the launch: then each granule of 4 bytes has its own.
//!
//! Workers do not wait for each other here. What two of them note in one line at the same moment can be lost, which hides a race;
//! but a stamp is only ever where its block was, so that none is made up.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::access::{Accessor, Conflict};
use super::stamp::Stamp;
use crate::isa::access::is_contiguous;
use crate::machine::execute::lanes_of;
use crate::machine::registers::{Lanes, Mask, WARP};
use crate::memory::device::zeroed;

/// Bytes of a line.
const LINE: u64 = 32;
/// Bytes of a granule: neighbours in one that different blocks write are told apart by the bits of its stamp.
const GRANULE: u64 = 4;
/// Granules of a line.
const PARTS: usize = (LINE / GRANULE) as usize;

/// The last accesses of one kind. Pages that nothing is noted in cost no memory, and little time to look at: most buffers are only
/// read or only written, and only few in parts of lines.
#[derive(Debug)]
struct Last {
    lines: Box<[AtomicU64]>,
    granules: OnceLock<Box<[AtomicU64]>>,
}

impl Last {
    /// Of nobody to `bytes` bytes; without memory for it no races are seen.
    fn new(bytes: u64) -> Self {
        Self { lines: zeroed(bytes.div_ceil(LINE) as usize).unwrap_or_default(), granules: OnceLock::new() }
    }

    /// The stamp of a line; `None` if it was split.
    fn line(&self, line: usize, split: Stamp) -> Option<Stamp> {
        Some(load(self.lines.get(line)?, split)).filter(|&stamp| stamp != split)
    }

    fn set_line(&self, line: usize, stamp: Stamp) {
        if let Some(slot) = self.lines.get(line) {
            slot.store(stamp.bits(), Relaxed);
        }
    }

    fn granule(&self, granule: usize, split: Stamp) -> Stamp {
        self.line(granule / PARTS, split).unwrap_or_else(|| {
            let own = self.granules.get().and_then(|granules| granules.get(granule));
            own.map_or(Stamp::from_bits(0, split), |stamp| load(stamp, split))
        })
    }

    fn set_granule(&self, granule: usize, stamp: Stamp, split: Stamp) {
        let all = self.granules.get_or_init(|| zeroed(self.lines.len() * PARTS).unwrap_or_default());
        let first = granule / PARTS * PARTS;
        let Some(granules) = all.get(first..first + PARTS) else { return };
        if let Some(whole) = self.line(granule / PARTS, split) {
            granules.iter().for_each(|slot| slot.store(whole.bits(), Relaxed));
            self.set_line(granule / PARTS, split);
        }
        granules[granule - first].store(stamp.bits(), Relaxed);
    }
}

/// Who accessed something last in the launch whose least stamp, which says that a line was split, is this.
#[inline(always)]
fn load(stamp: &AtomicU64, split: Stamp) -> Stamp {
    Stamp::from_bits(stamp.load(Relaxed), split)
}

/// What was noted of an allocation.
#[derive(Debug)]
pub(super) struct Shadow {
    writes: Last,
    reads: Last,
}

impl Shadow {
    /// Of `bytes` bytes that nobody has accessed.
    pub(super) fn new(bytes: u64) -> Self {
        Self { writes: Last::new(bytes), reads: Last::new(bytes) }
    }

    /// Notes the accesses of a warp's lanes to `size` bytes each, all inside.
    #[inline(always)]
    pub(super) fn note(
        &self,
        offsets: &Lanes<u64>,
        mask: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        if mask == !0 && !accessor.stamp.is_strong() && is_contiguous(offsets, size) {
            let bytes = offsets[0]..offsets[0] + u64::from(size) * WARP as u64;
            if !self.note_own(&bytes, accessor) {
                self.note_span(bytes, offsets, mask, size, accessor, conflict);
            }
        } else {
            self.note_spans(offsets, mask, size, accessor, conflict);
        }
    }

    /// Lanes whose bytes follow each other are noted together.
    fn note_spans(&self, offsets: &Lanes<u64>, mask: Mask, size: u32, accessor: &Accessor, conflict: &mut impl FnMut(Conflict)) {
        let step = u64::from(size);
        let mut left = mask;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let (mut bytes, mut lanes) = (offsets[first]..offsets[first] + step, 1 << first);
            for lane in lanes_of(left & !lanes) {
                // A strong access must not hide a plain one of its own block.
                if accessor.stamp.is_strong() {
                    break;
                } else if offsets[lane] == bytes.end {
                    bytes.end += step;
                } else if accessor.write || offsets[lane] + step != bytes.end {
                    break;
                }
                lanes |= 1 << lane;
            }
            left &= !lanes;
            if !self.note_own(&bytes, accessor) {
                self.note_span(bytes, offsets, lanes, size, accessor, conflict);
            }
        }
    }

    /// Notes a plain access to whole lines if nobody else has touched them, or only reads were done; whether that is so.
    #[inline(always)]
    fn note_own(&self, bytes: &Range<u64>, accessor: &Accessor) -> bool {
        if !(bytes.start | bytes.end).is_multiple_of(LINE) || accessor.stamp.is_strong() {
            return false;
        }
        let lines = (bytes.start / LINE) as usize..(bytes.end / LINE) as usize;
        let (Some(writes), Some(reads)) = (self.writes.lines.get(lines.clone()), self.reads.lines.get(lines)) else { return false };
        let split = accessor.split;
        let (mut foreign, mut foreign_read, mut split_read) = (false, false, false);
        for (write, read) in writes.iter().zip(reads) {
            let (write, read) = (load(write, split), load(read, split));
            foreign |= write.is_touched_by_others(accessor.stamp);
            foreign_read |= read.is_touched_by_others(accessor.stamp);
            split_read |= read == split;
        }
        if foreign || split_read || accessor.write && foreign_read {
            return false;
        }
        let slots = if accessor.write { writes } else { reads };
        for slot in slots {
            let many = foreign_read && load(slot, split).is_touched_by_others(accessor.stamp);
            slot.store(accessor.stamp.with_many(many).bits(), Relaxed);
        }
        true
    }

    /// Notes the accesses of some lanes, whose bytes follow each other: line by line if that can be, or else granule by granule.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn note_span(
        &self,
        bytes: Range<u64>,
        offsets: &Lanes<u64>,
        lanes: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        let (last, split) = (if accessor.write { &self.writes } else { &self.reads }, accessor.split);
        let mut at = bytes.start;
        while at < bytes.end {
            let line = (at / LINE) as usize;
            if at.is_multiple_of(LINE)
                && bytes.end - at >= LINE
                && let (Some(write), Some(read)) = (self.writes.line(line, split), self.reads.line(line, split))
                && let Some(stamp) = accessor.follow_ordered(write, read)
            {
                last.set_line(line, stamp);
                at += LINE;
                continue;
            }
            let end = bytes.end.min((at / LINE + 1) * LINE);
            while at < end {
                let granule = at / GRANULE;
                let next = end.min((granule + 1) * GRANULE);
                self.note_granule(granule, next - at == GRANULE, offsets, lanes, size, accessor, conflict);
                at = next;
            }
        }
    }

    /// Notes the accesses of some lanes to a granule: in one if they cover the `whole` of it and nothing is wrong, or else lane by
    /// lane.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn note_granule(
        &self,
        granule: u64,
        whole: bool,
        offsets: &Lanes<u64>,
        lanes: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        let (index, start) = (granule as usize, granule * GRANULE);
        let (last, split) = (if accessor.write { &self.writes } else { &self.reads }, accessor.split);
        let stamps = || (self.writes.granule(index, split), self.reads.granule(index, split));
        if whole {
            let (write, read) = stamps();
            if let Some(stamp) = accessor.follow_ordered(write, read) {
                return last.set_granule(index, stamp, split);
            }
        }
        for lane in lanes_of(lanes) {
            let (from, to) = (offsets[lane].max(start), (offsets[lane] + u64::from(size)).min(start + GRANULE));
            if from >= to {
                continue;
            }
            let within = ((1 << (to - from)) - 1) << (from - start);
            let accessor = Accessor { stamp: accessor.stamp.with_bytes(within), ..*accessor };
            let (write, read) = stamps();
            let stamp = accessor.follow(write, read, |other, wrote| conflict(Conflict { lane, offset: start, other, wrote }));
            last.set_granule(index, stamp, split);
        }
    }
}

#[cfg(test)]
#[path = "shadow_tests.rs"]
mod tests;
