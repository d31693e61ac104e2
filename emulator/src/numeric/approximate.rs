//! The `.approx` and `.full` instructions. The hardware's tables are not public: these stay within the error bounds and obey
//! the special values that the ISA states, mostly with a much smaller error, and give the same bits on every host.
//!
//! `.ftz` is the caller's: [`Float::ftz`] on operands and result.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, LN_2, LOG2_E, SQRT_2};

use super::float::Float;

/// `ln(2)^k / k!`, the Taylor coefficients of `2^x`.
const EXP2: [f32; 8] = {
    let mut coefficients = [1f32; 8];
    let mut term = 1f64;
    let mut k = 1;
    while k < 8 {
        term *= LN_2 / k as f64;
        coefficients[k] = term as f32;
        k += 1;
    }
    coefficients
};

/// `2^n` for `-126 ≤ n ≤ 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// `ex2.approx.f32`: `2^a` within 1.2 ulp (the ISA allows 2); exact at integers.
#[inline(always)]
pub fn ex2(a: f32) -> f32 {
    const TO_INTEGER: f32 = 12_582_912.0; // 1.5 · 2^23: a sum with it is an integer
    // Beyond ±160 the result is infinite or zero all the same; NaN is put back at the end.
    let x = if a < 160.0 { a } else { 160.0 };
    let x = if x > -160.0 { x } else { -160.0 };
    let shifted = x + TO_INTEGER;
    let n = shifted.to_bits().wrapping_sub(TO_INTEGER.to_bits()) as i32;
    let f = x - (shifted - TO_INTEGER);
    let high = EXP2[4] + f * (EXP2[5] + f * (EXP2[6] + f * EXP2[7]));
    let power = EXP2[0] + f * (EXP2[1] + f * (EXP2[2] + f * (EXP2[3] + f * high)));
    // In two steps, of which only the second can leave the normal range: a subnormal result is rounded once.
    let result = power * power_of_two(n >> 1) * power_of_two(n - (n >> 1));
    if a.is_nan() { a.settle(&[a]) } else { result }
}

/// `lg2.approx.f32`: `log2(a)`, computed in f64 and rounded to f32.
#[inline(always)]
pub fn lg2(a: f32) -> f32 {
    // a = m · 2^e with m in [√½, √2); log2(m) = 2/ln 2 · artanh((m - 1) / (m + 1)).
    const ROOT_HALF: i64 = (SQRT_2 / 2.0).to_bits() as i64;
    let bits = f64::from(a).to_bits() as i64;
    let e = bits.wrapping_sub(ROOT_HALF) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(e << 52) as u64);
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0)))));
    let result = (e as f64 + s * series * (2.0 * LOG2_E)) as f32;
    if a > 0.0 && a < f32::INFINITY {
        result
    } else if a == 0.0 {
        f32::NEG_INFINITY
    } else if a > 0.0 {
        a
    } else {
        f32::NAN.settle(&[])
    }
}

/// Sine and cosine of the angle in f64, error below 1e-9 for magnitudes up to 2^20.
#[inline(always)]
fn sine_and_cosine(a: f32) -> (f64, f64) {
    const TO_INTEGER: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52
    const PI_2_LOW: f64 = 6.123_233_995_736_766e-17; // π/2 - FRAC_PI_2
    let x = f64::from(a);
    let shifted = x * FRAC_2_PI + TO_INTEGER;
    let quarter = shifted.to_bits();
    let turns = shifted - TO_INTEGER;
    // The clamp matters only far outside the range for which the ISA promises anything.
    let r = (x - turns * FRAC_PI_2 - turns * PI_2_LOW).clamp(-1.0, 1.0);
    let q = r * r;
    let sine = r * (1.0 + q * (-1.0 / 6.0 + q * (1.0 / 120.0 + q * (-1.0 / 5040.0 + q * (1.0 / 362_880.0 - q / 39_916_800.0)))));
    let cosine = 1.0
        + q * (-0.5 + q * (1.0 / 24.0 + q * (-1.0 / 720.0 + q * (1.0 / 40_320.0 + q * (-1.0 / 3_628_800.0 + q / 479_001_600.0)))));
    let (s, c) = if quarter & 1 == 0 { (sine, cosine) } else { (cosine, sine) };
    let negate = |v: f64, negative: bool| if negative { -v } else { v };
    (negate(s, quarter & 2 != 0), negate(c, quarter.wrapping_add(1) & 2 != 0))
}

