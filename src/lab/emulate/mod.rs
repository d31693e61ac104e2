//! Any kernel on the emulator: `ferromind emulate`.
//!
//! [`source`] makes a program of a file, [`argument`] reads what a person wrote for the kernel's parameters, [`bind`] puts it on the
//! emulated device, [`report`] tells what happened.

pub mod argument;
pub mod bind;
pub mod data;
pub mod report;
pub mod source;

use std::path::PathBuf;
use std::time::Instant;

use ptx_emulator::count::{Ceilings, bound, occupancy};
use ptx_emulator::{Device, Followed, Launch, Order, Trace};

use crate::error::{Error, Result};
pub use report::Outcome;
pub use source::{Build, Source};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Job {
    /// A `.cu` or `.ptx` file.
    pub file: PathBuf,
    /// How it is compiled.
    pub build: Build,
    /// The kernel; not needed if the file has only one.
    pub kernel: Option<String>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; `[1, 1, 1]`: as the kernel says.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Arguments, as [`argument::parse`] reads them.
    pub arguments: Vec<String>,
    /// Seed of the order of blocks and warps; `None`: natural order, on all cores.
    pub order: Option<u64>,
    /// Whether mistakes are looked for.
    pub checked: bool,
    /// Warp instructions after which to stop.
    pub max_instructions: u64,
    /// Cores to use; `None`: all.
    pub workers: Option<usize>,
    /// Whom to follow.
    pub trace: Option<Trace>,
}

/// Runs a kernel.
///
/// # Errors
/// Everything because of which it could not run to its end: files, compilation, arguments, limits of the launch, too many
/// instructions. What the kernel does wrong is in the outcome.
pub fn emulate(job: &Job) -> Result<Outcome> {
    let source = Source::open(&job.file, &job.build)?;
    let kernel = source.kernel(job.kernel.as_deref())?;
    let arguments =
        argument::parse(&job.arguments).map_err(|message| Error::config(format!("{message}\n{}", bind::describe(kernel))))?;
    // Those that stand by themselves: `@out.npy` belongs to the one before.
    let texts: Vec<String> = job.arguments.iter().filter(|text| !text.starts_with('@')).cloned().collect();
    if let Some(trace) = &job.trace {
        check_trace(trace, job)?;
    }
    let mut device = Device::new();
    let emulator = |error: ptx_emulator::Error| Error::config(error.to_string());
    let module = device.load(source.program.clone()).map_err(emulator)?;
    let bindings = bind::bind(&mut device, kernel, &arguments, &texts)?;
    let launch = Launch {
        cluster: job.cluster,
        shared_bytes: job.shared_bytes,
        order: job.order.map_or(Order::Natural, Order::Seeded),
        checked: job.checked,
        max_instructions: job.max_instructions,
        trace: job.trace,
        workers: job.workers,
        ..Launch::new(job.grid, job.block, bindings.packed.clone())
    };
    let begun = Instant::now();
    let run = device.launch(&module, &kernel.name, &launch).map_err(emulator)?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut findings = run.findings;
    if job.checked {
        findings.extend(bindings.never_written(&device, &kernel.name)?);
    }
    let files = run.counters.by_source().into_keys().map(|(file, _)| file).filter(|file| !file.is_empty());
    // Only for show: a file that is gone, or was never one, has no text.
    let sources = files.filter_map(|file| Some((file.clone(), std::fs::read_to_string(&file).ok()?))).collect();
    let resources = source.resources.iter().find(|resources| resources.kernel == kernel.name).cloned();
    let (major, minor) = source.arch.capability();
    let threads = job.block.iter().product();
    let shared = kernel.shared_bytes.saturating_add(job.shared_bytes);
    let capability = u32::from(major) * 10 + u32::from(minor);
    let occupancy = resources.as_ref().map(|resources| occupancy(capability, resources.registers, threads, shared));
    let blocks = job.grid.iter().map(|&n| u64::from(n)).product();
    Ok(Outcome {
        kernel: kernel.name.clone(),
        static_shared: kernel.shared_bytes,
        bound: bound(&run.counters, blocks, &Ceilings::h200()),
        written: bindings.save(&device)?,
        file: source.name,
        sources,
        arch: source.arch,
        grid: job.grid,
        block: job.block,
        cluster: job.cluster,
        shared_bytes: job.shared_bytes,
        arguments: texts,
        checked: job.checked,
        counters: run.counters,
        printed: run.printed,
        trace: run.trace,
        findings,
        resources,
        occupancy,
        seconds,
    })
}

