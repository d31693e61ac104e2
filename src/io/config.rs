//! `config.json`: that of the public transformers library (Llama, Qwen3, Qwen3-MoE, Mixtral, DeepSeek-V3), MiniMind's own form, and
//! the study notes' decoder with latent attention.
//!
//! A dense MiniMind-2 is written as a Llama and MiniMind-3 as a Qwen3 or Qwen3-MoE, so that the library loads a run with no
//! conversion; what it has no class for (experts of MiniMind-2, MiniMind's YaRN, the notes' decoder) keeps its own form. A field that
//! is left out is what its class takes for it; one of a wrong type, and a setting that would change the model and is not supported, are
//! errors that name it.

mod attention;
mod class;
mod experts;
mod fields;
mod refuse;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Value, json};

use crate::model::ModelConfig;
use crate::ops::gated::Activation;
use crate::{Error, Result};
use class::Class;
use fields::Fields;

/// As many layers has no model: beyond it a number is a slip of the pen, and lists of layers have no room.
const MOST_LAYERS: usize = 100_000;

/// Reads a configuration. `tensors` are the names in the weights file, which tell MiniMind's generations apart where the
/// fields do not.
pub fn read_config(path: impl AsRef<Path>, tensors: &[String]) -> Result<ModelConfig> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
    let Value::Object(fields) = value else {
        return Err(Error::format(path, "not a JSON object"));
    };
    let config = read(&Fields::new(path, &fields), tensors)?;
    config.validate().map_err(|e| Error::format(path, e.to_string()))?;
    Ok(config)
}

fn read(fields: &Fields, tensors: &[String]) -> Result<ModelConfig> {
    let class = Class::read(fields, tensors)?;
    let default = class.defaults();
    let size = |name: &'static str, default: usize| Ok::<_, Error>(fields.usize(class.field(name))?.unwrap_or(default));
    let (hidden_size, heads) =
        (size("hidden_size", default.hidden_size)?, size("num_attention_heads", default.num_attention_heads)?);
    let num_hidden_layers = size("num_hidden_layers", default.num_hidden_layers)?;
    if num_hidden_layers > MOST_LAYERS {
        return Err(fields.error(format!("`{}` {num_hidden_layers} is more than any model has", class.field("num_hidden_layers"))));
    }
    let max_position_embeddings = size("max_position_embeddings", default.max_position_embeddings)?;
    refuse::refuse(fields, class, num_hidden_layers, max_position_embeddings)?;
    let rms_norm_eps = fields.f64("rms_norm_eps")?.unwrap_or(default.rms_norm_eps);
    // MiniMind derives it from the width where it is null, too.
    let derived = match class {
        Class::MiniMind2 => Some(ModelConfig::minimind2(hidden_size, 1, 1).intermediate_size),
        Class::MiniMind3 => Some(ModelConfig::minimind3(hidden_size, 1, 1).intermediate_size),
        _ => None,
    };
    let intermediate_size = match derived {
        Some(derived) if fields.get("intermediate_size").is_none() => derived,
        _ => size("intermediate_size", default.intermediate_size)?,
    };
    let (rope_theta, rope_scaling) = rope::read(fields, class, max_position_embeddings)?;
    let [bos, eos, pad] = default.tokens;
    Ok(ModelConfig {
        family: class.family(),
        hidden_size,
        num_hidden_layers,
        num_attention_heads: heads,
        attention: attention::read(fields, class, hidden_size, heads, rms_norm_eps)?,
        intermediate_size,
        vocab_size: size("vocab_size", default.vocab_size)?,
        max_position_embeddings,
        rope_theta,
        rope_scaling,
        rms_norm_eps,
        hidden_act: match fields.text("hidden_act")? {
            None => Activation::Silu,
            Some(name) => name.parse().map_err(|e: Error| fields.error(format!("`hidden_act`: {e}")))?,
        },
        tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(default.tie_word_embeddings),
        dropout: fields.f64("dropout")?.unwrap_or(0.0),
        moe: experts::read(fields, class, num_hidden_layers, intermediate_size)?,
        bos_token_id: fields.token("bos_token_id", bos)?,
        eos_token_id: fields.token("eos_token_id", eos)?,
        pad_token_id: fields.token("pad_token_id", pad)?,
    })
}

/// The configuration as JSON: a class of the transformers library where it has one, else its line's own form.
pub fn config_to_json(config: &ModelConfig) -> Value {
    let class = Class::of(config);
    let mut json = json!({
        "model_type": class.model_type(),
        "vocab_size": config.vocab_size,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act.name(),
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": false,
        "attention_dropout": config.dropout,
        "dropout": config.dropout,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "torch_dtype": "float32",
    });
    for (name, value) in [
        ("hidden_size", config.hidden_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("max_position_embeddings", config.max_position_embeddings),
    ] {
        json[class.field(name)] = value.into();
    }
    if let Some(architecture) = class.architecture() {
        json["architectures"] = json!([architecture]);
    }
    // Where every layer has experts, these classes have no other width.
    if let (Some(moe), Class::MiniMind2 | Class::Mixtral) = (&config.moe, class) {
        json["intermediate_size"] = moe.intermediate_size.into();
    }
    attention::write(&mut json, class, &config.attention, config.num_attention_heads);
    rope::write(&mut json, class, config);
    match class {
        Class::Llama => json["mlp_bias"] = false.into(),
        Class::MiniMind2 | Class::MiniMind3 => json["use_moe"] = config.moe.is_some().into(),
        Class::Mixtral => json["sliding_window"] = Value::Null,
        Class::DeepSeekV3 => {
            json["num_nextn_predict_layers"] = 0.into();
            json["first_k_dense_replace"] = config.num_hidden_layers.into();
        }
        Class::Qwen3 | Class::Qwen3Moe | Class::NotesMla => {}
    }
    if let Some(moe) = &config.moe {
        experts::write(&mut json, class, moe);
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
