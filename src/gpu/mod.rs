//! The device seam: CUDA kernels, whoever runs them.
//!
//! [`Device`] is one small object-safe trait: memory, copies, modules, launches, streams, events, captured graphs, tensor maps. What
//! stands above it is written once. `cuda` implements it with NVIDIA's driver, which is opened at run time, `emulator` with the
//! processor.
//!
//! From a file under `kernels/` to a launch:
//!
//! ```no_run
//! use ferromind::gpu::{self, LaunchConfig, kernels::fill, nvrtc::{Compiler, Options}};
//!
//! # fn main() -> ferromind::Result<()> {
//! let device = gpu::open(gpu::DeviceKind::Cuda(0))?;
//! let compiled = Compiler::new()?.compile(&fill::SOURCE, &Options::new(device.info().arch))?;
//! let kernel = fill::Fill::new(&device, &device.load(&compiled)?)?;
//! let stream = device.stream()?;
//! let x = device.allocate("x", 1000 * 4)?;
//! let arguments = fill::FillArguments { x: x.slice_mut()?, value: 1.5, n: 1000 };
//! kernel.launch(&stream, &LaunchConfig::elementwise(1000, 256)?, &arguments)?;
//! assert_eq!(device.download::<f32>(&stream, x.slice()?)?, [1.5; 1000]);
//! # Ok(())
//! # }
//! ```

pub mod arch;
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
pub use device::{Device, Event, Graph, Info, Kernel, Limits, Module, Stream};
pub use kind::DeviceKind;
pub use launch::{Argument, Arguments, LaunchConfig};
pub use memory::{Buffer, Element, Slice, SliceMut, View};
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
