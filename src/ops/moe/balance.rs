//! What keeps the experts evenly loaded: auxiliary losses, all of them a multiple of the same sum, or a correction of the choice.
//!
//! In a group of T tokens let `f_e` be the fraction of its T·k slots that chose expert e, and `P_e` the mean of its scores s[t, e].
//! `L = scale · mean over groups of Σ_e f_e·P_e`, which for even loads is `scale / E`. The published forms ([`AuxLoss`]) are
//!
//! | form | group | published formula | scale |
//! |---|---|---|---|
//! | sequence | one row of the batch | `α · mean_b Σ_e count[b,e] / (T·k/E) · P_e` | `α·E` |
//! | token | all tokens | `α · Σ_e E·f_e·P_e` | `α·E` |
//! | switch | all tokens | `coef · E · Σ_{j,e} load[j,e]·P_e`, `load[j,e]` the share of tokens whose j-th choice is e | `coef·E·k` |
//!
//! since `Σ_j load[j,e] = k·f_e`: switch is the token form with `α = coef·k`. (Switch Transformer, Fedus et al. 2021, arXiv 2101.03961,
//! has k = 1, where the two are one.)
//!
//! Backward: `ds[t, e] = dL · scale / (groups·T) · f_e`; the fractions are counts, which no gradient flows through.
//! Sums are in f64, in the order of the tokens. Saved: the fractions. DeepSeek-V3's loss (arXiv 2412.19437, equations 17 to 20) is the
//! sequence form of the shares of its scores.
//!
//! [`balanced_correction`] needs no loss: it is done after each step of the optimizer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Routing;
use crate::Result;
use crate::ops::{inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// Which auxiliary loss is added to the language model's; the formulas are in the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum AuxLoss {
    /// None: nothing keeps the experts balanced.
    #[default]
    None,
    /// Each sequence by itself, and the mean over them (MiniMind-2's `seq_aux: true`).
    Sequence {
        /// The weight, MiniMind-2's `aux_loss_alpha`.
        alpha: f64,
    },
    /// Over all tokens of the batch (MiniMind-2's `seq_aux: false`).
    Token {
        /// The weight, MiniMind-2's `aux_loss_alpha`.
        alpha: f64,
    },
    /// Over all tokens, without a division by k (MiniMind-3).
    Switch {
        /// The weight, MiniMind-3's `router_aux_loss_coef`.
        coef: f64,
    },
}

impl AuxLoss {
    /// The weight as it is published; 0 where there is no loss.
    pub fn factor(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Sequence { alpha } | Self::Token { alpha } => alpha,
            Self::Switch { coef } => coef,
        }
    }

    /// Tokens of a group and the module's `scale`, for so many `tokens` in sequences of `sequence` each; nothing where there is no loss.
    pub(super) fn group_and_scale(self, [sequence, tokens]: [usize; 2], experts: usize, top_k: usize) -> Option<(usize, f64)> {
        let (group, scale) = match self {
            Self::None => return None,
            Self::Sequence { alpha } => (sequence, alpha),
            Self::Token { alpha } => (tokens, alpha),
            Self::Switch { coef } => (tokens, coef * top_k as f64),
        };
        Some((group, scale * experts as f64))
    }
}

/// One step of balancing without a loss (Wang et al. 2024, arXiv 2408.15664, algorithm 1): the correction `[E]` of an expert that
/// `counts` `[E]` less than the mean goes up by `speed`, that of one that counts more goes down. (DeepSeek-V3's speed is 0.001.)
pub fn balanced_correction(correction: &mut [f32], counts: &[usize], speed: f64) {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    for (correction, &count) in correction.iter_mut().zip(counts) {
        let missing = mean - count as f64;
        if missing != 0.0 {
            *correction += (speed * missing.signum()) as f32;
        }
    }
}

/// The operation; see the module.
struct Balance {
    routing: Arc<Routing>,
    /// Tokens of a group.
    group: usize,
    scale: f64,
}

/// `scores` `[.., T, E]` of the tokens that were routed → the loss, a scalar that is already multiplied by its weight.
pub fn balance(tape: &mut Tape, scores: &Var, routing: &Arc<Routing>, aux_loss: AuxLoss) -> Result<Var> {
    let shape = scores.value().shape();
    let (tokens, experts) = (routing.tokens(), routing.experts());
    if shape.cols() != experts || shape.rows() != tokens || tokens == 0 {
        let expected = format!("[.., T, {experts}] with the {} tokens that were routed", tokens.max(1));
        return Err(shape_error("balance", "scores", scores.value(), expected));
    }
    let sequence = shape.dims().iter().rev().nth(1).copied().unwrap_or(1);
    let Some((group, scale)) = aux_loss.group_and_scale([sequence, tokens], experts, routing.top_k()) else {
        return with_float!("balance", scores.value().dtype(), F => Ok(Tensor::scalar(F::of(0.0)).into()));
    };
    tape.apply(Balance { routing: routing.clone(), group, scale }, &[scores])
}

