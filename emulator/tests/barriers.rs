//! Barriers: what they compute and order, and what is found when threads meet them wrongly.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

#[test]
fn reductions_at_a_barrier_count_and_combine() {
    let body = "
        setp.lt.u32 %p0, %tid, 40;
        barrier.cta.red.popc.aligned.u32 %r0, 0, %p0;
        bar.red.and.pred %p1, 1, 96, %p0;
        barrier.red.or.pred %p2, 2, %p0;
        bar.red.popc.u32 %r4, 3, !%p0;
        selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 1, 0, %p2;
        mul.lo.s32 %r1, %r1, 1000; mul.lo.s32 %r2, %r2, 10000; mul.lo.s32 %r4, %r4, 100000;
        add.s32 %r0, %r0, %r1; add.s32 %r0, %r0, %r2; add.s32 %r0, %r0, %r4;
        st.global.u32 [%there], %r0;";
    let kernel = Kernel::block(96, body);
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{}", findings[0]);
        assert!(out[..96].iter().all(|&value| value == 40 + 10_000 + 56 * 100_000), "{:?}", &out[..4]);
    }
}

#[test]
fn named_barriers_between_specialised_warps_are_in_order() {
    // Warp 0 produces in two rounds, warps 1 and 2 consume; the barriers are met at different instructions.
    let body = "
        mov.u32 %r1, 0;
        setp.ne.u32 %p0, %warp, 0;
        @%p0 bra CONSUME;
        PRODUCE:
        st.shared.u32 [%mine], %r1;
        bar.arrive 1, 96;
        bar.sync 2, 96;
        add.s32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 5;
        @%p1 bra PRODUCE;
        bra END;
        CONSUME:
        bar.sync 1, 96;
        mov.u32 %r3, s; mad.lo.s32 %r3, %lane, 4, %r3;
        ld.shared.u32 %r2, [%r3];
        bar.arrive 2, 96;
        st.global.u32 [%there], %r2;
        add.s32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 5;
        @%p1 bra CONSUME;
        END:";
    Kernel::block(96, body).is_clean();
    let (_, out) = Kernel::block(96, body).run(ptx_emulator::Order::Natural);
    assert!(out[32..96].iter().all(|&value| value == 4), "{out:?}");
    // Without the second barrier the producer overwrites what is still being read.
    let faulty = body.replace("bar.sync 2, 96;", "").replace("bar.arrive 2, 96;", "");
    let faulty = Kernel::block(96, &faulty);
    assert!(orders().all(|order| faulty.run(order).0.iter().any(|f| matches!(f.kind, Kind::SharedRace | Kind::MismatchedBarrier))));
}

#[test]
fn divergent_barriers() {
    let two = "
        setp.lt.u32 %p0, %lane, 7;
        @%p0 bra FEW;
        bar.sync 0;
        bra END;
        FEW:
        bar.sync 0;
        END:
        st.global.u32 [%there], %tid;";
    let finding = Kernel::block(64, two).is_found(Kind::DivergentBarrier, &["bar.sync"]);
    assert!(finding.message.contains("0-6") && finding.message.contains("7-31"), "{finding}");
    // Lanes whose predicate does not hold pass the barrier and end: the others meet it without them.
    let guarded = "setp.lt.u32 %p0, %lane, 7; @%p0 bar.sync 0;";
    let finding = Kernel::block(64, guarded).is_found(Kind::MismatchedBarrier, &["@%p0 bar.sync", "bar.sync"]);
    assert!(finding.message.contains("lanes 7-31 of warp 0"), "{finding}");
    // The same barrier, not aligned, waits for all lanes wherever they come from.
    Kernel::block(64, &two.replace("bar.sync 0;", "barrier.sync 1, 64;")).is_clean();
}

