//! Settings that would make another model than the one that is computed here: each is an error that names it.

use serde_json::Value;

use super::class::Class;
use super::fields::Fields;
use crate::Result;

/// An error that names the first setting of the file that would change the computation and is not supported.
pub(super) fn refuse(fields: &Fields, class: Class, layers: usize, max_positions: usize) -> Result<()> {
    for name in ["attention_bias", "mlp_bias"] {
        if fields.get(name).is_some() && fields.bool(name)? == Some(true) {
            return Err(fields.unsupported(name, "false, projections without bias"));
        }
    }
    if fields.get("quantization_config").is_some() {
        return Err(fields.unsupported("quantization_config", "none, weights in float32, bfloat16 or float16"));
    }
    if fields.nullable_f64("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
        return Err(fields.unsupported("partial_rotary_factor", "1, whole heads"));
    }
    // Only in training, where it would be another one than ours, which `dropout` sets.
    let dropout = fields.nullable_f64("dropout")?.unwrap_or(0.0);
    if fields.nullable_f64("attention_dropout")?.is_some_and(|p| p != 0.0 && p != dropout) {
        return Err(fields.unsupported("attention_dropout", "0, or the value of `dropout`, which is everywhere in the model"));
    }
    if fields.nullable_f64("router_jitter_noise")?.is_some_and(|noise| noise != 0.0) {
        return Err(fields.unsupported("router_jitter_noise", "0"));
    }
    sliding_window(fields, class, layers, max_positions)?;
    scores(fields, class)
}

/// A window is in force where some layer has one that is shorter than the longest sequence.
fn sliding_window(fields: &Fields, class: Class, layers: usize, max_positions: usize) -> Result<()> {
    let full = |kind: &Value| kind == "full_attention";
    if fields.get("layer_types").is_some_and(|types| !types.as_array().is_some_and(|types| types.iter().all(full))) {
        return Err(fields.unsupported("layer_types", "full_attention for every layer"));
    }
    let switch = if fields.is_null("use_sliding_window") { None } else { fields.bool("use_sliding_window")? };
    let window = if fields.is_null("sliding_window") { None } else { fields.usize("sliding_window")? };
    let supported = format!("none, or one of `max_position_embeddings` {max_positions} and more");
    match (class, switch) {
        (Class::Qwen3 | Class::Qwen3Moe, None | Some(false)) => Ok(()),
        (Class::Qwen3 | Class::Qwen3Moe, Some(true)) => {
            // Null is none; left out it is the class's.
            let window = if fields.is_null("sliding_window") { max_positions } else { window.unwrap_or(4096) };
            let every_layer_full = class == Class::Qwen3
                && (fields.get("layer_types").is_some() || fields.usize("max_window_layers")?.unwrap_or(28) >= layers);
            if window < max_positions && !every_layer_full {
                return Err(fields.unsupported("use_sliding_window", "false"));
            }
            Ok(())
        }
        (_, Some(true)) => Err(fields.unsupported("use_sliding_window", "false")),
        (_, _) if window.is_some_and(|window| window < max_positions) => Err(fields.unsupported("sliding_window", &supported)),
        _ => Ok(()),
    }
}

/// How experts are scored and chosen follows from the class: a file that says otherwise is of another model.
fn scores(fields: &Fields, class: Class) -> Result<()> {
    let scoring = if class == Class::DeepSeekV3 { "sigmoid" } else { "softmax" };
    let mut expected = vec![("scoring_func", scoring)];
    if class == Class::DeepSeekV3 {
        expected.push(("topk_method", "noaux_tc"));
        if fields.get("moe_layer_freq").is_some_and(|step| *step != 1) {
            return Err(fields.unsupported("moe_layer_freq", "1"));
        }
    }
    for (name, value) in expected {
        if fields.get(name).is_some_and(|given| given != value) {
            return Err(fields.unsupported(name, value));
        }
    }
    if class == Class::NotesMla && fields.get("use_moe").is_some() && fields.bool("use_moe")? == Some(true) {
        return Err(fields.unsupported("use_moe", "false for the type mla"));
    }
    Ok(())
}
