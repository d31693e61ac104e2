//! Integer arithmetic, with 128-bit numbers as the oracle.

use super::oracle::{number, range, wrap};
use super::{Case, Ty, Ty::*, exact, refused, run};

const TYPES: [(&str, Ty); 6] = [("u16", U16), ("s16", S16), ("u32", U32), ("s32", S32), ("u64", U64), ("s64", S64)];

/// Twice the width.
fn wide(ty: Ty) -> Ty {
    match ty {
        U16 => U32,
        S16 => S32,
        U32 => U64,
        _ => S64,
    }
}

fn binary(text: String, ty: Ty, f: impl Fn(i128, i128) -> i128 + 'static) -> Case {
    exact(format!("{text} $d, $a, $b;"), &[ty, ty], ty, move |x| wrap(ty, f(number(ty, x[0]), number(ty, x[1]))))
}

fn ternary(text: String, ty: Ty, f: impl Fn(i128, i128, i128) -> i128 + 'static) -> Case {
    exact(format!("{text} $d, $a, $b, $c;"), &[ty, ty, ty], ty, move |x| {
        wrap(ty, f(number(ty, x[0]), number(ty, x[1]), number(ty, x[2])))
    })
}

#[test]
fn sums_products_and_quotients() {
    let mut cases = Vec::new();
    for (name, ty) in TYPES {
        let bits = ty.bits();
        cases.push(binary(format!("add.{name}"), ty, |a, b| a + b));
        cases.push(binary(format!("sub.{name}"), ty, |a, b| a - b));
        cases.push(binary(format!("mul.lo.{name}"), ty, i128::wrapping_mul));
        cases.push(ternary(format!("mad.lo.{name}"), ty, |a, b, c| a.wrapping_mul(b).wrapping_add(c)));
        // Unsigned 64-bit products need all 128 bits.
        let high = move |a: i128, b: i128| {
            if ty == U64 { ((a as u128 * b as u128) >> 64) as i128 } else { (a * b) >> bits }
        };
        cases.push(binary(format!("mul.hi.{name}"), ty, high));
        cases.push(ternary(format!("mad.hi.{name}"), ty, move |a, b, c| high(a, b) + c));
        cases.push(ternary(format!("sad.{name}"), ty, |a, b, c| c + (a - b).abs()));
        cases.push(binary(format!("min.{name}"), ty, |a, b| a.min(b)));
        cases.push(binary(format!("max.{name}"), ty, |a, b| a.max(b)));
        cases.push(binary(format!("div.{name}"), ty, |a, b| if b == 0 { -1 } else { a / b }));
        cases.push(binary(format!("rem.{name}"), ty, |a, b| if b == 0 { -1 } else { a % b }));
        if bits < 64 {
            let to = wide(ty);
            cases.push(exact(format!("mul.wide.{name} $d, $a, $b;"), &[ty, ty], to, move |x| {
                wrap(to, number(ty, x[0]) * number(ty, x[1]))
            }));
            cases.push(exact(format!("mad.wide.{name} $d, $a, $b, $c;"), &[ty, ty, to], to, move |x| {
                wrap(to, number(ty, x[0]) * number(ty, x[1]) + number(to, x[2]))
            }));
        }
        if name.starts_with('s') {
            cases.push(exact(format!("abs.{name} $d, $a;"), &[ty], ty, move |x| wrap(ty, number(ty, x[0]).abs())));
            cases.push(exact(format!("neg.{name} $d, $a;"), &[ty], ty, move |x| wrap(ty, -number(ty, x[0]))));
        }
    }
    run(cases);
}

#[test]
fn saturation() {
    let clamp = |value: i128| {
        let (least, greatest) = range(S32);
        value.clamp(least, greatest)
    };
    run(vec![
        binary("add.sat.s32".into(), S32, move |a, b| clamp(a + b)),
        binary("sub.sat.s32".into(), S32, move |a, b| clamp(a - b)),
        ternary("mad.hi.sat.s32".into(), S32, move |a, b, c| clamp(((a * b) >> 32) + c)),
        ternary("mad24.hi.sat.s32".into(), S32, move |a, b, c| {
            let low = |v: i128| (v << 104) >> 104;
            clamp(number(S32, wrap(U32, (low(a) * low(b)) >> 16)) + c)
        }),
        binary("min.relu.s32".into(), S32, |a, b| a.min(b).max(0)),
        binary("max.relu.s32".into(), S32, |a, b| a.max(b).max(0)),
        binary("min.s32.relu".into(), S32, |a, b| a.min(b).max(0)),
    ]);
}

