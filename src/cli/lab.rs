//! `ferromind lab`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ferromind::lab::golden::{Comparison, compare};
use ferromind::tensor::DType;
use serde_json::json;

use super::say;

#[derive(Subcommand)]
pub enum Command {
    /// Run every kernel against its f64 reference; exit status 1 where one falls short
    Check(super::check::Flags),
    Bench(super::bench_kernels::Flags),
    /// Compare loss, logits, gradients and greedy tokens with golden data, by name; exit status 1 where any falls short
    Golden {
        /// Directories with config.json, model.safetensors and golden.safetensors
        #[arg(required = true, value_name = "DIR")]
        dirs: Vec<PathBuf>,
        /// cpu
        #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
        device: String,
        /// float32 or float64
        #[arg(long, default_value = "float32", value_parser = ["float32", "float64"])]
        dtype: String,
        /// Only the last line, which is JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let (dirs, device, dtype, json) = match command {
        Command::Check(flags) => return super::check::run(flags),
        Command::Bench(flags) => return super::bench_kernels::run(flags),
        Command::Golden { dirs, device, dtype, json } => (dirs, device, dtype, json),
    };
    let element = if dtype == "float64" { DType::F64 } else { DType::F32 };
    let mut cases = Vec::new();
    for dir in &dirs {
        let (comparisons, error) = match compare(dir, element) {
            Ok(comparisons) => (comparisons, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let pass = error.is_none() && comparisons.iter().all(|c| c.pass);
        if !json {
            print_table(&dir.display().to_string(), &comparisons, error.as_deref(), pass);
        }
        cases.push((dir, pass, error, comparisons));
    }
    let pass = cases.iter().all(|(_, pass, ..)| *pass);
    let cases: Vec<_> = cases
        .into_iter()
        .map(|(dir, pass, error, comparisons)| json!({ "dir": dir, "pass": pass, "error": error, "comparisons": comparisons }))
        .collect();
    say!("{}", json!({ "device": device, "dtype": dtype, "pass": pass, "cases": cases }));
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_table(dir: &str, comparisons: &[Comparison], error: Option<&str>, pass: bool) {
    say!("{dir}: {}", if pass { "pass" } else { "FAIL" });
    if let Some(error) = error {
        say!("  {error}");
    }
    for c in comparisons {
        let verdict = if c.pass { "ok  " } else { "FAIL" };
        match &c.missing {
            Some(why) => say!("  {verdict} {:64} missing: {why}", c.name),
            None => say!("  {verdict} {:64} {:9.2e} of {:.0e}  {}", c.name, c.error, c.bound, c.measure),
        }
    }
    say!();
}
