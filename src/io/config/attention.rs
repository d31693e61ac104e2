//! The attention of a `config.json`.

use serde_json::Value;

use super::class::Class;
use super::fields::Fields;
use crate::Result;
use crate::model::{AttentionConfig, DEEPSEEK_LATENT_EPS, GqaConfig, MlaConfig, RotaryKey};
use crate::ops::rope::RopeLayout;

/// How tokens see each other in a model of this width and these heads.
pub(super) fn read(fields: &Fields, class: Class, hidden_size: usize, heads: usize, eps: f64) -> Result<AttentionConfig> {
    match class {
        Class::DeepSeekV3 => deepseek(fields, heads).map(AttentionConfig::Mla),
        Class::NotesMla => notes(fields, eps).map(AttentionConfig::Mla),
        _ => gqa(fields, class, hidden_size, heads).map(AttentionConfig::Gqa),
    }
}

fn gqa(fields: &Fields, class: Class, hidden_size: usize, heads: usize) -> Result<GqaConfig> {
    let default = class.defaults();
    let kv_heads = match fields.is_null("num_key_value_heads") {
        true => 0,
        false => fields.usize("num_key_value_heads")?.unwrap_or(default.num_key_value_heads),
    };
    // These derive it where it is null; the others have no null.
    let derived = matches!(class, Class::Llama | Class::Mixtral) && fields.is_null("head_dim");
    let given = if derived { None } else { fields.usize("head_dim")? };
    let head_dim = match (given, default.head_dim) {
        (Some(head_dim), _) => head_dim,
        (None, 0) if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        (None, 0) => {
            return Err(fields.error(format!(
                "without `head_dim`, `num_attention_heads` must divide `hidden_size`; they are {heads} and {hidden_size}"
            )));
        }
        (None, head_dim) => head_dim,
    };
    let num_key_value_heads = if kv_heads == 0 && fields.get("num_key_value_heads").is_none() { heads } else { kv_heads };
    Ok(GqaConfig { num_key_value_heads, head_dim, qk_norm: matches!(class, Class::MiniMind3 | Class::Qwen3 | Class::Qwen3Moe) })
}

fn deepseek(fields: &Fields, heads: usize) -> Result<MlaConfig> {
    if let Some(kv_heads) = fields.get("num_key_value_heads").filter(|kv_heads| **kv_heads != heads) {
        let message = format!("`num_key_value_heads` is {kv_heads}; latent attention supports as many as query heads, {heads}");
        return Err(fields.error(message));
    }
    let size = |name: &str, default: usize| Ok::<_, crate::Error>(fields.usize(name)?.unwrap_or(default));
    Ok(MlaConfig {
        q_lora_rank: if fields.is_null("q_lora_rank") { None } else { Some(size("q_lora_rank", 1536)?) },
        kv_lora_rank: size("kv_lora_rank", 512)?,
        qk_nope_head_dim: size("qk_nope_head_dim", 128)?,
        qk_rope_head_dim: size("qk_rope_head_dim", 64)?,
        v_head_dim: size("v_head_dim", 128)?,
        rotary_key: RotaryKey::Shared,
        rope_layout: match fields.bool("rope_interleave")?.unwrap_or(true) {
            true => RopeLayout::Interleaved,
            false => RopeLayout::Halves,
        },
        latent_norm_eps: DEEPSEEK_LATENT_EPS,
    })
}

fn notes(fields: &Fields, eps: f64) -> Result<MlaConfig> {
    if fields.get("q_lora_rank").is_some() {
        return Err(fields.unsupported("q_lora_rank", "null for the type mla: the study notes' queries have no low rank"));
    }
    let size = |name: &str, default: usize| Ok::<_, crate::Error>(fields.usize(name)?.unwrap_or(default));
    Ok(MlaConfig {
        q_lora_rank: None,
        kv_lora_rank: size("kv_lora_rank", 512)?,
        qk_nope_head_dim: size("qk_nope_head_dim", 128)?,
        qk_rope_head_dim: size("qk_rope_head_dim", 64)?,
        v_head_dim: size("v_head_dim", 128)?,
        rotary_key: RotaryKey::PerHead,
        rope_layout: RopeLayout::Interleaved,
        latent_norm_eps: eps,
    })
}

/// Adds the attention under the public names.
pub(super) fn write(json: &mut Value, class: Class, attention: &AttentionConfig, heads: usize) {
    match attention {
        AttentionConfig::Gqa(gqa) => {
            json["num_key_value_heads"] = gqa.num_key_value_heads.into();
            json["head_dim"] = gqa.head_dim.into();
        }
        AttentionConfig::Mla(mla) => {
            json["kv_lora_rank"] = mla.kv_lora_rank.into();
            json["qk_nope_head_dim"] = mla.qk_nope_head_dim.into();
            json["qk_rope_head_dim"] = mla.qk_rope_head_dim.into();
            json["v_head_dim"] = mla.v_head_dim.into();
            if class == Class::DeepSeekV3 {
                json["num_key_value_heads"] = heads.into();
                json["q_lora_rank"] = mla.q_lora_rank.into();
                json["rope_interleave"] = (mla.rope_layout == RopeLayout::Interleaved).into();
            }
        }
    }
}
