use super::super::half_precision::BF16;
use super::*;

const DIRECTIONS: [Rounding; 5] = [Rounding::Nearest, Rounding::NearestAway, Rounding::Zero, Rounding::Down, Rounding::Up];
const PLAIN: Modifiers = Modifiers { ftz: false, sat: false, relu: false, satfinite: false };

/// Numbers at which conversions change their mind, of both signs, then encodings spread over the whole range.
fn numbers() -> Vec<f64> {
    let powers =
        [-1074, -1022, -149, -133, -126, -25, -24, -14, -1, 0, 1, 7, 8, 15, 16, 23, 24, 31, 32, 52, 53, 63, 64, 127, 128, 1023];
    let around = powers.into_iter().flat_map(|p| {
        let power = 2f64.powi(p);
        let fractions =
            [0.0, 2f64.powi(-52), 2f64.powi(-24), 2f64.powi(-11), 2f64.powi(-9), 2f64.powi(-8), 2f64.powi(-7), 0.5, 0.75];
        fractions.into_iter().flat_map(move |f| [power * (1.0 + f), power * (1.0 - f / 2.0)])
    });
    let small = [0.0, 0.5, 1.5, 2.5, 3.5, 0.49, 2.51, 65504.0, 65519.0, 65520.0, f64::INFINITY, f64::MAX, 3.3895e38];
    let spread = (1..4000u64).map(|i| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !(1 << 63))).filter(|v| !v.is_nan());
    let near_one = (1..2000u64).map(|i| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 6 | 0x3c00_0000_0000_0000));
    around.chain(small).chain(spread).chain(near_one).flat_map(|v| [v, -v]).collect()
}

/// Value of an encoding through the `half` crate and the host.
fn value(format: Format, bits: u64) -> f64 {
    match format {
        Format::F16 => half::f16::from_bits(bits as u16).to_f64(),
        Format::BF16 => half::bf16::from_bits(bits as u16).to_f64(),
        Format::TF32 => f32::from_bits((bits << 13) as u32).into(),
        Format::F32 => f32::from_bits(bits as u32).into(),
        _ => f64::from_bits(bits),
    }
}

/// Asserts that `bits` is `exact` rounded in this direction, from the values of `bits` and its neighbours alone.
fn assert_rounded(format: Format, rounding: Rounding, bits: u64, exact: f64) {
    let magnitude = bits & (format.sign_bit() - 1);
    let (x, exact_magnitude) = (value(format, magnitude), exact.abs());
    assert_eq!(bits & format.sign_bit() != 0, exact.is_sign_negative(), "{format:?} {rounding:?} of {exact:e}: sign");
    if x == exact_magnitude {
        return;
    }
    let above = x > exact_magnitude;
    let other = value(format, if above { magnitude - 1 } else { magnitude + 1 });
    assert!(above != (other > exact_magnitude), "{format:?} {rounding:?} of {exact:e}: {x:e} is not next to it");
    // For the purpose of nearness infinity stands where the next number would.
    let place = |v: f64| {
        if v.is_infinite() { 2.0 * value(format, format.max_finite()) - value(format, format.max_finite() - 1) } else { v }
    };
    let (mine, its) = ((place(x) - exact_magnitude).abs(), (place(other) - exact_magnitude).abs());
    let beyond = exact_magnitude > place(f64::INFINITY);
    let right = match rounding {
        Rounding::Zero => !above,
        Rounding::Down => above == exact.is_sign_negative(),
        Rounding::Up => above != exact.is_sign_negative(),
        Rounding::Nearest => x.is_infinite() && beyond || mine < its || mine == its && magnitude & 1 == 0,
        Rounding::NearestAway => x.is_infinite() && beyond || mine < its || mine == its && above,
    };
    assert!(right, "{format:?} {rounding:?} of {exact:e}: {x:e}");
}

