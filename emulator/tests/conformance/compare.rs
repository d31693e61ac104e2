//! `setp`, `set`, `selp`, `slct`.

use super::oracle::{HalfFormat, f32_of, flush, number};
use super::{Case, Ty, Ty::*, exact, refused, run};
use std::cmp::Ordering;

/// Whether a comparison holds; `None` is unordered.
fn holds(name: &str, order: Option<Ordering>) -> bool {
    let Some(order) = order else { return name == "nan" || name.len() == 3 && name.ends_with('u') };
    match name {
        "eq" | "equ" => order.is_eq(),
        "ne" | "neu" => order.is_ne(),
        "lt" | "ltu" | "lo" => order.is_lt(),
        "le" | "leu" | "ls" => order.is_le(),
        "gt" | "gtu" | "hi" => order.is_gt(),
        "ge" | "geu" | "hs" => order.is_ge(),
        "num" => true,
        "nan" => false,
        other => panic!("{other}"),
    }
}

/// How two operands of a type compare.
fn order(ty: Ty, a: u64, b: u64) -> Option<Ordering> {
    match ty {
        F32 => f32_of(a).partial_cmp(&f32_of(b)),
        F64 => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        F16 => HalfFormat::F16.value(a).partial_cmp(&HalfFormat::F16.value(b)),
        BF16 => HalfFormat::BF16.value(a).partial_cmp(&HalfFormat::BF16.value(b)),
        _ => Some(number(ty, a).cmp(&number(ty, b))),
    }
}

const FLOAT: [&str; 14] = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

