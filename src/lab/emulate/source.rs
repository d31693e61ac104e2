//! From a `.cu` or `.ptx` file to a kernel that can be launched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ptx_emulator::{Kernel, Program};

use crate::error::{Error, Result};
use crate::gpu::Arch;
use crate::gpu::nvrtc::{self, Compiler, Options, Resources};

/// What `.cu` files are compiled for unless something else is asked for: the assembler checks inline PTX and tells registers.
pub const DEFAULT_ARCH: Arch = Arch::of_capability(9, 0);

/// How a file becomes PTX.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// For what to compile; `None`: [`DEFAULT_ARCH`]. Of a `.ptx` file nothing is compiled.
    pub arch: Option<Arch>,
    /// `-D NAME=VALUE`
    pub defines: Vec<(String, String)>,
    /// `-I DIR`
    pub include_dirs: Vec<PathBuf>,
}

/// A file, parsed.
pub struct Source {
    /// Its path as given.
    pub name: String,
    /// Its kernels.
    pub program: Arc<Program>,
    /// What it was compiled for.
    pub arch: Arch,
    /// What each kernel needs; none of a `.ptx` file and of a `compute_*` target.
    pub resources: Vec<Resources>,
}

impl Source {
    /// Reads, compiles and parses a file.
    ///
    /// # Errors
    /// A file that cannot be read or is neither `.cu` nor `.ptx`, no NVRTC, source that does not compile, PTX with an instruction
    /// that the emulator does not know.
    pub fn open(path: &Path, build: &Build) -> Result<Self> {
        let name = path.display().to_string();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["cu", "ptx"].contains(&extension) {
            return Err(Error::config(format!("{name}: expected a file whose name ends with .cu or .ptx")));
        }
        let bytes = std::fs::read(path).map_err(|cause| Error::io(path, cause))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::format(path, "is no UTF-8 text"))?;
        let parse = |ptx: &str| Program::parse(ptx).map(Arc::new).map_err(|error| Error::format(path, error.to_string()));
        if extension == "ptx" {
            if build.arch.is_some() || !build.defines.is_empty() || !build.include_dirs.is_empty() {
                return Err(Error::config(format!("{name} is PTX, which is not compiled: --arch, -D and -I are for .cu files")));
            }
            let program = parse(&text)?;
            let arch = program.target().parse().unwrap_or(DEFAULT_ARCH);
            return Ok(Self { name, program, arch, resources: Vec::new() });
        }
        let arch = build.arch.unwrap_or(DEFAULT_ARCH);
        let mut options = Options::new(arch);
        options.defines.clone_from(&build.defines);
        options.include_dirs.clone_from(&build.include_dirs);
        // NVRTC makes names absolute by the working directory, and what it made may be in the cache from another one.
        let absolute = std::path::absolute(path).map_err(|cause| Error::io(path, cause))?.display().to_string();
        let source = nvrtc::Source { name: &absolute, text: &text, headers: &[] };
        let compiled = Compiler::new()?.compile(&source, &options)?;
        let program = parse(&compiled.ptx)?;
        Ok(Self { program, arch, resources: compiled.resources, name })
    }

    /// The kernel of this name, which may be the name in C++ of one that is not `extern "C"`; without a name, the only one.
    ///
    /// # Errors
    /// No such kernel, or more than one: the message lists those that there are.
    pub fn kernel(&self, name: Option<&str>) -> Result<&Kernel> {
        let all: Vec<&Kernel> = self.program.kernels().collect();
        let list = |kernels: &[&Kernel]| kernels.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>().join(", ");
        let fail = |message: String| Err(Error::config(format!("{}: {message}", self.name)));
        let Some(name) = name else {
            return match all[..] {
                [kernel] => Ok(kernel),
                [] => fail("has no kernel (a template has none until it is instantiated)".into()),
                _ => fail(format!("has {} kernels, choose one with --kernel: {}", all.len(), list(&all))),
            };
        };
        if let Ok(kernel) = self.program.kernel(name) {
            return Ok(kernel);
        }
        let mangled: Vec<&Kernel> = all.iter().copied().filter(|kernel| is_mangled(&kernel.name, name)).collect();
        match mangled[..] {
            [kernel] => Ok(kernel),
            [] => fail(format!("has no kernel `{name}`; it has: {}", list(&all))),
            _ => fail(format!("`{name}` could be each of {}", list(&mangled))),
        }
    }
}

/// Whether a symbol is this name, mangled as the C++ ABI of Itanium does it: `_Z`, maybe scopes, the name behind its length.
fn is_mangled(symbol: &str, name: &str) -> bool {
    let Some(mut rest) = symbol.strip_prefix("_Z") else { return false };
    rest = rest.strip_prefix('N').unwrap_or(rest);
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(length) = rest[..digits].parse::<usize>() else { return false };
        let Some((part, behind)) = rest[digits..].split_at_checked(length) else { return false };
        if part == name {
            return true;
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_names() {
        for symbol in ["_Z3addPfi", "_Z3addIfEvPT_i", "_ZN2ns3addEPf", "_ZN12_GLOBAL__N_13addEPf"] {
            assert!(is_mangled(symbol, "add"), "{symbol}");
        }
        for symbol in ["add", "_Z4add2Pf", "_Z", "_Z9add", "_ZN2nsE3add", "_Z3ad€"] {
            assert!(!is_mangled(symbol, "add"), "{symbol}");
        }
    }
}
