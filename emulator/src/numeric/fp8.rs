//! Packed conversions of the 8-, 6- and 4-bit formats: `e4m3x2`, `e5m2x2`, `e2m3x2`, `e3m2x2`, `e2m1x2`, and the scales
//! `ue8m0x2`. Operand `a` goes to the upper half of the result.

use super::convert::{Modifiers, cvt_float};
use super::exact::{Format, Rounding};
use super::half_precision::{BF16, Half};

/// Bits from one packed element to the next: 4 for `e2m1`; the 6-bit formats are padded to 8.
const fn stride(format: Format) -> u32 {
    if format.exponent_bits + format.mantissa_bits < 4 { 4 } else { 8 }
}

#[inline(always)]
fn pack(to: Format, from: Format, relu: bool, a: u64, b: u64) -> u16 {
    let modifiers = Modifiers { relu, satfinite: true, ..Modifiers::default() };
    let convert = |bits| cvt_float(to, from, Rounding::Nearest, modifiers, bits) as u16;
    convert(a) << stride(to) | convert(b)
}

/// `cvt.rn.satfinite{.relu}.<to>x2.f32`. NaN becomes the format's NaN, or the largest number in a format without one.
#[inline(always)]
pub fn cvt_x2_f32(to: Format, relu: bool, a: f32, b: f32) -> u16 {
    pack(to, Format::F32, relu, a.to_bits().into(), b.to_bits().into())
}

/// `cvt.rn.satfinite{.relu}.<to>x2.f16x2`.
#[inline(always)]
pub fn cvt_x2_f16x2(to: Format, relu: bool, a: u32) -> u16 {
    pack(to, Format::F16, relu, (a >> 16).into(), (a & 0xffff).into())
}

/// `cvt.rn{.relu}.f16x2.<from>x2`; exact.
#[inline(always)]
pub fn cvt_f16x2_x2(from: Format, relu: bool, a: u16) -> u32 {
    let modifiers = Modifiers { relu, ..Modifiers::default() };
    let convert = |bits: u16| cvt_float(Format::F16, from, Rounding::Nearest, modifiers, bits.into()) as u32;
    convert(a >> stride(from)) << 16 | convert(a)
}

/// One `ue8m0`, the power of two `2^(bits - 127)` with NaN at 255: the magnitude of `a` rounded up (`.rp`) or down (`.rz`).
/// Below 2^-127 there is nothing smaller to round to; beyond 2^127 lies NaN, or with `satfinite` for all but NaN 2^127.
#[inline(always)]
fn ue8m0(up: bool, satfinite: bool, a: f32) -> u8 {
    const SMALLEST: u32 = 0x0040_0000; // 2^-127
    let magnitude = a.to_bits() & 0x7fff_ffff;
    let inexact = magnitude & 0x007f_ffff != 0 && magnitude > SMALLEST && magnitude < 0x7f80_0000;
    let exponent = (magnitude >> 23) + u32::from(up && inexact);
    if satfinite && exponent == 255 && !a.is_nan() { 254 } else { exponent as u8 }
}

/// `cvt.rz` (`up` false) or `cvt.rp{.satfinite}.ue8m0x2.f32`.
#[inline(always)]
pub fn cvt_ue8m0x2_f32(up: bool, satfinite: bool, a: f32, b: f32) -> u16 {
    u16::from(ue8m0(up, satfinite, a)) << 8 | u16::from(ue8m0(up, satfinite, b))
}

/// `cvt.rz` (`up` false) or `cvt.rp{.satfinite}.ue8m0x2.bf16x2`.
#[inline(always)]
pub fn cvt_ue8m0x2_bf16x2(up: bool, satfinite: bool, a: u32) -> u16 {
    cvt_ue8m0x2_f32(up, satfinite, BF16::widen((a >> 16) as u16), BF16::widen(a as u16))
}

/// `cvt.rn.bf16x2.ue8m0x2`; exact.
#[inline(always)]
pub fn cvt_bf16x2_ue8m0x2(a: u16) -> u32 {
    let convert = |scale: u16| match scale & 0xff {
        0 => 0x0040, // 2^-127 is subnormal in bf16
        255 => 0x7fff,
        exponent => u32::from(exponent) << 7,
    };
    convert(a >> 8) << 16 | convert(a)
}

#[cfg(test)]
mod tests {
    use super::super::half_precision::F16;
    use super::*;

    const FORMATS: [Format; 5] = [Format::E4M3, Format::E5M2, Format::E2M1, Format::E2M3, Format::E3M2];

    /// The numbers of a format in ascending order of magnitude, from the OCP definitions; the index is the encoding.
    fn magnitudes(format: Format) -> Vec<f64> {
        let (count, bias) = match format {
            Format::E4M3 => (0x7f, 7),
            Format::E5M2 => (0x7c, 15),
            Format::E2M1 => (8, 1),
            Format::E2M3 => (32, 1),
            _ => (32, 3),
        };
        let steps = 1 << format.mantissa_bits;
        let number = |bits: i32| {
            let (exponent, mantissa) = (bits / steps, f64::from(bits % steps) / f64::from(steps));
            if exponent == 0 { mantissa * 2f64.powi(1 - bias) } else { (1.0 + mantissa) * 2f64.powi(exponent - bias) }
        };
        (0..count).map(number).collect()
    }

