//! The seam's implementation by the emulator: kernels are executed and checked on the processor.
//!
//! It passes for an H200. Work is done when it is issued, one call after the other, so streams and events never have to wait.
//! What a kernel does wrong becomes an error of the next call on the device that can have one, as on a GPU, but with the line of the
//! `.cu` file, thread, address and buffer; [`EmulatorDevice::take_findings`] gives the findings themselves.
//!
//! **Time** is modelled, not measured, so that it does not depend on this machine: a launch takes the lower bound that its counters
//! give ([`ptx_emulator::count::bound`]), a copy or fill its bytes at the memory's bandwidth, a copy from or to the host nothing.
//! Each stream has a clock; waiting for an event sets it to the event's time if that is later.

mod launch;
mod stream;
mod tensor_map;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ptx_emulator::count::Ceilings;
use ptx_emulator::{Finding, Kind, Order, Program};

use super::device::check_copy;
use super::nvrtc::Compiled;
use super::{Arguments, Buffer, Device, Event, Graph, Info, Kernel, LaunchConfig, Limits, Module, Stream, View};
use super::{TensorMap, TensorMapLayout};
use crate::error::{Error, Result};
pub use launch::Launched;
use launch::{LoadedKernel, LoadedModule};
use stream::{EmulatedEvent, EmulatedGraph, EmulatedStream, Operation, Recording, Region};

/// How launches are executed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Look for mistakes. Without, kernels run about twice as fast, and only what strays outside of memory is seen.
    pub checked: bool,
    /// Order of blocks and warps of every launch.
    pub order: Order,
    /// Cores to use; `None`: all of rayon's pool.
    pub workers: Option<usize>,
    /// Warp instructions after which a launch is given up.
    pub max_instructions: u64,
    /// Keep what each launch did, for [`EmulatorDevice::take_launches`].
    pub log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { checked: true, order: Order::Natural, workers: None, max_instructions: 1 << 40, log: false }
    }
}

/// An emulated H200.
pub struct EmulatorDevice {
    info: Info,
    shared: Arc<Shared>,
}

/// What the device and all its handles share. A handle belongs to the device whose `Shared` it holds.
struct Shared {
    state: Mutex<State>,
}

struct State {
    device: ptx_emulator::Device,
    ceilings: Ceilings,
    settings: Settings,
    /// Bytes allocated.
    used: u64,
    /// Parsed PTX by its hash.
    programs: HashMap<blake3::Hash, Arc<Program>>,
    findings: Vec<Finding>,
    launches: Vec<Launched>,
    /// What the next call is to return.
    pending: Option<Error>,
    /// Captures that have begun; those that have ended are removed when the next begins.
    captures: Vec<Weak<Recording>>,
}

impl State {
    /// The error of work that was done before.
    fn surface(&mut self) -> Result<()> {
        self.pending.take().map_or(Ok(()), Err)
    }

    /// Keeps findings, and an error with their text for a later call.
    fn find(&mut self, findings: Vec<Finding>) {
        let Some(first) = findings.first() else { return };
        let more = if findings.len() > 1 { format!("\nand {} more findings", findings.len() - 1) } else { String::new() };
        self.pending.get_or_insert_with(|| Error::device(format!("the emulator found a mistake: {first}{more}")));
        self.findings.extend(findings);
    }

    /// An error while this thread captures a stream.
    fn refuse_capture(&self, what: &str) -> Result<()> {
        let captured = self.captures.iter().filter_map(Weak::upgrade).any(|recording| recording.is_open_here());
        if captured { Err(Error::device(format!("{what}, while a stream is captured"))) } else { Ok(()) }
    }

