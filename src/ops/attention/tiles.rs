//! What forward and backward share: the inputs as heads, blocks of queries, tiles of keys, and masks.

use std::ops::Range;

use crate::cpu::gemm::MatRef;
use crate::ops::dropout::DropoutMask;
use crate::tensor::Float;

/// Query rows of a tile that the products are fast at: tokens of a block times the query heads of a group.
const TILE_ROWS: usize = 128;
/// Most keys of a tile: the scores of a tile stay in the second-level cache.
const TILE_KEYS: usize = 256;

/// Rows of heads: head n of row r is at `data[r · pitch + n · width..]`.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a, F> {
    pub data: &'a [F],
    pub pitch: usize,
    pub width: usize,
}

impl<'a, F: Float> Heads<'a, F> {
    /// `count` neighbouring heads of row `r`.
    pub fn of_row(&self, r: usize, head: usize, count: usize) -> &'a [F] {
        &self.data[r * self.pitch + head * self.width..][..count * self.width]
    }

    /// One head of a range of rows.
    pub fn matrix(&self, rows: Range<usize>, head: usize) -> MatRef<'a, F> {
        let first = rows.start * self.pitch + head * self.width;
        MatRef::with_pitch(&self.data[first..], rows.len(), self.width, self.pitch)
    }
}

/// One attention: B sequences of `queries` rows, the last of `keys` positions.
pub(super) struct Problem<'a, F> {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub kv_heads: usize,
    /// Query heads of a key head.
    pub group: usize,
    pub scale: F,
    pub q: Heads<'a, F>,
    pub k: Heads<'a, F>,
    pub v: Heads<'a, F>,
    pub document_starts: Option<&'a [i32]>,
    pub attention_mask: Option<&'a [i32]>,
    pub dropout: Option<&'a DropoutMask>,
}

/// Tokens of one sequence as seen by one key head: their queries, token by token, are the rows of a tile.
#[derive(Clone)]
pub(super) struct Block {
    pub sequence: usize,
    pub kv_head: usize,
    pub tokens: Range<usize>,
}

impl<F: Float> Problem<'_, F> {
    /// Columns of the output, heads·Dv.
    pub fn cols_out(&self) -> usize {
        self.kv_heads * self.group * self.v.width
    }

    /// Tokens of a block.
    pub fn block_tokens(&self) -> usize {
        (TILE_ROWS / self.group).clamp(16, 128)
    }

    /// Elements of the largest tile of scores.
    pub fn tile_len(&self) -> usize {
        self.block_tokens().min(self.queries) * self.group * row_pitch(TILE_KEYS.min(self.keys))
    }

    /// The position of a query among the keys.
    fn position(&self, token: usize) -> usize {
        self.keys - self.queries + token
    }

    /// The first key of a token's document.
    fn first_key(&self, sequence: usize, token: usize) -> usize {
        self.document_starts.map_or(0, |starts| starts[sequence * self.queries + token] as usize)
    }

    /// The keys that any token of the block can see.
    pub fn keys_of(&self, block: &Block) -> Range<usize> {
        let first = block.tokens.clone().map(|token| self.first_key(block.sequence, token)).min();
        first.unwrap_or(0)..self.position(block.tokens.end)
    }

    /// The same in tiles of nearly one size.
    pub fn tiles_of(&self, block: &Block) -> impl Iterator<Item = Range<usize>> + use<F> {
        let keys = self.keys_of(block);
        let count = keys.len().div_ceil(TILE_KEYS).max(1);
        let size = row_pitch(keys.len().div_ceil(count));
        keys.clone().step_by(size.max(1)).map(move |start| start..(start + size).min(keys.end))
    }

    /// The rows of k and v that hold a range of keys.
    pub fn key_rows(&self, sequence: usize, keys: &Range<usize>) -> Range<usize> {
        sequence * self.keys + keys.start..sequence * self.keys + keys.end
    }

    /// The block's heads of `x`, a head for each query head, side by side: `[tokens · group, width]`.
    pub fn pack(&self, block: &Block, x: Heads<F>, packed: &mut [F]) {
        let width = self.group * x.width;
        for (token, packed) in block.tokens.clone().zip(packed.chunks_exact_mut(width)) {
            let row = block.sequence * self.queries + token;
            packed.copy_from_slice(x.of_row(row, block.kv_head * self.group, self.group));
        }
    }

    /// The block's queries, scaled.
    pub fn pack_queries(&self, block: &Block, packed: &mut [F]) {
        self.pack(block, self.q, packed);
        packed.iter_mut().for_each(|q| *q *= self.scale);
    }

    /// Sets to −∞ the scores of a tile, rows of [`row_pitch`], that a mask forbids or that are beyond the tile's keys.
    pub fn mask(&self, block: &Block, keys: &Range<usize>, scores: &mut [F]) {
        let forbidden = F::neg_infinity();
        let padding = self.attention_mask.map(|mask| &mask[self.key_rows(block.sequence, keys)]);
        let pitch = row_pitch(keys.len());
        for (token, rows) in block.tokens.clone().zip(scores.chunks_exact_mut(self.group * pitch)) {
            let from = self.first_key(block.sequence, token).clamp(keys.start, keys.end) - keys.start;
            let to = (self.position(token) + 1).clamp(keys.start, keys.end) - keys.start;
            for row in rows.chunks_exact_mut(pitch) {
                row[..from].fill(forbidden);
                row[to.max(from)..].fill(forbidden);
                if let Some(padding) = padding {
                    row.iter_mut().zip(padding).filter(|(_, real)| **real == 0).for_each(|(s, _)| *s = forbidden);
                }
            }
        }
    }

    /// Dropout's factors of a tile, rows of [`row_pitch`].
    pub fn keep(&self, dropout: &DropoutMask, block: &Block, keys: &Range<usize>, factors: &mut [F]) {
        let pitch = row_pitch(keys.len());
        for (row, factors) in factors.chunks_exact_mut(pitch).enumerate() {
            let (token, head) = (block.tokens.start + row / self.group, block.kv_head * self.group + row % self.group);
            dropout.factors(block.sequence, head, token, keys.start..keys.start + pitch, factors);
        }
    }
}

