//! The commands, one file each: they parse, print and call the library.

mod bench;
mod bench_kernels;
mod check;
mod data;
mod emulate;
mod estimate;
mod eval;
mod export;
mod generate;
mod lab;
mod learn;
mod pretrain;
mod rope;
mod selection;
mod tokenizer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ferromind::tensor::DType;

/// Train, run and take apart small language models.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model on text; with no flags, a small one on embedded stories in about a minute
    Pretrain(Box<pretrain::Flags>),
    /// Let a model write on from a prompt
    Generate(generate::Flags),
    /// Memory on paper: parameters, optimizer, activations and cache of a model
    Estimate(estimate::Flags),
    /// Write a model in another type or in several files
    Export(export::Flags),
    /// Judge a model: loss, perplexity and bits per byte of text, or multiple choice by log-likelihood
    Eval(eval::Flags),
    /// Look at data as a model will see it, or tokenize it beforehand
    #[command(subcommand)]
    Data(data::Command),
    /// Make tokenizers
    #[command(subcommand)]
    Tokenizer(tokenizer::Command),
    /// Check the engine against what others computed
    #[command(subcommand)]
    Lab(lab::Command),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Command),
    /// Run a CUDA kernel with no GPU: find its mistakes, count what bounds its speed
    Emulate(Box<emulate::Flags>),
    /// Print the numbers of a page under learn/
    Learn(learn::Flags),
}

/// Runs the command that was typed.
pub fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Pretrain(flags) => pretrain::run(&flags),
        Command::Generate(flags) => generate::run(&flags),
        Command::Estimate(flags) => estimate::run(&flags),
        Command::Export(flags) => export::run(&flags),
        Command::Eval(flags) => eval::run(&flags),
        Command::Data(command) => data::run(command),
        Command::Tokenizer(command) => tokenizer::run(command),
        Command::Lab(command) => lab::run(command),
        Command::Bench(command) => bench::run(command),
        Command::Emulate(flags) => emulate::run(*flags),
        Command::Learn(flags) => learn::run(&flags),
    }
}

/// What weights are kept in at inference.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum WeightType {
    #[default]
    Float32,
    Bfloat16,
}

impl From<WeightType> for DType {
    fn from(dtype: WeightType) -> Self {
        match dtype {
            WeightType::Float32 => Self::F32,
            WeightType::Bfloat16 => Self::BF16,
        }
    }
}

impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        })
    }
}

/// More threads than any machine has cores: such a number is a slip, and would take minutes to begin.
const MOST_THREADS: usize = 1024;

/// Sets the number of threads; 0 leaves one for each core.
fn use_threads(threads: usize) -> anyhow::Result<()> {
    anyhow::ensure!(threads <= MOST_THREADS, "num-workers is {threads}; it must be at most {MOST_THREADS}");
    if threads > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// `println!`, but for a reader that has gone away (`| head`), which is no reason to stop, let alone to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

/// Writes to standard output; a reader that has gone away (`| head`) ends the program quietly.
fn print_streamed(text: &str) -> anyhow::Result<bool> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
