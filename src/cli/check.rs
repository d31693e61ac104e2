//! `ferromind lab check`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
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
    /// Write the counters of the measured cases into a Markdown file, between the marks that are there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["op", "only", "kernel"])]
    write_table: Option<PathBuf>,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let Flags { selection, write_table: readme, json } = flags;
    let replacement = selection.replacement()?;
    let table = table::all();
    let cases = selection.cases(&table)?;
    let session = Session::new(selection.device, replacement.clone())?;
    let bar =
        ProgressBar::new(cases.len() as u64).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} cases, {elapsed}")?);
    let mut outcomes = check(&cases, &session, |_| bar.inc(1));
    bar.finish_and_clear();
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
        say!("{} of {} cases pass on {}", outcomes.len() - failed, outcomes.len(), selection.device);
    }
    say!("{}", json!({ "device": selection.device.to_string(), "pass": failed == 0, "failed": failed, "cases": outcomes }));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_table(path: &Path, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let marked = markdown::replaced(&text, &markdown::markdown(outcomes));
    let text = marked.with_context(|| format!("{}: no marks between which the table could stand", path.display()))?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
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
        say!("{verdict:4} {op:18} {pass:22} {shape:24} {element:5} {worst:>16} {}", counted.unwrap_or_default());
        for failure in outcome.failures.iter().chain(&outcome.waste) {
            // A compiler's log need not be read twice.
            let text = if said.insert(failure) || !failure.contains('\n') { failure } else { "the same again" };
            say!("       {}", text.replace('\n', "\n       "));
        }
    }
}
