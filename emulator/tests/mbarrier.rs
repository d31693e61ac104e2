//! `mbarrier`: phases, arrivals, bytes; and what is found when it is used wrongly.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

/// Warp 0 writes a value per lane and round, warp 1 reads it: full and empty mbarriers with parities.
const PIPELINE: &str = "
    setp.eq.u32 %p0, %tid, 0;
    @%p0 mbarrier.init.shared::cta.b64 [s+4096], 32;
    @%p0 mbarrier.init.shared::cta.b64 [s+4104], 32;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    mov.u32 %r0, 0;
    setp.ne.u32 %p0, %warp, 0;
    mov.u32 %r6, s; mad.lo.s32 %r6, %lane, 4, %r6;
    @%p0 bra CONSUME;
    PRODUCE:
    and.b32 %r1, %r0, 1; xor.b32 %r1, %r1, 1;
    WAIT0:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [s+4104], %r1;
    @!%p1 bra WAIT0;
    mad.lo.s32 %r2, %r0, 100, %lane;
    st.shared.u32 [%r6], %r2;
    mbarrier.arrive.shared::cta.b64 _, [s+4096];
    add.s32 %r0, %r0, 1;
    setp.lt.u32 %p2, %r0, 6;
    @%p2 bra PRODUCE;
    bra END;
    CONSUME:
    and.b32 %r1, %r0, 1;
    WAIT1:
    mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p1, [s+4096], %r1, 1000;
    @!%p1 bra WAIT1;
    xor.b32 %r3, %r6, 124;
    ld.shared.u32 %r2, [%r3];
    add.s32 %r4, %r4, %r2;
    mbarrier.arrive.release.cta.shared::cta.b64 %d0, [s+4104], 1;
    add.s32 %r0, %r0, 1;
    setp.lt.u32 %p2, %r0, 6;
    @%p2 bra CONSUME;
    st.global.u32 [%there], %r4;
    END:";

fn pipeline() -> String {
    // The sum starts from a defined zero.
    format!("mov.u32 %r4, 0;{PIPELINE}")
}

#[test]
fn a_pipeline_of_full_and_empty_barriers_loses_nothing() {
    let body = pipeline();
    let kernel = Kernel::block(64, &body);
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        for lane in 0..32u32 {
            let other = lane ^ 31;
            assert_eq!(out[32 + lane as usize], (0..6).map(|round| round * 100 + other).sum::<u32>());
        }
    }
}

#[test]
fn a_missing_wait_for_the_empty_barrier_is_a_race() {
    // The producer also runs ahead of the phases, so that it arrives too often or the consumer waits in vain.
    let body = pipeline().replace("@!%p1 bra WAIT0;", "");
    let races = |order| Kernel::block(64, &body).run(order).0.iter().any(|finding| finding.kind == Kind::SharedRace);
    assert!(orders().all(races));
}

#[test]
fn a_relaxed_arrival_orders_nothing() {
    let body = pipeline()
        .replace("mbarrier.arrive.shared::cta.b64 _, [s+4096]", "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [s+4096]");
    Kernel::block(64, &body).is_found(Kind::SharedRace, &["st.shared", "ld.shared"]);
}

#[test]
fn states_and_counts_are_those_of_the_manual() {
    let body = "
        setp.ne.u32 %p7, %tid, 0;
        @%p7 bra END;
        mbarrier.init.shared.b64 [s], 5;
        mbarrier.arrive.noComplete.shared.b64 %d0, [s], 2;
        mbarrier.pending_count.b64 %r0, %d0;
        mbarrier.arrive_drop.shared.b64 %d1, [s];
        mbarrier.pending_count.b64 %r1, %d1;
        mbarrier.test_wait.shared.b64 %p0, [s], %d0;
        selp.u32 %r2, 1, 0, %p0;
        mbarrier.arrive.expect_tx.shared.b64 %d2, [s], 24;
        mbarrier.arrive.shared.b64 %d2, [s];
        mbarrier.test_wait.shared.b64 %p1, [s], %d0;
        selp.u32 %r3, 1, 0, %p1;
        mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [s], 24;
        mbarrier.test_wait.shared.b64 %p2, [s], %d2;
        selp.u32 %r4, 1, 0, %p2;
        mbarrier.arrive.shared.b64 %d3, [s], 4;
        mbarrier.pending_count.b64 %r5, %d3;
        mbarrier.test_wait.parity.shared.b64 %p3, [s], 1;
        selp.u32 %r6, 1, 0, %p3;
        mbarrier.test_wait.parity.shared.b64 %p4, [s], 0;
        selp.u32 %r7, 1, 0, %p4;
        mbarrier.inval.shared.b64 [s];
        st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};
        st.global.v4.u32 [%out+16], {%r4, %r5, %r6, %r7};
        END:";
    for order in orders() {
        let (findings, out) = Kernel::block(32, body).run(order);
        assert!(findings.is_empty(), "{}", findings[0]);
        // Pending 5 before the first arrival, 3 before the second; one dropped, so that the next phase waits for 4.
        assert_eq!(out[..8], [5, 3, 0, 0, 1, 4, 1, 0]);
    }
}

