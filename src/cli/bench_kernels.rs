//! `ferromind lab bench`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use ferromind::lab::bench_kernels::{Timing, copy_bandwidth, time};
use ferromind::lab::check::counters::Counted;
use ferromind::lab::check::{Machine, Session};
use ferromind::lab::ladder::LADDERS;
use ferromind::ops::table::{self, Case};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::say;
use super::selection::Selection;

/// Time every kernel at the shapes of models; without a GPU: the least time that its counters allow on an H200
#[derive(Args)]
pub struct Flags {
    #[command(flatten)]
    selection: Selection,
    /// The steps from a naive kernel to ours, of each operation that has them
    #[arg(long, conflicts_with = "kernel")]
    ladder: bool,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
}

/// A case with the kernels that are timed in it, one beside the other.
struct Group<'a> {
    case: &'a Case,
    kernels: Vec<(&'static str, Session)>,
}

/// A kernel's time, or why there is none.
struct Line {
    kernel: &'static str,
    timing: Result<Timing, String>,
}

/// Runs the command.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let Flags { selection, ladder, json } = flags;
    let replacement = selection.replacement()?;
    let table = table::all();
    let session = Session::new(selection.device, None)?;
    let mut groups = Vec::new();
    for case in selection.cases(&table)? {
        let mut kernels = vec![("ours", session.clone())];
        if ladder {
            let Some(ladder) = LADDERS.iter().find(|ladder| ladder.compares(case)) else { continue };
            let rungs = ladder.rungs.iter().map(|rung| Ok((rung.title, session.replacing(rung.replacement()?))));
            kernels = rungs.collect::<anyhow::Result<_>>()?;
        } else if replacement.is_some() {
            kernels.push(("yours", session.replacing(replacement.clone())));
        }
        groups.push(Group { case, kernels });
    }
    if groups.is_empty() {
        let has: Vec<&str> = LADDERS.iter().map(|ladder| ladder.op).collect();
        bail!("no ladder here: there are those of {}, in the case that `lab bench --ladder` prints", has.join(", "));
    }
    let copy = copy_bandwidth(&session)?;
    let mut timed = time_all(&groups, session.machine(), copy)?;
    if let Some(replacement) = &replacement {
        timed.retain(|(_, lines)| lines.iter().any(|line| line.timing.as_ref().map_or(true, |timing| timing.replaced)));
        if timed.is_empty() {
            return Err(selection.nothing_launched(replacement));
        }
    }
    if timed.is_empty() {
        bail!("none of these cases is measured: `lab check` runs them, the larger ones are timed");
    }
    let failed = timed.iter().flat_map(|(_, lines)| lines).filter(|line| line.timing.is_err()).count();
    if !json {
        match copy {
            None => say!("modelled: the least time that the kernels' counters allow on an H200, and its share of the roofline"),
            Some(copy) => say!("a copy of 512 MiB moves {:.0} GB/s", copy / 1e9),
        }
        print_tables(&timed);
    }
    let cases: Vec<Value> = timed.iter().map(|(case, lines)| case_json(case, lines)).collect();
    let device = selection.device.to_string();
    say!("{}", json!({ "device": device, "modelled": copy.is_none(), "copy_bandwidth": copy, "failed": failed, "cases": cases }));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Those of the cases that are measured.
fn time_all<'a>(groups: &[Group<'a>], machine: Machine, copy: Option<f64>) -> anyhow::Result<Vec<(&'a Case, Vec<Line>)>> {
    let bar =
        ProgressBar::new(groups.len() as u64).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} cases, {elapsed}")?);
    let line = |case: &Case, (kernel, session): &(&'static str, Session)| {
        let timing = time(case, session, copy).map_err(|error| error.to_string()).transpose()?;
        Some(Line { kernel, timing })
    };
    let timed = |group: &Group<'a>| {
        let lines: Vec<Line> = match machine {
            Machine::Emulator => group.kernels.par_iter().filter_map(|kernel| line(group.case, kernel)).collect(),
            Machine::Cuda(_) => group.kernels.iter().filter_map(|kernel| line(group.case, kernel)).collect(),
        };
        bar.inc(1);
        (group.case, lines)
    };
    let mut all: Vec<_> = match machine {
        Machine::Emulator => groups.par_iter().map(timed).collect(),
        Machine::Cuda(_) => groups.iter().map(timed).collect(),
    };
    bar.finish_and_clear();
    all.retain(|(_, lines)| !lines.is_empty());
    Ok(all)
}

fn case_json(case: &Case, lines: &[Line]) -> Value {
    let kernels: Vec<Value> = lines
        .iter()
        .zip(speedups(lines))
        .map(|(Line { kernel, timing }, speedup)| match timing {
            Ok(timing) => json!({
                "kernel": kernel, "timing": timing, "speedup": speedup,
                "bytes_per_second": timing.bytes_per_second(), "flops_per_second": timing.flops_per_second(),
            }),
            Err(error) => json!({ "kernel": kernel, "error": error }),
        })
        .collect();
    json!({ "op": case.op, "pass": case.pass, "shape": case.shape, "element": case.element.to_string(), "kernels": kernels })
}

/// By how much each line is faster than the one before.
fn speedups(lines: &[Line]) -> Vec<Option<f64>> {
    let seconds = |line: &Line| line.timing.as_ref().ok().map(|timing| timing.seconds.median);
    let after = lines.windows(2).map(|pair| Some(seconds(&pair[0])? / seconds(&pair[1])?));
    std::iter::once(None).chain(after).collect()
}

fn print_tables(timed: &[(&Case, Vec<Line>)]) {
    let name = |case: &Case| format!("{} {} {} {}", case.op, case.pass, case.shape, case.element);
    let compared = timed.iter().any(|(_, lines)| lines.len() > 1);
    if !compared {
        print_header("");
    }
    for (case, lines) in timed {
        if compared {
            say!();
            print_header(&name(case));
        }
        for (line, speedup) in lines.iter().zip(speedups(lines)) {
            let title = if compared { format!("  {}", line.kernel) } else { name(case) };
            print_line(&title, line, speedup, compared);
        }
    }
}

fn print_header(title: &str) {
    say!("{title:52} {:>10} {:>8} {:>8} {:>8}", "time", "GB/s", "TFLOP/s", "share");
}

fn print_line(title: &str, line: &Line, speedup: Option<f64>, compared: bool) {
    let timing = match &line.timing {
        Ok(timing) => timing,
        Err(error) => return say!("{title}\n    {}", error.replace('\n', "\n    ")),
    };
    let (gigabytes, teraflops) = (timing.bytes_per_second() / 1e9, timing.flops_per_second() / 1e12);
    let share = timing.share.map(|share| format!("{:.1} %", 100.0 * share)).unwrap_or_default();
    let seconds = timing.seconds;
    let mut more = String::new();
    if seconds.runs > 1 {
        more += &format!("  {} to {}", micro(seconds.p10), micro(seconds.p90));
    }
    if let Some(speedup) = speedup {
        more += &format!("  {speedup:.2} times as fast");
    }
    say!("{title:52} {:>10} {gigabytes:>8.0} {teraflops:>8.2} {share:>8}{more}", micro(seconds.median));
    if let (true, Some(Counted { sectors, accesses, instructions, shared_accesses, passes, barriers, .. })) =
        (compared, &timing.counted)
    {
        let memory = format!("{sectors} sectors by {accesses} accesses, {passes} passes over shared memory by {shared_accesses}");
        say!("    {instructions} instructions, {memory}, {barriers} barriers");
    }
}

fn micro(seconds: f64) -> String {
    format!("{:.2} µs", 1e6 * seconds)
}
