//! `config.json`: MiniMind's own form and that of the public transformers library.
//!
//! A dense MiniMind-2 is written as a Llama and MiniMind-3 as a Qwen3 or Qwen3-MoE, so that the library loads a run with no
//! conversion; what it has no class for (experts of MiniMind-2, MiniMind's YaRN) keeps MiniMind's own form. A setting that would
//! change the model and is not supported is an error, never ignored.

mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::model::{AttentionConfig, Family, GqaConfig, ModelConfig, MoeConfig};
use crate::ops::gated::Activation;
use crate::ops::moe::{AuxLoss, RouterConfig, WeightRule};
use crate::ops::rope::{RopeScaling, YarnForm};
use crate::{Error, Result};

/// Reads a configuration. `tensors` are the names in the weights file, which tell MiniMind's generations apart where the
/// fields do not.
pub fn read_config(path: impl AsRef<Path>, tensors: &[String]) -> Result<ModelConfig> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
    let Value::Object(fields) = value else {
        return Err(Error::format(path, "not a JSON object"));
    };
    let config = Fields { path, fields }.read(tensors)?;
    config.validate().map_err(|e| Error::format(path, e.to_string()))?;
    Ok(config)
}

/// The fields of one file.
struct Fields<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::format(self.path, message)
    }

    /// The value under a name; `null` counts as absent.
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn optional<T>(&self, name: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        self.get(name)
            .map(|value| read(value).ok_or_else(|| self.error(format!("`{name}` is {value}, expected {kind}"))))
            .transpose()
    }

    fn usize(&self, name: &str) -> Result<Option<usize>> {
        self.optional(name, "a whole number", |v| v.as_u64().and_then(|x| usize::try_from(x).ok()))
    }

    fn f64(&self, name: &str) -> Result<Option<f64>> {
        self.optional(name, "a number", Value::as_f64)
    }

    fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.optional(name, "true or false", |v| v.as_bool().or_else(|| v.as_u64().map(|x| x != 0)))
    }

    fn text(&self, name: &str) -> Result<Option<&str>> {
        self.get(name).map(|v| v.as_str().ok_or_else(|| self.error(format!("`{name}` is {v}, expected text")))).transpose()
    }

    fn required<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("`{name}` is missing")))
    }

    /// A token id; of a list of them (several end tokens), the first.
    fn token(&self, name: &str) -> Result<Option<u32>> {
        let first = |v: &Value| v.as_array().and_then(|ids| ids.first()).unwrap_or(v).as_u64().and_then(|x| u32::try_from(x).ok());
        self.optional(name, "a token id", first)
    }

    fn read(&self, tensors: &[String]) -> Result<ModelConfig> {
        let model_type = self.required("model_type", self.text("model_type")?)?;
        let (family, own_form) = match model_type {
            "minimind" => (self.generation(tensors), true),
            "llama" => (Family::Llama, false),
            "qwen3" | "qwen3_moe" => (Family::Qwen3, false),
            other => {
                let known = "minimind, llama, qwen3, qwen3_moe";
                return Err(self.error(format!("models of the type `{other}` are not supported; supported are {known}")));
            }
        };
        self.refuse_unsupported()?;
        // MiniMind publishes a default for every size; the library's are those of models of billions of parameters.
        let size = |name: &str, minimind: usize| self.required(name, self.usize(name)?.or(own_form.then_some(minimind)));
        let hidden_size = size("hidden_size", if family == Family::Llama { 512 } else { 768 })?;
        let heads = size("num_attention_heads", 8)?;
        let (base, gqa) = defaults(model_type, family, hidden_size, heads);
        let mut config = ModelConfig {
            num_hidden_layers: size("num_hidden_layers", 8)?,
            num_attention_heads: heads,
            attention: AttentionConfig::Gqa(GqaConfig {
                num_key_value_heads: match self.fields.get("num_key_value_heads") {
                    Some(Value::Null) => heads,
                    _ => self.usize("num_key_value_heads")?.unwrap_or(gqa.num_key_value_heads),
                },
                head_dim: self.head_dim(hidden_size, heads, gqa.head_dim)?,
                qk_norm: gqa.qk_norm,
            }),
            intermediate_size: self.usize("intermediate_size")?.unwrap_or(base.intermediate_size),
            vocab_size: size("vocab_size", 6400)?,
            max_position_embeddings: self.usize("max_position_embeddings")?.unwrap_or(base.max_position_embeddings),
            rope_theta: self.rope_theta(base.rope_theta)?,
            rope_scaling: self.rope_scaling(family, own_form)?,
            rms_norm_eps: self.f64("rms_norm_eps")?.unwrap_or(base.rms_norm_eps),
            hidden_act: match self.text("hidden_act")? {
                None => Activation::Silu,
                Some(name) => name.parse().map_err(|e: Error| self.error(e.to_string()))?,
            },
            tie_word_embeddings: self.bool("tie_word_embeddings")?.unwrap_or(own_form),
            dropout: self.f64("dropout")?.unwrap_or(0.0),
            bos_token_id: self.token("bos_token_id")?.or(base.bos_token_id.filter(|_| own_form)),
            eos_token_id: self.token("eos_token_id")?.or(base.eos_token_id.filter(|_| own_form)),
            pad_token_id: self.token("pad_token_id")?.or(base.pad_token_id.filter(|_| own_form)),
            ..base
        };
        config.moe = match (family, own_form) {
            (_, true) if !self.bool("use_moe")?.unwrap_or(false) => None,
            (Family::Llama, true) => Some(self.minimind2_experts(config.intermediate_size)?),
            (Family::Qwen3, _) if own_form || model_type == "qwen3_moe" => Some(self.qwen3_experts(config.intermediate_size)?),
            _ => None,
        };
        Ok(config)
    }

    /// The width of a head: `default` is 0 where it is the share of a head in the width of the model.
    fn head_dim(&self, hidden_size: usize, heads: usize, default: usize) -> Result<usize> {
        match self.usize("head_dim")? {
            Some(head_dim) => Ok(head_dim),
            None if default > 0 => Ok(default),
            None if heads > 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
            None => Err(self.error(format!(
                "without `head_dim`, `num_attention_heads` must divide `hidden_size`; they are {heads} and {hidden_size}"
            ))),
        }
    }

    /// MiniMind-3 normalises q and k; its fields differ too.
    fn generation(&self, tensors: &[String]) -> Family {
        let third = match tensors.is_empty() {
            false => tensors.iter().any(|name| name.ends_with("self_attn.q_norm.weight")),
            true => self.get("n_routed_experts").is_none() && self.get("num_experts").is_some(),
        };
        if third { Family::Qwen3 } else { Family::Llama }
    }

    fn refuse_unsupported(&self) -> Result<()> {
        for name in ["attention_bias", "mlp_bias", "use_sliding_window"] {
            if self.bool(name)? == Some(true) {
                return Err(self.error(format!("`{name}` is true, which is not supported")));
            }
        }
        if self.get("decoder_sparse_step").is_some_and(|step| step != 1)
            || self.get("mlp_only_layers").is_some_and(|layers| *layers != json!([]))
        {
            return Err(self.error("models whose layers are partly dense and partly experts are not supported"));
        }
        if self.get("layer_types").and_then(Value::as_array).is_some_and(|types| types.iter().any(|kind| kind != "full_attention"))
        {
            return Err(self.error("`layer_types` names layers of another kind than full_attention, which is not supported"));
        }
        if let Some(part) = self.f64("partial_rotary_factor")?.filter(|&part| part != 1.0) {
            return Err(self.error(format!("`partial_rotary_factor` is {part}; rotation of whole heads is supported")));
        }
        match self.text("scoring_func")? {
            None | Some("softmax") => Ok(()),
            Some(other) => Err(self.error(format!("`scoring_func` is `{other}`; softmax is supported"))),
        }
    }

    fn minimind2_experts(&self, intermediate_size: usize) -> Result<MoeConfig> {
        let alpha = self.f64("aux_loss_alpha")?.unwrap_or(0.1);
        let weight_rule =
            if self.bool("norm_topk_prob")?.unwrap_or(true) { WeightRule::NormalisedIfSeveral } else { WeightRule::Softmax };
        Ok(MoeConfig {
            num_experts: self.usize("n_routed_experts")?.unwrap_or(4),
            num_shared_experts: self.usize("n_shared_experts")?.unwrap_or(1),
            intermediate_size,
            router: RouterConfig::softmax(
                self.usize("num_experts_per_tok")?.unwrap_or(2),
                weight_rule,
                match self.bool("seq_aux")?.unwrap_or(true) {
                    true => AuxLoss::Sequence { alpha },
                    false => AuxLoss::Token { alpha },
                },
            ),
            dense_layers: Vec::new(),
        })
    }

    fn qwen3_experts(&self, intermediate_size: usize) -> Result<MoeConfig> {
        let own_form = self.text("model_type")? == Some("minimind");
        let or = |minimind, public| if own_form { minimind } else { public };
        let normalised = self.bool("norm_topk_prob")?.unwrap_or(own_form);
        // Transformers 5 writes the number of experts under the name that all its classes share.
        let experts = self.usize("num_experts")?.or(self.usize("num_local_experts")?);
        Ok(MoeConfig {
            num_experts: experts.unwrap_or(or(4, 128)),
            num_shared_experts: 0,
            intermediate_size: self.usize("moe_intermediate_size")?.unwrap_or(or(intermediate_size, 768)),
            router: RouterConfig::softmax(
                self.usize("num_experts_per_tok")?.unwrap_or(or(1, 8)),
                if normalised { WeightRule::Normalised } else { WeightRule::Softmax },
                AuxLoss::Switch { coef: self.f64("router_aux_loss_coef")?.unwrap_or(if own_form { 5e-4 } else { 1e-3 }) },
            ),
            dense_layers: Vec::new(),
        })
    }
}

