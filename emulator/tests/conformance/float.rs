//! f32 and f64: rounded operations against exact sums, products, quotients and roots; approximations against the bounds that the
//! ISA states.

use super::oracle::{Exact, ROUNDINGS, Round, bits_of, f32_of, flush, saturate};
use super::{Case, Ty::*, checked, exact, refused, run};

type Operation = fn(&[f64]) -> Exact;
type Host = fn(&[f32]) -> f32;

/// An operation on f32: the host's own where that is defined, and the exact value of finite results.
fn rounded(x: &[f32], host: f32, exact: Exact, round: Round) -> f32 {
    let special = x.iter().any(|a| !a.is_finite()) || exact.near == 0.0 || !exact.near.is_finite();
    if special { host } else { exact.to_f32(round) }
}

fn f32_operations() -> Vec<(&'static str, usize, Host, Operation)> {
    vec![
        ("add", 2, |x| x[0] + x[1], |x| Exact::sum(x[0], x[1])),
        ("sub", 2, |x| x[0] - x[1], |x| Exact::sum(x[0], -x[1])),
        ("mul", 2, |x| x[0] * x[1], |x| Exact::product(x[0], x[1])),
        // The product of two f32 is exact in f64.
        ("fma", 3, |x| x[0].mul_add(x[1], x[2]), |x| Exact::sum(x[0] * x[1], x[2])),
        ("mad", 3, |x| x[0].mul_add(x[1], x[2]), |x| Exact::sum(x[0] * x[1], x[2])),
        ("div", 2, |x| x[0] / x[1], |x| Exact::quotient(x[0], x[1])),
        ("rcp", 1, |x| 1.0 / x[0], |x| Exact::quotient(1.0, x[0])),
        ("sqrt", 1, |x| x[0].sqrt(), |x| Exact::root(x[0])),
    ]
}

const PLACES: [&str; 4] = ["$d, $a;", "$d, $a, $b;", "$d, $a, $b, $c;", ""];

#[test]
fn single_precision_in_every_rounding() {
    let mut cases = Vec::new();
    for (name, arity, host, operation) in f32_operations() {
        let saturable = !matches!(name, "div" | "rcp" | "sqrt");
        for (rnd, round) in ROUNDINGS {
            for (ftz, sat) in [(false, false), (true, false), (false, true), (true, true)] {
                if sat && !saturable {
                    continue;
                }
                let (f, s) = (if ftz { ".ftz" } else { "" }, if sat { ".sat" } else { "" });
                let oracle = move |x: &[u64]| {
                    let x: Vec<f32> = x.iter().map(|&a| if ftz { flush(f32_of(a)) } else { f32_of(a) }).collect();
                    let wide: Vec<f64> = x.iter().map(|&a| f64::from(a)).collect();
                    let mut value = rounded(&x, host(&x), operation(&wide), round);
                    if value == 0.0 && round == Round::Down && operation(&wide).near == 0.0 {
                        value = zero_rounded_down(name, &x, value);
                    }
                    let value = if ftz { flush(value) } else { value };
                    if sat { bits_of(saturate(f64::from(value)) as f32) } else { bits_of(value) }
                };
                cases.push(exact(format!("{name}.{rnd}{f}{s}.f32 {}", PLACES[arity - 1]), &[F32; 3][..arity], F32, oracle));
            }
        }
    }
    for name in ["add", "sub", "mul"] {
        let (_, _, host, _) = f32_operations().into_iter().find(|row| row.0 == name).unwrap();
        cases.push(exact(format!("{name}.f32 $d, $a, $b;"), &[F32, F32], F32, move |x| {
            bits_of(host(&[f32_of(x[0]), f32_of(x[1])]))
        }));
    }
    run(cases);
}

/// A sum that is exactly zero is -0 when rounding down, unless both terms are +0.
fn zero_rounded_down(name: &str, x: &[f32], host: f32) -> f32 {
    let positive_zeros = match name {
        "add" => x[0].to_bits() == 0 && x[1].to_bits() == 0,
        "sub" => x[0].to_bits() == 0 && x[1].to_bits() == 0x8000_0000,
        "fma" | "mad" => {
            let zero_product = x[0] == 0.0 || x[1] == 0.0;
            zero_product && x[0].is_sign_negative() == x[1].is_sign_negative() && x[2].to_bits() == 0
        }
        _ => return host,
    };
    if positive_zeros { 0.0 } else { -0.0 }
}

fn f64_of(bits: u64) -> f64 {
    f64::from_bits(bits)
}

