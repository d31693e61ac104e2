//! f16 and bf16, as bits in u16; two of them in u32 for the `x2` forms.
//!
//! Arithmetic is done in a wider type and rounded once to the format. Sums need no care: f32 has at least twice the bits plus
//! two (Figueroa 1995, "When is double rounding innocuous?"). Products are exact in f32, but for those of bf16 below 2^-134,
//! which are zero either way. For `fma`, where a product half way between two halves may meet a tiny addend, the wide result
//! is rounded to odd, after which rounding to the nearest is right (Boldo and Melquiond 2008).

use super::compare;
use super::exact::Format;
use super::float::Float;

/// A half format.
pub trait Half {
    /// Its layout.
    const FORMAT: Format;
    /// The encoding of 1.
    const ONE: u16;
    /// The same value in f32; a NaN stays some NaN.
    fn widen(bits: u16) -> f32;
    /// `cvt.rn.f16.f32` or `cvt.rn.bf16.f32`: to the nearest, ties to even; NaN gives `0x7fff`.
    fn narrow(value: f32) -> u16;
    /// `fma.rn`.
    fn fma(a: u16, b: u16, c: u16) -> u16;
}

/// IEEE binary16.
#[derive(Debug, Clone, Copy)]
pub struct F16;

/// The upper half of binary32.
#[derive(Debug, Clone, Copy)]
pub struct BF16;

impl Half for F16 {
    const FORMAT: Format = Format::F16;
    const ONE: u16 = 0x3c00;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        let magnitude = u32::from(bits & 0x7fff);
        // The fields fall into place 13 bits further up; the bias grows by 127 - 15, or for the largest exponent by twice that.
        let rebias = if magnitude >= 0x7c00 { 224 << 23 } else { 112 << 23 };
        let normal = f32::from_bits((magnitude << 13) + rebias);
        // The last place of 0.5 is the smallest f16. (A product with a power of two would be slow: its operand is subnormal.)
        let subnormal = f32::from_bits(0.5f32.to_bits() + magnitude) - 0.5;
        let unsigned = if magnitude < 0x0400 { subnormal } else { normal };
        f32::from_bits(unsigned.to_bits() | u32::from(bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        let magnitude = value.to_bits() & 0x7fff_ffff;
        let sign = (value.to_bits() >> 16 & 0x8000) as u16;
        let normal = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(112 << 23) >> 13;
        // Added to 0.5, whose last place is the smallest f16, a subnormal is rounded by the host and left in the low bits.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let number = if magnitude < 113 << 23 { subnormal } else { normal };
        let beyond = if magnitude > 0x7f80_0000 { 0x7fff } else { 0x7c00 };
        let unsigned = if magnitude >= 143 << 23 { beyond } else { number };
        if unsigned == 0x7fff { 0x7fff } else { sign | unsigned as u16 }
    }

    #[inline(always)]
    fn fma(a: u16, b: u16, c: u16) -> u16 {
        let (product, c) = (F16::widen(a) * F16::widen(b), F16::widen(c));
        F16::narrow(sum_to_odd(product, c))
    }
}

impl Half for BF16 {
    const FORMAT: Format = Format::BF16;
    const ONE: u16 = 0x3f80;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded as u16 }
    }

    #[inline(always)]
    fn fma(a: u16, b: u16, c: u16) -> u16 {
        let product = f64::from(BF16::widen(a)) * f64::from(BF16::widen(b));
        BF16::narrow(f32_to_odd(sum_to_odd(product, f64::from(BF16::widen(c)))))
    }
}

/// Rounding to odd from the result to the nearest: if inexact, the last bit is set, by a step away from zero or towards it.
#[inline(always)]
fn to_odd<F: Float>(nearest: F, inexact: bool, away: bool) -> F {
    let step = if away { 1 } else { -1 };
    nearest.step(if inexact & !nearest.odd() { step } else { 0 })
}

/// `a + b` rounded to odd; what the sum lost is exact (Knuth's two-sum), and NaN beside infinities, which are left alone.
#[inline(always)]
fn sum_to_odd<F: Float>(a: F, b: F) -> F {
    let sum = a + b;
    let of_b = sum - a;
    let lost = (a - (sum - of_b)) + (b - of_b);
    to_odd(sum, lost.magnitude() > F::ZERO, (lost > F::ZERO) == (sum > F::ZERO))
}

/// A finite result below 2^128 rounded to odd; infinite beyond, as every half format is there.
#[inline(always)]
fn f32_to_odd(a: f64) -> f32 {
    let nearest = a as f32;
    let back = f64::from(nearest).abs();
    to_odd(nearest, nearest.is_finite() & (back != a.abs()), a.abs() > back)
}

/// `add`.
#[inline(always)]
pub fn add<H: Half>(a: u16, b: u16) -> u16 {
    H::narrow(H::widen(a) + H::widen(b))
}

/// `sub`.
#[inline(always)]
pub fn sub<H: Half>(a: u16, b: u16) -> u16 {
    H::narrow(H::widen(a) - H::widen(b))
}

