//! The router: scores each token for each expert, chooses k experts, and weighs them.
//!
//! `s = softmax(x · Wgᵀ)`, the k best by [`Routing::choose`], weights by [`WeightRule`]. The choice is piecewise constant: gradient
//! flows through the scores alone, by the weights and by the auxiliary loss.
//!
//! Backward of the weights, with S = Σ s over a token's choices plus 1e-20: normalised `ds_i = (dw_i − Σ_j dw_j·w_j) / S`,
//! else `ds_i = dw_i`; scores that were not chosen get zero.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Routing;
use super::balance::{AuxLoss, balance};
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
    /// `w = s` (`norm_topk_prob: false`).
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

/// What the router does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RouterConfig {
    /// Experts that each token goes to, k.
    pub top_k: usize,
    /// How they are weighed.
    pub weights: WeightRule,
    /// What keeps the experts balanced.
    #[serde(default)]
    pub aux_loss: AuxLoss,
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
/// An error where k is 0 or more than E.
pub fn router(tape: &mut Tape, x: &Var, w_gate: &Var, config: &RouterConfig) -> Result<Routed> {
    let experts = w_gate.value().shape().rows();
    if config.top_k == 0 || config.top_k > experts {
        return Err(Error::config(format!(
            "each token goes to {} of {experts} experts: choose between 1 and {experts}",
            config.top_k
        )));
    }
    let logits = linear(tape, x, w_gate)?;
    let scores = softmax(tape, &logits)?;
    let routing = Arc::new(Routing::choose(scores.value(), config.top_k)?);
    let normalise = config.weights.normalises(config.top_k);
    let weights = tape.apply(Weights { routing: routing.clone(), normalise }, &[&scores])?;
    let aux_loss = balance(tape, &scores, &routing, config.aux_loss)?;
    Ok(Routed { weights, aux_loss, routing })
}

/// The chosen scores `[.., E]` → `[N, k]`, normalised or not; see the module.
struct Weights {
    routing: Arc<Routing>,
    normalise: bool,
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
            let rows = scores.data::<F>()?.chunks_exact(experts).zip(self.routing.choices().chunks_exact(k));
            Ok(Tensor::build::<F>([self.routing.tokens(), k], |weights| {
                for (weights, (scores, choices)) in weights.chunks_exact_mut(k).zip(rows) {
                    let divisor = if self.normalise { Self::sum(scores, choices) } else { F::of(1.0) };
                    weights.iter_mut().zip(choices).for_each(|(w, &e)| *w = scores[e as usize] / divisor);
                }
            }))
        })?;
        Ok((vec![weights], scores.clone()))
    }

    fn backward(&self, scores: Tensor, dw: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dw)] = dw else { return Ok(()) };
        let (experts, k) = (self.routing.experts(), self.routing.top_k());
        with_float!("expert weights", dw.dtype(), F => {
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
                    choices.iter().zip(dw).for_each(|(&e, &dw)| ds[e as usize] += (dw - mean) / divisor);
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
        RouterConfig { top_k, weights, aux_loss: AuxLoss::None }
    }

    #[test]
    fn gradients_of_the_weights() {
        let routing = Arc::new(Routing::choose(&random([7, 4], 1), 3).unwrap());
        // Away from a sum of zero, as scores of a softmax are.
        let positive: Vec<f64> = random([7, 4], 2).data::<f64>().unwrap().iter().map(|x| x.abs() + 0.5).collect();
        for normalise in [true, false] {
            assert_gradients(&[Tensor::new([7, 4], positive.clone()).unwrap()], |tape, v| {
                let once = tape.apply(Weights { routing: routing.clone(), normalise }, &[&v[0]])?;
                let twice = tape.apply(Weights { routing: routing.clone(), normalise }, &[&v[0]])?;
                crate::ops::add::add(tape, &once, &twice)
            });
        }
    }

    #[test]
    fn weights_follow_the_rule() {
        let sums = |k, rule| -> Vec<f64> {
            let (x, w) = (random_f32([9, 6], 1).into(), random_f32([4, 6], 2).into());
            let routed = router(&mut Tape::inference(), &x, &w, &config(k, rule)).unwrap();
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
            let routed = router(&mut tape, &random_f32([9, 6], 1).into(), &w, &config(1, rule)).unwrap();
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
        let routed = router(&mut Tape::inference(), &x.into(), &random_f32([3, 1], 1).into(), &config).unwrap();
        assert_eq!(routed.routing.choices()[..2], [0, 1]);
        let weights = routed.weights.value().to_f64().unwrap();
        assert!(weights[0].is_nan() && !weights[2].is_nan() && routed.aux_loss.value().item().unwrap().is_nan());
    }

    #[test]
    fn a_wrong_number_of_choices_is_refused() {
        let (x, w): (Var, Var) = (random_f32([2, 6], 1).into(), random_f32([4, 6], 2).into());
        for k in [0, 5] {
            let error = router(&mut Tape::inference(), &x, &w, &config(k, WeightRule::Softmax)).unwrap_err().to_string();
            assert_eq!(error, format!("each token goes to {k} of 4 experts: choose between 1 and 4"));
        }
    }

    #[test]
    fn settings_read_as_written() {
        let text = r#"{"top_k": 2, "weights": "normalised-if-several", "aux_loss": {"form": "switch", "coef": 0.0005}}"#;
        let expected = RouterConfig { aux_loss: AuxLoss::Switch { coef: 5e-4 }, ..config(2, WeightRule::NormalisedIfSeveral) };
        assert_eq!(serde_json::from_str::<RouterConfig>(text).unwrap(), expected);
        let without = r#"{"top_k": 1, "weights": "softmax"}"#;
        assert_eq!(serde_json::from_str::<RouterConfig>(without).unwrap(), config(1, WeightRule::Softmax));
    }
}
