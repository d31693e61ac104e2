//! NVRTC: from CUDA source to PTX and machine code, in this process, with no GPU and no driver.
//!
//! `find` says where it is looked for, `library` opens it, `cache` keeps what it made. Every kernel is compiled with `-lineinfo`, so
//! that findings and profilers speak of lines of the `.cu` file.
//!
//! Inline PTX is checked by the assembler alone: compile for `sm_90a`, not `compute_90a`, to know that a kernel is right. The
//! assembler's complaints, which name lines of the PTX, are translated to lines of the source ([`Compiler::compile`]).

pub mod cache;
pub mod find;
mod includes;
pub mod library;
mod lines;
mod resources;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use cache::Cache;
pub use library::{Library, Version};
pub use resources::Resources;

use super::arch::Arch;
use crate::error::{Error, Result};
use includes::hash_part;

/// A `.cu` file and the headers that it may include.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What messages call it, a path as a rule: `kernels/axpy.cu`.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Headers in memory: the name as in `#include "name"`, and the text.
    pub headers: &'a [(&'a str, &'a str)],
}

/// How to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// For what.
    pub arch: Arch,
    /// `-D NAME=VALUE`, in this order.
    pub defines: Vec<(String, String)>,
    /// `-I FOLDER`, searched in this order; the toolkit's own headers come last.
    pub include_dirs: Vec<PathBuf>,
    /// `-lineinfo`: which line of the source an instruction comes from.
    pub line_info: bool,
    /// `--use_fast_math`: approximate division, square root and functions, and no subnormals.
    pub fast_math: bool,
    /// Anything else, in NVRTC's spelling.
    pub extra: Vec<String>,
}

impl Options {
    /// For this target, with line information and precise mathematics.
    pub fn new(arch: Arch) -> Self {
        Self { arch, defines: Vec::new(), include_dirs: Vec::new(), line_info: true, fast_math: false, extra: Vec::new() }
    }

