//! The shapes and types in which the kernels of the mixture of experts are proven.
//!
//! Their references are the operations of this folder, whose formulas and gradients are tested by themselves, in f64 and in the
//! arithmetic of the yardstick.

mod dispatch;
mod router;
mod rows;

use crate::ops::linear::linear;
use crate::ops::moe::Routing;
use crate::ops::table::{Case, normal};
use crate::params::Gradients;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Every kernel's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = router::cases();
    cases.extend(dispatch::cases());
    cases.extend(rows::cases());
    cases
}

/// N tokens that each go to k of E experts.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    experts: usize,
    top_k: usize,
}

impl Sizes {
    fn slots(self) -> usize {
        self.tokens * self.top_k
    }

    /// Choices as random scores make them, more for the experts that `favour` gives more.
    fn routing(self, favour: impl Fn(usize) -> f64) -> Result<Routing> {
        let scores = normal(self.tokens * self.experts, 7);
        let scores = scores.iter().enumerate().map(|(i, score)| score + favour(i % self.experts)).collect();
        Routing::choose(&Tensor::new([self.tokens, self.experts], scores)?, self.top_k)
    }
}

/// Integers as the table has them.
fn numbers(integers: &[u32]) -> Vec<f64> {
    integers.iter().map(|&x| f64::from(x)).collect()
}

/// The gradients of `inputs` where `dy` is that of `y`.
fn gradients(mut tape: Tape, y: &Var, dy: &Tensor, inputs: &[&Var]) -> Result<Vec<Tensor>> {
    let n = dy.shape().elements();
    let root = linear(&mut tape, &y.reshape([1, n])?, &dy.reshape([1, n])?.into())?;
    let backward = tape.backward(&root, 1.0, &mut Gradients::none())?;
    let missing = || Error::Internal("an input without a gradient".into());
    inputs.iter().map(|input| backward.input(input).cloned().ok_or_else(missing)).collect()
}
