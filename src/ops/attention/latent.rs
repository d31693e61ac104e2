//! Latent attention behind a cache, the projections out of the latent absorbed (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
//!
//! A cached token is its latent c `[r]` and the rotated part kʳ of its keys. With head h's projections `Wk [N, r]`, `Wv [Dv, r]` and
//! a query `qⁿ ‖ qʳ`: the scores are `scale·((qⁿ·Wk)·c_j + qʳ·kʳ_j)`, and the output `(Σ_j p_j·c_j)·Wvᵀ`. Neither keys nor values
//! are ever written out; all heads read the same latents, once.

use rayon::prelude::*;

use super::cached::weigh;
use super::tiles::row_pitch;
use crate::cpu::gemm::{MatMut, MatRef, matmul};
use crate::{Error, Result};

/// The queries of new tokens, `[new, heads·(N + R)]`, the last R columns of each head rotated.
#[derive(Debug, Clone, Copy)]
pub struct LatentQueries<'a> {
    /// The queries; rows may have gaps.
    pub q: MatRef<'a, f32>,
    /// Heads.
    pub heads: usize,
    /// N.
    pub nope: usize,
    /// Multiplies the scores.
    pub scale: f64,
}

/// A projection out of the latent by heads: head h's is rows `first + h·stride ..` of `all` `[.., r]`, `rows` of them.
#[derive(Debug, Clone, Copy)]
pub struct HeadRows<'a> {
    /// All rows of the matrix, without gaps.
    pub all: MatRef<'a, f32>,
    /// The first row of head 0.
    pub first: usize,
    /// From one head's first row to the next one's.
    pub stride: usize,
    /// Rows of a head.
    pub rows: usize,
}

impl<'a> HeadRows<'a> {
    fn of(&self, head: usize) -> MatRef<'a, f32> {
        let cols = self.all.cols;
        MatRef::new(&self.all.data[(self.first + head * self.stride) * cols..], self.rows, cols)
    }

    fn fits(&self, heads: usize, rank: usize) -> bool {
        heads > 0 && self.all.cols == rank && self.first + (heads - 1) * self.stride + self.rows <= self.all.rows
    }

    /// Every head's projection of `latents` `[new, r]`: `out` `[new, heads·rows]`, head by head.
    ///
    /// An error where sizes do not fit.
    pub fn project(&self, latents: MatRef<f32>, heads: usize, out: &mut [f32]) -> Result<()> {
        let cols = heads * self.rows;
        if !self.fits(heads, latents.cols) || out.len() != latents.rows * cols {
            return Err(misfit("a projection", latents, self.all, heads));
        }
        for head in 0..heads {
            let Some(out) = out.get_mut(head * self.rows..) else { continue };
            matmul(MatMut::with_pitch(out, latents.rows, self.rows, cols), 1.0, latents, self.of(head).t(), false, true);
        }
        Ok(())
    }
}

fn misfit(what: &str, a: MatRef<f32>, b: MatRef<f32>, heads: usize) -> Error {
    let (a_rows, a_cols, b_rows, b_cols) = (a.rows, a.cols, b.rows, b.cols);
    Error::config(format!("latent attention: {what} of [{a_rows}, {a_cols}] and [{b_rows}, {b_cols}] does not fit {heads} heads"))
}

/// Rows of scores, one for each head of a token, that one task holds at most.
const ROWS: usize = 128;
/// A step that reads fewer elements of the cache is over before other threads wake up.
const WORTH_THREADS: usize = 256 * 1024;

