//! How the tokens of a sequence see each other: grouped-query attention, and latent attention in its two forms.
//!
//! **Grouped queries**: `q, k, v = x·Wqkvᵀ`, a norm of each head of q and k where the model has it, their rotation, attention, `·Woᵀ`.
//!
//! **Latent**: `c = norm(x·Wcᵀ)` of r columns is all that is kept of a token, beside the rotated part of its keys; `k = c·Wkᵀ` and
//! `v = c·Wvᵀ` for each head. Head h's query is `qⁿ ‖ qʳ`, of which only the second part is rotated, and its key `kⁿ ‖ kʳ`. Written
//! out, keys and values are wide; behind a cache the projections are absorbed instead, as `qⁿ·kⁿ = (qⁿ·Wk)·c` and
//! `Σ p·v = (Σ p·c)·Wvᵀ`: see [`attend_latent`].

use rayon::prelude::*;

use super::cache::LayerCache;
use super::config::{AttentionConfig, GqaConfig, MlaConfig, ModelConfig, RotaryKey};
use super::decoder::{Forward, Model};
use super::weights::{Attention as Weights, Gqa, Mla};
use crate::cpu::gemm::MatRef;
use crate::ops::attention::{Attention, HeadRows, LatentQueries, attend_cached, attend_latent, attention};
use crate::ops::heads::{join_heads, split_heads};
use crate::ops::linear::{as_matrix, linear};
use crate::ops::rmsnorm::rmsnorm;
use crate::ops::rope::{Positions, RopeLayout, rope, rope_tail};
use crate::ops::split::split;
use crate::params::Param;
use crate::tape::{Tape, Var};
use crate::tensor::{Buffer, Recycled, Tensor};
use crate::{Error, Result};

/// Queries, keys and values of latent attention, written out, and what is kept of them.
struct Latent {
    /// `[.., heads·(N + R)]`, rotated.
    q: Var,
    /// After its norm, `[.., r]`.
    latent: Var,
    /// The key of all heads, `[.., R]`, rotated, where there is one.
    shared_key: Option<Var>,
}

impl Model {
    /// `x` `[B, T, H]` → `[B, T, H]`; behind caches, one for each of the B sequences, T tokens are added to each.
    pub(super) fn attention(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        x: &Var,
        forward: &Forward,
        site: u64,
        caches: &mut [&mut LayerCache],
    ) -> Result<Var> {
        let seq_len = forward.seq_len;
        let positions = match &*caches {
            [] => Positions::Consecutive { start: 0, seq_len },
            [cache] => Positions::Consecutive { start: cache.len(), seq_len },
            several => Positions::Explicit(several.iter().flat_map(|c| c.len()..c.len() + seq_len).map(|t| t as i32).collect()),
        };
        match (weights, &self.config().attention) {
            (Weights::Gqa(weights), AttentionConfig::Gqa(gqa)) => self.gqa(tape, weights, gqa, x, positions, forward, site, caches),
            (Weights::Mla(weights), AttentionConfig::Mla(mla)) => self.mla(tape, weights, mla, x, positions, forward, site, caches),
            _ => Err(Error::Internal("attention weights of another kind than the configuration's".into())),
        }
    }

    fn weight(&self, tape: &Tape, param: &Param) -> Var {
        tape.param(self.params(), param)
    }

    #[allow(clippy::too_many_arguments)]
    fn gqa(
        &self,
        tape: &mut Tape,
        weights: &Gqa,
        gqa: &GqaConfig,
        x: &Var,
        positions: Positions,
        forward: &Forward,
        site: u64,
        caches: &mut [&mut LayerCache],
    ) -> Result<Var> {
        let config = self.config();
        let qkv = linear(tape, x, &self.weight(tape, &weights.qkv))?;
        let [mut q, mut k, v] = split(tape, &qkv, gqa.widths(config.num_attention_heads))?;
        if let Some([q_norm, k_norm]) = &weights.qk_norm {
            q = rmsnorm(tape, &q, &self.weight(tape, q_norm), config.rms_norm_eps)?;
            k = rmsnorm(tape, &k, &self.weight(tape, k_norm), config.rms_norm_eps)?;
        }
        q = rope(tape, &q, self.rope(), positions.clone(), RopeLayout::Halves)?;
        k = rope(tape, &k, self.rope(), positions, RopeLayout::Halves)?;
        let settings = Settings { heads: [config.num_attention_heads, gqa.num_key_value_heads], scale: scale(gqa.head_dim) };
        let o = if caches.is_empty() {
            attention(tape, &q, &k, &v, settings.of(config, forward, site))?
        } else {
            append(caches, [k.value(), v.value()])?;
            let cols = settings.heads[0] * v.value().shape().cols() / settings.heads[1];
            attend(caches, q.value(), cols, |q, [keys, values], o| {
                attend_cached(q, keys, values, settings.heads, settings.scale, o)
            })?
        };
        linear(tape, &o, &self.weight(tape, &weights.o))
    }

