//! Modules, kernels and their launches.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;
use sys::{
    CUfunction, CUfunction_attribute_enum as FunctionAttribute, CUjit_option_enum as JitOption, CUlaunchAttribute,
    CUlaunchAttributeID_enum as LaunchAttribute, CUmodule, CUresult, CUstream, cudaError_enum as Status,
};

use super::context::{Context, check};
use super::driver;
use crate::error::{Error, Result};
use crate::gpu::nvrtc::Compiled;
use crate::gpu::{Arguments, LaunchConfig};

/// Dynamic and static shared memory that every kernel may have without asking, in bytes.
const SHARED_BY_DEFAULT: u32 = 48 << 10;
/// Blocks of a cluster that every device with clusters grants without asking.
const CLUSTER_BY_DEFAULT: u32 = 8;

/// A loaded module. It is unloaded with its context and not before: a captured graph may still refer to its kernels.
pub(super) struct LoadedModule {
    pub(super) context: Arc<Context>,
    module: CUmodule,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for LoadedModule {}
// SAFETY: as above.
unsafe impl Sync for LoadedModule {}

impl LoadedModule {
    /// Loads machine code, or lets the driver compile the PTX where there is none. The context must be current.
    pub(super) fn load(context: &Arc<Context>, compiled: &Compiled) -> Result<Self> {
        let ptx;
        let image: *const c_void = if compiled.cubin.is_empty() {
            ptx = CString::new(compiled.ptx.as_str())
                .map_err(|_| Error::device(format!("{}: PTX with a zero byte", compiled.name)))?;
            ptx.as_ptr().cast()
        } else {
            compiled.cubin.as_ptr().cast()
        };
        let mut module = ptr::null_mut();
        let mut log = vec![0u8; 8 << 10];
        let mut options = [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(log.len())];
        // SAFETY: a whole cubin, whose header tells its size, or text that ends with a zero byte; the log's buffer has the size
        // that is given as a number in a pointer's place, as the driver wants it.
        let status = unsafe { sys::cuModuleLoadDataEx(&mut module, image, 2, options.as_mut_ptr(), values.as_mut_ptr()) };
        if status != Status::CUDA_SUCCESS {
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
            return Err(Error::device(format!("{} for {}: {}\n{log}", compiled.name, compiled.arch, reason(status))));
        }
        Ok(Self { context: context.clone(), module })
    }

