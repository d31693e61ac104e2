use super::*;
use crate::ops::rope::{Yarn, YarnForm};

const Q_NORM: &str = "model.layers.0.self_attn.q_norm.weight";

fn read(fields: Value, tensors: &[&str]) -> Result<ModelConfig> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, fields.to_string()).unwrap();
    read_config(path, &tensors.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

/// A small file of a public class with `more` fields over it.
fn public(model_type: &str, more: Value) -> Result<ModelConfig> {
    let mut fields = json!({ "model_type": model_type, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 32,
        "vocab_size": 10, "intermediate_size": 8 });
    more.as_object().unwrap().iter().for_each(|(name, value)| fields[name] = value.clone());
    read(fields, &[])
}

#[test]
fn an_empty_minimind_file_is_the_published_model() {
    let second = read(json!({ "model_type": "minimind" }), &["model.norm.weight"]).unwrap();
    assert_eq!(second, ModelConfig::minimind2(512, 8, 6400));
    let third = read(json!({ "model_type": "minimind", "use_moe": true }), &[Q_NORM]).unwrap();
    assert_eq!(third, ModelConfig::minimind3(768, 8, 6400).with_experts());
    let null = read(json!({ "model_type": "minimind", "num_key_value_heads": null, "intermediate_size": null }), &["x"]).unwrap();
    assert_eq!((null.num_key_value_heads, null.intermediate_size), (8, 1408));
}

/// The defaults of the classes in transformers 5.23.
#[test]
fn public_classes_have_defaults_of_their_own() {
    let summary = |c: &ModelConfig| (c.num_key_value_heads, c.head_dim, c.rms_norm_eps, c.rope_theta, c.tie_word_embeddings);
    assert_eq!(summary(&public("llama", json!({})).unwrap()), (32, 2, 1e-6, 1e4, false));
    assert_eq!(summary(&public("qwen3", json!({})).unwrap()), (32, 128, 1e-6, 1e4, false));
    let moe = public("qwen3_moe", json!({})).unwrap();
    assert_eq!(summary(&moe), (4, 2, 1e-6, 1e4, false));
    let moe = moe.moe.unwrap();
    assert_eq!((moe.num_experts, moe.num_experts_per_tok, moe.intermediate_size), (128, 8, 768));
    assert_eq!(moe.weight_rule, WeightRule::Softmax);
}

#[test]
fn transformers_5_names() {
    let rope = json!({ "rope_type": "default", "rope_theta": 5e5 });
    let config = public("qwen3_moe", json!({ "num_local_experts": 9, "rope_parameters": rope })).unwrap();
    assert_eq!((config.rope_theta, config.moe.unwrap().num_experts), (5e5, 9));
}

#[test]
fn yarn_is_told_by_its_fields() {
    let read = |scaling: Value, tensors: &[&str]| {
        read(json!({ "model_type": "minimind", "inference_rope_scaling": true, "rope_scaling": scaling }), tensors)
    };
    let paper = Yarn { attention_factor: Some(1.0), ..Yarn::new(YarnForm::MiniMind, 16.0, 2048) };
    let linear = RopeScaling::Yarn(Yarn { form: YarnForm::MiniMindLinearBeta, factor: 8.0, beta_fast: 4.0, ..paper });
    let scaling = |value, tensors: &[&str]| read(value, tensors).unwrap().rope_scaling;
    assert_eq!(scaling(json!({ "factor": 8.0 }), &["x"]), linear);
    assert_eq!(scaling(json!({ "factor": 16.0, "attention_factor": 1.0 }), &["x"]), RopeScaling::Yarn(paper));
    assert_eq!(scaling(Value::Null, &[Q_NORM]), RopeScaling::Yarn(paper));
    assert!(read(Value::Null, &["x"]).unwrap_err().to_string().contains("inference_rope_scaling"));
}

#[test]
fn what_would_be_another_model_is_named() {
    let rope = |value: Value| json!({ "rope_parameters": value });
    for (fields, named) in [
        (rope(json!({ "rope_type": "llama3", "factor": 8.0 })), "`llama3`"),
        (rope(json!({ "rope_type": "default", "partial_rotary_factor": 0.5 })), "partial_rotary_factor"),
        (rope(json!({ "full_attention": { "rope_theta": 1e6 } })), "full_attention"),
        (json!({ "rope_theta": 1e4, "rope_parameters": { "rope_theta": 1e6 } }), "rope_theta"),
        (json!({ "rope_scaling": "yarn" }), "`rope_scaling`"),
        (json!({ "rope_scaling": { "factor": 2.0 } }), "rotary scaling"),
        (json!({ "num_attention_heads": 3 }), "num_attention_heads"),
        (json!({ "num_hidden_layers": 10_000_000 }), "num_hidden_layers"),
        (json!({ "attention_bias": true }), "attention_bias"),
        (json!({ "mlp_only_layers": [0] }), "partly dense"),
        (json!({ "hidden_act": "tanh" }), "tanh"),
    ] {
        let error = public("llama", fields).unwrap_err().to_string();
        assert!(error.contains(named), "{error} does not name {named}");
    }
}

/// What we write for a Llama with `changes` laid over it, read back.
fn written(changes: Value) -> Result<ModelConfig> {
    let mut fields = config_to_json(&ModelConfig::minimind2(64, 2, 300));
    changes.as_object().unwrap().iter().for_each(|(name, value)| fields[name] = value.clone());
    read(fields, &[])
}

#[test]
fn what_would_change_the_model_is_refused_by_its_name() {
    assert_eq!(written(json!({})).unwrap(), ModelConfig::minimind2(64, 2, 300));
    for (name, harmless, other) in [
        ("attention_bias", json!(null), json!(true)),
        ("mlp_bias", json!(0), json!(true)),
        ("use_sliding_window", json!(false), json!(true)),
        ("layer_types", json!(["full_attention", "full_attention"]), json!(["full_attention", "sliding_attention"])),
        ("partial_rotary_factor", json!(1.0), json!(0.5)),
        ("scoring_func", json!("softmax"), json!("sigmoid")),
        ("rope_scaling", json!({ "rope_type": "default" }), json!({ "rope_type": "llama3" })),
        ("model_type", json!("llama"), json!("gemma")),
        ("hidden_act", json!("silu"), json!("tanh")),
    ] {
        assert!(written(json!({ name: harmless })).is_ok(), "{name}");
        let message = written(json!({ name: other })).unwrap_err().to_string();
        assert!(message.contains("support") || message.contains("tanh"), "{name}: {message}");
    }
}
