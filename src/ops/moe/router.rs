//! The router: scores each token for each expert, chooses k experts, and weighs them.
//!
//! `s = softmax(x · Wgᵀ)` or `sigmoid(x · Wgᵀ)` ([`Scoring`]), the k best by [`Routing::choose_within`], weights by [`WeightRule`],
//! all times a factor c. The choice is piecewise constant: gradient flows through the scores alone, by the weights and by the auxiliary
//! loss.
//!
//! Backward of the weights, with S = Σ s over a token's choices plus 1e-20: normalised `ds_i = c·(dw_i − Σ_j dw_j·s_j/S) / S`,
//! else `ds_i = c·dw_i`; scores that were not chosen get zero.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Routing;
use super::balance::{AuxLoss, balance};
use super::sigmoid::{shares, sigmoid};
use super::softmax::softmax;
use crate::ops::inputs;
use crate::ops::linear::linear;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::{Error, Result, with_float};

/// How a token's chosen experts are weighed.
///
/// A known trap: with one choice, normalised, the weight is always 1, so that the language model's loss gives the router no gradient
/// and only the auxiliary loss trains it (MiniMind-3 as published). [`WeightRule::NormalisedIfSeveral`] and [`WeightRule::Softmax`]
/// train it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightRule {
    /// `w = s / (Σ s + 1e-20)` over the chosen experts, whatever their number (Qwen3-MoE's and MiniMind-3's `norm_topk_prob: true`).
    Normalised,
    /// Normalised where k > 1, else `w = s` (MiniMind-2's `norm_topk_prob: true`).
    NormalisedIfSeveral,
    /// `w = s`, the scores as they are, of whichever [`Scoring`] (`norm_topk_prob: false`).
    Softmax,
}

impl WeightRule {
    /// Whether the weights of `top_k` choices are divided by their sum.
    pub fn normalises(self, top_k: usize) -> bool {
        match self {
            Self::Normalised => true,
            Self::NormalisedIfSeveral => top_k > 1,
            Self::Softmax => false,
        }
    }
}

/// Keeps the sum of scores from being zero.
pub(super) const SMALL: f64 = 1e-20;

/// How a token's scores come from its logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// Over the experts: their sum is 1.
    #[default]
    Softmax,
    /// Each expert by itself (DeepSeek-V3). The auxiliary losses then take the scores' shares of their sum over the experts.
    Sigmoid,
}

/// What the router does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RouterConfig {
    /// Experts that each token goes to, k.
    pub top_k: usize,
    /// What makes scores of logits.
    #[serde(default)]
    pub scoring: Scoring,
    /// How the experts are weighed.
    pub weights: WeightRule,
    /// What keeps the experts balanced.
    #[serde(default)]
    pub aux_loss: AuxLoss,
    /// Groups of experts, `n_group`; 1 is no grouping.
    #[serde(default = "one")]
    pub groups: usize,
    /// The groups that a token can choose from, the best for it, `topk_group`.
    #[serde(default = "one")]
    pub top_groups: usize,
    /// Multiplies all weights, `routed_scaling_factor`.
    #[serde(default = "unscaled")]
    pub scale: f64,
}

fn one() -> usize {
    1
}

fn unscaled() -> f64 {
    1.0
}

impl RouterConfig {
    /// Softmax over all experts without groups, weights times 1: the router of every family but DeepSeek's.
    pub fn softmax(top_k: usize, weights: WeightRule, aux_loss: AuxLoss) -> Self {
        Self { top_k, scoring: Scoring::Softmax, weights, aux_loss, groups: 1, top_groups: 1, scale: 1.0 }
    }

    /// An error that names the setting that makes no sense for `experts` experts.
    pub fn check(&self, experts: usize) -> Result<()> {
        let Self { top_k, groups, top_groups, scale, .. } = *self;
        let problem = if top_k == 0 || top_k > experts {
            format!("each token goes to {top_k} of {experts} experts: choose between 1 and {experts}")
        } else if groups == 0 || !experts.is_multiple_of(groups) {
            format!("{experts} experts cannot be divided into {groups} groups (n_group)")
        } else if groups > 1 && groups == experts {
            format!("{groups} groups (n_group) of one expert each: a group is ranked by its two best")
        } else if top_groups == 0 || top_groups > groups {
            format!("each token chooses from {top_groups} of {groups} groups (topk_group): choose between 1 and {groups}")
        } else if top_k > top_groups * (experts / groups) {
            let open = top_groups * (experts / groups);
            format!("each token goes to {top_k} experts, but {top_groups} of {groups} groups (topk_group) have only {open}")
        } else if !(scale.is_finite() && scale > 0.0) {
            format!("the factor of the experts' weights (routed_scaling_factor) must be positive, got {scale}")
        } else {
            return Ok(());
        };
        Err(Error::config(problem))
    }
}

