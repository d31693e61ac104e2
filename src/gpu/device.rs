//! The seam: one object-safe trait, implemented by a CUDA device and by the emulator. Everything above it is written once.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::arch::Arch;
use super::launch::{Arguments, LaunchConfig};
use super::memory::{Buffer, Element, Slice, SliceMut, View};
use super::nvrtc::Compiled;
use super::tensor_map::{TensorMap, TensorMapLayout};
use crate::error::{Error, Result};

/// A device that runs CUDA kernels.
///
/// **Order.** Work on a stream happens in the order in which it was issued; between streams only [`record`](Self::record) and
/// [`wait`](Self::wait) order it. Launches, copies within the device and fills return before they have happened. Copies from and to
/// the host return when the host's slice is free again, that is, when the copy and all that came before it on the stream is done:
/// put them on a stream of their own where that would hold up the work.
///
/// **Errors.** What a call can see is its own error. What happens later (a kernel that strays) comes from a later call on the
/// device, at the latest from [`synchronize`](Self::synchronize), and names the kernels that were under way.
///
/// **Capture.** Between [`begin_capture`](Self::begin_capture) and [`end_capture`](Self::end_capture) work on that stream, and on
/// streams that wait for an event recorded there, is noted and not done. Copies from and to the host, `synchronize`, `elapsed` and
/// `allocate` are errors meanwhile. A graph holds addresses and arguments as they were: buffers must live as long as it is replayed.
///
/// **Handles** (streams, events, modules, kernels, graphs, buffers) free themselves, are cheap to clone, and are refused by a device
/// that did not make them.
pub trait Device: Send + Sync {
    /// What it is and what it can hold.
    fn info(&self) -> &Info;

    /// Memory of at least `bytes` bytes at a multiple of 256, with undefined content. `name` is for people: errors and findings say it.
    fn allocate(&self, name: &str, bytes: usize) -> Result<Buffer>;

