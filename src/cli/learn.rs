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
    match flags.page {
        Page::OneToken => print!("{}", ferromind::lab::one_token::report()?),
    }
    Ok(ExitCode::SUCCESS)
}
