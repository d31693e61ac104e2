//! `ferromind learn`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ferromind::lab::{long_context, one_token};
use serde_json::json;

/// The pages that have numbers.
#[derive(Subcommand)]
enum Page {
    /// learn/01-one-token.md
    OneToken,
    /// learn/03-longer-than-trained.md: rotary frequencies, as they are and scaled
    Frequencies {
        /// Columns of a head
        #[arg(long, default_value_t = 32)]
        head_dim: usize,
        /// Base of the frequencies
        #[arg(long, default_value_t = 1e4)]
        rope_theta: f64,
        /// The length that a model was trained at
        #[arg(long, default_value_t = 512)]
        length: usize,
        /// By how much the context is to grow
        #[arg(long, default_value_t = 4.0)]
        factor: f64,
    },
    /// learn/03-longer-than-trained.md: long documents as JSON lines, each a few embedded stories told again and again
    LongDocuments {
        /// How many
        #[arg(long, default_value_t = 800)]
        count: usize,
        /// Another seed, other documents
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Stories that a document holds
        #[arg(long, default_value_t = 3)]
        stories: usize,
        /// How often one of them is told
        #[arg(long, default_value_t = 16)]
        tellings: usize,
    },
}

#[derive(Args)]
pub struct Flags {
    /// The page
    #[command(subcommand)]
    page: Page,
}

/// Prints the numbers.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    match flags.page {
        Page::OneToken => super::print_streamed(&one_token::report()?)?,
        Page::Frequencies { head_dim, rope_theta, length, factor } => {
            super::print_streamed(&long_context::frequencies(head_dim, rope_theta, length, factor)?)?
        }
        Page::LongDocuments { count, seed, stories, tellings } => {
            let mut documents = long_context::documents(seed, count, stories, tellings)?;
            documents.try_fold(true, |heard, text| match heard {
                true => super::print_streamed(&format!("{}\n", json!({ "text": text }))),
                false => Ok(false),
            })?
        }
    };
    Ok(ExitCode::SUCCESS)
}
