//! Ladders: an operation's forward kernel in small steps, from the plainest that is right to the one that ships.
//!
//! A rung is a file under `kernels/ladder/` with the entry point of the shipped one, which stands in for it
//! ([`Replacement`]); the last rung is the shipped file itself. Each step improves a counter of one case by a factor, which a test
//! holds it to.

use std::fmt;

use super::check::counters::Counted;
use crate::Result;
use crate::gpu::kernels::ladder::{attention, matmul as product, rmsnorm as norm};
use crate::gpu::kernels::{attention_forward, matmul, rmsnorm};
use crate::gpu::nvrtc::Source;
use crate::gpu::{ElementType, Replacement};
use crate::ops::table::Case;

/// The steps to one kernel.
#[derive(Debug)]
pub struct Ladder {
    /// The operation.
    pub op: &'static str,
    /// What of it.
    pub pass: &'static str,
    /// The shape in which the rungs are compared, in bf16.
    pub shape: &'static str,
    /// From naive to shipped.
    pub rungs: &'static [Rung],
}

/// One step.
#[derive(Debug)]
pub struct Rung {
    /// What it does that the rung before does not.
    pub title: &'static str,
    /// Its file.
    pub source: &'static Source<'static>,
    /// The types that it has.
    pub elements: &'static [ElementType],
    /// What becomes less, and by what factor at least, as its head says too; nothing for the first.
    pub improves: Option<(Counter, f64)>,
}

/// What a rung improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Sectors of 32 bytes requested from global memory.
    Sectors,
    /// Warp instructions.
    Instructions,
    /// Warp instructions that read or write global memory.
    Accesses,
    /// Warp instructions that read or write shared memory.
    SharedAccesses,
    /// Passes over shared memory.
    Passes,
    /// Warp instructions that wait: at barriers, or for asynchronous copies.
    Barriers,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sectors => "sectors",
            Self::Instructions => "instructions",
            Self::Accesses => "accesses to global memory",
            Self::SharedAccesses => "accesses to shared memory",
            Self::Passes => "passes over shared memory",
            Self::Barriers => "barriers",
        })
    }
}

impl Counter {
    /// Its value.
    pub fn of(self, counted: &Counted) -> u64 {
        match self {
            Self::Sectors => counted.sectors,
            Self::Instructions => counted.instructions,
            Self::Accesses => counted.accesses,
            Self::SharedAccesses => counted.shared_accesses,
            Self::Passes => counted.passes,
            Self::Barriers => counted.barriers,
        }
    }
}

/// Every ladder.
pub static LADDERS: &[Ladder] = &[RMSNORM, LINEAR, ATTENTION];

const fn first(title: &'static str, source: &'static Source<'static>) -> Rung {
    Rung { title, source, elements: &ElementType::ALL, improves: None }
}

const fn rung(title: &'static str, source: &'static Source<'static>, counter: Counter, factor: f64) -> Rung {
    Rung { title, source, elements: &ElementType::ALL, improves: Some((counter, factor)) }
}

const RMSNORM: Ladder = Ladder {
    op: "rmsnorm",
    pass: "forward",
    shape: "8192x512",
    rungs: &[
        first("a thread for each row", &norm::_01_naive::SOURCE),
        rung("a block for each row", &norm::_02_block_per_row::SOURCE, Counter::Sectors, 12.0),
        rung("sums by shuffles", &norm::_03_shuffles::SOURCE, Counter::Barriers, 4.5),
        rung("the row in registers", &norm::_04_registers::SOURCE, Counter::Sectors, 1.3),
        rung("16 bytes an access", &norm::_05_vectors::SOURCE, Counter::Accesses, 7.0),
        rung("rows share a block and its weights", &rmsnorm::SOURCE, Counter::Sectors, 1.4),
    ],
};

/// Tensor cores multiply these.
const HALVES: &[ElementType] = &[ElementType::F16, ElementType::BF16];

const LINEAR: Ladder = Ladder {
    op: "linear",
    pass: "forward",
    shape: "512x512x256",
    rungs: &[
        first("a thread for each element", &product::_01_naive::SOURCE),
        rung("tiles in shared memory", &product::_02_shared_tiles::SOURCE, Counter::Sectors, 130.0),
        rung("4 x 4 elements a thread", &product::_03_register_tiles::SOURCE, Counter::Passes, 3.5),
        rung("tensor cores", &product::_04_tensor_cores::SOURCE, Counter::Instructions, 7.5).of(HALVES),
        rung("fragments by ldmatrix", &product::_05_ldmatrix::SOURCE, Counter::SharedAccesses, 3.0).of(HALVES),
        rung("copies run ahead", &matmul::SOURCE, Counter::Instructions, 2.3),
    ],
};

const ATTENTION: Ladder = Ladder {
    op: "attention",
    pass: "forward",
    shape: "1x512 8/2x64/64",
    rungs: &[
        first("a warp for each query", &attention::_01_naive::SOURCE),
        rung("one walk over the keys", &attention::_02_one_walk::SOURCE, Counter::Sectors, 1.9),
        rung("queries share keys and values", &attention::_03_shared_tiles::SOURCE, Counter::Sectors, 14.0),
        rung("a lane for each key", &attention::_04_lane_per_key::SOURCE, Counter::Instructions, 2.4),
        rung("tensor cores", &attention_forward::SOURCE, Counter::Instructions, 55.0),
    ],
};

impl Ladder {
    /// Whether it is in this case that the rungs are compared.
    pub fn compares(&self, case: &Case) -> bool {
        self.climbs(case) && case.shape == self.shape && case.element == ElementType::BF16
    }

    /// Whether the rungs compute this case, if they have its type.
    pub fn climbs(&self, case: &Case) -> bool {
        case.op == self.op && case.pass == self.pass
    }
}

impl Rung {
    /// In these types alone.
    const fn of(self, elements: &'static [ElementType]) -> Self {
        Self { elements, ..self }
    }

    /// What stands in for the shipped kernel; nothing where it is that one.
    pub fn replacement(&self) -> Result<Option<Replacement>> {
        let stands_in = self.source.name.starts_with("kernels/ladder/");
        stands_in.then(|| Replacement::new(self.source.name, self.source.text.to_owned())).transpose()
    }
}
