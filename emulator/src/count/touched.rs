//! Which sectors of a buffer a launch touches at all.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::check::races::Access;
use crate::isa::access::SECTOR;

/// Which sectors of an allocation a launch has read and written.
pub(crate) struct Touched {
    sectors: usize,
    read: OnceLock<Box<[AtomicU64]>>,
    written: OnceLock<Box<[AtomicU64]>>,
}

impl Touched {
    /// None of an allocation of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { sectors: bytes.div_ceil(SECTOR) as usize, read: OnceLock::new(), written: OnceLock::new() }
    }

    /// Notes an access to a sector.
    #[inline(always)]
    pub(crate) fn mark(&self, sector: u64, access: Access) {
        if access.reads() {
            self.set(&self.read, sector);
        }
        if access.writes() {
            self.set(&self.written, sector);
        }
    }

    /// Notes an access to neighbouring sectors.
    #[inline(always)]
    pub(crate) fn mark_run(&self, first: u64, last: u64, access: Access) {
        if first / 64 != last / 64 {
            (first..=last).for_each(|sector| self.mark(sector, access));
            return;
        }
        let bits = (!0 >> (63 - (last - first))) << (first % 64);
        if access != Access::Write {
            self.set_bits(&self.read, first / 64, bits);
        }
        if access != Access::Read {
            self.set_bits(&self.written, first / 64, bits);
        }
    }

    #[inline(always)]
    fn set(&self, bits: &OnceLock<Box<[AtomicU64]>>, sector: u64) {
        self.set_bits(bits, sector / 64, 1 << (sector % 64));
    }

    #[inline(always)]
    fn set_bits(&self, set: &OnceLock<Box<[AtomicU64]>>, word: u64, bits: u64) {
        let words = set.get_or_init(|| (0..self.sectors.div_ceil(64)).map(|_| AtomicU64::new(0)).collect());
        let word = &words[word as usize];
        // Most sectors are touched more than once; only the first time pays for the shared write.
        if word.load(Relaxed) & bits != bits {
            word.fetch_or(bits, Relaxed);
        }
    }

    /// Distinct sectors read and written.
    pub(crate) fn distinct(&self) -> (u64, u64) {
        let count = |bits: &OnceLock<Box<[AtomicU64]>>| {
            bits.get().map_or(0, |words| words.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum())
        };
        (count(&self.read), count(&self.written))
    }
}