#[test]
fn f64_is_rounded_to_the_right_neighbour_in_every_format_and_direction() {
    for exact in numbers() {
        for format in [Format::F32, Format::F16, Format::BF16, Format::TF32] {
            for rounding in DIRECTIONS {
                let bits = cvt_float(format, Format::F64, rounding, PLAIN, exact.to_bits());
                assert_rounded(format, rounding, bits, exact);
            }
        }
        assert_eq!(cvt_rn_f32_f64(exact), exact as f32);
    }
}

#[test]
fn every_half_widens_exactly_and_conversions_between_the_halves_round_once() {
    for bits in 0..=u16::MAX {
        for from in [Format::F16, Format::BF16] {
            let exact = value(from, bits.into());
            if exact.is_nan() {
                assert_eq!(cvt_float(Format::F32, from, Rounding::Nearest, PLAIN, bits.into()), 0x7fff_ffff);
                continue;
            }
            assert_eq!(cvt_float(Format::F32, from, Rounding::Nearest, PLAIN, bits.into()), (exact as f32).bits());
            assert_eq!(cvt_float(Format::F64, from, Rounding::Zero, PLAIN, bits.into()), exact.to_bits());
            for (to, rounding) in [(Format::F16, Rounding::Down), (Format::BF16, Rounding::Nearest), (Format::BF16, Rounding::Up)] {
                assert_rounded(to, rounding, cvt_float(to, from, rounding, PLAIN, bits.into()), exact);
            }
        }
        assert_eq!(
            u64::from(cvt_f32_f16(bits).to_bits()),
            cvt_float(Format::F32, Format::F16, Rounding::Nearest, PLAIN, bits.into())
        );
    }
}

#[test]
fn modifiers_of_float_conversions() {
    let f16 = |modifiers, rounding, v: f32| cvt_float(Format::F16, Format::F32, rounding, modifiers, v.bits());
    let satfinite = Modifiers { satfinite: true, ..PLAIN };
    let relu = Modifiers { relu: true, ..PLAIN };
    let sat = Modifiers { sat: true, ..PLAIN };
    let ftz = Modifiers { ftz: true, ..PLAIN };
    let nearest = Rounding::Nearest;
    assert_eq!(
        [f16(satfinite, nearest, 1e9), f16(satfinite, nearest, f32::NEG_INFINITY), f16(satfinite, nearest, f32::NAN)],
        [0x7bff, 0xfbff, 0x7fff]
    );
    assert_eq!(
        [f16(relu, nearest, -1.0), f16(relu, nearest, -0.0), f16(relu, nearest, 2.0), f16(relu, nearest, f32::NAN)],
        [0, 0, 0x4000, 0x7fff]
    );
    assert_eq!(
        [f16(sat, nearest, -1.0), f16(sat, nearest, 7.0), f16(sat, nearest, 0.5), f16(sat, nearest, f32::NAN)],
        [0, 0x3c00, 0x3800, 0]
    );
    assert_eq!([f16(ftz, Rounding::Up, 1e-40), f16(PLAIN, Rounding::Up, 1e-40)], [0, 1]);
    let to_f32 = |modifiers, v: f64| cvt_float(Format::F32, Format::F64, nearest, modifiers, v.to_bits());
    assert_eq!([to_f32(ftz, -1e-40), to_f32(sat, 3.0), to_f32(PLAIN, f64::NAN)], [0x8000_0000, 0x3f80_0000, 0x7fff_ffff]);
    // Folded by ptxas 13.0: cvt.f64.f32 of 0f7fc00001.
    assert_eq!(cvt_f64_f32(f32::from_bits(0x7fc0_0001)).to_bits(), 0x7ff8_0000_2000_0000);
    assert_eq!(cvt_float(Format::F64, Format::F32, nearest, PLAIN, 0x7fc0_0001), 0x7ff8_0000_2000_0000);
    assert_eq!(cvt_x2_f32(BF16::narrow, 1.0, -2.0), 0x3f80_c000);
}