/// The router's answer for N tokens.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The weight of each choice, `[N, k]`.
    pub weights: Var,
    /// The auxiliary loss, a scalar already multiplied by its weight; 0 where there is none.
    pub aux_loss: Var,
    /// The choices.
    pub routing: Arc<Routing>,
}

/// Routes `x` `[.., T, H]` (N tokens in sequences of T; `[N, H]` is one sequence) among E experts by `w_gate` `[E, H]`.
///
/// `correction` `[E]` (`e_score_correction_bias`; see [`super::balanced_correction`]) is added to the scores for the choice alone: the
/// weights do not see it, and no gradient flows to it. Neither it nor the groups bear on the auxiliary loss, which counts the k best of
/// the scores themselves (arXiv 2412.19437, equation 18).
///
/// An error where a setting does not fit E, as [`RouterConfig::check`] says.
pub fn router(tape: &mut Tape, x: &Var, w_gate: &Var, correction: Option<&Tensor>, config: &RouterConfig) -> Result<Routed> {
    config.check(w_gate.value().shape().rows())?;
    let logits = linear(tape, x, w_gate)?;
    route(tape, &logits, correction, config)
}

/// The router from its logits `[.., T, E]` on; what its kernels do.
pub(super) fn route(tape: &mut Tape, logits: &Var, correction: Option<&Tensor>, config: &RouterConfig) -> Result<Routed> {
    let scores = match config.scoring {
        Scoring::Softmax => softmax(tape, logits)?,
        Scoring::Sigmoid => sigmoid(tape, logits)?,
    };
    let routing = Routing::choose_within(scores.value(), correction, config.top_k, [config.groups, config.top_groups])?;
    let routing = Arc::new(routing);
    let normalise = config.weights.normalises(config.top_k);
    let weights = tape.apply(Weights { routing: routing.clone(), normalise, scale: config.scale }, &[&scores])?;
    let aux_loss = aux_loss(tape, &scores, &routing, correction.is_some(), config)?;
    Ok(Routed { weights, aux_loss, routing })
}

/// The auxiliary loss of tokens that were routed with these scores.
fn aux_loss(tape: &mut Tape, scores: &Var, routing: &Arc<Routing>, corrected: bool, config: &RouterConfig) -> Result<Var> {
    if config.aux_loss == AuxLoss::None {
        return balance(tape, scores, routing, AuxLoss::None);
    }
    let counted = if corrected || config.top_groups < config.groups {
        Arc::new(Routing::choose(scores.value(), config.top_k)?)
    } else {
        routing.clone()
    };
    match config.scoring {
        Scoring::Softmax => balance(tape, scores, &counted, config.aux_loss),
        Scoring::Sigmoid => {
            let shares = shares(tape, scores)?;
            balance(tape, &shares, &counted, config.aux_loss)
        }
    }
}

/// The chosen scores `[.., E]` → `[N, k]`, normalised or not, times `scale`; see the module.
struct Weights {
    routing: Arc<Routing>,
    normalise: bool,
    scale: f64,
}

impl Weights {
    /// Σ s + 1e-20 of a token whose scores are `scores`.
    fn sum<F: Float>(scores: &[F], choices: &[u32]) -> F {
        choices.iter().map(|&e| scores[e as usize]).sum::<F>() + F::of(SMALL)
    }
}

