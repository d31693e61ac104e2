//! Distributed shared memory: copies, atomics and loads from block to block of a cluster.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

const MEET: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";

/// Each block sends 256 bytes to the next one of its cluster of four.
fn send(last: &str) -> String {
    format!(
        "setp.ne.u32 %p0, %tid, 0;
        mov.u32 %r0, %cluster_ctarank; add.s32 %r1, %r0, 1; and.b32 %r1, %r1, 3;
        @!%p0 mbarrier.init.shared.b64 [s+4096], 1;
        fence.mbarrier_init.release.cluster;
        @!%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], 256;
        add.s32 %r2, %index, 5; st.shared.u32 [%mine], %r2;
        fence.proxy.async.shared::cta;
        {MEET}
        @%p0 bra WAIT;
        mov.u32 %r3, s; mapa.shared::cluster.u32 %r4, %r3, %r1; add.s32 %r5, %r4, 1024; add.s32 %r6, %r4, 4096;
        cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r5], [%r3], 256, [%r6];
        WAIT:
        mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [s+4096], 0;
        @!%p1 bra WAIT;
        ld.shared.u32 %r7, [%mine+1024];
        st.global.u32 [%there], %r7;
        {last}"
    )
}

#[test]
fn bulk_copies_go_from_block_to_block() {
    let body = send(MEET);
    let kernel = Kernel { body: &body, grid: 8, block: 64, cluster: 4 };
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        for block in 0..8u32 {
            let sender = block / 4 * 4 + (block + 3) % 4;
            assert!((0..64).all(|tid| out[(block * 64 + tid) as usize] == sender * 64 + tid + 5));
        }
    }
}

#[test]
fn a_multicast_reaches_every_block_in_its_mask() {
    let body = format!(
        "setp.ne.u32 %p0, %tid, 0;
        mov.u32 %r0, %cluster_ctarank;
        st.shared.u32 [%mine], 0;
        mad.lo.s32 %r1, %tid, 3, 1; st.global.u32 [%there+32768], %r1;
        @!%p0 mbarrier.init.shared.b64 [s+4096], 1;
        fence.mbarrier_init.release.cluster;
        setp.eq.u32 %p2, %r0, 1;
        selp.u32 %r6, 0, 256, %p2;
        @!%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], %r6;
        {MEET}
        setp.ne.u32 %p3, %r0, 2; or.pred %p3, %p3, %p0;
        @%p3 bra WAIT;
        mov.u32 %r3, s; mov.b16 %h0, 13; add.s64 %d0, %out, 32768;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r3], [%d0], 256, [s+4096], %h0;
        WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p1, [s+4096], 0;
        @!%p1 bra WAIT;
        ld.shared.u32 %r7, [%mine];
        st.global.u32 [%there], %r7;
        {MEET}"
    );
    let kernel = Kernel { body: &body, grid: 4, block: 64, cluster: 4 };
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        for (block, tid) in (0..4).flat_map(|block| (0..64).map(move |tid| (block, tid))) {
            assert_eq!(out[block * 64 + tid], if block == 1 { 0 } else { tid as u32 * 3 + 1 }, "block {block} thread {tid}");
        }
    }
}

#[test]
fn a_relaxed_arrival_orders_what_a_fence_came_after() {
    const RELAXED: &str = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;";
    // A thread initialises an mbarrier for arrivals of the other block.
    let body = |fence: &str, meet: &str| {
        format!(
            "setp.eq.u32 %p0, %tid, 0; mov.u32 %r0, %cluster_ctarank; xor.b32 %r1, %r0, 1;
            @!%p0 bra MEET;
            mbarrier.init.shared.b64 [s+4096], 64;
            {fence}
            MEET: {meet}
            mov.u32 %r2, s; mapa.shared::cluster.u32 %r3, %r2, %r1;
            mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3+4096];
            WAIT:
            mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [s+4096], 0;
            @!%p1 bra WAIT;
            {MEET}"
        )
    };
    let kernel = |body: &str, check: &dyn Fn(Kernel)| check(Kernel { body, grid: 2, block: 64, cluster: 2 });
    kernel(&body("fence.mbarrier_init.release.cluster;", RELAXED), &|kernel| kernel.is_clean());
    kernel(&body("", MEET), &|kernel| kernel.is_clean());
    kernel(&body("", RELAXED), &|kernel| drop(kernel.is_found(Kind::SharedRace, &["mbarrier"])));

    // Each thread reads what its neighbour's has written.
    let body = |fence: &str| {
        format!(
            "st.shared.u32 [%mine], %tid; setp.eq.u32 %p0, %lane, 0;
            {fence}
            {RELAXED}
            xor.b32 %r0, %four, 4; mov.u32 %r1, s; add.s32 %r1, %r1, %r0;
            ld.shared.u32 %r2, [%r1]; st.global.u32 [%there], %r2;"
        )
    };
    kernel(&body("fence.cluster.acq_rel;"), &|kernel| kernel.is_clean());
    // That of one lane tells nothing of the others.
    for fence in ["", "@%p0 fence.acq_rel.cluster;"] {
        kernel(&body(fence), &|kernel| drop(kernel.is_found(Kind::SharedRace, &["ld.shared"])));
    }
}

