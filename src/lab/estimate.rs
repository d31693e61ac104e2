//! Memory on paper: what training and generation will take, from the configuration alone.
//!
//! Training on the CPU holds, in f32, the parameters, their gradients and two moments, and from the forward pass what backward needs
//! (activations). A token's activations, by what keeps them:
//!
//! | kept by | values |
//! |---|---|
//! | each norm | its input and its output, 2·H |
//! | grouped queries | the fused q, k, v; q and k rotated; the output; a log-sum-exp a head |
//! | latent attention | what is projected down; the latent after its norm; q, k, v written out; the output; a log-sum-exp a head |
//! | a feed-forward network | gate and up, and their product: 3·I |
//! | experts | scores; for each of the k choices the sorted input, 3·I, the output and its weight |
//!
//! Above them at the peak, which is either at the end of the forward pass (the logits of a chunk, the gradients of the head) or in the
//! last layer's backward.

use serde::Serialize;

use crate::model::{AttentionConfig, Model, ModelConfig, MoeConfig, RotaryKey};
use crate::ops::cross_entropy::CHUNK;
use crate::{Error, Result};

/// Bytes of an f32.
const F32: f64 = 4.0;
/// What the program itself takes: its code, a tokenizer, each thread's packed operands. Measured on two threads, 21 to 40 MiB; the
/// embedded stories and the vocabulary that is trained on them take about 40 more.
const PROGRAM: f64 = (34u64 << 20) as f64;

/// What a run will hold, in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    /// Trained parameters, their number.
    pub parameters: usize,
    /// Parameters of which a token uses: with experts, those that it is sent to.
    pub active_parameters: usize,
    /// The parameters.
    pub weights: f64,
    /// Their gradients.
    pub gradients: f64,
    /// The optimizer's two moments.
    pub optimizer: f64,
    /// What backward needs of a batch.
    pub activations: f64,
    /// What exists for a moment at the peak.
    pub transient: f64,
    /// The program, whatever the model.
    pub program: f64,
    /// All of it: what a process that trains holds at its peak.
    pub training: f64,
    /// The cache of keys and values.
    pub cache: CacheEstimate,
}

/// What generation keeps of each token, in bytes of f32 over all layers.
#[derive(Debug, Clone, Serialize)]
pub struct CacheEstimate {
    /// Of this model.
    pub per_token: f64,
    /// Of the same model with grouped queries, four query heads to a key head.
    pub grouped_per_token: f64,
    /// Of the same model with keys and values for each head.
    pub multi_head_per_token: f64,
    /// Of a sequence as long as was asked for.
    pub sequence: f64,
}

/// Training on `batch_size` rows of `seq_len` tokens at a time, and generation of sequences of `seq_len`.
///
/// An error where the configuration is none, or the batch is empty.
pub fn estimate(config: &ModelConfig, batch_size: usize, seq_len: usize) -> Result<Estimate> {
    if batch_size == 0 || seq_len == 0 {
        return Err(Error::config("batch-size and max-seq-len must be at least 1"));
    }
    let layout = Model::layout(config)?;
    let trained = layout.entries().iter().filter(|entry| entry.trainable);
    let parameters: usize = trained.map(|entry| entry.shape.elements()).sum();
    let tokens = batch_size as f64 * seq_len as f64;
    let weights = F32 * layout.len() as f64;
    let activations = F32 * tokens * activations_per_token(config);
    let transient = F32 * (head(config, tokens)).max(tokens * last_backward_per_token(config));
    Ok(Estimate {
        parameters,
        active_parameters: parameters - idle_parameters(config),
        weights,
        gradients: weights,
        optimizer: 2.0 * weights,
        activations,
        transient,
        program: PROGRAM,
        training: 4.0 * weights + activations + transient + PROGRAM,
        cache: cache(config, seq_len),
    })
}

