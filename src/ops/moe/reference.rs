//! The whole layer in plain loops, token by token and expert by expert: what the chain of operations is checked against.

use super::balance;
use super::router::{RouterConfig, SMALL, Scoring};
use crate::ops::gated::{Activation, reference_activation};
use crate::tensor::Float;

/// A feed-forward network `down(act(gate(x)) ⊙ up(x))`.
#[derive(Debug, Clone, Copy)]
pub struct FeedForward<'a, F> {
    /// `[I, H]`.
    pub gate: &'a [F],
    /// `[I, H]`.
    pub up: &'a [F],
    /// `[H, I]`.
    pub down: &'a [F],
}

/// A layer of E routed experts, and any number that all tokens share.
#[derive(Debug, Clone)]
pub struct Layer<'a, F> {
    /// The router's weight, `[E, H]`.
    pub router: &'a [F],
    /// What is added to the scores for the choice alone, `[E]` or nothing.
    pub correction: &'a [F],
    /// The routed experts, E of them.
    pub experts: Vec<FeedForward<'a, F>>,
    /// The experts that every token goes to, with weight 1.
    pub shared: Vec<FeedForward<'a, F>>,
    /// The activation of all gates.
    pub activation: Activation,
    /// Choices, weights, auxiliary loss.
    pub config: RouterConfig,
}

/// ⟨a, b⟩.
fn dot<F: Float>(a: &[F], b: &[F]) -> F {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

impl<F: Float> FeedForward<'_, F> {
    /// Adds `weight · FFN(x)` to `y`, both `[H]`.
    fn add_to(&self, y: &mut [F], weight: F, x: &[F], activation: Activation) {
        let rows = self.gate.chunks_exact(x.len()).zip(self.up.chunks_exact(x.len()));
        let hidden: Vec<F> = rows.map(|(gate, up)| reference_activation(dot(gate, x), activation) * dot(up, x)).collect();
        for (y, down) in y.iter_mut().zip(self.down.chunks_exact(hidden.len())) {
            *y += weight * dot(down, &hidden);
        }
    }
}

/// The indices of `values`, the best first; stable: ties stay in the order of the index.
fn ranked<F: Float>(values: &[F]) -> Vec<usize> {
    let mut ranked: Vec<usize> = (0..values.len()).collect();
    ranked.sort_by(|&a, &b| values[b].f64().total_cmp(&values[a].f64()));
    ranked
}

impl<F: Float> Layer<'_, F> {
    /// The experts of a token with the scores `s`, the best first.
    fn choose(&self, s: &[F]) -> Vec<usize> {
        let mut corrected = s.to_vec();
        corrected.iter_mut().zip(self.correction).for_each(|(s, &c)| *s += c);
        let groups: Vec<F> = corrected
            .chunks_exact(s.len() / self.config.groups)
            .map(|group| ranked(group).iter().take(2).map(|&e| group[e]).sum())
            .collect();
        for &out in &ranked(&groups)[self.config.top_groups..] {
            corrected
                .chunks_exact_mut(s.len() / self.config.groups)
                .nth(out)
                .into_iter()
                .flatten()
                .for_each(|s| *s = F::of(f64::NEG_INFINITY));
        }
        let mut best = ranked(&corrected);
        best.truncate(self.config.top_k);
        best
    }

    /// `x` `[B, T, H]` → the layer's output `[B, T, H]` and its auxiliary loss.
    pub fn forward(&self, x: &[F], [b, t, h]: [usize; 3]) -> (Vec<F>, F) {
        let (experts, k) = (self.experts.len(), self.config.top_k);
        let (mut y, mut shares, mut counted) = (vec![F::of(0.0); x.len()], Vec::new(), Vec::new());
        for (x, y) in x.chunks_exact(h).zip(y.chunks_exact_mut(h)) {
            let logits: Vec<F> = self.router.chunks_exact(h).map(|w| dot(w, x)).collect();
            let (s, balanced) = match self.config.scoring {
                Scoring::Softmax => {
                    let mut s = vec![F::of(0.0); experts];
                    super::softmax::reference(&logits, experts, &mut s);
                    (s.clone(), s)
                }
                Scoring::Sigmoid => super::sigmoid::reference(&logits),
            };
            let best = self.choose(&s);

            let sum = best.iter().map(|&e| s[e]).sum::<F>() + F::of(SMALL);
            for &e in &best {
                let weight = if self.config.weights.normalises(k) { s[e] / sum } else { s[e] };
                self.experts[e].add_to(y, F::of(self.config.scale) * weight, x, self.activation);
            }
            for shared in &self.shared {
                shared.add_to(y, F::of(1.0), x, self.activation);
            }
            counted.extend(ranked(&s).into_iter().take(k));
            shares.extend(balanced);
        }
        let aux_loss = balance::reference(&shares, &counted, [b, t, experts], k, self.config.aux_loss);
        (y, aux_loss)
    }
}
