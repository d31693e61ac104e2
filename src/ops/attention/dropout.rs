//! Dropout of attention probabilities: which ones, as a pure function of sample, head, query and key.
//!
//! The counter's layout, the same in the kernels: under the generator `philox.stream(sample id)`, the block at counter
//! `[16·(key / 64) + key mod 16, query, head, 0]` holds in its word number `(key / 16) mod 4` the key's random bits, and the key is
//! kept where they are at least `p·2³²`. `query` and `key` are indices in the row. The four words of a block serve keys that are
//! 16 apart: 16 blocks give 64 neighbouring keys in vector order here, and the accumulators of a tensor-core product, whose
//! columns repeat every 8, use all the words that they ask for.

use std::ops::Range;

use crate::cpu::vectorized;
use crate::ops::dropout::DropoutMask;
use crate::rng::Philox;
use crate::tensor::Float;
use crate::{Error, Result};

/// Keys that 16 blocks serve.
const SPAN: usize = 64;

impl DropoutMask {
    pub(super) fn check(&self, batch: usize) -> Result<()> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::config(format!("dropout must be at least 0 and less than 1, got {}", self.p)));
        }
        if self.sample_ids.len() != batch {
            return Err(Error::config(format!("attention: {} sample ids for a batch of {batch}", self.sample_ids.len())));
        }
        Ok(())
    }

    /// What the probability of `key` for `query` is multiplied by, in sequence `b`: 0 or `1/(1−p)`.
    pub fn factor(&self, b: usize, head: usize, query: usize, key: usize) -> f64 {
        let counter = [(key / SPAN * 16 + key % 16) as u32, query as u32, head as u32, 0];
        let bits = self.philox.stream(self.sample_ids[b]).block(counter)[key / 16 % 4];
        if u64::from(bits) >= self.threshold() { 1.0 / (1.0 - self.p) } else { 0.0 }
    }

    /// The factors of a range of keys.
    pub(super) fn factors<F: Float>(&self, b: usize, head: usize, query: usize, keys: Range<usize>, factors: &mut [F]) {
        let sample = self.philox.stream(self.sample_ids[b]);
        let row = Row { sample, head: head as u32, query: query as u32, threshold: self.threshold() };
        row_factors(row, keys, F::of(1.0 / (1.0 - self.p)), factors);
    }

    fn threshold(&self) -> u64 {
        (self.p * 4_294_967_296.0).round() as u64
    }
}

/// What the keys of one row have in common.
struct Row {
    sample: Philox,
    head: u32,
    query: u32,
    threshold: u64,
}

vectorized! {
    fn row_factors<F: Float>(row: Row, keys: Range<usize>, kept: F, factors: &mut [F]) {
        for span in keys.start / SPAN..keys.end.div_ceil(SPAN) {
            let mut bits = [0u32; SPAN];
            for lane in 0..16 {
                let words = row.sample.block([(span * 16 + lane) as u32, row.query, row.head, 0]);
                for (j, word) in words.into_iter().enumerate() {
                    bits[j * 16 + lane] = word;
                }
            }
            let (from, to) = (keys.start.max(span * SPAN), keys.end.min((span + 1) * SPAN));
            let factors = &mut factors[from - keys.start..to - keys.start];
            for (factor, &bits) in factors.iter_mut().zip(&bits[from - span * SPAN..]) {
                *factor = if u64::from(bits) >= row.threshold { kept } else { F::of(0.0) };
            }
        }
    }
}