#[test]
fn double_precision_in_every_rounding() {
    type Host = fn(&[f64]) -> f64;
    let operations: [(&str, usize, Host, Operation); 7] = [
        ("add", 2, |x| x[0] + x[1], |x| Exact::sum(x[0], x[1])),
        ("sub", 2, |x| x[0] - x[1], |x| Exact::sum(x[0], -x[1])),
        ("mul", 2, |x| x[0] * x[1], |x| Exact::product(x[0], x[1])),
        ("div", 2, |x| x[0] / x[1], |x| Exact::quotient(x[0], x[1])),
        ("rcp", 1, |x| 1.0 / x[0], |x| Exact::quotient(1.0, x[0])),
        ("sqrt", 1, |x| x[0].sqrt(), |x| Exact::root(x[0])),
        ("fma", 3, |x| x[0].mul_add(x[1], x[2]), |x| Exact { near: x[0].mul_add(x[1], x[2]), rest: f64::NAN }),
    ];
    let mut cases = Vec::new();
    for (name, arity, host, operation) in operations {
        for (rnd, round) in ROUNDINGS {
            let text = format!("{name}.{rnd}.f64 {}", PLACES[arity - 1]);
            cases.push(checked(text, &[F64; 3][..arity], F64, move |x, got| {
                let x: Vec<f64> = x.iter().map(|&a| f64_of(a)).collect();
                let (host, got) = (host(&x), f64_of(got));
                if host.is_nan() {
                    return if got.is_nan() { Ok(()) } else { Err("NaN".into()) };
                }
                let inside = |a: f64| a.is_finite() && (a == 0.0 || a.abs() > 1e-140 && a.abs() < 1e140);
                let same = |want: f64| {
                    if got.to_bits() == want.to_bits() { Ok(()) } else { Err(format!("{want:e} ({:#x})", want.to_bits())) }
                };
                if round == Round::Nearest || x.iter().any(|a| !a.is_finite()) {
                    return same(host);
                }
                if name == "fma" {
                    // Within one place of the nearest, on the right side of zero.
                    let near = [host.next_down(), host, host.next_up()];
                    return if near.contains(&got) || host.is_infinite() { Ok(()) } else { Err(format!("{host:e} or next to it")) };
                }
                if x.iter().all(|&a| inside(a)) && inside(host) && host != 0.0 {
                    return same(operation(&x).to_f64(round));
                }
                Ok(())
            }));
        }
    }
    for (text, host) in [("add.f64", (|x| x[0] + x[1]) as Host), ("sub.f64", |x| x[0] - x[1]), ("mul.f64", |x| x[0] * x[1])] {
        cases.push(checked(format!("{text} $d, $a, $b;"), &[F64, F64], F64, move |x, got| {
            let want = host(&[f64_of(x[0]), f64_of(x[1])]);
            if got == want.to_bits() || want.is_nan() && f64_of(got).is_nan() { Ok(()) } else { Err(format!("{want:e}")) }
        }));
    }
    // Tiny steps, where the direction decides between two neighbours.
    for (rnd, want) in [("rn", 1.0f64), ("rz", 1.0), ("rm", 1.0), ("rp", 1.0f64.next_up())] {
        cases.push(exact(
            format!("fma.{rnd}.f64 $d, 0d0010000000000000, 0d0010000000000000, 0d3FF0000000000000;"),
            &[F64],
            F64,
            move |_| want.to_bits(),
        ));
    }
    run(cases);
}

