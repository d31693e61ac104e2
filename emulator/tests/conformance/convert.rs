//! `cvt` between every pair of types, on registers of every width that may hold them.

use super::oracle::{Exact, HalfFormat, ROUNDINGS, Round, bits_of, f32_of, flush, number, range, saturate, wrap};
use super::{Case, Ty, Ty::*, checked, exact, refused, run};

/// The integer types; 8-bit ones are held by registers of 16 bits.
const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

/// A register's operands of so many bits.
fn register(bits: u32) -> Ty {
    match bits {
        64 => U64,
        32 => U32,
        _ => U16,
    }
}

/// The low bits as a number.
fn low(bits: u32, signed: bool, word: u64) -> i128 {
    let value = i128::from(word) & ((1 << bits) - 1);
    if signed && value >> (bits - 1) == 1 { value - (1 << bits) } else { value }
}

fn limits(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

#[test]
fn integers_in_registers_of_every_width() {
    let mut cases = Vec::new();
    for (to, to_bits, to_signed) in INTEGERS {
        for (from, from_bits, from_signed) in INTEGERS {
            for held in [16, 32, 64].into_iter().filter(|&held| held >= from_bits) {
                for result in [16, 32, 64].into_iter().filter(|&result| result >= to_bits) {
                    for sat in [false, true] {
                        let text = format!("cvt{}.{to}.{from} $d, $a;", if sat { ".sat" } else { "" });
                        cases.push(exact(text, &[register(held)], register(result), move |x| {
                            let value = low(from_bits, from_signed, x[0]);
                            let (least, greatest) = limits(to_bits, to_signed);
                            let value = if sat { value.clamp(least, greatest) } else { value };
                            wrap(register(result), low(to_bits, to_signed, value as u64))
                        }));
                    }
                }
            }
        }
    }
    run(cases);
}

/// Rounds to an integral value.
fn integral(round: Round, value: f64) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

type Decode = fn(u64) -> f64;

const FLOATS: [(&str, Ty, Decode); 4] = [
    ("f16", F16, |x| HalfFormat::F16.value(x)),
    ("bf16", BF16, |x| HalfFormat::BF16.value(x)),
    ("f32", F32, |x| f64::from(f32_of(x))),
    ("f64", F64, f64::from_bits),
];

#[test]
fn floats_to_integers() {
    let mut cases = Vec::new();
    for (from, ty, decode) in FLOATS {
        for (to, bits, signed) in INTEGERS {
            for (rnd, round) in ROUNDINGS {
                let result = register(bits);
                let oracle = move |x: &[u64], flushed: bool| {
                    let value = if flushed { f64::from(flush(f32_of(x[0]))) } else { decode(x[0]) };
                    let (least, greatest) = limits(bits, signed);
                    let value = match () {
                        _ if !value.is_nan() => (integral(round, value) as i128).clamp(least, greatest),
                        // The hardware's integer for NaN where it has no zero for it.
                        _ if bits == 64 || ty == F64 => 1 << (bits - 1),
                        _ => 0,
                    };
                    wrap(result, low(bits, signed, value as u64))
                };
                cases.push(exact(format!("cvt.{rnd}i.{to}.{from} $d, $a;"), &[ty], result, move |x| oracle(x, false)));
                cases.push(exact(format!("cvt.{rnd}i.sat.{to}.{from} $d, $a;"), &[ty], result, move |x| oracle(x, false)));
                if ty == F32 {
                    cases.push(exact(format!("cvt.{rnd}i.ftz.{to}.f32 $d, $a;"), &[ty], result, move |x| oracle(x, true)));
                }
            }
        }
    }
    run(cases);
}

/// An integer as a double and what it lacks.
fn exactly(value: i128) -> Exact {
    let near = value as f64;
    Exact { near, rest: (value - near as i128) as f64 }
}

#[test]
fn integers_to_floats() {
    let mut cases = Vec::new();
    for (from, bits, signed) in INTEGERS {
        for (rnd, round) in ROUNDINGS {
            let held = register(bits);
            let value = move |x: &[u64]| exactly(low(bits, signed, x[0]));
            cases.push(exact(format!("cvt.{rnd}.f32.{from} $d, $a;"), &[held], F32, move |x| {
                let value = value(x);
                if value.near == 0.0 { 0 } else { bits_of(value.to_f32(round)) }
            }));
            cases.push(exact(format!("cvt.{rnd}.f64.{from} $d, $a;"), &[held], F64, move |x| value(x).to_f64(round).to_bits()));
            cases.push(exact(format!("cvt.{rnd}.sat.f32.{from} $d, $a;"), &[held], F32, move |x| {
                if value(x).near > 0.0 { u64::from(1f32.to_bits()) } else { 0 }
            }));
        }
        let held = register(bits);
        for (name, ty, format) in [("f16", F16, HalfFormat::F16), ("bf16", BF16, HalfFormat::BF16)] {
            cases.push(exact(format!("cvt.rn.{name}.{from} $d, $a;"), &[held], ty, move |x| {
                format.nearest(exactly(low(bits, signed, x[0])))
            }));
        }
    }
    run(cases);
}

#[test]
fn between_floats() {
    let mut cases: Vec<Case> = Vec::new();
    let nan_or = |want: f64, got: u64| {
        let value = f64::from_bits(got);
        if got == want.to_bits() || want.is_nan() && value.is_nan() { Ok(()) } else { Err(format!("{want:e}")) }
    };
    for (name, ty, format) in [("f16", F16, HalfFormat::F16), ("bf16", BF16, HalfFormat::BF16)] {
        cases.push(checked(format!("cvt.f32.{name} $d, $a;"), &[ty], F32, move |x, got| {
            let want = format.value(x[0]);
            if got == u64::from((want as f32).to_bits()) || want.is_nan() && f32_of(got).is_nan() {
                Ok(())
            } else {
                Err(format!("{want:e}"))
            }
        }));
        cases.push(checked(format!("cvt.f64.{name} $d, $a;"), &[ty], F64, move |x, got| nan_or(format.value(x[0]), got)));
        cases.push(exact(format!("cvt.rn.{name}.f64 $d, $a;"), &[F64], ty, move |x| {
            format.nearest(Exact { near: f64::from_bits(x[0]), rest: 0.0 })
        }));
        let narrow = move |x: u64| format.nearest(Exact { near: f64::from(f32_of(x)), rest: 0.0 });
        let largest = u64::from(format.infinity()) - 1;
        let finite = move |bits: u64| if bits & 0x7fff == largest + 1 { bits & 0x8000 | largest } else { bits };
        let relu = |bits: u64| if bits & 0x8000 != 0 { 0 } else { bits };
        cases.push(exact(format!("cvt.rn.{name}.f32 $d, $a;"), &[F32], ty, move |x| narrow(x[0])));
        cases.push(exact(format!("cvt.rn.relu.{name}.f32 $d, $a;"), &[F32], ty, move |x| relu(narrow(x[0]))));
        cases.push(exact(format!("cvt.rn.satfinite.{name}.f32 $d, $a;"), &[F32], ty, move |x| finite(narrow(x[0]))));
        cases.push(exact(format!("cvt.rn.{name}x2.f32 $d, $a, $b;"), &[F32, F32], U32, move |x| narrow(x[0]) << 16 | narrow(x[1])));
        cases.push(exact(format!("cvt.rn.relu.{name}x2.f32 $d, $a, $b;"), &[F32, F32], U32, move |x| {
            relu(narrow(x[0])) << 16 | relu(narrow(x[1]))
        }));
        cases.push(exact(format!("cvt.rn.relu.satfinite.{name}x2.f32 $d, $a, $b;"), &[F32, F32], U32, move |x| {
            relu(finite(narrow(x[0]))) << 16 | relu(finite(narrow(x[1])))
        }));
        // Towards zero: the magnitude is cut to the largest encoding that is not larger.
        cases.push(exact(format!("cvt.rz.{name}.f32 $d, $a;"), &[F32], ty, move |x| {
            let value = f64::from(f32_of(x[0]));
            let near = narrow(x[0]);
            let beyond = format.value(near).abs() > value.abs();
            if beyond && value.is_finite() { near - 1 } else { near }
        }));
    }
    cases.push(exact("cvt.rn.f32.bf16 $d, $a;", &[BF16], F32, |x| bits_of(HalfFormat::BF16.value(x[0]) as f32)));
    cases.push(exact("cvt.rn.bf16.f16 $d, $a;", &[F16], BF16, |x| {
        HalfFormat::BF16.nearest(Exact { near: HalfFormat::F16.value(x[0]), rest: 0.0 })
    }));
    cases.push(checked("cvt.f64.f32 $d, $a;", &[F32], F64, move |x, got| nan_or(f64::from(f32_of(x[0])), got)));
    cases.push(checked("cvt.ftz.f64.f32 $d, $a;", &[F32], F64, move |x, got| nan_or(f64::from(flush(f32_of(x[0]))), got)));
    for (rnd, round) in ROUNDINGS {
        for ftz in [false, true] {
            let suffix = if ftz { ".ftz" } else { "" };
            cases.push(exact(format!("cvt.{rnd}{suffix}.f32.f64 $d, $a;"), &[F64], F32, move |x| {
                let value = f64::from_bits(x[0]);
                let narrow =
                    if value == 0.0 || !value.is_finite() { value as f32 } else { Exact { near: value, rest: 0.0 }.to_f32(round) };
                bits_of(if ftz { flush(narrow) } else { narrow })
            }));
            cases.push(exact(format!("cvt.{rnd}i{suffix}.f32.f32 $d, $a;"), &[F32], F32, move |x| {
                let value = if ftz { flush(f32_of(x[0])) } else { f32_of(x[0]) };
                bits_of(integral(round, f64::from(value)) as f32)
            }));
        }
        cases.push(checked(format!("cvt.{rnd}i.f64.f64 $d, $a;"), &[F64], F64, move |x, got| {
            nan_or(integral(round, f64::from_bits(x[0])), got)
        }));
        cases.push(exact(format!("cvt.{rnd}i.f16.f16 $d, $a;"), &[F16], F16, move |x| {
            HalfFormat::F16.nearest(Exact { near: integral(round, HalfFormat::F16.value(x[0])), rest: 0.0 })
        }));
    }
    for (suffix, ftz) in [("", false), (".ftz", true)] {
        cases.push(exact(format!("cvt{suffix}.sat.f32.f32 $d, $a;"), &[F32], F32, move |x| {
            let value = if ftz { flush(f32_of(x[0])) } else { f32_of(x[0]) };
            bits_of(saturate(f64::from(value)) as f32)
        }));
    }
    run(cases);
}

/// `.tf32` keeps 10 bits of the mantissa.
#[test]
fn tf32() {
    let rounded = |x: u64, up: fn(u64, u64) -> bool| {
        if f32_of(x).is_nan() {
            return 0x7fff_ffff;
        }
        let (kept, lost) = (x & !0x1fff, x & 0x1fff);
        if f32_of(x).is_finite() && up(kept, lost) { kept + 0x2000 } else { kept }
    };
    run(vec![
        exact("cvt.rna.tf32.f32 $d, $a;", &[F32], U32, move |x| rounded(x[0], |_, lost| lost >= 0x1000)),
        exact("cvt.rn.tf32.f32 $d, $a;", &[F32], U32, move |x| {
            rounded(x[0], |kept, lost| lost > 0x1000 || lost == 0x1000 && kept & 0x2000 != 0)
        }),
        exact("cvt.rz.tf32.f32 $d, $a;", &[F32], U32, move |x| rounded(x[0], |_, _| false)),
        exact("cvt.rz.relu.tf32.f32 $d, $a;", &[F32], U32, move |x| {
            let bits = rounded(x[0], |_, _| false);
            if bits >> 31 == 1 { 0 } else { bits }
        }),
    ]);
}

/// A number of the 8-bit formats.
fn small(e5m2: bool, bits: u64) -> f64 {
    let (exponent_bits, mantissa_bits, bias) = if e5m2 { (5, 2, 15) } else { (4, 3, 7) };
    let mantissa = (bits & ((1 << mantissa_bits) - 1)) as f64 / f64::from(1 << mantissa_bits);
    let exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    let size = match exponent {
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        15 if !e5m2 && bits & 7 == 7 => f64::NAN,
        0 => mantissa * 2f64.powi(1 - bias),
        _ => (1.0 + mantissa) * 2f64.powi(exponent as i32 - bias),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// The nearest of all finite numbers of a format, even in a tie; NaN is all ones.
fn nearest_small(e5m2: bool, value: f64) -> u64 {
    if value.is_nan() {
        return 0x7f;
    }
    let largest = if e5m2 { 0x7b } else { 0x7e };
    // Far beyond the largest number all distances would be the same in f64.
    let size = value.abs().min(2.0 * small(e5m2, largest));
    let distance = |bits: u64| (small(e5m2, bits) - size).abs();
    let best = (0..=largest).fold(0, |best, bits| {
        if distance(bits) < distance(best) || distance(bits) == distance(best) && bits & 1 == 0 { bits } else { best }
    });
    if value.is_sign_negative() { best | 0x80 } else { best }
}

#[test]
fn formats_of_8_bits() {
    let mut cases = Vec::new();
    for (name, e5m2) in [("e4m3x2", false), ("e5m2x2", true)] {
        for (relu, suffix) in [(false, ""), (true, ".relu")] {
            let narrow = move |value: f64| {
                let bits = nearest_small(e5m2, value);
                if relu && bits & 0x80 != 0 { 0 } else { bits }
            };
            cases.push(exact(format!("cvt.rn.satfinite{suffix}.{name}.f32 $d, $a, $b;"), &[F32, F32], U16, move |x| {
                narrow(f64::from(f32_of(x[0]))) << 8 | narrow(f64::from(f32_of(x[1])))
            }));
            cases.push(exact(format!("cvt.rn.satfinite{suffix}.{name}.f16x2 $d, $a;"), &[F16x2], U16, move |x| {
                narrow(HalfFormat::F16.value(x[0] >> 16)) << 8 | narrow(HalfFormat::F16.value(x[0] & 0xffff))
            }));
            cases.push(exact(format!("cvt.rn{suffix}.f16x2.{name} $d, $a;"), &[U16], U32, move |x| {
                let widen = |bits: u64| {
                    let bits = HalfFormat::F16.nearest(Exact { near: small(e5m2, bits), rest: 0.0 });
                    if relu && bits & 0x8000 != 0 { 0 } else { bits }
                };
                widen(x[0] >> 8) << 16 | widen(x[0] & 0xff)
            }));
        }
    }
    run(cases);
}

#[test]
fn packed_integers() {
    let mut cases = Vec::new();
    for (name, bits, signed) in
        [("u16", 16, false), ("s16", 16, true), ("u8", 8, false), ("s8", 8, true), ("u4", 4, false), ("s2", 2, true)]
    {
        let field = move |x: u64| {
            let (least, greatest) = limits(bits, signed);
            number(S32, x).clamp(least, greatest) as u64 & ((1 << bits) - 1)
        };
        if bits == 16 {
            cases.push(exact(format!("cvt.pack.sat.{name}.s32 $d, $a, $b;"), &[S32, S32], U32, move |x| {
                field(x[0]) << 16 | field(x[1])
            }));
        } else {
            cases.push(exact(format!("cvt.pack.sat.{name}.s32.b32 $d, $a, $b, $c;"), &[S32, S32, U32], U32, move |x| {
                (x[2] << (2 * bits) | field(x[0]) << bits | field(x[1])) & 0xffff_ffff
            }));
        }
    }
    assert_eq!(range(S32).0, -0x8000_0000);
    run(cases);
}

#[test]
fn forms_that_do_not_exist() {
    refused(&[
        "cvt.u32 %r1, %r2;",
        "cvt.f16.f32 %h1, %r1;",
        "cvt.f32.f64 %r1, %d1;",
        "cvt.f32.s32 %r1, %r2;",
        "cvt.s32.f32 %r1, %r2;",
        "cvt.rn.s32.f32 %r1, %r2;",
        "cvt.rni.f32.s32 %r1, %r2;",
        "cvt.rn.f32.f16 %r1, %h1;",
        "cvt.rn.u32.u64 %r1, %d1;",
        "cvt.rna.f16.f32 %h1, %r1;",
        "cvt.rna.relu.tf32.f32 %r1, %r2;",
        "cvt.rn.sat.bf16.f32 %h1, %r1;",
        "cvt.ftz.u32.u64 %r1, %d1;",
        "cvt.relu.f32.f16 %r1, %h1;",
        "cvt.rn.relu.f32.f64 %r1, %d1;",
        "cvt.rn.e4m3x2.f32 %h1, %r1, %r2;",
        "cvt.rz.satfinite.e4m3x2.f32 %h1, %r1, %r2;",
        "cvt.rn.f16x2.f32 %r1, %r2;",
        "cvt.rm.f16x2.f32 %r1, %r2, %r3;",
        "cvt.pack.u8.s32.b32 %r1, %r2, %r3, %r4;",
        "cvt.pack.sat.u16.s32 %r1, %r2, %r3, %r4;",
        "cvt.u32.u32 %h1, %r2;",
        "cvt.u64.u64 %d1, %r2;",
        "cvt.u32.u32 %p1, %r2;",
    ]);
}
