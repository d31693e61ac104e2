//! Correct CUDA kernels for the emulator's fault suite, each with small inputs and an oracle of its own.
//!
//! A [`Case`] says how to compile and launch a kernel and what its outputs must be; it knows nothing of what executes it.
//! The kernels (`../kernels/*.cu`) are written as for real use, but their launches are small, for thousands of mutants are run:
//! big enough all the same for odd tails, several tiles, and more steps than a pipeline has stages.
//! Where the arithmetic allows, inputs are integers whose sums are exact in every order, and outputs must match bit for bit.

mod attention;
mod cluster;
mod copies;
mod data;
mod elementwise;
mod expected;
mod matmul;
mod reductions;
mod scans;
mod sync;
mod training;
mod wgmma;

pub use expected::{Element, Expected};

/// The headers that the kernels include, by name: NVRTC takes them as virtual files.
pub const HEADERS: [(&str, &str); 2] =
    [("ptx.cuh", include_str!("../kernels/ptx.cuh")), ("ptx_sm90.cuh", include_str!("../kernels/ptx_sm90.cuh"))];

/// The text of a file beside the corpus, `../kernels/$file`.
macro_rules! kernel {
    ($file:literal) => {
        include_str!(concat!("../kernels/", $file))
    };
}
use kernel;

/// The virtual architecture that a kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Compute80,
    Compute90a,
}

/// What a device buffer holds before the first launch.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Read by the kernel; must be the same afterwards.
    Input(Vec<u8>),
    /// This many uninitialised bytes, all of which the kernel must write.
    Output(usize),
    /// Read and written.
    InOut(Vec<u8>),
    /// This many uninitialised bytes for the kernel's own use, of which nothing is expected.
    Scratch(usize),
}

/// A device buffer, shared by all launches of a case.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub name: &'static str,
    pub contents: Contents,
}

impl Buffer {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match &self.contents {
            Contents::Input(bytes) | Contents::InOut(bytes) => bytes.len(),
            Contents::Output(len) | Contents::Scratch(len) => *len,
        }
    }
}

/// How a tensor map permutes the 16-byte units of a box in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    None,
    Bytes128,
}

/// A tiled tensor map over a buffer: no interleave, element strides 1, zeros outside of the tensor.
#[derive(Clone, Debug)]
pub struct TensorMap {
    pub buffer: &'static str,
    pub element: Element,
    /// Extents in elements, innermost first.
    pub dims: Vec<u64>,
    /// Bytes between neighbours in each dimension but the innermost.
    pub strides: Vec<u64>,
    /// Extents of the box that one copy moves, innermost first.
    pub tile: Vec<u32>,
    pub swizzle: Swizzle,
}

/// An argument of a launch.
#[derive(Clone, Debug)]
pub enum Argument {
    I32(i32),
    U32(u32),
    U64(u64),
    F32(f32),
    /// The address of the buffer of this name.
    Buffer(&'static str),
    TensorMap(TensorMap),
}

/// One kernel launch; the launches of a case follow each other on one stream.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// All blocks must be resident at once.
    pub cooperative: bool,
    /// May begin before the previous launch has ended (programmatic stream serialization).
    pub dependent: bool,
    pub arguments: Vec<Argument>,
}

impl Launch {
    fn new(kernel: &'static str, grid: [u32; 3], block: [u32; 3], arguments: Vec<Argument>) -> Self {
        Launch { kernel, grid, block, cluster: [1; 3], shared: 0, cooperative: false, dependent: false, arguments }
    }
}

/// A kernel file with the launches to make, and what they must produce.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub source: &'static str,
    /// Macros to define, as `-D NAME=VALUE`.
    pub defines: Vec<(&'static str, u32)>,
    pub arch: Arch,
    pub buffers: Vec<Buffer>,
    pub launches: Vec<Launch>,
    pub expected: Vec<Expected>,
}

impl Case {
    fn new(name: &'static str, arch: Arch, source: &'static str) -> Self {
        Case { name, source, defines: vec![], arch, buffers: vec![], launches: vec![], expected: vec![] }
    }

    fn define(mut self, name: &'static str, value: u32) -> Self {
        self.defines.push((name, value));
        self
    }

    fn input(self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.buffer(name, Contents::Input(bytes))
    }

    fn in_out(self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.buffer(name, Contents::InOut(bytes))
    }

    fn scratch(self, name: &'static str, len: usize) -> Self {
        self.buffer(name, Contents::Scratch(len))
    }

    fn buffer(mut self, name: &'static str, contents: Contents) -> Self {
        self.buffers.push(Buffer { name, contents });
        self
    }

    fn launch(mut self, launch: Launch) -> Self {
        self.launches.push(launch);
        self
    }

    /// What a buffer must hold at the end; one that has not been declared is an output.
    fn expect(mut self, expected: Expected) -> Self {
        if self.find(expected.buffer).is_none() {
            self = self.buffer(expected.buffer, Contents::Output(expected.len()));
        }
        self.expected.push(expected);
        self
    }

    /// The buffer of this name.
    pub fn find(&self, name: &str) -> Option<&Buffer> {
        self.buffers.iter().find(|buffer| buffer.name == name)
    }
}

/// Every case, those of compute_80 first.
pub fn all() -> Vec<Case> {
    vec![
        elementwise::vector_add(),
        elementwise::saxpy(),
        elementwise::half_axpby(),
        elementwise::swiglu(),
        elementwise::dropout(),
        elementwise::transpose(),
        elementwise::stencil(),
        elementwise::rope(),
        reductions::block_reduce(),
        reductions::warp_groups(),
        reductions::softmax(),
        reductions::rmsnorm(),
        reductions::last_block(),
        reductions::histogram(),
        reductions::top_k(),
        scans::scan(),
        scans::lookback(),
        scans::radix_sort(),
        scans::compact(),
        matmul::matmul_f32(),
        matmul::matmul_bf16(),
        matmul::matmul_s8(),
        matmul::split_k(),
        attention::flash_forward(),
        attention::flash_backward(),
        training::cross_entropy(),
        training::adamw(),
        training::embedding(),
        sync::named_barriers(),
        sync::divergent(),
        sync::persistent(),
        sync::dependent_launch(),
        copies::bulk_copy(),
        copies::tensor_copy(),
        copies::bulk_reduce(),
        wgmma::wgmma_matmul(),
        wgmma::wgmma_registers(),
        wgmma::stmatrix_epilogue(),
        attention::wgmma_attention(),
        cluster::cluster_reduce(),
        cluster::cluster_send(),
        cluster::multicast(),
    ]
}
