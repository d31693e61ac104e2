//! `ferromind lab check`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use ferromind::gpu::{DeviceKind, Replacement};
use ferromind::lab::check::{Outcome, Session, check, table as markdown};
use ferromind::ops::table::{self, Case};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::say;

/// Run every kernel against its f64 reference; exit status 1 where one falls short
#[derive(Args)]
pub struct Flags {
    /// emulator, cuda or cuda:N
    #[arg(long, default_value = "emulator")]
    device: DeviceKind,
    /// Only this operation; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    op: Vec<String>,
    /// Your own kernels: a .cu file whose entry points stand in for ours of the same names
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Only cases whose line has this text, such as 513x64, backward or bf16
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the counters of the measured cases into a Markdown file, between the marks that are there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["op", "only", "kernel"])]
    write_table: Option<PathBuf>,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let replacement = flags.kernel.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok::<_, anyhow::Error>(Replacement::new(&path.display().to_string(), text)?)
    });
    let replacement = replacement.transpose()?;
    let table = table::all();
    let cases = chosen(&table, &flags)?;
    let session = Session::new(flags.device, replacement.clone())?;
    let bar =
        ProgressBar::new(cases.len() as u64).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} cases, {elapsed}")?);
    let mut outcomes = check(&cases, &session, |_| bar.inc(1));
    bar.finish_and_clear();
    if let Some(replacement) = &replacement {
        outcomes.retain(|outcome| outcome.replaced);
        if outcomes.is_empty() {
            let has: Vec<&str> = replacement.kernels().collect();
            let of = if flags.op.is_empty() { "any operation".to_owned() } else { flags.op.join(", ") };
            bail!("no case of {of} launches a kernel of this file, which has {}", has.join(", "));
        }
    }
    if let Some(path) = &flags.write_table {
        write_table(path, &outcomes)?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.pass()).count();
    if !flags.json {
        print_table(&outcomes);
        say!("{} of {} cases pass on {}", outcomes.len() - failed, outcomes.len(), flags.device);
    }
    say!("{}", json!({ "device": flags.device.to_string(), "pass": failed == 0, "failed": failed, "cases": outcomes }));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_table(path: &Path, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let marked = markdown::replaced(&text, &markdown::markdown(outcomes));
    let text = marked.with_context(|| format!("{}: no marks between which the table could stand", path.display()))?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn chosen<'a>(table: &'a [Case], flags: &Flags) -> anyhow::Result<Vec<&'a Case>> {
    let mut ops: Vec<&str> = table.iter().map(|case| case.op).collect();
    ops.dedup();
    if let Some(unknown) = flags.op.iter().find(|op| !ops.contains(&op.as_str())) {
        bail!("no operation `{unknown}`: there are {}", ops.join(", "));
    }
    let line = |case: &Case| format!("{} {} {} {}", case.op, case.pass, case.shape, case.element);
    let wanted = |case: &&Case| {
        (flags.op.is_empty() || flags.op.iter().any(|op| op == case.op))
            && flags.only.as_ref().is_none_or(|text| line(case).contains(text.as_str()))
    };
    let cases: Vec<&Case> = table.iter().filter(wanted).collect();
    if cases.is_empty() {
        bail!("no case has `{}` in its line", flags.only.as_deref().unwrap_or_default());
    }
    Ok(cases)
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
    for outcome in outcomes {
        let Outcome { op, pass, shape, element, .. } = outcome;
        let verdict = if outcome.pass() { "ok" } else { "FAIL" };
        let worst = outcome.worst().map(|o| format!("{} {:.0} %", o.name, 100.0 * o.distance.share())).unwrap_or_default();
        let counted = outcome.counted.as_ref().map(|c| {
            let micro = |seconds: f64| format!("{:.2} µs", 1e6 * seconds);
            format!("{:>9.3} {:>9.3} {:>6.3} {:>9} {:>9}", c.distinct, c.requested, c.wavefronts, micro(c.bound), micro(c.roofline))
        });
        say!("{verdict:4} {op:18} {pass:22} {shape:24} {element:5} {worst:>16} {}", counted.unwrap_or_default());
        outcome.failures.iter().for_each(|failure| say!("       {}", failure.replace('\n', "\n       ")));
    }
}