#[test]
fn minima_maxima_and_signs() {
    // Numbers in order, -0 before +0.
    fn order(a: f32) -> i64 {
        let size = i64::from(a.to_bits() & 0x7fff_ffff);
        if a.is_sign_negative() { -1 - size } else { size }
    }
    let choose = |least: bool, nan: bool, a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, true) => f32::NAN,
        (true, false) | (false, true) if nan => f32::NAN,
        (true, false) => b,
        (false, true) => a,
        _ if (order(a) < order(b)) == least => a,
        _ => b,
    };
    let mut cases: Vec<Case> = Vec::new();
    for (name, least) in [("min", true), ("max", false)] {
        for ftz in [false, true] {
            for nan in [false, true] {
                for xorsign in [false, true] {
                    let text = format!(
                        "{name}{}{}{}.f32 $d, $a, $b;",
                        if ftz { ".ftz" } else { "" },
                        if nan { ".NaN" } else { "" },
                        if xorsign { ".xorsign.abs" } else { "" }
                    );
                    cases.push(exact(text, &[F32, F32], F32, move |x| {
                        let [a, b] = [x[0], x[1]].map(|a| if ftz { flush(f32_of(a)) } else { f32_of(a) });
                        if !xorsign {
                            return bits_of(choose(least, nan, a, b));
                        }
                        let size = choose(least, nan, a.abs(), b.abs());
                        bits_of(if a.is_sign_negative() != b.is_sign_negative() { -size } else { size })
                    }));
                }
            }
        }
        cases.push(checked(format!("{name}.f64 $d, $a, $b;"), &[F64, F64], F64, move |x, got| {
            let (a, b, got) = (f64_of(x[0]), f64_of(x[1]), f64_of(got));
            let want = match (a.is_nan(), b.is_nan()) {
                (true, true) => return if got.is_nan() { Ok(()) } else { Err("NaN".into()) },
                (true, false) => b,
                (false, true) => a,
                _ if a == b => {
                    if a.is_sign_negative() == least {
                        a
                    } else {
                        b
                    }
                }
                _ => {
                    if (a < b) == least {
                        a
                    } else {
                        b
                    }
                }
            };
            if want.to_bits() == got.to_bits() { Ok(()) } else { Err(format!("{want:e}")) }
        }));
    }
    let number = |x: u64, got: u64, want: u64| {
        if f32_of(x).is_nan() && f32_of(got).is_nan() || got == want { Ok(()) } else { Err(format!("{want:#x}")) }
    };
    for (ftz, name) in [(false, ""), (true, ".ftz")] {
        let flushed = move |a: u64| if ftz { u64::from(flush(f32_of(a)).to_bits()) } else { a };
        cases.push(checked(format!("abs{name}.f32 $d, $a;"), &[F32], F32, move |x, got| {
            number(x[0], got, flushed(x[0]) & 0x7fff_ffff)
        }));
        cases.push(checked(format!("neg{name}.f32 $d, $a;"), &[F32], F32, move |x, got| {
            number(x[0], got, flushed(x[0]) ^ 0x8000_0000)
        }));
    }
    cases.push(exact("abs.f64 $d, $a;", &[F64], F64, |x| x[0] & !(1 << 63)));
    cases.push(exact("neg.f64 $d, $a;", &[F64], F64, |x| x[0] ^ 1 << 63));
    cases.push(exact("copysign.f32 $d, $a, $b;", &[F32, F32], F32, |x| x[0] & 0x8000_0000 | x[1] & 0x7fff_ffff));
    cases.push(exact("copysign.f64 $d, $a, $b;", &[F64, F64], F64, |x| x[0] & 1 << 63 | x[1] & !(1 << 63)));
    run(cases);
}

