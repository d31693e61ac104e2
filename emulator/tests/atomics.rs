//! `atom` and `red` against what the manual says of each operation.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::{Kind, Order};

/// Every thread of two blocks adds to counters in global and in shared memory.
#[test]
fn sums_are_exact_whatever_the_order() {
    let body = "
        add.s32 %r0, %index, 1;
        red.global.add.u32 [%out], %r0;
        atom.global.max.s32 %r1, [%out+4], %index;
        cvt.u64.u32 %d0, %index;
        atom.add.u64 %d1, [%out+8], %d0;
        red.global.or.b32 [%out+16], %lane;
        red.relaxed.gpu.global.inc.u32 [%out+20], 99;
        mov.b32 %f0, 0f3F800000;
        red.global.add.f32 [%out+24], %f0;
        mov.b32 %r2, 0x3C003C00;
        red.global.add.noftz.f16x2 [%out+28], %r2;
        mov.b16 %h0, 0x3F80;
        atom.global.add.noftz.bf16 %h1, [%out+32], %h0;
        setp.eq.u32 %p0, %tid, 0;
        @%p0 st.shared.u32 [s], 0;
        bar.sync 0;
        atom.shared::cta.add.u32 %r3, [s], 2;
        bar.sync 0;
        @%p0 ld.shared.u32 %r4, [s];
        @%p0 red.global.add.u32 [%out+36], %r4;";
    let body = format!(".reg .f32 %f0; {body}");
    for order in orders() {
        let (findings, out) = Kernel::grid(2, &body).run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert_eq!(out[0], (1..=128).sum::<u32>());
        assert_eq!(out[1], 127);
        assert_eq!(u64::from(out[2]) | u64::from(out[3]) << 32, (0..128).sum::<u64>());
        assert_eq!(out[4], 31);
        assert_eq!(out[5], 28, "128 steps around a circle of 100");
        assert_eq!(f32::from_bits(out[6]), 128.0);
        assert_eq!(out[7], 0x5800_5800, "128 in both halves");
        assert_eq!(out[8], 0x4300, "128 as bf16, its neighbour untouched");
        assert_eq!(out[9], 256);
    }
}

#[test]
fn old_values_are_those_before_each_thread_s_turn() {
    let body = "
        atom.global.add.u32 %r0, [%out+32768], 1;
        st.global.u32 [%there], %r0;";
    let mut sequences = std::collections::BTreeSet::new();
    for order in orders() {
        let (findings, out) = Kernel::block(32, body).run(order);
        assert!(findings.is_empty());
        let mut seen = out[..32].to_vec();
        if order == Order::Natural {
            assert_eq!(seen, (0..32).collect::<Vec<u32>>());
        }
        sequences.insert(seen.clone());
        seen.sort_unstable();
        assert_eq!(seen, (0..32).collect::<Vec<u32>>());
    }
    assert!(sequences.len() > 4, "seeds draw different orders of lanes");
}

#[test]
fn exchange_and_compare_and_swap() {
    // A lock taken with cas and given back with exch protects an ordinary counter.
    let body = "
        mov.u32 %r0, 0;
        AGAIN:
        atom.acquire.gpu.global.cas.b32 %r1, [%out+1024], 0, 1;
        setp.ne.u32 %p0, %r1, 0;
        @%p0 bra RETRY;
        ld.relaxed.gpu.global.u32 %r2, [%out];
        add.s32 %r2, %r2, 1;
        st.relaxed.gpu.global.u32 [%out], %r2;
        atom.release.gpu.global.exch.b32 %r3, [%out+1024], 0;
        mov.u32 %r0, 1;
        RETRY:
        setp.eq.u32 %p1, %r0, 0;
        @%p1 bra AGAIN;";
    for order in orders() {
        let (findings, out) = Kernel::grid(3, body).run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert_eq!(out[0], 192);
    }
}

