//! Embeds the kernels and generates a typed call for each: `src/gpu/kernels.rs` includes the result.
//!
//! Reads text and writes text. It never runs a CUDA compiler and never looks for a GPU.

#[allow(dead_code)] // what kernels' files say of their launches is read again, and evaluated, by the library
#[path = "src/gpu/kernels/expression.rs"]
mod expression;
#[path = "build/generate.rs"]
mod generate;
#[allow(dead_code)]
#[path = "src/gpu/kernels/plan.rs"]
mod plan;
#[path = "src/gpu/kernels/prototype.rs"]
mod prototype;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use generate::File;

fn main() -> ExitCode {
    // A folder stands for all that is in it.
    for input in ["build.rs", "build", "kernels", "src/gpu/kernels"] {
        println!("cargo:rerun-if-changed={input}");
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or(format!("{name} is not set: cargo runs this"));
    let mut files = Vec::new();
    collect(&variable("CARGO_MANIFEST_DIR")?.join("kernels"), "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let (sources, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.path.ends_with(".cu"));
    let headers: Vec<_> = others.into_iter().filter(|file| file.path.ends_with(".cuh")).collect();
    let out = variable("OUT_DIR")?.join("kernels.rs");
    fs::write(&out, generate::generate(&sources, &headers)?).map_err(|error| format!("{}: {error}", out.display()))
}

/// Every `.cu` and `.cuh` file in a folder and below it.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else if name.ends_with(".cu") || name.ends_with(".cuh") {
            let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            files.push(File { path: format!("{prefix}{name}"), text });
        }
    }
    Ok(())
}
