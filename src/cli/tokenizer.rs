//! `ferromind tokenizer`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ferromind::data::{Documents, Tokenizer};

use super::say;

#[derive(Subcommand)]
pub enum Command {
    /// Train a byte-level BPE vocabulary with the three special tokens
    Train {
        /// Plain UTF-8 text, or JSON lines {"text": …}
        #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
        input: Vec<PathBuf>,
        /// Entries: 3 special tokens, 256 bytes, the rest merges
        #[arg(long, default_value_t = 6400)]
        vocab_size: usize,
        /// Where tokenizer.json and tokenizer_config.json go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Count bad lines and go on, instead of stopping at the first
        #[arg(long)]
        skip_bad_lines: bool,
    },
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Train { input, vocab_size, out, skip_bad_lines } = command;
    let documents = Documents::open(&input, skip_bad_lines)?;
    let tokenizer = Tokenizer::train(documents.map(|piece| piece.map(|piece| piece.text)), vocab_size)?;
    tokenizer.save(&out)?;
    let entries = tokenizer.vocab_size();
    say!("{entries} entries in {}", out.display());
    if entries < vocab_size {
        say!("(fewer than {vocab_size}: the text has no more pairs to merge)");
    }
    Ok(ExitCode::SUCCESS)
}
