//! A lower bound of a launch's time on a device: no unit can be done sooner than its own work takes at its full rate.

use serde::Serialize;

use super::{Counters, Tally};
use crate::program::Class;

/// What a device can do at most.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ceilings {
    /// The device's name.
    pub name: String,
    /// `sm_<this>`.
    pub compute_capability: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Cycles per second.
    pub clock: f64,
    /// Bytes per second between memory and L2.
    pub memory_bandwidth: f64,
    /// Bytes per second between L2 and the multiprocessors.
    pub l2_bandwidth: f64,
    /// Bytes of L2 cache.
    pub l2_bytes: u64,
    /// Matrix products in 16-bit floats: operations per second, dense. Other types are counted at this rate.
    pub matrix_flops: f64,
}

impl Ceilings {
    /// NVIDIA H200 SXM: memory as measured by a copy, the rest from its data sheet and the H100's published microbenchmarks.
    pub fn h200() -> Self {
        Self {
            name: "NVIDIA H200".into(),
            compute_capability: 90,
            multiprocessors: 132,
            clock: 1.83e9,
            memory_bandwidth: 4.3e12,
            l2_bandwidth: 7.0e12,
            l2_bytes: 50 << 20,
            matrix_flops: 989e12,
        }
    }

    /// NVIDIA A100 SXM 80 GB, from its data sheet.
    pub fn a100() -> Self {
        Self {
            name: "NVIDIA A100".into(),
            compute_capability: 80,
            multiprocessors: 108,
            clock: 1.41e9,
            memory_bandwidth: 1.94e12,
            l2_bandwidth: 4.9e12,
            l2_bytes: 40 << 20,
            matrix_flops: 312e12,
        }
    }

    /// Thread instructions per cycle and multiprocessor of a class of instructions.
    /// Source: "CUDA C++ Programming Guide", table of arithmetic throughput, compute capabilities 8.0 and 9.0.
    fn per_cycle(&self, class: Class) -> Option<f64> {
        let hopper = self.compute_capability >= 90;
        Some(match class {
            Class::Float => {
                if hopper {
                    128.0
                } else {
                    64.0
                }
            }
            Class::Integer | Class::Move => 64.0,
            Class::Double => {
                if hopper {
                    64.0
                } else {
                    32.0
                }
            }
            Class::Special | Class::Convert => 16.0,
            Class::Warp => 32.0,
            _ => return None,
        })
    }
}

/// Time that one unit of the device needs at least.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitTime {
    /// What is kept busy.
    pub unit: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// The lower bound and what it consists of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// The device that it is for.
    pub device: String,
    /// Seconds: the largest of `units`.
    pub seconds: f64,
    /// The unit that decides.
    pub bound_by: &'static str,
    /// All units that have something to do, the busiest first.
    pub units: Vec<UnitTime>,
}

/// Lower bound of a launch of `blocks` blocks. Global memory counts each sector once, as if the L2 held all that is used again;
/// requests count against the L2.
pub fn bound(counters: &Counters, blocks: u64, device: &Ceilings) -> Bound {
    let busy = blocks.min(u64::from(device.multiprocessors)) as f64;
    let cycles = |n: f64| n / (busy * device.clock);
    let total: Tally = counters.total();
    let distinct: u64 = counters.buffers.iter().map(|buffer| buffer.sectors_read + buffer.sectors_written).sum();
    let mut units = vec![
        UnitTime { unit: "device memory", seconds: distinct as f64 * 32.0 / device.memory_bandwidth },
        UnitTime { unit: "L2 cache", seconds: total.sectors as f64 * 32.0 / device.l2_bandwidth },
        UnitTime { unit: "shared memory", seconds: cycles(total.wavefronts as f64) },
        UnitTime { unit: "instruction issue", seconds: cycles(total.warps as f64 / 4.0) },
        UnitTime {
            unit: "tensor cores",
            seconds: total.flops as f64 / (device.matrix_flops * busy / f64::from(device.multiprocessors)),
        },
    ];
    for (class, unit) in [
        (Class::Float, "float units"),
        (Class::Integer, "integer units"),
        (Class::Double, "double units"),
        (Class::Special, "special-function units"),
        (Class::Convert, "conversion units"),
        (Class::Warp, "shuffle units"),
    ] {
        if let (Some(rate), Some(tally)) = (device.per_cycle(class), counters.classes.get(&class)) {
            units.push(UnitTime { unit, seconds: cycles(tally.threads as f64 / rate) });
        }
    }
    units.retain(|unit| unit.seconds > 0.0);
    units.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let (seconds, bound_by) = units.first().map_or((0.0, "nothing"), |unit| (unit.seconds, unit.unit));
    Bound { device: device.name.clone(), seconds, bound_by, units }
}
