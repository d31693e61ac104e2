//! Mixture of experts: each token goes to k of E feed-forward networks, as a chain of small operations.
//!
//! | step | formula | shape |
//! |---|---|---|
//! | [`router()`] | `s = softmax(x · Wgᵀ)`, or its sigmoid; the k best, their weights w, the auxiliary loss | `[N, k]` |
//! | [`permute()`] | each token's row, once for each of its experts, in the order of the experts | `[N·k, H]` |
//! | [`grouped_linear()`] | gate and up, one matrix product an expert | `[N·k, 2·I]` |
//! | [`gated()`] | `act(gate) ⊙ up` | `[N·k, I]` |
//! | [`grouped_linear()`] | down | `[N·k, H]` |
//! | [`combine()`] | `y = Σ_j w_j · FFN_{e_j}(x)` | `[N, H]` |
//!
//! No token is dropped, whatever the load, and an expert without tokens has a gradient of zeros. Sums are in a fixed order: the bits
//! depend neither on the number of threads nor on the load. [`moe()`] does the chain; experts that all tokens share are added by the
//! model, as an ordinary feed-forward network.

pub mod balance;
pub mod cases;
pub mod combine;
pub mod grouped_linear;
pub mod kernel;
pub mod permute;
pub mod reference;
pub mod router;
pub mod routing;
pub mod sigmoid;
pub mod softmax;
#[cfg(test)]
mod tests;

pub use balance::{AuxLoss, balance, balanced_correction};
pub use combine::combine;
pub use grouped_linear::grouped_linear;
pub use permute::permute;
pub use router::{Routed, RouterConfig, Scoring, WeightRule, router};
pub use routing::Routing;
pub use sigmoid::{shares, sigmoid};
pub use softmax::softmax;

use super::gated::{Activation, gated};
use crate::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The weights of one layer of experts.
#[derive(Debug, Clone)]
pub struct Experts {
    /// The router's, `[E, H]`.
    pub router: Var,
    /// What is added to the scores for the choice alone, `[E]`, where there is such a thing; see [`router()`].
    pub correction: Option<Tensor>,
    /// Each expert's gate above its up projection, `[E, 2·I, H]`.
    pub gate_up: Var,
    /// Each expert's down projection, `[E, H, I]`.
    pub down: Var,
}

/// `x` `[.., T, H]` → the experts' output in x's shape, and how the tokens were routed (with the auxiliary loss to add).
pub fn moe(tape: &mut Tape, x: &Var, experts: &Experts, activation: Activation, config: &RouterConfig) -> Result<(Var, Routed)> {
    let routed = router(tape, x, &experts.router, experts.correction.as_ref(), config)?;
    let routing = &routed.routing;
    let sorted = permute(tape, x, routing)?;
    let gate_up = grouped_linear(tape, &sorted, &experts.gate_up, routing)?;
    let hidden = gated(tape, &gate_up, activation)?;
    let down = grouped_linear(tape, &hidden, &experts.down, routing)?;
    let y = combine(tape, &down, &routed.weights, routing)?;
    Ok((y.reshape(x.value().shape())?, routed))
}