/// `sin.approx.f32`, computed in f64; the ISA promises 2^-20.5 within ±2π and nothing beyond ±100π, where this still is the
/// sine until its reduction runs out of bits at 2^20.
#[inline(always)]
pub fn sin(a: f32) -> f32 {
    let result = sine_and_cosine(a).0 as f32;
    let result = if a == 0.0 { a } else { result };
    if a.finite() { result } else { f32::NAN.settle(&[]) }
}

/// `cos.approx.f32`; see [`sin`].
#[inline(always)]
pub fn cos(a: f32) -> f32 {
    let result = sine_and_cosine(a).1 as f32;
    if a.finite() { result } else { f32::NAN.settle(&[]) }
}

/// `tanh.approx.f32`: relative error below 2^-17 (the ISA allows 2^-11).
#[inline(always)]
pub fn tanh(a: f32) -> f32 {
    let magnitude = a.abs();
    let small = a - a * (a * a) * (1.0 / 3.0);
    let power = ex2(magnitude * (-2.0 * LOG2_E) as f32);
    let large = ((1.0 - power) / (1.0 + power)).copysign(a);
    let result = if magnitude < 0.015_625 { small } else { large };
    if a == 0.0 { a } else { result.settle(&[a]) }
}

/// `rcp.approx.f32`: the host's division (the ISA allows 1 ulp).
#[inline(always)]
pub fn rcp(a: f32) -> f32 {
    (1.0 / a).settle(&[a])
}

/// `sqrt.approx.f32`: the host's square root.
#[inline(always)]
pub fn sqrt(a: f32) -> f32 {
    a.sqrt().settle(&[a])
}

/// `rsqrt.approx.f32`, computed in f64 and rounded to f32.
#[inline(always)]
pub fn rsqrt(a: f32) -> f32 {
    ((1.0 / f64::from(a).sqrt()) as f32).settle(&[a])
}

/// `rsqrt.approx.f64`, for which the ISA states no bound: a square root and a division.
#[inline(always)]
pub fn rsqrt_f64(a: f64) -> f64 {
    (1.0 / a.sqrt()).settle(&[a])
}

/// `div.approx.f32`: the host's division, but for divisors of magnitude above 2^126, whose reciprocal the hardware takes for
/// zero: the quotient is a signed zero, of an infinity NaN.
#[inline(always)]
pub fn div(a: f32, b: f32) -> f32 {
    const LARGE: f32 = f32::from_bits((126 + 127) << 23);
    let lost = b.abs() > LARGE && b.finite();
    let reciprocal = 0f32.copysign(b);
    (if lost { a * reciprocal } else { a / b }).settle(&[a, b])
}

/// `div.full.f32`: the host's division (the ISA allows 2 ulp).
#[inline(always)]
pub fn div_full(a: f32, b: f32) -> f32 {
    (a / b).settle(&[a, b])
}

/// The upper word of an f64, subnormals flushed: what the coarse `.approx.ftz.f64` instructions read and write.
#[inline(always)]
fn upper_word(a: f64) -> f64 {
    let upper = f64::from_bits(a.to_bits() & 0xffff_ffff_0000_0000);
    if upper.abs() < f64::MIN_POSITIVE { 0f64.copysign(a) } else { upper }
}

/// The result with the lower word cleared, subnormals flushed, and the NaN of the coarse instructions.
#[inline(always)]
fn coarse(a: f64) -> f64 {
    if a.is_nan() { f64::from_bits(0x7fff_ffff_0000_0000) } else { upper_word(a) }
}

/// `rcp.approx.ftz.f64`: reads the upper word of the operand and writes that of the result. An operand whose NaN payload is in
/// the lower word alone is an infinity to it.
#[inline(always)]
pub fn rcp_coarse(a: f64) -> f64 {
    coarse(1.0 / upper_word(a))
}

