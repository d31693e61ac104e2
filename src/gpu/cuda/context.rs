//! What the driver hands out, with whoever gives it back.
#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::sys;
use sys::{CUcontext, CUdevice, CUdevice_attribute_enum as Attribute, CUresult, cudaError_enum as Status};

use super::driver;
use crate::error::{Error, Result};
use crate::gpu::{Arch, Info, Limits};

/// A device's primary context, kept as long as anything that lives in it.
pub(super) struct Context {
    device: CUdevice,
    context: CUcontext,
}

// SAFETY: the driver's functions may be called from any thread with any context; a context is made current before each use.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of a device. `driver::initialise` must have succeeded.
    pub(super) fn retain(ordinal: u32) -> Result<Self> {
        let (mut count, mut device, mut context) = (0, 0, std::ptr::null_mut());
        // SAFETY: the driver is initialised; each pointer is to a place for what is returned.
        unsafe {
            check("cuDeviceGetCount", sys::cuDeviceGetCount(&mut count))?;
            let index = i32::try_from(ordinal).ok().filter(|index| *index < count);
            let Some(index) = index else {
                return Err(Error::Missing {
                    what: format!("CUDA device {ordinal}"),
                    looked: vec![format!("the driver, which knows {count}, counted from 0")],
                    remedy: "choose another number, or see CUDA_VISIBLE_DEVICES".to_owned(),
                });
            };
            check("cuDeviceGet", sys::cuDeviceGet(&mut device, index))?;
            check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&mut context, device))?;
        }
        Ok(Self { device, context })
    }

    /// Makes it the calling thread's own.
    pub(super) fn bind(&self) -> Result<()> {
        // SAFETY: retained until `self` is dropped.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    /// Name, memory and limits.
    pub(super) fn info(&self) -> Result<Info> {
        let mut name = [0u8; 256];
        let mut memory = 0usize;
        // SAFETY: a device of the driver, a buffer of the length that is given, and a place for a size.
        unsafe {
            check("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr().cast(), 255, self.device))?;
            check("cuDeviceTotalMem_v2", sys::cuDeviceTotalMem_v2(&mut memory, self.device))?;
        }
        let name: Vec<u8> = name.into_iter().take_while(|&byte| byte != 0).collect();
        let get = |attribute| self.attribute(attribute);
        let capability = |attribute| get(attribute).map(|value| u8::try_from(value).unwrap_or(u8::MAX));
        let major = capability(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = capability(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let limits = Limits {
            multiprocessors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            threads_per_block: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            threads_per_multiprocessor: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            blocks_per_multiprocessor: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
            block: [
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z)?,
            ],
            grid: [
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            // 8 everywhere, 16 where a kernel asks for it and the device grants it: there is no attribute that tells.
            cluster: if get(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? != 0 { 16 } else { 1 },
            shared_per_block: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            shared_per_multiprocessor: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            registers_per_multiprocessor: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
            l2_bytes: get(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Info { name, arch: Arch::of_capability(major, minor), memory: memory as u64, limits })
    }

    fn attribute(&self, attribute: Attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: a device of the driver, and a place for an integer.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) })?;
        Ok(u32::try_from(value).unwrap_or(0))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once, released once, after all that lived in it. An error here has nobody to go to.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// A handle of the driver that is destroyed when it is dropped, in its context.
pub(super) struct Owned<T: Copy> {
    context: Arc<Context>,
    handle: T,
    destroy: unsafe fn(T) -> CUresult,
}

// SAFETY: the driver's handles are names of things that it guards itself; they may be used and destroyed on any thread.
unsafe impl<T: Copy> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T: Copy> Sync for Owned<T> {}

impl<T: Copy> Owned<T> {
    /// # Safety
    /// `handle` lives in `context`, `destroy` is its destructor, and nobody else calls it.
    pub(super) unsafe fn new(context: &Arc<Context>, handle: T, destroy: unsafe fn(T) -> CUresult) -> Self {
        Self { context: context.clone(), handle, destroy }
    }

    /// The handle, for calls in this context; an error if it belongs to another.
    pub(super) fn of(&self, context: &Arc<Context>) -> Result<T> {
        if Arc::ptr_eq(&self.context, context) { Ok(self.handle) } else { Err(Error::device("a handle of another device")) }
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: as `new` was promised. An error is an earlier kernel's, which the next call reports too.
            unsafe { (self.destroy)(self.handle) };
        }
    }
}

/// An error that names the call, unless it succeeded.
pub(super) fn check(call: &str, status: CUresult) -> Result<()> {
    match status {
        Status::CUDA_SUCCESS => Ok(()),
        status => Err(Error::device(format!("{call}: {}", driver::message(status)))),
    }
}
