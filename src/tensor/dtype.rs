//! Element types, and the traits that let one formula serve f32 and f64.

use std::fmt;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

use half::bf16;

use super::{Buffer, Recyclable, Recycled};
use crate::cpu::gemm::GemmFloat;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: parameters, and everything on the CPU.
    F32,
    /// 64-bit float: checks against finite differences.
    F64,
    /// The upper half of an f32: weights at inference, where reading them is what takes the time. Nothing is computed in it.
    BF16,
    /// Token ids, positions.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F64 => 8,
            Self::BF16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::BF16 => "bf16",
            Self::I32 => "i32",
        })
    }
}

/// A Rust type that a tensor can hold.
pub trait Element: Recyclable + Sync + fmt::Debug + 'static {
    /// Its name at run time.
    const DTYPE: DType;
    /// The buffer's elements, if it holds this type.
    fn slice(buffer: &Buffer) -> Option<&[Self]>;
    /// The same, to write.
    fn slice_mut(buffer: &mut Buffer) -> Option<&mut [Self]>;
    /// Takes ownership of elements.
    fn into_buffer(data: Recycled<Self>) -> Buffer;
}

macro_rules! element {
    ($type:ty, $variant:ident) => {
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn slice(buffer: &Buffer) -> Option<&[Self]> {
                match buffer {
                    Buffer::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn slice_mut(buffer: &mut Buffer) -> Option<&mut [Self]> {
                match buffer {
                    Buffer::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn into_buffer(data: Recycled<Self>) -> Buffer {
                Buffer::$variant(data)
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);
element!(bf16, BF16);
element!(i32, I32);

/// A floating-point type that formulas are written over.
pub trait Float:
    Element + num_traits::Float + GemmFloat + AddAssign + SubAssign + MulAssign + DivAssign + Sum + Default + fmt::Display
{
    /// The nearest value to a constant of the formula.
    fn of(x: f64) -> Self;
    /// The value as f64, exactly.
    fn f64(self) -> f64;
    /// `e^x` to within two units in the last place, written so that loops over it vectorise; e^−∞ is 0, NaN stays NaN.
    fn exp_lane(self) -> Self;
}

impl Float for f64 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp_lane(self) -> Self {
        self.exp()
    }
}

impl Float for f32 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    /// `e^x = 2^n · e^r` with `n = round(x / ln 2)`, |r| ≤ ln 2 / 2; `e^r` by its Taylor polynomial of degree 7, whose
    /// remainder there is below 2^-27. Adding 1.5·2²³ rounds to an integer, kept in the low bits of the sum.
    #[inline(always)]
    fn exp_lane(self) -> Self {
        const ROUND: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_359_4; // few bits: n · LN2_HIGH is exact
        const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;
        let x = if self > 88.722_83 { 88.722_83 } else { self };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * LN2_HIGH - n * LN2_LOW;
        let mut p = 1.0 / 5040.0;
        p = p * r + 1.0 / 720.0;
        p = p * r + 1.0 / 120.0;
        p = p * r + 1.0 / 24.0;
        p = p * r + 1.0 / 6.0;
        p = p * r + 0.5;
        p = p * r + 1.0;
        p = p * r + 1.0;
        // Two factors, as 2^128 alone has no representation.
        let n = (shifted.to_bits() as i32) - (ROUND.to_bits() as i32);
        let half = n >> 1;
        let power = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
        let y = p * power(half) * power(n - half);
        if self < -87.336_54 { 0.0 } else { y }
    }
}

/// Runs `$body` with `$F` standing for the Rust type of a float dtype; any other dtype is an error that names the op.
#[macro_export]
macro_rules! with_float {
    ($op:expr, $dtype:expr, $F:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $F = f32;
                $body
            }
            $crate::tensor::DType::F64 => {
                type $F = f64;
                $body
            }
            other => Err($crate::Error::DType { op: $op, argument: "x", expected: "f32 or f64".into(), got: other.to_string() }),
        }
    };
}

/// Runs `$body` with `$F` standing for the float type of activations and `$W` for that of the weights which they meet: the same,
/// or bf16 beside f32.
#[macro_export]
macro_rules! with_weights {
    ($op:expr, $activations:expr, $weights:expr, ($F:ident, $W:ident) => $body:expr) => {
        match ($activations, $weights) {
            ($crate::tensor::DType::F32, $crate::tensor::DType::BF16) => {
                type $F = f32;
                type $W = half::bf16;
                $body
            }
            (activations, _) => $crate::with_float!($op, activations, $F => {
                type $W = $F;
                $body
            }),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst: f64 = 0.0;
        for i in -870_000..887_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let ulp = f64::from((exact as f32).max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            worst = worst.max((x.exp_lane().f64() - exact).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(f32::NEG_INFINITY.exp_lane(), 0.0);
        assert_eq!((-1000.0f32).exp_lane(), 0.0);
        assert_eq!(0.0f32.exp_lane(), 1.0);
        assert!(f32::NAN.exp_lane().is_nan());
        assert!(1000.0f32.exp_lane() > 1e38);
    }
}
