//! The two hardware float types as one trait, with the NaN rules, `.ftz` and `.sat`.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::exact::{Format, Rounding};
use super::round::fma_of_integers;

/// f32 or f64: host arithmetic (nearest even), bits, and what PTX says of NaN.
pub trait Float:
    Copy
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The layout of the bits.
    const FORMAT: Format;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Encoding, in the low bits.
    fn bits(self) -> u64;
    /// The value of an encoding in the low bits.
    fn from_bits(bits: u64) -> Self;
    /// `self * b + c`, rounded once.
    fn fused(self, b: Self, c: Self) -> Self;
    /// The same, rounded once in any direction. All three are finite.
    #[inline(always)]
    fn fused_towards(self, b: Self, c: Self, rounding: Rounding) -> Self {
        fma_of_integers(rounding, self, b, c)
    }
    /// Square root.
    fn root(self) -> Self;
    /// Magnitude.
    fn magnitude(self) -> Self;
    /// The result with its NaN replaced by the one that the GPU gives. Single precision: always `0x7fffffff`. Double
    /// precision preserves payloads: the first operand that is NaN, quieted; `0xfff8000000000000` if none is.
    fn settle(self, operands: &[Self]) -> Self;
    /// `.ftz`: a subnormal becomes zero of the same sign. Single precision only; on f64, which has no `.ftz`, nothing.
    fn ftz(self) -> Self;

    /// Whether the last bit is set.
    fn odd(self) -> bool;
    /// The value whose encoding is larger by `step`: for 1 the neighbour away from zero, for -1 that towards it.
    fn step(self, step: i32) -> Self;
    /// Whether the value is neither infinite nor NaN.
    fn finite(self) -> bool;
    /// Whether the value is NaN.
    fn nan(self) -> bool;

    /// The sign bit, also of zero and NaN.
    #[inline(always)]
    fn negative(self) -> bool {
        self.bits() & Self::FORMAT.sign_bit() != 0
    }
}

impl Float for f32 {
    const FORMAT: Format = Format::F32;
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;

    #[inline(always)]
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }

    #[inline(always)]
    fn fused(self, b: f32, c: f32) -> f32 {
        self.mul_add(b, c)
    }

    /// Without branches: `expf` begins with `fma.rm`.
    ///
    /// In f64 the product is exact, and so are its rounded sum with `c` and the error of that taken together (T. J. Dekker 1971,
    /// D. E. Knuth 1969). The f32 nearest to the sum is the result or, if it lies on the wrong side of the exact value, the neighbour
    /// of the result.
    #[inline(always)]
    fn fused_towards(self, b: f32, c: f32, rounding: Rounding) -> f32 {
        let (product, addend) = (f64::from(self) * f64::from(b), f64::from(c));
        let sum = product + addend;
        let part = sum - product;
        let error = (product - (sum - part)) + (addend - part);
        let nearest = sum as f32;
        let wide = f64::from(nearest);
        let above = (wide > sum) | (wide == sum) & (error < 0.0);
        let below = (wide < sum) | (wide == sum) & (error > 0.0);
        // Encodings grow away from zero.
        let negative = nearest.is_sign_negative();
        let (inwards, outwards) = match rounding {
            Rounding::Down => (above & !negative, above & negative),
            Rounding::Up => (below & negative, below & !negative),
            Rounding::Zero => (above & !negative | below & negative, false),
            Rounding::Nearest | Rounding::NearestAway => return fma_of_integers(rounding, self, b, c),
        };
        let result = nearest.step(i32::from(outwards) - i32::from(inwards));
        // When rounding down, terms that cancel leave -0.
        let cancels = (sum == 0.0) & (product.is_sign_negative() | addend.is_sign_negative());
        if rounding == Rounding::Down && cancels { -0.0 } else { result }
    }

    #[inline(always)]
    fn root(self) -> f32 {
        self.sqrt()
    }

    #[inline(always)]
    fn magnitude(self) -> f32 {
        self.abs()
    }

    #[inline(always)]
    fn odd(self) -> bool {
        self.to_bits() & 1 == 1
    }

    #[inline(always)]
    fn step(self, step: i32) -> f32 {
        f32::from_bits(self.to_bits().wrapping_add_signed(step))
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }

    #[inline(always)]
    fn nan(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn settle(self, _: &[f32]) -> f32 {
        // On bits: of a square root the compiler takes any NaN to be as good as this one, and drops a choice between floats.
        let bits = self.to_bits();
        f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits })
    }

    #[inline(always)]
    fn ftz(self) -> f32 {
        if self.abs() < f32::MIN_POSITIVE { f32::from_bits(self.to_bits() & 0x8000_0000) } else { self }
    }
}

impl Float for f64 {
    const FORMAT: Format = Format::F64;
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    #[inline(always)]
    fn bits(self) -> u64 {
        self.to_bits()
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> f64 {
        f64::from_bits(bits)
    }

    #[inline(always)]
    fn fused(self, b: f64, c: f64) -> f64 {
        self.mul_add(b, c)
    }

    #[inline(always)]
    fn root(self) -> f64 {
        self.sqrt()
    }

    #[inline(always)]
    fn magnitude(self) -> f64 {
        self.abs()
    }

    #[inline(always)]
    fn odd(self) -> bool {
        self.to_bits() & 1 == 1
    }

    #[inline(always)]
    fn step(self, step: i32) -> f64 {
        f64::from_bits(self.to_bits().wrapping_add_signed(step.into()))
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }

    #[inline(always)]
    fn nan(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn settle(self, operands: &[f64]) -> f64 {
        const QUIET: u64 = 0x0008_0000_0000_0000;
        let mut nan = 0xfff8_0000_0000_0000;
        for operand in operands.iter().rev() {
            nan = if operand.is_nan() { operand.to_bits() | QUIET } else { nan };
        }
        if self.is_nan() { f64::from_bits(nan) } else { self }
    }

    #[inline(always)]
    fn ftz(self) -> f64 {
        self
    }
}

/// `.sat`: clamps to `[+0, 1]`; NaN becomes `+0`.
#[inline(always)]
pub fn sat<F: Float>(a: F) -> F {
    let positive = if a > F::ZERO { a } else { F::ZERO };
    if positive < F::ONE { positive } else { F::ONE }
}
