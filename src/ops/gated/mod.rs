//! Gated activation: `y[r,c] = act(g[r,c]) · u[r,c]` of a fused projection `x = g ‖ u` (SwiGLU and its kin, Shazeer 2020, arXiv 2002.05202).
//!
//! Each activation is `act(g) = g·p(g)` with a share p that rises from 0 to 1; see [`Activation`]. Backward, from the saved input:
//! `dg = dy · u · (p + g·p′)`, `du = dy · g·p`. Bound by memory: forward 3·R·I elements, backward 5·R·I.

pub mod cases;
mod erfcx;
pub mod kernel;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::erfcx::erfcx;
use super::{inputs, shape_error};
use crate::Result;
use crate::cpu::{rows_per_task, vectorized};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The activation of the gate, under the names of public configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activation {
    /// `p = σ(g) = 1/(1 + e^−g)`.
    #[default]
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `p = Φ(g)`, the normal distribution function, exact: `(1 + erf(g/√2))/2`.
    #[serde(rename = "gelu")]
    Gelu,
    /// `p = (1 + tanh z)/2 = σ(2z)` with `z = √(2/π)·(g + 0.044715·g³)`, close to Φ.
    #[serde(rename = "gelu_pytorch_tanh", alias = "gelu_new")]
    GeluTanh,
    /// `p = 1` where g > 0, else 0.
    #[serde(rename = "relu")]
    Relu,
}

impl Activation {
    /// The name in public configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::Relu => "relu",
        }
    }
}

impl std::str::FromStr for Activation {
    type Err = crate::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu" => Ok(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            _ => Err(crate::Error::config(format!(
                "no activation is called `{name}`; there are silu, gelu, gelu_pytorch_tanh, relu"
            ))),
        }
    }
}

/// The operation; see the module.
struct Gated {
    activation: Activation,
}

/// `x` `[.., 2·I]` (rows may have gaps), the gate in columns 0..I and what it lets through in I..2·I → `[.., I]`.
pub fn gated(tape: &mut Tape, x: &Var, activation: Activation) -> Result<Var> {
    tape.apply(Gated { activation }, &[x])
}

impl Op for Gated {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        "gated"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [x] = inputs("gated", x)?;
        let (cols, pitch) = (x.shape().cols() / 2, x.pitch());
        if cols == 0 || x.shape().cols() % 2 != 0 {
            return Err(shape_error("gated", "x", x, "[.., 2·I]: gate and up side by side"));
        }
        let tasks = rows_per_task(2 * cols);
        let y = with_float!("gated", x.dtype(), F => {
            let data = x.pitched::<F>()?;
            Ok(Tensor::build::<F>(x.shape().with_cols(cols), |y| {
                y.par_chunks_mut(tasks * cols).enumerate().for_each(|(task, y)| {
                    for (i, y) in y.chunks_exact_mut(cols).enumerate() {
                        let (gate, up) = data[(task * tasks + i) * pitch..][..2 * cols].split_at(cols);
                        forward_row(self.activation, gate, up, y);
                    }
                });
            }))
        })?;
        Ok((vec![y], x.clone()))
    }

    fn backward(&self, x: Tensor, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        let (cols, pitch) = (x.shape().cols() / 2, x.pitch());
        let tasks = rows_per_task(2 * cols);
        let dx = with_float!("gated", dy.dtype(), F => {
            let (data, dy) = (x.pitched::<F>()?, dy.data::<F>()?);
            Ok(Tensor::build::<F>(x.shape(), |dx| {
                dx.par_chunks_mut(tasks * 2 * cols).enumerate().for_each(|(task, dx)| {
                    for (i, dx) in dx.chunks_exact_mut(2 * cols).enumerate() {
                        let r = task * tasks + i;
                        let (gate, up) = data[r * pitch..][..2 * cols].split_at(cols);
                        let (dgate, dup) = dx.split_at_mut(cols);
                        backward_row(self.activation, gate, up, &dy[r * cols..][..cols], dgate, dup);
                    }
                });
            }))
        })?;
        sink.add(0, dx)
    }
}

/// `1/(1 + e^−z)`.
#[inline(always)]
fn sigmoid<F: Float>(z: F) -> F {
    F::of(1.0) / (F::of(1.0) + (-z).exp_lane())
}

/// (p, p′) of [`Activation::Silu`].
#[inline(always)]
fn silu<F: Float>(g: F) -> (F, F) {
    let p = sigmoid(g);
    (p, p * (F::of(1.0) - p))
}

