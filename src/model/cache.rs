//! The keys and values of a sequence so far, so that each new token is computed alone.

use crate::cpu::gemm::MatRef;
use crate::ops::attention::{Attention, attend_cached};
use crate::ops::linear::as_matrix;
use crate::tensor::{Recycled, Tensor};
use crate::{Error, Result};

/// Keys and values of one sequence, of each layer, in f32.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
}

/// Those of one layer, in the order of the tokens.
#[derive(Debug)]
pub(super) struct LayerCache {
    /// `[capacity, kv_heads·D]`, rotated already.
    keys: Recycled<f32>,
    /// `[capacity, kv_heads·Dv]`.
    values: Recycled<f32>,
    capacity: usize,
    len: usize,
}

impl Cache {
    /// An empty one for up to `capacity` tokens, whose keys and values have these widths.
    pub(super) fn new(layers: usize, capacity: usize, [k, v]: [usize; 2]) -> Self {
        let layer = |_| LayerCache { keys: Recycled::zeros(capacity * k), values: Recycled::zeros(capacity * v), capacity, len: 0 };
        Self { layers: (0..layers).map(layer).collect() }
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

    /// Adds the keys and values of new tokens, and lets their queries attend to all so far: `q` `[.., T, heads·D]` → its shape
    /// with the values' widths.
    pub fn attend(&mut self, q: &Tensor, k: &Tensor, v: &Tensor, settings: &Attention) -> Result<Tensor> {
        let len = self.len + q.shape().rows();
        if len > self.capacity {
            return Err(Error::Internal(format!("{len} tokens in a cache for {}", self.capacity)));
        }
        for (new, all) in [(k, &mut self.keys), (v, &mut self.values)] {
            let (new, cols) = (as_matrix::<f32>(new)?, new.shape().cols());
            for (r, row) in all[self.len * cols..len * cols].chunks_exact_mut(cols).enumerate() {
                row.copy_from_slice(&new.data[r * new.row_stride..][..cols]);
            }
        }
        self.len = len;
        let (k_cols, v_cols) = (k.shape().cols(), v.shape().cols());
        let keys = MatRef::new(&self.keys[..len * k_cols], len, k_cols);
        let values = MatRef::new(&self.values[..len * v_cols], len, v_cols);
        let heads = [settings.heads, settings.kv_heads];
        let queries = as_matrix::<f32>(q)?;
        let cols = v_cols / settings.kv_heads * settings.heads;
        let mut o = Recycled::stale(q.shape().rows() * cols);
        attend_cached(queries, keys, values, heads, settings.scale, &mut o)?;
        Tensor::from_buffer(q.shape().with_cols(cols), crate::tensor::Buffer::F32(o))
    }
}
