//! Launches: how many threads, and which arguments.

use std::ops::Range;

use super::device::Limits;
use super::memory::{Element, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut};
use super::tensor_map::TensorMap;
use crate::error::{Error, Result};

/// How many threads, in blocks, in a grid, and what comes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Blocks of a cluster in x, y, z. One each: no clusters, or those that the kernel itself declares (`__cluster_dims__`).
    pub cluster: [u32; 3],
    /// Dynamic shared memory of a block in bytes. Implementations raise the kernel's own limit to it.
    pub shared_bytes: u32,
    /// All blocks are resident at once, as a barrier over the grid needs.
    pub cooperative: bool,
    /// May begin before the kernel before it has ended (programmatic dependent launch): only for a kernel that says by
    /// `griddepcontrol.wait` where it needs the other's results.
    pub overlap: bool,
}

impl LaunchConfig {
    /// A grid of blocks in one dimension.
    pub const fn new(blocks: u32, threads: u32) -> Self {
        let (grid, block) = ([blocks, 1, 1], [threads, 1, 1]);
        Self { grid, block, cluster: [1; 3], shared_bytes: 0, cooperative: false, overlap: false }
    }

    /// Blocks in all.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).fold(1, u64::saturating_mul)
    }

    /// Threads of a block in all.
    pub fn threads(&self) -> u64 {
        self.block.iter().map(|&n| u64::from(n)).fold(1, u64::saturating_mul)
    }

    /// An error, naming the kernel and the limit, if a device with these limits cannot run it. Implementations call it first.
    pub fn check(&self, kernel: &str, limits: &Limits) -> Result<()> {
        let fail = |message: String| Err(Error::device(format!("kernel `{kernel}`: {message}")));
        let within = |value: [u32; 3], most: [u32; 3]| (0..3).all(|i| (1..=most[i]).contains(&value[i]));
        if !within(self.grid, limits.grid) {
            return fail(format!("grid {:?}: each extent must be at least 1 and at most {:?}", self.grid, limits.grid));
        }
        if !within(self.block, limits.block) || self.threads() > u64::from(limits.threads_per_block) {
            let (most, threads) = (limits.block, limits.threads_per_block);
            return fail(format!(
                "block {:?}: each extent must be at least 1 and at most {most:?}, {threads} threads in all",
                self.block
            ));
        }
        if self.shared_bytes > limits.shared_per_block {
            let most = limits.shared_per_block;
            return fail(format!("{} bytes of dynamic shared memory, the device has {most} for a block", self.shared_bytes));
        }
        let cluster = self.cluster.iter().map(|&n| u64::from(n)).fold(1, u64::saturating_mul);
        if self.cluster.contains(&0) || cluster > u64::from(limits.cluster.max(1)) {
            let most = limits.cluster;
            return fail(format!(
                "cluster {:?}: at least 1 block in each direction, and at most {most} in all (1: no clusters)",
                self.cluster
            ));
        }
        if (0..3).any(|i| !self.grid[i].is_multiple_of(self.cluster[i])) {
            return fail(format!("grid {:?} is no multiple of the cluster {:?}", self.grid, self.cluster));
        }
        Ok(())
    }
}

/// Arguments of a launch, packed: each at its natural alignment, in the prototype's order.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// Aligned for any argument, a tensor map included.
    blocks: Vec<AlignedBlock>,
    ranges: Vec<Range<usize>>,
}

#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct AlignedBlock([u8; 64]);

impl Arguments {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. The generated calls do it in the prototype's order; by hand, for a kernel known only at run time.
    pub fn push(&mut self, argument: impl Argument) {
        argument.push_to(self);
    }

    /// Adds one of `bytes.len()` bytes, which begins at a multiple of `alignment` (a power of two up to 64).
    pub fn push_bytes(&mut self, bytes: &[u8], alignment: usize) {
        let begin = self.ranges.last().map_or(0, |last| last.end).next_multiple_of(alignment.clamp(1, 64));
        let range = begin..begin + bytes.len();
        self.blocks.resize(range.end.div_ceil(size_of::<AlignedBlock>()), bytemuck::Zeroable::zeroed());
        bytemuck::cast_slice_mut::<_, u8>(&mut self.blocks)[range.clone()].copy_from_slice(bytes);
        self.ranges.push(range);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The bytes of each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.blocks);
        self.ranges.iter().map(move |range| &bytes[range.clone()])
    }
}

/// What can be passed to a kernel: numbers and tensor maps by value, slices as their address.
pub trait Argument {
    /// Appends its bytes.
    fn push_to(&self, arguments: &mut Arguments);

    /// Its value, if it is an integer: what a kernel's launch comment may count with.
    fn integer(&self) -> Option<i64> {
        None
    }

