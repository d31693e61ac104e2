mod round_trip;

use super::*;
use crate::model::{AttentionConfig, Family, GqaConfig, MlaConfig, MoeConfig};
use crate::ops::moe::{AuxLoss, Scoring, WeightRule};
use crate::ops::rope::{Llama3, RopeScaling, Yarn, YarnForm};

const Q_NORM: &str = "model.layers.0.self_attn.q_norm.weight";
const PUBLIC: [&str; 6] = ["llama", "qwen3", "qwen3_moe", "mixtral", "deepseek_v3", "mla"];

fn read(fields: Value, tensors: &[&str]) -> Result<ModelConfig> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, fields.to_string()).unwrap();
    read_config(path, &tensors.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

/// `fields` with `more` laid over them.
fn with(mut fields: Value, more: &Value) -> Value {
    more.as_object().unwrap().iter().for_each(|(name, value)| fields[name] = value.clone());
    fields
}

/// A small file of a public class with `more` fields over it.
fn public(model_type: &str, more: Value) -> Result<ModelConfig> {
    let small = json!({ "model_type": model_type, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8,
        "vocab_size": 10, "intermediate_size": 8, "num_key_value_heads": 8, "d_model": 64, "n_layers": 4 });
    read(with(small, &more), &[])
}

fn gqa(config: &ModelConfig) -> &GqaConfig {
    config.gqa().unwrap()
}

fn mla(config: &ModelConfig) -> &MlaConfig {
    match &config.attention {
        AttentionConfig::Mla(mla) => mla,
        AttentionConfig::Gqa(_) => panic!("latent attention"),
    }
}

fn refusal(result: Result<ModelConfig>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn an_empty_minimind_file_is_the_published_model() {
    let second = read(json!({ "model_type": "minimind" }), &["model.norm.weight"]).unwrap();
    assert_eq!(second, ModelConfig::minimind2(512, 8, 6400));
    let third = read(json!({ "model_type": "minimind", "use_moe": true }), &[Q_NORM]).unwrap();
    assert_eq!(third, ModelConfig::minimind3(768, 8, 6400).with_experts());
    let null = read(json!({ "model_type": "minimind", "num_key_value_heads": null, "intermediate_size": null }), &["x"]).unwrap();
    assert_eq!((gqa(&null).num_key_value_heads, null.intermediate_size), (8, 1408));
}

/// The sizes that the classes of transformers 5.23 have when nothing is given, and the notes' published ones.
#[test]
fn an_empty_public_file_is_its_class() {
    let sizes = |c: &ModelConfig| [c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads];
    let rest = |c: &ModelConfig| (c.max_position_embeddings, c.rope_theta, c.rms_norm_eps, [c.bos_token_id, c.eos_token_id]);
    let class = |model_type: &str| read(json!({ "model_type": model_type }), &[]).unwrap();
    for (model_type, expected, others) in [
        ("llama", [32000, 4096, 11008, 32, 32], (2048, 1e4, 1e-6, [Some(1), Some(2)])),
        ("qwen3", [151_936, 4096, 22016, 32, 32], (32768, 1e4, 1e-6, [None; 2])),
        ("qwen3_moe", [151_936, 2048, 6144, 24, 32], (32768, 1e4, 1e-6, [None; 2])),
        ("mixtral", [32000, 4096, 14336, 32, 32], (131_072, 1e6, 1e-5, [Some(1), Some(2)])),
        ("deepseek_v3", [129_280, 7168, 18432, 61, 128], (4096, 1e4, 1e-6, [Some(0), Some(1)])),
        ("mla", [32000, 1024, 2816, 24, 16], (2048, 1e4, 1e-6, [None; 2])),
    ] {
        let config = class(model_type);
        assert_eq!((sizes(&config), rest(&config)), (expected, others), "{model_type}");
        assert!(!config.tie_word_embeddings && config.pad_token_id.is_none());
    }
    let heads = ["llama", "qwen3", "qwen3_moe", "mixtral"].map(|name| {
        let config = class(name);
        (gqa(&config).num_key_value_heads, gqa(&config).head_dim, gqa(&config).qk_norm)
    });
    assert_eq!(heads, [(32, 128, false), (32, 128, true), (4, 64, true), (8, 128, false)]);
    let deepseek = class("deepseek_v3");
    let sizes = |mla: &MlaConfig| [mla.kv_lora_rank, mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim];
    assert_eq!((sizes(mla(&deepseek)), mla(&deepseek).q_lora_rank), ([512, 128, 64, 128], Some(1536)));
    assert_eq!((sizes(mla(&class("mla"))), mla(&class("mla")).q_lora_rank), ([512, 128, 64, 128], None));
    let moe = deepseek.moe.unwrap();
    let router = moe.router;
    assert_eq!((moe.num_experts, moe.num_shared_experts, moe.intermediate_size, moe.dense_layers), (256, 1, 2048, vec![0, 1, 2]));
    assert_eq!((router.top_k, router.groups, router.top_groups, router.scale), (8, 8, 4, 2.5));
    assert_eq!((router.scoring, router.weights, router.aux_loss), (Scoring::Sigmoid, WeightRule::Normalised, AuxLoss::None));
    let (qwen, mixtral) = (class("qwen3_moe").moe.unwrap(), class("mixtral").moe.unwrap());
    assert_eq!((qwen.num_experts, qwen.router.top_k, qwen.intermediate_size), (128, 8, 768));
    assert_eq!((qwen.router.weights, qwen.router.aux_loss), (WeightRule::Softmax, AuxLoss::Switch { coef: 1e-3 }));
    assert_eq!((mixtral.num_experts, mixtral.router.top_k, mixtral.intermediate_size), (8, 2, 14336));
    assert_eq!(mixtral.router.weights, WeightRule::Normalised);
}

#[test]
fn names_of_both_generations_of_the_library() {
    let rope = json!({ "rope_type": "default", "rope_theta": 5e5 });
    let config = public("qwen3_moe", json!({ "num_local_experts": 9, "rope_parameters": rope })).unwrap();
    assert_eq!((config.rope_theta, config.moe.unwrap().num_experts), (5e5, 9));
    let message = refusal(public("qwen3_moe", json!({ "num_local_experts": 9, "num_experts": 8 })));
    assert!(message.contains("`num_experts` is 8, but `num_local_experts`"), "{message}");
}

#[test]
fn layers_without_experts() {
    let dense = |model_type: &str, more: Value| {
        let few = json!({ "num_experts": 8, "n_routed_experts": 8, "n_group": 1, "topk_group": 1 });
        public(model_type, with(few, &more)).unwrap().moe.map(|moe| moe.dense_layers)
    };
    assert_eq!(dense("qwen3_moe", json!({ "mlp_only_layers": null })), Some(vec![]));
    assert_eq!(dense("qwen3_moe", json!({ "mlp_only_layers": [2, 0] })), Some(vec![0, 2]));
    assert_eq!(dense("qwen3_moe", json!({ "decoder_sparse_step": 2, "mlp_only_layers": [1] })), Some(vec![0, 1, 2]));
    assert_eq!(dense("qwen3_moe", json!({ "decoder_sparse_step": 5 })), None);
    assert_eq!(dense("qwen3_moe", json!({ "num_experts": 0 })), None);
    assert_eq!(dense("deepseek_v3", json!({ "first_k_dense_replace": 2 })), Some(vec![0, 1]));
    assert_eq!(dense("deepseek_v3", json!({ "first_k_dense_replace": 4 })), None);
}

fn yarn(of: impl FnOnce(Yarn) -> Yarn) -> RopeScaling {
    RopeScaling::Yarn(of(Yarn::new(YarnForm::Public, 8.0, 32)))
}

#[test]
fn rotary_scalings_of_the_public_classes() {
    let least = json!({ "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32 });
    let llama3 = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0 });
    let expected_llama3 = |length| {
        RopeScaling::Llama3(Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: length,
        })
    };
    for (object, outside, expected) in [
        (json!({ "type": "default" }), json!({}), RopeScaling::Default),
        (json!({ "type": "linear", "factor": 3 }), json!({}), RopeScaling::Linear { factor: 3.0 }),
        (llama3.clone(), json!({}), expected_llama3(99)),
        (with(llama3, &json!({ "original_max_position_embeddings": 7 })), json!({}), expected_llama3(7)),
        (least.clone(), json!({}), yarn(|yarn| yarn)),
        (with(least.clone(), &json!({ "beta_fast": 0, "beta_slow": null })), json!({}), yarn(|yarn| yarn)),
        (with(least.clone(), &json!({ "factor": null })), json!({}), yarn(|yarn| Yarn { factor: 99.0 / 32.0, ..yarn })),
        (
            least.clone(),
            json!({ "original_max_position_embeddings": 64 }),
            yarn(|yarn| Yarn { original_max_position_embeddings: 64, ..yarn }),
        ),
        (json!({ "type": "yarn", "factor": 8.0 }), json!({}), yarn(|yarn| Yarn { original_max_position_embeddings: 99, ..yarn })),
        (
            with(least.clone(), &json!({ "truncate": false, "beta_fast": 3, "beta_slow": 2, "attention_factor": 1.5 })),
            json!({}),
            yarn(|yarn| Yarn { truncate: false, beta_fast: 3.0, beta_slow: 2.0, attention_factor: Some(1.5), ..yarn }),
        ),
        (
            with(least, &json!({ "mscale": 1, "mscale_all_dim": 0.5 })),
            json!({}),
            yarn(|yarn| Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.5), ..yarn }),
        ),
    ] {
        for name in ["rope_scaling", "rope_parameters"] {
            let config = public("llama", with(json!({ "max_position_embeddings": 99, name: object.clone() }), &outside)).unwrap();
            assert_eq!(config.rope_scaling, expected, "{object}");
        }
    }
}

