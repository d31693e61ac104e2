//! Which bytes of a block's shared memory asynchronous operations have yet to write or to read.

use std::ops::Range;

use crate::check::Kind;
use crate::check::races::Access;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask};

/// What an asynchronous operation does to a range until it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It will write: nobody may read or write.
    Writes,
    /// It still reads: nobody may write.
    Reads,
}

/// The ranges in flight, kept for each 4-byte word: asynchronous operations move whole words.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Empty until the first asynchronous operation.
    words: Vec<Word>,
    /// The sum of all their counts.
    used: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Word {
    writers: u16,
    readers: u16,
    /// The operation that came last.
    pc: u32,
}

impl InFlight {
    /// Nothing is in flight.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// From now on the operation at `pc` uses bytes `range`, positions from the start of the block's shared memory.
    pub(crate) fn begin(&mut self, range: Range<usize>, usage: Use, pc: u32) {
        let words = words(range);
        self.used += words.len();
        if self.words.len() < words.end {
            self.words.resize(words.end, Word::default());
        }
        for word in &mut self.words[words] {
            let count = word.count(usage);
            *count = count.saturating_add(1);
            word.pc = pc;
        }
    }

    /// An operation that began to use these bytes, maybe with others, is done with them.
    pub(crate) fn end(&mut self, range: Range<usize>, usage: Use) {
        let words = words(range);
        self.used = self.used.saturating_sub(words.len());
        for word in self.words.get_mut(words).unwrap_or_default() {
            let count = word.count(usage);
            *count = count.saturating_sub(1);
        }
    }

    /// What an access may not come between, if anything, and the operation's program counter.
    fn conflict(&self, range: Range<usize>, access: Access) -> Option<(Use, u32)> {
        let words = words(range);
        let words = self.words.get(words.start..words.end.min(self.words.len()))?;
        if words.iter().fold(0, |used, word| used | word.writers | word.readers) == 0 {
            return None;
        }
        words.iter().find_map(|word| match *word {
            Word { writers: 1.., pc, .. } => Some((Use::Writes, pc)),
            Word { readers: 1.., pc, .. } if access.writes() => Some((Use::Reads, pc)),
            _ => None,
        })
    }
}

impl Word {
    fn count(&mut self, usage: Use) -> &mut u16 {
        match usage {
            Use::Writes => &mut self.writers,
            Use::Reads => &mut self.readers,
        }
    }
}

/// The words that a range of bytes touches.
fn words(range: Range<usize>) -> Range<usize> {
    range.start / 4..range.end.div_ceil(4)
}

impl Cx<'_> {
    /// The instruction begins to use `bytes` bytes of a block's shared memory asynchronously, for the thread in `lane`: from now
    /// on others' accesses are findings, and if it comes between another operation's accesses, that is one now.
    pub(crate) fn begin_in_flight(&mut self, rank: usize, position: usize, bytes: usize, usage: Use, lane: usize) {
        if !self.checked() {
            return;
        }
        let range = position..position + bytes;
        let access = if usage == Use::Writes { Access::Write } else { Access::Read };
        if let Some(conflict) = self.blocks[rank].in_flight.conflict(range.clone(), access) {
            self.report_in_flight(position, bytes, conflict, access, lane);
        }
        self.blocks[rank].in_flight.begin(range, usage, self.pc);
    }

    /// The same for `size` bytes of each of some lanes, which need not be apart from each other.
    pub(crate) fn begin_lanes_in_flight(&mut self, rank: usize, positions: &Lanes<u32>, lanes: Mask, size: u32, usage: Use) {
        if !self.checked() {
            return;
        }
        let access = if usage == Use::Writes { Access::Write } else { Access::Read };
        self.check_in_flight(rank, positions, lanes, size, access);
        for lane in lanes_of(lanes) {
            let start = positions[lane] as usize;
            self.blocks[rank].in_flight.begin(start..start + size as usize, usage, self.pc);
        }
    }

    /// What began with [`begin_in_flight`](Self::begin_in_flight) is done with these bytes.
    pub(crate) fn end_in_flight(&mut self, rank: usize, position: usize, bytes: usize, usage: Use) {
        if self.checked() {
            self.blocks[rank].in_flight.end(position..position + bytes, usage);
        }
    }

    /// The lanes of `lanes` whose accesses to `size` bytes each come between those of an asynchronous operation, which is told.
    #[inline(always)]
    pub(crate) fn check_in_flight(&mut self, rank: usize, positions: &Lanes<u32>, lanes: Mask, size: u32, access: Access) -> Mask {
        if self.blocks[rank].in_flight.is_empty() {
            return 0;
        }
        self.find_in_flight(rank, positions, lanes, size, access)
    }

    #[inline(never)]
    fn find_in_flight(&mut self, rank: usize, positions: &Lanes<u32>, lanes: Mask, size: u32, access: Access) -> Mask {
        let mut found = 0;
        for lane in lanes_of(lanes) {
            let (start, size) = (positions[lane] as usize, size as usize);
            if let Some(conflict) = self.blocks[rank].in_flight.conflict(start..start + size, access) {
                self.report_in_flight(start, size, conflict, access, lane);
                found |= 1 << lane;
            }
        }
        found
    }

    #[cold]
    fn report_in_flight(&mut self, position: usize, bytes: usize, (usage, pc): (Use, u32), access: Access, lane: usize) {
        let address = crate::memory::shared::SHARED_START + position as u32;
        let (place, buffer) = (self.launch.place(pc), self.launch.shared.nearest(address));
        let verb = if access.writes() { "writes" } else { "reads" };
        let (kind, state) = match usage {
            Use::Writes => (Kind::NotWaitedFor, "has yet to write: nothing waited for it"),
            Use::Reads => (Kind::OperandInFlight, "may still be reading"),
        };
        self.report_at(kind, lane, Some(u64::from(address)), buffer, || {
            format!("{verb} {bytes} bytes that the asynchronous operation at {place}, `{}`, {state}", place.instruction)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_in_flight_between_begin_and_end() {
        let mut flight = InFlight::default();
        assert!(flight.is_empty());
        flight.begin(16..32, Use::Writes, 7);
        flight.begin(32..48, Use::Reads, 8);
        assert_eq!(flight.conflict(0..16, Access::Write), None);
        assert_eq!(flight.conflict(12..20, Access::Read), Some((Use::Writes, 7)));
        assert_eq!(flight.conflict(28..32, Access::Write), Some((Use::Writes, 7)));
        assert_eq!(flight.conflict(32..48, Access::Read), None);
        assert_eq!(flight.conflict(47..48, Access::Atomic), Some((Use::Reads, 8)));
        assert_eq!(flight.conflict(4000..4016, Access::Write), None);
        flight.end(16..32, Use::Writes);
        assert_eq!(flight.conflict(16..32, Access::Write), None);
        flight.end(32..48, Use::Reads);
        assert!(flight.is_empty());
    }

    #[test]
    fn several_readers_of_one_range_are_counted() {
        let mut flight = InFlight::default();
        flight.begin(0..16, Use::Reads, 1);
        flight.begin(8..24, Use::Reads, 2);
        flight.end(0..16, Use::Reads);
        assert_eq!(flight.conflict(0..8, Access::Write), None);
        assert_eq!(flight.conflict(8..12, Access::Write), Some((Use::Reads, 2)));
    }
}
