//! What a model is made of, whatever its family calls it.

mod attention;
mod lines;
mod preset;

use crate::ops::gated::Activation;
use crate::ops::moe::{AuxLoss, RouterConfig, Scoring, WeightRule};
use crate::ops::rope::{RopeLayout, RopeScaling};
use crate::{Error, Result};

pub use attention::{AttentionConfig, GqaConfig, MlaConfig, RotaryKey};
pub(crate) use lines::DEEPSEEK_LATENT_EPS;
pub use preset::Preset;

/// The published line that a model belongs to: decides the form in which it is written, and the names of its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama, and MiniMind-2: a dense one is a Llama.
    Llama,
    /// Qwen3 and Qwen3-MoE, and MiniMind-3, which is one of them.
    Qwen3,
    /// Mixtral.
    Mixtral,
    /// DeepSeek-V3.
    DeepSeekV3,
    /// The study notes' decoder with latent attention, whose `model_type` is `mla`.
    NotesMla,
}

/// The mixture of experts in place of a layer's feed-forward network.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeConfig {
    /// Routed experts, E.
    pub num_experts: usize,
    /// Experts that every token passes through.
    pub num_shared_experts: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// How tokens choose their experts, how these are weighted, and what balances their load.
    pub router: RouterConfig,
    /// Layers whose feed-forward network is dense all the same, ascending.
    pub dense_layers: Vec<usize>,
}

/// What no machine holds: sizes beyond it are a slip of the pen.
const MOST_PARAMETERS: f64 = 1e12;

/// As many tensors has no file.
const MOST_TENSORS: f64 = 1e6;

/// The shape and the settings of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its line.
    pub family: Family,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// How tokens see each other.
    pub attention: AttentionConfig,
    /// Width inside the feed-forward network, I.
    pub intermediate_size: usize,
    /// Entries of the vocabulary, V.
    pub vocab_size: usize,
    /// The longest sequence that positions exist for.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for long sequences.
    pub rope_scaling: RopeScaling,
    /// Added to the mean square in each norm.
    pub rms_norm_eps: f64,
    /// Activation of the gate.
    pub hidden_act: Activation,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Probability of dropout, in training.
    pub dropout: f64,
    /// Mixture of experts.
    pub moe: Option<MoeConfig>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text.
    pub eos_token_id: Option<u32>,
    /// The token that fills a row.
    pub pad_token_id: Option<u32>,
}

impl ModelConfig {
    /// MiniMind-2 at its published defaults, of any width and depth.
    pub fn minimind2(hidden_size: usize, num_hidden_layers: usize, vocab_size: usize) -> Self {
        let num_attention_heads = 8;
        Self {
            family: Family::Llama,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            attention: AttentionConfig::Gqa(GqaConfig {
                num_key_value_heads: 2,
                head_dim: hidden_size / num_attention_heads,
                qk_norm: false,
            }),
            intermediate_size: (hidden_size.saturating_mul(8) / 3).div_ceil(64) * 64,
            vocab_size,
            max_position_embeddings: 32768,
            rope_theta: 1e6,
            rope_scaling: RopeScaling::Default,
            rms_norm_eps: 1e-5,
            hidden_act: Activation::Silu,
            tie_word_embeddings: true,
            dropout: 0.0,
            moe: None,
            bos_token_id: Some(1),
            eos_token_id: Some(2),
            pad_token_id: Some(0),
        }
    }

    /// MiniMind-3 at its published defaults, of any width and depth.
    pub fn minimind3(hidden_size: usize, num_hidden_layers: usize, vocab_size: usize) -> Self {
        let second = Self::minimind2(hidden_size, num_hidden_layers, vocab_size);
        let head_dim = hidden_size / second.num_attention_heads;
        Self {
            family: Family::Qwen3,
            attention: AttentionConfig::Gqa(GqaConfig { num_key_value_heads: 4, head_dim, qk_norm: true }),
            intermediate_size: ((hidden_size as f64 * std::f64::consts::PI / 64.0).ceil() * 64.0) as usize,
            rms_norm_eps: 1e-6,
            ..second
        }
    }

