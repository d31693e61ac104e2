//! What a launch executed and moved, by instruction.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::check::races::Access;
use crate::isa::access::SECTOR;

/// Totals of one instruction over all warps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Tally {
    /// Times that a warp executed it.
    pub warps: u64,
    /// Threads that executed it.
    pub threads: u64,
    /// Times that it sent the lanes of a warp to different places.
    pub divergences: u64,
    /// Bytes that the threads asked for.
    pub bytes: u64,
    /// 32-byte sectors of global memory requested.
    pub sectors: u64,
    /// Passes over the shared-memory banks.
    pub wavefronts: u64,
    /// Passes that would have sufficed without bank conflicts.
    pub ideal_wavefronts: u64,
}

/// Counters of one launch: a [`Tally`] for each instruction of the program.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// By program counter.
    pub(crate) tallies: Vec<Tally>,
}

impl Counters {
    pub(crate) fn new(instructions: usize) -> Self {
        Self { tallies: vec![Tally::default(); instructions] }
    }

    /// Adds another worker's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (total, part) in self.tallies.iter_mut().zip(&other.tallies) {
            total.warps += part.warps;
            total.threads += part.threads;
            total.divergences += part.divergences;
            total.bytes += part.bytes;
            total.sectors += part.sectors;
            total.wavefronts += part.wavefronts;
            total.ideal_wavefronts += part.ideal_wavefronts;
        }
    }

    /// Thread instructions executed in all.
    pub fn thread_instructions(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.threads).sum()
    }

    /// Warp instructions executed in all.
    pub fn warp_instructions(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.warps).sum()
    }
}

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

    #[inline(always)]
    fn set(&self, bits: &OnceLock<Box<[AtomicU64]>>, sector: u64) {
        let words = bits.get_or_init(|| (0..self.sectors.div_ceil(64)).map(|_| AtomicU64::new(0)).collect());
        let (word, bit) = (&words[sector as usize / 64], 1 << (sector % 64));
        // Most sectors are touched more than once; only the first time pays for the shared write.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
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