    /// Seconds that moving so many bytes through the device's memory takes.
    fn moving(&self, bytes: usize) -> f64 {
        bytes as f64 / self.ceilings.memory_bandwidth
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees an allocation when the last clone of its buffer is gone.
struct Allocated {
    shared: Arc<Shared>,
    address: u64,
    bytes: u64,
}

impl Drop for Allocated {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // Addresses are given out and freed here alone, so it cannot fail.
        let _ = state.device.free(self.address);
        state.used -= self.bytes;
    }
}

/// The emulator's errors name what they are about.
fn refused(error: ptx_emulator::Error) -> Error {
    Error::device(error.to_string())
}

impl Default for EmulatorDevice {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl EmulatorDevice {
    /// With empty memory.
    pub fn new(settings: Settings) -> Self {
        let info = Info {
            name: "emulated NVIDIA H200".to_owned(),
            arch: super::Arch::of_capability(9, 0),
            memory: 141_000_000_000, // NVIDIA's data sheet
            limits: Limits::of_capability(9, 0),
        };
        let state = State {
            device: ptx_emulator::Device::new(),
            ceilings: Ceilings::h200(),
            settings,
            used: 0,
            programs: HashMap::new(),
            findings: Vec::new(),
            launches: Vec::new(),
            pending: None,
            captures: Vec::new(),
        };
        Self { info, shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// How launches are executed from now on.
    pub fn settings(&self) -> Settings {
        self.shared.lock().settings
    }

    /// Executes later launches, replayed ones too, in another way.
    pub fn set(&self, settings: Settings) {
        self.shared.lock().settings = settings;
    }

    /// The findings since the last call, and no error of theirs any more.
    pub fn take_findings(&self) -> Vec<Finding> {
        let mut state = self.shared.lock();
        state.pending = None;
        std::mem::take(&mut state.findings)
    }

    /// What was launched since the last call, while [`Settings::log`] was on.
    pub fn take_launches(&self) -> Vec<Launched> {
        std::mem::take(&mut self.shared.lock().launches)
    }

    fn stream_of<'a>(&self, stream: &'a Stream) -> Result<&'a EmulatedStream> {
        let stream: &EmulatedStream = stream.inner()?;
        self.same_device(&stream.shared)?;
        Ok(stream)
    }

    fn event_of<'a>(&self, event: &'a Event) -> Result<&'a Arc<EmulatedEvent>> {
        let event: &Arc<EmulatedEvent> = event.inner()?;
        self.same_device(&event.shared)?;
        Ok(event)
    }

    fn same_device(&self, other: &Arc<Shared>) -> Result<()> {
        if Arc::ptr_eq(&self.shared, other) { Ok(()) } else { Err(Error::device("a handle of another device")) }
    }

    /// Notes the operation if the stream is captured, else does it.
    fn issue(&self, stream: &Stream, operation: Operation) -> Result<()> {
        let stream = self.stream_of(stream)?;
        let mut state = self.shared.lock();
        state.surface()?;
        stream.issue(&mut state, operation)
    }

    /// The state for work that the host waits for; an error while the stream is captured.
    fn waiting(&self, stream: &Stream, what: &str) -> Result<MutexGuard<'_, State>> {
        let stream = self.stream_of(stream)?;
        let mut state = self.shared.lock();
        if stream.is_captured() {
            return Err(Error::device(format!("{what}, while the stream is captured")));
        }
        state.surface()?;
        Ok(state)
    }
}

