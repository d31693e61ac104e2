//! `ferromind lab check`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use ferromind::gpu::DeviceKind;
use ferromind::lab::check::beside::{Beside, Difference, compare};
use ferromind::lab::check::{Outcome, Session, check, table as markdown};
use ferromind::ops::table;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::say;
use super::selection::Selection;

/// Run every kernel against its f64 reference; exit status 1 where one falls short
#[derive(Args)]
pub struct Flags {
    #[command(flatten)]
    selection: Selection,
    /// On a GPU: run every case on the emulator too, and tell how many bits differ
    #[arg(long)]
    beside_emulator: bool,
    /// Write the counters of the measured cases into a Markdown file, between the marks that are there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["op", "only", "kernel"])]
    write_table: Option<PathBuf>,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let Flags { selection, beside_emulator, write_table: readme, json } = flags;
    if beside_emulator && selection.device == DeviceKind::Emulator {
        anyhow::bail!("--beside-emulator compares a GPU with the emulator: choose it by --device cuda");
    }
    let replacement = selection.replacement()?;
    let table = table::all();
    let cases = selection.cases(&table)?;
    let session = Session::new(selection.device, replacement.clone())?;
    let bar =
        ProgressBar::new(cases.len() as u64).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} cases, {elapsed}")?);
    let mut outcomes = check(&cases, &session, |_| bar.inc(1));
    bar.finish_and_clear();
    let mut beside = Vec::new();
    if beside_emulator {
        let emulator = Session::new(DeviceKind::Emulator, replacement.clone())?;
        beside = compare(&cases, &outcomes, &session, &emulator)?;
    }
    if let Some(replacement) = &replacement {
        outcomes.retain(|outcome| outcome.replaced);
        if outcomes.is_empty() {
            return Err(selection.nothing_launched(replacement));
        }
    }
    if let Some(path) = &readme {
        write_table(path, &outcomes)?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.pass()).count();
    if !json {
        print_table(&outcomes);
        print_differences(&beside);
        say!("{} of {} cases pass on {}", outcomes.len() - failed, outcomes.len(), selection.device);
    }
    say!(
        "{}",
        json!({ "device": selection.device.to_string(), "pass": failed == 0, "failed": failed, "cases": outcomes, "beside_emulator": beside })
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_table(path: &Path, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let marked = markdown::replaced(&text, &markdown::markdown(outcomes));
    let text = marked.with_context(|| format!("{}: no marks between which the table could stand", path.display()))?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Outputs that are not the emulator's to the bit.
fn print_differences(beside: &[Beside]) {
    for Beside { op, pass, shape, element, outputs } in beside {
        for Difference { name, elements, different, max, scale } in outputs.iter().filter(|output| output.different > 0) {
            say!(
                "{op} {pass} {shape} {element}: `{name}`: {different} of {elements} differ, by {max:.1e} at most, of up to {scale:.1e}"
            );
        }
    }
    if !beside.is_empty() {
        let equal = beside.iter().filter(|beside| beside.differing().next().is_none()).count();
        say!("{equal} of {} cases are the emulator's to the bit", beside.len());
    }
}

fn print_table(outcomes: &[Outcome]) {
    say!(
        "{:4} {:18} {:22} {:24} {:5} {:>16} {:>9} {:>9} {:>6} {:>9} {:>9}",
        "",
        "operation",
        "pass",
        "shape",
        "type",
        "off, of allowed",
        "distinct",
        "requested",
        "banks",
        "bound",
        "roofline"
    );
    let mut said = HashSet::new();
    for outcome in outcomes {
        let Outcome { op, pass, shape, element, .. } = outcome;
        let verdict = if outcome.pass() { "ok" } else { "FAIL" };
        let worst = outcome.worst().map(|o| format!("{} {:.0} %", o.name, 100.0 * o.distance.share())).unwrap_or_default();
        let counted = outcome.counted.as_ref().map(|c| {
            let micro = |seconds: f64| format!("{:.2} µs", 1e6 * seconds);
            format!("{:>9.3} {:>9.3} {:>6.3} {:>9} {:>9}", c.distinct, c.requested, c.wavefronts, micro(c.bound), micro(c.roofline))
        });
        let line = format!("{verdict:4} {op:18} {pass:22} {shape:24} {element:5} {worst:>16} {}", counted.unwrap_or_default());
        say!("{}", line.trim_end());
        for failure in outcome.failures.iter().chain(&outcome.waste) {
            // A compiler's log need not be read twice.
            let text = if said.insert(failure) || !failure.contains('\n') { failure } else { "the same again" };
            say!("       {}", text.replace('\n', "\n       "));
        }
    }
}
