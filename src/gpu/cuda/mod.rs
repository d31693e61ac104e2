//! The seam's implementation by NVIDIA's driver.
//!
//! The only folder that calls the driver, through cudarc's declarations of its C functions: `driver` opens it, `context` gives back
//! what it hands out, `launch` loads and launches. The library is found at run time; a machine without it gets an error.
//!
//! **Unproven on hardware**: this folder compiles, and its answers to a missing driver are tested. No line of it behind
//! `driver::initialise` has run on a device yet.
#![allow(unsafe_code)]

mod context;
mod driver;
mod launch;

use std::collections::VecDeque;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::sys;
use sys::{CUdeviceptr, CUevent, CUgraphExec, CUresult, CUstream, cudaError_enum as Status};

use super::device::check_copy;
use super::nvrtc::Compiled;
use super::{Arguments, Buffer, Device, Event, Graph, Info, Kernel, LaunchConfig, Module, Stream, View};
use super::{L2Promotion, OutOfBounds, Swizzle, TensorMap, TensorMapElement, TensorMapLayout};
use crate::error::{Error, Result};
use context::{Context, Owned};
use launch::{LoadedKernel, LoadedModule};

/// How many launches are remembered, to be named when one of them fails.
const REMEMBERED: usize = 8;

/// A CUDA device.
pub struct CudaDevice {
    context: Arc<Context>,
    info: Info,
    /// Kernels that were launched, the last one first.
    launched: Mutex<VecDeque<Kernel>>,
}

impl CudaDevice {
    /// Opens a device by its number. The error says what is missing (driver, symbol, device) and what to install; it never panics.
    pub fn open(ordinal: u32) -> Result<Self> {
        driver::initialise()?;
        let context = Context::retain(ordinal)?;
        let info = context.info()?;
        Ok(Self { context: Arc::new(context), info, launched: Mutex::default() })
    }

    /// An error unless the call succeeded: its own, or that of a kernel before it.
    fn check(&self, call: &str, status: CUresult) -> Result<()> {
        if !driver::is_kernels_fault(status) {
            return context::check(call, status);
        }
        let launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = launched.iter().map(Kernel::name).collect();
        Err(Error::device(format!(
            "a kernel failed: {} (seen at {call}). Launched, the last one first: {}. Run again with CUDA_LAUNCH_BLOCKING=1 to know \
             which, or on the emulator to know the line. This device is of no more use to the process.",
            driver::message(status),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )))
    }

    fn stream_of(&self, stream: &Stream) -> Result<CUstream> {
        stream.inner::<Owned<CUstream>>()?.of(&self.context)
    }

    fn event_of(&self, event: &Event) -> Result<CUevent> {
        event.inner::<Owned<CUevent>>()?.of(&self.context)
    }

    /// An error while the stream is captured, when the host cannot wait for it.
    fn refuse_capture(&self, stream: CUstream, what: &str) -> Result<()> {
        let mut state = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: a stream of this context, which is current, and a place for its state.
        self.check("cuStreamIsCapturing", unsafe { sys::cuStreamIsCapturing(stream, &mut state) })?;
        match state {
            sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(()),
            _ => Err(Error::device(format!("{what}, while the stream is captured"))),
        }
    }

    fn wait_for(&self, stream: CUstream) -> Result<()> {
        // SAFETY: a stream of this context, which is current.
        self.check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(stream) })
    }
}