impl Op for Weights {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        "expert weights"
    }

    fn forward(&self, scores: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [scores] = inputs("expert weights", scores)?;
        let (experts, k) = (self.routing.experts(), self.routing.top_k());
        let weights = with_float!("expert weights", scores.dtype(), F => {
            let scale = F::of(self.scale);
            let rows = scores.data::<F>()?.chunks_exact(experts).zip(self.routing.choices().chunks_exact(k));
            Ok(Tensor::build::<F>([self.routing.tokens(), k], |weights| {
                for (weights, (scores, choices)) in weights.chunks_exact_mut(k).zip(rows) {
                    let divisor = if self.normalise { Self::sum(scores, choices) } else { F::of(1.0) };
                    weights.iter_mut().zip(choices).for_each(|(w, &e)| *w = scores[e as usize] / divisor * scale);
                }
            }))
        })?;
        Ok((vec![weights], scores.clone()))
    }

    fn backward(&self, scores: Tensor, dw: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dw)] = dw else { return Ok(()) };
        let (experts, k) = (self.routing.experts(), self.routing.top_k());
        with_float!("expert weights", dw.dtype(), F => {
            let scale = F::of(self.scale);
            let tokens = scores.data::<F>()?.chunks_exact(experts).zip(self.routing.choices().chunks_exact(k));
            let tokens = tokens.zip(dw.data::<F>()?.chunks_exact(k));
            sink.write::<F>(0, |ds, accumulate| {
                if !accumulate {
                    ds.fill(F::of(0.0));
                }
                for (ds, ((scores, choices), dw)) in ds.chunks_exact_mut(experts).zip(tokens) {
                    let (mut divisor, mut mean) = (F::of(1.0), F::of(0.0));
                    if self.normalise {
                        divisor = Self::sum(scores, choices);
                        mean = choices.iter().zip(dw).map(|(&e, &dw)| dw * (scores[e as usize] / divisor)).sum();
                    }
                    choices.iter().zip(dw).for_each(|(&e, &dw)| ds[e as usize] += (dw - mean) / divisor * scale);
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_gradients, random, random_f32};
    use crate::params::Gradients;

    fn config(top_k: usize, weights: WeightRule) -> RouterConfig {
        RouterConfig::softmax(top_k, weights, AuxLoss::None)
    }

    #[test]
    fn gradients_of_the_weights() {
        let routing = Arc::new(Routing::choose(&random([7, 4], 1), 3).unwrap());
        // Away from a sum of zero, as scores of a softmax are.
        let positive: Vec<f64> = random([7, 4], 2).data::<f64>().unwrap().iter().map(|x| x.abs() + 0.5).collect();
        for (normalise, scale) in [(true, 1.0), (false, 1.0), (true, 2.5), (false, 2.5)] {
            assert_gradients(&[Tensor::new([7, 4], positive.clone()).unwrap()], |tape, v| {
                let once = tape.apply(Weights { routing: routing.clone(), normalise, scale }, &[&v[0]])?;
                let twice = tape.apply(Weights { routing: routing.clone(), normalise, scale }, &[&v[0]])?;
                crate::ops::add::add(tape, &once, &twice)
            });
        }
    }

    #[test]
    fn weights_follow_the_rule() {
        let sums = |k, rule| -> Vec<f64> {
            let (x, w) = (random_f32([9, 6], 1).into(), random_f32([4, 6], 2).into());
            let routed = router(&mut Tape::inference(), &x, &w, None, &config(k, rule)).unwrap();
            assert_eq!(routed.aux_loss.value().item().unwrap(), 0.0);
            routed.weights.value().to_f64().unwrap().chunks_exact(k).map(|w| w.iter().sum()).collect()
        };
        let all_one = |sums: Vec<f64>| sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6);
        assert!(all_one(sums(1, WeightRule::Normalised)) && all_one(sums(2, WeightRule::Normalised)));
        assert!(!all_one(sums(1, WeightRule::NormalisedIfSeveral)) && all_one(sums(2, WeightRule::NormalisedIfSeveral)));
        assert!(!all_one(sums(1, WeightRule::Softmax)) && !all_one(sums(2, WeightRule::Softmax)));
        assert!(all_one(sums(4, WeightRule::Softmax)));
    }

    #[test]
    fn one_normalised_choice_leaves_the_router_without_gradient() {
        let norm = |rule| -> f64 {
            let mut tape = Tape::recording();
            let w = tape.input(random_f32([4, 6], 2));
            let routed = router(&mut tape, &random_f32([9, 6], 1).into(), &w, None, &config(1, rule)).unwrap();
            let ones = random_f32([1, 9], 3).into();
            let root = linear(&mut tape, &routed.weights.reshape([1, 9]).unwrap(), &ones).unwrap();
            let backward = tape.backward(&root, 1.0, &mut Gradients::none()).unwrap();
            backward.input(&w).unwrap().to_f64().unwrap().iter().map(|g| g * g).sum()
        };
        assert_eq!(norm(WeightRule::Normalised), 0.0);
        assert!(norm(WeightRule::NormalisedIfSeveral) > 1e-3);
        assert_eq!(norm(WeightRule::NormalisedIfSeveral), norm(WeightRule::Softmax));
    }

    #[test]
    fn scores_that_are_not_numbers_are_routed_and_seen() {
        let x = Tensor::new([2, 1], vec![f32::NAN, 1.0]).unwrap();
        let config = RouterConfig { aux_loss: AuxLoss::Token { alpha: 0.1 }, ..config(2, WeightRule::Normalised) };
        let routed = router(&mut Tape::inference(), &x.into(), &random_f32([3, 1], 1).into(), None, &config).unwrap();
        assert_eq!(routed.routing.choices()[..2], [0, 1]);
        let weights = routed.weights.value().to_f64().unwrap();
        assert!(weights[0].is_nan() && !weights[2].is_nan() && routed.aux_loss.value().item().unwrap().is_nan());
    }

    #[test]
    fn settings_that_do_not_fit_the_experts_are_named() {
        let (x, w): (Var, Var) = (random_f32([2, 6], 1).into(), random_f32([6, 6], 2).into());
        let two = config(2, WeightRule::Softmax);
        for (config, expected) in [
            (config(0, WeightRule::Softmax), "each token goes to 0 of 6 experts: choose between 1 and 6"),
            (config(7, WeightRule::Softmax), "each token goes to 7 of 6 experts: choose between 1 and 6"),
            (RouterConfig { groups: 0, ..two }, "6 experts cannot be divided into 0 groups (n_group)"),
            (RouterConfig { groups: 4, ..two }, "6 experts cannot be divided into 4 groups (n_group)"),
            (
                RouterConfig { groups: 6, top_groups: 3, ..two },
                "6 groups (n_group) of one expert each: a group is ranked by its two best",
            ),
            (
                RouterConfig { groups: 3, top_groups: 0, ..two },
                "each token chooses from 0 of 3 groups (topk_group): choose between 1 and 3",
            ),
            (
                RouterConfig { groups: 3, top_groups: 4, ..two },
                "each token chooses from 4 of 3 groups (topk_group): choose between 1 and 3",
            ),
            (
                RouterConfig { top_k: 3, groups: 3, ..two },
                "each token goes to 3 experts, but 1 of 3 groups (topk_group) have only 2",
            ),
            (
                RouterConfig { scale: 0.0, ..two },
                "the factor of the experts' weights (routed_scaling_factor) must be positive, got 0",
            ),
        ] {
            let error = router(&mut Tape::inference(), &x, &w, None, &config).unwrap_err().to_string();
            assert_eq!(error, expected);
        }
        let error = router(&mut Tape::inference(), &x, &w, Some(&random_f32([5], 3)), &two).unwrap_err().to_string();
        assert_eq!(error, "routing: `correction` has shape [5], expected [6]");
    }

    #[test]
    fn a_correction_bears_on_the_choice_alone() {
        let (x, w): (Var, Var) = (random_f32([9, 6], 1).into(), random_f32([4, 6], 2).into());
        let correction = Tensor::new([4], vec![0.0f32, -2.0, 2.0, 0.0]).unwrap();
        for scoring in [Scoring::Softmax, Scoring::Sigmoid] {
            let config = RouterConfig { scoring, aux_loss: AuxLoss::Token { alpha: 0.1 }, ..config(2, WeightRule::Softmax) };
            let route = |correction| router(&mut Tape::inference(), &x, &w, correction, &config).unwrap();
            let (plain, corrected) = (route(None), route(Some(&correction)));
            assert_eq!(corrected.routing.counts()[1..3], [0, 9]);
            assert_ne!(plain.routing.counts()[1..3], [0, 9]);
            assert_eq!(corrected.aux_loss.value().item().unwrap(), plain.aux_loss.value().item().unwrap());
            let all = router(&mut Tape::inference(), &x, &w, None, &RouterConfig { top_k: 4, ..config }).unwrap();
            let scores = |routed: &Routed| -> Vec<Vec<(u32, u64)>> {
                let weights = routed.weights.value().to_f64().unwrap();
                let pairs = routed.routing.choices().iter().copied().zip(weights.iter().map(|w| w.to_bits()));
                pairs.collect::<Vec<_>>().chunks_exact(routed.routing.top_k()).map(<[_]>::to_vec).collect()
            };
            for (all, chosen) in scores(&all).iter().zip(scores(&corrected)) {
                assert!(chosen.iter().all(|choice| all.contains(choice)));
            }
        }
    }

    #[test]
    fn settings_read_as_written() {
        let text = r#"{"top_k": 2, "weights": "normalised-if-several", "aux_loss": {"form": "switch", "coef": 0.0005}}"#;
        let expected = RouterConfig { aux_loss: AuxLoss::Switch { coef: 5e-4 }, ..config(2, WeightRule::NormalisedIfSeveral) };
        assert_eq!(serde_json::from_str::<RouterConfig>(text).unwrap(), expected);
        let without = r#"{"top_k": 1, "weights": "softmax"}"#;
        assert_eq!(serde_json::from_str::<RouterConfig>(without).unwrap(), config(1, WeightRule::Softmax));
        let deepseek = r#"{"top_k": 8, "weights": "normalised", "scoring": "sigmoid", "groups": 8, "top_groups": 4, "scale": 2.5}"#;
        let expected =
            RouterConfig { scoring: Scoring::Sigmoid, groups: 8, top_groups: 4, scale: 2.5, ..config(8, WeightRule::Normalised) };
        assert_eq!(serde_json::from_str::<RouterConfig>(deepseek).unwrap(), expected);
    }
}
