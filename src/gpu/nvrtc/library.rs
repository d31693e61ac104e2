//! NVRTC's C functions, opened at run time: the only unsafe code of `nvrtc`.
//!
//! A table of our own instead of a binding crate's, because it must answer a missing library or symbol with an error. Signatures
//! from `nvrtc.h` of CUDA 13.0; these functions have not changed since CUDA 11.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

use crate::error::{Error, Result};

/// The file names by which a linker finds NVRTC, the wanted one first.
pub(super) const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
/// What NVRTC itself loads by its bare name on the first compilation.
const BUILTINS: &str = "libnvrtc-builtins.so";

const OLDEST: Version = Version { major: 12, minor: 0 };
const TESTED: Version = Version { major: 13, minor: 0 };

/// A version of NVRTC, which is the version of its CUDA release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 13 of 13.0
    pub major: u32,
    /// 0 of 13.0
    pub minor: u32,
}

impl Version {
    /// A warning if it is newer than what the project is tested with: drivers of an older release refuse its PTX (but not its machine
    /// code), and the emulator may meet an instruction that it does not know, which it says.
    pub fn warning(self) -> Option<String> {
        (self > TESTED).then(|| {
            format!("NVRTC {self} is newer than {TESTED}, which ferromind is tested with: an older driver may refuse its PTX")
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// `nvrtcResult`: 0 is success.
type Status = c_int;
/// `nvrtcProgram`
type Program = *mut c_void;

/// An opened NVRTC. It stays open to the end of the process: C++ libraries do not like to be unloaded.
pub struct Library {
    path: PathBuf,
    version: Version,
    functions: Functions,
}

#[derive(Clone, Copy)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    log: Output,
    ptx: Output,
    cubin: Output,
}

/// A pair of functions of which one tells the size and the other copies.
#[derive(Clone, Copy)]
struct Output {
    size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    copy: unsafe extern "C" fn(Program, *mut c_char) -> Status,
}

/// What came of a compilation.
pub(super) struct Outcome {
    /// Whether it compiled; if not, there is only a log.
    pub ok: bool,
    pub log: String,
    pub ptx: String,
    /// Empty for a `compute_*` target.
    pub cubin: Vec<u8>,
}

impl Library {
    /// Opens a file, or a bare name that the system's loader knows. The error is the reason alone: the caller says where it looked.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let builtins = open_builtins(path);
        // SAFETY: a shared library that calls itself NVRTC is trusted to be it; its initialisers run here.
        let opened = unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| describe(&error))?;
        // SAFETY: the names and types are those of nvrtc.h; once they are used, the library is never closed.
        let functions = unsafe {
            Functions {
                version: symbol(&opened, "nvrtcVersion")?,
                error_string: symbol(&opened, "nvrtcGetErrorString")?,
                create: symbol(&opened, "nvrtcCreateProgram")?,
                compile: symbol(&opened, "nvrtcCompileProgram")?,
                destroy: symbol(&opened, "nvrtcDestroyProgram")?,
                log: Output { size: symbol(&opened, "nvrtcGetProgramLogSize")?, copy: symbol(&opened, "nvrtcGetProgramLog")? },
                ptx: Output { size: symbol(&opened, "nvrtcGetPTXSize")?, copy: symbol(&opened, "nvrtcGetPTX")? },
                cubin: Output { size: symbol(&opened, "nvrtcGetCUBINSize")?, copy: symbol(&opened, "nvrtcGetCUBIN")? },
            }
        };
        std::mem::forget((opened, builtins));
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two places to write an integer to.
        let status = unsafe { (functions.version)(&mut major, &mut minor) };
        let version = Version { major: major.try_into().unwrap_or(0), minor: minor.try_into().unwrap_or(0) };
        if status != 0 {
            return Err("it does not tell its version".to_owned());
        }
        if version < OLDEST {
            return Err(format!("it is version {version}; {OLDEST} or newer is needed"));
        }
        Ok(Self { path: file_of(functions.version as *const c_void).unwrap_or_else(|| path.to_path_buf()), version, functions })
    }

    /// The file, also if the system's loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Compiles. Errors are broken calls; source that does not compile is an [`Outcome`].
    pub(super) fn compile(&self, name: &str, text: &str, headers: &[(&str, &str)], options: &[String]) -> Result<Outcome> {
        let c_string = |what: &str, text: &str| {
            CString::new(text).map_err(|_| Error::config(format!("{name}: a zero byte in {what} cannot be compiled")))
        };
        let (text, c_name) = (c_string("the source", text)?, c_string("its name", name)?);
        let header_names = headers.iter().map(|(name, _)| c_string("a header's name", name)).collect::<Result<Vec<_>>>()?;
        let header_texts = headers.iter().map(|(_, text)| c_string("a header", text)).collect::<Result<Vec<_>>>()?;
        let options = options.iter().map(|option| c_string("an option", option)).collect::<Result<Vec<_>>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (name_pointers, text_pointers, option_pointers) =
            (pointers(&header_names), pointers(&header_texts), pointers(&options));

        let mut program = Handle { program: ptr::null_mut(), destroy: self.functions.destroy };
        // SAFETY: every pointer is to a string that lives to the end of this function, and the counts are those of the arrays.
        let status = unsafe {
            (self.functions.create)(
                &mut program.program,
                text.as_ptr(),
                c_name.as_ptr(),
                count(headers.len())?,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", status)?;
        // SAFETY: as above; the program was created.
        let status = unsafe { (self.functions.compile)(program.program, count(options.len())?, option_pointers.as_ptr()) };
        let log = self.output("the log", self.functions.log, &program)?;
        let mut outcome = Outcome { ok: status == 0, log: text_of(log), ptx: String::new(), cubin: Vec::new() };
        if outcome.ok {
            outcome.ptx = text_of(self.output("PTX", self.functions.ptx, &program)?);
            outcome.cubin = self.output("machine code", self.functions.cubin, &program)?;
        } else if outcome.log.is_empty() {
            outcome.log = self.message(status);
        }
        Ok(outcome)
    }

    fn output(&self, what: &str, output: Output, program: &Handle) -> Result<Vec<u8>> {
        let mut size = 0usize;
        // SAFETY: a living program and a place to write its output's size to.
        self.check(what, unsafe { (output.size)(program.program, &mut size) })?;
        let mut bytes = vec![0u8; size];
        if size > 0 {
            // SAFETY: the buffer has the size that the library asked for.
            self.check(what, unsafe { (output.copy)(program.program, bytes.as_mut_ptr().cast()) })?;
        }
        Ok(bytes)
    }

    fn check(&self, what: &str, status: Status) -> Result<()> {
        if status == 0 { Ok(()) } else { Err(Error::device(format!("NVRTC, {what}: {}", self.message(status)))) }
    }

    fn message(&self, status: Status) -> String {
        // SAFETY: takes any number, and returns a static string or null.
        let text = unsafe { (self.functions.error_string)(status) };
        if text.is_null() {
            return format!("error {status}");
        }
        // SAFETY: not null, so a static string that ends with a zero byte.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// Destroys its program, whichever way the compilation ends.
struct Handle {
    program: Program,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: created, and destroyed only here.
            unsafe { (self.destroy)(&mut self.program) };
        }
    }
}

/// NVRTC loads its builtins by their bare name, which fails if its folder is not on the loader's path: but a library of that name that
/// is open already satisfies it. So the ones beside it are opened first. `None` if there are none, or for a bare name.
fn open_builtins(path: &Path) -> Option<Opened> {
    let folder = path.parent().filter(|folder| folder.is_dir())?;
    let mut beside: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BUILTINS)))
        .collect();
    beside.sort();
    // SAFETY: part of the NVRTC that is about to be opened.
    beside.iter().find_map(|path| unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.ok())
}

/// The file that a function was loaded from. A bare name does not tell; and it finds whatever NVRTC the process has open already.
fn file_of(function: *const c_void) -> Option<PathBuf> {
    let mut info =
        libc::Dl_info { dli_fname: ptr::null(), dli_fbase: ptr::null_mut(), dli_sname: ptr::null(), dli_saddr: ptr::null_mut() };
    // SAFETY: any address may be asked for; a place for the answer, whose name is a string of the loader's as long as the file is open.
    let name =
        unsafe { (libc::dladdr(function, &mut info) != 0 && !info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname)) }?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

/// # Safety
/// `T` is the type of the function of this name.
unsafe fn symbol<T: Copy>(library: &Opened, name: &str) -> Result<T, String> {
    // SAFETY: as the caller promised.
    let found = unsafe { library.get::<T>(name) };
    found.map(|symbol| *symbol).map_err(|_| format!("it has no function `{name}`"))
}

/// The loader's own words.
fn describe(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn count(len: usize) -> Result<c_int> {
    c_int::try_from(len).map_err(|_| Error::config("more headers or options than NVRTC can count"))
}

/// C's text, without the zero byte that ends it.
fn text_of(bytes: Vec<u8>) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