#[test]
fn atomics_reach_the_other_blocks() {
    let body = format!(
        "st.shared.u32 [%mine], 0;
        {MEET}
        mov.u32 %r0, %cluster_ctarank; xor.b32 %r1, %r0, 1;
        mov.u32 %r2, s; mapa.shared::cluster.u32 %r3, %r2, %r1;
        atom.shared::cluster.add.u32 %r4, [%r3], 1;
        cvt.u64.u32 %d0, %r2; cvta.shared.u64 %d0, %d0; mapa.u64 %d1, %d0, 0;
        red.add.u32 [%d1+4], 1;
        {MEET}
        ld.shared.u32 %r5, [s]; ld.shared.u32 %r6, [s+4];
        mad.lo.s32 %r5, %r5, 1000, %r6;
        st.global.u32 [%there], %r5;"
    );
    let kernel = Kernel { body: &body, grid: 2, block: 64, cluster: 2 };
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert!((0..64).all(|tid| out[tid] == 64_128 && out[64 + tid] == 64_000), "{:?}", &out[..2]);
    }
}

#[test]
fn shared_memory_of_a_block_that_has_ended_is_gone() {
    // Block 0 ends at once; block 1 reads its memory when it has.
    let body = |last: &str| {
        format!(
            "st.shared.u32 [%mine], %tid;
            {MEET}
            mov.u32 %r0, %cluster_ctarank; setp.eq.u32 %p0, %r0, 0;
            @%p0 bra END;
            mov.u32 %r2, 0; mapa.shared::cluster.u32 %r3, %mine, %r2;
            ld.shared::cluster.u32 %r4, [%r3];
            st.global.u32 [%there], %r4;
            END: {last}"
        )
    };
    let (intact, faulty) = (body(MEET), body(""));
    Kernel { body: &intact, grid: 2, block: 32, cluster: 2 }.is_clean();
    let faulty = Kernel { body: &faulty, grid: 2, block: 32, cluster: 2 };
    // Whether block 0 has ended by then depends on the order.
    let found: Vec<_> = orders().flat_map(|order| faulty.run(order).0).collect();
    assert!(!found.is_empty() && found.iter().all(|finding| finding.kind == Kind::UseAfterFree), "{found:?}");
}

#[test]
fn ranks_that_do_not_exist_are_found() {
    let body = "mapa.shared::cluster.u32 %r0, %mine, 2;";
    let kernel = Kernel { body, grid: 2, block: 32, cluster: 2 };
    kernel.is_found(Kind::InvalidOperation, &["mapa"]);
}

#[test]
fn asynchronous_stores_are_counted_by_the_receiver() {
    let body = |bytes: u32| {
        format!(
            "setp.ne.u32 %p0, %tid, 0;
            st.shared.u32 [%mine+2048], 10;
            @!%p0 mbarrier.init.shared.b64 [s+4096], 1;
        fence.mbarrier_init.release.cluster;
            @!%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], {bytes};
            {MEET}
            mov.u32 %r0, %cluster_ctarank; xor.b32 %r1, %r0, 1;
            mapa.shared::cluster.u32 %r2, %mine, %r1;
            mov.u32 %r3, s; mapa.shared::cluster.u32 %r4, %r3, %r1;
            add.s32 %r5, %index, 3;
            st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r2], %r5, [%r4+4096];
            red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r2+2048], %r5, [%r4+4096];
            WAIT:
            mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [s+4096], 0;
            @!%p1 bra WAIT;
            ld.shared.u32 %r6, [%mine]; ld.shared.u32 %r7, [%mine+2048];
            mad.lo.s32 %r6, %r6, 1000, %r7;
            st.global.u32 [%there], %r6;
            {MEET}"
        )
    };
    let intact = body(512);
    let kernel = Kernel { body: &intact, grid: 2, block: 64, cluster: 2 };
    for order in orders() {
        let (findings, out) = kernel.run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert!((0..128u32).all(|index| out[index as usize] == ((index ^ 64) + 3) * 1001 + 10), "{:?}", &out[..4]);
    }
    // Who expects more waits for ever.
    let waiting = body(516);
    Kernel { body: &waiting, grid: 2, block: 64, cluster: 2 }.is_found(Kind::Deadlock, &["mbarrier.try_wait", "@!"]);
}