/// Every type with the comparisons that it has.
fn types() -> Vec<(&'static str, Ty, &'static [&'static str])> {
    const UNSIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
    vec![
        ("b16", U16, &FLOAT[..2]),
        ("b32", U32, &FLOAT[..2]),
        ("b64", U64, &FLOAT[..2]),
        ("u16", U16, UNSIGNED),
        ("u32", U32, UNSIGNED),
        ("u64", U64, UNSIGNED),
        ("s16", S16, &FLOAT[..6]),
        ("s32", S32, &FLOAT[..6]),
        ("s64", S64, &FLOAT[..6]),
        ("f16", F16, &FLOAT),
        ("bf16", BF16, &FLOAT),
        ("f32", F32, &FLOAT),
        ("f64", F64, &FLOAT),
    ]
}

#[test]
fn predicates() {
    let mut cases = Vec::new();
    for (name, ty, comparisons) in types() {
        for &comparison in comparisons {
            cases.push(exact(format!("setp.{comparison}.{name} $d, $a, $b;"), &[ty, ty], Pred, move |x| {
                u64::from(holds(comparison, order(ty, x[0], x[1])))
            }));
        }
        for (op, combine) in [("and", (|t, c| t & c) as fn(bool, bool) -> bool), ("or", |t, c| t | c), ("xor", |t, c| t ^ c)] {
            cases.push(exact(format!("setp.ne.{op}.{name} $d, $a, $b, !$c;"), &[ty, ty, Pred], Pred, move |x| {
                u64::from(combine(holds("ne", order(ty, x[0], x[1])), x[2] == 0))
            }));
            cases.push(exact(format!("setp.eq.{op}.{name} %p1|$d, $a, $b, $c;"), &[ty, ty, Pred], Pred, move |x| {
                u64::from(combine(!holds("eq", order(ty, x[0], x[1])), x[2] == 1))
            }));
        }
        cases.push(exact(format!("setp.ne.{name} _|$d, $a, $b;"), &[ty, ty], Pred, move |x| {
            u64::from(!holds("ne", order(ty, x[0], x[1])))
        }));
    }
    for comparison in FLOAT {
        cases.push(exact(format!("setp.{comparison}.ftz.f32 $d, $a, $b;"), &[F32, F32], Pred, move |x| {
            u64::from(holds(comparison, flush(f32_of(x[0])).partial_cmp(&flush(f32_of(x[1])))))
        }));
    }
    run(cases);
}

#[test]
fn predicates_of_pairs() {
    let mut cases: Vec<Case> = Vec::new();
    for (name, two, one) in [("f16x2", F16x2, F16), ("bf16x2", BF16x2, BF16)] {
        for comparison in FLOAT {
            cases.push(exact(format!("setp.{comparison}.{name} $d|%p1, $a, $b;"), &[two, two], Pred, move |x| {
                u64::from(holds(comparison, order(one, x[0] & 0xffff, x[1] & 0xffff)))
            }));
            cases.push(exact(format!("setp.{comparison}.or.{name} %p1|$d, $a, $b, $c;"), &[two, two, Pred], Pred, move |x| {
                u64::from(holds(comparison, order(one, x[0] >> 16, x[1] >> 16))) | x[2]
            }));
        }
    }
    run(cases);
}

#[test]
fn values() {
    let mut cases = Vec::new();
    for (name, ty, comparisons) in types() {
        for &comparison in comparisons {
            let results: &[(&str, Ty, u64)] = match ty {
                F16 | BF16 => &[("u16", U16, 0xffff), ("s32", S32, 0xffff_ffff), ("f16", F16, 0x3c00), ("bf16", BF16, 0x3f80)],
                _ => &[("u32", U32, 0xffff_ffff), ("f32", F32, 0x3f80_0000), ("f16", F16, 0x3c00)],
            };
            for &(to, result, on) in results {
                cases.push(exact(format!("set.{comparison}.{to}.{name} $d, $a, $b;"), &[ty, ty], result, move |x| {
                    if holds(comparison, order(ty, x[0], x[1])) { on } else { 0 }
                }));
            }
        }
        cases.push(exact(format!("set.eq.and.s32.{name} $d, $a, $b, $c;"), &[ty, ty, Pred], S32, move |x| {
            if holds("eq", order(ty, x[0], x[1])) && x[2] == 1 { 0xffff_ffff } else { 0 }
        }));
    }
    for (name, two, one, on) in [("f16x2", F16x2, F16, 0x3c00), ("bf16x2", BF16x2, BF16, 0x3f80)] {
        for (to, on) in [(name, on), ("u32", 0xffff)] {
            cases.push(exact(format!("set.ltu.{to}.{name} $d, $a, $b;"), &[two, two], two, move |x| {
                let at = |shift: u32| if holds("ltu", order(one, x[0] >> shift & 0xffff, x[1] >> shift & 0xffff)) { on } else { 0 };
                at(0) | at(16) << 16
            }));
        }
    }
    cases.push(exact("set.gt.ftz.u32.f32 $d, $a, $b;", &[F32, F32], U32, |x| {
        if flush(f32_of(x[0])) > flush(f32_of(x[1])) { 0xffff_ffff } else { 0 }
    }));
    run(cases);
}

#[test]
fn selections() {
    let mut cases = Vec::new();
    for (name, ty, _) in types().into_iter().filter(|row| !matches!(row.1, F16 | BF16)) {
        cases.push(exact(format!("selp.{name} $d, $a, $b, $c;"), &[ty, ty, Pred], ty, |x| if x[2] == 1 { x[0] } else { x[1] }));
        cases.push(exact(format!("selp.{name} $d, $a, $b, !$c;"), &[ty, ty, Pred], ty, |x| if x[2] == 0 { x[0] } else { x[1] }));
        cases.push(exact(format!("slct.{name}.s32 $d, $a, $b, $c;"), &[ty, ty, S32], ty, |x| {
            if x[2] >> 31 == 0 { x[0] } else { x[1] }
        }));
        cases.push(exact(format!("slct.{name}.f32 $d, $a, $b, $c;"), &[ty, ty, F32], ty, |x| {
            if f32_of(x[2]) >= 0.0 { x[0] } else { x[1] }
        }));
        cases.push(exact(format!("slct.ftz.{name}.f32 $d, $a, $b, $c;"), &[ty, ty, F32], ty, |x| {
            if flush(f32_of(x[2])) >= 0.0 { x[0] } else { x[1] }
        }));
    }
    run(cases);
}

/// `%w2` is never written. Where it is not chosen, or another operand decides, nothing is wrong: `run` accepts no findings.
#[test]
fn an_undefined_value_that_is_not_chosen_taints_nothing() {
    run(vec![
        exact("setp.ge.u32 %p1, $a, 0; selp.b32 $d, $a, %w2, %p1;", &[U32], U32, |x| x[0]),
        exact("slct.b32.s32 $d, $a, %w2, 0;", &[U32], U32, |x| x[0]),
        exact("setp.lt.u32 %p1, $a, 0; setp.ne.u32 %p2, %w2, 0; and.pred $d, %p1, %p2;", &[U32], Pred, |_| 0),
        exact("setp.ge.u32 %p1, $a, 0; setp.ne.u32 %p2, %w2, 0; or.pred $d, %p2, %p1;", &[U32], Pred, |_| 1),
    ]);
}

#[test]
fn forms_that_do_not_exist() {
    refused(&[
        "setp.lt.b32 %p1, %r1, %r2;",
        "setp.lo.s32 %p1, %r1, %r2;",
        "setp.ltu.s32 %p1, %r1, %r2;",
        "setp.num.u32 %p1, %r1, %r2;",
        "setp.lt.ftz.f64 %p1, %d1, %d2;",
        "setp.lt.ftz.s32 %p1, %r1, %r2;",
        "setp.lt.not.f32 %p1, %r1, %r2, %p2;",
        "setp.lt.and.f32 %p1, %r1, %r2;",
        "setp.f32 %p1, %r1, %r2;",
        "setp.lt.f32 %r1, %r1, %r2;",
        "setp.lt.f32 %p1, %r1, %d2;",
        "set.lt.u64.f32 %d1, %r1, %r2;",
        "set.lt.f32.f16x2 %r1, %r1, %r2;",
        "selp.pred %p1, %p2, %p3, %p4;",
        "selp.b32 %r1, %r2, %d3, %p4;",
        "slct.ftz.b32.s32 %r1, %r2, %r3, %r4;",
        "slct.b32.u32 %r1, %r2, %r3, %r4;",
    ]);
}
