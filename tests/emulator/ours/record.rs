//! A device that does nothing but note what an operation's code asks of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferromind::gpu::emulator::EmulatorDevice;
use ferromind::gpu::nvrtc::Compiled;
use ferromind::gpu::{
    Arguments, Buffer, Device, Event, Graph, Info, Kernel, LaunchConfig, Module, Stream, TensorMap, TensorMapLayout, View,
};
use ferromind::{Error, Result};
use ptx_emulator::Program;

/// A call of the device. Memory is named by its address, which is the same whenever the same calls are made on a new emulator.
pub enum Step {
    Allocate { name: String, bytes: u64 },
    Write { address: u64, bytes: Vec<u8> },
    Fill { address: u64, bytes: usize, byte: u8 },
    Copy { to: u64, from: u64, bytes: u64 },
    Load { file: usize },
    Launch { file: usize, kernel: String, config: LaunchConfig, arguments: Vec<u8> },
    Read { name: String, address: u64, bytes: usize },
}

/// A compiled file that was loaded.
pub struct File {
    /// As in the repository: `kernels/rmsnorm.cu`.
    pub name: String,
    pub ptx: String,
    pub program: Arc<Program>,
}

/// All calls, in order.
#[derive(Default)]
pub struct Recording {
    pub steps: Vec<Step>,
    pub files: Vec<File>,
}

impl Recording {
    /// The kernels of a file that are launched.
    pub fn kernels(&self, file: usize) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(move |step| match step {
            Step::Launch { file: of, kernel, .. } if *of == file => Some(kernel.as_str()),
            _ => None,
        })
    }
}

/// Notes calls. What is copied to the host is zero, for nothing has been executed.
pub struct Recorder {
    info: Info,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Gives addresses.
    device: ptx_emulator::Device,
    recording: Recording,
}

impl Recorder {
    /// For one case.
    pub fn new() -> Self {
        Self { info: EmulatorDevice::default().info().clone(), state: Mutex::default() }
    }

    /// What was noted so far.
    pub fn take(&self) -> Recording {
        std::mem::take(&mut self.lock().recording)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, step: Step) -> Result<()> {
        self.lock().recording.steps.push(step);
        Ok(())
    }
}

fn refused(error: ptx_emulator::Error) -> Error {
    Error::device(error.to_string())
}

/// No operation needs it between its launches.
fn unknown<T>(what: &str) -> Result<T> {
    Err(Error::device(format!("{what} is not recorded")))
}

impl Device for Recorder {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&self, name: &str, bytes: usize) -> Result<Buffer> {
        let mut state = self.lock();
        let address = state.device.allocate(name, bytes as u64).map_err(refused)?;
        state.recording.steps.push(Step::Allocate { name: name.to_owned(), bytes: bytes as u64 });
        Ok(Buffer::new(name, address, bytes, ()))
    }

    fn copy_to_device(&self, _: &Stream, to: View<'_>, from: &[u8]) -> Result<()> {
        self.note(Step::Write { address: to.address(), bytes: from.to_vec() })
    }

    fn copy_to_host(&self, _: &Stream, to: &mut [u8], from: View<'_>) -> Result<()> {
        to.fill(0);
        self.note(Step::Read { name: from.buffer().name().to_owned(), address: from.address(), bytes: to.len() })
    }

    fn copy(&self, _: &Stream, to: View<'_>, from: View<'_>) -> Result<()> {
        self.note(Step::Copy { to: to.address(), from: from.address(), bytes: from.bytes() as u64 })
    }

    fn fill(&self, _: &Stream, to: View<'_>, byte: u8) -> Result<()> {
        self.note(Step::Fill { address: to.address(), bytes: to.bytes(), byte })
    }

    fn load(&self, compiled: &Compiled) -> Result<Module> {
        let program = Arc::new(Program::parse(&compiled.ptx).map_err(refused)?);
        let mut state = self.lock();
        state.device.load(program.clone()).map_err(refused)?;
        let file = state.recording.files.len();
        state.recording.steps.push(Step::Load { file });
        state.recording.files.push(File { name: compiled.name.clone(), ptx: compiled.ptx.clone(), program });
        Ok(Module::new(file))
    }

    fn kernel(&self, module: &Module, name: &str) -> Result<Kernel> {
        Ok(Kernel::new(name, *module.inner::<usize>()?))
    }

    fn launch(&self, _: &Stream, kernel: &Kernel, config: &LaunchConfig, arguments: &Arguments) -> Result<()> {
        let &file = kernel.inner::<usize>()?;
        let mut state = self.lock();
        let program = state.recording.files[file].program.clone();
        let called = program.kernel(kernel.name()).map_err(refused)?;
        let mut packed = vec![0; called.argument_bytes()];
        for (parameter, bytes) in called.parameters.iter().zip(arguments.iter()) {
            packed[parameter.offset..][..parameter.size].copy_from_slice(bytes);
        }
        let kernel = kernel.name().to_owned();
        state.recording.steps.push(Step::Launch { file, kernel, config: *config, arguments: packed });
        Ok(())
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream::new(()))
    }

    fn synchronize(&self, _: &Stream) -> Result<()> {
        Ok(())
    }

    fn event(&self) -> Result<Event> {
        unknown("an event")
    }

    fn record(&self, _: &Event, _: &Stream) -> Result<()> {
        unknown("an event")
    }

    fn wait(&self, _: &Stream, _: &Event) -> Result<()> {
        unknown("an event")
    }

    fn elapsed(&self, _: &Event, _: &Event) -> Result<Duration> {
        unknown("time")
    }

    fn begin_capture(&self, _: &Stream) -> Result<()> {
        unknown("a graph")
    }

    fn end_capture(&self, _: &Stream) -> Result<Graph> {
        unknown("a graph")
    }

    fn replay(&self, _: &Stream, _: &Graph) -> Result<()> {
        unknown("a graph")
    }

    fn encode_tensor_map(&self, _: &TensorMapLayout<'_>) -> Result<TensorMap> {
        unknown("a tensor map")
    }
}