#[test]
fn products_of_24_bits() {
    let mut cases = Vec::new();
    for (name, ty) in [("u32", U32), ("s32", S32)] {
        let low = move |v: i128| if ty == U32 { v & 0xff_ffff } else { v << 104 >> 104 };
        cases.push(binary(format!("mul24.lo.{name}"), ty, move |a, b| low(a) * low(b)));
        cases.push(binary(format!("mul24.hi.{name}"), ty, move |a, b| (low(a) * low(b)) >> 16));
        cases.push(ternary(format!("mad24.lo.{name}"), ty, move |a, b, c| low(a) * low(b) + c));
        cases.push(ternary(format!("mad24.hi.{name}"), ty, move |a, b, c| ((low(a) * low(b)) >> 16) + c));
    }
    run(cases);
}

#[test]
fn pairs_of_16_bits() {
    fn pair(text: &str, half: Ty, f: impl Fn(i128, i128) -> i128 + 'static) -> Case {
        exact(format!("{text} $d, $a, $b;"), &[X16, X16], X16, move |x| {
            let at = |shift: u32| f(number(half, x[0] >> shift & 0xffff), number(half, x[1] >> shift & 0xffff));
            wrap(U16, at(0)) | wrap(U16, at(16)) << 16
        })
    }
    run(vec![
        pair("add.u16x2", U16, |a, b| a + b),
        pair("add.s16x2", S16, |a, b| a + b),
        pair("min.u16x2", U16, |a, b| a.min(b)),
        pair("max.u16x2", U16, |a, b| a.max(b)),
        pair("min.s16x2", S16, |a, b| a.min(b)),
        pair("max.s16x2", S16, |a, b| a.max(b)),
        pair("min.relu.s16x2", S16, |a, b| a.min(b).max(0)),
        pair("max.s16x2.relu", S16, |a, b| a.max(b).max(0)),
        pair("max.relu.s16x2", S16, |a, b| a.max(b).max(0)),
    ]);
}

#[test]
fn carries_make_longer_numbers() {
    // 128 bits of a pair of operands, low halves `$a` and `$c`, and what the chain gives as upper or third word.
    let long = |x: &[u64]| (u128::from(x[1]) << 64 | u128::from(x[0]), u128::from(x[3]) << 64 | u128::from(x[2]));
    let all = [U64, U64, U64, U64];
    let mut cases = vec![
        exact("add.cc.u64 %l1, $a, $c; addc.u64 $d, $b, $e;", &all, U64, move |x| {
            let (a, b) = long(x);
            (a.wrapping_add(b) >> 64) as u64
        }),
        exact("add.cc.s64 %l1, $a, $c; addc.cc.s64 %l2, $b, $e; addc.s64 $d, 0, 0;", &all, U64, move |x| {
            let (a, b) = long(x);
            u64::from(a.checked_add(b).is_none())
        }),
        exact("sub.cc.u64 %l1, $a, $c; subc.u64 $d, $b, $e;", &all, U64, move |x| {
            let (a, b) = long(x);
            (a.wrapping_sub(b) >> 64) as u64
        }),
        exact("sub.cc.s64 %l1, $a, $c; subc.cc.s64 %l2, $b, $e; subc.s64 $d, 0, 0;", &all, U64, move |x| {
            let (a, b) = long(x);
            if a < b { u64::MAX } else { 0 }
        }),
        // The product of two 64-bit numbers plus a third, upper half.
        exact("mad.lo.cc.u64 %l1, $a, $b, $c; madc.hi.u64 $d, $a, $b, 0;", &[U64, U64, U64], U64, |x| {
            ((u128::from(x[0]) * u128::from(x[1]) + u128::from(x[2])) >> 64) as u64
        }),
        exact("mad.lo.cc.u32 %w1, $a, $b, $c; madc.hi.cc.u32 $d, $a, $b, $c;", &[U32, U32, U32], U32, |x| {
            let low = ((x[0] * x[1]) & 0xffff_ffff) + x[2];
            (((x[0] * x[1]) >> 32) + x[2] + (low >> 32)) & 0xffff_ffff
        }),
        exact("mad.hi.cc.s32 %w1, $a, $b, $c; madc.lo.s32 $d, 0, 0, 0;", &[S32, S32, S32], S32, |x| {
            let high = ((i64::from(x[0] as i32) * i64::from(x[1] as i32)) >> 32) as u32;
            (u64::from(high) + x[2]) >> 32
        }),
    ];
    for (name, ty) in [("u32", U32), ("s32", S32)] {
        cases.push(exact(format!("add.cc.{name} %w1, $a, $b; addc.{name} $d, 0, 0;"), &[ty, ty], U32, |x| (x[0] + x[1]) >> 32));
        cases.push(exact(format!("sub.cc.{name} %w1, $a, $b; subc.{name} $d, $a, $b;"), &[ty, ty], U32, |x| {
            let (a, b) = (x[0] as u32, x[1] as u32);
            u64::from(a.wrapping_sub(b).wrapping_sub(u32::from(a < b)))
        }));
    }
    run(cases);
}

