//! What a model is made of, whatever its family calls it.

use crate::ops::gated::Activation;
use crate::ops::moe::{AuxLoss, WeightRule};
use crate::ops::rope::RopeScaling;
use crate::{Error, Result};

/// The published generation that a model belongs to: decides the form in which its configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// MiniMind-2; a dense one is a Llama.
    MiniMind2,
    /// MiniMind-3; it is a Qwen3, or a Qwen3-MoE.
    MiniMind3,
}

/// The mixture of experts in place of a layer's feed-forward network.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeConfig {
    /// Routed experts, E.
    pub num_experts: usize,
    /// Experts that a token chooses, k.
    pub num_experts_per_tok: usize,
    /// Experts that every token passes through.
    pub num_shared_experts: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// How the chosen experts are weighted.
    pub weight_rule: WeightRule,
    /// The loss that balances the experts' load.
    pub aux_loss: AuxLoss,
}

/// What no machine holds: sizes beyond it are a slip of the pen.
const MOST_PARAMETERS: f64 = 1e12;

/// As many tensors has no file.
const MOST_TENSORS: f64 = 1e6;

/// The shape and the settings of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its generation.
    pub family: Family,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head, D: even.
    pub head_dim: usize,
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
    /// Whether q and k are normalised per head before the rotation.
    pub qk_norm: bool,
    /// Activation of the gate.
    pub hidden_act: Activation,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Probability of dropout, in training.
    pub dropout: f64,
    /// Mixture of experts in every layer.
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
            family: Family::MiniMind2,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: 2,
            head_dim: hidden_size / num_attention_heads,
            intermediate_size: (hidden_size.saturating_mul(8) / 3).div_ceil(64) * 64,
            vocab_size,
            max_position_embeddings: 32768,
            rope_theta: 1e6,
            rope_scaling: RopeScaling::Default,
            rms_norm_eps: 1e-5,
            qk_norm: false,
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
        Self {
            family: Family::MiniMind3,
            num_key_value_heads: 4,
            intermediate_size: ((hidden_size as f64 * std::f64::consts::PI / 64.0).ceil() * 64.0) as usize,
            rms_norm_eps: 1e-6,
            qk_norm: true,
            ..Self::minimind2(hidden_size, num_hidden_layers, vocab_size)
        }
    }

    /// The same model with the mixture of experts of its generation.
    pub fn with_experts(mut self) -> Self {
        self.moe = Some(match self.family {
            Family::MiniMind2 => MoeConfig {
                num_experts: 4,
                num_experts_per_tok: 2,
                num_shared_experts: 1,
                intermediate_size: self.intermediate_size,
                weight_rule: WeightRule::NormalisedIfSeveral,
                aux_loss: AuxLoss::Sequence { alpha: 0.1 },
            },
            Family::MiniMind3 => MoeConfig {
                num_experts: 4,
                num_experts_per_tok: 1,
                num_shared_experts: 0,
                intermediate_size: self.intermediate_size,
                weight_rule: WeightRule::Normalised,
                aux_loss: AuxLoss::Switch { coef: 5e-4 },
            },
        });
        self
    }

    /// Rows of the fused q, k and v projection.
    pub fn qkv_widths(&self) -> [usize; 3] {
        let kv = self.num_key_value_heads * self.head_dim;
        [self.num_attention_heads * self.head_dim, kv, kv]
    }

    /// Weights of the matrices, in floating point: sizes that nobody checked yet may overflow any integer.
    fn rough_parameters(&self) -> f64 {
        let [h, heads, kv_heads, d, i] =
            [self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim, self.intermediate_size]
                .map(|size| size as f64);
        let feed_forward = match &self.moe {
            None => i,
            Some(moe) => (moe.num_experts as f64 + moe.num_shared_experts as f64) * moe.intermediate_size as f64,
        };
        let layer = h * (2.0 * d * (heads + kv_heads) + 3.0 * feed_forward);
        self.num_hidden_layers as f64 * layer + h * self.vocab_size as f64
    }

    /// An error that names the first setting that no model can have.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(format!("{name} must be at least 1")));
        }
        let parameters = self.rough_parameters();
        if parameters > MOST_PARAMETERS {
            let sizes: Vec<String> = positive.iter().map(|(name, value)| format!("{name} {value}")).collect();
            return Err(Error::config(format!("a model of {parameters:.0e} parameters cannot be made: {}", sizes.join(", "))));
        }
        let (layers, experts) =
            (self.num_hidden_layers, self.moe.as_ref().map_or(0, |moe| moe.num_experts.saturating_add(moe.num_shared_experts)));
        if layers as f64 * (1.0 + experts as f64) > MOST_TENSORS {
            return Err(Error::config(format!(
                "num_hidden_layers {layers}, with {experts} experts each, is more than any model has"
            )));
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::config(format!("num_key_value_heads {kv_heads} must divide num_attention_heads {heads}")));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::config(format!("head_dim {} must be even: rotary embedding turns pairs", self.head_dim)));
        }
        if !(self.rms_norm_eps >= 0.0 && self.rope_theta > 0.0) {
            return Err(Error::config("rms_norm_eps must not be negative, and rope_theta must be positive"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(format!("dropout {} must lie in [0, 1)", self.dropout)));
        }
        if let Some(moe) = &self.moe {
            let (k, experts) = (moe.num_experts_per_tok, moe.num_experts);
            if moe.intermediate_size == 0 {
                return Err(Error::config("the width inside an expert (moe_intermediate_size) must be at least 1"));
            }
            if k == 0 || k > experts {
                return Err(Error::config(format!("num_experts_per_tok {k} must lie in 1..={experts}, the number of experts")));
            }
        }
        Ok(())
    }
}