#[test]
fn minimind_yarn_is_told_by_its_fields() {
    let read = |scaling: Value, tensors: &[&str]| {
        read(json!({ "model_type": "minimind", "inference_rope_scaling": true, "rope_scaling": scaling }), tensors)
    };
    let paper = Yarn { attention_factor: Some(1.0), ..Yarn::new(YarnForm::MiniMind, 16.0, 2048) };
    let linear = Yarn { beta_fast: 4.0, ..Yarn::new(YarnForm::MiniMindLinearBeta, 8.0, 2048) };
    let scaling = |value, tensors: &[&str]| read(value, tensors).unwrap().rope_scaling;
    assert_eq!(scaling(json!({ "factor": 8.0 }), &["x"]), RopeScaling::Yarn(linear));
    assert_eq!(scaling(json!({ "factor": 16.0, "attention_factor": 1.0 }), &["x"]), RopeScaling::Yarn(paper));
    assert_eq!(scaling(Value::Null, &[Q_NORM]), RopeScaling::Yarn(paper));
    assert!(refusal(read(Value::Null, &["x"])).contains("inference_rope_scaling"));
    assert!(refusal(read(json!({ "rope_type": "llama3" }), &["x"])).contains("`rope_scaling.rope_type` is \"llama3\""));
    assert!(refusal(read(json!({ "factor": 2.0, "mscale": 1.0 }), &["x"])).contains("`rope_scaling.mscale`"));
}

