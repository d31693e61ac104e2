//! A block's shared memory.

use std::sync::Arc;

use super::bits::{Bits, ones};
use crate::program::{Kernel, SharedVariable};

/// Shared addresses below this one are the hardware's own.
pub(crate) const SHARED_START: u32 = 1024;

/// Bytes between two variables that belong to none.
pub(crate) const SHARED_GAP: u32 = 128;

/// Shared memory that a block can ask for: 227 KiB, as on compute capability 9.0 and 10.0.
pub(crate) const MAX_BYTES: u64 = 227 * 1024;

/// Bits of a shared address that are the offset; above them stands the rank in the cluster plus one, or 0 for one's own block.
pub(crate) const RANK_SHIFT: u32 = 24;

/// Addresses of one block.
pub(crate) const ADDRESSES: u32 = 1 << RANK_SHIFT;

const OFFSET_MASK: u32 = ADDRESSES - 1;

/// A range of a block's shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    /// The block's rank in its cluster.
    pub rank: usize,
    /// From the start of its shared memory.
    pub position: usize,
    pub bytes: usize,
}

/// The bytes, which of them exist, and which were written.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    pub defined: Bits,
    /// Bytes that belong to a variable or to dynamic shared memory.
    pub valid: Arc<Bits>,
}

impl Shared {
    /// Nothing written yet.
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { bytes: vec![0; layout.bytes], defined: Bits::new(layout.bytes), valid: Arc::clone(&layout.valid) }
    }

    /// Reads 1, 2 or 4 bytes that exist.
    #[inline(always)]
    pub(crate) fn read(&self, position: usize, size: u32) -> u32 {
        let bytes = &self.bytes[position..position + size as usize];
        match *bytes {
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a] => u32::from(a),
            _ => 0,
        }
    }

    /// Writes 1, 2 or 4 bytes that exist.
    #[inline(always)]
    pub(crate) fn write(&mut self, position: usize, size: u32, value: u32) {
        let size = size as usize;
        self.bytes[position..position + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// Reads up to 8 bytes that exist.
    pub(crate) fn read_wide(&self, position: usize, size: u32) -> u64 {
        let mut word = [0; 8];
        word[..size as usize].copy_from_slice(&self.bytes[position..position + size as usize]);
        u64::from_le_bytes(word)
    }

    /// Writes up to 8 bytes that exist.
    pub(crate) fn write_wide(&mut self, position: usize, size: u32, value: u64) {
        let size = size as usize;
        self.bytes[position..position + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// Position of a shared address among the bytes, if `size` bytes (at most 32) from there exist.
    #[inline(always)]
    pub(crate) fn position(&self, address: u32, size: u32) -> Option<usize> {
        let offset = (address & OFFSET_MASK).checked_sub(SHARED_START)? as usize;
        (offset + size as usize <= self.bytes.len() && self.valid.get(offset, size) == ones(size)).then_some(offset)
    }
}

/// Which addresses a launch's blocks have in shared memory.
pub(crate) struct Layout {
    bytes: usize,
    valid: Arc<Bits>,
    variables: Vec<SharedVariable>,
}

impl Layout {
    /// The kernel's variables and `dynamic` bytes behind them.
    pub(crate) fn new(kernel: &Kernel, dynamic: u32) -> Self {
        let mut variables = kernel.shared_variables.clone();
        if dynamic > 0 {
            variables.push(SharedVariable { name: "dynamic shared memory".into(), offset: kernel.dynamic_start(), bytes: dynamic });
        }
        let bytes = variables.iter().map(|variable| variable.offset + variable.bytes - SHARED_START).max().unwrap_or(0) as usize;
        let mut valid = Bits::new(bytes);
        for variable in &variables {
            valid.fill((variable.offset - SHARED_START) as usize, variable.bytes as usize);
        }
        Self { bytes, valid: Arc::new(valid), variables }
    }

    /// The variable that holds an address, or else the nearest one, and the offset from its start.
    pub(crate) fn nearest(&self, address: u32) -> Option<(String, i64)> {
        let address = i64::from(address & OFFSET_MASK);
        let distance = |variable: &SharedVariable| {
            let (start, end) = (i64::from(variable.offset), i64::from(variable.offset + variable.bytes));
            (start - address).max(address - end + 1).max(0)
        };
        let nearest = self.variables.iter().min_by_key(|variable| distance(variable))?;
        Some((nearest.name.clone(), address - i64::from(nearest.offset)))
    }
}
