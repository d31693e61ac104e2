//! Global memory: named allocations with gaps between them, shared by all blocks of a launch.
//!
//! Blocks run on several cores and a kernel may race, so every byte is accessed atomically (relaxed, which costs nothing on the
//! processors that matter): a race of the kernel is then a finding and never undefined behaviour of the emulator.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::GLOBAL_START;
use crate::{Error, Result};

/// Unused addresses between two allocations, at least.
const RED_ZONE: u64 = 4096;

/// What allocations are aligned to, as CUDA promises and textures and tensor maps need.
const ALIGNMENT: u64 = 512;

/// A live or freed allocation.
pub(crate) struct Allocation {
    pub name: String,
    pub address: u64,
    pub bytes: u64,
    pub freed: bool,
    words: Box<[AtomicU64]>,
    /// One bit for each byte that was written.
    defined: Box<[AtomicU64]>,
    /// The host has written all of it since it was last undefined: nobody needs to look at the bits.
    all_defined: AtomicBool,
}

/// All allocations, by address. A launch only reads the list; their bytes change.
#[derive(Default)]
pub(crate) struct Resident {
    allocations: Vec<Allocation>,
    next: u64,
}

impl Resident {
    /// A new allocation of undefined bytes; `bytes` may be zero.
    pub(crate) fn allocate(&mut self, name: &str, bytes: u64) -> Result<u64> {
        let words = usize::try_from(bytes.div_ceil(8))
            .map_err(|_| Error::Launch(format!("`{name}`: {bytes} bytes do not fit in memory")))?;
        let address = self.next.max(GLOBAL_START);
        let no_memory = || Error::Launch(format!("`{name}`: no memory for {bytes} bytes"));
        let defined = zeroed(words.div_ceil(8)).ok_or_else(no_memory)?;
        let words = zeroed(words).ok_or_else(no_memory)?;
        self.next = (address + bytes + RED_ZONE).next_multiple_of(ALIGNMENT);
        self.allocations.push(Allocation {
            name: name.to_string(),
            address,
            bytes,
            freed: false,
            words,
            defined,
            all_defined: AtomicBool::new(false),
        });
        Ok(address)
    }

    /// Gives the bytes of an allocation back; its addresses are never used again.
    pub(crate) fn free(&mut self, address: u64) -> Result<()> {
        let allocation = self.at_start(address)?;
        allocation.freed = true;
        allocation.words = Box::default();
        allocation.defined = Box::default();
        Ok(())
    }

    fn at_start(&mut self, address: u64) -> Result<&mut Allocation> {
        let found = self.allocations.iter_mut().find(|allocation| allocation.address == address && !allocation.freed);
        found.ok_or_else(|| Error::Launch(format!("{address:#x} is not the start of an allocation")))
    }

    /// The live allocation that holds `bytes` bytes from `address`, for the host's own copies.
    pub(crate) fn range(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64)> {
        let found = self.find(address).map(|index| &self.allocations[index]).filter(|allocation| !allocation.freed);
        found
            .map(|allocation| (allocation, address - allocation.address))
            .filter(|(allocation, offset)| offset.checked_add(bytes).is_some_and(|end| end <= allocation.bytes))
            .ok_or_else(|| Error::Launch(format!("{bytes} bytes at {address:#x} are not within an allocation")))
    }

    /// Index of the last allocation, live or freed, that starts at or before an address.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<usize> {
        self.allocations.partition_point(|allocation| allocation.address <= address).checked_sub(1)
    }

    /// Number of allocations, live and freed.
    pub(crate) fn len(&self) -> usize {
        self.allocations.len()
    }

    /// An allocation by an index that may be none.
    #[inline(always)]
    pub(crate) fn try_get(&self, index: usize) -> Option<&Allocation> {
        self.allocations.get(index)
    }

    /// An allocation by its index.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> &Allocation {
        &self.allocations[index]
    }
}

/// Zeroed words whose pages the system provides when they are first touched; `None` if there is no memory.
pub(crate) fn zeroed(count: usize) -> Option<Box<[AtomicU64]>> {
    let layout = std::alloc::Layout::array::<AtomicU64>(count).ok()?;
    if layout.size() == 0 {
        return Some(Box::default());
    }
    // SAFETY: the layout has a size; zero bits are a valid `AtomicU64`; the memory comes from the global allocator with the layout
    // of a boxed slice of `count` of them, which frees it.
    unsafe {
        let start = std::alloc::alloc_zeroed(layout).cast::<AtomicU64>();
        (!start.is_null()).then(|| Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, count)))
    }
}