impl Op for Balance {
    /// The fraction of each group's slots that chose each expert, `[groups, E]`.
    type Saved = Vec<f64>;

    fn name(&self) -> &'static str {
        "balance"
    }

    fn forward(&self, scores: &[&Tensor]) -> Result<(Vec<Tensor>, Vec<f64>)> {
        let [scores] = inputs("balance", scores)?;
        let (experts, slots) = (self.routing.experts(), self.group * self.routing.top_k());
        let groups = self.routing.choices().chunks_exact(slots);
        let mut fractions = vec![0.0; groups.len() * experts];
        for (fractions, choices) in fractions.chunks_exact_mut(experts).zip(groups) {
            choices.iter().for_each(|&e| fractions[e as usize] += 1.0);
            fractions.iter_mut().for_each(|f| *f /= slots as f64);
        }
        let loss = with_float!("balance", scores.dtype(), F => {
            let scores = scores.data::<F>()?.chunks_exact(self.group * experts).zip(fractions.chunks_exact(experts));
            let sum: f64 = scores
                .flat_map(|(scores, fractions)| scores.chunks_exact(experts).flat_map(move |s| s.iter().zip(fractions)))
                .map(|(s, f)| s.f64() * f)
                .sum();
            Ok(Tensor::scalar(F::of(self.scale / self.routing.tokens() as f64 * sum)))
        })?;
        Ok((vec![loss], fractions))
    }

    fn backward(&self, fractions: Vec<f64>, dl: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dl)] = dl else { return Ok(()) };
        let experts = self.routing.experts();
        let factor = dl.item()? * self.scale / self.routing.tokens() as f64;
        with_float!("balance", dl.dtype(), F => {
            sink.write::<F>(0, |ds, accumulate| {
                for (ds, fractions) in ds.chunks_exact_mut(self.group * experts).zip(fractions.chunks_exact(experts)) {
                    for ds in ds.chunks_exact_mut(experts) {
                        for (ds, f) in ds.iter_mut().zip(fractions) {
                            let gradient = F::of(factor * f);
                            *ds = if accumulate { *ds + gradient } else { gradient };
                        }
                    }
                }
            })
        })
    }
}