/// A model of a name: what `--preset` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// MiniMind-3 of 128 wide and 4 layers: learns the embedded stories in a minute on a laptop.
    Tiny,
    /// MiniMind-2, 25.83 M parameters.
    #[serde(rename = "minimind2-26m")]
    MiniMind2,
    /// MiniMind-2 of 640 wide with 4 routed experts and a shared one.
    #[serde(rename = "minimind2-moe")]
    MiniMind2Moe,
    /// MiniMind-3, 63.9 M parameters.
    #[serde(rename = "minimind3-64m")]
    MiniMind3,
    /// MiniMind-3 with 4 experts, 198 M parameters, 64 M active.
    #[serde(rename = "minimind3-moe")]
    MiniMind3Moe,
}

impl Preset {
    /// All presets with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("tiny", Self::Tiny),
        ("minimind2-26m", Self::MiniMind2),
        ("minimind2-moe", Self::MiniMind2Moe),
        ("minimind3-64m", Self::MiniMind3),
        ("minimind3-moe", Self::MiniMind3Moe),
    ];

    /// The model for a vocabulary of this size.
    pub fn config(self, vocab_size: usize) -> ModelConfig {
        match self {
            Self::Tiny => ModelConfig {
                num_attention_heads: 4,
                num_key_value_heads: 2,
                head_dim: 32,
                intermediate_size: 384,
                ..ModelConfig::minimind3(128, 4, vocab_size)
            },
            Self::MiniMind2 => ModelConfig::minimind2(512, 8, vocab_size),
            Self::MiniMind2Moe => ModelConfig::minimind2(640, 8, vocab_size).with_experts(),
            Self::MiniMind3 => ModelConfig::minimind3(768, 8, vocab_size),
            Self::MiniMind3Moe => ModelConfig::minimind3(768, 8, vocab_size).with_experts(),
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, preset)| *preset);
        known.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            Error::config(format!("no preset is called `{name}`; there are {}", names.join(", ")))
        })
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
        assert!(check(|c| c.num_key_value_heads = 3).contains("num_key_value_heads 3"));
        assert!(check(|c| c.head_dim = 7).contains("head_dim 7"));
        assert!(check(|c| c.vocab_size = 0).contains("vocab_size"));
        assert!(check(|c| c.dropout = 1.0).contains("dropout"));
        assert!(check(|c| c.moe.as_mut().unwrap().num_experts_per_tok = 5).contains("num_experts_per_tok 5"));
        assert!("big".parse::<Preset>().unwrap_err().to_string().contains("minimind3-64m"));
    }
}