    /// A small DeepSeek-V3: latent attention with one rotated key for all heads, dense feed-forward networks.
    pub fn deepseek_v3(hidden_size: usize, num_hidden_layers: usize, vocab_size: usize) -> Self {
        let head = hidden_size / 8;
        Self {
            family: Family::DeepSeekV3,
            attention: AttentionConfig::Mla(MlaConfig {
                q_lora_rank: None,
                kv_lora_rank: 2 * head,
                qk_nope_head_dim: head / 2,
                qk_rope_head_dim: (head / 2).next_multiple_of(2),
                v_head_dim: head,
                rotary_key: RotaryKey::Shared,
                rope_layout: RopeLayout::Interleaved,
                latent_norm_eps: DEEPSEEK_LATENT_EPS,
            }),
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            ..Self::minimind2(hidden_size, num_hidden_layers, vocab_size)
        }
    }

    /// The study notes' decoder with latent attention, whose rotated keys come out of the latent, head by head.
    pub fn notes_mla(hidden_size: usize, num_hidden_layers: usize, vocab_size: usize) -> Self {
        let mut config = Self { family: Family::NotesMla, ..Self::deepseek_v3(hidden_size, num_hidden_layers, vocab_size) };
        if let AttentionConfig::Mla(mla) = &mut config.attention {
            mla.rotary_key = RotaryKey::PerHead;
        }
        Self { tie_word_embeddings: false, ..config }
    }

    /// The same model with the mixture of experts of its line. The study notes' decoder has none: [`ModelConfig::validate`] says so.
    pub fn with_experts(mut self) -> Self {
        use {AuxLoss as Loss, WeightRule as Rule};
        let (num_shared_experts, top_k, weights, aux_loss, dense_layers) = match self.family {
            Family::Llama => (1, 2, Rule::NormalisedIfSeveral, Loss::Sequence { alpha: 0.1 }, vec![]),
            Family::Qwen3 => (0, 1, Rule::Normalised, Loss::Switch { coef: 5e-4 }, vec![]),
            Family::Mixtral => (0, 2, Rule::Normalised, Loss::Switch { coef: 1e-3 }, vec![]),
            Family::DeepSeekV3 | Family::NotesMla => (1, 2, Rule::Normalised, Loss::Sequence { alpha: 1e-3 }, vec![0]),
        };
        let intermediate_size = self.intermediate_size;
        let scoring = if self.family == Family::DeepSeekV3 { Scoring::Sigmoid } else { Scoring::Softmax };
        let router = RouterConfig { scoring, ..RouterConfig::softmax(top_k, weights, aux_loss) };
        self.moe = Some(MoeConfig { num_experts: 4, num_shared_experts, intermediate_size, router, dense_layers });
        self
    }

    /// The grouped-query attention, where the model has it.
    pub fn gqa(&self) -> Option<&GqaConfig> {
        match &self.attention {
            AttentionConfig::Gqa(gqa) => Some(gqa),
            AttentionConfig::Mla(_) => None,
        }
    }

    /// What multiplies the scale of the softmax, `1/√D`, besides: DeepSeek-V3's YaRN has a factor of its own.
    pub fn softmax_factor(&self) -> f64 {
        match self.rope_scaling {
            RopeScaling::Yarn(yarn) if self.family == Family::DeepSeekV3 => yarn.softmax_factor(),
            _ => 1.0,
        }
    }

    /// The mixture of experts of a layer; none where its feed-forward network is dense.
    pub fn experts_of(&self, layer: usize) -> Option<&MoeConfig> {
        self.moe.as_ref().filter(|moe| !moe.dense_layers.contains(&layer))
    }

