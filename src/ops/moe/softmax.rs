//! Softmax over the experts: `s[t, e] = exp(l[t, e] − max_e l) / Σ_e exp(l[t, e] − max_e l)`, in the type of the tape.
//!
//! Backward: `dl = s ⊙ (ds − ⟨ds, s⟩)`, row by row. Saved: `s`. Rows are as short as there are experts.

use rayon::prelude::*;

use crate::Result;
use crate::cpu::rows_per_task;
use crate::ops::{inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct Softmax;

/// `logits` `[.., E]` → scores `[.., E]`, each row positive with sum 1 (NaN throughout where a logit is NaN).
pub fn softmax(tape: &mut Tape, logits: &Var) -> Result<Var> {
    tape.apply(Softmax, &[logits])
}

impl Op for Softmax {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        "softmax"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [logits] = inputs("softmax", x)?;
        let cols = logits.shape().cols();
        if cols == 0 {
            return Err(shape_error("softmax", "logits", logits, "[.., E] with E ≥ 1"));
        }
        let tasks = rows_per_task(cols) * cols;
        let scores = with_float!("softmax", logits.dtype(), F => {
            let logits_data = logits.data::<F>()?;
            Ok(Tensor::build::<F>(logits.shape(), |scores| {
                scores.par_chunks_mut(tasks).zip(logits_data.par_chunks(tasks)).for_each(|(scores, logits)| {
                    for (s, l) in scores.chunks_exact_mut(cols).zip(logits.chunks_exact(cols)) {
                        let max = l.iter().copied().fold(l[0], F::max);
                        s.iter_mut().zip(l).for_each(|(s, &l)| *s = (l - max).exp_lane());
                        let sum: F = s.iter().copied().sum();
                        s.iter_mut().for_each(|s| *s /= sum);
                    }
                });
            }))
        })?;
        Ok((vec![scores.clone()], scores))
    }

    fn backward(&self, scores: Tensor, ds: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(ds)] = ds else { return Ok(()) };
        let cols = scores.shape().cols();
        let tasks = rows_per_task(cols) * cols;
        with_float!("softmax", ds.dtype(), F => {
            let (scores, ds) = (scores.data::<F>()?, ds.data::<F>()?);
            sink.write::<F>(0, |dl, accumulate| {
                let parts = dl.par_chunks_mut(tasks).zip(scores.par_chunks(tasks)).zip(ds.par_chunks(tasks));
                parts.for_each(|((dl, s), ds)| {
                    for ((dl, s), ds) in dl.chunks_exact_mut(cols).zip(s.chunks_exact(cols)).zip(ds.chunks_exact(cols)) {
                        let mean: F = s.iter().zip(ds).map(|(&s, &ds)| s * ds).sum();
                        for ((dl, &s), &ds) in dl.iter_mut().zip(s).zip(ds) {
                            let gradient = s * (ds - mean);
                            *dl = if accumulate { *dl + gradient } else { gradient };
                        }
                    }
                });
            })
        })
    }
}

/// The formula in plain loops: `logits` and `scores` `[R, E]`.
pub fn reference<F: Float>(logits: &[F], experts: usize, scores: &mut [F]) {
    for (l, s) in logits.chunks_exact(experts).zip(scores.chunks_exact_mut(experts)) {
        let max = l.iter().copied().fold(l[0], F::max);
        let sum: F = l.iter().map(|&l| (l - max).exp()).sum();
        for e in 0..experts {
            s[e] = (l[e] - max).exp() / sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    #[test]
    fn equals_the_reference() {
        for (rows, experts) in [(1, 1), (17, 4), (5000, 7)] {
            let logits = random_f32([rows, experts], 1);
            let scores = softmax(&mut Tape::inference(), &logits.clone().into()).unwrap();
            let mut expected = vec![0.0; rows * experts];
            reference(&logits.to_f64().unwrap(), experts, &mut expected);
            assert_close(scores.value(), &expected, 1e-6);
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = Tensor::new([1, 3], vec![1e30f32, 1e30, -1e30]).unwrap();
        let scores = softmax(&mut Tape::inference(), &logits.into()).unwrap();
        assert_eq!(scores.value().to_f64().unwrap(), [0.5, 0.5, 0.0]);
    }

    #[test]
    fn gradients() {
        assert_gradients(&[random([3, 5], 1)], |tape, v| softmax(tape, &v[0]));
        assert_gradients(&[random([3, 5], 1)], |tape, v| {
            let s = softmax(tape, &v[0])?;
            crate::ops::add::add(tape, &s, &v[0])
        });
    }
}
