//! `ferromind export`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ferromind::io::{export_gguf, export_model, parse_size};

use super::say;

#[derive(Args)]
pub struct Flags {
    /// A run directory, or any model directory with config.json and weights
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What is written: a directory, or a GGUF file
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// hf is a directory that transformers loads; gguf is one file for llama.cpp, of a dense Llama or Qwen3 with its tokenizer
    #[arg(long, value_enum, default_value_t = Format::Hf)]
    format: Format,
    /// float32, float16, in a directory bfloat16 too, in GGUF q8_0
    #[arg(long, default_value = "float32")]
    dtype: String,
    /// Cut the weights of a directory into files of at most this size, as 500MB or 5GB [default: one file]
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Hf,
    Gguf,
}

/// Writes the model.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let max_shard_size = flags.max_shard_size.as_deref().map(parse_size).transpose()?;
    match flags.format {
        Format::Hf => export_model(&flags.model, &flags.out, flags.dtype.parse()?, max_shard_size)?,
        Format::Gguf => {
            anyhow::ensure!(max_shard_size.is_none(), "--max-shard-size is for directories: a GGUF model is one file");
            let narrower = export_gguf(&flags.model, &flags.out, flags.dtype.parse()?)?;
            if let [first, ..] = &*narrower {
                say!(
                    "{} matrices, {first} the first, have rows that are not whole blocks of 32 values: they are in float16",
                    narrower.len()
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
