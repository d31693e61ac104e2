//! Bulk copies: `cp.async.bulk`, `cp.reduce.async.bulk`, bulk groups.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

/// The first thread loads 256 bytes, all add their index, the first thread stores them 256 bytes further.
const ROUND_TRIP: &str = "
    add.s32 %r0, %tid, 7; st.global.u32 [%there], %r0;
    setp.ne.u32 %p0, %tid, 0;
    @!%p0 mbarrier.init.shared.b64 [s+4096], 1;
        fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%p0 bra LOADED;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], 256;
    mov.u32 %r5, s;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%out], 256, [s+4096];
    LOADED:
    WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [s+4096], 0;
    @!%p1 bra WAIT;
    ld.shared.u32 %r1, [%mine];
    add.s32 %r1, %r1, %tid;
    st.shared.u32 [%mine+1024], %r1;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @%p0 bra END;
    add.s64 %d1, %out, 256;
    cp.async.bulk.global.shared::cta.bulk_group [%d1], [s+1024], 256;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    END:";

#[test]
fn bytes_make_the_round_trip() {
    for order in orders() {
        let (findings, out) = Kernel::block(64, ROUND_TRIP).run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert!((0..64).all(|tid| out[64 + tid as usize] == 2 * tid + 7), "{:?}", &out[64..72]);
    }
}

#[test]
fn what_is_not_waited_for_is_found() {
    let found_in_natural_order = |body: String, kind: Kind| {
        assert_ne!(body, ROUND_TRIP);
        let (findings, _) = Kernel::block(64, &body).run(ptx_emulator::Order::Natural);
        assert!(findings.iter().any(|finding| finding.kind == kind), "no {kind}: {findings:?}");
    };
    // Nobody waits for the load.
    found_in_natural_order(ROUND_TRIP.replace("@!%p1 bra WAIT;", ""), Kind::NotWaitedFor);
    // The block ends before the store has read its source.
    found_in_natural_order(ROUND_TRIP.replace("cp.async.bulk.wait_group 0;", ""), Kind::OperandInFlight);
    // An uncommitted store is in no group.
    found_in_natural_order(ROUND_TRIP.replace("cp.async.bulk.commit_group;", ""), Kind::OperandInFlight);
    // The source is overwritten before the store has read it.
    found_in_natural_order(
        ROUND_TRIP.replace("cp.async.bulk.wait_group 0;", "st.shared.u32 [s+1024], 0; cp.async.bulk.wait_group.read 0;"),
        Kind::OperandInFlight,
    );
    // Fewer bytes are expected than come.
    let body = ROUND_TRIP.replace("_, [s+4096], 256", "_, [s+4096], 240");
    found_in_natural_order(body, Kind::Deadlock);
    // Part of the source was never written.
    found_in_natural_order(ROUND_TRIP.replace("[%d1], [s+1024], 256", "[%d1], [s+1040], 256"), Kind::Uninitialized);
}

#[test]
fn proxy_fences_that_are_missing_are_found() {
    let fence = "fence.proxy.async.shared::cta;";
    assert!(ROUND_TRIP.contains(fence));
    // An ordinary fence is none between the proxies.
    for other in ["", "fence.acq_rel.cta;"] {
        Kernel::block(64, &ROUND_TRIP.replace(fence, other)).is_found(Kind::MissingProxyFence, &["cp.async.bulk.global"]);
    }
    // The thread that asks for the copy may execute it.
    let body = ROUND_TRIP.replace(fence, "").replace("add.s64 %d1", &format!("{fence} add.s64 %d1"));
    Kernel::block(64, &body).is_clean();
}

#[test]
fn copies_access_their_mbarrier_as_threads_do() {
    // Between the initialisation and the copy there is a barrier, or both are by one thread.
    let fence = "fence.mbarrier_init.release.cluster;";
    assert!(ROUND_TRIP.contains(fence));
    Kernel::block(64, &ROUND_TRIP.replace(fence, "")).is_clean();
    let body = |barrier: &str| {
        format!(
            "st.global.u32 [%there], %tid;
            setp.eq.u32 %p0, %tid, 0; setp.eq.u32 %p1, %tid, 32; mov.u32 %r0, s;
            @%p0 mbarrier.init.shared.b64 [s+4096], 1;
            {barrier}
            @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%out], 256, [s+4096];
            bar.sync 0;
            @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], 256;
            WAIT:
            mbarrier.try_wait.parity.shared::cta.b64 %p2, [s+4096], 0;
            @!%p2 bra WAIT;"
        )
    };
    Kernel::block(64, &body("bar.sync 0;")).is_clean();
    for order in orders() {
        let (findings, _) = Kernel::block(64, &body("")).run(order);
        assert!(findings.iter().any(|finding| matches!(finding.kind, Kind::SharedRace | Kind::Mbarrier)), "{order:?}");
    }
}