/// Deals the rows of a `[B·T, kv_heads·width]` matrix out to blocks: for each sequence, each run of `tokens` rows and each key
/// head, the rows' windows. In the order of [`blocks`].
pub(super) fn windows<F>(data: &mut [F], seq_len: usize, tokens: usize, kv_heads: usize, width: usize) -> Vec<Vec<&mut [F]>> {
    let cols = kv_heads * width;
    let mut dealt = Vec::new();
    for run in data.chunks_exact_mut(seq_len * cols).flat_map(|sequence| sequence.chunks_mut(tokens * cols)) {
        let first = dealt.len();
        dealt.extend((0..kv_heads).map(|_| Vec::with_capacity(tokens)));
        for row in run.chunks_exact_mut(cols) {
            for (of_head, window) in dealt[first..].iter_mut().zip(row.chunks_exact_mut(width)) {
                of_head.push(window);
            }
        }
    }
    dealt
}

/// Every run of `tokens` tokens of every sequence and key head: sequence by sequence, run by run, head by head.
pub(super) fn blocks(batch: usize, seq_len: usize, tokens: usize, kv_heads: usize) -> impl Iterator<Item = Block> {
    (0..batch).flat_map(move |sequence| {
        (0..seq_len).step_by(tokens).flat_map(move |start| {
            let tokens = start..(start + tokens).min(seq_len);
            (0..kv_heads).map(move |kv_head| Block { sequence, kv_head, tokens: tokens.clone() })
        })
    })
}

/// Partial results that a reduction keeps, so that it vectorises.
const LANES: usize = 32;

/// Elements between the rows of a tile of `keys` columns: whole vectors, as what is left over costs as much as all the rest.
pub(super) fn row_pitch(keys: usize) -> usize {
    keys.next_multiple_of(LANES)
}

/// Combines partial results, half with half: short chains that vectorise.
#[inline(always)]
fn fold_lanes<F: Float>(mut lanes: [F; LANES], combine: impl Fn(F, F) -> F) -> F {
    for half in [16, 8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] = combine(lanes[l], lanes[l + half]);
        }
    }
    lanes[0]
}

/// The larger of two; `a` where `b` is not a number.
#[inline(always)]
pub(super) fn larger<F: Float>(a: F, b: F) -> F {
    if b > a { b } else { a }
}

/// The largest element of a row of [`row_pitch`].
#[inline(always)]
pub(super) fn largest<F: Float>(row: &[F]) -> F {
    let mut lanes = [F::neg_infinity(); LANES];
    for chunk in row.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], chunk[l]);
        }
    }
    fold_lanes(lanes, larger)
}

/// Replaces each element of a row of [`row_pitch`] by `e^(x − shift)`, and returns their sum.
#[inline(always)]
pub(super) fn exponentials<F: Float>(row: &mut [F], shift: F) -> F {
    let mut lanes = [F::of(0.0); LANES];
    for chunk in row.as_chunks_mut::<LANES>().0 {
        for l in 0..LANES {
            chunk[l] = (chunk[l] - shift).exp_lane();
            lanes[l] += chunk[l];
        }
    }
    fold_lanes(lanes, |a, b| a + b)
}
