//! Logic, shifts, fields, searches and permutations, bit by bit.

use super::oracle::{number, wrap};
use super::{Case, Ty, Ty::*, exact, refused, run};

const BITS: [(&str, Ty); 3] = [("b16", U16), ("b32", U32), ("b64", U64)];

fn ones(ty: Ty) -> u64 {
    u64::MAX >> (64 - ty.bits())
}

/// Bit `at` of a word of 64 bits, zero outside.
fn bit(word: u64, at: u64) -> u64 {
    if at < 64 { word >> at & 1 } else { 0 }
}

/// A word from its bits.
fn gather(ty: Ty, f: impl Fn(u64) -> u64) -> u64 {
    (0..u64::from(ty.bits())).map(|at| f(at) << at).sum()
}

#[test]
fn logic() {
    let mut cases = Vec::new();
    for (name, ty) in BITS {
        cases.push(exact(format!("and.{name} $d, $a, $b;"), &[ty, ty], ty, |x| x[0] & x[1]));
        cases.push(exact(format!("or.{name} $d, $a, $b;"), &[ty, ty], ty, |x| x[0] | x[1]));
        cases.push(exact(format!("xor.{name} $d, $a, $b;"), &[ty, ty], ty, |x| x[0] ^ x[1]));
        cases.push(exact(format!("not.{name} $d, $a;"), &[ty], ty, move |x| x[0] ^ ones(ty)));
        cases.push(exact(format!("cnot.{name} $d, $a;"), &[ty], ty, |x| u64::from(x[0] == 0)));
    }
    cases.push(exact("and.pred $d, $a, $b;", &[Pred, Pred], Pred, |x| x[0] & x[1]));
    cases.push(exact("or.pred $d, $a, $b;", &[Pred, Pred], Pred, |x| x[0] | x[1]));
    cases.push(exact("xor.pred $d, $a, $b;", &[Pred, Pred], Pred, |x| x[0] ^ x[1]));
    cases.push(exact("not.pred $d, $a;", &[Pred], Pred, |x| 1 - x[0]));
    cases.push(exact("and.pred $d, $a, !$b;", &[Pred, Pred], Pred, |x| x[0] & !x[1]));
    run(cases);
}

#[test]
fn tables() {
    let entry = |table: u64, x: &[u64]| gather(U32, |at| bit(table, bit(x[0], at) * 4 + bit(x[1], at) * 2 + bit(x[2], at)));
    let mut cases: Vec<Case> = [0, 1, 0x80, 0xe8, 0x96, 0xca, 0x2d, 0xff]
        .map(|table| exact(format!("lop3.b32 $d, $a, $b, $c, {table};"), &[U32, U32, U32], U32, move |x| entry(table, x)))
        .into();
    cases.push(exact("lop3.or.b32 %w1|$d, $a, $b, $c, 0x80, $e;", &[U32, U32, U32, Pred], Pred, |x| {
        u64::from(x[0] & x[1] & x[2] != 0) | x[3]
    }));
    cases.push(exact("lop3.and.b32 _|$d, $a, $b, $c, 0x3c, !$e;", &[U32, U32, U32, Pred], Pred, |x| {
        u64::from(x[0] != x[1]) & (1 - x[3])
    }));
    cases.push(exact("setp.ne.u32 %p1, $c, 0; lop3.or.b32 $d|%p2, $a, $b, $c, 0xfe, %p1;", &[U32, U32, U32], U32, |x| {
        x[0] | x[1] | x[2]
    }));
    run(cases);
}