/// The published formulas in plain loops, each as it stands in the table above: `scores` `[B, T, E]` and the `choices` of each token
/// `[B, T, k]`.
pub fn reference<F: Float>(scores: &[F], choices: &[usize], [b, t, e]: [usize; 3], top_k: usize, aux_loss: AuxLoss) -> F {
    let of = |x: usize| F::of(x as f64);
    let n = b * t;
    let chose = |token: usize, j: usize, expert: usize| if choices[token * top_k + j] == expert { F::of(1.0) } else { F::of(0.0) };
    let mean_score = |expert: usize| (0..n).map(|token| scores[token * e + expert]).sum::<F>() / of(n);
    let slots = (0..n).flat_map(|token| (0..top_k).map(move |j| (token, j)));
    match aux_loss {
        AuxLoss::None => F::of(0.0),
        AuxLoss::Sequence { alpha } => {
            let mut sum = F::of(0.0);
            for row in 0..b {
                for expert in 0..e {
                    let count: F =
                        slots.clone().filter(|(token, _)| token / t == row).map(|(token, j)| chose(token, j, expert)).sum();
                    let mean = (0..t).map(|i| scores[(row * t + i) * e + expert]).sum::<F>() / of(t);
                    sum += count / (of(t * top_k) / of(e)) * mean;
                }
            }
            F::of(alpha) * sum / of(b)
        }
        AuxLoss::Token { alpha } => {
            let fraction = |expert| slots.clone().map(|(token, j)| chose(token, j, expert)).sum::<F>() / of(n * top_k);
            F::of(alpha) * (0..e).map(|expert| of(e) * fraction(expert) * mean_score(expert)).sum()
        }
        AuxLoss::Switch { coef } => {
            let load = |j, expert| (0..n).map(|token| chose(token, j, expert)).sum::<F>() / of(n);
            let pairs = (0..top_k).flat_map(|j| (0..e).map(move |expert| (j, expert)));
            F::of(coef) * of(e) * pairs.map(|(j, expert)| load(j, expert) * mean_score(expert)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::moe::softmax::softmax;
    use crate::ops::testing::{assert_gradients, random};

    const FORMS: [AuxLoss; 4] =
        [AuxLoss::None, AuxLoss::Sequence { alpha: 0.1 }, AuxLoss::Token { alpha: 0.3 }, AuxLoss::Switch { coef: 0.02 }];

    /// Scores `[b, t, e]`, and the loss of routing by them.
    fn value(shape: [usize; 3], k: usize, aux_loss: AuxLoss) -> (Tensor, Arc<Routing>, f64) {
        let tape = &mut Tape::inference();
        let scores = softmax(tape, &random(shape, 1).into()).unwrap();
        let routing = Arc::new(Routing::choose(scores.value(), k).unwrap());
        let loss = balance(tape, &scores, &routing, aux_loss).unwrap();
        (scores.value().clone(), routing, loss.value().item().unwrap())
    }

    #[test]
    fn every_form_equals_its_published_formula() {
        for (shape, k) in [([1, 1, 1], 1), ([3, 5, 4], 2), ([2, 17, 5], 1), ([4, 3, 3], 3)] {
            for form in FORMS {
                let (scores, routing, loss) = value(shape, k, form);
                let choices: Vec<usize> = routing.choices().iter().map(|&e| e as usize).collect();
                let expected = reference(&scores.to_f64().unwrap(), &choices, shape, k, form);
                assert!((loss - expected).abs() <= 1e-14 * expected, "{form:?}: {loss} instead of {expected}");
            }
        }
    }

    #[test]
    fn the_forms_differ_where_the_formulas_do() {
        let loss = |form| value([3, 5, 4], 2, form).2;
        let (token, switch) = (loss(AuxLoss::Token { alpha: 1.0 }), loss(AuxLoss::Switch { coef: 1.0 }));
        assert!((switch - 2.0 * token).abs() < 1e-14);
        assert!((loss(AuxLoss::Sequence { alpha: 1.0 }) - token).abs() > 1e-3);
    }

    #[test]
    fn gradients() {
        let routing = Arc::new(Routing::choose(&random([3, 5, 4], 1), 2).unwrap());
        for form in &FORMS[1..] {
            assert_gradients(&[random([3, 5, 4], 2)], |tape, v| balance(tape, &v[0], &routing, *form));
        }
    }

    #[test]
    fn a_correction_moves_towards_the_mean() {
        let mut correction = [0.5, 0.5, 0.5, -0.25];
        balanced_correction(&mut correction, &[3, 5, 4, 4], 0.125);
        assert_eq!(correction, [0.625, 0.375, 0.5, -0.25]);
        balanced_correction(&mut correction, &[0, 0, 0, 7], 0.125);
        assert_eq!(correction, [0.75, 0.5, 0.625, -0.375]);
    }

    /// Experts of very different scores share the tokens after enough steps.
    #[test]
    fn a_correction_balances_the_load() {
        let bias = [0.6, 0.3, 0.0, -0.3];
        let scores: Vec<f64> =
            random([200, 4], 1).to_f64().unwrap().iter().enumerate().map(|(i, x)| x * 0.1 + bias[i % 4]).collect();
        let scores = Tensor::new([200, 4], scores).unwrap();
        let mut correction = [0.0f32; 4];
        let mut load = |steps| {
            for _ in 0..steps {
                let tensor = Tensor::new([4], correction.to_vec()).unwrap();
                let counts = Routing::choose_within(&scores, Some(&tensor), 1, [1, 1]).unwrap().counts();
                balanced_correction(&mut correction, &counts, 0.002);
            }
            let tensor = Tensor::new([4], correction.to_vec()).unwrap();
            Routing::choose_within(&scores, Some(&tensor), 1, [1, 1]).unwrap().counts()
        };
        assert!(load(0)[0] > 190);
        assert!(load(400).iter().all(|count| (40..=60).contains(count)), "{:?}", load(0));
    }

    #[test]
    fn settings_read_as_written() {
        let form: AuxLoss = serde_json::from_str(r#"{"form": "sequence", "alpha": 0.1}"#).unwrap();
        assert_eq!(form, AuxLoss::Sequence { alpha: 0.1 });
        assert_eq!(serde_json::to_string(&AuxLoss::None).unwrap(), r#"{"form":"none"}"#);
    }
}
