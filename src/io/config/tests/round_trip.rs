//! What is written reads back: models of every line, their settings random.

use proptest::prelude::*;

use super::*;
use crate::ops::moe::RouterConfig;
use crate::ops::rope::RopeLayout;

/// How the frequencies of a model of this line may be stretched: any public form, or MiniMind's.
fn any_scaling(minimind: bool) -> impl Strategy<Value = RopeScaling> {
    // Of few digits: a last bit may be lost where JSON is read.
    let one = || (1u32..50_000).prop_map(|x| f64::from(x) / 1e3);
    let yarn = (one(), 1usize..5000, one(), one(), any::<bool>(), prop::array::uniform3(prop::option::of(one())));
    (0usize..4, yarn).prop_map(move |(kind, (factor, length, a, b, truncate, [attention_factor, mscale, mscale_all_dim]))| {
        let original_max_position_embeddings = length;
        let yarn = |form| Yarn { beta_fast: a, beta_slow: b, ..Yarn::new(form, factor, length) };
        match (minimind, kind) {
            (_, 0) => RopeScaling::Default,
            (true, 1) => RopeScaling::Yarn(yarn(YarnForm::MiniMindLinearBeta)),
            (true, _) => RopeScaling::Yarn(Yarn { attention_factor: attention_factor.or(Some(1.0)), ..yarn(YarnForm::MiniMind) }),
            (false, 1) => RopeScaling::Linear { factor },
            (false, 2) => RopeScaling::Llama3(Llama3 {
                factor,
                low_freq_factor: a,
                high_freq_factor: (1e3 * (a + b)).round() / 1e3,
                original_max_position_embeddings,
            }),
            (false, _) => RopeScaling::Yarn(Yarn { truncate, attention_factor, mscale, mscale_all_dim, ..yarn(YarnForm::Public) }),
        }
    })
}

/// A line, whether it has experts, and whether it is written in MiniMind's own form.
const LINES: [(Family, bool, bool); 10] = [
    (Family::Llama, false, false),
    (Family::Llama, false, true),
    (Family::Llama, true, true),
    (Family::Qwen3, false, false),
    (Family::Qwen3, true, false),
    (Family::Qwen3, true, true),
    (Family::Mixtral, true, false),
    (Family::DeepSeekV3, false, false),
    (Family::DeepSeekV3, true, false),
    (Family::NotesMla, false, false),
];

/// Models of every line, their settings random.
fn any_config() -> impl Strategy<Value = ModelConfig> {
    let line = prop::sample::select(&LINES[..]);
    line.prop_flat_map(|(family, experts, minimind)| {
        let sizes = prop::array::uniform16(1usize..7);
        let reals = prop::array::uniform4((1u32..20_000).prop_map(|x| f64::from(x) / 1e3));
        let tokens = prop::array::uniform3(prop::option::of(0u32..99));
        (any_scaling(minimind), sizes, reals, prop::array::uniform6(any::<bool>()), tokens).prop_map(
            move |(rope_scaling, n, x, flags, tokens)| config_of((family, experts, minimind), rope_scaling, n, x, flags, tokens),
        )
    })
}

