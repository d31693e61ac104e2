//! Causal softmax attention with grouped queries: `o = softmax(scale · q·kᵀ)·v` for each head, over the keys at or before each
//! query; query head n reads key and value head `n / (heads/kv_heads)`.
//!
//! Computed in tiles with an online softmax (Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691), so that no T×T matrix
//! exists: beside o only `lse = ln Σ_j exp(s_ij)` is kept for each row. Backward computes each tile of `P = exp(S − lse)` again:
//! `δ = rowsum(dO ⊙ O)`, `dV = Pᵀ·dO`, `dP = dO·Vᵀ`, `dS = P ⊙ (dP − δ)`, `dQ = scale·dS·K`, `dK = scale·dSᵀ·Q`; under dropout P
//! stands for `P ⊙ keep/(1−p)` in the first and dP for `dP ⊙ keep/(1−p)` in the fourth. Saved: q, k, v, o, lse.
//! Bound by arithmetic: for each pair of query and key 2·(D + Dv) operations forward, 2·(3·D + 2·Dv) backward.

mod backward;
mod cached;
pub mod cases;
pub mod decode;
pub mod documents;
mod dropout;
mod forward;
pub mod kernel;
mod latent;
pub mod reference;
mod tiles;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::dropout::DropoutMask;
use super::{inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Element, Float, Recycled, Tensor};
use crate::{Error, Result, with_float};

pub use cached::attend_cached;
pub use latent::{HeadRows, LatentQueries, attend_latent};
use tiles::{Heads, Problem};

/// Sizes and masks of one attention, which is also the operation.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Sequences, B.
    pub batch: usize,
    /// Tokens of each, T.
    pub seq_len: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Multiplies the scores: `1/√D` as a rule.
    pub scale: f64,
    /// The first token, in its row, of the document that each token belongs to `[B·T]`: queries look back no further.
    pub document_starts: Option<Arc<[i32]>>,
    /// 0 where a token is padding `[B·T]`, which no query attends to. A query without any key left gives zeros.
    pub attention_mask: Option<Arc<[i32]>>,
    /// Dropout of the probabilities.
    pub dropout: Option<DropoutMask>,
}

impl Attention {
    /// Scale `1/√D` for heads of `head_dim` columns; one document a row, no padding, no dropout.
    pub fn new(batch: usize, seq_len: usize, heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let scale = 1.0 / (head_dim as f64).sqrt();
        Self { batch, seq_len, heads, kv_heads, scale, document_starts: None, attention_mask: None, dropout: None }
    }
}

/// `q` `[B·T, heads·D]`, `k` `[B·T, kv_heads·D]`, `v` `[B·T, kv_heads·Dv]` (rows may have gaps; outer extents may be apart, as
/// in `[B, T, heads·D]`) → `[B·T, heads·Dv]`.
///
/// An error that names the argument where sizes do not fit, or a document begins after its token.
pub fn attention(tape: &mut Tape, q: &Var, k: &Var, v: &Var, attention: Attention) -> Result<Var> {
    tape.apply(attention, &[q, k, v])
}

/// What backward needs; `lse` is `[B, kv_heads, T, heads/kv_heads]`.
pub struct Saved {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
}

impl Op for Attention {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, tensors: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [q, k, v] = inputs("attention", tensors)?;
        self.check(q, k, v)?;
        let (o, lse) = with_float!("attention", q.dtype(), F => {
            let problem = self.problem::<F>(q, k, v)?;
            let mut lse = Recycled::stale(q.shape().rows() * self.heads);
            let mut o = Recycled::stale(q.shape().rows() * problem.cols_out());
            forward::forward(&problem, &mut o, &mut lse);
            let o = Tensor::from_buffer(q.shape().with_cols(problem.cols_out()), F::into_buffer(o))?;
            Ok((o, Tensor::from_buffer([lse.len()], F::into_buffer(lse))?))
        })?;
        Ok((vec![o.clone()], Saved { q: q.clone(), k: k.clone(), v: v.clone(), o, lse }))
    }

    fn backward(&self, saved: Saved, output_grads: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(d_o)] = output_grads else { return Ok(()) };
        let Saved { q, k, v, o, lse } = &saved;
        with_float!("attention", q.dtype(), F => {
            let problem = self.problem::<F>(q, k, v)?;
            let given = backward::Given { o: o.data::<F>()?, lse: lse.data::<F>()?, d_o: d_o.data::<F>()? };
            let gradients = backward::backward(&problem, &given);
            for (i, (input, gradient)) in [q, k, v].into_iter().zip(gradients).enumerate() {
                sink.add(i, Tensor::from_buffer(input.shape(), F::into_buffer(gradient))?)?;
            }
            Ok(())
        })
    }
}

impl Attention {
    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
        let (rows, heads, kv_heads) = (self.batch * self.seq_len, self.heads, self.kv_heads);
        if rows == 0 || kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::config(format!(
                "attention: batch {}, seq_len {}, heads {heads}, kv_heads {kv_heads}: none may be zero, and kv_heads divides heads",
                self.batch, self.seq_len
            )));
        }
        let wrong = |name, x: &Tensor, cols: String| Err(shape_error("attention", name, x, format!("[{rows}, {cols}]")));
        let of_heads =
            |x: &Tensor, heads: usize| x.shape().rows() == rows && x.shape().cols() > 0 && x.shape().cols().is_multiple_of(heads);
        if !of_heads(q, heads) {
            return wrong("q", q, format!("{heads}·D"));
        }
        let cols = q.shape().cols() / heads * kv_heads;
        if k.shape().rows() != rows || k.shape().cols() != cols {
            return wrong("k", k, cols.to_string());
        }
        if !of_heads(v, kv_heads) {
            return wrong("v", v, format!("{kv_heads}·Dv"));
        }
        let per_token = [("document_starts", &self.document_starts), ("attention_mask", &self.attention_mask)];
        for (name, values) in per_token {
            if let Some(values) = values.as_ref().filter(|values| values.len() != rows) {
                return Err(Error::config(format!("attention: {name} has {} elements, expected {rows}", values.len())));
            }
        }
        let starts = self.document_starts.iter().flat_map(|starts| starts.iter().enumerate());
        if let Some((at, start)) = starts.map(|(i, &s)| (i % self.seq_len, s)).find(|&(t, s)| s < 0 || s as usize > t) {
            return Err(Error::config(format!("attention: document_starts says {start} for the token at {at}")));
        }
        self.dropout.as_ref().map_or(Ok(()), |dropout| dropout.check(self.batch))
    }

    /// The inputs, which [`Attention::check`] has accepted, as heads of one float type.
    fn problem<'a, F: Float>(&'a self, q: &'a Tensor, k: &'a Tensor, v: &'a Tensor) -> Result<Problem<'a, F>> {
        let heads = |x: &'a Tensor, heads: usize| -> Result<Heads<'a, F>> {
            Ok(Heads { data: x.pitched::<F>()?, pitch: x.pitch(), width: x.shape().cols() / heads })
        };
        Ok(Problem {
            batch: self.batch,
            queries: self.seq_len,
            keys: self.seq_len,
            kv_heads: self.kv_heads,
            group: self.heads / self.kv_heads,
            scale: F::of(self.scale),
            q: heads(q, self.heads)?,
            k: heads(k, self.kv_heads)?,
            v: heads(v, self.kv_heads)?,
            document_starts: self.document_starts.as_deref(),
            attention_mask: self.attention_mask.as_deref(),
            dropout: self.dropout.as_ref(),
        })
    }
}
