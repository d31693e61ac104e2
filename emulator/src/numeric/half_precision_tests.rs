//! Against the `half` crate, exact integers and f64.

use super::*;
use crate::numeric::exact::{Rounding, Value};

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
            let a = f64::from(H::widen(bits));
            let (power, tangent) = (f64::from(H::widen(ex2::<H>(bits))), f64::from(H::widen(tanh::<H>(bits))));
            if a.is_nan() {
                assert!(ex2::<H>(bits) == 0x7fff && tanh::<H>(bits) == 0x7fff);
                continue;
            }
            if power.is_infinite() {
                assert!(a.exp2() > largest, "{a}");
            } else {
                assert!((power - a.exp2()).abs() <= a.exp2() * relative + last_place, "{a}: {power}");
            }
            assert!((tangent - a.tanh()).abs() <= absolute && tangent.is_sign_negative() == a.is_sign_negative(), "{a}: {tangent}");
        }
    }
    check::<F16>(2f64.powf(-9.9), 2f64.powf(-10.987));
    check::<BF16>(2f64.powi(-7), 2f64.powi(-8));
}

#[test]
fn bf16_products_near_the_smallest_numbers_are_rounded_once() {
    // Every pair of mantissas, at exponents where the product is subnormal, half the smallest number, or below.
    for (a, b) in (0x80..0x100u16).flat_map(|a| (0x80..0x100u16).map(move |b| (a, b))) {
        for exponent in [0x2e00, 0x2d00, 0x2c80, 0x2c00, 0x2b80, 0x2b00] {
            let (a, b) = (0x0f00 + a, exponent + b);
            assert_eq!(Some(mul::<BF16>(a, b)), reference::<BF16>(a, b, 0), "{a:04x} * {b:04x}");
        }
    }
}
