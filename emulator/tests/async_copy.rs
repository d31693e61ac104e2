//! `cp.async`: what lands when, and what is found when it is not waited for.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

/// Each thread copies 16 bytes of the output buffer's second half, which it wrote itself, and reads those of its neighbour.
const COPY: &str = "
    mul.wide.u32 %d0, %tid, 16; add.s64 %d0, %d0, %out; add.s64 %d0, %d0, 32768;
    add.s32 %r0, %tid, 1; add.s32 %r1, %tid, 2;
    st.global.v4.u32 [%d0], {%tid, %r0, %r1, %tid};
    mov.u32 %r2, s; mad.lo.s32 %r2, %tid, 16, %r2;
    cp.async.cg.shared.global [%r2], [%d0], 16;
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.sync 0;
    xor.b32 %r3, %r2, 16;
    ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r3];
    add.s32 %r4, %r4, %r5; add.s32 %r4, %r4, %r6; add.s32 %r4, %r4, %r7;
    st.global.u32 [%there], %r4;";

#[test]
fn copies_land_at_the_wait() {
    for order in orders() {
        let (findings, out) = Kernel::block(64, COPY).run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert!((0..64).all(|tid| out[tid as usize] == 4 * (tid ^ 1) + 3));
    }
}

#[test]
fn waits_that_are_missing_or_wait_for_too_few_are_found() {
    for wait in ["", "cp.async.wait_group 1;"] {
        let body = COPY.replace("cp.async.wait_group 0;", wait);
        let found = Kernel::block(64, &body).is_found(Kind::NotWaitedFor, &["ld.shared"]);
        assert!(found.message.contains("cp.async.cg"), "{}", found.message);
    }
    Kernel::block(64, &COPY.replace("cp.async.wait_group 0;", "cp.async.wait_all;")).is_clean();
    // Not committed: no group to wait for.
    Kernel::block(64, &COPY.replace("cp.async.commit_group;", "")).is_found(Kind::NotWaitedFor, &["ld.shared"]);
}

#[test]
fn a_wait_behind_the_barrier_is_a_race() {
    let body = COPY.replace("cp.async.wait_group 0;\n    bar.sync 0;", "bar.sync 0;\n cp.async.wait_group 0;");
    assert_ne!(body, COPY);
    for order in orders() {
        let (findings, _) = Kernel::block(64, &body).run(order);
        assert!(findings.iter().any(|finding| matches!(finding.kind, Kind::SharedRace | Kind::NotWaitedFor)), "{order:?}");
    }
}

#[test]
fn groups_are_counted_thread_by_thread() {
    // Even lanes commit their first copy alone, odd ones both together; all then allow one group to be pending.
    let body = "
        mul.wide.u32 %d0, %tid, 8; add.s64 %d0, %d0, %out; add.s64 %d0, %d0, 32768;
        st.global.v2.u32 [%d0], {%tid, %tid};
        mov.u32 %r2, s; mad.lo.s32 %r2, %tid, 8, %r2;
        and.b32 %r3, %tid, 1; setp.eq.u32 %p0, %r3, 0;
        cp.async.ca.shared.global [%r2], [%d0], 4;
        @%p0 cp.async.commit_group;
        cp.async.ca.shared.global [%r2+4], [%d0+4], 4;
        cp.async.commit_group;
        cp.async.wait_group 1;
        @%p0 ld.shared.u32 %r4, [%r2];
        @!%p0 mov.u32 %r4, 0;
        st.global.u32 [%there], %r4;";
    for order in orders() {
        let (findings, out) = Kernel::block(32, body).run(order);
        assert!(findings.is_empty(), "{}", findings[0]);
        assert!((0..32).all(|tid| out[tid as usize] == if tid % 2 == 0 { tid } else { 0 }));
    }
    let both = body.replace("@%p0 ld.shared.u32 %r4, [%r2];", "ld.shared.u32 %r4, [%r2];");
    Kernel::block(32, &both).is_found(Kind::NotWaitedFor, &["ld.shared"]);
}

