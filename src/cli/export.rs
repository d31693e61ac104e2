//! `ferromind export`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ferromind::io::{export_model, parse_size};

#[derive(Args)]
pub struct Flags {
    /// A run directory, or any model directory with config.json and weights
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The directory that is written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// float32, bfloat16 or float16
    #[arg(long, default_value = "float32")]
    dtype: String,
    /// Cut the weights into files of at most this size, as 500MB or 5GB [default: one file]
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,
}

/// Writes the model.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let max_shard_size = flags.max_shard_size.as_deref().map(parse_size).transpose()?;
    export_model(&flags.model, &flags.out, flags.dtype.parse()?, max_shard_size)?;
    Ok(ExitCode::SUCCESS)
}
