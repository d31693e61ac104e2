//! The mixtures of experts of a `config.json`.

use serde_json::{Value, json};

use super::class::Class;
use super::fields::Fields;
use crate::Result;
use crate::model::MoeConfig;
use crate::ops::moe::{AuxLoss, RouterConfig, Scoring, WeightRule};

/// What a class is where its file leaves fields out, and what it calls them.
struct Defaults {
    /// Both names of the number of experts, and the number.
    num_experts: ([&'static str; 2], usize),
    num_experts_per_tok: usize,
    /// Width inside an expert; none where it is the model's `intermediate_size`.
    moe_intermediate_size: Option<usize>,
    norm_topk_prob: bool,
    aux_loss: AuxLoss,
}

fn defaults(class: Class, intermediate_size: usize) -> Option<Defaults> {
    // Transformers 5 writes the number of experts under the name that all its classes share.
    let qwen3 = Defaults {
        num_experts: (["num_experts", "num_local_experts"], 128),
        num_experts_per_tok: 8,
        moe_intermediate_size: Some(768),
        norm_topk_prob: false,
        aux_loss: AuxLoss::Switch { coef: 1e-3 },
    };
    match class {
        Class::MiniMind2 => Some(Defaults {
            num_experts: (["n_routed_experts", "num_local_experts"], 4),
            num_experts_per_tok: 2,
            moe_intermediate_size: None,
            norm_topk_prob: true,
            aux_loss: AuxLoss::Sequence { alpha: 0.1 },
        }),
        Class::MiniMind3 => Some(Defaults {
            num_experts: (qwen3.num_experts.0, 4),
            num_experts_per_tok: 1,
            moe_intermediate_size: Some(intermediate_size),
            norm_topk_prob: true,
            aux_loss: AuxLoss::Switch { coef: 5e-4 },
        }),
        Class::Qwen3Moe => Some(qwen3),
        Class::Mixtral => Some(Defaults {
            num_experts: (["num_local_experts", "num_experts"], 8),
            num_experts_per_tok: 2,
            moe_intermediate_size: None,
            norm_topk_prob: true,
            ..qwen3
        }),
        Class::DeepSeekV3 => Some(Defaults {
            num_experts: (["n_routed_experts", "num_local_experts"], 256),
            num_experts_per_tok: 8,
            moe_intermediate_size: Some(2048),
            norm_topk_prob: true,
            aux_loss: AuxLoss::None,
        }),
        Class::Llama | Class::Qwen3 | Class::NotesMla => None,
    }
}

/// The experts of a model of this many layers; none where every layer is dense.
pub(super) fn read(fields: &Fields, class: Class, layers: usize, intermediate_size: usize) -> Result<Option<MoeConfig>> {
    let Some(default) = defaults(class, intermediate_size) else { return Ok(None) };
    if class.own_form() && !fields.bool("use_moe")?.unwrap_or(false) {
        return Ok(None);
    }
    let num_experts = fields.usize_of(default.num_experts.0)?.unwrap_or(default.num_experts.1);
    let dense_layers = dense_layers(fields, class, layers)?;
    if dense_layers.len() == layers || (class == Class::Qwen3Moe && num_experts == 0) {
        return Ok(None);
    }
    let normalised = match class {
        Class::Mixtral => true,
        _ => fields.bool("norm_topk_prob")?.unwrap_or(default.norm_topk_prob),
    };
    let sigmoid = class == Class::DeepSeekV3;
    // Only this class has groups and a factor.
    let or = |name: &str, value: usize| if sigmoid { Ok(fields.usize(name)?.unwrap_or(value)) } else { Ok::<_, crate::Error>(1) };
    let width = match default.moe_intermediate_size {
        Some(width) => fields.usize("moe_intermediate_size")?.unwrap_or(width),
        None => intermediate_size,
    };
    Ok(Some(MoeConfig {
        num_experts,
        num_shared_experts: match class {
            Class::MiniMind2 | Class::DeepSeekV3 => fields.usize("n_shared_experts")?.unwrap_or(1),
            _ => 0,
        },
        intermediate_size: width,
        router: RouterConfig {
            top_k: fields.usize("num_experts_per_tok")?.unwrap_or(default.num_experts_per_tok),
            scoring: if sigmoid { Scoring::Sigmoid } else { Scoring::Softmax },
            weights: match (class, normalised) {
                (_, false) => WeightRule::Softmax,
                (Class::MiniMind2, true) => WeightRule::NormalisedIfSeveral,
                (_, true) => WeightRule::Normalised,
            },
            aux_loss: aux_loss(fields, default.aux_loss)?,
            groups: or("n_group", 8)?,
            top_groups: or("topk_group", 4)?,
            scale: if sigmoid { fields.f64("routed_scaling_factor")?.unwrap_or(2.5) } else { 1.0 },
        },
        dense_layers,
    }))
}

/// The layers without experts.
fn dense_layers(fields: &Fields, class: Class, layers: usize) -> Result<Vec<usize>> {
    match class {
        Class::DeepSeekV3 => Ok((0..fields.usize("first_k_dense_replace")?.unwrap_or(3).min(layers)).collect()),
        Class::Qwen3Moe => {
            let (dense, step) = (fields.list("mlp_only_layers")?, fields.usize("decoder_sparse_step")?.unwrap_or(1));
            if step == 0 {
                return Err(fields.unsupported("decoder_sparse_step", "1 and more"));
            }
            Ok((0..layers).filter(|layer| dense.contains(layer) || !(layer + 1).is_multiple_of(step)).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// MiniMind-2 and DeepSeek name the form of the loss beside its weight; the others have one form.
fn aux_loss(fields: &Fields, default: AuxLoss) -> Result<AuxLoss> {
    let loss = match (fields.f64("aux_loss_alpha")?, fields.f64("router_aux_loss_coef")?, default) {
        (None, None, default @ (AuxLoss::None | AuxLoss::Switch { .. })) => default,
        (None, Some(coef), _) => AuxLoss::Switch { coef },
        (alpha, None | Some(0.0), default) => {
            let alpha = alpha.unwrap_or(default.factor());
            if fields.bool("seq_aux")?.unwrap_or(true) { AuxLoss::Sequence { alpha } } else { AuxLoss::Token { alpha } }
        }
        (Some(_), Some(_), _) => {
            return Err(fields
                .error("`aux_loss_alpha` and `router_aux_loss_coef` are both set: the losses of two families; supported is one"));
        }
    };
    let factor = loss.factor();
    if !(factor.is_finite() && factor >= 0.0) {
        return Err(fields.error(format!("the weight of the auxiliary loss is {factor}, expected 0 or more")));
    }
    Ok(if factor == 0.0 { AuxLoss::None } else { loss })
}

/// Adds the experts under the class's names.
pub(super) fn write(json: &mut Value, class: Class, moe: &MoeConfig) {
    let router = &moe.router;
    let normalised = match router.weights {
        WeightRule::NormalisedIfSeveral => class == Class::MiniMind2 || router.top_k > 1,
        rule => rule.normalises(router.top_k),
    };
    json["num_experts_per_tok"] = router.top_k.into();
    match class {
        Class::DeepSeekV3 => {
            json["n_group"] = router.groups.into();
            json["topk_group"] = router.top_groups.into();
            json["routed_scaling_factor"] = router.scale.into();
            json["first_k_dense_replace"] = moe.dense_layers.len().into();
        }
        Class::Qwen3Moe => {
            json["decoder_sparse_step"] = 1.into();
            json["mlp_only_layers"] = json!(moe.dense_layers);
        }
        _ => {}
    }
    if let Some(default) = defaults(class, moe.intermediate_size) {
        json[default.num_experts.0[0]] = moe.num_experts.into();
        if default.moe_intermediate_size.is_some() {
            json["moe_intermediate_size"] = moe.intermediate_size.into();
        }
    }
    if class != Class::Mixtral {
        json["norm_topk_prob"] = normalised.into();
    }
    if matches!(class, Class::MiniMind2 | Class::DeepSeekV3) {
        json["n_shared_experts"] = moe.num_shared_experts.into();
        json["scoring_func"] = if router.scoring == Scoring::Sigmoid { "sigmoid" } else { "softmax" }.into();
    }
    match router.aux_loss {
        AuxLoss::Sequence { alpha } | AuxLoss::Token { alpha } => {
            json["aux_loss_alpha"] = alpha.into();
            json["seq_aux"] = (!matches!(router.aux_loss, AuxLoss::Token { .. })).into();
        }
        loss => json["router_aux_loss_coef"] = loss.factor().into(),
    }
}
