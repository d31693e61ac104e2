//! f16 and bf16, alone and in pairs: exact values rounded by search among all encodings.

use super::oracle::{Exact, HalfFormat, saturate};
use super::{Case, Ty, Ty::*, checked, exact, refused, run};

/// A format with the names and kinds of operands that it has alone and in pairs.
const FORMATS: [(&str, HalfFormat, Ty, Ty); 2] = [("f16", HalfFormat::F16, F16, F16x2), ("bf16", HalfFormat::BF16, BF16, BF16x2)];

type Function = Box<dyn Fn(&[u64]) -> u64>;

/// The case on one half and the one on two.
fn both(text: &str, arity: usize, row: (&str, HalfFormat, Ty, Ty), make: impl Fn() -> Function) -> [Case; 2] {
    let (name, _, one, two) = row;
    let places = ["$d, $a;", "$d, $a, $b;", "$d, $a, $b, $c;"][arity - 1];
    let f = make();
    let pair = make();
    [
        exact(format!("{text}.{name} {places}"), &vec![one; arity], one, f),
        exact(format!("{text}.{name}x2 {places}"), &vec![two; arity], two, move |x| {
            let at = |shift: u32| pair(&x.iter().map(|a| a >> shift & 0xffff).collect::<Vec<_>>());
            at(0) | at(16) << 16
        }),
    ]
}

fn is_nan(format: HalfFormat, bits: u64) -> bool {
    bits as u16 & 0x7fff > format.infinity()
}

fn flush(format: HalfFormat, bits: u64) -> u64 {
    let smallest = if format == HalfFormat::F16 { 0x0400 } else { 0x0080 };
    if bits & 0x7fff < smallest { bits & 0x8000 } else { bits }
}

#[test]
fn rounded_once() {
    type Operation = fn(&[f64]) -> Exact;
    let operations: [(&str, usize, Operation); 4] = [
        ("add.rn", 2, |x| Exact::sum(x[0], x[1])),
        ("sub", 2, |x| Exact::sum(x[0], -x[1])),
        ("mul", 2, |x| Exact { near: x[0] * x[1], rest: 0.0 }),
        ("fma.rn", 3, |x| Exact::sum(x[0] * x[1], x[2])),
    ];
    let mut cases = Vec::new();
    for row in FORMATS {
        let format = row.1;
        for (name, arity, operation) in operations {
            for (suffix, ftz, sat, relu) in [
                ("", false, false, false),
                (".ftz", true, false, false),
                (".sat", false, true, false),
                (".ftz.sat", true, true, false),
                (".relu", false, false, true),
                (".ftz.relu", true, false, true),
            ] {
                if relu && name != "fma.rn" || (ftz || sat) && format == HalfFormat::BF16 {
                    continue;
                }
                cases.extend(both(&format!("{name}{suffix}"), arity, row, || {
                    Box::new(move |x| {
                        let x: Vec<f64> = x.iter().map(|&a| format.value(if ftz { flush(format, a) } else { a })).collect();
                        let bits = format.nearest(operation(&x));
                        let bits = if ftz { flush(format, bits) } else { bits };
                        match () {
                            _ if sat => format.nearest(Exact { near: saturate(format.value(bits)), rest: 0.0 }),
                            _ if relu && !is_nan(format, bits) && bits & 0x8000 != 0 => 0,
                            _ => bits,
                        }
                    })
                }));
            }
        }
    }
    run(cases);
}