#[test]
fn divergent_barrier_while_others_spin() {
    let body = "
        setp.eq.u32 %p0, %lane, 3;
        @!%p0 bra MEET;
        SPIN:
        ld.volatile.global.u32 %r0, [%out];
        setp.eq.u32 %p1, %r0, 0;
        @%p1 bra SPIN;
        MEET:
        bar.sync 0;";
    for order in orders() {
        let (findings, _) = Kernel::block(32, body).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::DivergentBarrier), "{order:?}: {findings:?}");
        assert!(findings.iter().any(|finding| finding.kind == Kind::Deadlock), "{order:?}: {findings:?}");
    }
}

#[test]
fn mismatched_barriers() {
    let ended = "setp.lt.u32 %p0, %tid, 32; @%p0 bra END; bar.sync 0; END:";
    let finding = Kernel::block(96, ended).is_found(Kind::MismatchedBarrier, &["bar.sync 0"]);
    assert!(finding.message.contains("lanes 0-31 of warp 0"), "{finding}");

    let different =
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra OTHER; bar.sync 0; bra END; OTHER: bar.sync 0; END: st.global.u32 [%there], %tid;";
    Kernel::block(64, different).is_found(Kind::MismatchedBarrier, &["bar.sync 0"]);

    let ids =
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra OTHER; bar.sync 0; bra END; OTHER: bar.sync 1; END: st.global.u32 [%there], %tid;";
    let finding = Kernel::block(64, ids).is_found(Kind::MismatchedBarrier, &["bar.sync"]);
    assert!(finding.message.contains("barrier 0") && finding.message.contains("barrier 1"), "{finding}");

    let counts = "setp.lt.u32 %p0, %tid, 32; @%p0 bra OTHER; bar.sync 3, 64; bra END; OTHER: bar.sync 3, 96; END: st.global.u32 [%there], %tid;";
    for order in orders() {
        let (findings, _) = Kernel::block(64, counts).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::MismatchedBarrier), "{order:?}: {findings:?}");
    }

    let twice =
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra TWICE; bar.sync 3, 96; bra END; TWICE: bar.arrive 3, 96; bar.arrive 3, 96; END: ret;";
    for order in orders() {
        let (findings, _) = Kernel::block(64, twice).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::MismatchedBarrier), "{order:?}: {findings:?}");
    }
}

#[test]
fn impossible_barriers() {
    Kernel::block(64, "mov.u32 %r0, 40; bar.sync 1, %r0;").is_found(Kind::InvalidOperation, &["bar.sync 1"]);
    Kernel::block(64, "mov.u32 %r0, 16; barrier.sync %r0;").is_found(Kind::InvalidOperation, &["barrier.sync"]);
}

#[test]
fn clusters_meet() {
    // Each block writes its own output, passes the barrier and reads its neighbour's.
    let body = "
        st.global.u32 [%there], %index;
        ARRIVE: barrier.cluster.arrive.release.aligned;
        barrier.cluster.wait.acquire.aligned;
        add.s32 %r0, %index, 64; setp.ge.u32 %p0, %r0, 256; @%p0 sub.s32 %r0, %r0, 256;
        mul.wide.s32 %d0, %r0, 4; add.s64 %d0, %d0, %out;
        ld.global.u32 %r1, [%d0];
        st.global.u32 [%d0+4096], %r1;";
    let kernel = Kernel { body, grid: 4, block: 64, cluster: 4 };
    kernel.is_clean();
    let (_, out) = kernel.run(ptx_emulator::Order::Natural);
    assert!((0..256).all(|index| out[1024 + index] == index as u32), "{:?}", &out[1024..1030]);
    // The same between blocks that are no cluster is a deadlock-free race.
    let apart =
        body.replace("ARRIVE: barrier.cluster.arrive.release.aligned;", "").replace("barrier.cluster.wait.acquire.aligned;", "");
    Kernel { body: &apart, grid: 4, block: 64, cluster: 4 }.is_found(Kind::GlobalRace, &["ld.global", "st.global"]);

    let without = body.replace("ARRIVE: barrier.cluster.arrive.release.aligned;", "");
    for order in orders() {
        let (findings, _) = Kernel { body: &without, grid: 4, block: 64, cluster: 4 }.run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::MismatchedBarrier), "{order:?}: {findings:?}");
    }
}