/// `mul`.
#[inline(always)]
pub fn mul<H: Half>(a: u16, b: u16) -> u16 {
    H::narrow(H::widen(a) * H::widen(b))
}

/// `fma.rn`, rounded once.
#[inline(always)]
pub fn fma<H: Half>(a: u16, b: u16, c: u16) -> u16 {
    H::fma(a, b, c)
}

/// `.ftz`: a subnormal becomes zero of the same sign.
#[inline(always)]
pub fn ftz<H: Half>(a: u16) -> u16 {
    if a & 0x7fff < 1 << H::FORMAT.mantissa_bits { a & 0x8000 } else { a }
}

/// `.sat`: clamps to `[+0, 1]`; NaN becomes `+0`.
#[inline(always)]
pub fn sat<H: Half>(a: u16) -> u16 {
    let infinity = H::FORMAT.infinity() as u16;
    if a <= H::ONE {
        a
    } else if a <= infinity {
        H::ONE
    } else {
        0
    }
}

/// `.relu`: a negative number becomes `+0`, a NaN the canonical one.
#[inline(always)]
pub fn relu<H: Half>(a: u16) -> u16 {
    let infinity = H::FORMAT.infinity() as u16;
    if a & 0x7fff > infinity {
        0x7fff
    } else if a & 0x8000 != 0 {
        0
    } else {
        a
    }
}

/// `neg`: flips the sign; a NaN keeps its payload (left open by the ISA).
#[inline(always)]
pub fn neg(a: u16) -> u16 {
    a ^ 0x8000
}

/// `abs`: clears the sign; a NaN keeps its payload (left open by the ISA).
#[inline(always)]
pub fn abs(a: u16) -> u16 {
    a & 0x7fff
}

/// An f32 operation whose result is one of its operands, a NaN, or an approximation, on a half format.
#[inline(always)]
fn through_f32<H: Half>(operation: impl Fn(f32, f32) -> f32, a: u16, b: u16) -> u16 {
    H::narrow(operation(H::widen(a), H::widen(b)))
}

/// `min`: of a number and a NaN, the number; `-0 < +0`.
#[inline(always)]
pub fn min<H: Half>(a: u16, b: u16) -> u16 {
    through_f32::<H>(compare::min, a, b)
}

/// `max`: of a number and a NaN, the number; `-0 < +0`.
#[inline(always)]
pub fn max<H: Half>(a: u16, b: u16) -> u16 {
    through_f32::<H>(compare::max, a, b)
}

/// `min.NaN`: NaN if either is.
#[inline(always)]
pub fn min_nan<H: Half>(a: u16, b: u16) -> u16 {
    through_f32::<H>(compare::min_nan, a, b)
}

/// `max.NaN`: NaN if either is.
#[inline(always)]
pub fn max_nan<H: Half>(a: u16, b: u16) -> u16 {
    through_f32::<H>(compare::max_nan, a, b)
}

/// `.xorsign.abs` around one of the four above: the operation on magnitudes, with the product of the signs. A NaN result
/// stays as it is.
#[inline(always)]
pub fn xorsign_abs<H: Half>(operation: impl Fn(u16, u16) -> u16, a: u16, b: u16) -> u16 {
    let result = operation(abs(a), abs(b));
    if abs(result) > H::FORMAT.infinity() as u16 { result } else { abs(result) | (a ^ b) & 0x8000 }
}

/// `setp` without its Boolean operator.
#[inline(always)]
pub fn compare<H: Half>(comparison: compare::Comparison, a: u16, b: u16) -> bool {
    compare::compare(comparison, H::widen(a), H::widen(b))
}

/// `ex2.approx`; the bf16 form is always `.ftz`, which the caller applies.
#[inline(always)]
pub fn ex2<H: Half>(a: u16) -> u16 {
    H::narrow(super::approximate::ex2(H::widen(a)))
}

/// `tanh.approx`.
#[inline(always)]
pub fn tanh<H: Half>(a: u16) -> u16 {
    H::narrow(super::approximate::tanh(H::widen(a)))
}

/// A unary `x2` form: the operation on each half.
#[inline(always)]
pub fn x2_unary(operation: impl Fn(u16) -> u16, a: u32) -> u32 {
    u32::from(operation(a as u16)) | u32::from(operation((a >> 16) as u16)) << 16
}

/// A binary `x2` form: the operation on each half.
#[inline(always)]
pub fn x2(operation: impl Fn(u16, u16) -> u16, a: u32, b: u32) -> u32 {
    let high = operation((a >> 16) as u16, (b >> 16) as u16);
    u32::from(operation(a as u16, b as u16)) | u32::from(high) << 16
}

/// A ternary `x2` form: the operation on each half.
#[inline(always)]
pub fn x2_ternary(operation: impl Fn(u16, u16, u16) -> u16, a: u32, b: u32, c: u32) -> u32 {
    let high = operation((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
    u32::from(operation(a as u16, b as u16, c as u16)) | u32::from(high) << 16
}

#[cfg(test)]
#[path = "half_precision_tests.rs"]
mod tests;
