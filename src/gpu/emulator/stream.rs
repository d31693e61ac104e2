//! Streams, events and graphs: work that is done at once, or noted to be done when a graph is replayed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;

use super::launch::LoadedKernel;
use super::{Shared, State, refused};
use crate::error::{Error, Result};
use crate::gpu::{Kernel, LaunchConfig, View};

/// A piece of work that does not wait for the host.
pub(super) enum Operation {
    Launch { kernel: Kernel, config: LaunchConfig, arguments: Vec<u8> },
    Copy { to: Region, from: Region },
    Fill { to: Region, byte: u8 },
    Record(Arc<EmulatedEvent>),
    Wait(Arc<EmulatedEvent>),
    Replay(Arc<[Operation]>),
}

/// A window of memory by its address: like a launch's arguments, it does not keep the buffer.
#[derive(Clone, Copy)]
pub(super) struct Region {
    address: u64,
    bytes: usize,
}

impl Region {
    pub(super) fn of(view: View<'_>) -> Self {
        Self { address: view.address(), bytes: view.bytes() }
    }
}

/// What a captured stream notes its work in. Streams that wait for an event recorded in it note theirs there too.
pub(super) struct Recording {
    /// `None` once the capture has ended.
    operations: Mutex<Option<Vec<Operation>>>,
    /// The thread that began it.
    thread: ThreadId,
}

impl Recording {
    fn operations(&self) -> MutexGuard<'_, Option<Vec<Operation>>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.operations().is_some()
    }

    /// Whether calls of this thread belong into it.
    pub(super) fn is_open_here(&self) -> bool {
        self.thread == std::thread::current().id() && self.is_open()
    }
}

pub(super) struct EmulatedGraph {
    pub shared: Arc<Shared>,
    pub operations: Arc<[Operation]>,
}

pub(super) struct EmulatedEvent {
    pub shared: Arc<Shared>,
    point: Mutex<Point>,
}

/// What was last recorded in an event.
#[derive(Clone)]
enum Point {
    Nothing,
    /// A time of the stream's clock, in seconds.
    Time(f64),
    /// A place in work that was only noted.
    Noted(Weak<Recording>),
}

impl EmulatedEvent {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, point: Mutex::new(Point::Nothing) }
    }

    fn point(&self) -> Point {
        self.point.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, point: Point) {
        *self.point.lock().unwrap_or_else(PoisonError::into_inner) = point;
    }

    /// Seconds by the clock of the stream on which it was recorded.
    pub(super) fn time(&self) -> Result<f64> {
        match self.point() {
            Point::Time(seconds) => Ok(seconds),
            Point::Nothing => Err(Error::device("an event that was not recorded has no time")),
            Point::Noted(_) => Err(Error::device("an event that was recorded while its stream was captured has no time yet")),
        }
    }
}

pub(super) struct EmulatedStream {
    pub shared: Arc<Shared>,
    capture: Mutex<Option<Arc<Recording>>>,
    /// Modelled seconds of the work so far.
    clock: Mutex<f64>,
}

impl EmulatedStream {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, capture: Mutex::new(None), clock: Mutex::new(0.0) }
    }

    fn capture(&self) -> MutexGuard<'_, Option<Arc<Recording>>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its work is noted in; a capture that has ended elsewhere has ended here.
    fn recording(&self) -> Option<Arc<Recording>> {
        let mut capture = self.capture();
        if capture.as_ref().is_some_and(|recording| !recording.is_open()) {
            *capture = None;
        }
        capture.clone()
    }

    pub(super) fn is_captured(&self) -> bool {
        self.recording().is_some()
    }

    pub(super) fn begin_capture(&self) -> Result<Weak<Recording>> {
        if self.is_captured() {
            return Err(Error::device("the stream is captured already"));
        }
        let recording = Arc::new(Recording { operations: Mutex::new(Some(Vec::new())), thread: std::thread::current().id() });
        let noted = Arc::downgrade(&recording);
        *self.capture() = Some(recording);
        Ok(noted)
    }

    pub(super) fn end_capture(&self) -> Result<EmulatedGraph> {
        let recording = self.recording().ok_or_else(|| Error::device("the stream is not captured"))?;
        let operations = recording.operations().take().unwrap_or_default();
        *self.capture() = None;
        Ok(EmulatedGraph { shared: self.shared.clone(), operations: operations.into() })
    }

    /// Notes the operation if the stream is captured, or becomes so by waiting for captured work; else does it.
    pub(super) fn issue(&self, state: &mut State, operation: Operation) -> Result<()> {
        if let Operation::Wait(event) = &operation
            && let Point::Noted(recording) = event.point()
            && let Some(recording) = recording.upgrade().filter(|recording| recording.is_open())
        {
            match self.recording() {
                Some(own) if !Arc::ptr_eq(&own, &recording) => {
                    return Err(Error::device("a captured stream cannot wait for another capture's event"));
                }
                _ => *self.capture() = Some(recording),
            }
        }
        let Some(recording) = self.recording() else {
            return self.run(state, &operation);
        };
        if let Operation::Record(event) = &operation {
            event.set(Point::Noted(Arc::downgrade(&recording)));
        }
        if let Some(operations) = recording.operations().as_mut() {
            operations.push(operation);
        }
        Ok(())
    }

    fn run(&self, state: &mut State, operation: &Operation) -> Result<()> {
        let seconds = match operation {
            Operation::Launch { kernel, config, arguments } => {
                kernel.inner::<LoadedKernel>()?.launch(state, kernel.name(), config, arguments)?
            }
            Operation::Copy { to, from } => {
                state.device.copy(to.address, from.address, from.bytes as u64).map_err(refused)?;
                2.0 * state.moving(from.bytes)
            }
            Operation::Fill { to, byte } => {
                state.device.write(to.address, &vec![*byte; to.bytes]).map_err(refused)?;
                state.moving(to.bytes)
            }
            Operation::Record(event) => {
                event.set(Point::Time(*self.clock()));
                0.0
            }
            Operation::Wait(event) => {
                if let Point::Time(time) = event.point() {
                    let mut clock = self.clock();
                    *clock = clock.max(time);
                }
                0.0
            }
            Operation::Replay(operations) => {
                for operation in operations.iter() {
                    self.run(state, operation)?;
                }
                0.0
            }
        };
        *self.clock() += seconds;
        Ok(())
    }

    fn clock(&self) -> MutexGuard<'_, f64> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
