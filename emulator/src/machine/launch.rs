//! A launch: what the host asks for, what every warp of it shares, and what comes back.

use super::block::Block;
use super::progress::Progress;
use super::registers::{Lanes, WARP};
use super::trace::Trace;
use crate::check::races::Shadows;
use crate::check::{Finding, Kind, Place};
use crate::count::{Counters, Touched, Traffic};
use crate::memory::device::Resident;
use crate::memory::shared::Layout;
use crate::program::{Kernel, Program};
use crate::{Error, Result};

/// The order in which blocks and warps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Blocks by their index, on all cores; each warp runs until it has to wait.
    #[default]
    Natural,
    /// Blocks, warps and the moments of switching between them drawn from a seed, on one core: the same each time.
    Seeded(u64),
}

/// What to launch a kernel with.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Blocks per cluster; `[1, 1, 1]` without clusters.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// The packed arguments, each at its own alignment, as [`Kernel::parameters`] says.
    pub arguments: Vec<u8>,
    /// Order of execution.
    pub order: Order,
    /// Look for mistakes. Without, a kernel runs about twice as fast, and one that goes wrong does so silently.
    pub checked: bool,
    /// Stop with an error after this many warp instructions.
    pub max_instructions: u64,
    /// A thread or warp to follow.
    pub trace: Option<Trace>,
    /// Cores to use; `None`: all of rayon's pool.
    pub workers: Option<usize>,
}

impl Launch {
    /// A launch with no dynamic shared memory and no cluster, in natural order, checked.
    pub fn new(grid: [u32; 3], block: [u32; 3], arguments: Vec<u8>) -> Self {
        Self {
            grid,
            block,
            cluster: [1; 3],
            shared_bytes: 0,
            arguments,
            order: Order::Natural,
            checked: true,
            max_instructions: 1 << 40,
            trace: None,
            workers: None,
        }
    }

    /// Blocks in all.
    pub(crate) fn blocks(&self) -> u64 {
        product(self.grid)
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        product(self.block) as u32
    }

    /// Blocks of a cluster.
    pub(crate) fn cluster_blocks(&self) -> u32 {
        product(self.cluster) as u32
    }
}

fn product(extent: [u32; 3]) -> u64 {
    extent.iter().fold(1, |product, &n| u64::saturating_mul(product, u64::from(n)))
}

/// What a launch did.
#[derive(Debug)]
pub struct Report {
    /// Mistakes, in the order of the program; none if all is well (or `checked` was off).
    pub findings: Vec<Finding>,
    /// What was executed and moved.
    pub counters: Counters,
    /// What `printf` wrote, one entry per call: block by block in the order of their indices, within a block in the order of time.
    pub printed: Vec<String>,
    /// What the followed thread or warp executed, line by line.
    pub trace: Vec<String>,
}

/// What every warp of a launch shares.
pub(crate) struct Context<'a> {
    pub program: &'a Program,
    pub kernel: &'a Kernel,
    pub launch: &'a Launch,
    pub memory: &'a Resident,
    /// Addresses of the module's variables.
    pub variables: &'a [u64],
    pub checked: bool,
    /// Mistakes are looked for, and the program has bulk or tensor copies, or `wgmma`.
    pub uses_async_proxy: bool,
    /// What blocks accessed.
    pub races: &'a Shadows,
    /// `threadIdx` of each warp's lanes, axis by axis.
    pub threads: Vec<[Lanes<u32>; 3]>,
    /// Addresses in shared memory.
    pub shared: Layout,
    pub progress: Progress,
}