/// `rsqrt.approx.ftz.f64`: reads the upper word of the operand and writes that of the result.
#[inline(always)]
pub fn rsqrt_coarse(a: f64) -> f64 {
    coarse(1.0 / upper_word(a).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: u32 = 0x7fff_ffff;

    /// Every 1009th encoding and the neighbourhood of the values at which something changes.
    fn samples() -> impl Iterator<Item = f32> {
        let around = |v: f32| (-3i32..=3).map(move |i| f32::from_bits(v.to_bits().wrapping_add_signed(i)));
        let edges = [f32::MIN_POSITIVE, 1.0, 0.5, 2.0, 0.015_625, 126.0, 127.5, 128.0, 149.0, 149.5, 150.0, 160.0, 3.0, f32::MAX];
        let spread = (0..=u32::MAX).step_by(1009).map(f32::from_bits);
        spread
            .chain(edges.into_iter().flat_map(around))
            .chain(edges.into_iter().flat_map(move |e| around(-e)))
            .filter(|v| !v.is_nan())
    }

    /// Distance of `got` to the exact value in units of the last place of its f32 rounding.
    fn ulps(got: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if rounded.is_infinite() || rounded == got {
            return if rounded == got { 0.0 } else { f64::INFINITY };
        }
        let place = f64::from(rounded.abs().next_up()) - f64::from(rounded.abs());
        (f64::from(got) - exact).abs() / place.min(2f64.powi(104))
    }

    #[track_caller]
    fn check_bits(function: impl Fn(f32) -> f32, table: &[(f32, u32)]) {
        for (input, expected) in table {
            assert_eq!(function(*input).to_bits(), *expected, "of {input:e}");
        }
    }

    #[test]
    fn ex2_is_well_within_two_ulp_and_exact_at_integers() {
        let worst = samples().map(|a| ulps(ex2(a), f64::from(a).exp2())).fold(0.0, f64::max);
        assert!(worst <= 1.2, "{worst} ulp");
        let dense = (-1_500_000..1_300_000).map(|i| i as f32 * 1e-4).map(|a| ulps(ex2(a), f64::from(a).exp2())).fold(0.0, f64::max);
        assert!(dense <= 1.2, "{dense} ulp");
        for n in -149..128 {
            assert_eq!(f64::from(ex2(n as f32)), 2f64.powi(n), "2^{n}");
        }
        let inf = f32::INFINITY;
        check_bits(ex2, &[(-inf, 0), (-0.0, 0x3f80_0000), (0.0, 0x3f80_0000), (inf, 0x7f80_0000), (f32::NAN, NAN), (-151.0, 0)]);
    }

    #[test]
    fn lg2_keeps_its_bounds() {
        for a in samples().filter(|a| *a > 0.0 && a.is_finite()) {
            let exact = f64::from(a).log2();
            let bound = if a > 0.5 && a < 2.0 { 2f64.powi(-22) } else { exact.abs() * 2f64.powi(-22) };
            assert!((f64::from(lg2(a)) - exact).abs() <= bound, "{a:e}");
            assert!(ulps(lg2(a), exact) <= 0.51, "{a:e}");
        }
        let inf = f32::INFINITY;
        check_bits(lg2, &[(-inf, NAN), (-1.0, NAN), (-0.0, 0xff80_0000), (0.0, 0xff80_0000), (inf, 0x7f80_0000), (f32::NAN, NAN)]);
        check_bits(lg2, &[(1.0, 0), (1024.0, 10f32.to_bits()), (f32::from_bits(1), (-149f32).to_bits())]);
    }

    #[test]
    fn sine_and_cosine_keep_their_bounds_where_there_are_any() {
        for i in -314_160..=314_160 {
            let a = i as f32 * 1e-3;
            assert!((f64::from(sin(a)) - f64::from(a).sin()).abs() <= 2f64.powi(-24), "sin {a}");
            assert!((f64::from(cos(a)) - f64::from(a).cos()).abs() <= 2f64.powi(-24), "cos {a}");
        }
        for a in samples() {
            assert!(sin(a).abs() <= 1.0 || !a.is_finite(), "sin {a:e}");
            assert!(cos(a).abs() <= 1.0 || !a.is_finite(), "cos {a:e}");
        }
        let inf = f32::INFINITY;
        check_bits(sin, &[(-inf, NAN), (-0.0, 0x8000_0000), (0.0, 0), (inf, NAN), (f32::NAN, NAN), (1e-40, 1e-40f32.to_bits())]);
        check_bits(cos, &[(-inf, NAN), (-0.0, 0x3f80_0000), (0.0, 0x3f80_0000), (inf, NAN), (f32::NAN, NAN)]);
    }

    #[test]
    fn tanh_keeps_its_relative_bound() {
        for a in samples() {
            let exact = f64::from(a).tanh();
            assert!((f64::from(tanh(a)) - exact).abs() <= exact.abs() * 2f64.powi(-17), "{a:e}: {:e}", tanh(a));
        }
        let (inf, one) = (f32::INFINITY, 0x3f80_0000);
        check_bits(
            tanh,
            &[(-inf, one | 0x8000_0000), (-0.0, 0x8000_0000), (0.0, 0), (inf, one), (f32::NAN, NAN), (-1e-45, 0x8000_0001)],
        );
    }

    #[test]
    fn reciprocals_and_roots() {
        for a in samples() {
            let x = f64::from(a);
            assert!(ulps(rcp(a), 1.0 / x) <= 0.5, "1 / {a:e}");
            if a > 0.0 {
                assert!(ulps(sqrt(a), x.sqrt()) <= 0.5 && ulps(rsqrt(a), 1.0 / x.sqrt()) <= 0.5, "roots of {a:e}");
            }
        }
        let inf = f32::INFINITY;
        check_bits(rcp, &[(-inf, 0x8000_0000), (-0.0, 0xff80_0000), (0.0, 0x7f80_0000), (inf, 0), (f32::NAN, NAN)]);
        check_bits(sqrt, &[(-inf, NAN), (-1.0, NAN), (-0.0, 0x8000_0000), (0.0, 0), (inf, 0x7f80_0000), (f32::NAN, NAN)]);
        check_bits(rsqrt, &[(-inf, NAN), (-1.0, NAN), (-0.0, 0xff80_0000), (0.0, 0x7f80_0000), (inf, 0), (f32::NAN, NAN)]);
        assert_eq!((rsqrt_f64(4.0), rsqrt_f64(-0.0), rsqrt_f64(f64::INFINITY)), (0.5, f64::NEG_INFINITY, 0.0));
    }

    #[test]
    fn division_loses_divisors_above_two_to_the_126() {
        let large = 2f32.powi(126);
        assert_eq!((div(1.0, 3.0), div(large, large), div_full(large.next_up(), large.next_up())), (1.0 / 3.0, 1.0, 1.0));
        assert_eq!(div(large, -large.next_up()).to_bits(), 0x8000_0000);
        assert_eq!(div(f32::INFINITY, f32::MAX).to_bits(), NAN);
        assert_eq!(div(1.0, f32::NEG_INFINITY).to_bits(), 0x8000_0000);
        assert_eq!(div(1.0, 0.0), f32::INFINITY);
    }

    #[test]
    fn coarse_f64_functions_see_upper_words_only() {
        let nan = 0x7fff_ffff_0000_0000u64;
        let (inf, subnormal) = (f64::INFINITY, 1e-310f64);
        for (a, expected) in [(-inf, -0.0), (-subnormal, -inf), (-0.0, -inf), (0.0, inf), (subnormal, inf), (inf, 0.0), (4.0, 0.25)]
        {
            assert_eq!(rcp_coarse(a).to_bits(), expected.to_bits(), "{a:e}");
        }
        for (a, expected) in [(-subnormal, -inf), (-0.0, -inf), (0.0, inf), (subnormal, inf), (inf, 0.0), (4.0, 0.5)] {
            assert_eq!(rsqrt_coarse(a).to_bits(), expected.to_bits(), "{a:e}");
        }
        assert_eq!(
            [rcp_coarse(f64::NAN), rsqrt_coarse(f64::NAN), rsqrt_coarse(-inf), rsqrt_coarse(-1.0)].map(f64::to_bits),
            [nan; 4]
        );
        for a in [3.0, 0.1, 1e300, 7e-200] {
            assert!((rcp_coarse(a) * a - 1.0).abs() < 2f64.powi(-19) && rcp_coarse(a).to_bits() as u32 == 0);
        }
        assert_eq!(rcp_coarse(f64::MAX).to_bits(), 0);
    }
}