#[test]
fn dot_products() {
    let mut cases = Vec::new();
    for (a_name, a_signed) in [("u32", false), ("s32", true)] {
        for (b_name, b_signed) in [("u32", false), ("s32", true)] {
            let byte = |signed: bool, word: u64, at: u32| {
                let byte = (word >> (8 * at)) as u8;
                if signed { i128::from(byte as i8) } else { i128::from(byte) }
            };
            cases.push(exact(format!("dp4a.{a_name}.{b_name} $d, $a, $b, $c;"), &[U32, U32, U32], U32, move |x| {
                wrap(U32, i128::from(x[2]) + (0..4).map(|i| byte(a_signed, x[0], i) * byte(b_signed, x[1], i)).sum::<i128>())
            }));
            for (half, offset) in [("lo", 0), ("hi", 2)] {
                let text = format!("dp2a.{half}.{a_name}.{b_name} $d, $a, $b, $c;");
                cases.push(exact(text, &[U32, U32, U32], U32, move |x| {
                    let word = |at: u32| number(if a_signed { S16 } else { U16 }, x[0] >> (16 * at) & 0xffff);
                    wrap(U32, i128::from(x[2]) + (0..2).map(|i| word(i) * byte(b_signed, x[1], i + offset)).sum::<i128>())
                }));
            }
        }
    }
    run(cases);
}

#[test]
fn distances_of_bytes() {
    let distance = |x: &[u64], at: u32| (x[0] >> (8 * at) & 255).abs_diff(x[1] >> (8 * at) & 255);
    run(vec![
        exact("vabsdiff4.u32.u32.u32 $d, $a, $b, $c;", &[U32, U32, U32], U32, move |x| {
            (0..4).map(|at| distance(x, at) << (8 * at)).sum()
        }),
        exact("vabsdiff4.u32.u32.u32.add $d, $a, $b, $c;", &[U32, U32, U32], U32, move |x| {
            wrap(U32, i128::from(x[2]) + (0..4).map(|at| i128::from(distance(x, at))).sum::<i128>())
        }),
    ]);
}

#[test]
fn forms_that_do_not_exist() {
    refused(&[
        "add.u8 %h1, %h2, %h3;",
        "add.sat.u32 %r1, %r2, %r3;",
        "add.b32 %r1, %r2, %r3;",
        "add.wide.u32 %d1, %r2, %r3;",
        "mul.u32 %r1, %r2, %r3;",
        "mul.wide.u64 %d1, %d2, %d3;",
        "mul.hi.lo.u32 %r1, %r2, %r3;",
        "mad.lo.sat.s32 %r1, %r2, %r3, %r4;",
        "abs.u32 %r1, %r2;",
        "add.cc.u16 %h1, %h2, %h3;",
        "dp4a.u32 %r1, %r2, %r3, %r4;",
        "add.u32 %r1, %r2, %d3;",
        "add.u32 %r1, %h2, %r3;",
        "add.u64 %r1, %d2, %d3;",
        "add.u32 %r1, %r2;",
        "min.relu.u32 %r1, %r2, %r3;",
        "sub.u16x2 %r1, %r2, %r3;",
    ]);
}
