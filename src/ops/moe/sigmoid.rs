//! Scores of each expert by itself (DeepSeek-V3), `s = 1 / (1 + e^(−l))`, and their shares `p[t, e] = s[t, e] / Σ_e s[t, e]`.
//!
//! Backward: `dl = ds ⊙ s ⊙ (1 − s)`; `ds = (dp − ⟨dp, p⟩) / Σ s`, row by row. Saved: `s`. Rows are as short as there are experts.

use super::router::SMALL;
use crate::Result;
use crate::ops::{inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct Sigmoid;

/// `logits` `[.., E]` → scores `[.., E]`, each between 0 and 1 (NaN where the logit is).
pub fn sigmoid(tape: &mut Tape, logits: &Var) -> Result<Var> {
    tape.apply(Sigmoid, &[logits])
}

impl Op for Sigmoid {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [logits] = inputs("sigmoid", x)?;
        let scores = with_float!("sigmoid", logits.dtype(), F => {
            let logits_data = logits.data::<F>()?;
            Ok(Tensor::build::<F>(logits.shape(), |scores| {
                let one = F::of(1.0);
                scores.iter_mut().zip(logits_data).for_each(|(s, &l)| *s = one / (one + (-l).exp_lane()));
            }))
        })?;
        Ok((vec![scores.clone()], scores))
    }

    fn backward(&self, scores: Tensor, ds: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(ds)] = ds else { return Ok(()) };
        with_float!("sigmoid", ds.dtype(), F => {
            let (scores, ds) = (scores.data::<F>()?, ds.data::<F>()?);
            sink.write::<F>(0, |dl, accumulate| {
                for ((dl, &s), &ds) in dl.iter_mut().zip(scores).zip(ds) {
                    let gradient = ds * s * (F::of(1.0) - s);
                    *dl = if accumulate { *dl + gradient } else { gradient };
                }
            })
        })
    }
}

/// The operation; see the module.
struct Shares;

/// `scores` `[.., E]`, none negative, → their shares `[.., E]`, of sum 1 in each row. 1e-20 keeps the divisor from being 0.
pub fn shares(tape: &mut Tape, scores: &Var) -> Result<Var> {
    tape.apply(Shares, &[scores])
}

/// What a row is divided by.
fn divisor<F: Float>(scores: &[F]) -> F {
    scores.iter().copied().sum::<F>() + F::of(SMALL)
}

impl Op for Shares {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        "shares"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [scores] = inputs("shares", x)?;
        let cols = scores.shape().cols();
        if cols == 0 {
            return Err(shape_error("shares", "scores", scores, "[.., E] with E ≥ 1"));
        }
        let shares = with_float!("shares", scores.dtype(), F => {
            let rows = scores.data::<F>()?.chunks_exact(cols);
            Ok(Tensor::build::<F>(scores.shape(), |shares| {
                for (p, s) in shares.chunks_exact_mut(cols).zip(rows) {
                    let divisor = divisor(s);
                    p.iter_mut().zip(s).for_each(|(p, &s)| *p = s / divisor);
                }
            }))
        })?;
        Ok((vec![shares], scores.clone()))
    }

    fn backward(&self, scores: Tensor, dp: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dp)] = dp else { return Ok(()) };
        let cols = scores.shape().cols();
        with_float!("shares", dp.dtype(), F => {
            let rows = scores.data::<F>()?.chunks_exact(cols).zip(dp.data::<F>()?.chunks_exact(cols));
            sink.write::<F>(0, |ds, accumulate| {
                for (ds, (s, dp)) in ds.chunks_exact_mut(cols).zip(rows) {
                    let divisor = divisor(s);
                    let mean: F = s.iter().zip(dp).map(|(&s, &dp)| dp * (s / divisor)).sum();
                    for (ds, &dp) in ds.iter_mut().zip(dp) {
                        let gradient = (dp - mean) / divisor;
                        *ds = if accumulate { *ds + gradient } else { gradient };
                    }
                }
            })
        })
    }
}

/// The formulas in plain loops: `logits` `[E]` of one token → its scores and their shares.
pub fn reference<F: Float>(logits: &[F]) -> (Vec<F>, Vec<F>) {
    let scores: Vec<F> = logits.iter().map(|&l| F::of(1.0) / (F::of(1.0) + (-l).exp())).collect();
    let sum: F = scores.iter().copied().sum();
    let shares = scores.iter().map(|&s| s / sum).collect();
    (scores, shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add::add;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    #[test]
    fn equals_the_reference() {
        for (rows, experts) in [(1, 1), (17, 4), (300, 7)] {
            let (tape, logits) = (&mut Tape::inference(), random_f32([rows, experts], 1));
            let s = sigmoid(tape, &logits.clone().into()).unwrap();
            let p = shares(tape, &s).unwrap();
            let logits = logits.to_f64().unwrap();
            let (expected, expected_shares): (Vec<_>, Vec<_>) = logits.chunks_exact(experts).map(reference).unzip();
            assert_close(s.value(), &expected.concat(), 1e-6);
            assert_close(p.value(), &expected_shares.concat(), 1e-6);
        }
    }

    #[test]
    fn large_logits_stay_finite() {
        let tape = &mut Tape::inference();
        let s = sigmoid(tape, &Tensor::new([2, 2], vec![1e30f32, -1e30, -1e30, -1e30]).unwrap().into()).unwrap();
        let p = shares(tape, &s).unwrap();
        for x in [s, p] {
            let x = x.value().to_f64().unwrap();
            assert_eq!(x[0], 1.0);
            assert!(x[1..].iter().all(|x| (0.0..1e-15).contains(x)), "{x:?}");
        }
        let s = sigmoid(tape, &Tensor::new([1, 1], vec![f32::NAN]).unwrap().into()).unwrap();
        assert!(s.value().item().unwrap().is_nan());
    }

    #[test]
    fn gradients() {
        assert_gradients(&[random([3, 5], 1)], |tape, v| {
            let s = sigmoid(tape, &v[0])?;
            add(tape, &s, &v[0])
        });
        assert_gradients(&[random([3, 5], 1)], |tape, v| {
            let s = sigmoid(tape, &v[0])?;
            let (once, twice) = (shares(tape, &s)?, shares(tape, &s)?);
            add(tape, &once, &twice)
        });
    }
}
