//! A block's shared memory.

use super::bits::Bits;

/// Shared addresses below this one are the hardware's own.
pub(crate) const SHARED_START: u32 = 1024;

/// Shared memory that a block can ask for: 227 KiB, as on compute capability 9.0 and 10.0.
pub(crate) const MAX_BYTES: u64 = 227 * 1024;

/// Bits of a shared address that are the offset; above them stands the rank in the cluster plus one, or 0 for one's own block.
pub(crate) const RANK_SHIFT: u32 = 24;

/// The bytes, and which of them were written.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    pub defined: Bits,
}

impl Shared {
    /// Nothing written yet.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], defined: Bits::new(bytes) }
    }

    /// Position of a shared address among the bytes, if `size` bytes from there exist.
    #[inline(always)]
    pub(crate) fn position(&self, address: u32, size: u32) -> Option<usize> {
        let offset = (address & ((1 << RANK_SHIFT) - 1)).checked_sub(SHARED_START)? as usize;
        (offset + size as usize <= self.bytes.len()).then_some(offset)
    }
}