/// What a model of a type is where its file leaves fields out; a `head_dim` of 0 stands for `hidden_size / heads`.
fn defaults(model_type: &str, family: Family, hidden_size: usize, heads: usize) -> (ModelConfig, GqaConfig) {
    let own = match family {
        Family::Qwen3 => ModelConfig::minimind3(hidden_size, 1, 1),
        _ => ModelConfig::minimind2(hidden_size, 1, 1),
    };
    let qk_norm = family == Family::Qwen3;
    let gqa = |num_key_value_heads, head_dim| GqaConfig { num_key_value_heads, head_dim, qk_norm };
    let public = ModelConfig { rope_theta: 1e4, rms_norm_eps: 1e-6, ..own.clone() };
    match model_type {
        "llama" => (ModelConfig { max_position_embeddings: 2048, ..public }, gqa(heads, 0)),
        "qwen3" => (public, gqa(32, 128)),
        "qwen3_moe" => (public, gqa(4, 0)),
        _ => (own, gqa(if qk_norm { 4 } else { 2 }, 0)),
    }
}

/// The configuration as JSON: a class of the transformers library where it has one, else MiniMind's own form.
pub fn config_to_json(config: &ModelConfig) -> Value {
    let mut json = json!({
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.gqa().map(|gqa| gqa.num_key_value_heads),
        "head_dim": config.gqa().map(|gqa| gqa.head_dim),
        "hidden_act": config.hidden_act.name(),
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling_to_json(config.rope_scaling),
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": false,
        "attention_dropout": config.dropout,
        "dropout": config.dropout,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "torch_dtype": "float32",
    });
    let public = config.rope_scaling == RopeScaling::Default;
    let (model_type, class) = match (config.family, &config.moe) {
        (Family::Llama, None) if public => ("llama", "LlamaForCausalLM"),
        (Family::Qwen3, None) if public => ("qwen3", "Qwen3ForCausalLM"),
        (Family::Qwen3, Some(_)) if public => ("qwen3_moe", "Qwen3MoeForCausalLM"),
        _ => ("minimind", "MiniMindForCausalLM"),
    };
    json["model_type"] = model_type.into();
    json["architectures"] = json!([class]);
    if model_type == "llama" {
        json["mlp_bias"] = false.into();
    }
    if model_type == "minimind" {
        json["use_moe"] = config.moe.is_some().into();
        json["inference_rope_scaling"] = (!public).into();
    }
    if let Some(moe) = &config.moe {
        experts_to_json(&mut json, config.family, moe);
    }
    json
}

