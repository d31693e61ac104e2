//! The formulas of the manual, one per figure, against the one rule of the module.

use std::collections::HashSet;

use super::*;

/// (row, column) of element `i` of a lane's fragment, with `g` = groupID and `t` = threadID_in_group, as the manual writes it.
type Formula = fn(i: usize, g: usize, t: usize) -> (usize, usize);

/// `parts` elements of a register; elements of a fragment are numbered from register 0's lowest bits on.
fn check(name: &str, fragment: Fragment, (rows, columns): (usize, usize), parts: usize, formula: Formula) {
    let mut seen = HashSet::new();
    for lane in 0..32 {
        for i in 0..fragment.registers() * parts {
            let expected = formula(i, lane / 4, lane % 4);
            let (register, part) = (i / parts, i % parts);
            assert_eq!(fragment.element(lane, register, part), expected, "{name}: lane {lane}, element {i}");
            assert_eq!(fragment.place(expected.0, expected.1), Place { lane, register, part }, "{name}: {expected:?}");
            assert!(expected.0 < rows && expected.1 < columns, "{name}: {expected:?}");
            seen.insert(expected);
        }
    }
    assert_eq!(seen.len(), rows * columns, "{name}: each element once");
    assert_eq!(32 * fragment.registers() * parts, rows * columns, "{name}: no element twice");
}

#[test]
fn a_of_mma_is_dealt_as_the_manual_says() {
    check("m8n8k4 f64", Fragment::a(8, 4, 1), (8, 4), 1, |_, g, t| (g, t));
    check("m16n8k4 f64, tf32", Fragment::a(16, 4, 1), (16, 4), 1, |i, g, t| (if i == 0 { g } else { g + 8 }, t));
    check("m16n8k8 f64, tf32", Fragment::a(16, 8, 1), (16, 8), 1, |i, g, t| {
        (if i == 0 || i == 2 { g } else { g + 8 }, if i < 2 { t } else { t + 4 })
    });
    check(
        "m16n8k16 f64",
        Fragment::a(16, 16, 1),
        (16, 16),
        1,
        |i, g, t| {
            if i % 2 == 0 { (g, i * 2 + t) } else { (g + 8, i * 2 - 2 + t) }
        },
    );
    check("m16n8k8 f16", Fragment::a(16, 8, 2), (16, 8), 2, |i, g, t| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1)));
    check("m16n8k16 f16", Fragment::a(16, 16, 2), (16, 16), 2, |i, g, t| {
        let row = if i < 2 || (4..6).contains(&i) { g } else { g + 8 };
        (row, if i < 4 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 })
    });
    check("m8n8k16 s8", Fragment::a(8, 16, 4), (8, 16), 4, |i, g, t| (g, t * 4 + i));
    check("m16n8k16 s8, fp8", Fragment::a(16, 16, 4), (16, 16), 4, |i, g, t| (if i < 4 { g } else { g + 8 }, t * 4 + (i & 3)));
    check("m16n8k32 s8, fp8", Fragment::a(16, 32, 4), (16, 32), 4, |i, g, t| {
        let row = if i < 4 || (8..12).contains(&i) { g } else { g + 8 };
        (row, if i < 8 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 })
    });
    check("m8n8k32 s4", Fragment::a(8, 32, 8), (8, 32), 8, |i, g, t| (g, t * 8 + i));
    check("m16n8k32 s4", Fragment::a(16, 32, 8), (16, 32), 8, |i, g, t| (if i < 8 { g } else { g + 8 }, t * 8 + (i & 7)));
    check("m16n8k64 s4", Fragment::a(16, 64, 8), (16, 64), 8, |i, g, t| {
        let row = if i < 8 || (16..24).contains(&i) { g } else { g + 8 };
        (row, if i < 16 { t * 8 + (i & 7) } else { t * 8 + (i & 7) + 32 })
    });
}