    /// Columns that are rotated: of each head, or of the rotated part of its keys.
    pub fn rotary_dim(&self) -> usize {
        match &self.attention {
            AttentionConfig::Gqa(gqa) => gqa.head_dim,
            AttentionConfig::Mla(mla) => mla.qk_rope_head_dim,
        }
    }

    /// Values that the cache keeps of a token in one layer, in two arrays: keys and values, or the latent and its rotated keys.
    pub fn cache_widths(&self) -> [usize; 2] {
        match &self.attention {
            AttentionConfig::Gqa(gqa) => {
                let [_, k, v] = gqa.widths(self.num_attention_heads);
                [k, v]
            }
            AttentionConfig::Mla(mla) => [mla.kv_lora_rank, mla.rotary_heads(self.num_attention_heads) * mla.qk_rope_head_dim],
        }
    }

    /// Weights of a layer's attention, and half the columns of queries, keys and values that a pair of tokens meets in: what its
    /// work follows from. In floating point: sizes that nobody checked yet may overflow any integer.
    pub fn attention_work(&self) -> (f64, f64) {
        let (h, heads) = (self.hidden_size as f64, self.num_attention_heads as f64);
        match &self.attention {
            AttentionConfig::Gqa(gqa) => {
                let (d, kv_heads) = (gqa.head_dim as f64, gqa.num_key_value_heads as f64);
                (2.0 * h * d * (heads + kv_heads), heads * d)
            }
            AttentionConfig::Mla(mla) => {
                let [rank, nope, rope, value] =
                    [mla.kv_lora_rank, mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim].map(|size| size as f64);
                let queries = heads * (nope + rope);
                let q = mla.q_lora_rank.map_or(h * queries, |rank| rank as f64 * (h + queries));
                let (down, up) = match mla.rotary_key {
                    RotaryKey::Shared => (rank + rope, nope + value),
                    RotaryKey::PerHead => (rank, nope + rope + value),
                };
                (q + h * down + rank * heads * up + h * heads * value, heads * (nope + rope + value) / 2.0)
            }
        }
    }

    /// Weights of the matrices; see [`ModelConfig::attention_work`].
    fn rough_parameters(&self) -> f64 {
        let (h, i) = (self.hidden_size as f64, self.intermediate_size as f64);
        let feed_forward = match &self.moe {
            None => i,
            Some(moe) => i.max((moe.num_experts as f64 + moe.num_shared_experts as f64) * moe.intermediate_size as f64),
        };
        self.num_hidden_layers as f64 * (self.attention_work().0 + 3.0 * h * feed_forward) + h * self.vocab_size as f64
    }

    /// The sizes that may not be zero, by name.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        match &self.attention {
            AttentionConfig::Gqa(gqa) => {
                sizes.extend([("num_key_value_heads", gqa.num_key_value_heads), ("head_dim", gqa.head_dim)]);
            }
            AttentionConfig::Mla(mla) => sizes.extend([
                ("q_lora_rank", mla.q_lora_rank.unwrap_or(1)),
                ("kv_lora_rank", mla.kv_lora_rank),
                ("qk_nope_head_dim", mla.qk_nope_head_dim),
                ("qk_rope_head_dim", mla.qk_rope_head_dim),
                ("v_head_dim", mla.v_head_dim),
            ]),
        }
        sizes
    }

    /// An error that names the first setting that no model can have.
    pub fn validate(&self) -> Result<()> {
        let sizes = self.sizes();
        if let Some((name, _)) = sizes.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(format!("{name} must be at least 1")));
        }
        let parameters = self.rough_parameters();
        if parameters > MOST_PARAMETERS {
            let sizes: Vec<String> = sizes.iter().map(|(name, value)| format!("{name} {value}")).collect();
            return Err(Error::config(format!("a model of {parameters:.0e} parameters cannot be made: {}", sizes.join(", "))));
        }
        let (layers, experts) =
            (self.num_hidden_layers, self.moe.as_ref().map_or(0, |moe| moe.num_experts.saturating_add(moe.num_shared_experts)));
        if layers as f64 * (1.0 + experts as f64) > MOST_TENSORS {
            return Err(Error::config(format!(
                "num_hidden_layers {layers}, with {experts} experts each, is more than any model has"
            )));
        }
        self.validate_attention()?;
        if !(self.rms_norm_eps >= 0.0 && self.rope_theta > 0.0) {
            return Err(Error::config("rms_norm_eps must not be negative, and rope_theta must be positive"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(format!("dropout {} must lie in [0, 1)", self.dropout)));
        }
        self.moe.as_ref().map_or(Ok(()), |moe| moe.validate(layers))?;
        self.validate_line()
    }

    fn validate_attention(&self) -> Result<()> {
        if let Some(gqa) = self.gqa()
            && !self.num_attention_heads.is_multiple_of(gqa.num_key_value_heads)
        {
            let (heads, kv_heads) = (self.num_attention_heads, gqa.num_key_value_heads);
            return Err(Error::config(format!("num_key_value_heads {kv_heads} must divide num_attention_heads {heads}")));
        }
        if !self.rotary_dim().is_multiple_of(2) {
            let name = if self.gqa().is_some() { "head_dim" } else { "qk_rope_head_dim" };
            return Err(Error::config(format!("{name} {} must be even: rotary embedding turns pairs", self.rotary_dim())));
        }
        Ok(())
    }
}