    /// Finds a kernel and what its parameters and limits are. The context must be current.
    pub(super) fn kernel(&self, name: &str) -> Result<LoadedKernel> {
        let c_name = CString::new(name).map_err(|_| Error::device("a kernel's name with a zero byte"))?;
        let mut function = ptr::null_mut();
        // SAFETY: a loaded module, a name that ends with a zero byte, and a place for the function.
        match unsafe { sys::cuModuleGetFunction(&mut function, self.module, c_name.as_ptr()) } {
            Status::CUDA_ERROR_NOT_FOUND => return Err(Error::device(format!("the module has no kernel `{name}`"))),
            status => check("cuModuleGetFunction", status)?,
        }
        let mut static_shared = 0;
        // SAFETY: a function of the driver, and a place for an integer.
        check("cuFuncGetAttribute", unsafe {
            sys::cuFuncGetAttribute(&mut static_shared, FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)
        })?;
        let mut parameters = Vec::new();
        let (mut offset, mut size) = (0usize, 0usize);
        // SAFETY: as above. An index behind the last parameter is an error, which ends the loop.
        while unsafe { sys::cuFuncGetParamInfo(function, parameters.len(), &mut offset, &mut size) } == Status::CUDA_SUCCESS {
            parameters.push(size);
        }
        let static_shared = u32::try_from(static_shared).unwrap_or(0);
        let granted = Granted { shared: SHARED_BY_DEFAULT.saturating_sub(static_shared), cluster: CLUSTER_BY_DEFAULT };
        Ok(LoadedKernel { context: self.context.clone(), function, parameters, granted: Mutex::new(granted) })
    }
}

/// What may be behind an image that the driver does not take.
fn reason(status: CUresult) -> String {
    let hint = match status {
        Status::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => ": NVRTC is newer than the driver; update it, or install the pinned NVRTC",
        Status::CUDA_ERROR_NO_BINARY_FOR_GPU => ": compiled for another architecture, or by a newer CUDA than the driver knows",
        _ => "",
    };
    format!("{}{hint}", driver::message(status))
}

/// A kernel of a loaded module.
pub(super) struct LoadedKernel {
    pub(super) context: Arc<Context>,
    function: CUfunction,
    /// Bytes of each parameter.
    parameters: Vec<usize>,
    granted: Mutex<Granted>,
}

/// What this kernel's launches may ask for so far.
struct Granted {
    shared: u32,
    cluster: u32,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for LoadedKernel {}
// SAFETY: as above.
unsafe impl Sync for LoadedKernel {}

impl LoadedKernel {
    /// Issues a launch that `LaunchConfig::check` has passed. The context must be current. The outer error is of the arguments or
    /// limits; the status is the launch's own.
    pub(super) fn launch(&self, name: &str, stream: CUstream, config: &LaunchConfig, arguments: &Arguments) -> Result<CUresult> {
        let sizes: Vec<usize> = arguments.iter().map(<[u8]>::len).collect();
        if sizes != self.parameters {
            return Err(Error::device(format!(
                "kernel `{name}`: arguments of {sizes:?} bytes for parameters of {:?}",
                self.parameters
            )));
        }
        let cluster: u32 = config.cluster.iter().product();
        self.raise_limits(config.shared_bytes, cluster)?;
        let mut attributes: Vec<CUlaunchAttribute> = Vec::new();
        let mut add = |id, set: &dyn Fn(&mut sys::CUlaunchAttributeValue)| {
            let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
            set(&mut value);
            attributes.push(CUlaunchAttribute { id, pad: [0; 4], value });
        };
        if cluster > 1 {
            let [x, y, z] = config.cluster;
            add(LaunchAttribute::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &|value| {
                value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
            });
        }
        if config.cooperative {
            add(LaunchAttribute::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &|value| value.cooperative = 1);
        }
        if config.overlap {
            add(LaunchAttribute::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, &|value| {
                value.programmaticStreamSerializationAllowed = 1;
            });
        }
        let launch = sys::CUlaunchConfig {
            gridDimX: config.grid[0],
            gridDimY: config.grid[1],
            gridDimZ: config.grid[2],
            blockDimX: config.block[0],
            blockDimY: config.block[1],
            blockDimZ: config.block[2],
            sharedMemBytes: config.shared_bytes,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32, // at most three
        };
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(|bytes| bytes.as_ptr().cast_mut().cast()).collect();
        // SAFETY: as many pointers as the function has parameters, each to as many bytes, which the driver copies before it
        // returns; attributes and stream live as long as the call. What the kernel does is its own: it reaches the device's
        // memory, in which nothing of Rust lies.
        Ok(unsafe { sys::cuLaunchKernelEx(&launch, self.function, pointers.as_mut_ptr(), ptr::null_mut()) })
    }

    /// Shared memory beyond 48 KiB and clusters beyond 8 blocks have to be asked for once for each kernel.
    fn raise_limits(&self, shared: u32, cluster: u32) -> Result<()> {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let set = |attribute, value: u32| {
            // SAFETY: a function of the driver, and an attribute that can be set.
            let status = unsafe { sys::cuFuncSetAttribute(self.function, attribute, i32::try_from(value).unwrap_or(i32::MAX)) };
            check("cuFuncSetAttribute", status)
        };
        if shared > granted.shared {
            set(FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)?;
            granted.shared = shared;
        }
        if cluster > granted.cluster {
            set(FunctionAttribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
            granted.cluster = cluster;
        }
        Ok(())
    }
}
