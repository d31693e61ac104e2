//! Which sectors of a buffer a launch touches at all.

use crate::check::races::Access;
use crate::isa::access::SECTOR;

/// Which sectors of an allocation a worker has read and written: one bit for each. Every worker has a set of its own, because
/// neighbouring blocks run on different ones and would wait for each other's bits.
pub(crate) struct Touched {
    words: usize,
    read: Vec<u64>,
    written: Vec<u64>,
}

impl Touched {
    /// None of an allocation of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { words: bytes.div_ceil(64 * SECTOR) as usize, read: Vec::new(), written: Vec::new() }
    }

    /// Notes an access to the sectors from `first` to `last`.
    #[inline(always)]
    pub(crate) fn mark(&mut self, first: u64, last: u64, access: Access) {
        if access.reads() {
            set(&mut self.read, self.words, first, last);
        }
        if access.writes() {
            set(&mut self.written, self.words, first, last);
        }
    }

    /// Adds what another worker has touched of the same allocation.
    pub(crate) fn merge(&mut self, other: Self) {
        for (into, from) in [(&mut self.read, other.read), (&mut self.written, other.written)] {
            if into.is_empty() {
                *into = from;
            } else {
                into.iter_mut().zip(from).for_each(|(into, from)| *into |= from);
            }
        }
    }

    /// Distinct sectors read and written.
    pub(crate) fn distinct(&self) -> (u64, u64) {
        let count = |words: &[u64]| words.iter().map(|word| u64::from(word.count_ones())).sum();
        (count(&self.read), count(&self.written))
    }
}

#[inline(always)]
fn set(words: &mut Vec<u64>, count: usize, first: u64, last: u64) {
    if words.is_empty() {
        *words = vec![0; count];
    }
    for word in first / 64..=last / 64 {
        let (from, to) = (first.max(word * 64) % 64, last.min(word * 64 + 63) % 64);
        words[word as usize] |= !0 << from & !0 >> (63 - to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_sector_once() {
        let runs = [
            (0, 0, Access::Read),
            (3, 3, Access::Write),
            (60, 70, Access::Atomic),
            (63, 191, Access::Read),
            (64, 64, Access::Write),
        ];
        // By one worker, and by two that take turns.
        for workers in 1..=2 {
            let mut sets: Vec<Touched> = (0..workers).map(|_| Touched::new(192 * SECTOR)).collect();
            let (mut read, mut written) = ([false; 192], [false; 192]);
            for (turn, (first, last, access)) in runs.into_iter().enumerate() {
                sets[turn % workers].mark(first, last, access);
                for sector in first as usize..=last as usize {
                    read[sector] |= access.reads();
                    written[sector] |= access.writes();
                }
            }
            let all = sets.into_iter().reduce(|mut all, other| {
                all.merge(other);
                all
            });
            let count = |flags: &[bool]| flags.iter().filter(|&&flag| flag).count() as u64;
            assert_eq!(all.map(|all| all.distinct()), Some((count(&read), count(&written))));
        }
    }
}
