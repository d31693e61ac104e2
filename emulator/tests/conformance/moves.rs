//! `mov` with parts of registers, and addresses.

use super::Ty::*;
use super::{exact, refused, run};

#[test]
fn whole_registers_and_their_parts() {
    run(vec![
        exact("mov.b16 $d, $a;", &[U16], U16, |x| x[0]),
        exact("mov.s32 $d, $a;", &[U32], U32, |x| x[0]),
        exact("mov.f32 $d, $a;", &[F32], F32, |x| x[0]),
        exact("mov.f64 $d, $a;", &[F64], F64, |x| x[0]),
        exact("mov.pred $d, $a;", &[Pred], Pred, |x| x[0]),
        exact("mov.pred $d, !$a;", &[Pred], Pred, |x| 1 - x[0]),
        exact("mov.pred $d, -1;", &[Pred], Pred, |_| 1),
        exact("mov.b32 $d, {$a, $b};", &[U16, U16], U32, |x| x[0] | x[1] << 16),
        exact("mov.b32 $d, {$a, 7};", &[U16], U32, |x| x[0] | 7 << 16),
        exact("mov.b64 $d, {$a, $b};", &[U32, U32], U64, |x| x[0] | x[1] << 32),
        exact("mov.b64 $d, {$a, $b, $c, $e};", &[U16, U16, U16, U16], U64, |x| x[0] | x[1] << 16 | x[2] << 32 | x[3] << 48),
        exact("mov.b32 {$d, _}, $a;", &[U32], U16, |x| x[0] & 0xffff),
        exact("mov.b32 {_, $d}, $a;", &[U32], U16, |x| x[0] >> 16),
        exact("mov.b64 {%w1, $d}, $a;", &[U64], U32, |x| x[0] >> 32),
        exact("mov.b64 {%h1, %h2, $d, %h3}, $a;", &[U64], U16, |x| x[0] >> 32 & 0xffff),
        exact("{ .reg .b8 %c<4>; mov.b32 {%c0, %c1, %c2, %c3}, $a; mov.b32 $d, {%c3, %c2, %c1, %c0}; }", &[U32], U32, |x| {
            u64::from((x[0] as u32).swap_bytes())
        }),
        exact("{ .reg .b8 %c<2>; mov.b16 {%c0, %c1}, $a; mov.b16 $d, {%c1, %c0}; }", &[U16], U16, |x| {
            u64::from((x[0] as u16).swap_bytes())
        }),
        exact("mov.b128 %q0, {$a, $b}; mov.b128 %q1, %q0; mov.b128 {_, $d}, %q1;", &[U64, U64], U64, |x| x[1]),
        exact("mov.b128 %q0, {$a, $b, $b, $a}; mov.b128 {%w1, %w2, $d, %w3}, %q0;", &[U32, U32], U32, |x| x[1]),
        exact("mov.b64 %l1, {$a, $b}; mov.b64 {%w1, %w2}, %l1; sub.s32 $d, %w1, %w2;", &[U32, U32], U32, |x| {
            u64::from((x[0] as u32).wrapping_sub(x[1] as u32))
        }),
    ]);
}

#[test]
fn a_part_may_overwrite_what_it_came_from() {
    run(vec![
        exact("mov.b32 $d, $a; mov.b64 %l1, {$d, $a}; mov.b64 {%w1, $d}, %l1;", &[U32], U32, |x| x[0]),
        exact("mov.u64 %l1, $a; add.s64 %l1, %l1, %l1; mov.u64 $d, %l1;", &[U64], U64, |x| x[0].wrapping_mul(2)),
    ]);
}

#[test]
fn addresses_and_spaces() {
    let shared = ".shared .align 8 .b8 tile[512]; .local .align 8 .b8 own[16]; ";
    let case = |body: &str, expected: u64| exact(format!("{{ {shared}{body} }}"), &[U32], U32, move |_| expected);
    let in_space = |space: &str, made: &str, expected: u64| {
        case(
            &format!(
                "mov.u64 %l1, {made}; {} isspacep.{space} %p1, %l1; selp.u32 $d, 1, 0, %p1;",
                match made {
                    "tile" => "cvta.shared.u64 %l1, %l1;",
                    "own" => "cvta.local.u64 %l1, %l1;",
                    _ => "",
                }
            ),
            expected,
        )
    };
    run(vec![
        in_space("shared", "tile", 1),
        in_space("shared::cta", "tile", 1),
        in_space("shared::cluster", "tile", 1),
        in_space("local", "tile", 0),
        in_space("global", "tile", 0),
        in_space("const", "tile", 0),
        in_space("local", "own", 1),
        in_space("shared", "own", 0),
        in_space("global", "%out", 1),
        in_space("const", "%out", 0),
        in_space("shared", "%out", 0),
        case(
            "mov.u64 %l1, tile; cvta.shared.u64 %l2, %l1; cvta.to.shared.u64 %l2, %l2; sub.s64 %l1, %l1, %l2; cvt.u32.u64 $d, %l1;",
            0,
        ),
        case("mov.u32 %w1, tile; mov.u32 %w2, tile+8; sub.s32 $d, %w2, %w1;", 8),
        // Each thread its own word, or they would race.
        case(
            "mov.u32 %w1, %tid.x; mov.u32 %w2, tile; mad.lo.s32 %w2, %w1, 4, %w2; cvt.u64.u32 %l1, %w2; \
             cvta.shared.u64 %l2, %l1; st.shared.u32 [%w2], 77; ld.u32 $d, [%l2];",
            77,
        ),
        case("mov.u64 %l1, own; cvta.local.u64 %l2, %l1; st.u32 [%l2+4], 78; ld.local.u32 $d, [own+4];", 78),
    ]);
}

#[test]
fn clocks_go_on() {
    run(vec![
        exact("mov.u32 %w1, %clock; mov.u32 %w2, %clock; setp.lt.u32 $d, %w1, %w2;", &[U32], Pred, |_| 1),
        exact("mov.u64 %l1, %clock64; mov.u64 %l2, %clock64; setp.lt.u64 $d, %l1, %l2;", &[U32], Pred, |_| 1),
        exact("mov.u64 %l1, %globaltimer; mov.u64 %l2, %globaltimer; setp.le.u64 $d, %l1, %l2;", &[U32], Pred, |_| 1),
        exact("mov.u64 $d, %gridid;", &[U32], U64, |_| 0),
        exact("mov.u32 $d, %envreg3;", &[U32], U32, |_| 0),
        exact("mov.pred $d, %is_explicit_cluster;", &[U32], Pred, |_| 0),
        exact("mov.u32 $d, WARP_SZ;", &[U32], U32, |_| 32),
    ]);
}

#[test]
fn forms_that_do_not_exist() {
    refused(&[
        "mov.b32 %r1, {%r2, %r3};",
        "mov.b64 %d1, {%h1, %h2};",
        "mov.u32 %d1, %d2;",
        "mov.u32 %r1, {%h1, %h2};",
        "mov.b128 %d1, %d2;",
        "mov.b8 %h1, %h2;",
        "mov.pred %p1, %r1;",
        "mov.u32 %r1, %nothing;",
        "mov.u64 %d1, %clock;",
        "mov.u32 %r1, %clock64;",
        "cvta.u64 %d1, %d2;",
        "cvta.shared.u32 %r1, %r2;",
        "isspacep.everywhere %p1, %d1;",
        "isspacep.shared %p1, %r1;",
    ]);
}
