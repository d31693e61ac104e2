//! `ferromind learn`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

/// The pages that have numbers.
#[derive(Clone, Copy, ValueEnum)]
enum Page {
    /// learn/01-one-token.md
    OneToken,
}

#[derive(Args)]
pub struct Flags {
    /// The page
    page: Page,
}

/// Prints the numbers.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let report = match flags.page {
        Page::OneToken => ferromind::lab::one_token::report()?,
    };
    super::print_streamed(&report)?;
    Ok(ExitCode::SUCCESS)
}