/// The last `queries.q.rows` tokens of one sequence attend to all of its tokens, each to those at or before itself.
///
/// `latents` `[past + new, r]`; `rotary_keys` `[past + new, R]`, one for all heads, or `[past + new, heads·R]`; `k_up` of N rows a
/// head and `v_up` of Dv. `o` `[new, heads·Dv]` is overwritten.
///
/// An error where sizes do not fit.
pub fn attend_latent(
    queries: LatentQueries,
    latents: MatRef<f32>,
    rotary_keys: MatRef<f32>,
    k_up: HeadRows,
    v_up: HeadRows,
    o: &mut [f32],
) -> Result<()> {
    let LatentQueries { q, heads, nope, .. } = queries;
    let cols = heads * v_up.rows;
    let rope = if heads > 0 && q.cols.is_multiple_of(heads) { (q.cols / heads).saturating_sub(nope) } else { 0 };
    let fits = rope > 0
        && q.rows > 0
        && latents.rows >= q.rows
        && rotary_keys.rows == latents.rows
        && (rotary_keys.cols == rope || rotary_keys.cols == heads * rope)
        && k_up.rows == nope
        && k_up.fits(heads, latents.cols)
        && v_up.fits(heads, latents.cols)
        && o.len() == q.rows * cols;
    if !fits {
        return Err(misfit("a cache", latents, rotary_keys, heads));
    }
    let problem = Problem { queries, rope, latents, rotary_keys, k_up, v_up };
    let tokens = (ROWS / heads).max(1);
    if q.rows <= tokens {
        problem.attend(0..q.rows, o, latents.rows * (latents.cols + rotary_keys.cols) >= WORTH_THREADS);
    } else {
        o.par_chunks_mut(tokens * cols).enumerate().for_each(|(i, o)| {
            problem.attend(i * tokens..(i * tokens + tokens).min(q.rows), o, false);
        });
    }
    Ok(())
}

struct Problem<'a> {
    queries: LatentQueries<'a>,
    rope: usize,
    latents: MatRef<'a, f32>,
    rotary_keys: MatRef<'a, f32>,
    k_up: HeadRows<'a>,
    v_up: HeadRows<'a>,
}

impl Problem<'_> {
    /// Some of the new tokens, `o` `[tokens, heads·Dv]`. Rows of the arrays in between are those tokens of head 0, then of head 1 …
    fn attend(&self, tokens: std::ops::Range<usize>, o: &mut [f32], parallel: bool) {
        let LatentQueries { q, heads, nope, scale } = self.queries;
        let (new, rank, rope, scale) = (tokens.len(), self.latents.cols, self.rope, scale as f32);
        let seen = self.latents.rows - q.rows + tokens.end;
        let latents = MatRef { rows: seen, ..self.latents };
        let part = |head: usize, column: usize, cols: usize| {
            let data = &q.data[tokens.start * q.row_stride + head * (nope + rope) + column..];
            MatRef::with_pitch(data, new, cols, q.row_stride)
        };
        let mut absorbed = vec![0.0; heads * new * rank];
        for (head, absorbed) in absorbed.chunks_exact_mut(new * rank).enumerate() {
            matmul(MatMut::new(absorbed, new, rank), 1.0, part(head, 0, nope), self.k_up.of(head), false, parallel);
        }

        let pitch = row_pitch(seen);
        let mut scores = vec![f32::NEG_INFINITY; heads * new * pitch];
        let all = MatMut::with_pitch(&mut scores, heads * new, seen, pitch);
        matmul(all, scale, MatRef::new(&absorbed, heads * new, rank), latents.t(), false, parallel);
        let key_heads = self.rotary_keys.cols / rope;
        for (head, scores) in scores.chunks_exact_mut(new * pitch).enumerate() {
            let data = &self.rotary_keys.data[if key_heads == 1 { 0 } else { head * rope }..];
            let keys = MatRef::with_pitch(data, seen, rope, self.rotary_keys.row_stride);
            let scores = MatMut::with_pitch(scores, new, seen, pitch);
            matmul(scores, scale, part(head, nope, rope), keys.t(), true, parallel);
        }
        for (i, row) in scores.chunks_exact_mut(pitch).enumerate() {
            row[seen - new + i % new + 1..].fill(f32::NEG_INFINITY);
        }
        let (mut max, mut sum) = (vec![0.0; heads * new], vec![0.0; heads * new]);
        weigh(&mut scores, &mut max, &mut sum);

        let weights = MatRef::with_pitch(&scores, heads * new, seen, pitch);
        matmul(MatMut::new(&mut absorbed, heads * new, rank), 1.0, weights, latents, false, parallel);
        absorbed.chunks_exact_mut(rank).zip(&sum).for_each(|(row, &sum)| row.iter_mut().for_each(|x| *x /= sum));
        let value = self.v_up.rows;
        for (head, absorbed) in absorbed.chunks_exact(new * rank).enumerate() {
            let o = MatMut::with_pitch(&mut o[head * value..], new, value, heads * value);
            matmul(o, 1.0, MatRef::new(absorbed, new, rank), self.v_up.of(head).t(), false, parallel);
        }
    }
}