    #[allow(clippy::too_many_arguments)]
    fn mla(
        &self,
        tape: &mut Tape,
        weights: &Mla,
        mla: &MlaConfig,
        x: &Var,
        positions: Positions,
        forward: &Forward,
        site: u64,
        caches: &mut [&mut LayerCache],
    ) -> Result<Var> {
        let config = self.config();
        let heads = config.num_attention_heads;
        let scale = scale(mla.qk_head_dim());
        let Latent { q, latent, shared_key } = self.latent(tape, weights, mla, x, &positions)?;
        let kv_up = self.weight(tape, &weights.kv_up);
        if !caches.is_empty() {
            let whole = caches.iter().all(|cache| cache.len() == 0) && forward.seq_len > 1;
            let up = kv_up.value().widened::<f32>()?;
            let parts = UpRows::new(mla, heads, MatRef::new(&up, kv_up.value().shape().rows(), kv_up.value().shape().cols()));
            let rotary_key = match (&shared_key, parts.rope) {
                (None, Some(rope_rows)) => {
                    let like = (latent.value(), heads * rope_rows.rows);
                    let keys = off_tape(like.0, like.1, |out| rope_rows.project(as_matrix(latent.value())?, heads, out))?;
                    rope(tape, &keys, self.rope(), positions.clone(), mla.rope_layout)?
                }
                (Some(key), _) => key.clone(),
                (None, None) => return Err(Error::Internal("latent attention without rotated keys".into())),
            };
            append(caches, [latent.value(), rotary_key.value()])?;
            if !whole {
                let o = attend(caches, q.value(), heads * mla.v_head_dim, |q, [latents, rotary_keys], o| {
                    let queries = LatentQueries { q, heads, nope: mla.qk_nope_head_dim, scale };
                    attend_latent(queries, latents, rotary_keys, parts.k, parts.v, o)
                })?;
                return linear(tape, &o, &self.weight(tape, &weights.o));
            }
        }
        let kv = linear(tape, &latent, &kv_up)?;
        let (k, v) = match &shared_key {
            Some(key) => {
                let [k, v] = split_heads(tape, &kv, heads, [mla.qk_nope_head_dim, mla.v_head_dim])?;
                (join_heads(tape, &k, key, heads, 1)?, v)
            }
            None => {
                let [k, v] = split(tape, &kv, [heads * mla.qk_head_dim(), heads * mla.v_head_dim])?;
                (rope_tail(tape, &k, self.rope(), positions, mla.rope_layout, mla.qk_head_dim())?, v)
            }
        };
        let settings = Settings { heads: [heads, heads], scale };
        let o = attention(tape, &q, &k, &v, settings.of(config, forward, site))?;
        linear(tape, &o, &self.weight(tape, &weights.o))
    }

    /// The queries of latent attention, and what is kept of each token.
    fn latent(&self, tape: &mut Tape, weights: &Mla, mla: &MlaConfig, x: &Var, positions: &Positions) -> Result<Latent> {
        let (heads, rank) = (self.config().num_attention_heads, mla.kv_lora_rank);
        let (nope, rope_dim, width) = (mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.qk_head_dim());
        let rotate =
            |tape: &mut Tape, x: &Var, width: usize| rope_tail(tape, x, self.rope(), positions.clone(), mla.rope_layout, width);
        let down = linear(tape, x, &self.weight(tape, &weights.down))?;
        match mla.rotary_key {
            RotaryKey::Shared => {
                let q_width = mla.q_lora_rank.unwrap_or(heads * width);
                let [mut q, latent, shared_key] = split(tape, &down, [q_width, rank, rope_dim])?;
                if let Some((norm, up)) = &weights.q_up {
                    q = rmsnorm(tape, &q, &self.weight(tape, norm), mla.latent_norm_eps)?;
                    q = linear(tape, &q, &self.weight(tape, up))?;
                }
                let q = rotate(tape, &q, width)?;
                let latent = rmsnorm(tape, &latent, &self.weight(tape, &weights.kv_norm), mla.latent_norm_eps)?;
                Ok(Latent { q, latent, shared_key: Some(rotate(tape, &shared_key, rope_dim)?) })
            }
            RotaryKey::PerHead => {
                let [q_nope, q_rope, latent] = split(tape, &down, [heads * nope, heads * rope_dim, rank])?;
                let q_rope = rotate(tape, &q_rope, rope_dim)?;
                let q = join_heads(tape, &q_nope, &q_rope, heads, heads)?;
                let latent = rmsnorm(tape, &latent, &self.weight(tape, &weights.kv_norm), mla.latent_norm_eps)?;
                Ok(Latent { q, latent, shared_key: None })
            }
        }
    }
}