/// Every order has findings, all of them that something comes too early after a copy.
fn is_too_early(body: &str) {
    for order in orders() {
        let (findings, _) = Kernel::block(64, body).run(order);
        let told = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let early = |kind: Kind| matches!(kind, Kind::SharedRace | Kind::OperandInFlight);
        assert!(!findings.is_empty() && findings.iter().all(|finding| early(finding.kind)), "{order:?}:\n{told}");
    }
}

#[test]
fn who_waits_for_one_copy_knows_nothing_of_another() {
    // Thread 0 stores from s and loads behind it. The second warp waits for the load and overwrites what the store reads.
    let body = |before: &str| {
        format!(
            "setp.eq.u32 %p0, %tid, 0; mov.u32 %r0, s; add.s64 %d0, %out, 1024;
            @%p0 mbarrier.init.shared.b64 [s+4096], 1;
            st.shared.u32 [%mine], %tid;
            fence.proxy.async.shared::cta;
            bar.sync 0;
            @!%p0 bra OTHERS;
            cp.async.bulk.global.shared::cta.bulk_group [%out], [%r0], 256;
            cp.async.bulk.commit_group;
            {before}
            mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], 256;
            add.s32 %r1, %r0, 1024;
            cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%d0], 256, [s+4096];
            cp.async.bulk.wait_group 0;
            OTHERS:
            setp.lt.u32 %p1, %tid, 32;
            @%p1 bra END;
            WAIT:
            mbarrier.try_wait.parity.shared::cta.b64 %p2, [s+4096], 0;
            @!%p2 bra WAIT;
            st.shared.u32 [%mine], 7;
            END:"
        )
    };
    Kernel::block(64, &body("cp.async.bulk.wait_group.read 0;")).is_clean();
    is_too_early(&body(""));
}

#[test]
fn a_copy_that_reads_hides_no_thread_that_reads() {
    // Thread 0 reads what thread 32's copy reads too; then thread 32, which has waited for the copy only, overwrites it.
    let body = |barrier: &str| {
        format!(
            "setp.eq.u32 %p0, %tid, 0; setp.eq.u32 %p1, %tid, 32; mov.u32 %r0, s;
            st.shared.u32 [%mine], %tid;
            fence.proxy.async.shared::cta;
            bar.sync 0;
            @%p0 ld.shared.u32 %r1, [s];
            @%p0 st.global.u32 [%out+1024], %r1;
            @%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%r0], 256;
            @%p1 cp.async.bulk.commit_group;
            @%p1 cp.async.bulk.wait_group.read 0;
            {barrier}
            @%p1 st.shared.u32 [s], 7;"
        )
    };
    Kernel::block(64, &body("bar.sync 0;")).is_clean();
    Kernel::block(64, &body("")).is_found(Kind::SharedRace, &["@%p0 ld.shared", "@%p1 st.shared"]);
}

#[test]
fn bulk_groups_are_waited_for_by_their_own_thread() {
    let body = |behind: &str| {
        format!(
            "setp.eq.u32 %p0, %tid, 0; mov.u32 %r0, s;
            st.shared.u32 [%mine], %tid;
            fence.proxy.async.shared::cta;
            bar.sync 0;
            @%p0 cp.async.bulk.global.shared::cta.bulk_group [%out], [%r0], 128;
            cp.async.bulk.commit_group;
            cp.async.bulk.wait_group.read 0;
            {behind}
            st.shared.u32 [%mine], 7;"
        )
    };
    Kernel::block(32, &body("bar.warp.sync 0xffffffff;")).is_clean();
    for order in orders() {
        let (findings, _) = Kernel::block(32, &body("")).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{order:?}");
    }
    // Of two groups only the first is waited for.
    let body = |pending: u32| {
        format!(
            "setp.eq.u32 %p0, %tid, 0; mov.u32 %r0, s; add.s32 %r1, %r0, 128; add.s64 %d0, %out, 128;
            st.shared.u32 [%mine], %tid;
            fence.proxy.async.shared::cta;
            bar.sync 0;
            @!%p0 bra END;
            cp.async.bulk.global.shared::cta.bulk_group [%out], [%r0], 128;
            cp.async.bulk.commit_group;
            cp.async.bulk.global.shared::cta.bulk_group [%d0], [%r1], 128;
            cp.async.bulk.commit_group;
            cp.async.bulk.wait_group.read {pending};
            st.shared.u32 [s+64], 7;
            st.shared.u32 [s+192], 7;
            cp.async.bulk.wait_group.read 0;
            END:"
        )
    };
    Kernel::block(64, &body(0)).is_clean();
    is_too_early(&body(1));
}