/// (p, p′) of [`Activation::Gelu`]: `Φ(−|g|) = e^(−g²/2) · erfcx(|g|/√2) / 2`, and `Φ′ = e^(−g²/2)/√(2π)`.
#[inline(always)]
fn gelu<F: Float>(g: F) -> (F, F) {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
    let bell = (g * g * F::of(-0.5)).exp_lane();
    let tail = F::of(0.5) * bell * erfcx(g.abs() * F::of(FRAC_1_SQRT_2));
    let p = if g < F::of(0.0) { tail } else { F::of(1.0) - tail };
    (p, bell * F::of(0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI))
}

/// (p, p′) of [`Activation::GeluTanh`].
#[inline(always)]
fn gelu_tanh<F: Float>(g: F) -> (F, F) {
    use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};
    let (scale, cubic) = (F::of(SQRT_2 * FRAC_2_SQRT_PI), F::of(0.044715));
    let p = sigmoid(scale * g * (F::of(1.0) + cubic * g * g));
    (p, p * (F::of(1.0) - p) * scale * (F::of(1.0) + F::of(3.0) * cubic * g * g))
}

/// (p, p′) of [`Activation::Relu`].
#[inline(always)]
fn relu<F: Float>(g: F) -> (F, F) {
    (if g > F::of(0.0) { F::of(1.0) } else { F::of(0.0) }, F::of(0.0))
}

#[inline(always)]
fn forward_with<F: Float>(share: impl Fn(F) -> (F, F), gate: &[F], up: &[F], y: &mut [F]) {
    for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
        *y = g * share(g).0 * u;
    }
}

#[inline(always)]
fn backward_with<F: Float>(share: impl Fn(F) -> (F, F), gate: &[F], up: &[F], dy: &[F], dgate: &mut [F], dup: &mut [F]) {
    for ((((dgate, dup), &g), &u), &dy) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
        let (p, slope) = share(g);
        *dgate = dy * u * (p + g * slope);
        *dup = dy * g * p;
    }
}

vectorized! {
    fn forward_row<F: Float>(activation: Activation, gate: &[F], up: &[F], y: &mut [F]) {
        match activation {
            Activation::Silu => forward_with(silu, gate, up, y),
            Activation::Gelu => forward_with(gelu, gate, up, y),
            Activation::GeluTanh => forward_with(gelu_tanh, gate, up, y),
            Activation::Relu => forward_with(relu, gate, up, y),
        }
    }

    fn backward_row<F: Float>(activation: Activation, gate: &[F], up: &[F], dy: &[F], dgate: &mut [F], dup: &mut [F]) {
        match activation {
            Activation::Silu => backward_with(silu, gate, up, dy, dgate, dup),
            Activation::Gelu => backward_with(gelu, gate, up, dy, dgate, dup),
            Activation::GeluTanh => backward_with(gelu_tanh, gate, up, dy, dgate, dup),
            Activation::Relu => backward_with(relu, gate, up, dy, dgate, dup),
        }
    }
}

/// The formula in plain loops: `x` `[R, 2·I]`, `y` `[R, I]`.
pub fn reference<F: Float>(x: &[F], cols: usize, activation: Activation, y: &mut [F]) {
    for (x, y) in x.chunks_exact(2 * cols).zip(y.chunks_exact_mut(cols)) {
        for c in 0..cols {
            y[c] = reference_activation(x[c], activation) * x[cols + c];
        }
    }
}