#[test]
fn what_the_source_does_not_give_is_zero() {
    let body = "
        add.s64 %d0, %out, 32768;
        mul.lo.s32 %r0, %tid, 5; and.b32 %r0, %r0, 15; setp.gt.u32 %p0, %r0, 12; selp.u32 %r0, 16, %r0, %p0;
        setp.ge.u32 %p1, %tid, 16;
        mov.u32 %r1, 0x04030201; mov.u32 %r2, 0x08070605; mov.u32 %r3, 0x0c0b0a09; mov.u32 %r4, 0x100f0e0d;
        setp.eq.u32 %p2, %tid, 0;
        @%p2 st.global.v4.u32 [%d0], {%r1, %r2, %r3, %r4};
        bar.sync 0;
        mov.u32 %r5, s; mad.lo.s32 %r5, %tid, 16, %r5;
        @!%p1 cp.async.cg.shared.global.L2::128B [%r5], [%d0], 16, %r0;
        @%p1 cp.async.ca.shared.global [%r5], [%d0], 8, %p0;
        @%p1 cp.async.ca.shared.global [%r5+8], [%d0+8], 8, 0;
        cp.async.wait_all;
        ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r5];
        mul.wide.u32 %d1, %tid, 16; add.s64 %d1, %d1, %out;
        st.global.v4.u32 [%d1], {%r1, %r2, %r3, %r4};";
    for order in orders() {
        let (findings, out) = Kernel::block(32, body).run(order);
        assert!(findings.is_empty(), "{}", findings[0]);
        for tid in 0..32usize {
            let length = if tid * 5 % 16 > 12 { 16 } else { tid * 5 % 16 };
            let byte = |at: usize| match (tid < 16, at) {
                (true, _) => at < length,
                (false, 0..8) => tid * 5 % 16 <= 12,
                (false, _) => false,
            };
            let expected: Vec<u8> = (0..16).map(|at| if byte(at) { at as u8 + 1 } else { 0 }).collect();
            let got: Vec<u8> = out[tid * 4..tid * 4 + 4].iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(got, expected, "thread {tid}");
        }
    }
}

#[test]
fn an_mbarrier_can_track_the_copies() {
    for (noinc, count) in [(".noinc", 64), ("", 64)] {
        // Without .noinc the phase waits for the copies' arrivals on top of its own.
        let arrive = if noinc.is_empty() { "mbarrier.arrive.shared.b64 _, [s+8000];" } else { "" };
        let body = COPY
            .replace("cp.async.commit_group;", &format!("cp.async.mbarrier.arrive{noinc}.shared::cta.b64 [s+8000]; {arrive}"))
            .replace("cp.async.wait_group 0;", "WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [s+8000], 0; @!%p1 bra WAIT;")
            .replace("bar.sync 0;", "");
        let prologue = format!("setp.eq.u32 %p0, %tid, 0; @%p0 mbarrier.init.shared.b64 [s+8000], {count}; bar.sync 0;");
        let body = prologue + &body;
        for order in orders() {
            let (findings, out) = Kernel::block(64, &body).run(order);
            assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
            assert!((0..64).all(|tid| out[tid as usize] == 4 * (tid ^ 1) + 3));
        }
        let unwaited = body.replace("@!%p1 bra WAIT;", "");
        assert!(orders().any(|order| {
            let (findings, _) = Kernel::block(64, &unwaited).run(order);
            findings.iter().any(|finding| finding.kind == Kind::NotWaitedFor)
        }));
    }
}

#[test]
fn sizes_and_addresses_are_checked() {
    let copy = |to: &str, from: &str| {
        format!("mov.u32 %r0, s; cp.async.ca.shared.global [%r0+{to}], [%out+{from}], 8; cp.async.wait_all;")
    };
    Kernel::block(32, &copy("8", "8")).run(ptx_emulator::Order::Natural);
    let kinds = |body: &str| Kernel::block(1, body).run(ptx_emulator::Order::Natural).0.iter().map(|f| f.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&copy("8", "8")), []);
    assert_eq!(kinds(&copy("4", "8")), [Kind::Misaligned]);
    assert_eq!(kinds(&copy("8", "4")), [Kind::Misaligned]);
    assert_eq!(kinds(&copy("8192", "8")), [Kind::OutOfBounds]);
    assert_eq!(kinds(&copy("8", "65536")), [Kind::OutOfBounds]);
}