fn experts_to_json(json: &mut Value, family: Family, moe: &MoeConfig) {
    let normalised = match moe.router.weights {
        WeightRule::Normalised => true,
        WeightRule::NormalisedIfSeveral => moe.router.top_k > 1 || family == Family::Llama,
        WeightRule::Softmax => false,
    };
    json["norm_topk_prob"] = normalised.into();
    json["num_experts_per_tok"] = moe.router.top_k.into();
    match family {
        Family::Qwen3 => {
            json["num_experts"] = moe.num_experts.into();
            json["moe_intermediate_size"] = moe.intermediate_size.into();
            json["router_aux_loss_coef"] = moe.router.aux_loss.factor().into();
            json["decoder_sparse_step"] = 1.into();
            json["mlp_only_layers"] = json!([]);
        }
        _ => {
            json["n_routed_experts"] = moe.num_experts.into();
            json["n_shared_experts"] = moe.num_shared_experts.into();
            json["scoring_func"] = "softmax".into();
            json["seq_aux"] = (!matches!(moe.router.aux_loss, AuxLoss::Token { .. })).into();
            json["aux_loss_alpha"] = moe.router.aux_loss.factor().into();
        }
    }
}

fn rope_scaling_to_json(scaling: RopeScaling) -> Value {
    let RopeScaling::Yarn(yarn) = scaling else { return Value::Null };
    let mut json = json!({
        "type": "yarn",
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
    });
    if yarn.form != YarnForm::MiniMindLinearBeta {
        json["attention_factor"] = yarn.attention_factor().into();
    }
    json
}

/// `generation_config.json`: the special tokens, and the sampling that MiniMind's authors publish their samples with.
pub fn generation_config_to_json(config: &ModelConfig) -> Value {
    json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "do_sample": true,
        "temperature": 0.85,
        "top_p": 0.85,
    })
}