fn check_trace(trace: &Trace, job: &Job) -> Result<()> {
    let inside = |of: [u32; 3], extent: [u32; 3]| (0..3).all(|axis| of[axis] < extent[axis]);
    if !inside(trace.block, job.grid) {
        return Err(Error::config(format!("--trace-block {:?} is not in the grid {:?}", trace.block, job.grid)));
    }
    let threads = job.block.iter().map(|&n| u64::from(n)).fold(1, u64::saturating_mul);
    match trace.who {
        Followed::Thread(thread) if !inside(thread, job.block) => {
            Err(Error::config(format!("--trace: thread {thread:?} is not in the block {:?}", job.block)))
        }
        Followed::Warp(warp) if warp as u64 >= threads.div_ceil(32) => {
            Err(Error::config(format!("--trace: a block of {threads} threads has {} warps, counted from 0", threads.div_ceil(32))))
        }
        _ => Ok(()),
    }
}

/// `X[,Y[,Z]]`, 1 where left out; as a grid or block is given.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_extent(text: &str) -> Result<[u32; 3], String> {
    triple(text, 1).ok_or_else(|| format!("`{text}`: expected X, X,Y or X,Y,Z"))
}

/// `X[,Y[,Z]]`, 0 where left out; as a thread or a block's place is given.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_place(text: &str) -> Result<[u32; 3], String> {
    triple(text, 0).ok_or_else(|| format!("`{text}`: expected X, X,Y or X,Y,Z"))
}

/// `X[,Y[,Z]]` of a thread, or `warp:N`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_followed(text: &str) -> Result<Followed, String> {
    let warp = text.strip_prefix("warp:").map(|number| number.parse().ok().map(Followed::Warp));
    warp.unwrap_or_else(|| triple(text, 0).map(Followed::Thread))
        .ok_or_else(|| format!("`{text}`: expected a thread X[,Y[,Z]], or warp:N"))
}

/// `NAME=VALUE` or `NAME`, which is then 1.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "1"));
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || name.contains(char::is_whitespace) {
        return Err(format!("`{text}`: expected NAME=VALUE"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn triple(text: &str, rest: u32) -> Option<[u32; 3]> {
    let mut numbers = [rest; 3];
    let mut parts = text.split(',');
    for (number, part) in numbers.iter_mut().zip(&mut parts) {
        *number = part.trim().parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_places_and_whom_to_follow() {
        assert_eq!(parse_extent("4"), Ok([4, 1, 1]));
        assert_eq!(parse_extent("4,2,3"), Ok([4, 2, 3]));
        assert_eq!(parse_place("4,2"), Ok([4, 2, 0]));
        assert_eq!(parse_followed("7"), Ok(Followed::Thread([7, 0, 0])));
        assert_eq!(parse_followed("warp:3"), Ok(Followed::Warp(3)));
        assert_eq!(parse_define("A=B=2"), Ok(("A".into(), "B=2".into())));
        assert_eq!(parse_define("A"), Ok(("A".into(), "1".into())));
        for text in ["", "x", "1,2,3,4", "-1", "1.5", "99999999999", "1,,2"] {
            assert!(parse_extent(text).unwrap_err().contains("X,Y,Z"), "{text}");
        }
        for text in ["warp:", "warp:x", "warp", "1;2"] {
            assert!(parse_followed(text).is_err(), "{text}");
        }
        for text in ["", "=1", "1A=2", "A B=1"] {
            assert!(parse_define(text).is_err(), "{text}");
        }
    }
}