impl Device for CudaDevice {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&self, name: &str, bytes: usize) -> Result<Buffer> {
        self.context.bind()?;
        let mut address: CUdeviceptr = 0;
        // SAFETY: the context is current. The driver refuses a length of 0.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) } {
            Status::CUDA_ERROR_OUT_OF_MEMORY => {
                let (mut free, mut total) = (0, 0);
                // SAFETY: two places for sizes.
                self.check("cuMemGetInfo_v2", unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })?;
                Err(Error::device(format!("out of memory: `{name}` needs {bytes} bytes, {free} of {total} are free")))
            }
            status => {
                self.check("cuMemAlloc_v2", status)?;
                // SAFETY: just allocated in this context, and freed by nobody else. Freeing waits for the work under way.
                let owner = unsafe { Owned::new(&self.context, address, sys::cuMemFree_v2) };
                Ok(Buffer::new(name, address, bytes, owner))
            }
        }
    }

    fn copy_to_device(&self, stream: &Stream, to: View<'_>, from: &[u8]) -> Result<()> {
        check_copy(to, from.len())?;
        self.context.bind()?;
        let stream = self.stream_of(stream)?;
        self.refuse_capture(stream, "copy from the host")?;
        if !from.is_empty() {
            // SAFETY: the lengths agree, and the slice is borrowed until the stream has been waited for, even after an error.
            let status = unsafe { sys::cuMemcpyHtoDAsync_v2(to.address(), from.as_ptr().cast(), from.len(), stream) };
            self.wait_for(stream)?;
            self.check("cuMemcpyHtoDAsync_v2", status)?;
        }
        Ok(())
    }

    fn copy_to_host(&self, stream: &Stream, to: &mut [u8], from: View<'_>) -> Result<()> {
        check_copy(from, to.len())?;
        self.context.bind()?;
        let stream = self.stream_of(stream)?;
        self.refuse_capture(stream, "copy to the host")?;
        if !to.is_empty() {
            // SAFETY: as above, the other way.
            let status = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from.address(), to.len(), stream) };
            self.wait_for(stream)?;
            self.check("cuMemcpyDtoHAsync_v2", status)?;
        }
        Ok(())
    }

    fn copy(&self, stream: &Stream, to: View<'_>, from: View<'_>) -> Result<()> {
        check_copy(to, from.bytes())?;
        self.context.bind()?;
        let stream = self.stream_of(stream)?;
        if from.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: both windows lie in memory of the device.
        let status = unsafe { sys::cuMemcpyDtoDAsync_v2(to.address(), from.address(), from.bytes(), stream) };
        self.check("cuMemcpyDtoDAsync_v2", status)
    }

    fn fill(&self, stream: &Stream, to: View<'_>, byte: u8) -> Result<()> {
        self.context.bind()?;
        let stream = self.stream_of(stream)?;
        if to.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: the window lies in memory of the device.
        self.check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(to.address(), byte, to.bytes(), stream) })
    }

    fn load(&self, compiled: &Compiled) -> Result<Module> {
        self.context.bind()?;
        LoadedModule::load(&self.context, compiled).map(Module::new)
    }

    fn kernel(&self, module: &Module, name: &str) -> Result<Kernel> {
        let module: &LoadedModule = module.inner()?;
        self.same_context(&module.context)?;
        self.context.bind()?;
        Ok(Kernel::new(name, module.kernel(name)?))
    }

    fn launch(&self, stream: &Stream, kernel: &Kernel, config: &LaunchConfig, arguments: &Arguments) -> Result<()> {
        config.check(kernel.name(), &self.info.limits)?;
        let loaded: &LoadedKernel = kernel.inner()?;
        self.same_context(&loaded.context)?;
        self.context.bind()?;
        let status = loaded.launch(kernel.name(), self.stream_of(stream)?, config, arguments)?;
        {
            let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
            launched.truncate(REMEMBERED - 1);
            launched.push_front(kernel.clone());
        }
        self.check(&format!("launch of `{}`", kernel.name()), status)
    }

    fn stream(&self) -> Result<Stream> {
        self.context.bind()?;
        let mut stream = ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the stream is destroyed by its owner alone.
        unsafe {
            self.check("cuStreamCreate", sys::cuStreamCreate(&mut stream, flags))?;
            Ok(Stream::new(Owned::new(&self.context, stream, sys::cuStreamDestroy_v2)))
        }
    }

    fn event(&self) -> Result<Event> {
        self.context.bind()?;
        let mut event = ptr::null_mut();
        // SAFETY: the context is current; the event is destroyed by its owner alone.
        unsafe {
            self.check("cuEventCreate", sys::cuEventCreate(&mut event, sys::CUevent_flags_enum::CU_EVENT_DEFAULT as u32))?;
            Ok(Event::new(Owned::new(&self.context, event, sys::cuEventDestroy_v2)))
        }
    }

    fn record(&self, event: &Event, stream: &Stream) -> Result<()> {
        self.context.bind()?;
        // SAFETY: both are of this context.
        self.check("cuEventRecord", unsafe { sys::cuEventRecord(self.event_of(event)?, self.stream_of(stream)?) })
    }

    fn wait(&self, stream: &Stream, event: &Event) -> Result<()> {
        self.context.bind()?;
        // SAFETY: both are of this context.
        self.check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.stream_of(stream)?, self.event_of(event)?, 0) })
    }

    fn elapsed(&self, start: &Event, end: &Event) -> Result<Duration> {
        self.context.bind()?;
        let (start, end) = (self.event_of(start)?, self.event_of(end)?);
        let mut milliseconds = 0f32;
        // SAFETY: both are of this context; a place for a number.
        unsafe {
            self.check("cuEventSynchronize", sys::cuEventSynchronize(end))?;
            self.check("cuEventElapsedTime_v2", sys::cuEventElapsedTime_v2(&mut milliseconds, start, end))?;
        }
        Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3).map_err(|_| Error::device("the later event was recorded first"))
    }

    fn synchronize(&self, stream: &Stream) -> Result<()> {
        self.context.bind()?;
        let stream = self.stream_of(stream)?;
        self.refuse_capture(stream, "waiting for it")?;
        self.wait_for(stream)
    }

    fn begin_capture(&self, stream: &Stream) -> Result<()> {
        self.context.bind()?;
        // Calls that would break the capture are errors on this thread; others, such as a loader's, go on.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a stream of this context.
        self.check("cuStreamBeginCapture_v2", unsafe { sys::cuStreamBeginCapture_v2(self.stream_of(stream)?, mode) })
    }

    fn end_capture(&self, stream: &Stream) -> Result<Graph> {
        self.context.bind()?;
        let (mut graph, mut executable): (_, CUgraphExec) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a stream of this context; the template is destroyed here, the executable graph by its owner alone.
        unsafe {
            self.check("cuStreamEndCapture", sys::cuStreamEndCapture(self.stream_of(stream)?, &mut graph))?;
            let status = sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0);
            self.check("cuGraphDestroy", sys::cuGraphDestroy(graph))?;
            self.check("cuGraphInstantiateWithFlags", status)?;
            Ok(Graph::new(Owned::new(&self.context, executable, sys::cuGraphExecDestroy)))
        }
    }

    fn replay(&self, stream: &Stream, graph: &Graph) -> Result<()> {
        self.context.bind()?;
        let graph = graph.inner::<Owned<CUgraphExec>>()?.of(&self.context)?;
        // SAFETY: both are of this context, and modules are never unloaded.
        self.check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(graph, self.stream_of(stream)?) })
    }

    fn encode_tensor_map(&self, layout: &TensorMapLayout<'_>) -> Result<TensorMap> {
        layout.check()?;
        if self.info.arch.capability() < (9, 0) {
            return Err(Error::device(format!(
                "{} has no copy engine for tensor maps: compute capability 9.0 has",
                self.info.name
            )));
        }
        self.context.bind()?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // One element after another: the driver takes no gaps between the elements of a box from us.
        let element_strides = vec![1u32; layout.shape.len()];
        // SAFETY: `check` made sure that shape, tile and element strides have one entry for each dimension and strides one less.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                data_type(layout.element),
                layout.shape.len() as u32,
                ptr::without_provenance_mut(layout.memory.address() as usize),
                layout.shape.as_ptr(),
                layout.strides.as_ptr(),
                layout.tile.as_ptr(),
                element_strides.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle(layout.swizzle),
                l2_promotion(layout.l2_promotion),
                out_of_bounds(layout.out_of_bounds),
            )
        };
        self.check("cuTensorMapEncodeTiled", status)?;
        Ok(TensorMap::from_bytes(bytemuck::cast(map.opaque)))
    }
}

