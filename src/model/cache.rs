//! What is kept of a sequence so far, so that each new token is computed alone.

use crate::cpu::gemm::MatRef;
use crate::ops::linear::as_matrix;
use crate::tensor::{Recycled, Tensor};
use crate::{Error, Result};

/// What attention needs of the tokens of one sequence, of each layer, in f32.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
}

/// That of one layer, in the order of the tokens.
#[derive(Debug)]
pub(super) struct LayerCache {
    /// Rotated keys and values, or the latents and their rotated keys.
    rows: [Rows; 2],
    capacity: usize,
    len: usize,
}

/// `[capacity, width]`.
#[derive(Debug)]
struct Rows {
    values: Recycled<f32>,
    width: usize,
}

impl Cache {
    /// An empty one for up to `capacity` tokens, of which these many values are kept in two arrays.
    pub(super) fn new(layers: usize, capacity: usize, widths: [usize; 2]) -> Self {
        let rows = || widths.map(|width| Rows { values: Recycled::zeros(capacity * width), width });
        Self { layers: (0..layers).map(|_| LayerCache { rows: rows(), capacity, len: 0 }).collect() }
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Whether it holds nothing yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn layer(&mut self, l: usize) -> &mut LayerCache {
        &mut self.layers[l]
    }
}

impl LayerCache {
    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds what is kept of new tokens, `[.., T, width]` each.
    pub fn append(&mut self, new: [&Tensor; 2]) -> Result<()> {
        let len = self.len + new[0].shape().rows();
        if len > self.capacity {
            return Err(Error::Internal(format!("{len} tokens in a cache for {}", self.capacity)));
        }
        for (new, Rows { values, width }) in new.into_iter().zip(&mut self.rows) {
            let new = as_matrix::<f32>(new)?;
            for (r, row) in values[self.len * *width..len * *width].chunks_exact_mut(*width).enumerate() {
                row.copy_from_slice(&new.data[r * new.row_stride..][..*width]);
            }
        }
        self.len = len;
        Ok(())
    }

    /// Both arrays as they are so far, `[len, width]`.
    pub fn rows(&self) -> [MatRef<'_, f32>; 2] {
        [0, 1].map(|i| {
            let Rows { values, width } = &self.rows[i];
            MatRef::new(&values[..self.len * width], self.len, *width)
        })
    }
}
