//! Tensors of public weights files that the decoder does without, by name. Any other that has no place is an error.

use crate::model::{Family, ModelConfig};

/// What only the modules for further tokens have.
const FURTHER: &str = "eh_proj.weight";

/// Whether a tensor is one of
///
/// - `….rotary_emb.inv_freq`: rotary frequencies, which older files hold in each layer, follow from the configuration;
/// - `model.layers.N.…` of a DeepSeek-V3, N beyond its decoder, where layer N has an `eh_proj`: a module that predicts further tokens
///   (`num_nextn_predict_layers`) beside the decoder, and changes nothing of what it computes. The transformers library leaves it out too.
pub(super) fn is_needless(config: &ModelConfig, name: &str, contains: impl Fn(&str) -> bool) -> bool {
    if name.ends_with(".rotary_emb.inv_freq") {
        return true;
    }
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')).map(|(layer, _)| layer);
    let Some(beyond) = layer.filter(|layer| layer.parse().is_ok_and(|l: usize| l >= config.num_hidden_layers)) else {
        return false;
    };
    config.family == Family::DeepSeekV3 && contains(&format!("model.layers.{beyond}.{FURTHER}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_for_further_tokens_and_old_frequencies_alone_are_needless() {
        let names = ["model.layers.2.eh_proj.weight", "model.layers.2.enorm.weight", "model.layers.3.mlp.up_proj.weight"];
        let needless = |config: &ModelConfig, name: &str| is_needless(config, name, |name| names.contains(&name));
        let (deepseek, llama) = (ModelConfig::deepseek_v3(64, 2, 10), ModelConfig::minimind2(64, 2, 10));
        assert_eq!(names.map(|name| needless(&deepseek, name)), [true, true, false]);
        assert_eq!(names.map(|name| needless(&llama, name)), [false; 3]);
        let deeper = ModelConfig::deepseek_v3(64, 3, 10);
        assert_eq!(names.map(|name| needless(&deeper, name)), [false; 3]);
        assert!(needless(&llama, "model.layers.0.self_attn.rotary_emb.inv_freq") && !needless(&llama, "inv_freq"));
    }
}
