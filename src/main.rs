//! The command line. Everything that it does is a call into the library.

mod cli;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}"); // `eprintln!` panics where standard error is closed
            ExitCode::FAILURE
        }
    }
}