/// A setting, something that it may be all the same, and something that it may not.
fn settings() -> Vec<(&'static str, &'static str, Value, Value)> {
    let scaling = |more: Value| with(json!({ "rope_type": "yarn", "factor": 2.0 }), &more);
    vec![
        ("llama", "model_type", json!("llama"), json!("gemma")),
        ("llama", "architectures", json!(["LlamaForCausalLM"]), json!(["LlamaForSequenceClassification"])),
        ("llama", "attention_bias", json!(null), json!(true)),
        ("llama", "mlp_bias", json!(0), json!(true)),
        ("llama", "hidden_act", json!("silu"), json!("tanh")),
        ("llama", "quantization_config", json!(null), json!({ "quant_method": "fp8" })),
        ("llama", "partial_rotary_factor", json!(1.0), json!(0.5)),
        ("llama", "attention_dropout", json!(0.0), json!(0.1)),
        ("llama", "layer_types", json!(["full_attention"]), json!(["full_attention", "sliding_attention"])),
        ("llama", "use_sliding_window", json!(false), json!(true)),
        ("mixtral", "sliding_window", json!(131_072), json!(4096)),
        ("mixtral", "router_jitter_noise", json!(0.0), json!(0.1)),
        ("qwen3", "use_sliding_window", json!(true), json!(2)),
        ("qwen3_moe", "use_sliding_window", json!(false), json!(true)),
        ("qwen3_moe", "scoring_func", json!("softmax"), json!("sigmoid")),
        ("qwen3_moe", "decoder_sparse_step", json!(1), json!(0)),
        ("qwen3_moe", "mlp_only_layers", json!([9]), json!([-1])),
        ("deepseek_v3", "scoring_func", json!("sigmoid"), json!("softmax")),
        ("deepseek_v3", "topk_method", json!("noaux_tc"), json!("greedy")),
        ("deepseek_v3", "moe_layer_freq", json!(1), json!(2)),
        ("deepseek_v3", "num_key_value_heads", json!(8), json!(4)),
        ("deepseek_v3", "n_group", json!(4), json!(3)),
        ("deepseek_v3", "topk_group", json!(5), json!(9)),
        ("deepseek_v3", "routed_scaling_factor", json!(1), json!(-1.0)),
        ("deepseek_v3", "rope_interleave", json!(false), json!(null)),
        ("mla", "q_lora_rank", json!(null), json!(8)),
        ("mla", "use_moe", json!(false), json!(true)),
        ("llama", "rope_scaling", json!({ "rope_type": "default" }), json!({ "rope_type": "dynamic", "factor": 2.0 })),
        ("llama", "rope_parameters", json!({}), json!({ "rope_type": "longrope" })),
        ("llama", "rope_parameters", json!({}), json!({ "rope_type": "proportional" })),
        ("llama", "rope_parameters", json!({}), json!({ "full_attention": { "rope_theta": 1e6 } })),
        ("llama", "rope_scaling", scaling(json!({})), scaling(json!({ "long_factor": [1.0] }))),
        ("llama", "rope_scaling", scaling(json!({ "partial_rotary_factor": 1 })), scaling(json!({ "partial_rotary_factor": 0.5 }))),
        ("llama", "rope_scaling", scaling(json!({ "truncate": true })), scaling(json!({ "truncate": null }))),
        ("llama", "rope_scaling", scaling(json!({ "factor": null })), json!({ "rope_type": "yarn" })),
        ("llama", "rope_scaling", json!(null), json!("yarn")),
        ("llama", "rope_scaling", json!(null), json!({ "factor": 2.0 })),
        (
            "deepseek_v3",
            "rope_scaling",
            json!({ "type": "linear", "factor": 2.0 }),
            json!({ "type": "linear", "mscale_all_dim": 1.0 }),
        ),
        ("llama", "rms_norm_eps", json!(1), json!(null)),
        ("llama", "num_hidden_layers", json!(3), json!(10_000_000)),
        ("llama", "num_attention_heads", json!(16), json!(3)),
        ("llama", "head_dim", json!(null), json!(7)),
        ("qwen3", "head_dim", json!(8), json!(null)),
        ("llama", "vocab_size", json!(9), json!("9")),
        ("llama", "tie_word_embeddings", json!(1), json!("yes")),
        ("llama", "eos_token_id", json!([3, 4]), json!(-1)),
    ]
}