impl Device for EmulatorDevice {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&self, name: &str, bytes: usize) -> Result<Buffer> {
        let mut state = self.shared.lock();
        state.refuse_capture(&format!("allocation of `{name}`"))?;
        let size = bytes as u64;
        let free = self.info.memory - state.used;
        if size > free {
            let total = self.info.memory;
            return Err(Error::device(format!("out of memory: `{name}` needs {bytes} bytes, {free} of {total} are free")));
        }
        let address = state.device.allocate(name, size).map_err(refused)?;
        state.used += size;
        Ok(Buffer::new(name, address, bytes, Allocated { shared: self.shared.clone(), address, bytes: size }))
    }

    fn copy_to_device(&self, stream: &Stream, to: View<'_>, from: &[u8]) -> Result<()> {
        check_copy(to, from.len())?;
        let mut state = self.waiting(stream, "copy from the host")?;
        state.device.write(to.address(), from).map_err(refused)
    }

    /// Bytes that nobody has written are a finding, and an error at once.
    fn copy_to_host(&self, stream: &Stream, to: &mut [u8], from: View<'_>) -> Result<()> {
        check_copy(from, to.len())?;
        let mut state = self.waiting(stream, "copy to the host")?;
        state.device.read(from.address(), to).map_err(refused)?;
        if !state.settings.checked {
            return Ok(());
        }
        if let Some(at) = state.device.first_undefined(from.address(), to.len() as u64).map_err(refused)? {
            let offset = from.offset() as i64 + at as i64;
            let name = from.buffer().name();
            state.find(vec![Finding {
                kind: Kind::NeverWritten,
                message: format!("byte {offset} of `{name}` is copied to the host, and nobody wrote it"),
                kernel: "copy to the host".to_owned(),
                place: None,
                block: [0; 3],
                thread: [0; 3],
                address: Some(from.address() + at),
                buffer: Some((name.to_owned(), offset)),
                count: 1,
            }]);
        }
        state.surface()
    }

    fn copy(&self, stream: &Stream, to: View<'_>, from: View<'_>) -> Result<()> {
        check_copy(to, from.bytes())?;
        let (bytes, apart) = (from.bytes() as u64, to.address().abs_diff(from.address()));
        if bytes > apart {
            return Err(Error::device(format!("buffer `{}`: copy between windows that overlap", to.buffer().name())));
        }
        self.issue(stream, Operation::Copy { to: Region::of(to), from: Region::of(from) })
    }

    fn fill(&self, stream: &Stream, to: View<'_>, byte: u8) -> Result<()> {
        self.issue(stream, Operation::Fill { to: Region::of(to), byte })
    }

    fn load(&self, compiled: &Compiled) -> Result<Module> {
        let mut state = self.shared.lock();
        let hash = blake3::hash(compiled.ptx.as_bytes());
        let program = match state.programs.get(&hash) {
            Some(program) => program.clone(),
            None => {
                let parsed = Program::parse(&compiled.ptx);
                let program = Arc::new(parsed.map_err(|error| Error::device(format!("{}: {error}", compiled.name)))?);
                state.programs.insert(hash, program.clone());
                program
            }
        };
        let module = state.device.load(program).map_err(refused)?;
        Ok(Module::new(Arc::new(LoadedModule { shared: self.shared.clone(), module })))
    }

    fn kernel(&self, module: &Module, name: &str) -> Result<Kernel> {
        let module: &Arc<LoadedModule> = module.inner()?;
        self.same_device(&module.shared)?;
        module.module.program().kernel(name).map_err(refused)?;
        Ok(Kernel::new(name, LoadedKernel { module: module.clone() }))
    }

    fn launch(&self, stream: &Stream, kernel: &Kernel, config: &LaunchConfig, arguments: &Arguments) -> Result<()> {
        config.check(kernel.name(), &self.info.limits)?;
        let loaded: &LoadedKernel = kernel.inner()?;
        self.same_device(&loaded.module.shared)?;
        let arguments = loaded.pack(kernel.name(), arguments)?;
        let (kernel, config) = (kernel.clone(), *config);
        self.issue(stream, Operation::Launch { kernel, config, arguments })
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream::new(EmulatedStream::new(self.shared.clone())))
    }

    fn event(&self) -> Result<Event> {
        Ok(Event::new(Arc::new(EmulatedEvent::new(self.shared.clone()))))
    }

    fn record(&self, event: &Event, stream: &Stream) -> Result<()> {
        let event = self.event_of(event)?.clone();
        self.issue(stream, Operation::Record(event))
    }

    fn wait(&self, stream: &Stream, event: &Event) -> Result<()> {
        let event = self.event_of(event)?.clone();
        self.issue(stream, Operation::Wait(event))
    }

    fn elapsed(&self, start: &Event, end: &Event) -> Result<Duration> {
        let (start, end) = (self.event_of(start)?, self.event_of(end)?);
        let mut state = self.shared.lock();
        state.refuse_capture("time between events")?;
        state.surface()?;
        Duration::try_from_secs_f64(end.time()? - start.time()?).map_err(|_| Error::device("the later event was recorded first"))
    }

    fn synchronize(&self, stream: &Stream) -> Result<()> {
        self.waiting(stream, "waiting for it").map(drop)
    }

    fn begin_capture(&self, stream: &Stream) -> Result<()> {
        let recording = self.stream_of(stream)?.begin_capture()?;
        let captures = &mut self.shared.lock().captures;
        captures.retain(|capture| capture.strong_count() > 0);
        captures.push(recording);
        Ok(())
    }

    fn end_capture(&self, stream: &Stream) -> Result<Graph> {
        self.stream_of(stream)?.end_capture().map(Graph::new)
    }

    fn replay(&self, stream: &Stream, graph: &Graph) -> Result<()> {
        let graph: &EmulatedGraph = graph.inner()?;
        self.same_device(&graph.shared)?;
        self.issue(stream, Operation::Replay(graph.operations.clone()))
    }

    fn encode_tensor_map(&self, layout: &TensorMapLayout<'_>) -> Result<TensorMap> {
        tensor_map::encode(layout)
    }
}
