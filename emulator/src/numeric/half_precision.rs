//! f16 and bf16, as bits in u16; two of them in u32 for the `x2` forms.
//!
//! Arithmetic is done in f64 and rounded once to the format. Sums, differences and products need no care there: f64 has
//! more than twice the bits plus two (Figueroa 1995, "When is double rounding innocuous?"). `fma` does, where a product half
//! way between two bf16 meets a tiny addend: its f64 sum is rounded to odd first (Boldo and Melquiond 2008).

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
        // The fields fall into place 13 bits further up; a product with 2^(127 - 15) corrects the bias, of subnormals too.
        let number = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
        let special = f32::from_bits(0x7f80_0000 | magnitude << 13);
        let unsigned = if magnitude >= 0x7c00 { special } else { number };
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
}

/// One rounding from f64 to the half format.
#[inline(always)]
fn narrow_f64<H: Half>(value: f64) -> u16 {
    const F64_MANTISSA: u64 = 52;
    let field = value.to_bits() >> F64_MANTISSA & 0x7ff;
    // `shift` is the power of two whose last place is the quantum of the result: adding it rounds, subtracting it is exact.
    // The upper bound keeps it finite for infinite values, which pass through.
    let smallest = 1023 - ((1 << (H::FORMAT.exponent_bits - 1)) - 2);
    let shift = field.clamp(smallest, 1023 + 512) + F64_MANTISSA - u64::from(H::FORMAT.mantissa_bits);
    let shift = f64::from_bits(shift << F64_MANTISSA);
    let rounded = ((value.abs() + shift) - shift).copysign(value);
    H::narrow(if value.finite() { rounded } else { value } as f32)
}

/// `a · b + c` of f64 that hold half values (so that the product is exact), rounded to odd: the last bit is set if anything
/// was lost, and a later rounding to fewer bits is then right.
#[inline(always)]
fn fused_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    let of_c = sum - product;
    let lost = (product - (sum - of_c)) + (c - of_c);
    let step = if (lost > 0.0) == (sum > 0.0) { 1 } else { u64::MAX };
    let inexact = lost < 0.0 || lost > 0.0;
    let even = sum.to_bits() & 1 == 0;
    f64::from_bits(sum.to_bits().wrapping_add(if inexact && even { step } else { 0 }))
}

#[inline(always)]
fn wide<H: Half>(bits: u16) -> f64 {
    f64::from(H::widen(bits))
}

/// `add`.
#[inline(always)]
pub fn add<H: Half>(a: u16, b: u16) -> u16 {
    narrow_f64::<H>(wide::<H>(a) + wide::<H>(b))
}

/// `sub`.
#[inline(always)]
pub fn sub<H: Half>(a: u16, b: u16) -> u16 {
    narrow_f64::<H>(wide::<H>(a) - wide::<H>(b))
}

/// `mul`.
#[inline(always)]
pub fn mul<H: Half>(a: u16, b: u16) -> u16 {
    narrow_f64::<H>(wide::<H>(a) * wide::<H>(b))
}

