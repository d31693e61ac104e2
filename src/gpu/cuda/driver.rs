//! The driver, opened only when everything that is used of it is there.
//!
//! cudarc panics on the first call into a library or symbol that is missing. So [`initialise`] looks for the library and for every
//! symbol of [`SYMBOLS`] before the first call; a test holds that list against the calls in this folder.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use cudarc::driver::sys;
use sys::{CUresult, cudaError_enum as Status};

use crate::error::{Error, Result};

/// Every function of the driver that this folder calls.
pub(super) const SYMBOLS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncGetParamInfo",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernelEx",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamIsCapturing",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuTensorMapEncodeTiled",
];

/// What to do about a missing driver or an old one.
const INSTALL: &str = "install NVIDIA's driver 580 or newer (nvidia-smi tells the version), or use --device cpu";

/// Opens the driver, once for the process. Returns the newest CUDA release that it supports, as 1000·major + 10·minor. The error
/// says what is missing and what to install; it is the same each time.
pub(super) fn initialise() -> Result<i32> {
    static DONE: OnceLock<Result<i32, (String, Vec<String>)>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        require_library_and_symbols()?;
        let mut version = 0;
        // SAFETY: the library and both symbols are there; the pointer is to a place for an integer.
        unsafe {
            failed("cuInit", sys::cuInit(0))?;
            failed("cuDriverGetVersion", sys::cuDriverGetVersion(&mut version))?;
        }
        Ok(version)
    });
    done.clone().map_err(|(what, looked)| Error::Missing { what, looked, remedy: INSTALL.to_owned() })
}

/// What is missing, and what was looked at.
type Absent = (String, Vec<String>);

fn require_library_and_symbols() -> Result<(), Absent> {
    // SAFETY: opens the driver's library, if there is one, whose initialisers are trusted.
    if !unsafe { sys::is_culib_present() } {
        let looked = "libcuda.so.1 on the system loader's path".to_owned();
        return Err(("NVIDIA's driver".to_owned(), vec![looked]));
    }
    // SAFETY: it was just opened, so this does not panic.
    let library = unsafe { sys::culib() };
    // SAFETY: the symbols are looked up and not called.
    let has = |symbol: &str| unsafe { library.get::<unsafe extern "C" fn()>(symbol.as_bytes()) }.is_ok();
    let missing: Vec<&str> = SYMBOLS.iter().copied().filter(|symbol| !has(symbol)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(("A new enough NVIDIA driver".to_owned(), vec![format!("libcuda.so.1, which lacks {}", missing.join(", "))]))
}

fn failed(call: &str, status: CUresult) -> Result<(), Absent> {
    match status {
        Status::CUDA_SUCCESS => Ok(()),
        Status::CUDA_ERROR_NO_DEVICE => {
            Err(("A CUDA device".to_owned(), vec!["the driver, which is there but knows no device".to_owned()]))
        }
        Status::CUDA_ERROR_STUB_LIBRARY => {
            let looked = "libcuda.so, which is a toolkit's stub for linking: take its folder off LD_LIBRARY_PATH".to_owned();
            Err(("NVIDIA's driver".to_owned(), vec![looked]))
        }
        status => Err(("A working NVIDIA driver".to_owned(), vec![format!("libcuda.so.1: {call}: {}", message(status))])),
    }
}

/// The driver's name and sentence for a status: `CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered`.
pub(super) fn message(status: CUresult) -> String {
    let text = |get: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: called only after `initialise` found the symbols; sets the pointer to a static string, or leaves null.
        let known = unsafe { get(status, &mut text) } == Status::CUDA_SUCCESS && !text.is_null();
        // SAFETY: a static string that ends with a zero byte.
        known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    match (text(sys::cuGetErrorName), text(sys::cuGetErrorString)) {
        (Some(name), Some(sentence)) => format!("{name}: {sentence}"),
        _ => format!("status {}", status as u32),
    }
}

/// Whether a status comes from a kernel that ran earlier, rather than from the call that returned it. After most of these the
/// context is of no more use.
pub(super) fn is_kernels_fault(status: CUresult) -> bool {
    matches!(status as u32, 700 | 702 | 710 | 714..=719)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that follow `sys::` and look like a function of the driver.
    fn called(source: &str) -> Vec<&str> {
        let words = source.split("sys::").skip(1).map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next());
        words.flatten().filter(|word| word.starts_with("cu") && word[2..].starts_with(|c: char| c.is_ascii_uppercase())).collect()
    }

    #[test]
    fn every_call_is_probed_and_nothing_else() {
        let sources = [include_str!("driver.rs"), include_str!("context.rs"), include_str!("mod.rs"), include_str!("launch.rs")];
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/gpu/cuda")).unwrap();
        assert_eq!(folder.count(), sources.len(), "a file of this folder is not looked through");
        let mut found: Vec<&str> = sources.iter().flat_map(|source| called(source)).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, SYMBOLS);
    }

    #[test]
    fn faults_of_kernels() {
        for status in [Status::CUDA_ERROR_ILLEGAL_ADDRESS, Status::CUDA_ERROR_MISALIGNED_ADDRESS, Status::CUDA_ERROR_LAUNCH_FAILED]
        {
            assert!(is_kernels_fault(status));
        }
        for status in
            [Status::CUDA_ERROR_INVALID_VALUE, Status::CUDA_ERROR_OUT_OF_MEMORY, Status::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES]
        {
            assert!(!is_kernels_fault(status));
        }
    }
}
