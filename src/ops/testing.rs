//! What the operations' tests share: random inputs, comparison by relative L2 distance, gradient checks.

use crate::Result;
use crate::ops::linear::linear;
use crate::rng::Philox;
use crate::tape::{Tape, Var, check_gradients};
use crate::tensor::{Shape, Tensor};

/// Standard normal f64 values that depend on `seed`.
pub fn random(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let (shape, philox) = (shape.into(), Philox::new(seed));
    let data = (0..shape.elements() as u64).map(|i| philox.normal(i)).collect();
    Tensor::new(shape, data).unwrap()
}

/// The same in f32.
pub fn random_f32(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let x = random(shape, seed);
    Tensor::new(x.shape(), x.data::<f64>().unwrap().iter().map(|&x| x as f32).collect()).unwrap()
}

/// The same in bf16.
pub fn random_bf16(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let x = random(shape, seed);
    Tensor::new(x.shape(), x.data::<f64>().unwrap().iter().map(|&x| half::bf16::from_f64(x)).collect()).unwrap()
}

/// ‖x − expected‖₂ ≤ tolerance · ‖expected‖₂.
pub fn assert_close(x: &Tensor, expected: &[f64], tolerance: f64) {
    let x = x.to_f64().unwrap();
    assert_eq!(x.len(), expected.len());
    let distance: f64 = x.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let norm: f64 = expected.iter().map(|b| b * b).sum::<f64>().sqrt();
    assert!(distance <= tolerance * norm, "relative L2 distance {:e} > {tolerance:e}", distance / norm);
}

/// The product of all elements with fixed random numbers, summed: a scalar whose gradient differs from element to element.
pub fn to_scalar(tape: &mut Tape, y: &Var) -> Result<Var> {
    let n = y.value().shape().elements();
    linear(tape, &y.reshape([1, n])?, &random([1, n], 99).into())
}

/// Every gradient of `f`, reduced to a scalar, agrees with central differences to 1e-6 (in fact to about 1e-10).
pub fn assert_gradients(inputs: &[Tensor], f: impl Fn(&mut Tape, &[Var]) -> Result<Var>) {
    let checks = check_gradients(inputs, |tape, vars| {
        let y = f(tape, vars)?;
        to_scalar(tape, &y)
    });
    for check in checks.unwrap() {
        assert!(check.relative_error <= 1e-6, "input {}: relative error {:e}", check.input, check.relative_error);
    }
}