#[test]
fn a_stage_that_is_still_read_may_not_be_loaded_again() {
    // Without the barrier before it, the second load may write what slower threads still read.
    let body = |barrier: &str| {
        format!(
            "st.global.u32 [%there], %tid;
            setp.ne.u32 %p0, %tid, 0;
            @!%p0 mbarrier.init.shared.b64 [s+4096], 1;
        fence.mbarrier_init.release.cluster;
            mov.u32 %r0, 0; mov.u32 %r3, 0; mov.u32 %r5, s;
            bar.sync 0;
            ROUND:
            @%p0 bra WAIT;
            mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], 256;
            cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%out], 256, [s+4096];
            WAIT:
            mbarrier.try_wait.parity.shared::cta.b64 %p1, [s+4096], %r0;
            @!%p1 bra WAIT;
            ld.shared.u32 %r1, [%mine];
            add.s32 %r3, %r3, %r1;
            {barrier}
            add.s32 %r0, %r0, 1;
            setp.lt.u32 %p2, %r0, 2;
            @%p2 bra ROUND;
            st.global.u32 [%there+1024], %r3;"
        )
    };
    for order in orders() {
        let (findings, out) = Kernel::block(64, &body("bar.sync 0;")).run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert!((0..64).all(|tid| out[256 + tid as usize] == 2 * tid));
    }
    let found =
        |order| Kernel::block(64, &body("")).run(order).0.iter().any(|f| matches!(f.kind, Kind::SharedRace | Kind::NotWaitedFor));
    assert!(orders().all(found));
}

#[test]
fn reductions_combine_with_global_memory() {
    type Operation = fn(u32, u32) -> u32;
    let cases: [(&str, u32, u32, Operation); 5] = [
        ("add.u32", 4, 3, u32::wrapping_add),
        ("max.s32", 0xffff_ffff, 3, |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", 6, 3, |a, b| a & b),
        ("add.f32", 0x3f80_0000, 0x4000_0000, |a, b| (f32::from_bits(a) + f32::from_bits(b)).to_bits()),
        ("add.noftz.bf16", 0x3f80_4000, 0x4000_4000, |_, _| 0x4040_4080),
    ];
    for (operation, old, operand, expected) in cases {
        let body = format!(
            "st.global.u32 [%there], {old}; st.shared.u32 [%mine], {operand};
            fence.proxy.async.shared::cta;
            bar.sync 0;
            setp.ne.u32 %p0, %tid, 0;
            @%p0 bra END;
            mov.u32 %r0, s;
            cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation} [%out], [%r0], 128;
            cp.async.bulk.commit_group;
            cp.async.bulk.wait_group.read 0;
            END:"
        );
        for order in orders() {
            let (findings, out) = Kernel::block(64, &body).run(order);
            assert!(findings.is_empty(), "{operation} {order:?}\n{}", findings[0]);
            assert!(out[..32].iter().all(|&value| value == expected(old, operand)), "{operation}: {:x?}", &out[..4]);
            assert!(out[32..64].iter().all(|&value| value == old));
        }
    }
}

#[test]
fn sizes_and_addresses_are_checked() {
    let body = |to: &str, from: &str, bytes: u32| {
        format!(
            "mbarrier.init.shared.b64 [s+4096], 1; fence.mbarrier_init.release.cluster; mov.u32 %r0, s;
            cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0+{to}], [%out+{from}], {bytes}, [s+4096];
            mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], {bytes};"
        )
    };
    let wait = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p1, [s+4096], 0; @!%p1 bra WAIT;";
    Kernel::block(1, &(body("16", "32", 64) + wait)).is_clean();
    for (to, from, bytes, kind) in [
        ("8", "0", 16, Kind::Misaligned),
        ("0", "8", 16, Kind::Misaligned),
        ("0", "0", 20, Kind::InvalidOperation),
        ("8176", "0", 32, Kind::OutOfBounds),
        ("0", "65520", 32, Kind::OutOfBounds),
    ] {
        Kernel::block(1, &body(to, from, bytes)).is_found(kind, &["cp.async.bulk"]);
    }
}

#[test]
fn a_prefetch_changes_nothing() {
    Kernel::block(1, "cp.async.bulk.prefetch.L2.global [%out], 64;").is_clean();
    Kernel::block(1, "cp.async.bulk.prefetch.L2.global [%out+65536], 64;").is_found(Kind::OutOfBounds, &["cp.async.bulk.prefetch"]);
}
