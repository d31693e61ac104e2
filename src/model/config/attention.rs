//! The kinds of attention, and their sizes.

use crate::ops::rope::RopeLayout;

/// How the tokens of a sequence see each other.
#[derive(Debug, Clone, PartialEq)]
pub enum AttentionConfig {
    /// Grouped-query attention; multi-head attention where each query head has keys of its own.
    Gqa(GqaConfig),
    /// Multi-head latent attention.
    Mla(MlaConfig),
}

/// Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245).
#[derive(Debug, Clone, PartialEq)]
pub struct GqaConfig {
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head, D: even.
    pub head_dim: usize,
    /// Whether q and k are normalised per head before the rotation.
    pub qk_norm: bool,
}

impl GqaConfig {
    /// Columns of q, k and v for this many query heads.
    pub fn widths(&self, heads: usize) -> [usize; 3] {
        let kv = self.num_key_value_heads.saturating_mul(self.head_dim);
        [heads.saturating_mul(self.head_dim), kv, kv]
    }
}

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values of all heads come out of one narrow latent vector
/// per token, which is what a cache keeps. A head's query and key are `nope` columns that know no position beside `rope` columns that
/// are rotated.
#[derive(Debug, Clone, PartialEq)]
pub struct MlaConfig {
    /// Width of a low-rank path of the queries; none where they come straight out of the hidden state.
    pub q_lora_rank: Option<usize>,
    /// Width of the latent, r.
    pub kv_lora_rank: usize,
    /// Columns of a head's query and key without position, N.
    pub qk_nope_head_dim: usize,
    /// Columns of a head's query and key that are rotated, R: even.
    pub qk_rope_head_dim: usize,
    /// Columns of a head's values, Dv.
    pub v_head_dim: usize,
    /// Where the rotated part of the keys comes from.
    pub rotary_key: RotaryKey,
    /// Which columns of the rotated part turn together.
    pub rope_layout: RopeLayout,
    /// Added to the mean square in the norms of the latents.
    pub latent_norm_eps: f64,
}

/// The rotated part of the keys of latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryKey {
    /// One for all heads, straight out of the hidden state: DeepSeek-V2 and -V3.
    Shared,
    /// One for each head, out of the latent: the study notes' decoder.
    PerHead,
}

impl MlaConfig {
    /// Columns of a head's query and key, N + R.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Rotated keys of a token, for this many heads.
    pub fn rotary_heads(&self, heads: usize) -> usize {
        match self.rotary_key {
            RotaryKey::Shared => 1,
            RotaryKey::PerHead => heads,
        }
    }
}
