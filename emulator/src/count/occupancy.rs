//! How many blocks a multiprocessor holds at once.
//!
//! Source: NVIDIA, "CUDA C++ Programming Guide", tables of compute capabilities; allocation granularities as the occupancy
//! calculator of the CUDA toolkit gives them.

use serde::Serialize;

/// What one multiprocessor has to share out among its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Multiprocessor {
    warps: u32,
    blocks: u32,
    registers: u32,
    shared_bytes: u32,
    /// Shared memory that each block takes for the system.
    reserved_shared: u32,
}

/// What limits the number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Warps of a multiprocessor.
    Warps,
    /// Blocks of a multiprocessor.
    Blocks,
    /// Registers of a multiprocessor.
    Registers,
    /// Shared memory of a multiprocessor.
    SharedMemory,
}

/// Blocks and warps that a multiprocessor holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Occupancy {
    /// Blocks per multiprocessor.
    pub blocks: u32,
    /// Warps per multiprocessor.
    pub warps: u32,
    /// Share of the warps that it could hold.
    pub share: f64,
    /// What would have to shrink for more.
    pub limit: Limit,
}

/// Occupancy on the architecture `sm_<major><minor>` of a kernel with these needs per thread and block; zero blocks if it cannot
/// run at all. An architecture that is not in the tables counts as compute capability 9.0.
pub fn occupancy(compute_capability: u32, registers_per_thread: u32, threads: u32, shared_bytes: u32) -> Occupancy {
    let sm = match compute_capability {
        86 | 89 => Multiprocessor {
            warps: 48,
            blocks: 16 + 8 * u32::from(compute_capability == 89),
            registers: 65536,
            shared_bytes: 100 << 10,
            reserved_shared: 1024,
        },
        120 | 121 => Multiprocessor { warps: 48, blocks: 24, registers: 65536, shared_bytes: 100 << 10, reserved_shared: 1024 },
        80 => Multiprocessor { warps: 64, blocks: 32, registers: 65536, shared_bytes: 164 << 10, reserved_shared: 1024 },
        _ => Multiprocessor { warps: 64, blocks: 32, registers: 65536, shared_bytes: 228 << 10, reserved_shared: 1024 },
    };
    let warps = threads.div_ceil(32).max(1);
    // Registers are given to warps in units of 256, and a quarter of the file belongs to each of the four schedulers.
    let per_warp = (registers_per_thread.max(1) * 32).next_multiple_of(256);
    let by_registers = (sm.registers / 4 / per_warp) * 4 / warps;
    let by_shared = sm.shared_bytes / (shared_bytes + sm.reserved_shared).next_multiple_of(128);
    let limits = [
        (sm.warps / warps, Limit::Warps),
        (sm.blocks, Limit::Blocks),
        (by_registers, Limit::Registers),
        (by_shared, Limit::SharedMemory),
    ];
    let (blocks, limit) = limits.into_iter().min_by_key(|(blocks, _)| *blocks).unwrap_or((0, Limit::Warps));
    Occupancy { blocks, warps: blocks * warps, share: f64::from(blocks * warps) / f64::from(sm.warps), limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of the toolkit's occupancy calculator.
    #[test]
    fn agrees_with_the_calculator() {
        let of = |cc, registers, threads, shared| {
            let Occupancy { blocks, limit, .. } = occupancy(cc, registers, threads, shared);
            (blocks, limit)
        };
        assert_eq!(of(90, 32, 256, 0), (8, Limit::Warps));
        assert_eq!(of(90, 168, 384, 0), (1, Limit::Registers));
        assert_eq!(of(90, 128, 128, 0), (4, Limit::Registers));
        assert_eq!(of(80, 64, 256, 48 << 10), (3, Limit::SharedMemory));
        assert_eq!(of(90, 16, 32, 0), (32, Limit::Blocks));
        assert_eq!(of(86, 40, 128, 16 << 10), (5, Limit::SharedMemory));
        assert_eq!(of(90, 255, 1024, 0), (0, Limit::Registers));
    }
}
