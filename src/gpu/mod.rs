//! The device seam: CUDA kernels, whoever runs them.
//!
//! [`Device`] is one small object-safe trait: memory, copies, modules, launches, streams, events, captured graphs, tensor maps. What
//! stands above it is written once. `cuda` implements it with NVIDIA's driver, which is opened at run time, `emulator` with the
//! processor.
//!
//! From a file under `kernels/` to a launch:
//!
//! ```no_run
//! use ferromind::gpu::{self, Context, ElementType, kernels::fill::Fill};
//!
//! # fn main() -> ferromind::Result<()> {
//! let context = Context::new(gpu::open(gpu::DeviceKind::Cuda(0))?)?;
//! let x = context.device().allocate("x", 1000 * 4)?;
//! context.launch(&[], &Fill { x: x.all().elements_mut(ElementType::F32)?, value: 1.5, n: 1000 })?;
//! assert_eq!(context.device().download::<f32>(context.stream(), x.slice()?)?, [1.5; 1000]);
//! # Ok(())
//! # }
//! ```

pub mod arch;
pub mod context;
pub mod cuda;
pub mod device;
pub mod emulator;
pub mod kernels;
mod kind;
pub mod launch;
pub mod memory;
pub mod nvrtc;
pub mod tensor_map;

use std::sync::Arc;

pub use arch::Arch;
pub use context::{Context, Replacement};
pub use device::{Device, Event, Graph, Info, Kernel, Limits, Module, Stream};
pub use kind::DeviceKind;
pub use launch::{Argument, Arguments, LaunchConfig};
pub use memory::{Buffer, Element, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut, View};
pub use tensor_map::{L2Promotion, OutOfBounds, Swizzle, TensorMap, TensorMapElement, TensorMapLayout};

use crate::error::{Error, Result};

/// Opens a device that runs kernels. The error says what is missing and how to get it.
pub fn open(kind: DeviceKind) -> Result<Arc<dyn Device>> {
    match kind {
        DeviceKind::Cuda(ordinal) => Ok(Arc::new(cuda::CudaDevice::open(ordinal)?)),
        DeviceKind::Emulator => Ok(Arc::new(emulator::EmulatorDevice::default())),
        DeviceKind::Auto | DeviceKind::Cpu => {
            Err(Error::config(format!("device {kind} runs no kernels here: cuda and emulator do")))
        }
    }
}

/// Whether kernels can be compiled for CUDA device 0 and run there; the error says what is missing and how to get it.
pub fn probe_cuda() -> Result<()> {
    cuda::CudaDevice::open(0)?;
    nvrtc::find::Surroundings::of_process().open()?;
    Ok(())
}
