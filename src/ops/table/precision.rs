//! The arithmetic that a reference is computed in: exactly, or as a plain low-precision program would.
//!
//! A reference is written once, over [`Precision`]. It calls `round` wherever a program made of one plain kernel for each formula
//! would store a tensor of activations. In f64 without rounding it is the truth that kernels are measured against; in f32 with
//! rounding its distance from the truth is the yardstick of what they may be off (see [`tolerance`](super::tolerance)).

use half::{bf16, f16};

use crate::gpu::ElementType;
use crate::tensor::Float;

/// Numbers that sums are kept in, and what becomes of those that are stored.
pub trait Precision {
    /// What is computed in.
    type Number: Float;

    /// A number as it comes back from a tensor of activations.
    fn round(x: Self::Number) -> Self::Number;
}

/// f64 throughout.
pub struct Exact;

impl Precision for Exact {
    type Number = f64;
    fn round(x: f64) -> f64 {
        x
    }
}

/// f32 throughout.
pub struct Single;

impl Precision for Single {
    type Number = f32;
    fn round(x: f32) -> f32 {
        x
    }
}

/// f32, stored as f16.
pub struct Half;

impl Precision for Half {
    type Number = f32;
    fn round(x: f32) -> f32 {
        f16::from_f32(x).to_f32()
    }
}

/// f32, stored as bf16.
pub struct Brain;

impl Precision for Brain {
    type Number = f32;
    fn round(x: f32) -> f32 {
        bf16::from_f32(x).to_f32()
    }
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// [`Exact`]
    Exact,
    /// What a plain program in this type does.
    Plain(ElementType),
}

/// Runs `$body` with `$P` standing for the [`Precision`] that an [`Arithmetic`] names.
#[macro_export]
macro_rules! with_precision {
    ($arithmetic:expr, $P:ident => $body:expr) => {
        match $arithmetic {
            $crate::ops::table::Arithmetic::Exact => {
                type $P = $crate::ops::table::Exact;
                $body
            }
            $crate::ops::table::Arithmetic::Plain($crate::gpu::ElementType::F32) => {
                type $P = $crate::ops::table::Single;
                $body
            }
            $crate::ops::table::Arithmetic::Plain($crate::gpu::ElementType::F16) => {
                type $P = $crate::ops::table::Half;
                $body
            }
            $crate::ops::table::Arithmetic::Plain($crate::gpu::ElementType::BF16) => {
                type $P = $crate::ops::table::Brain;
                $body
            }
        }
    };
}
