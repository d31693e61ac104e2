//! What a case's launches executed and moved, beside what its shapes demand.

use serde::Serialize;

use ptx_emulator::count::Ceilings;
use ptx_emulator::program::Class;

use crate::gpu::ElementType;
use crate::gpu::emulator::Launched;
use crate::ops::table::{Problem, Traffic};

/// Bytes of a sector, the unit in which memory is moved.
const SECTOR: u64 = 32;
/// Distinct and requested sectors of a streaming case may be this much more than its operands'.
const STREAMING: f64 = 1.15;
/// Requests of a tiled case may differ so much from what its tiling predicts.
const TILED: f64 = 0.02;
/// Passes over shared memory may be this much more than without bank conflicts.
const WAVEFRONTS: f64 = 1.03;

/// Sums over a case's launches.
#[derive(Debug, Clone, Serialize)]
pub struct Counted {
    /// Each launch by itself.
    pub launches: Vec<LaunchCount>,
    /// Bytes of the operands that must move.
    pub bytes: u64,
    /// Floating-point operations of the formula.
    pub flops: u64,
    /// Distinct sectors, summed over launches, as bytes, over [`bytes`](Self::bytes).
    pub distinct: f64,
    /// Requested sectors likewise.
    pub requested: f64,
    /// Sectors requested.
    pub sectors: u64,
    /// Warp instructions.
    pub instructions: u64,
    /// Those of them that read or write global memory.
    pub accesses: u64,
    /// Those that read or write shared memory.
    pub shared_accesses: u64,
    /// Passes over shared memory.
    pub passes: u64,
    /// Warp instructions that wait: at barriers, or for asynchronous copies.
    pub barriers: u64,
    /// Passes over shared memory over those without conflicts; 1 where none is used.
    pub wavefronts: f64,
    /// Seconds on an H200 below which the counters do not let the launches come.
    pub bound: f64,
    /// Seconds that moving the operands or computing the formula takes at the H200's ceilings: the roofline.
    pub roofline: f64,
}

/// One launch.
#[derive(Debug, Clone, Serialize)]
pub struct LaunchCount {
    /// The kernel.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// Warp instructions.
    pub warp_instructions: u64,
    /// Seconds below which its counters do not let it come, on an H200.
    pub bound: f64,
    /// The unit that is busy for so long.
    pub bound_by: String,
}

impl Counted {
    /// Of these launches of the problem.
    pub fn new(launches: &[Launched], problem: &Problem, element: ElementType) -> Self {
        let bytes: u64 = problem.operands.iter().map(|operand| operand.traffic(element)).sum();
        let (mut distinct, mut sectors, mut instructions, mut accesses) = (0, 0, 0, 0);
        let (mut shared_accesses, mut passes, mut ideal, mut barriers) = (0, 0, 0, 0);
        for launched in launches {
            let (read, written) = launched.report.counters.distinct_sectors();
            let total = launched.report.counters.total();
            distinct += read + written;
            sectors += total.sectors;
            instructions += total.warps;
            let of = |class| launched.report.counters.classes.get(&class).map_or(0, |tally| tally.warps);
            accesses += of(Class::Global);
            shared_accesses += of(Class::Shared);
            barriers += of(Class::Barrier);
            passes += total.wavefronts;
            ideal += total.ideal_wavefronts;
        }
        let ratio = |sectors: u64| (sectors * SECTOR) as f64 / bytes.max(1) as f64;
        let ceilings = Ceilings::h200();
        Self {
            bytes,
            flops: problem.flops,
            distinct: ratio(distinct),
            requested: ratio(sectors),
            sectors,
            instructions,
            accesses,
            shared_accesses,
            passes,
            barriers,
            wavefronts: if ideal == 0 { 1.0 } else { passes as f64 / ideal as f64 },
            bound: launches.iter().map(|launched| launched.bound.seconds).sum(),
            roofline: (bytes as f64 / ceilings.memory_bandwidth).max(problem.flops as f64 / TENSOR_FLOPS),
            launches: launches.iter().map(LaunchCount::new).collect(),
        }
    }

    /// What goes beyond what is allowed.
    pub fn waste(&self, traffic: Traffic) -> Vec<String> {
        let mut waste = Vec::new();
        match traffic {
            Traffic::Unmeasured => return waste,
            Traffic::Streaming => {
                for (what, ratio) in [("distinct", self.distinct), ("requested", self.requested)] {
                    if ratio > STREAMING {
                        waste.push(format!("{what} sectors are {ratio:.3} times the operands' bytes, at most {STREAMING}"));
                    }
                }
            }
            Traffic::Tiled { sectors } => {
                let off = self.sectors as f64 / sectors.max(1) as f64 - 1.0;
                if off.abs() > TILED {
                    waste.push(format!("{} sectors were requested, {sectors} by the tiling", self.sectors));
                }
            }
        }
        if self.wavefronts > WAVEFRONTS {
            let ratio = self.wavefronts;
            waste.push(format!("shared memory takes {ratio:.3} times the passes it would without bank conflicts"));
        }
        waste
    }
}

/// What an H200 sustains in a large bf16 product, in operations a second.
const TENSOR_FLOPS: f64 = 790e12;

impl LaunchCount {
    fn new(launched: &Launched) -> Self {
        Self {
            kernel: launched.kernel.clone(),
            grid: launched.config.grid,
            block: launched.config.block,
            shared: launched.config.shared_bytes,
            warp_instructions: launched.report.counters.warp_instructions(),
            bound: launched.bound.seconds,
            bound_by: launched.bound.bound_by.to_string(),
        }
    }
}