#[test]
fn misuses_are_found() {
    let thread0 = |body: &str| format!("setp.ne.u32 %p7, %tid, 0; @%p7 bra END; {body} END:");
    for (body, instruction) in [
        ("mbarrier.arrive.shared.b64 _, [s];", "mbarrier.arrive"),
        ("mbarrier.init.shared.b64 [s], 1; mbarrier.inval.shared.b64 [s]; mbarrier.arrive.shared.b64 _, [s];", "mbarrier.arrive"),
        ("mbarrier.init.shared.b64 [s], 1; mbarrier.init.shared.b64 [s], 1;", "mbarrier.init"),
        ("mbarrier.init.shared.b64 [s], 0;", "mbarrier.init"),
        ("mbarrier.init.shared.b64 [s], 2; mbarrier.arrive.shared.b64 _, [s], 3;", "mbarrier.arrive"),
        ("mbarrier.init.shared.b64 [s], 1; mbarrier.expect_tx.relaxed.cta.shared.b64 [s], 1048576;", "mbarrier.expect_tx"),
        ("mbarrier.init.shared.b64 [s], 1; st.shared.u32 [s+4], 7; mbarrier.arrive.shared.b64 _, [s];", "mbarrier.arrive"),
        ("mbarrier.init.shared.b64 [s], 1; mbarrier.arrive.noComplete.shared.b64 %d0, [s], 1;", "mbarrier.arrive"),
    ] {
        Kernel::block(32, &thread0(body)).is_found(Kind::Mbarrier, &[instruction]);
    }
    Kernel::block(32, &thread0("mbarrier.init.shared.b64 [s+4], 1;")).is_found(Kind::Misaligned, &["mbarrier.init"]);
}

#[test]
fn a_phase_that_cannot_come_is_a_deadlock() {
    let body = |arrivals: u32| {
        format!(
            "setp.ne.u32 %p0, %tid, 0;
            @!%p0 mbarrier.init.shared.b64 [s], {arrivals};
            bar.sync 0;
            mbarrier.arrive.shared.b64 _, [s];
            WAIT:
            mbarrier.try_wait.parity.shared.b64 %p1, [s], 0;
            @!%p1 bra WAIT;"
        )
    };
    Kernel::block(64, &body(64)).is_clean();
    Kernel::block(64, &body(65)).is_found(Kind::Deadlock, &["mbarrier.try_wait", "@!"]);
}

#[test]
fn blocks_of_a_cluster_arrive_at_each_others_barriers() {
    let body = "
        setp.eq.u32 %p0, %tid, 0;
        @%p0 mbarrier.init.shared.b64 [s+8], 128;
        fence.mbarrier_init.release.cluster;
        barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;
        mov.u32 %r0, %cluster_ctarank; xor.b32 %r1, %r0, 1;
        mov.u32 %r5, s; mapa.shared::cluster.u32 %r2, %r5, %r1;
        getctarank.shared::cluster.u32 %r3, %r2;
        mapa.shared::cluster.u32 %r4, %mine, %r1;
        add.s32 %r6, %index, 1000;
        st.shared::cluster.u32 [%r4+1024], %r6;
        mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r2+8], 2;
        WAIT:
        mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [s+8], 0;
        @!%p1 bra WAIT;
        ld.shared.u32 %r7, [%mine+1024];
        add.s32 %r7, %r7, %r3;
        st.global.u32 [%there], %r7;
        barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;";
    let kernel = Kernel { body, grid: 4, block: 64, cluster: 2 };
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        for block in 0..4u32 {
            for thread in 0..64u32 {
                let peer = block ^ 1;
                assert_eq!(out[(block * 64 + thread) as usize], peer * 64 + thread + 1000 + peer % 2);
            }
        }
    }
}