#[test]
fn shifts() {
    let mut cases = Vec::new();
    for (name, ty) in BITS {
        let width = u64::from(ty.bits());
        cases.push(exact(format!("shl.{name} $d, $a, $b;"), &[ty, Count], ty, move |x| {
            gather(ty, |at| if at >= x[1] { bit(x[0], at - x[1]) } else { 0 })
        }));
        cases.push(exact(format!("shr.{name} $d, $a, $b;"), &[ty, Count], ty, move |x| gather(ty, |at| bit(x[0], at + x[1]))));
        let (unsigned, signed) = (name.replace('b', "u"), name.replace('b', "s"));
        cases.push(exact(format!("shr.{unsigned} $d, $a, $b;"), &[ty, Count], ty, move |x| gather(ty, |at| bit(x[0], at + x[1]))));
        cases.push(exact(format!("shr.{signed} $d, $a, $b;"), &[ty, Count], ty, move |x| {
            gather(ty, |at| bit(x[0], (at + x[1]).min(width - 1)))
        }));
    }
    for (mode, limit) in [("clamp", true), ("wrap", false)] {
        let count = move |n: u64| if limit { n.min(32) } else { n % 32 };
        let both = |x: &[u64]| u128::from(x[1]) << 32 | u128::from(x[0]);
        cases.push(exact(format!("shf.l.{mode}.b32 $d, $a, $b, $c;"), &[U32, U32, Count], U32, move |x| {
            (both(x) << count(x[2]) >> 32) as u64 & 0xffff_ffff
        }));
        cases.push(exact(format!("shf.r.{mode}.b32 $d, $a, $b, $c;"), &[U32, U32, Count], U32, move |x| {
            (both(x) >> count(x[2])) as u64 & 0xffff_ffff
        }));
    }
    run(cases);
}

/// The highest bit of a number that differs from its sign.
fn highest(ty: Ty, bits: u64) -> Option<u64> {
    let value = number(ty, bits);
    let value = if value < 0 { !value } else { value };
    (0..64).rev().find(|&at| value >> at & 1 == 1)
}

#[test]
fn searches() {
    let mut cases = Vec::new();
    for (name, ty) in [("b32", U32), ("b64", U64)] {
        let width = u64::from(ty.bits());
        cases.push(exact(format!("popc.{name} $d, $a;"), &[ty], U32, move |x| (0..64).map(|at| bit(x[0], at)).sum()));
        cases.push(exact(format!("clz.{name} $d, $a;"), &[ty], U32, move |x| highest(ty, x[0]).map_or(width, |at| width - 1 - at)));
        cases.push(exact(format!("brev.{name} $d, $a;"), &[ty], ty, move |x| gather(ty, |at| bit(x[0], width - 1 - at))));
    }
    for (name, ty) in [("u32", U32), ("s32", S32), ("u64", U64), ("s64", S64)] {
        let top = u64::from(ty.bits()) - 1;
        cases.push(exact(format!("bfind.{name} $d, $a;"), &[ty], U32, move |x| highest(ty, x[0]).unwrap_or(0xffff_ffff)));
        cases.push(exact(format!("bfind.shiftamt.{name} $d, $a;"), &[ty], U32, move |x| {
            highest(ty, x[0]).map_or(0xffff_ffff, |at| top - at)
        }));
    }
    cases.push(exact("and.b32 %w1, $b, 31; fns.b32 $d, $a, %w1, $c;", &[U32, U32, S32], U32, |x| {
        let (base, offset) = (x[1] & 31, x[2] as u32 as i32);
        let mut found: Vec<u64> = match offset.signum() {
            1 => (base..32).collect(),
            0 => vec![base],
            _ => (0..=base).rev().collect(),
        };
        found.retain(|&at| bit(x[0], at) == 1);
        found.get(offset.unsigned_abs().saturating_sub(1) as usize).copied().unwrap_or(0xffff_ffff)
    }));
    run(cases);
}

