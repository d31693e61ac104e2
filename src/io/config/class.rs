//! The classes of models that a `config.json` can be of, and what each takes for the fields that a file leaves out.

use serde_json::Value;

use super::fields::Fields;
use crate::Result;
use crate::model::{Family, ModelConfig};
use crate::ops::rope::{RopeScaling, YarnForm};

/// A class of models. The defaults of the public ones are those of transformers 5.23.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    MiniMind2,
    MiniMind3,
    Llama,
    Qwen3,
    Qwen3Moe,
    Mixtral,
    DeepSeekV3,
    NotesMla,
}

/// What a class is where its file leaves fields out.
pub(super) struct Defaults {
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// 0 where it follows from the width.
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// 0 where there are as many as query heads.
    pub num_key_value_heads: usize,
    /// 0 where it is the share of a head in the width.
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rope_theta: f64,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
    /// The first token, the last one, and the one that fills.
    pub tokens: [Option<u32>; 3],
}

impl Class {
    /// Both generations of MiniMind share a `model_type`.
    const ALL: [(&'static str, Self); 8] = [
        ("minimind", Self::MiniMind2),
        ("minimind", Self::MiniMind3),
        ("llama", Self::Llama),
        ("qwen3", Self::Qwen3),
        ("qwen3_moe", Self::Qwen3Moe),
        ("mixtral", Self::Mixtral),
        ("deepseek_v3", Self::DeepSeekV3),
        ("mla", Self::NotesMla),
    ];

    /// The class of a file. `tensors` are the names in its weights.
    pub fn read(fields: &Fields, tensors: &[String]) -> Result<Self> {
        let mut known: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
        known.dedup();
        let known = known.join(", ");
        let Some(name) = fields.text("model_type")? else {
            return Err(fields.error(format!("`model_type` is missing; supported: {known}")));
        };
        let Some((_, class)) = Self::ALL.iter().find(|(model_type, _)| *model_type == name) else {
            return Err(fields.unsupported("model_type", &known));
        };
        let class = if *class == Self::MiniMind2 { Self::generation(fields, tensors) } else { *class };
        class.expect_architecture(fields)?;
        Ok(class)
    }

    /// MiniMind-3 normalises q and k; its fields differ too.
    fn generation(fields: &Fields, tensors: &[String]) -> Self {
        let third = match tensors.is_empty() {
            false => tensors.iter().any(|name| name.ends_with("self_attn.q_norm.weight")),
            true => fields.get("n_routed_experts").is_none() && fields.get("num_experts").is_some(),
        };
        if third { Self::MiniMind3 } else { Self::MiniMind2 }
    }

    /// A file may say which model it holds besides: another head than the language model's is another model.
    fn expect_architecture(self, fields: &Fields) -> Result<()> {
        let names = |given: &Value, ours: &str| given.as_array().is_some_and(|all| all.is_empty() || all.iter().any(|a| a == ours));
        match (self.architecture(), fields.get("architectures")) {
            (Some(ours), Some(given)) if !self.own_form() && !names(given, ours) => {
                Err(fields.unsupported("architectures", &format!("{ours} of the type {}", self.model_type())))
            }
            _ => Ok(()),
        }
    }

    /// The class in which a model is written: of the transformers library where it has one, else the line's own.
    pub fn of(config: &ModelConfig) -> Self {
        match (config.family, &config.moe) {
            (Family::Llama, None) if !minimind_yarn(config.rope_scaling) => Self::Llama,
            (Family::Llama, _) => Self::MiniMind2,
            (Family::Qwen3, _) if minimind_yarn(config.rope_scaling) => Self::MiniMind3,
            (Family::Qwen3, None) => Self::Qwen3,
            (Family::Qwen3, Some(_)) => Self::Qwen3Moe,
            (Family::Mixtral, _) => Self::Mixtral,
            (Family::DeepSeekV3, _) => Self::DeepSeekV3,
            (Family::NotesMla, _) => Self::NotesMla,
        }
    }

    pub fn model_type(self) -> &'static str {
        Self::ALL.iter().find(|(_, class)| *class == self).map_or("minimind", |(name, _)| name)
    }