/// Parameters of the experts that a token is not sent to.
fn idle_parameters(config: &ModelConfig) -> usize {
    let expert = |moe: &MoeConfig| 3 * config.hidden_size * moe.intermediate_size;
    let layers = (0..config.num_hidden_layers).filter_map(|layer| config.experts_of(layer));
    layers.map(|moe| (moe.num_experts - moe.router.top_k) * expert(moe)).sum()
}

fn activations_per_token(config: &ModelConfig) -> f64 {
    let norms = 2 * config.num_hidden_layers + 1;
    let layers: usize = (0..config.num_hidden_layers).map(|layer| attention(config) + feed_forward(config, layer)).sum();
    (norms * (2 * config.hidden_size + 1) + layers) as f64
}

/// Values that attention keeps of a token.
fn attention(config: &ModelConfig) -> usize {
    let heads = config.num_attention_heads;
    match &config.attention {
        AttentionConfig::Gqa(gqa) => {
            let [q, k, v] = gqa.widths(heads);
            let norms = if gqa.qk_norm { heads + gqa.num_key_value_heads } else { 0 };
            (q + k + v) + (q + k) + q + heads + norms
        }
        AttentionConfig::Mla(mla) => {
            let (width, rope, value) = (mla.qk_head_dim(), mla.qk_rope_head_dim, mla.v_head_dim);
            let (down, values) = match mla.rotary_key {
                RotaryKey::Shared => (mla.q_lora_rank.unwrap_or(heads * width) + mla.kv_lora_rank + rope, heads * value),
                // The values are a part of what was projected up, which stays as a whole.
                RotaryKey::PerHead => (heads * width + mla.kv_lora_rank, heads * (width + value)),
            };
            let low_rank_queries = mla.q_lora_rank.map_or(0, |rank| rank + 1);
            down + low_rank_queries + mla.kv_lora_rank + 1 + 2 * heads * width + values + heads * value + heads
        }
    }
}

/// Values that a layer's feed-forward network keeps of a token.
fn feed_forward(config: &ModelConfig, layer: usize) -> usize {
    match config.experts_of(layer) {
        None => 3 * config.intermediate_size,
        Some(moe) => {
            let (k, inner) = (moe.router.top_k, moe.intermediate_size);
            // Choices and the two orders are integers of the same size.
            let chosen = k * (2 * config.hidden_size + 3 * inner + 4);
            moe.num_experts + chosen + 3 * moe.num_shared_experts * inner
        }
    }
}

/// The loss: a chunk's logits and rows, and the gradients of the head and of what enters it.
fn head(config: &ModelConfig, tokens: f64) -> f64 {
    let (h, v) = (config.hidden_size as f64, config.vocab_size as f64);
    CHUNK as f64 * (v + h) + h * v + h * tokens
}

/// The last layer's feed-forward network walked back: the gradients of its output, of what is inside it and of gate and up, less what
/// is free by then.
fn last_backward_per_token(config: &ModelConfig) -> f64 {
    let layer = config.num_hidden_layers - 1;
    let inner = match config.experts_of(layer) {
        None => config.intermediate_size,
        Some(moe) => moe.router.top_k * moe.intermediate_size,
    };
    (2 * config.hidden_size + 2 * inner) as f64
}

fn cache(config: &ModelConfig, seq_len: usize) -> CacheEstimate {
    let heads = config.num_attention_heads;
    let (head, value) = match &config.attention {
        AttentionConfig::Gqa(gqa) => (gqa.head_dim, gqa.head_dim),
        AttentionConfig::Mla(mla) => (mla.qk_head_dim(), mla.v_head_dim),
    };
    let bytes = |values: usize| F32 * (config.num_hidden_layers * values) as f64;
    let per_token = bytes(config.cache_widths().iter().sum());
    CacheEstimate {
        per_token,
        grouped_per_token: bytes(heads.div_ceil(4) * (head + value)),
        multi_head_per_token: bytes(heads * (head + value)),
        sequence: per_token * seq_len as f64,
    }
}
