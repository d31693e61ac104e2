//! What a launch executed and moved: by instruction, by source line, by class, by buffer.

mod bound;
mod occupancy;
mod touched;

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

use crate::check::Place;
use crate::program::{Class, Program};

pub use bound::{Bound, Ceilings, UnitTime, bound};
pub use occupancy::{Limit, Occupancy, occupancy};
pub(crate) use touched::Touched;

/// Totals of one instruction over all warps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
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
    /// Floating-point or integer operations of the matrix units: two for each multiply-add.
    pub flops: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.warps += other.warps;
        self.threads += other.threads;
        self.divergences += other.divergences;
        self.bytes += other.bytes;
        self.sectors += other.sectors;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.flops += other.flops;
    }
}

/// What one buffer gave and took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// The buffer's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Distinct sectors read.
    pub sectors_read: u64,
    /// Distinct sectors written.
    pub sectors_written: u64,
}

/// One instruction that was executed, and its counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub class: Class,
    /// Its counts.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Counters of one launch.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Every instruction that was executed, in the order of the program.
    pub instructions: Vec<Line>,
    /// Sums by class of instruction.
    pub classes: BTreeMap<Class, Tally>,
    /// Buffers that were touched.
    pub buffers: Vec<Traffic>,
}

impl Counters {
    /// Names what was counted by program counter and by allocation.
    pub(crate) fn new(program: &Program, tallies: &[Tally], buffers: Vec<Traffic>, place: impl Fn(u32) -> Place) -> Self {
        let mut counters = Self { buffers, ..Self::default() };
        for (pc, tally) in tallies.iter().enumerate().filter(|(_, tally)| tally.warps > 0) {
            let class = program.instructions[pc].class;
            *counters.classes.entry(class).or_default() += *tally;
            counters.instructions.push(Line { place: place(pc as u32), class, tally: *tally });
        }
        counters
    }

    /// Sum over all instructions.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for line in &self.instructions {
            total += line.tally;
        }
        total
    }

    /// Sums by line of the source; instructions that no line is known of stand under line 0.
    pub fn by_source(&self) -> BTreeMap<(String, u32), Tally> {
        let mut lines: BTreeMap<(String, u32), Tally> = BTreeMap::new();
        for line in &self.instructions {
            *lines.entry(line.place.source.clone().unwrap_or_default()).or_default() += line.tally;
        }
        lines
    }

    /// Thread instructions executed in all.
    pub fn thread_instructions(&self) -> u64 {
        self.total().threads
    }

    /// Warp instructions executed in all.
    pub fn warp_instructions(&self) -> u64 {
        self.total().warps
    }

    /// Distinct sectors read and written, over all buffers.
    pub fn distinct_sectors(&self) -> (u64, u64) {
        self.buffers.iter().fold((0, 0), |(read, written), buffer| (read + buffer.sectors_read, written + buffer.sectors_written))
    }
}