#[test]
fn fields() {
    let mut cases = Vec::new();
    for (name, ty) in [("u32", U32), ("s32", S32), ("u64", U64), ("s64", S64)] {
        let (top, signed) = (u64::from(ty.bits()) - 1, name.starts_with('s'));
        cases.push(exact(format!("bfe.{name} $d, $a, $b, $c;"), &[ty, Count, Count], ty, move |x| {
            let (position, length) = (x[1] & 255, x[2] & 255);
            let sign = if signed && length > 0 { bit(x[0], (position + length - 1).min(top)) } else { 0 };
            gather(ty, |at| if at < length && position + at <= top { bit(x[0], position + at) } else { sign })
        }));
    }
    for (name, ty) in [("b32", U32), ("b64", U64)] {
        cases.push(exact(format!("bfi.{name} $d, $a, $b, $c, $e;"), &[ty, ty, Count, Count], ty, move |x| {
            let (position, length) = (x[2] & 255, x[3] & 255);
            gather(ty, |at| if at >= position && at - position < length { bit(x[0], at - position) } else { bit(x[1], at) })
        }));
    }
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        let limit = move |n: u64| if clamp { n.min(32) } else { n % 32 };
        cases.push(exact(format!("bmsk.{mode}.b32 $d, $a, $b;"), &[Count, Count], U32, move |x| {
            let (from, width) = (limit(x[0]), limit(x[1]));
            gather(U32, |at| u64::from(at >= from && at < from + width))
        }));
        for (name, ty) in [("u32", U32), ("s32", S32)] {
            cases.push(exact(format!("szext.{mode}.{name} $d, $a, $b;"), &[ty, Count], ty, move |x| {
                let width = limit(x[1]);
                let sign = if ty == S32 && width > 0 { bit(x[0], width - 1) } else { 0 };
                gather(ty, |at| if at < width { bit(x[0], at) } else { sign })
            }));
        }
    }
    run(cases);
}

#[test]
fn permutations() {
    let pick = |x: &[u64], nibbles: u64| {
        (0..4).fold(0, |word, at| {
            let nibble = nibbles >> (4 * at) & 15;
            let byte = (x[1] << 32 | x[0]) >> (8 * (nibble & 7)) & 255;
            let byte = if nibble & 8 == 0 {
                byte
            } else if byte & 128 != 0 {
                255
            } else {
                0
            };
            word | byte << (8 * at)
        })
    };
    let mut cases = vec![exact("prmt.b32 $d, $a, $b, $c;", &[U32, U32, U32], U32, move |x| pick(x, x[2]))];
    let modes = [
        ("f4e", [0x3210, 0x4321, 0x5432, 0x6543]),
        ("b4e", [0x5670, 0x6701, 0x7012, 0x0123]),
        ("rc8", [0x0000, 0x1111, 0x2222, 0x3333]),
        ("ecl", [0x3210, 0x3211, 0x3222, 0x3333]),
        ("ecr", [0x0000, 0x1110, 0x2210, 0x3210]),
        ("rc16", [0x1010, 0x3232, 0x1010, 0x3232]),
    ];
    for (mode, rows) in modes {
        cases.push(exact(format!("prmt.b32.{mode} $d, $a, $b, $c;"), &[U32, U32, U32], U32, move |x| {
            pick(x, rows[(x[2] & 3) as usize])
        }));
    }
    run(cases);
}

#[test]
fn counts_wrap_only_where_the_instruction_says_so() {
    assert_eq!(wrap(U32, -1), 0xffff_ffff);
    refused(&[
        "shl.u32 %r1, %r2, %r3;",
        "shl.b32 %r1, %r2, %d3;",
        "popc.u32 %r1, %r2;",
        "clz.b16 %h1, %h2;",
        "popc.b64 %d1, %d2;",
        "shf.l.b32 %r1, %r2, %r3, %r4;",
        "lop3.b32 %r1, %r2, %r3, %r4, 256;",
        "lop3.b32 %r1, %r2, %r3, %r4, %r5;",
        "prmt.b32.xyz %r1, %r2, %r3, %r4;",
        "and.u32 %r1, %r2, %r3;",
        "and.pred %p1, %r2, %p3;",
        "bfe.b32 %r1, %r2, %r3, %r4;",
        "bmsk.b32 %r1, %r2, %r3;",
    ]);
}