    /// Its name in code, where there is public code.
    pub fn architecture(self) -> Option<&'static str> {
        match self {
            Self::MiniMind2 | Self::MiniMind3 => Some("MiniMindForCausalLM"),
            Self::Llama => Some("LlamaForCausalLM"),
            Self::Qwen3 => Some("Qwen3ForCausalLM"),
            Self::Qwen3Moe => Some("Qwen3MoeForCausalLM"),
            Self::Mixtral => Some("MixtralForCausalLM"),
            Self::DeepSeekV3 => Some("DeepseekV3ForCausalLM"),
            Self::NotesMla => None,
        }
    }

    pub fn family(self) -> Family {
        match self {
            Self::MiniMind2 | Self::Llama => Family::Llama,
            Self::MiniMind3 | Self::Qwen3 | Self::Qwen3Moe => Family::Qwen3,
            Self::Mixtral => Family::Mixtral,
            Self::DeepSeekV3 => Family::DeepSeekV3,
            Self::NotesMla => Family::NotesMla,
        }
    }

    /// Whether the file is in MiniMind's own form.
    pub fn own_form(self) -> bool {
        matches!(self, Self::MiniMind2 | Self::MiniMind3)
    }

    /// What the class calls a field of the public ones.
    pub fn field(self, name: &'static str) -> &'static str {
        match (self, name) {
            (Self::NotesMla, "hidden_size") => "d_model",
            (Self::NotesMla, "num_hidden_layers") => "n_layers",
            (Self::NotesMla, "num_attention_heads") => "n_heads",
            (Self::NotesMla, "max_position_embeddings") => "max_seq_len",
            _ => name,
        }
    }

    pub fn defaults(self) -> Defaults {
        let llama = Defaults {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 0,
            head_dim: 0,
            max_position_embeddings: 2048,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            tokens: [Some(1), Some(2), None],
        };
        let qwen3 = Defaults { vocab_size: 151_936, max_position_embeddings: 32768, tokens: [None; 3], head_dim: 128, ..llama };
        let minimind2 = Defaults {
            vocab_size: 6400,
            hidden_size: 512,
            intermediate_size: 0,
            num_hidden_layers: 8,
            num_attention_heads: 8,
            num_key_value_heads: 2,
            max_position_embeddings: 32768,
            rope_theta: 1e6,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            tokens: [Some(1), Some(2), Some(0)],
            ..llama
        };
        match self {
            Self::MiniMind2 => minimind2,
            Self::MiniMind3 => Defaults { hidden_size: 768, num_key_value_heads: 4, rms_norm_eps: 1e-6, ..minimind2 },
            Self::Llama => llama,
            Self::Qwen3 => Defaults { intermediate_size: 22016, num_key_value_heads: 32, ..qwen3 },
            Self::Qwen3Moe => Defaults {
                hidden_size: 2048,
                intermediate_size: 6144,
                num_hidden_layers: 24,
                num_key_value_heads: 4,
                head_dim: 0,
                ..qwen3
            },
            Self::Mixtral => Defaults {
                intermediate_size: 14336,
                num_key_value_heads: 8,
                max_position_embeddings: 4096 * 32,
                rope_theta: 1e6,
                rms_norm_eps: 1e-5,
                ..llama
            },
            Self::DeepSeekV3 => Defaults {
                vocab_size: 129_280,
                hidden_size: 7168,
                intermediate_size: 18432,
                num_hidden_layers: 61,
                num_attention_heads: 128,
                max_position_embeddings: 4096,
                tokens: [Some(0), Some(1), None],
                ..llama
            },
            Self::NotesMla => Defaults {
                hidden_size: 1024,
                intermediate_size: 2816,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                tokens: [None; 3],
                ..llama
            },
        }
    }
}

/// Whether frequencies are stretched as in MiniMind alone, which no public class does.
fn minimind_yarn(scaling: RopeScaling) -> bool {
    matches!(scaling, RopeScaling::Yarn(yarn) if yarn.form != YarnForm::Public)
}