impl Context<'_> {
    /// `threadIdx` of a lane.
    pub(crate) fn thread(&self, warp: usize, lane: usize) -> [u32; 3] {
        self.threads[warp].map(|axis| axis[lane])
    }

    /// What each buffer gave and took, of those that were touched, by allocation.
    pub(crate) fn traffic(&self, touched: &[Touched]) -> Vec<Traffic> {
        let mut traffic = Vec::new();
        for (index, touched) in touched.iter().enumerate() {
            let (sectors_read, sectors_written) = touched.distinct();
            if sectors_read + sectors_written > 0 {
                let allocation = self.memory.get(index);
                traffic.push(Traffic { name: allocation.name.clone(), bytes: allocation.bytes, sectors_read, sectors_written });
            }
        }
        traffic
    }

    /// A mistake of a lane, at no address.
    pub(crate) fn finding(&self, kind: Kind, message: String, pc: u32, block: &Block, warp: usize, lane: usize) -> Finding {
        Finding {
            kind,
            message,
            kernel: self.kernel.name.clone(),
            place: Some(self.place(pc)),
            block: block.coordinates,
            thread: self.thread(warp, lane),
            address: None,
            buffer: None,
            count: 1,
        }
    }

    /// First instruction of the kernel.
    pub(crate) fn entry(&self) -> u32 {
        self.program.functions[self.kernel.function].entry
    }

    /// `blockIdx` of a block by its number in the grid.
    pub(crate) fn coordinates(&self, block: u32) -> [u32; 3] {
        let [x, y, _] = self.launch.grid;
        [block % x, block / x % y, block / x / y]
    }

    /// Where an instruction stands.
    pub(crate) fn place(&self, pc: u32) -> Place {
        let instruction = &self.program.instructions[pc as usize];
        let source = instruction.location.and_then(|at| Some((self.program.file(at)?.to_string(), at.line)));
        Place { ptx_line: instruction.line, instruction: instruction.text.to_string(), source }
    }
}

/// `threadIdx` of every lane of a block's warps, axis by axis.
pub(crate) fn threads_of([x, y, z]: [u32; 3]) -> Vec<[Lanes<u32>; 3]> {
    let warps = (x * y * z).div_ceil(WARP as u32);
    let thread = |warp: u32, lane: usize| warp * WARP as u32 + lane as u32;
    let of = |warp: u32, f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| f(thread(warp, lane)));
    (0..warps)
        .map(|warp| [of(warp, &|thread| thread % x), of(warp, &|thread| thread / x % y), of(warp, &|thread| thread / x / y)])
        .collect()
}

/// Refuses what no device could launch.
pub(crate) fn validate(kernel: &Kernel, launch: &Launch) -> Result<()> {
    let fail = |message: String| Err(Error::Launch(format!("kernel `{}`: {message}", kernel.name)));
    let limits = [("grid", launch.grid, [i32::MAX as u32, 65535, 65535]), ("block", launch.block, [1024, 1024, 64])];
    for (what, extent, limit) in limits {
        if (0..3).any(|axis| extent[axis] == 0 || extent[axis] > limit[axis]) {
            return fail(format!("{what} {extent:?} is not within 1 and {limit:?}"));
        }
    }
    if product(launch.block) > 1024 {
        return fail(format!("{} threads per block are more than 1024", product(launch.block)));
    }
    if launch.blocks() > u64::from(u32::MAX) {
        return fail(format!("{} blocks are more than {}", launch.blocks(), u32::MAX));
    }
    let cluster = product(launch.cluster);
    if cluster == 0 || cluster > 16 || (0..3).any(|axis| !launch.grid[axis].is_multiple_of(launch.cluster[axis])) {
        return fail(format!(
            "clusters of {:?} blocks do not divide the grid {:?} into parts of 1 to 16",
            launch.cluster, launch.grid
        ));
    }
    let wanted = kernel.argument_bytes();
    if launch.arguments.len() != wanted {
        return fail(format!(
            "{} bytes of arguments given, its {} parameters take {wanted}",
            launch.arguments.len(),
            kernel.parameters.len()
        ));
    }
    let shared = u64::from(kernel.shared_bytes) + u64::from(launch.shared_bytes);
    if shared > crate::memory::shared::MAX_BYTES {
        return fail(format!("{shared} bytes of shared memory are more than the {} of a block", crate::memory::shared::MAX_BYTES));
    }
    for (directive, exact) in [("maxntid", false), ("reqntid", true)] {
        let Some(numbers) = kernel.directives.get(directive) else { continue };
        let asked: [u32; 3] = std::array::from_fn(|axis| numbers.get(axis).copied().unwrap_or(1));
        let fits = if exact { asked == launch.block } else { product(launch.block) <= product(asked) };
        if !fits {
            return fail(format!("blocks of {:?} threads contradict its `.{directive} {asked:?}`", launch.block));
        }
    }
    if let Some(numbers) = kernel.directives.get("reqnctapercluster").filter(|numbers| !numbers.is_empty()) {
        let asked: [u32; 3] = std::array::from_fn(|axis| numbers.get(axis).copied().unwrap_or(1));
        if asked != launch.cluster {
            return fail(format!("clusters of {:?} blocks contradict its `.reqnctapercluster {asked:?}`", launch.cluster));
        }
    }
    Ok(())
}