    /// Copies from the host; of equal lengths.
    fn copy_to_device(&self, stream: &Stream, to: View<'_>, from: &[u8]) -> Result<()>;

    /// Copies to the host, and waits for it; of equal lengths.
    fn copy_to_host(&self, stream: &Stream, to: &mut [u8], from: View<'_>) -> Result<()>;

    /// Copies within the device; of equal lengths, not overlapping.
    fn copy(&self, stream: &Stream, to: View<'_>, from: View<'_>) -> Result<()>;

    /// Sets every byte: 0 clears, 0xff makes a NaN of any float.
    fn fill(&self, stream: &Stream, to: View<'_>, byte: u8) -> Result<()>;

    /// Takes in a compiled file, by its machine code or its PTX, as the device prefers.
    fn load(&self, compiled: &Compiled) -> Result<Module>;

    /// A kernel by its name; an error if the module has none of this name.
    fn kernel(&self, module: &Module, name: &str) -> Result<Kernel>;

    /// Launches a kernel. The number and sizes of the arguments must be the kernel's own: the generated launchers see to it.
    fn launch(&self, stream: &Stream, kernel: &Kernel, config: &LaunchConfig, arguments: &Arguments) -> Result<()>;

    /// A new stream, ordered with no other.
    fn stream(&self) -> Result<Stream>;

    /// A new event, not recorded yet.
    fn event(&self) -> Result<Event>;

    /// Notes the point that the stream has reached in the event.
    fn record(&self, event: &Event, stream: &Stream) -> Result<()>;

    /// Lets the stream's further work wait for the point that was last recorded in the event.
    fn wait(&self, stream: &Stream, event: &Event) -> Result<()>;

    /// The device's time between two recorded events, of which it awaits the later.
    fn elapsed(&self, start: &Event, end: &Event) -> Result<Duration>;

    /// Waits for all work of the stream; returns the errors that it met.
    fn synchronize(&self, stream: &Stream) -> Result<()>;

    /// From now on, work on this stream is noted instead of done.
    fn begin_capture(&self, stream: &Stream) -> Result<()>;

    /// Ends it: what was noted, ready to be replayed.
    fn end_capture(&self, stream: &Stream) -> Result<Graph>;

    /// Does what a graph has noted, as one piece of work on this stream.
    fn replay(&self, stream: &Stream, graph: &Graph) -> Result<()>;

    /// Encodes a tensor map. An error on devices before compute capability 9.0.
    fn encode_tensor_map(&self, layout: &TensorMapLayout<'_>) -> Result<TensorMap>;
}

/// What every device can do by what its implementation does.
impl dyn Device + '_ {
    /// Memory with these elements in it, copied on this stream.
    pub fn upload<T: Element>(&self, stream: &Stream, name: &str, elements: &[T]) -> Result<Buffer> {
        let buffer = self.allocate(name, size_of_val(elements))?;
        self.copy_to_device(stream, buffer.all(), bytemuck::cast_slice(elements))?;
        Ok(buffer)
    }

    /// Overwrites elements, as many as the slice has.
    pub fn write<T: Element>(&self, stream: &Stream, to: SliceMut<'_, T>, from: &[T]) -> Result<()> {
        self.copy_to_device(stream, to.view(), bytemuck::cast_slice(from))
    }

    /// The elements as they are when the stream has got there.
    pub fn download<T: Element>(&self, stream: &Stream, from: Slice<'_, T>) -> Result<Vec<T>> {
        let mut elements = vec![T::zeroed(); from.len()];
        self.copy_to_host(stream, bytemuck::cast_slice_mut(&mut elements), from.view())?;
        Ok(elements)
    }

    /// What `work` issues to the stream, as a graph. The capture ends even if `work` fails.
    pub fn capture(&self, stream: &Stream, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.begin_capture(stream)?;
        let done = work();
        let graph = self.end_capture(stream);
        done.and(graph)
    }
}

/// An error unless a copy's two sides are of equal length. Implementations call it first.
pub(super) fn check_copy(view: View<'_>, other_bytes: usize) -> Result<()> {
    if view.bytes() == other_bytes {
        return Ok(());
    }
    Err(Error::device(format!("buffer `{}`: copy between {} and {other_bytes} bytes", view.buffer().name(), view.bytes())))
}

/// A device's name and abilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// What it calls itself.
    pub name: String,
    /// What to compile for, if it should run as fast as it can.
    pub arch: Arch,
    /// All of its memory, in bytes.
    pub memory: u64,
    /// How much of what it can hold.
    pub limits: Limits,
}

/// Resources, in the terms of the CUDA programming guide's table of compute capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Threads of a block.
    pub threads_per_block: u32,
    /// Threads that one multiprocessor holds.
    pub threads_per_multiprocessor: u32,
    /// Blocks that one multiprocessor holds.
    pub blocks_per_multiprocessor: u32,
    /// Extents of a block.
    pub block: [u32; 3],
    /// Extents of a grid.
    pub grid: [u32; 3],
    /// Blocks of a cluster; 1 where there are none.
    pub cluster: u32,
    /// Shared memory of a block in bytes, static and dynamic, with the kernel's limit raised.
    pub shared_per_block: u32,
    /// Shared memory of one multiprocessor in bytes.
    pub shared_per_multiprocessor: u32,
    /// 32-bit registers of one multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// Level-2 cache in bytes.
    pub l2_bytes: u32,
}

impl Limits {
    /// For a device that is not there: those of an A100 (8.0), of an H100 (9.0 to 11.x), of a GeForce (any other).
    pub const fn of_capability(major: u8, minor: u8) -> Self {
        let (multiprocessors, shared, l2_mib, threads, blocks) = match (major, minor) {
            (8, 0) => (108, 164, 40, 2048, 32),
            (9..=11, _) => (132, 228, 50, 2048, 32),
            _ => (84, 100, 6, 1536, 16),
        };
        Self {
            multiprocessors,
            threads_per_block: 1024,
            threads_per_multiprocessor: threads,
            blocks_per_multiprocessor: blocks,
            block: [1024, 1024, 64],
            grid: [i32::MAX as u32, 65535, 65535],
            cluster: if major >= 9 { 16 } else { 1 },
            // Each block pays 1 KiB to the system.
            shared_per_block: (shared - 1) << 10,
            shared_per_multiprocessor: shared << 10,
            registers_per_multiprocessor: 65536,
            l2_bytes: l2_mib << 20,
        }
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<dyn Any + Send + Sync>);

        impl $name {
            /// For implementations of [`Device`]: wraps what it keeps behind the handle, which is dropped with the last clone.
            pub fn new(inner: impl Any + Send + Sync) -> Self {
                Self(Arc::new(inner))
            }

            /// For implementations of [`Device`]: what [`new`](Self::new) wrapped; an error for a handle of another kind of device.
            pub fn inner<T: Any>(&self) -> Result<&T> {
                self.0.downcast_ref().ok_or_else(|| Error::device(concat!(stringify!($name), " of another kind of device")))
            }
        }
    )*};
}

handles! {
    /// An order of work.
    Stream,
    /// A point in a stream's work.
    Event,
    /// A compiled file on the device.
    Module,
    /// Work that was captured, to be replayed.
    Graph,
}

/// A kernel of a module.
#[derive(Clone)]
pub struct Kernel {
    name: Arc<str>,
    inner: Arc<dyn Any + Send + Sync>,
}

impl Kernel {
    /// For implementations of [`Device`].
    pub fn new(name: &str, inner: impl Any + Send + Sync) -> Self {
        Self { name: name.into(), inner: Arc::new(inner) }
    }

    /// For implementations of [`Device`]: what [`new`](Self::new) wrapped; an error for a handle of another kind of device.
    pub fn inner<T: Any>(&self) -> Result<&T> {
        self.inner.downcast_ref().ok_or_else(|| Error::device(format!("kernel `{}` of another kind of device", self.name)))
    }

    /// Its name in the source.
    pub fn name(&self) -> &str {
        &self.name
    }
}
