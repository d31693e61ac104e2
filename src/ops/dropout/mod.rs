//! Dropout: each element is dropped with probability p, and the others scaled by `1 / (1 − p)`, so that the mean stays.
//!
//! Srivastava et al. 2014. Backward applies the same mask. No mask is stored: an element's bit is a function of the generator
//! (keyed by seed, step and site), its row's global sample and its place in the sample, so that it is the same however a batch
//! is cut, and in backward. Element e of sample s is dropped where word `e mod 4` of Philox block
//! `[e / 4, "drop", s low, s high]` is below `p · 2³²`. Bound by memory: 2·R·C elements each way.

pub mod cases;
pub mod kernel;

use std::sync::Arc;

use rayon::prelude::*;

use super::{inputs, shape_error};
use crate::Result;
use crate::rng::Philox;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The random choices of one dropout site in one step.
#[derive(Clone, Debug)]
pub struct DropoutMask {
    /// Probability of dropping, in [0, 1).
    pub p: f64,
    /// Keyed by seed, step and site.
    pub philox: Philox,
    /// The global index of each sample of the batch, `[B]`.
    pub sample_ids: Arc<[u64]>,
}

/// The operation; see the module.
struct Dropout {
    mask: DropoutMask,
}

/// `x` `[B·T, C]`, contiguous → the same shape. With `p = 0` it is the identity.
pub fn dropout(tape: &mut Tape, x: &Var, mask: &DropoutMask) -> Result<Var> {
    tape.apply(Dropout { mask: mask.clone() }, &[x])
}

/// Words of a Philox block.
const WORDS: usize = 4;
/// The second counter word: "drop" in ASCII, so that other uses of the same key draw other numbers.
const DOMAIN: u32 = 0x6472_6F70;

/// Random words below the first number drop their element; others' are multiplied by the second.
fn threshold_and_scale(p: f64) -> (u32, f64) {
    ((p * 2f64.powi(32)) as u32, 1.0 / (1.0 - p))
}

impl DropoutMask {
    /// Writes `y = mask ⊙ x / (1 − p)`, or adds it where `accumulate`. Both hold all samples of the batch.
    fn apply<F: Float>(&self, x: &[F], y: &mut [F], accumulate: bool) {
        let sample_len = x.len() / self.sample_ids.len().max(1);
        if sample_len == 0 {
            return;
        }
        let (threshold, scale) = threshold_and_scale(self.p);
        let scale = F::of(scale);
        const TASK: usize = 16 * 1024;
        let samples = x.par_chunks(sample_len).zip(y.par_chunks_mut(sample_len)).zip(self.sample_ids.par_iter());
        samples.for_each(|((x, y), &sample)| {
            x.par_chunks(TASK).zip(y.par_chunks_mut(TASK)).enumerate().for_each(|(task, (x, y))| {
                for (i, (x, y)) in x.chunks(WORDS).zip(y.chunks_mut(WORDS)).enumerate() {
                    let words = self.philox.block([(task * TASK / WORDS + i) as u32, DOMAIN, sample as u32, (sample >> 32) as u32]);
                    for ((y, &x), word) in y.iter_mut().zip(x).zip(words) {
                        let kept = if word < threshold { F::of(0.0) } else { x * scale };
                        *y = if accumulate { *y + kept } else { kept };
                    }
                }
            });
        });
    }
}

impl Op for Dropout {
    type Saved = ();

    fn name(&self) -> &'static str {
        "dropout"
    }

    fn forward(&self, tensors: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        let [x] = inputs("dropout", tensors)?;
        let samples = self.mask.sample_ids.len();
        if samples == 0 || x.shape().elements() % samples != 0 {
            return Err(shape_error("dropout", "x", x, format!("elements of {samples} samples")));
        }
        with_float!("dropout", x.dtype(), F => {
            let data = x.data::<F>()?;
            Ok((vec![Tensor::build::<F>(x.shape(), |y| self.mask.apply(data, y, false))], ()))
        })
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        with_float!("dropout", dy.dtype(), F => {
            let dy = dy.data::<F>()?;
            sink.write::<F>(0, |dx, accumulate| self.mask.apply(dy, dx, accumulate))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_gradients, random};

    fn mask(p: f64, sample_ids: &[u64]) -> DropoutMask {
        DropoutMask { p, philox: Philox::new(5), sample_ids: sample_ids.into() }
    }

    fn run(x: &Tensor, mask: &DropoutMask) -> Vec<f64> {
        dropout(&mut Tape::inference(), &x.clone().into(), mask).unwrap().value().to_f64().unwrap()
    }

    #[test]
    fn drops_the_asked_share_and_keeps_the_mean() {
        let n = 200_000;
        let y = run(&Tensor::new([n], vec![1.0f64; n]).unwrap(), &mask(0.3, &[0]));
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / n as f64;
        assert!((dropped - 0.3).abs() < 5.0 * (0.21 / n as f64).sqrt(), "{dropped}");
        assert!(y.iter().all(|&y| y == 0.0 || (y - 1.0 / 0.7).abs() < 1e-12));
    }

    #[test]
    fn a_sample_has_its_mask_wherever_it_stands() {
        let x = random([3 * 7, 5], 1);
        let data = x.to_f64().unwrap();
        let together = run(&x, &mask(0.5, &[8, 2, 1 << 40]));
        let alone = run(&Tensor::new([7, 5], data[70..].to_vec()).unwrap(), &mask(0.5, &[1 << 40]));
        assert_eq!(together[70..], alone);
        assert_ne!(run(&x, &mask(0.5, &[8, 3, 1 << 40]))[35..70], together[35..70]);
    }

    #[test]
    fn gradients() {
        assert_gradients(&[random([2 * 3, 5], 1)], |tape, v| dropout(tape, &v[0], &mask(0.4, &[0, 1])));
    }

    #[test]
    fn nothing_is_dropped_at_zero() {
        let x = random([4, 3], 1);
        assert_eq!(run(&x, &mask(0.0, &[0])), x.to_f64().unwrap());
    }
}