#[test]
fn properties() {
    type Test = (&'static str, fn(f64, bool) -> bool);
    let tests: [Test; 6] = [
        ("finite", |a, _| a.is_finite()),
        ("infinite", |a, _| a.is_infinite()),
        ("number", |a, _| !a.is_nan()),
        ("notanumber", |a, _| a.is_nan()),
        ("normal", |a, subnormal| a.is_finite() && !subnormal),
        ("subnormal", |_, subnormal| subnormal),
    ];
    let mut cases = Vec::new();
    for (name, test) in tests {
        cases.push(exact(format!("testp.{name}.f32 $d, $a;"), &[F32], Pred, move |x| {
            u64::from(test(f64::from(f32_of(x[0])), f32_of(x[0]).is_subnormal()))
        }));
        cases.push(exact(format!("testp.{name}.f64 $d, $a;"), &[F64], Pred, move |x| {
            u64::from(test(f64_of(x[0]), f64_of(x[0]).is_subnormal()))
        }));
    }
    run(cases);
}

/// An approximation of f32 must lie within a bound of the f64 value, and be what the ISA's tables say where that is no number,
/// infinite, or zero. Where the ISA promises nothing there is no bound.
fn approximate(text: &str, arity: usize, f: fn(&[f64]) -> f64, bound: fn(&[f64], f64) -> Option<f64>) -> Vec<Case> {
    [false, true]
        .into_iter()
        .map(|ftz| {
            let text = format!("{text}{}.f32 {}", if ftz { ".ftz" } else { "" }, PLACES[arity - 1]);
            checked(text, &[F32; 3][..arity], F32, move |x, got| {
                let x: Vec<f64> = x.iter().map(|&a| f64::from(if ftz { flush(f32_of(a)) } else { f32_of(a) })).collect();
                let want = f(&x);
                let Some(bound) = bound(&x, want) else { return Ok(()) };
                let value = f64::from(f32_of(got));
                let rounded = want as f32;
                let flushed = ftz && rounded.abs() < f32::MIN_POSITIVE * 1.001;
                let right = if want.is_nan() {
                    got == 0x7fff_ffff
                } else if flushed && value == 0.0 {
                    true
                } else if rounded == 0.0 && want == 0.0 || rounded.is_infinite() && want.is_infinite() {
                    bits_of(rounded) == got
                } else if rounded.is_infinite() {
                    value == want || value.abs() >= f64::from(f32::MAX)
                } else {
                    (value - want).abs() <= bound.max(1e-45)
                };
                if right { Ok(()) } else { Err(format!("{want:e} within {bound:e}")) }
            })
        })
        .collect()
}

#[test]
fn approximations_keep_the_bounds_of_the_isa() {
    let mut cases = Vec::new();
    cases.extend(approximate("rcp.approx", 1, |x| 1.0 / x[0], |_, want| Some(want.abs() * 2f64.powi(-23))));
    cases.extend(approximate("sqrt.approx", 1, |x| x[0].sqrt(), |_, want| Some(want.abs() * 2f64.powi(-23))));
    let root = |x: &[f64]| if x[0] == 0.0 { 1.0 / x[0] } else { 1.0 / x[0].sqrt() };
    cases.extend(approximate("rsqrt.approx", 1, root, |_, want| Some(want.abs() * 2f64.powf(-22.9))));
    cases.extend(approximate("ex2.approx", 1, |x| x[0].exp2(), |_, want| Some(want.abs() * 2f64.powi(-22))));
    let logarithm = |x: &[f64]| if x[0] == 0.0 { f64::NEG_INFINITY } else { x[0].log2() };
    cases.extend(approximate("lg2.approx", 1, logarithm, |x, want| {
        Some(if x[0] > 0.5 && x[0] < 2.0 { 2f64.powi(-22) } else { want.abs() * 2f64.powi(-22) })
    }));
    let circular = |x: &[f64], _: f64| {
        let promised = !x[0].is_finite() || x[0].abs() <= 100.0 * std::f64::consts::PI;
        promised.then_some(2f64.powf(-20.5))
    };
    cases.extend(approximate("sin.approx", 1, |x| x[0].sin(), circular));
    cases.extend(approximate("cos.approx", 1, |x| x[0].cos(), circular));
    cases.extend(approximate("div.full", 2, |x| x[0] / x[1], |_, want| Some(want.abs() * 2f64.powi(-22))));
    // Divisors above 2^126 are flushed to zero by the ISA's own words.
    cases.extend(approximate(
        "div.approx",
        2,
        |x| x[0] / x[1],
        |x, want| {
            let divisor = x[1].abs();
            (2f64.powi(-126)..=2f64.powi(126)).contains(&divisor).then_some(want.abs() * 2f64.powi(-22))
        },
    ));
    cases.push(checked("tanh.approx.f32 $d, $a;", &[F32], F32, |x, got| {
        let want = f64::from(f32_of(x[0])).tanh();
        let value = f64::from(f32_of(got));
        let right = want.is_nan() && got == 0x7fff_ffff
            || (value - want).abs() <= want.abs() * 2f64.powi(-11) && value.is_sign_negative() == want.is_sign_negative();
        if right { Ok(()) } else { Err(format!("{want:e}")) }
    }));
    for (text, f, coarse) in [
        ("rcp.approx.ftz.f64", (|x| 1.0 / x) as fn(f64) -> f64, true),
        ("rsqrt.approx.ftz.f64", |x| 1.0 / x.sqrt(), true),
        ("rsqrt.approx.f64", |x| 1.0 / x.sqrt(), false),
    ] {
        cases.push(checked(format!("{text} $d, $a;"), &[F64], F64, move |x, got| {
            let (a, got) = (f64_of(x[0]), f64_of(got));
            if coarse && got.to_bits() as u32 != 0 {
                return Err("a lower word of zero".into());
            }
            if !a.is_normal() || f(a).is_nan() || !f(a).is_normal() {
                return if got.is_nan() == (f(a).is_nan()) || !a.is_normal() { Ok(()) } else { Err(format!("{:e}", f(a))) };
            }
            if (got / f(a) - 1.0).abs() < if coarse { 2f64.powi(-18) } else { 1e-15 } { Ok(()) } else { Err(format!("{:e}", f(a))) }
        }));
    }
    run(cases);
}

#[test]
fn forms_that_do_not_exist() {
    refused(&[
        "add.ftz.f64 %d1, %d2, %d3;",
        "add.sat.f64 %d1, %d2, %d3;",
        "add.sat.ftz.f32 %r1, %r2, %r3;",
        "add.rna.f32 %r1, %r2, %r3;",
        "fma.f32 %r1, %r2, %r3, %r4;",
        "mad.f32 %r1, %r2, %r3, %r4;",
        "div.f32 %r1, %r2, %r3;",
        "div.approx.f64 %d1, %d2, %d3;",
        "div.rn.sat.f32 %r1, %r2, %r3;",
        "rcp.approx.f64 %d1, %d2;",
        "sin.f32 %r1, %r2;",
        "sin.approx.f64 %d1, %d2;",
        "tanh.approx.ftz.f32 %r1, %r2;",
        "min.NaN.f64 %d1, %d2, %d3;",
        "max.xorsign.f32 %r1, %r2, %r3;",
        "abs.sat.f32 %r1, %r2;",
        "testp.zero.f32 %p1, %r1;",
        "add.f32 %r1, %r2, %d3;",
        "add.f32 %r1, %r2, %h3;",
    ]);
}