#[test]
fn minima_maxima_and_signs() {
    let mut cases = Vec::new();
    for row in FORMATS {
        let format = row.1;
        let order = |a: u64| if a & 0x8000 == 0 { a as i64 } else { -1 - (a & 0x7fff) as i64 };
        let choose = move |least: bool, nan: bool, a: u64, b: u64| match (is_nan(format, a), is_nan(format, b)) {
            (true, true) => 0x7fff,
            (true, false) | (false, true) if nan => 0x7fff,
            (true, false) => b,
            (false, true) => a,
            _ if (order(a) < order(b)) == least => a,
            _ => b,
        };
        for (name, least) in [("min", true), ("max", false)] {
            for ftz in if format == HalfFormat::F16 { vec![false, true] } else { vec![false] } {
                for nan in [false, true] {
                    for xorsign in [false, true] {
                        let text = format!(
                            "{name}{}{}{}",
                            if ftz { ".ftz" } else { "" },
                            if nan { ".NaN" } else { "" },
                            if xorsign { ".xorsign.abs" } else { "" }
                        );
                        cases.extend(both(&text, 2, row, || {
                            Box::new(move |x| {
                                let [a, b] = [x[0], x[1]].map(|a| if ftz { flush(format, a) } else { a });
                                if !xorsign {
                                    return choose(least, nan, a, b);
                                }
                                let size = choose(least, nan, a & 0x7fff, b & 0x7fff);
                                if is_nan(format, size) { size } else { size | (a ^ b) & 0x8000 }
                            })
                        }));
                    }
                }
            }
        }
        cases.extend(both("abs", 1, row, || Box::new(|x| x[0] & 0x7fff)));
        cases.extend(both("neg", 1, row, || Box::new(|x| x[0] ^ 0x8000)));
        if format == HalfFormat::F16 {
            cases.extend(both("abs.ftz", 1, row, || Box::new(move |x| flush(format, x[0]) & 0x7fff)));
            cases.extend(both("neg.ftz", 1, row, || Box::new(move |x| flush(format, x[0]) ^ 0x8000)));
        }
    }
    run(cases);
}

#[test]
fn approximations() {
    let mut cases = Vec::new();
    for (name, format, one, two) in FORMATS {
        let ex2 = if format == HalfFormat::F16 { "ex2.approx" } else { "ex2.approx.ftz" };
        // The bounds of the ISA: 2^-9.9 and 2^-7 for ex2, 2^-10.987 and 2^-8 for tanh; here with the rounding to the format.
        let precision = if format == HalfFormat::F16 { 2f64.powf(-9.9) } else { 2f64.powi(-7) };
        for (text, f) in [(ex2, f64::exp2 as fn(f64) -> f64), ("tanh.approx", f64::tanh)] {
            let close = move |a: u64, got: u64| {
                let smallest = format.value(if format == HalfFormat::F16 { 1 } else { 0x80 });
                let (want, value) = (f(format.value(a)), format.value(got));
                let largest = format.value(u64::from(format.infinity() - 1));
                let right = want.is_nan() && got == 0x7fff
                    || (value - want).abs() <= want.abs() * precision + smallest
                    || want > largest && value >= largest;
                if right { Ok(()) } else { Err(format!("{want:e}")) }
            };
            cases.push(checked(format!("{text}.{name} $d, $a;"), &[one], one, move |x, got| close(x[0], got)));
            cases.push(checked(format!("{text}.{name}x2 $d, $a;"), &[two], two, move |x, got| {
                close(x[0] & 0xffff, got & 0xffff)?;
                close(x[0] >> 16, got >> 16)
            }));
        }
    }
    run(cases);
}

#[test]
fn forms_that_do_not_exist() {
    refused(&[
        "add.rz.f16 %h1, %h2, %h3;",
        "add.ftz.bf16 %h1, %h2, %h3;",
        "add.sat.bf16x2 %r1, %r2, %r3;",
        "fma.f16 %h1, %h2, %h3, %h4;",
        "fma.rn.sat.relu.f16 %h1, %h2, %h3, %h4;",
        "mul.relu.f16 %h1, %h2, %h3;",
        "min.xorsign.f16 %h1, %h2, %h3;",
        "ex2.f16 %h1, %h2;",
        "ex2.approx.ftz.f16 %h1, %h2;",
        "ex2.approx.bf16 %h1, %h2;",
        "tanh.approx.ftz.f16 %h1, %h2;",
        "div.rn.f16 %h1, %h2, %h3;",
        "add.f16 %r1, %r2, %r3;",
        "add.f16x2 %h1, %h2, %h3;",
    ]);
}