    /// Nearest number, ties to the even encoding, beyond the largest the largest.
    fn nearest(format: Format, value: f64) -> u16 {
        let sign = if value.is_sign_negative() { format.sign_bit() as u16 } else { 0 };
        if value.is_nan() {
            return format.nan() as u16;
        }
        let magnitudes = magnitudes(format);
        let distance = |i: usize| (magnitudes[i] - value.abs().min(1e6)).abs();
        let by_distance = |i: &usize, j: &usize| distance(*i).total_cmp(&distance(*j)).then((i & 1).cmp(&(j & 1)));
        sign | (0..magnitudes.len()).min_by(by_distance).unwrap_or(0) as u16
    }

    #[test]
    fn every_f16_goes_to_the_nearest_number_of_every_format() {
        for format in FORMATS {
            for bits in 0..=u16::MAX {
                let value = F16::widen(bits);
                let expected = nearest(format, value.into());
                assert_eq!(cvt_x2_f32(format, false, value, 0.0), expected << stride(format), "{format:?} {value:e}");
                assert_eq!(cvt_x2_f16x2(format, false, bits.into()), expected, "{format:?} {value:e}");
                let rectified = if !value.is_nan() && value.is_sign_negative() { 0 } else { expected };
                assert_eq!(cvt_x2_f32(format, true, 0.0, value), rectified, "{format:?} relu {value:e}");
            }
        }
    }

    #[test]
    fn every_number_of_every_format_comes_back() {
        for format in FORMATS {
            for (bits, magnitude) in magnitudes(format).into_iter().enumerate() {
                let (bits, negative) = (bits as u16, bits as u16 | format.sign_bit() as u16);
                let both = cvt_f16x2_x2(format, false, negative << stride(format) | bits);
                assert_eq!(f64::from(F16::widen(both as u16)), magnitude);
                assert_eq!(f64::from(F16::widen((both >> 16) as u16)), -magnitude);
                assert_eq!(cvt_x2_f16x2(format, false, both), negative << stride(format) | bits);
                assert_eq!(cvt_f16x2_x2(format, true, negative), 0);
            }
        }
        assert_eq!(cvt_f16x2_x2(Format::E4M3, false, 0x7fff), 0x7fff_7fff);
        assert_eq!(cvt_f16x2_x2(Format::E5M2, false, 0xfc7d), 0xfc00_7fff);
    }

    #[test]
    fn f32_between_two_f16_is_rounded_once() {
        // Half way between 1 and 1.125 in e4m3, and one f32 step to either side, which f16 can't tell apart.
        let tie = 1.0625f32;
        assert_eq!(cvt_x2_f32(Format::E4M3, false, tie.next_up(), tie.next_down()), 0x3938);
        assert_eq!(cvt_x2_f32(Format::E4M3, false, tie, f32::INFINITY), 0x387e);
        assert_eq!(cvt_x2_f32(Format::E5M2, false, f32::NEG_INFINITY, 1e30), 0xfb7b);
        assert_eq!(cvt_x2_f32(Format::E2M1, false, f32::NAN, f32::NEG_INFINITY), 0x7f);
    }

    #[test]
    fn scales_are_powers_of_two() {
        let power = |bits: u16| if bits == 255 { f64::NAN } else { 2f64.powi(i32::from(bits) - 127) };
        for upper in 0..=u16::MAX {
            let value = BF16::widen(upper);
            let magnitude = f64::from(value.abs());
            let [down, up, clamped] =
                [(false, false), (true, false), (true, true)].map(|(u, s)| cvt_ue8m0x2_f32(u, s, 0.0, value) & 0xff);
            assert_eq!(cvt_ue8m0x2_bf16x2(true, false, upper.into()) & 0xff, up);
            if value.is_nan() {
                assert_eq!([down, up, clamped], [255; 3]);
            } else {
                assert_eq!(clamped, up.min(254));
                assert!(
                    down == 0
                        || down == 255 && magnitude.is_infinite()
                        || power(down) <= magnitude && magnitude < 2.0 * power(down)
                );
                assert!(up == 0 || up == 255 && magnitude > power(254) || power(up) >= magnitude && magnitude > power(up) / 2.0);
                assert!(up != 0 || magnitude <= power(0));
            }
        }
        for bits in 0..255 {
            let both = cvt_bf16x2_ue8m0x2(bits << 8 | bits);
            assert_eq!((f64::from(BF16::widen(both as u16)), both >> 16), (power(bits), both & 0xffff));
        }
        assert_eq!(cvt_bf16x2_ue8m0x2(0xff00), 0x7fff_0040);
        assert_eq!(cvt_ue8m0x2_f32(true, false, 1.0f32.next_up(), -4.0), 0x8081);
    }
}