#[test]
fn tf32_is_an_f32_with_thirteen_zero_bits() {
    for exact in numbers().into_iter().map(|v| v as f32) {
        for rounding in DIRECTIONS {
            let bits = cvt_tf32_f32(rounding, PLAIN, exact);
            assert_eq!(bits & 0x1fff, 0);
            assert_rounded(Format::TF32, rounding, u64::from(bits >> 13), exact.into());
        }
        assert_eq!(cvt_rna_tf32_f32(exact), cvt_tf32_f32(Rounding::NearestAway, PLAIN, exact), "{exact:e}");
    }
    assert_eq!([cvt_rna_tf32_f32(f32::NAN), cvt_tf32_f32(Rounding::Zero, PLAIN, f32::NAN)], [0x7fff_ffff; 2]);
    // Folded by ptxas 13.0: cvt.rna.tf32.f32 of 0f3f803fff.
    assert_eq!(cvt_rna_tf32_f32(f32::from_bits(0x3f80_3fff)), 0x3f80_4000);
    let modifiers = Modifiers { satfinite: true, relu: true, ..PLAIN };
    assert_eq!(cvt_tf32_f32(Rounding::Nearest, modifiers, f32::INFINITY), 0x7f7f_e000);
    assert_eq!(cvt_tf32_f32(Rounding::Nearest, modifiers, -1.0), 0);
}

#[test]
fn integers_become_the_right_floats() {
    let edges =
        [0u64, 1, 3, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x00ff_ffff, 0x0100_0001, 0x0100_0003, 0x7fff_ffff, 0x8000_0000];
    let wide =
        [u64::MAX, i64::MAX as u64, 1 << 63, 0x0020_0000_0000_0001, 0x4040_0000_0000_0001, 0x8000_0080_0000_0001, u32::MAX.into()];
    for bits in edges.into_iter().chain(wide).flat_map(|e| [e, e.wrapping_neg()]) {
        for from in [IntegerFormat::unsigned(64), IntegerFormat::signed(64), IntegerFormat::signed(32), IntegerFormat::unsigned(8)]
        {
            let exact = from.decode(bits);
            let convert = |to, rounding| cvt_float_integer(to, from, rounding, PLAIN, bits);
            assert_eq!(convert(Format::F32, Rounding::Nearest), (exact as f32).bits());
            assert_eq!(convert(Format::F64, Rounding::Nearest), (exact as f64).to_bits());
            for to in [Format::F32, Format::F64] {
                let at = |rounding| value(to, convert(to, rounding)) as i128;
                let (down, up, zero) = (at(Rounding::Down), at(Rounding::Up), at(Rounding::Zero));
                assert!(down <= exact && exact <= up && zero == if exact < 0 { up } else { down });
                let step = convert(to, Rounding::Up).abs_diff(convert(to, Rounding::Down));
                assert_eq!(step, u64::from(down != up), "{exact}");
            }
            if exact.unsigned_abs() < 1 << 53 {
                for to in [Format::F16, Format::BF16] {
                    for rounding in DIRECTIONS {
                        assert_rounded(to, rounding, convert(to, rounding), exact as f64);
                    }
                }
            }
        }
        assert_eq!(cvt_rn_f32(bits as i32), bits as i32 as f32);
        assert_eq!(cvt_rn_f64(bits), bits as f64);
    }
    // 2^62 + 2^54 + 1 lies just above the middle of two bf16: one rounding goes up, two would not.
    let above_tie = (1u64 << 62) + (1 << 54) + 1;
    assert_eq!(cvt_float_integer(Format::BF16, IntegerFormat::unsigned(64), Rounding::Nearest, PLAIN, above_tie), 0x5e81);
}

fn rounded(rounding: Rounding, v: f64) -> f64 {
    match rounding {
        Rounding::Nearest => v.round_ties_even(),
        Rounding::NearestAway => v.round(),
        Rounding::Zero => v.trunc(),
        Rounding::Down => v.floor(),
        Rounding::Up => v.ceil(),
    }
}

