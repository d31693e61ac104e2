//! What a launch executed and moved, by instruction.

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