/// `fma.rn`, rounded once.
#[inline(always)]
pub fn fma<H: Half>(a: u16, b: u16, c: u16) -> u16 {
    narrow_f64::<H>(fused_to_odd(wide::<H>(a), wide::<H>(b), wide::<H>(c)))
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
mod tests {
    use super::super::exact::{Rounding, Value};
    use super::*;

    /// A small xorshift: bit patterns of all kinds.
    fn draws(count: usize) -> impl Iterator<Item = u64> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
        .take(count)
    }

    #[test]
    fn widening_and_narrowing_agree_with_the_half_crate_on_every_pattern() {
        for bits in 0..=u16::MAX {
            let (f, b) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
            assert_eq!(F16::widen(bits).is_nan(), f.is_nan());
            if !f.is_nan() {
                assert_eq!(F16::widen(bits).to_bits(), f.to_f32().to_bits());
                assert_eq!(F16::narrow(F16::widen(bits)), bits);
            }
            if !b.is_nan() {
                assert_eq!(BF16::widen(bits).to_bits(), b.to_f32().to_bits());
                assert_eq!(BF16::narrow(BF16::widen(bits)), bits);
            }
        }
        // Every upper half of f32 with the lower halves at which rounding changes.
        for upper in 0..=u16::MAX {
            for lower in [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0xf000, 0xffff] {
                let value = f32::from_bits(u32::from(upper) << 16 | lower);
                if value.is_nan() {
                    assert_eq!((F16::narrow(value), BF16::narrow(value)), (0x7fff, 0x7fff));
                } else {
                    assert_eq!(F16::narrow(value), half::f16::from_f32(value).to_bits(), "{value:e}");
                    assert_eq!(BF16::narrow(value), half::bf16::from_f32(value).to_bits(), "{value:e}");
                }
            }
        }
    }

    /// One rounding of the exact integer result.
    fn reference<H: Half>(a: u16, b: u16, c: u16) -> Option<u16> {
        let finite = |bits: u16| match H::FORMAT.decode(bits.into()) {
            Value::Finite(exact) => Some(exact),
            _ => None,
        };
        let sum = finite(a)?.product(finite(b)?).sum(finite(c)?, Rounding::Nearest);
        Some(sum.round(H::FORMAT, Rounding::Nearest) as u16)
    }

    fn check<H: Half>(a: u16, b: u16, c: u16) {
        let one = H::ONE;
        // a · 1 + (-0) is a, of either sign of zero.
        if let Some(expected) = reference::<H>(a, b, c) {
            assert_eq!(fma::<H>(a, b, c), expected, "fma {a:04x} {b:04x} {c:04x}");
        }
        if let Some(expected) = reference::<H>(a, one, c) {
            assert_eq!(add::<H>(a, c), expected, "{a:04x} + {c:04x}");
            assert_eq!(sub::<H>(a, c ^ 0x8000), expected, "{a:04x} - {:04x}", c ^ 0x8000);
        }
        let sign_of_product = (a ^ b) & 0x8000;
        if let Some(expected) = reference::<H>(a, b, sign_of_product) {
            assert_eq!(mul::<H>(a, b), expected, "{a:04x} * {b:04x}");
        }
    }

    #[test]
    fn arithmetic_is_the_exact_result_rounded_once() {
        let edges: Vec<u16> =
            [0, 1, 2, 0x03ff, 0x0400, 0x007f, 0x0080, 0x0081, 0x3bff, 0x3c00, 0x3c01, 0x3f7f, 0x3f80, 0x3f81, 0x7bff, 0x7f7f]
                .into_iter()
                .flat_map(|b| [b, b | 0x8000])
                .collect();
        for (a, b, c) in edges.iter().flat_map(|a| edges.iter().flat_map(|b| edges.iter().map(|c| (*a, *b, *c)))) {
            check::<F16>(a, b, c);
            check::<BF16>(a, b, c);
        }
        for draw in draws(300_000) {
            let (a, b, c) = (draw as u16, (draw >> 16) as u16, (draw >> 32) as u16);
            check::<F16>(a, b, c);
            check::<BF16>(a, b, c);
        }
    }

    #[test]
    fn a_product_half_way_between_two_bf16_is_decided_by_a_tiny_addend() {
        // 1.0078125 · 1.5 = 1.51171875, half way between 0x3fc1 and 0x3fc2.
        let tiny = 0x0080;
        assert_eq!(fma::<BF16>(0x3f81, 0x3fc0, 0), 0x3fc2);
        assert_eq!(fma::<BF16>(0x3f81, 0x3fc0, tiny | 0x8000), 0x3fc1);
        // 1.0078125 · 1.5 with the mantissa next to it: half way above an even one.
        assert_eq!(fma::<BF16>(0x3f83, 0x3fc0, 0), 0x3fc4);
        assert_eq!(fma::<BF16>(0x3f83, 0x3fc0, tiny), 0x3fc5);
    }

    #[test]
    fn specials() {
        let (inf, nan) = (0x7c00, 0x7fff);
        assert_eq!([add::<F16>(inf, inf | 0x8000), mul::<F16>(inf, 0), fma::<F16>(inf, 0, 0x3c00)], [nan; 3]);
        assert_eq!([add::<F16>(inf, 0x3c00), mul::<F16>(0x7bff, 0x7bff), fma::<F16>(0x7bff, 0x7bff, inf)], [inf; 3]);
        assert_eq!([add::<BF16>(0x7f81, 0), mul::<BF16>(0x7f80, 0), fma::<BF16>(0x7f80, 0x3f80, 0xff80)], [nan; 3]);
        assert_eq!([mul::<BF16>(0x7f7f, 0xff7f), fma::<BF16>(0xff80, 0x3f80, 0)], [0xff80; 2]);
        assert_eq!(add::<F16>(0x8000, 0x8000), 0x8000);
        assert_eq!(mul::<BF16>(0x8001, 0x0001), 0x8000);
    }

    #[test]
    fn modifiers_agree_with_their_definition_on_every_pattern() {
        fn check_modifiers<H: Half>() {
            for bits in 0..=u16::MAX {
                let value = H::widen(bits);
                let smallest = H::widen(1 << H::FORMAT.mantissa_bits);
                let flushed = if value.abs() < smallest { 0f32.copysign(value) } else { value };
                assert_eq!(H::widen(ftz::<H>(bits)).to_bits(), flushed.to_bits());
                let clamped = if value.is_nan() || value <= 0.0 { 0.0 } else { value.min(1.0) };
                assert_eq!(H::widen(sat::<H>(bits)).to_bits(), clamped.to_bits());
                let rectified = if value.is_nan() { 0x7fff } else { H::narrow(if value > 0.0 { value } else { 0.0 }) };
                assert_eq!(relu::<H>(bits), rectified);
                if !value.is_nan() {
                    assert_eq!((H::widen(neg(bits)), H::widen(abs(bits))), (-value, value.abs()));
                }
            }
        }
        check_modifiers::<F16>();
        check_modifiers::<BF16>();
    }

    #[test]
    fn min_max_and_comparisons() {
        let nan = 0x7e01;
        assert_eq!([min::<F16>(0x3c00, nan), min::<F16>(nan, 0x3c00), max::<F16>(0x8000, 0)], [0x3c00, 0x3c00, 0]);
        assert_eq!([min_nan::<F16>(0x3c00, nan), max_nan::<F16>(nan, 0), min::<F16>(nan, nan)], [0x7fff; 3]);
        assert_eq!([min::<BF16>(0x8000, 0), min::<BF16>(0, 0x8000), max::<BF16>(0xbf80, 0xc000)], [0x8000, 0x8000, 0xbf80]);
        assert_eq!(xorsign_abs::<F16>(min::<F16>, 0xc000, 0x3c00), 0xbc00);
        assert_eq!(xorsign_abs::<F16>(max::<F16>, 0xc000, 0xbc00), 0x4000);
        assert_eq!(xorsign_abs::<BF16>(max_nan::<BF16>, 0xc000, 0x7fc0), 0x7fff);
        assert!(compare::<F16>(compare::Comparison::Eq, 0, 0x8000) && !compare::<F16>(compare::Comparison::Eq, nan, nan));
        assert!(compare::<BF16>(compare::Comparison::Ltu, 0x7fc0, 0) && compare::<BF16>(compare::Comparison::Gt, 1, 0));
    }

    #[test]
    fn the_x2_forms_keep_the_halves_apart() {
        assert_eq!(x2_unary(neg, 0x0001_8002), 0x8001_0002);
        assert_eq!(x2(add::<F16>, 0x7bff_3c00, 0x7bff_3c00), 0x7c00_4000);
        assert_eq!(x2_ternary(fma::<BF16>, 0x4000_3f80, 0x4000_4000, 0x3f80_0000), 0x40a0_4000);
    }

    /// The ISA's bounds: relative 2^-9.9 and 2^-7 for ex2, absolute 2^-10.987 and 2^-8 for tanh.
    #[test]
    fn approximations_keep_the_bounds_of_the_isa_on_every_pattern() {
        fn check<H: Half>(relative: f64, absolute: f64) {
            let largest = f64::from(H::widen(H::FORMAT.max_finite() as u16));
            let last_place = f64::from(H::widen(1));
            for bits in 0..=u16::MAX {
                let a = wide::<H>(bits);
                let (power, tangent) = (wide::<H>(ex2::<H>(bits)), wide::<H>(tanh::<H>(bits)));
                if a.is_nan() {
                    assert!(ex2::<H>(bits) == 0x7fff && tanh::<H>(bits) == 0x7fff);
                    continue;
                }
                if power.is_infinite() {
                    assert!(a.exp2() > largest, "{a}");
                } else {
                    assert!((power - a.exp2()).abs() <= a.exp2() * relative + last_place, "{a}: {power}");
                }
                assert!(
                    (tangent - a.tanh()).abs() <= absolute && tangent.is_sign_negative() == a.is_sign_negative(),
                    "{a}: {tangent}"
                );
            }
        }
        check::<F16>(2f64.powf(-9.9), 2f64.powf(-10.987));
        check::<BF16>(2f64.powi(-7), 2f64.powi(-8));
    }
}