#[test]
fn floats_become_clamped_integers() {
    for v in numbers() {
        for rounding in DIRECTIONS {
            let general =
                |bits, signed| cvt_integer_float(IntegerFormat { bits, signed }, Format::F64, rounding, false, v.to_bits());
            let r = rounded(rounding, v);
            assert_eq!(general(64, true), r as i64 as u64, "{rounding:?} {v:e}");
            assert_eq!(general(64, false), r as u64, "{rounding:?} {v:e}");
            assert_eq!(general(32, true), i64::from(r as i32) as u64);
            assert_eq!(general(32, false), u64::from(r as u32));
            assert_eq!(general(16, true), i64::from(r as i16) as u64);
            assert_eq!(general(8, false), u64::from(r as u8));
            let narrow = v as f32;
            let r = rounded(rounding, narrow.into());
            assert_eq!(cvt_integer_f32::<i32>(rounding, narrow), r as i32);
            assert_eq!(cvt_integer_f32::<u64>(rounding, narrow), r as u64);
            assert_eq!(cvt_integral_f32(rounding, narrow).bits(), (r as f32).bits());
            for (format, bits, r) in
                [(Format::F32, narrow.bits(), (r as f32).bits()), (Format::F64, v.to_bits(), rounded(rounding, v).to_bits())]
            {
                assert_eq!(cvt_integral(format, rounding, PLAIN, bits), r, "{rounding:?} {v:e}");
            }
        }
    }
}

#[test]
fn nan_as_an_integer_is_zero_or_the_smallest_signed_number() {
    let nan =
        |bits, signed, from: Format| cvt_integer_float(IntegerFormat { bits, signed }, from, Rounding::Zero, false, from.nan());
    assert_eq!([nan(32, true, Format::F32), nan(32, false, Format::F16), nan(8, true, Format::BF16)], [0; 3]);
    assert_eq!([nan(64, true, Format::F32), nan(64, false, Format::F16), nan(64, false, Format::F64)], [1 << 63; 3]);
    assert_eq!([nan(32, false, Format::F64), nan(32, true, Format::F64)], [0x8000_0000, 0xffff_ffff_8000_0000]);
    assert_eq!((cvt_integer_f32::<u32>(Rounding::Zero, f32::NAN), cvt_integer_f32::<i64>(Rounding::Zero, f32::NAN)), (0, i64::MIN));
    assert_eq!(cvt_integer_float(IntegerFormat::signed(32), Format::F32, Rounding::Up, true, 1e-40f32.bits()), 0);
}

#[test]
fn integers_are_cut_extended_or_clamped() {
    let format = |i: usize| IntegerFormat { bits: 8 << (i / 2), signed: i % 2 == 1 };
    let edges =
        [0u64, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 63, u64::MAX, u64::MAX - 5];
    for bits in edges {
        for (from, to) in (0..8).flat_map(|f| (0..8).map(move |t| (format(f), format(t)))) {
            let extend = |f: IntegerFormat, bits: u64| match (f.bits, f.signed) {
                (8, true) => i128::from(bits as i8),
                (8, false) => i128::from(bits as u8),
                (16, true) => i128::from(bits as i16),
                (16, false) => i128::from(bits as u16),
                (32, true) => i128::from(bits as i32),
                (32, false) => i128::from(bits as u32),
                (_, true) => i128::from(bits as i64),
                (_, false) => i128::from(bits),
            };
            let exact = extend(from, bits);
            assert_eq!(cvt_integer(to, from, false, bits), extend(to, exact as u64) as u64);
            let (least, most) = (
                extend(to, if to.signed { 1 << (to.bits - 1) } else { 0 }),
                extend(to, u64::MAX >> (64 - to.bits) >> u32::from(to.signed)),
            );
            assert_eq!(cvt_integer(to, from, true, bits), exact.clamp(least, most) as u64, "{from:?} {to:?} {bits:x}");
        }
    }
    assert_eq!(cvt_pack(IntegerFormat::signed(16), 40_000, -40_000, 0), 0x7fff_8000);
    assert_eq!(cvt_pack(IntegerFormat::unsigned(8), 300, -1, 0xaabb_ccdd), 0xccdd_ff00);
    assert_eq!(cvt_pack(IntegerFormat::signed(4), -9, 3, 0x0123_4567), 0x2345_6783);
    assert_eq!(cvt_pack(IntegerFormat::unsigned(2), 9, 1, 0x0fff_ffff), 0xffff_fffd);
}