    /// What it points to, if that is a type chosen when the kernel is compiled.
    fn element(&self) -> Option<ElementType> {
        None
    }
}

macro_rules! by_value {
    ($($type:ty),*) => {
        $(impl Argument for $type {
            fn push_to(&self, arguments: &mut Arguments) {
                arguments.push_bytes(bytemuck::bytes_of(self), align_of::<Self>());
            }
        })*
    };
}
by_value!(f32, f64, half::f16, half::bf16, TensorMap);

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Argument for $type {
            fn push_to(&self, arguments: &mut Arguments) {
                arguments.push_bytes(bytemuck::bytes_of(self), align_of::<Self>());
            }
            fn integer(&self) -> Option<i64> {
                i64::try_from(*self).ok()
            }
        })*
    };
}
integers!(i8, u8, i16, u16, i32, u32, i64, u64);

impl<T: Element> Argument for Slice<'_, T> {
    fn push_to(&self, arguments: &mut Arguments) {
        self.view().address().push_to(arguments);
    }
}

impl<T: Element> Argument for SliceMut<'_, T> {
    fn push_to(&self, arguments: &mut Arguments) {
        self.view().address().push_to(arguments);
    }
}

impl Argument for ElementSlice<'_> {
    fn push_to(&self, arguments: &mut Arguments) {
        self.view().address().push_to(arguments);
    }
    fn element(&self) -> Option<ElementType> {
        Some(self.element())
    }
}

impl Argument for ElementSliceMut<'_> {
    fn push_to(&self, arguments: &mut Arguments) {
        self.as_slice().push_to(arguments);
    }
    fn element(&self) -> Option<ElementType> {
        Some(self.as_slice().element())
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Buffer;
    use super::*;

    #[test]
    fn arguments_lie_at_their_natural_alignment_in_order() {
        let buffer = Buffer::new("x", 0x1122_3344_5566_7700, 64, ());
        let mut arguments = Arguments::new();
        arguments.push(7i32);
        arguments.push(buffer.slice::<f32>().unwrap());
        arguments.push(half::bf16::from_f32(1.0));
        arguments.push(2.5f32);
        arguments.push(TensorMap::from_bytes([9; 128]));
        arguments.push(buffer.view(8..).unwrap().slice_mut::<u8>().unwrap());
        let ranges = [0..4, 8..16, 16..18, 20..24, 64..192, 192..200];
        assert_eq!(arguments.ranges, ranges);
        let bytes: Vec<&[u8]> = arguments.iter().collect();
        assert_eq!(bytes[0], 7i32.to_ne_bytes());
        assert_eq!(bytes[1], 0x1122_3344_5566_7700u64.to_ne_bytes());
        assert_eq!(bytes[2], [0x80, 0x3f]);
        assert_eq!(bytes[3], 2.5f32.to_ne_bytes());
        assert_eq!(bytes[4], [9; 128]);
        assert_eq!(bytes[5], 0x1122_3344_5566_7708u64.to_ne_bytes());
        assert!(bytes.iter().zip([4, 8, 2, 4, 64, 8]).all(|(bytes, alignment)| bytes.as_ptr().addr().is_multiple_of(alignment)));
    }

    #[test]
    fn what_a_device_cannot_run_is_refused_with_the_limit() {
        let limits = Limits::of_capability(9, 0);
        let good = LaunchConfig { shared_bytes: 1024, ..LaunchConfig::new(8, 256) };
        good.check("k", &limits).unwrap();
        LaunchConfig { cluster: [2, 1, 1], ..good }.check("k", &limits).unwrap();
        let bad = [
            (LaunchConfig { grid: [0, 1, 1], ..good }, "grid"),
            (LaunchConfig { grid: [1, 65536, 1], ..good }, "65535"),
            (LaunchConfig { block: [1025, 1, 1], ..good }, "1024"),
            (LaunchConfig { block: [1024, 1024, 64], ..good }, "1024 threads"),
            (LaunchConfig { block: [u32::MAX; 3], ..good }, "block"),
            (LaunchConfig { shared_bytes: 300 << 10, ..good }, "232448"),
            (LaunchConfig { cluster: [3, 1, 1], ..good }, "multiple"),
            (LaunchConfig { cluster: [0, 1, 1], ..good }, "cluster"),
            (LaunchConfig { cluster: [u32::MAX; 3], ..good }, "cluster"),
        ];
        for (config, word) in bad {
            let message = config.check("k", &limits).unwrap_err().to_string();
            assert!(message.contains("`k`") && message.contains(word), "{message}");
        }
        let clusters = LaunchConfig { cluster: [2, 1, 1], ..good };
        assert!(clusters.check("k", &Limits::of_capability(8, 0)).is_err());
    }
}