impl MoeConfig {
    fn validate(&self, layers: usize) -> Result<()> {
        let (k, experts) = (self.router.top_k, self.num_experts);
        if self.intermediate_size == 0 {
            return Err(Error::config("the width inside an expert (moe_intermediate_size) must be at least 1"));
        }
        if k == 0 || k > experts {
            return Err(Error::config(format!("num_experts_per_tok {k} must lie in 1..={experts}, the number of experts")));
        }
        self.router.check(experts)?;
        let ascending = self.dense_layers.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.dense_layers.last().is_some_and(|&last| last >= layers) {
            return Err(Error::config(format!(
                "the dense layers {:?} must be ascending numbers below {layers}, the number of layers",
                self.dense_layers
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_the_published_models() {
        assert_eq!(ModelConfig::minimind2(512, 8, 6400).intermediate_size, 1408);
        assert_eq!(ModelConfig::minimind2(640, 8, 6400).intermediate_size, 1728);
        assert_eq!([512, 640, 768, 1024].map(|h| ModelConfig::minimind3(h, 8, 6400).intermediate_size), [1664, 2048, 2432, 3264]);
    }

    #[test]
    fn impossible_settings_are_named() {
        let check = |change: fn(&mut ModelConfig)| {
            let mut config = ModelConfig::minimind3(768, 8, 6400).with_experts();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        let gqa = GqaConfig { num_key_value_heads: 4, head_dim: 96, qk_norm: true };
        let attention = |gqa: GqaConfig| {
            let config = ModelConfig { attention: AttentionConfig::Gqa(gqa), ..ModelConfig::minimind3(768, 8, 6400) };
            config.validate().unwrap_err().to_string()
        };
        assert!(attention(GqaConfig { num_key_value_heads: 3, ..gqa.clone() }).contains("num_key_value_heads 3"));
        assert!(attention(GqaConfig { head_dim: 7, ..gqa }).contains("head_dim 7"));
        assert!(check(|c| c.attention = ModelConfig::deepseek_v3(64, 1, 10).attention).contains("kind of attention"));
        assert!(check(|c| c.moe.as_mut().unwrap().dense_layers = vec![8]).contains("dense layers [8]"));
        assert!(check(|c| c.vocab_size = 0).contains("vocab_size"));
        assert!(check(|c| c.dropout = 1.0).contains("dropout"));
        assert!(check(|c| c.moe.as_mut().unwrap().router.top_k = 5).contains("num_experts_per_tok 5"));
        assert!("big".parse::<Preset>().unwrap_err().to_string().contains("minimind3-64m"));
    }
}
