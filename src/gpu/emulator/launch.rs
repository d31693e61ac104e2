//! Modules and kernels, and what becomes of a launch.

use std::io::Write;
use std::sync::Arc;

use ptx_emulator::Report;
use ptx_emulator::count::{Bound, bound};

use super::{Shared, State, refused};
use crate::error::{Error, Result};
use crate::gpu::{Arguments, LaunchConfig};

/// What a launch did, as the device's log keeps it.
#[derive(Debug)]
pub struct Launched {
    /// The kernel's name.
    pub kernel: String,
    /// Its blocks and threads.
    pub config: LaunchConfig,
    /// Findings and counters.
    pub report: Report,
    /// The least time that it takes on the device which is emulated.
    pub bound: Bound,
}

pub(super) struct LoadedModule {
    pub shared: Arc<Shared>,
    pub module: ptx_emulator::Module,
}

pub(super) struct LoadedKernel {
    pub module: Arc<LoadedModule>,
}

impl LoadedKernel {
    /// The arguments where the parameters lie; an error unless number and sizes agree.
    pub(super) fn pack(&self, name: &str, arguments: &Arguments) -> Result<Vec<u8>> {
        let kernel = self.module.module.program().kernel(name).map_err(refused)?;
        let sizes: Vec<usize> = arguments.iter().map(<[u8]>::len).collect();
        let expected: Vec<usize> = kernel.parameters.iter().map(|parameter| parameter.size).collect();
        if sizes != expected {
            return Err(Error::device(format!("kernel `{name}`: arguments of {sizes:?} bytes for parameters of {expected:?}")));
        }
        let mut packed = vec![0; kernel.argument_bytes()];
        for (parameter, bytes) in kernel.parameters.iter().zip(arguments.iter()) {
            packed[parameter.offset..parameter.offset + parameter.size].copy_from_slice(bytes);
        }
        Ok(packed)
    }

    /// Runs it; the seconds that it takes on the emulated device.
    pub(super) fn launch(&self, state: &mut State, name: &str, config: &LaunchConfig, arguments: &[u8]) -> Result<f64> {
        let settings = state.settings;
        let launch = ptx_emulator::Launch {
            cluster: config.cluster,
            shared_bytes: config.shared_bytes,
            order: settings.order,
            checked: settings.checked,
            max_instructions: settings.max_instructions,
            workers: settings.workers,
            ..ptx_emulator::Launch::new(config.grid, config.block, arguments.to_vec())
        };
        let report = state.device.launch(&self.module.module, name, &launch).map_err(refused)?;
        // As CUDA does when the host waits. A reader that has gone away is no reason to stop.
        let _ = std::io::stdout().write_all(report.printed.concat().as_bytes());
        let bound = bound(&report.counters, config.blocks(), &state.ceilings);
        let seconds = bound.seconds;
        state.find(report.findings.clone());
        if settings.log {
            state.launches.push(Launched { kernel: name.to_owned(), config: *config, report, bound });
        }
        Ok(seconds)
    }
}
