//! Models of a name.

use super::{AttentionConfig, GqaConfig, ModelConfig};
use crate::{Error, Result};

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
    /// A DeepSeek-V3 of the size of MiniMind-2: latent attention, one rotated key for all heads, dense.
    #[serde(rename = "mla-26m")]
    Mla,
    /// The same with 4 routed experts, sigmoid scores, and a shared one from the second layer on.
    #[serde(rename = "mla-moe")]
    MlaMoe,
    /// The study notes' latent attention, a rotated key for each head out of the latent, of the size of MiniMind-2.
    #[serde(rename = "mla-notes")]
    MlaNotes,
}

impl Preset {
    /// All presets with their names.
    pub const ALL: [(&'static str, Self); 8] = [
        ("tiny", Self::Tiny),
        ("minimind2-26m", Self::MiniMind2),
        ("minimind2-moe", Self::MiniMind2Moe),
        ("minimind3-64m", Self::MiniMind3),
        ("minimind3-moe", Self::MiniMind3Moe),
        ("mla-26m", Self::Mla),
        ("mla-moe", Self::MlaMoe),
        ("mla-notes", Self::MlaNotes),
    ];

    /// The model for a vocabulary of this size.
    pub fn config(self, vocab_size: usize) -> ModelConfig {
        match self {
            Self::Tiny => ModelConfig {
                num_attention_heads: 4,
                attention: AttentionConfig::Gqa(GqaConfig { num_key_value_heads: 2, head_dim: 32, qk_norm: true }),
                intermediate_size: 384,
                ..ModelConfig::minimind3(128, 4, vocab_size)
            },
            Self::MiniMind2 => ModelConfig::minimind2(512, 8, vocab_size),
            Self::MiniMind2Moe => ModelConfig::minimind2(640, 8, vocab_size).with_experts(),
            Self::MiniMind3 => ModelConfig::minimind3(768, 8, vocab_size),
            Self::MiniMind3Moe => ModelConfig::minimind3(768, 8, vocab_size).with_experts(),
            Self::Mla => ModelConfig::deepseek_v3(512, 8, vocab_size),
            Self::MlaMoe => ModelConfig::deepseek_v3(512, 8, vocab_size).with_experts(),
            Self::MlaNotes => ModelConfig::notes_mla(512, 8, vocab_size),
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