/// The rows of the projection out of the latent that give keys without position, rotated keys where they come from there, and values.
struct UpRows<'a> {
    k: HeadRows<'a>,
    rope: Option<HeadRows<'a>>,
    v: HeadRows<'a>,
}

impl<'a> UpRows<'a> {
    /// Of `all` `[.., r]`, whose order the weights describe.
    fn new(mla: &MlaConfig, heads: usize, all: MatRef<'a, f32>) -> Self {
        let (nope, rope, value, key) = (mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim, mla.qk_head_dim());
        let rows = |first: usize, stride: usize, rows: usize| HeadRows { all, first, stride, rows };
        match mla.rotary_key {
            RotaryKey::Shared => Self { k: rows(0, nope + value, nope), rope: None, v: rows(nope, nope + value, value) },
            RotaryKey::PerHead => {
                Self { k: rows(0, key, nope), rope: Some(rows(nope, key, rope)), v: rows(heads * key, value, value) }
            }
        }
    }
}

/// Heads, and what multiplies the scores.
struct Settings {
    heads: [usize; 2],
    scale: f64,
}

impl Settings {
    /// With the masks of a pass, and the dropout of a training step.
    fn of(self, config: &ModelConfig, forward: &Forward, site: u64) -> Attention {
        let [heads, kv_heads] = self.heads;
        let random = forward.dropout.as_ref().filter(|_| config.dropout > 0.0);
        Attention {
            scale: self.scale,
            document_starts: forward.document_starts.clone(),
            attention_mask: forward.attention_mask.clone(),
            dropout: random.map(|random| random.mask(config.dropout, site)),
            ..Attention::new(forward.rows, forward.seq_len, heads, kv_heads, 1)
        }
    }
}

fn scale(head_dim: usize) -> f64 {
    1.0 / (head_dim as f64).sqrt()
}

/// Adds what is kept of new tokens, `[B, T, width]` each, to the caches of B sequences.
fn append(caches: &mut [&mut LayerCache], kept: [&Tensor; 2]) -> Result<()> {
    let tokens = kept[0].shape().rows() / caches.len();
    for (i, cache) in caches.iter_mut().enumerate() {
        let [a, b] = kept.map(|kept| kept.row_range(i * tokens, tokens));
        cache.append([&a?, &b?])?;
    }
    Ok(())
}

/// What `attend` writes, in `cols` columns, for the queries `q` `[B, T, ..]` of B sequences, each given its own and its cache's rows.
fn attend(
    caches: &[&mut LayerCache],
    q: &Tensor,
    cols: usize,
    attend: impl Fn(MatRef<f32>, [MatRef<f32>; 2], &mut [f32]) -> Result<()> + Sync,
) -> Result<Var> {
    let tokens = q.shape().rows() / caches.len();
    off_tape(q, cols, |o| {
        let sequences = o.par_chunks_exact_mut((tokens * cols).max(1)).zip(caches).enumerate();
        sequences.try_for_each(|(i, (o, cache))| attend(as_matrix(&q.row_range(i * tokens, tokens)?)?, cache.rows(), o))
    })
}

/// What `compute` writes for the rows of `like`, in `cols` columns.
fn off_tape(like: &Tensor, cols: usize, compute: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Var> {
    let mut o = Recycled::stale(like.shape().rows() * cols);
    compute(&mut o)?;
    Ok(Tensor::from_buffer(like.shape().with_cols(cols), Buffer::F32(o))?.into())
}
