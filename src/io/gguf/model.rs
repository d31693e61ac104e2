//! A model's sizes and tensors under the names of llama.cpp.

use std::borrow::Cow;

use super::element::GgmlType;
use super::value::Value;
use crate::model::{Family, GqaConfig, Model, ModelConfig};
use crate::ops::gated::Activation;
use crate::ops::rope::{RopeScaling, Yarn, YarnForm};
use crate::tensor::Shape;
use crate::{Error, Result};

/// A tensor to write.
pub(super) struct Tensor<'a> {
    pub name: String,
    /// Rows first, as everywhere here.
    pub shape: Shape,
    pub ggml: GgmlType,
    /// As the model has them.
    pub values: Cow<'a, [f32]>,
    /// Heads whose rows are put in another order.
    heads: Option<usize>,
}

impl Tensor<'_> {
    /// The values in the order in which they are written.
    pub fn in_order(&self) -> Cow<'_, [f32]> {
        match self.heads {
            Some(heads) => Cow::Owned(interleave(&self.values, self.shape.cols(), heads)),
            None => Cow::Borrowed(&self.values),
        }
    }
}

/// The rows of each head in the order 0, D/2, 1, D/2 + 1, ...: llama.cpp's Llama turns neighbouring columns together, the public
/// weights columns D/2 apart.
fn interleave(values: &[f32], cols: usize, heads: usize) -> Vec<f32> {
    let half = values.len() / heads / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(2 * half) {
        let (first, second) = head.split_at(half);
        for (x, y) in first.chunks_exact(cols).zip(second.chunks_exact(cols)) {
            out.extend_from_slice(x);
            out.extend_from_slice(y);
        }
    }
    out
}

/// llama.cpp's name of the architecture, and its attention; an error names what is written here.
fn architecture(config: &ModelConfig) -> Result<(&'static str, &GqaConfig)> {
    let known = match (config.family, config.gqa(), &config.moe) {
        (Family::Llama, Some(gqa), None) if !gqa.qk_norm => Some(("llama", gqa)),
        (Family::Qwen3, Some(gqa), None) if gqa.qk_norm => Some(("qwen3", gqa)),
        _ => None,
    };
    let experts = if config.moe.is_some() { " with experts" } else { "" };
    let unsupported = format!(
        "models of the line {:?}{experts} cannot be written as GGUF; supported are dense ones of Llama (MiniMind-2) and Qwen3 (MiniMind-3)",
        config.family
    );
    known.ok_or_else(|| Error::config(unsupported))
}

/// The keys that describe a model.
pub(super) fn keys(model: &Model, name: &str, ggml: GgmlType) -> Result<Vec<(String, Value)>> {
    let config = model.config();
    let (architecture, gqa) = architecture(config)?;
    if config.hidden_act != Activation::Silu {
        let name = config.hidden_act.name();
        return Err(Error::config(format!("`hidden_act` {name} cannot be written as GGUF: llama.cpp's {architecture} has silu")));
    }
    let mut keys: Vec<(String, Value)> = vec![
        ("general.architecture".into(), architecture.into()),
        ("general.type".into(), "model".into()),
        ("general.name".into(), name.into()),
        ("general.alignment".into(), (super::ALIGNMENT as u32).into()),
        ("general.file_type".into(), ggml.file_type().into()),
    ];
    if ggml == GgmlType::Q8_0 {
        keys.push(("general.quantization_version".into(), 2.into()));
    }
    for (key, size) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("vocab_size", config.vocab_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", gqa.num_key_value_heads),
        ("attention.key_length", gqa.head_dim),
        ("attention.value_length", gqa.head_dim),
        ("rope.dimension_count", gqa.head_dim),
    ] {
        let size = u32::try_from(size).map_err(|_| Error::config(format!("{key} {size} is beyond 32 bits")))?;
        keys.push((format!("{architecture}.{key}"), size.into()));
    }
    keys.push((format!("{architecture}.attention.layer_norm_rms_epsilon"), config.rms_norm_eps.into()));
    keys.push((format!("{architecture}.rope.freq_base"), config.rope_theta.into()));
    let scaling = scaling_keys(config, architecture)?;
    keys.extend(scaling.into_iter().map(|(key, value)| (format!("{architecture}.rope.scaling.{key}"), value)));
    Ok(keys)
}