impl CudaDevice {
    fn same_context(&self, other: &Arc<Context>) -> Result<()> {
        if Arc::ptr_eq(&self.context, other) { Ok(()) } else { Err(Error::device("a module or kernel of another device")) }
    }
}

fn data_type(element: TensorMapElement) -> sys::CUtensorMapDataType {
    use sys::CUtensorMapDataType as Type;
    match element {
        TensorMapElement::U8 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        TensorMapElement::U16 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        TensorMapElement::U32 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT32,
        TensorMapElement::I32 => Type::CU_TENSOR_MAP_DATA_TYPE_INT32,
        TensorMapElement::U64 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT64,
        TensorMapElement::I64 => Type::CU_TENSOR_MAP_DATA_TYPE_INT64,
        TensorMapElement::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        TensorMapElement::BF16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        TensorMapElement::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        TensorMapElement::F64 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT64,
    }
}

fn swizzle(swizzle: Swizzle) -> sys::CUtensorMapSwizzle {
    use sys::CUtensorMapSwizzle as Mode;
    match swizzle {
        Swizzle::None => Mode::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::B32 => Mode::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::B64 => Mode::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => Mode::CU_TENSOR_MAP_SWIZZLE_128B,
    }
}

fn l2_promotion(promotion: L2Promotion) -> sys::CUtensorMapL2promotion {
    use sys::CUtensorMapL2promotion as Promotion;
    match promotion {
        L2Promotion::None => Promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
        L2Promotion::B64 => Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_64B,
        L2Promotion::B128 => Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        L2Promotion::B256 => Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
    }
}

fn out_of_bounds(fill: OutOfBounds) -> sys::CUtensorMapFloatOOBfill {
    use sys::CUtensorMapFloatOOBfill as Fill;
    match fill {
        OutOfBounds::Zero => Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        OutOfBounds::NaN => Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine without a driver or device: an error that says so and what to do. On one that has both: the device.
    #[test]
    fn a_missing_driver_is_an_error_and_no_panic() {
        match CudaDevice::open(0) {
            Ok(device) => assert!(!device.info().name.is_empty()),
            Err(Error::Missing { what, looked, remedy }) => {
                assert!(what.contains("NVIDIA") || what.contains("CUDA"), "{what}");
                assert!(!looked.is_empty() && remedy.contains("driver"), "{looked:?} {remedy}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}
