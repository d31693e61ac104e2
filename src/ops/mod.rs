//! The operations, one file each: the formula, forward, backward, the reference in plain loops, the fast version, and tests.

pub mod adamw;
pub mod add;
pub mod attention;
pub mod convert;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gated;
pub mod gemv;
pub mod heads;
pub mod linear;
pub mod moe;
pub mod reduce;
pub mod rmsnorm;
pub mod rope;
pub mod sample;
pub mod split;
pub mod table;
pub mod weighted_sum;

#[cfg(test)]
pub(crate) mod testing;

use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};

/// The inputs of an operation, which has a fixed number of them: an error that names it where there are more or fewer.
pub fn inputs<'a, const N: usize>(op: &'static str, inputs: &[&'a Tensor]) -> Result<[&'a Tensor; N]> {
    inputs.try_into().map_err(|_| Error::Internal(format!("{op} takes {N} inputs, not {}", inputs.len())))
}

/// An error that names the operation and the argument unless `tensor` has exactly this shape.
pub fn expect_shape(op: &'static str, argument: &'static str, tensor: &Tensor, expected: &Shape) -> Result<()> {
    if tensor.shape() == expected {
        return Ok(());
    }
    Err(Error::Shape { op, argument, expected: expected.to_string(), got: tensor.shape().to_string() })
}

/// An error that names the operation and the argument where weights are bf16, which backward does not take.
pub fn expect_differentiable(op: &'static str, argument: &'static str, weights: &Tensor) -> Result<()> {
    match weights.dtype() {
        DType::BF16 => {
            let expected = "f32 or f64: bf16 weights are for inference and have no gradient".into();
            Err(Error::DType { op, argument, expected, got: DType::BF16.to_string() })
        }
        _ => Ok(()),
    }
}

/// An extent as kernels take it; an error that names it where it does not fit.
fn kernel_int(op: &'static str, what: &'static str, value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::device(format!("{op}: {what} is {value}, at most {} fits", i32::MAX)))
}

/// An error that says in words which shape was expected.
pub fn shape_error(op: &'static str, argument: &'static str, tensor: &Tensor, expected: impl Into<String>) -> Error {
    Error::Shape { op, argument, expected: expected.into(), got: tensor.shape().to_string() }
}