#[test]
fn b_of_mma_is_dealt_as_the_manual_says() {
    check("k4 f64, tf32", Fragment::b(4, 8, 1), (4, 8), 1, |_, g, t| (t, g));
    check("k8 f64, tf32", Fragment::b(8, 8, 1), (8, 8), 1, |i, g, t| (if i == 0 { t } else { t + 4 }, g));
    check("k16 f64", Fragment::b(16, 8, 1), (16, 8), 1, |i, g, t| (t + i * 4, g));
    check("k8 f16", Fragment::b(8, 8, 2), (8, 8), 2, |i, g, t| (t * 2 + i, g));
    check("k16 f16", Fragment::b(16, 8, 2), (16, 8), 2, |i, g, t| (if i < 2 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 }, g));
    check("k16 s8", Fragment::b(16, 8, 4), (16, 8), 4, |i, g, t| (t * 4 + i, g));
    check("k32 s8", Fragment::b(32, 8, 4), (32, 8), 4, |i, g, t| (if i < 4 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 }, g));
    check("k32 s4", Fragment::b(32, 8, 8), (32, 8), 8, |i, g, t| (t * 8 + i, g));
    check("k64 s4", Fragment::b(64, 8, 8), (64, 8), 8, |i, g, t| (if i < 8 { t * 8 + (i & 7) } else { t * 8 + (i & 7) + 32 }, g));
}

#[test]
fn accumulators_are_dealt_as_the_manual_says() {
    check("m8n8", Fragment::accumulator(8, 8, 1), (8, 8), 1, |i, g, t| (g, t * 2 + i));
    let m16n8: Formula = |i, g, t| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1));
    check("m16n8 f32", Fragment::accumulator(16, 8, 1), (16, 8), 1, m16n8);
    check("m16n8 f16", Fragment::accumulator(16, 8, 2), (16, 8), 2, m16n8);
}

/// ISA 9.7.15.5.1.1: element i of D is in row `16·(warp % 4) + g + 8·((i / 2) % 2)` and column `8·(i / 4) + 2·t + i % 2`.
#[test]
fn accumulators_of_wgmma_are_dealt_as_the_manual_says() {
    let formula: Formula = |i, g, t| (g + 8 * ((i / 2) % 2), 8 * (i / 4) + 2 * t + (i & 1));
    for n in (8..=256).step_by(8) {
        check("f32", Fragment::accumulator(16, n, 1), (16, n), 1, formula);
        check("f16", Fragment::accumulator(16, n, 2), (16, n), 2, formula);
        assert_eq!(Fragment::accumulator(16, n, 1).registers(), n / 2);
        assert_eq!(Fragment::accumulator(16, n, 2).registers(), n / 4);
    }
}

/// Fragments of `wmma` are ours to choose: each element once, and as many registers as PTX asks for, or a divisor.
#[test]
fn fragments_of_wmma_hold_each_element_once() {
    for (m, n, k, per_register, (a, b)) in [
        (16, 16, 16, 2, (4, 4)),
        (32, 8, 16, 2, (8, 2)),
        (8, 32, 16, 2, (2, 8)),
        (16, 16, 8, 1, (4, 4)),
        (16, 16, 16, 4, (2, 2)),
        (32, 8, 16, 4, (4, 1)),
        (8, 32, 16, 4, (1, 4)),
    ] {
        let fragments = [
            (Fragment::a(m, k, per_register), (m, k), per_register, a),
            (Fragment::b(k, n, per_register), (k, n), per_register, b),
            (Fragment::accumulator(m, n, 1), (m, n), 1, 8),
            (Fragment::accumulator(m, n, 2), (m, n), 2, 4),
        ];
        for (fragment, (rows, columns), parts, registers) in fragments {
            assert_eq!(fragment.registers(), registers);
            let mut places = HashSet::new();
            for row in 0..rows {
                for column in 0..columns {
                    let place = fragment.place(row, column);
                    assert!(place.lane < 32 && place.register < registers && place.part < parts);
                    assert_eq!(fragment.element(place.lane, place.register, place.part), (row, column));
                    places.insert(place);
                }
            }
            assert_eq!(places.len(), rows * columns);
        }
    }
}
