//! Weighted sum of scalars: the total loss from its parts. Backward: `dx_i = weight_i · dy`.

use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Shape, Tensor};
use crate::{Error, Result, with_float};

/// The operation; see the module.
struct WeightedSum {
    weights: Vec<f64>,
}

/// `Σ weight_i · x_i` over scalars; there must be at least one.
pub fn weighted_sum(tape: &mut Tape, parts: &[(&Var, f64)]) -> Result<Var> {
    let inputs: Vec<&Var> = parts.iter().map(|(part, _)| *part).collect();
    tape.apply(WeightedSum { weights: parts.iter().map(|(_, weight)| *weight).collect() }, &inputs)
}

impl Op for WeightedSum {
    type Saved = ();

    fn name(&self) -> &'static str {
        "weighted_sum"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        let first = x.first().ok_or_else(|| Error::Internal("weighted_sum of nothing".into()))?;
        let sum = x.iter().zip(&self.weights).map(|(x, weight)| Ok(x.item()? * weight)).sum::<Result<f64>>()?;
        with_float!("weighted_sum", first.dtype(), F => Ok((vec![Tensor::scalar(F::of(sum))], ())))
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        let seed = dy.item()?;
        with_float!("weighted_sum", dy.dtype(), F => {
            for (i, &weight) in self.weights.iter().enumerate() {
                sink.add(i, Tensor::build::<F>(Shape::default(), |dx| dx.fill(F::of(weight * seed))))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_gradients, random};

    #[test]
    fn gradients() {
        assert_gradients(&[random([], 1), random([], 2)], |tape, v| {
            weighted_sum(tape, &[(&v[0], 0.5), (&v[1], -3.0), (&v[0], 2.0)])
        });
    }
}
