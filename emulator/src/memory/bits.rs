//! A set of byte positions.

/// One bit per byte.
#[derive(Debug, Default, Clone)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// None of `length` positions.
    pub(crate) fn new(length: usize) -> Self {
        Self { words: vec![0; length.div_ceil(64)] }
    }

    /// Bits `at .. at + count` (at most 32), the first in bit 0; positions beyond the end are absent.
    #[inline(always)]
    pub(crate) fn get(&self, at: usize, count: u32) -> u32 {
        let (word, bit) = (at / 64, at % 64);
        let low = self.words.get(word).copied().unwrap_or(0) >> bit;
        let high = if bit == 0 { 0 } else { self.words.get(word + 1).copied().unwrap_or(0) << (64 - bit) };
        (low | high) as u32 & ones(count)
    }

    /// Sets bits `at .. at + count` (at most 32) to those of `values`.
    #[inline(always)]
    pub(crate) fn put(&mut self, at: usize, count: u32, values: u32) {
        let (word, bit) = (at / 64, at % 64);
        let (mask, values) = (u64::from(ones(count)), u64::from(values & ones(count)));
        if let Some(slot) = self.words.get_mut(word) {
            *slot = *slot & !(mask << bit) | values << bit;
        }
        if bit + count as usize > 64
            && let Some(slot) = self.words.get_mut(word + 1)
        {
            let shift = 64 - bit;
            *slot = *slot & !(mask >> shift) | values >> shift;
        }
    }

    /// Whether all of bits `at .. at + count` are set.
    #[inline(always)]
    pub(crate) fn all(&self, at: usize, count: usize) -> bool {
        let end = at + count;
        (at..end).step_by(32).all(|at| {
            let step = (end - at).min(32) as u32;
            self.get(at, step) == ones(step)
        })
    }

    /// Sets bits `at .. at + count`.
    pub(crate) fn fill(&mut self, at: usize, count: usize) {
        let end = at + count;
        let mut at = at;
        while at < end {
            let step = (end - at).min(32) as u32;
            self.put(at, step, !0);
            at += step as usize;
        }
    }
}

/// The lowest `count` bits.
#[inline(always)]
pub(crate) fn ones(count: u32) -> u32 {
    if count >= 32 { !0 } else { (1 << count) - 1 }
}