#[test]
fn what_would_be_another_model_is_refused_by_its_name() {
    for (model_type, name, harmless, other) in settings() {
        let few = json!({ "n_routed_experts": 16 });
        let result = |value: Value| public(model_type, with(few.clone(), &json!({ name: value })));
        assert!(result(harmless.clone()).is_ok(), "{model_type} {name} {harmless}: {}", refusal(result(harmless.clone())));
        let message = refusal(result(other.clone()));
        assert!(message.contains(name) || name.starts_with("rope_") && message.contains("rotary"), "{name} {other}: {message}");
    }
}

#[test]
fn a_refusal_lists_what_is_supported() {
    let unknown = refusal(public("gemma", json!({})));
    assert!(PUBLIC.iter().chain(&["minimind"]).all(|name| unknown.contains(name)), "{unknown}");
    let scaling = refusal(public("llama", json!({ "rope_scaling": { "type": "dynamic" } })));
    assert!(
        ["rope_scaling.type", "dynamic", "default, linear, llama3, yarn"].iter().all(|part| scaling.contains(part)),
        "{scaling}"
    );
    let activation = refusal(public("llama", json!({ "hidden_act": "tanh" })));
    assert!(["hidden_act", "tanh", "silu", "relu"].iter().all(|part| activation.contains(part)), "{activation}");
    assert!(refusal(read(json!({}), &[])).contains("`model_type` is missing; supported: minimind"));
}