/// One activation as it is usually written; erf by its power series, good for |g| up to about 6.
pub fn reference_activation<F: Float>(g: F, activation: Activation) -> F {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
    let (one, half) = (F::of(1.0), F::of(0.5));
    match activation {
        Activation::Silu => g / (one + (-g).exp()),
        Activation::Gelu => {
            let z = g * F::of(FRAC_1_SQRT_2);
            let (mut term, mut sum) = (z, z);
            for n in 1..100 {
                term *= F::of(2.0) * z * z / F::of(f64::from(2 * n + 1));
                sum += term;
            }
            half * g * (one + F::of(FRAC_2_SQRT_PI) * (-z * z).exp() * sum)
        }
        Activation::GeluTanh => {
            half * g * (one + (F::of((2.0 / std::f64::consts::PI).sqrt()) * (g + F::of(0.044715) * g.powi(3))).tanh())
        }
        Activation::Relu => g.max(F::of(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};
    use crate::params::Gradients;

    const ALL: [Activation; 4] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu];

    /// One activation of one number.
    fn act<F: Float>(activation: Activation, g: F) -> F {
        let mut y = [F::of(0.0)];
        forward_row(activation, &[g], &[F::of(1.0)], &mut y);
        y[0]
    }

    #[test]
    fn equals_the_reference_also_with_gaps_between_rows() {
        for (rows, cols) in [(1, 1), (17, 33), (513, 96)] {
            for activation in ALL {
                let x = random_f32([rows, 2 * cols + 3], 1).columns(2, 2 * cols).unwrap();
                let y = gated(&mut Tape::inference(), &x.clone().into(), activation).unwrap();
                let mut expected = vec![0.0; rows * cols];
                reference(&x.to_f64().unwrap(), cols, activation, &mut expected);
                assert_close(y.value(), &expected, 2e-7);
            }
        }
    }

    /// The formulas computed with 60 digits; at −8 a difference `1 + erf` would have lost all of float64's.
    #[test]
    fn equals_known_values() {
        let known: [(Activation, f64, f64); 9] = [
            (Activation::Silu, 1.5, 1.2263617142904655),
            (Activation::Silu, -20.0, -4.122307236380407e-08),
            (Activation::Gelu, 0.7, 0.5306254434438489),
            (Activation::Gelu, -3.0, -0.0040496940948902835),
            (Activation::Gelu, -8.0, -4.976768459417427e-15),
            (Activation::GeluTanh, 0.7, 0.5305701347051167),
            (Activation::GeluTanh, -3.0, -0.003637392081773019),
            (Activation::Relu, 0.7, 0.7),
            (Activation::Relu, -3.0, 0.0),
        ];
        for (activation, g, expected) in known {
            let y = act(activation, g);
            assert!((y - expected).abs() <= 1e-14 * expected.abs(), "{activation:?}({g}) = {y:e} instead of {expected:e}");
            let y = act(activation, g as f32).f64();
            assert!((y - expected).abs() <= 5e-6 * expected.abs(), "{activation:?}({g}) = {y:e} in float32");
        }
    }

    #[test]
    fn nothing_overflows_and_nan_is_seen() {
        for activation in ALL {
            for g in [0.0f32, 100.0, 1e4] {
                assert!((act(activation, g) - g).abs() <= 1e-6 * g && act(activation, -g).abs() < 1e-30, "{activation:?}({g})");
            }
            assert!(act(activation, f32::NAN).is_nan());
        }
    }

    #[test]
    fn gradients() {
        for activation in ALL {
            assert_gradients(&[random([2, 3, 10], 1)], |tape, v| gated(tape, &v[0], activation));
            assert_gradients(&[random([3, 6], 1)], |tape, v| {
                let (a, b) = (gated(tape, &v[0], activation)?, gated(tape, &v[0], activation)?);
                crate::ops::add::add(tape, &a, &b)
            });
        }
    }

    #[test]
    fn gradients_in_float32_equal_those_in_float64() {
        let x = random_f32([37, 66], 1);
        let gradient = |x: Tensor, dtype_ones: Tensor, activation| {
            let mut tape = Tape::recording();
            let x = tape.input(x);
            let y = gated(&mut tape, &x, activation).unwrap();
            let root = crate::ops::linear::linear(&mut tape, &y.reshape([1, 37 * 33]).unwrap(), &dtype_ones.into()).unwrap();
            tape.backward(&root, 1.0, &mut Gradients::none()).unwrap().input(&x).unwrap().clone()
        };
        for activation in ALL {
            let double = gradient(
                Tensor::new([37, 66], x.to_f64().unwrap()).unwrap(),
                Tensor::new([1, 37 * 33], vec![1.0f64; 37 * 33]).unwrap(),
                activation,
            );
            let single = gradient(x.clone(), Tensor::new([1, 37 * 33], vec![1.0f32; 37 * 33]).unwrap(), activation);
            assert_close(&single, double.data::<f64>().unwrap(), 3e-7);
        }
    }

    #[test]
    fn names_are_those_of_public_configurations() {
        for (name, activation) in ["silu", "gelu", "gelu_pytorch_tanh", "relu"].into_iter().zip([0, 1, 2, 3].map(|i| ALL[i])) {
            assert_eq!(serde_json::to_value(activation).unwrap(), name);
            assert_eq!(serde_json::from_value::<Activation>(name.into()).unwrap(), activation);
        }
        assert_eq!(serde_json::from_str::<Activation>("\"gelu_new\"").unwrap(), Activation::GeluTanh);
    }

    #[test]
    fn an_odd_number_of_columns_is_named() {
        let error = gated(&mut Tape::inference(), &random_f32([2, 5], 1).into(), Activation::Silu).unwrap_err().to_string();
        assert_eq!(error, "gated: `x` has shape [2, 5], expected [.., 2·I]: gate and up side by side");
    }
}