    /// With one more definition.
    pub fn define(mut self, name: &str, value: impl ToString) -> Self {
        self.defines.push((name.to_owned(), value.to_string()));
        self
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--gpu-architecture={}", self.arch), "--std=c++17".to_owned()];
        if self.line_info {
            arguments.push("-lineinfo".to_owned());
        }
        if self.fast_math {
            arguments.push("--use_fast_math".to_owned());
        }
        if !self.arch.is_ptx_only() {
            arguments.push("--ptxas-options=-v".to_owned()); // registers and spills, into the log
        }
        arguments.extend(self.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        arguments.extend(self.include_dirs.iter().map(|folder| format!("-I{}", folder.display())));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// What came of a file.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The file's name.
    pub name: String,
    /// What it was compiled for.
    pub arch: Arch,
    /// The assembly that the emulator executes.
    pub ptx: String,
    /// Machine code; empty for a `compute_*` target.
    pub cubin: Vec<u8>,
    /// Warnings, and what the assembler tells of registers.
    pub log: String,
    /// What each kernel needs; empty for a `compute_*` target.
    pub resources: Vec<Resources>,
    /// Whether it was on disk already.
    pub from_cache: bool,
}

impl Compiled {
    /// PTX that came from elsewhere.
    pub fn from_ptx(name: &str, arch: Arch, ptx: String) -> Self {
        let (name, arch) = (name.to_owned(), arch.ptx_only());
        Self { name, arch, ptx, cubin: Vec::new(), log: String::new(), resources: Vec::new(), from_cache: false }
    }
}

/// An opened NVRTC with a cache. Threads may share it.
pub struct Compiler {
    library: Library,
    cache: Option<Cache>,
    /// The toolkit's headers (`cuda_fp16.h`), if they lie beside the library.
    toolkit_headers: Option<PathBuf>,
}

impl Compiler {
    /// With the NVRTC and the cache that the environment offers. The error says where NVRTC was looked for and how to install it.
    pub fn new() -> Result<Self> {
        Ok(Self::with(find::Surroundings::of_process().open()?, Cache::of_process()))
    }

    /// With this library and cache.
    pub fn with(library: Library, cache: Option<Cache>) -> Self {
        let toolkit_headers = headers_beside(library.path());
        Self { library, cache, toolkit_headers }
    }

    /// The library, to ask for its version and where it was found.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Compiles a file, or takes what an earlier compilation of the same left in the cache.
    ///
    /// An error holds the compiler's log, with the lines of the source: `kernels/axpy.cu(12): error: …`.
    pub fn compile(&self, source: &Source<'_>, options: &Options) -> Result<Compiled> {
        let cached = self.cache.as_ref().and_then(|cache| Some((cache, self.key(source, options)?)));
        if let Some(entry) = cached.as_ref().and_then(|(cache, key)| cache.load(key)) {
            return Ok(compiled(source, options, entry, true));
        }
        let outcome = self.run(source, options)?;
        if !outcome.ok {
            let log = self.with_source_lines(source, options, outcome.log);
            return Err(Error::Compile { source_name: source.name.to_owned(), arch: options.arch.to_string(), log });
        }
        let entry = cache::Entry { ptx: outcome.ptx, cubin: outcome.cubin, log: outcome.log };
        if let Some((cache, key)) = cached {
            cache.store(&key, &entry);
        }
        Ok(compiled(source, options, entry, false))
    }

    fn run(&self, source: &Source<'_>, options: &Options) -> Result<library::Outcome> {
        let mut arguments = options.arguments();
        arguments.extend(self.toolkit_headers.iter().map(|folder| format!("-I{}", folder.display())));
        self.library.compile(source.name, source.text, source.headers, &arguments)
    }

    /// What goes into a kernel. `None` if that cannot be told without preprocessing.
    fn key(&self, source: &Source<'_>, options: &Options) -> Option<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        // NVRTC does not tell its patch release, but its size does.
        let size = std::fs::metadata(self.library.path()).map_or(0, |file| file.len());
        hash_part(&mut hasher, self.library.version().to_string().as_bytes(), &size.to_le_bytes());
        hash_part(&mut hasher, source.name.as_bytes(), source.text.as_bytes());
        // NVRTC writes a relative name into the line information as the path that it has now.
        let folder = std::env::current_dir().unwrap_or_default();
        hash_part(&mut hasher, b"", folder.as_os_str().as_encoded_bytes());
        for argument in options.arguments() {
            hash_part(&mut hasher, b"", argument.as_bytes());
        }
        // `extra` may hold `-include FILE` and the like.
        let readable = options.extra.iter().all(|option| !option.contains("include"));
        let folders: Vec<PathBuf> = options.include_dirs.iter().chain(&self.toolkit_headers).cloned().collect();
        (readable && includes::hash_headers(source, &folders, &mut hasher)).then(|| hasher.finalize())
    }

    /// The assembler speaks of lines of the PTX, which is gone when it fails: it is made again, without the assembler.
    fn with_source_lines(&self, source: &Source<'_>, options: &Options, log: String) -> String {
        if !log.contains("ptxas") {
            return log;
        }
        match self.run(source, &Options { arch: options.arch.ptx_only(), line_info: true, ..options.clone() }) {
            Ok(outcome) if outcome.ok => lines::translate(&log, &outcome.ptx),
            _ => log,
        }
    }
}

fn compiled(source: &Source<'_>, options: &Options, entry: cache::Entry, from_cache: bool) -> Compiled {
    let cache::Entry { ptx, cubin, log } = entry;
    let resources = resources::parse(&log);
    Compiled { name: source.name.to_owned(), arch: options.arch, ptx, cubin, log, resources, from_cache }
}

/// `include` beside the folder that the library lies in: the layout of toolkits and of the wheels.
fn headers_beside(library: &Path) -> Option<PathBuf> {
    let folder = library.parent()?.parent()?.join("include");
    folder.is_dir().then_some(folder)
}