fn config_of(
    (family, experts, minimind): (Family, bool, bool),
    rope_scaling: RopeScaling,
    n: [usize; 16],
    x: [f64; 4],
    flags: [bool; 6],
    tokens: [Option<u32>; 3],
) -> ModelConfig {
    let heads = n[1] * n[2];
    let base = match family {
        Family::NotesMla => ModelConfig::notes_mla(64, n[3], 9 + n[4]),
        Family::DeepSeekV3 => ModelConfig::deepseek_v3(64, n[3], 9 + n[4]),
        _ => ModelConfig { family, ..ModelConfig::minimind2(64, n[3], 9 + n[4]) },
    };
    let rms_norm_eps = (x[0] * 1e3).round() / 1e8;
    let gqa = GqaConfig { num_key_value_heads: n[1], head_dim: 2 * n[5], qk_norm: family == Family::Qwen3 };
    let attention = match base.attention.clone() {
        AttentionConfig::Gqa(_) => AttentionConfig::Gqa(gqa),
        AttentionConfig::Mla(mla) => AttentionConfig::Mla(MlaConfig {
            kv_lora_rank: n[5],
            qk_nope_head_dim: n[6],
            qk_rope_head_dim: 2 * n[7],
            v_head_dim: n[8],
            ..match family {
                Family::NotesMla => MlaConfig { latent_norm_eps: rms_norm_eps, ..mla },
                _ => MlaConfig {
                    q_lora_rank: flags[0].then_some(n[9]),
                    rope_layout: if flags[1] { RopeLayout::Interleaved } else { RopeLayout::Halves },
                    ..mla
                },
            }
        }),
    };
    let config = ModelConfig {
        hidden_size: n[0] * 10,
        num_attention_heads: heads,
        attention,
        intermediate_size: n[10],
        max_position_embeddings: 1000 * n[11],
        rope_theta: 1.0 + (x[1] * 1e3).round(),
        rope_scaling,
        rms_norm_eps,
        hidden_act: if flags[2] { Activation::Gelu } else { Activation::Silu },
        tie_word_embeddings: flags[3],
        dropout: if flags[4] { 0.1 } else { 0.0 },
        bos_token_id: tokens[0],
        eos_token_id: tokens[1],
        pad_token_id: tokens[2],
        ..base
    };
    if !experts {
        return config;
    }
    let with = config.clone().with_experts();
    let moe = with.moe.unwrap();
    // These have one width for all networks.
    let narrow = matches!((family, minimind), (Family::Llama, true) | (Family::Mixtral, _));
    let dense = match family {
        Family::DeepSeekV3 => (0..n[12].min(n[3]) - 1).collect(),
        Family::Qwen3 if !minimind => (1..n[3]).filter(|layer| layer.is_multiple_of(n[12])).collect(),
        _ => Vec::new(),
    };
    let losses = [AuxLoss::None, AuxLoss::Sequence { alpha: x[2] }, AuxLoss::Token { alpha: x[2] }, AuxLoss::Switch { coef: x[2] }];
    let grouped = family == Family::DeepSeekV3 && flags[5];
    let moe = MoeConfig {
        num_experts: 2 * n[13],
        num_shared_experts: if matches!(family, Family::Llama | Family::DeepSeekV3) { n[14] } else { 0 },
        intermediate_size: if narrow { n[10] } else { n[15] },
        router: RouterConfig {
            top_k: 2,
            weights: if flags[0] && family != Family::Mixtral { WeightRule::Softmax } else { moe.router.weights },
            aux_loss: losses[n[0] % 4],
            groups: if grouped { n[13] } else { 1 },
            top_groups: if grouped { n[13].min(2) } else { 1 },
            scale: if family == Family::DeepSeekV3 { x[3] } else { 1.0 },
            ..moe.router
        },
        dense_layers: dense,
    };
    ModelConfig { moe: Some(moe), ..config }
}

proptest! {
    /// Rotary scalings are checked where the frequencies are made: they may be strange here.
    #[test]
    fn what_is_written_reads_back(config in any_config()) {
        config.validate().unwrap();
        let normalised = if config.family == Family::Qwen3 { &[Q_NORM][..] } else { &["model.norm.weight"] };
        prop_assert_eq!(read(config_to_json(&config), normalised).unwrap(), config);
    }
}

/// Both generations of the library find the rotary settings of what is written.
#[test]
fn what_is_written_has_the_names_of_both_generations() {
    let config = ModelConfig { rope_scaling: RopeScaling::Linear { factor: 3.0 }, ..ModelConfig::minimind3(64, 2, 9) };
    let json = config_to_json(&config);
    assert_eq!((&json["model_type"], &json["architectures"]), (&json!("qwen3"), &json!(["Qwen3ForCausalLM"])));
    for without in ["rope_scaling", "rope_parameters"] {
        let mut json = json.clone();
        json.as_object_mut().unwrap().remove(without);
        assert_eq!(read(json, &[]).unwrap(), config);
    }
}