#[test]
fn settings_in_two_places_must_agree() {
    let linear = |factor: f64, theta: f64| json!({ "rope_type": "linear", "factor": factor, "rope_theta": theta });
    let both =
        |a: Value, b: Value, theta: f64| public("llama", json!({ "rope_scaling": a, "rope_parameters": b, "rope_theta": theta }));
    assert!(both(linear(2.0, 1e4), linear(2.0, 1e4), 1e4).is_ok());
    assert!(refusal(both(linear(2.0, 1e4), linear(3.0, 1e4), 1e4)).contains("contradict"));
    assert!(refusal(both(linear(2.0, 1e4), linear(2.0, 1e5), 1e4)).contains("rope_theta"));
    assert!(refusal(both(linear(2.0, 1e5), json!(null), 1e4)).contains("rope_theta"));
}

/// A window as wide as any sequence, or one that no layer has, changes nothing.
#[test]
fn a_sliding_window_that_is_not_in_force() {
    let window = |model_type, more: Value| {
        public(model_type, with(json!({ "use_sliding_window": true, "max_position_embeddings": 64, "num_experts": 8 }), &more))
            .is_ok()
    };
    assert!(window("qwen3", json!({ "sliding_window": 8 }))); // max_window_layers is 28
    assert!(!window("qwen3", json!({ "sliding_window": 8, "max_window_layers": 3 })));
    assert!(window("qwen3", json!({ "sliding_window": 8, "max_window_layers": 3, "layer_types": ["full_attention"] })));
    assert!(window("qwen3", json!({ "sliding_window": null, "max_window_layers": 3 })));
    assert!(window("qwen3_moe", json!({ "sliding_window": 64 })) && window("qwen3_moe", json!({})));
    assert!(!window("qwen3_moe", json!({ "sliding_window": 63 })));
}

/// Nothing is trained whose files could not say what it is.
#[test]
fn a_model_that_its_line_has_no_form_for_is_no_model() {
    let refused = |config: ModelConfig, named: &str| {
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(named), "{message} does not name {named}");
    };
    let (second, third) = (ModelConfig::minimind2(64, 2, 9), ModelConfig::minimind3(64, 2, 9));
    let linear = RopeScaling::Linear { factor: 2.0 };
    refused(ModelConfig { family: Family::Qwen3, ..second.clone() }, "attention");
    refused(ModelConfig { rope_scaling: linear, ..second.clone().with_experts() }, "rope_scaling");
    refused(ModelConfig { family: Family::Mixtral, ..second.clone() }, "without experts");
    refused(ModelConfig::notes_mla(64, 2, 9).with_experts(), "experts");
    let moe = |base: &ModelConfig, change: fn(&mut MoeConfig)| {
        let mut config = base.clone().with_experts();
        change(config.moe.as_mut().unwrap());
        config
    };
    refused(moe(&third, |moe| moe.num_shared_experts = 1), "shared experts");
    refused(moe(&third, |moe| moe.router.scoring = Scoring::Sigmoid), "scoring");
    refused(moe(&third, |moe| moe.dense_layers = vec![0, 1]), "every layer is dense");
    refused(moe(&second, |moe| (moe.router.top_k, moe.router.weights) = (1, WeightRule::Normalised)), "weights Normalised");
    refused(moe(&ModelConfig::deepseek_v3(64, 3, 9), |moe| moe.dense_layers = vec![1]), "dense layers [1]");
}