#[test]
fn vectors_are_updated_component_by_component() {
    let body = "
        .reg .f32 %f<4>;
        mov.f32 %f0, 0f3F800000; mov.f32 %f1, 0f40000000; mov.f32 %f2, 0f40400000; mov.f32 %f3, 0f40800000;
        red.global.add.v4.f32 [%out], {%f0, %f1, %f2, %f3};
        mov.b32 %r0, 0x00000001; mov.b32 %r1, 0x3C000000;
        bar.sync 0;
        setp.ne.u32 %p0, %tid, 0;
        @%p0 bra END;
        atom.global.v2.f16x2.max.noftz {%r2, %r3}, [%out+16], {%r0, %r1};
        st.global.v2.u32 [%out+24], {%r2, %r3};
        END:";
    for order in orders() {
        let (findings, out) = Kernel::block(64, body).run(order);
        assert!(findings.is_empty(), "{}", findings[0]);
        assert_eq!([0, 1, 2, 3].map(|at| f32::from_bits(out[at])), [64.0, 128.0, 192.0, 256.0]);
        assert_eq!(out[4..8], [1, 0x3C00_0000, 0, 0]);
    }
}

#[test]
fn integer_operations_against_rust() {
    type Operation = fn(u32, u32) -> u32;
    let cases: [(&str, &str, Operation); 9] = [
        ("min", "s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max", "s32", |a, b| (a as i32).max(b as i32) as u32),
        ("min", "u32", u32::min),
        ("max", "u32", u32::max),
        ("and", "b32", |a, b| a & b),
        ("xor", "b32", |a, b| a ^ b),
        ("exch", "b32", |_, b| b),
        ("inc", "u32", |a, b| if a >= b { 0 } else { a + 1 }),
        ("dec", "u32", |a, b| if a == 0 || a > b { b } else { a - 1 }),
    ];
    let values = [0u32, 1, 5, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    for (operation, ty, expected) in cases {
        for a in values {
            for b in values {
                for space in ["global", "shared"] {
                    let address = if space == "global" { "%out" } else { "s" };
                    let body = format!(
                        "st.{space}.u32 [{address}], {a}; atom.{space}.{operation}.{ty} %r0, [{address}], {b};
                         ld.{space}.u32 %r1, [{address}]; st.global.v2.u32 [%out+8], {{%r0, %r1}};"
                    );
                    let (findings, out) = Kernel::block(1, &body).run(Order::Natural);
                    assert!(findings.is_empty(), "{}", findings[0]);
                    assert_eq!(out[2..4], [a, expected(a, b)], "{operation}.{ty} of {a} and {b} in {space} memory");
                }
            }
        }
    }
}

#[test]
fn subnormal_sums_are_flushed_in_global_memory_only() {
    for (space, address, expected) in [("global", "%out", 0), ("shared", "s", 0x0000_0003)] {
        let body = format!(
            "st.{space}.u32 [{address}], 1; mov.b32 %r0, 2; .reg .f32 %f0; mov.b32 %f0, %r0;
             red.{space}.add.f32 [{address}], %f0; ld.{space}.u32 %r1, [{address}]; st.global.u32 [%out+4], %r1;"
        );
        assert_eq!(Kernel::block(1, &body).run(Order::Natural).1[1], expected, "{space}");
    }
}

#[test]
fn mistakes_are_found() {
    for (body, kind) in [
        ("red.global.add.u32 [%out+2], 1;", Kind::Misaligned),
        ("red.global.add.u32 [%out+65536], 1;", Kind::OutOfBounds),
        ("red.shared.add.u32 [s+8192], 1;", Kind::OutOfBounds),
        ("red.shared.add.u32 [s], 1;", Kind::Uninitialized),
        ("red.global.add.u32 [%out], %r0;", Kind::Uninitialized),
    ] {
        Kernel::block(1, body).is_found(kind, &["red"]);
    }
    // A plain store beside atomics of another thread is a race; what exchange overwrites need not be defined.
    Kernel::block(64, "st.shared.u32 [s], 1; bar.sync 0; red.shared.add.u32 [s], 1;").run(Order::Natural);
    let body = "setp.eq.u32 %p0, %tid, 0; @%p0 st.shared.u32 [s], 1; atom.shared.exch.b32 _, [s+4], 1; red.shared.add.u32 [s], 1;";
    assert!(orders().any(|order| Kernel::block(64, body).run(order).0.iter().any(|finding| finding.kind == Kind::SharedRace)));
    Kernel::block(64, "atom.shared.exch.b32 _, [s+4], 1;").is_clean();
}
