//! `ferromind lab bench`: how long the kernels of the table's measured cases take.
//!
//! On a GPU a case runs many times, the level-2 cache overwritten before each, between two events of the device. On the emulator it
//! runs once, and the time between the events is modelled: what the launches' counters allow at least on an H200.

use serde::Serialize;

use super::check::counters::Counted;
use super::session::{Bench, Machine, Session, lay_out};
use crate::gpu::emulator::Settings;
use crate::ops::table::{Case, Operands, Problem, Traffic};
use crate::{Error, Result};

/// Times that a case is measured on a GPU, after some that are not.
const RUNS: usize = 30;
const WARM_UP: usize = 3;
/// What is overwritten between runs, in sizes of the level-2 cache: enough for the host to issue the next launches meanwhile.
const CACHES: usize = 4;
/// Bytes of the copy that shows what the memory can do.
const COPIED: usize = 1 << 29;

/// A case's time and what it amounts to.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    /// Seconds of all of the case's launches.
    pub seconds: Quantiles,
    /// Bytes of the operands that must move.
    pub bytes: u64,
    /// Floating-point operations of the formula.
    pub flops: u64,
    /// The share of the ceiling that the median reaches: on a GPU of the copy's speed, for what memory bounds; on the emulator of an
    /// H200's roofline.
    pub share: Option<f64>,
    /// What the kernels executed and moved; nothing on a GPU.
    pub counted: Option<Counted>,
    /// Whether a kernel of the user's file was launched.
    pub replaced: bool,
}

/// The spread of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// A tenth of the runs was faster.
    pub p10: f64,
    /// Half of them.
    pub median: f64,
    /// Nine tenths.
    pub p90: f64,
    /// How many there were.
    pub runs: usize,
}

impl Quantiles {
    /// Of at least one value; the lower of two neighbours where the place lies between them.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let runs = values.len();
        let at = |share: f64| values.get((share * runs.saturating_sub(1) as f64) as usize).copied();
        Some(Self { p10: at(0.1)?, median: at(0.5)?, p90: at(0.9)?, runs })
    }
}

impl Timing {
    /// Operands' bytes in a second at the median.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds.median
    }

    /// The formula's operations in a second at the median.
    pub fn flops_per_second(&self) -> f64 {
        self.flops as f64 / self.seconds.median
    }
}

/// Bytes a second, read and written, of a large copy on this GPU; nothing on the emulator, which knows it.
pub fn copy_bandwidth(session: &Session) -> Result<Option<f64>> {
    if session.machine() == Machine::Emulator {
        return Ok(None);
    }
    let bench = session.bench()?;
    let (device, stream) = (bench.context().device(), bench.context().stream());
    let (to, from) = (device.allocate("to", COPIED)?, device.allocate("from", COPIED)?);
    device.fill(stream, from.all(), 1)?;
    let times = measure(&bench, || device.copy(stream, to.all(), from.all()))?;
    Ok(Some(2.0 * COPIED as f64 / times.median))
}

/// Times one case; nothing if the table does not have it measured. `copy_bandwidth`: as [`copy_bandwidth`] gives it.
///
/// # Errors
/// A kernel that cannot be compiled or launched, or that strays.
pub fn time(case: &Case, session: &Session, copy_bandwidth: Option<f64>) -> Result<Option<Timing>> {
    let problem = (case.problem)();
    if problem.traffic == Traffic::Unmeasured {
        return Ok(None);
    }
    let bench = session.bench()?;
    bench.set(Settings { checked: false, log: true, ..Settings::default() });
    let (operands, _) = lay_out(bench.context(), &problem, case.element)?;
    let seconds = measure_problem(&bench, &problem, &operands)?;
    let bytes = problem.operands.iter().map(|operand| operand.traffic(case.element)).sum();
    let counted = bench.launches().map(|launches| Counted::new(&launches, &problem, case.element));
    let share = match (&counted, copy_bandwidth) {
        (Some(counted), _) => Some(counted.roofline / seconds.median),
        (None, Some(copy)) if problem.traffic == Traffic::Streaming => Some(bytes as f64 / copy / seconds.median),
        (None, _) => None,
    };
    Ok(Some(Timing { seconds, bytes, flops: problem.flops, share, counted, replaced: bench.used_replacement() }))
}

fn measure_problem(bench: &Bench, problem: &Problem, operands: &Operands<'_>) -> Result<Quantiles> {
    let times = measure(bench, || (problem.run)(operands));
    match bench.findings().first() {
        Some(finding) => Err(Error::device(finding.clone())),
        None => times,
    }
}

/// The device's time of some work, again and again where it is measured, once where it is modelled.
fn measure(bench: &Bench, work: impl Fn() -> Result<()>) -> Result<Quantiles> {
    let (device, stream) = (bench.context().device(), bench.context().stream());
    let once = || -> Result<f64> {
        let (start, end) = (device.event()?, device.event()?);
        device.record(&start, stream)?;
        work()?;
        device.record(&end, stream)?;
        Ok(device.elapsed(&start, &end)?.as_secs_f64())
    };
    let mut times = Vec::new();
    if bench.is_emulated() {
        times.push(once()?);
    } else {
        let cache = device.allocate("level-2 cache", CACHES * device.info().limits.l2_bytes as usize)?;
        for run in 0..WARM_UP + RUNS {
            device.fill(stream, cache.all(), run as u8)?;
            let seconds = once()?;
            if run >= WARM_UP {
                times.push(seconds);
            }
        }
    }
    device.synchronize(stream)?;
    Quantiles::of(times).ok_or_else(|| Error::Internal("nothing was measured".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let of = |values: &[f64]| Quantiles::of(values.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(Quantiles { p10: 3.0, median: 3.0, p90: 3.0, runs: 1 }));
        let eleven: Vec<f64> = (0..11).rev().map(f64::from).collect();
        assert_eq!(of(&eleven), Some(Quantiles { p10: 1.0, median: 5.0, p90: 9.0, runs: 11 }));
    }
}