/// The keys of a rotary scaling. Llama 3's is a tensor instead, which llama.cpp's Llama alone reads.
fn scaling_keys(config: &ModelConfig, architecture: &str) -> Result<Vec<(&'static str, Value)>> {
    match config.rope_scaling {
        RopeScaling::Default => Ok(vec![]),
        RopeScaling::Linear { factor } => Ok(vec![("type", "linear".into()), ("factor", factor.into())]),
        RopeScaling::Llama3(_) if architecture == "llama" => Ok(vec![]),
        RopeScaling::Yarn(yarn @ Yarn { form: YarnForm::Public, truncate: true, mscale: None, mscale_all_dim: None, .. })
            if yarn.factor >= 1.0 =>
        {
            // llama.cpp multiplies cosines and sines by 1 + 0.1 ln s by itself; what is written is the factor beside that.
            let beside = yarn.attention_factor() / (1.0 + 0.1 * yarn.factor.ln());
            let length = u32::try_from(yarn.original_max_position_embeddings).unwrap_or(u32::MAX);
            Ok(vec![
                ("type", "yarn".into()),
                ("factor", yarn.factor.into()),
                ("original_context_length", length.into()),
                ("attn_factor", beside.into()),
                ("yarn_beta_fast", yarn.beta_fast.into()),
                ("yarn_beta_slow", yarn.beta_slow.into()),
            ])
        }
        other => Err(Error::config(format!(
            "the rotary scaling {other:?} cannot be written as GGUF for {architecture}; supported are default, linear, llama3 (llama \
             alone) and the public yarn"
        ))),
    }
}

/// The tensors of a model that [`keys`] takes.
pub(super) fn tensors(model: &Model, ggml: GgmlType) -> Result<Vec<Tensor<'_>>> {
    let (config, params) = (model.config(), model.params());
    let (architecture, gqa) = architecture(config)?;
    let values = params.flat::<f32>()?;
    let mut tensors = Vec::new();
    for entry in params.layout().entries() {
        let name = ggml_name(&entry.name).ok_or_else(|| Error::Internal(format!("no GGUF name for `{}`", entry.name)))?;
        let heads = match (architecture, name.split('.').nth_back(1)) {
            ("llama", Some("attn_q")) => Some(config.num_attention_heads),
            ("llama", Some("attn_k")) => Some(gqa.num_key_value_heads),
            _ => None,
        };
        let matrix = entry.shape.dims().len() > 1;
        let ggml = if matrix { ggml.for_rows_of(entry.shape.cols()) } else { GgmlType::F32 };
        tensors.push(Tensor { name, shape: entry.shape.clone(), ggml, values: values[entry.range()].into(), heads });
    }
    if let RopeScaling::Llama3(_) = config.rope_scaling {
        let factors = frequency_factors(config, gqa.head_dim)?;
        let shape = [factors.len()].into();
        tensors.push(Tensor { name: "rope_freqs.weight".into(), shape, ggml: GgmlType::F32, values: factors.into(), heads: None });
    }
    Ok(tensors)
}

/// What each pair's plain frequency is divided by.
fn frequency_factors(config: &ModelConfig, head_dim: usize) -> Result<Vec<f32>> {
    use crate::ops::rope::Frequencies;
    let frequencies = |scaling| Frequencies::new(head_dim, config.rope_theta, config.max_position_embeddings, scaling);
    let (plain, scaled) = (frequencies(RopeScaling::Default)?, frequencies(config.rope_scaling)?);
    Ok(plain.inv_freq.iter().zip(&scaled.inv_freq).map(|(plain, scaled)| plain / scaled).collect())
}

/// llama.cpp's name of a parameter.
fn ggml_name(name: &str) -> Option<String> {
    let module = name.strip_suffix(".weight")?;
    let own = match module.strip_prefix("model.layers.") {
        None => match module {
            "model.embed_tokens" => "token_embd",
            "model.norm" => "output_norm",
            "lm_head" => "output",
            _ => return None,
        },
        Some(rest) => {
            let (layer, module) = rest.split_once('.')?;
            let own = match module {
                "input_layernorm" => "attn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.o_proj" => "attn_output",
                "self_attn.q_norm" => "attn_q_norm",
                "self_attn.k_norm" => "attn_k_norm",
                "post_attention_layernorm" => "ffn_norm",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                _ => return None,
            };
            return Some(format!("blk.{layer}.{own}.weight"));
        }
    };
    Some(format!("{own}.weight"))
}