impl Allocation {
    /// Whether `size` bytes from an address lie inside.
    #[inline(always)]
    pub(crate) fn holds(&self, address: u64, size: u64) -> bool {
        let offset = address.wrapping_sub(self.address);
        offset <= self.bytes && size <= self.bytes - offset && !self.freed
    }

    #[inline(always)]
    fn byte<A>(&self, offset: u64) -> &A {
        debug_assert!(
            offset + size_of::<A>() as u64 <= self.words.len() as u64 * 8 && offset.is_multiple_of(align_of::<A>() as u64)
        );
        // SAFETY: callers hand in offsets inside the allocation and aligned to `A`, an atomic integer, which every bit pattern
        // is valid for; the words live as long as `self` and are only ever accessed as atomics.
        unsafe { &*self.words.as_ptr().cast::<u8>().add(offset as usize).cast::<A>() }
    }

    /// Reads 1, 2, 4 or 8 aligned bytes inside the allocation.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u64, size: u32) -> u64 {
        match size {
            1 => u64::from(self.byte::<AtomicU8>(offset).load(Relaxed)),
            2 => u64::from(self.byte::<AtomicU16>(offset).load(Relaxed)),
            4 => u64::from(self.byte::<AtomicU32>(offset).load(Relaxed)),
            _ => self.byte::<AtomicU64>(offset).load(Relaxed),
        }
    }

    /// Writes 1, 2, 4 or 8 aligned bytes inside the allocation.
    #[inline(always)]
    pub(crate) fn store(&self, offset: u64, size: u32, value: u64) {
        match size {
            1 => self.byte::<AtomicU8>(offset).store(value as u8, Relaxed),
            2 => self.byte::<AtomicU16>(offset).store(value as u16, Relaxed),
            4 => self.byte::<AtomicU32>(offset).store(value as u32, Relaxed),
            _ => self.byte::<AtomicU64>(offset).store(value, Relaxed),
        }
    }

    /// Reads 32 words that follow each other.
    #[inline(always)]
    pub(crate) fn load_warp(&self, offset: u64, out: &mut [u32; 32]) {
        if offset.is_multiple_of(8) {
            for (pair, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let value = self.load(offset + pair as u64 * 8, 8);
                *out = [value as u32, (value >> 32) as u32];
            }
        } else {
            for (lane, out) in out.iter_mut().enumerate() {
                *out = self.load(offset + lane as u64 * 4, 4) as u32;
            }
        }
    }

    /// Writes 32 words that follow each other.
    #[inline(always)]
    pub(crate) fn store_warp(&self, offset: u64, values: &[u32; 32]) {
        if offset.is_multiple_of(8) {
            for (pair, [low, high]) in values.as_chunks::<2>().0.iter().enumerate() {
                self.store(offset + pair as u64 * 8, 8, u64::from(*low) | u64::from(*high) << 32);
            }
        } else {
            for (lane, value) in values.iter().enumerate() {
                self.store(offset + lane as u64 * 4, 4, u64::from(*value));
            }
        }
    }

    /// Replaces 2, 4 or 8 aligned bytes by a function of them, in one step that no other access comes between; what was there
    /// before.
    #[inline]
    pub(crate) fn update(&self, offset: u64, size: u32, f: impl Fn(u64) -> u64) -> u64 {
        macro_rules! update {
            ($atomic:ty, $int:ty) => {{
                let cell = self.byte::<$atomic>(offset);
                let mut old = cell.load(Relaxed);
                // A relaxed exchange would do for the value; acquire and release keep the emulator's own order of events simple.
                while let Err(seen) = cell.compare_exchange_weak(
                    old,
                    f(old as u64) as $int,
                    std::sync::atomic::Ordering::AcqRel,
                    std::sync::atomic::Ordering::Relaxed,
                ) {
                    old = seen;
                }
                old as u64
            }};
        }
        match size {
            1 => update!(AtomicU8, u8),
            2 => update!(AtomicU16, u16),
            4 => update!(AtomicU32, u32),
            _ => update!(AtomicU64, u64),
        }
    }

    /// Whether the host has written all bytes.
    #[inline(always)]
    pub(crate) fn is_all_defined(&self) -> bool {
        self.all_defined.load(Relaxed)
    }

    /// Whether all of a range was written.
    #[inline(always)]
    pub(crate) fn is_defined(&self, offset: u64, bytes: u64) -> bool {
        let end = offset + bytes;
        (offset..end).step_by(32).all(|at| {
            let step = (end - at).min(32) as u32;
            self.defined(at, step) == super::bits::ones(step)
        })
    }

    /// Which of up to 32 bytes from `offset` were written, the first in bit 0; they may not straddle more than two words of 64.
    #[inline(always)]
    pub(crate) fn defined(&self, offset: u64, count: u32) -> u32 {
        let (word, bit) = (offset as usize / 64, offset % 64);
        let low = self.defined[word].load(Relaxed) >> bit;
        let high = if bit + u64::from(count) > 64 { self.defined[word + 1].load(Relaxed) << (64 - bit) } else { 0 };
        (low | high) as u32 & super::bits::ones(count)
    }

    /// Says which of up to 32 bytes from `offset` are defined from now on.
    #[inline(always)]
    pub(crate) fn set_defined(&self, offset: u64, count: u32, values: u32) {
        let ones = super::bits::ones(count);
        if self.defined(offset, count) == values & ones {
            return;
        }
        let (word, bit) = (offset as usize / 64, offset % 64);
        let put = |word: usize, mask: u64, values: u64| {
            self.defined[word].fetch_or(mask & values, Relaxed);
            self.defined[word].fetch_and(!mask | values, Relaxed);
        };
        put(word, u64::from(ones) << bit, u64::from(values & ones) << bit);
        if bit + u64::from(count) > 64 {
            let shift = 64 - bit;
            put(word + 1, u64::from(ones) >> shift, u64::from(values & ones) >> shift);
        }
    }

    /// Copies the host's bytes in and marks them defined.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let head = (offset.next_multiple_of(8) - offset).min(bytes.len() as u64) as usize;
        let (head, rest) = bytes.split_at(head);
        let (words, tail) = rest.as_chunks::<8>();
        let mut at = offset;
        for (part, size) in [(head, 1), (words.as_flattened(), 8), (tail, 1)] {
            for chunk in part.chunks_exact(size) {
                let mut word = [0; 8];
                word[..size].copy_from_slice(chunk);
                self.store(at, size as u32, u64::from_le_bytes(word));
                at += size as u64;
            }
        }
        self.define(offset, bytes.len() as u64, true);
        if bytes.len() as u64 == self.bytes {
            self.all_defined.store(true, Relaxed);
        }
    }

    /// Copies bytes out to the host.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        while at < offset + bytes.len() as u64 {
            let to = (at - offset) as usize;
            let size = if at.is_multiple_of(8) && bytes.len() - to >= 8 { 8 } else { 1 };
            bytes[to..to + size].copy_from_slice(&self.load(at, size as u32).to_le_bytes()[..size]);
            at += size as u64;
        }
    }

    /// Marks a range written or not written.
    pub(crate) fn define(&self, offset: u64, bytes: u64, defined: bool) {
        if !defined {
            self.all_defined.store(false, Relaxed);
        }
        let values = if defined { !0 } else { 0 };
        let mut at = offset;
        while at < offset + bytes {
            // Whole words of 64 bytes need no care for neighbours.
            if at.is_multiple_of(64) && offset + bytes - at >= 64 {
                self.defined[at as usize / 64].store(if defined { !0 } else { 0 }, Relaxed);
                at += 64;
                continue;
            }
            let count = (offset + bytes - at).min(32).min(64 - at % 64) as u32;
            self.set_defined(at, count, values);
            at += u64::from(count);
        }
    }

    /// First byte of a range that nobody has written.
    pub(crate) fn first_undefined(&self, offset: u64, bytes: u64) -> Option<u64> {
        if self.is_all_defined() {
            return None;
        }
        let end = offset + bytes;
        (offset..end).step_by(32).find_map(|at| {
            let count = (end - at).min(32) as u32;
            let missing = super::bits::ones(count) & !self.defined(at, count);
            (missing != 0).then(|| at + u64::from(missing.trailing_zeros()))
        })
    }

    /// Takes over from another range, or another allocation, which of the bytes are defined.
    pub(crate) fn copy_defined(&self, offset: u64, from: &Self, from_offset: u64, bytes: u64) {
        self.define(offset, bytes, false);
        for at in (0..bytes).step_by(32) {
            let count = (bytes - at).min(32) as u32;
            self.set_defined(offset + at, count, from.defined(from_offset + at, count));
        }
    }
}
