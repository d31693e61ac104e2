//! What is said when nothing can go on.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

#[test]
fn a_barrier_that_too_few_can_reach() {
    let body = "setp.lt.u32 %p0, %tid, 32; @%p0 bra END; bar.sync 5, 96; END:";
    let finding = Kernel::block(96, body).is_found(Kind::Deadlock, &["bar.sync 5"]);
    assert!(finding.message.contains("barrier 5, to which 64 of 96 threads have come"), "{finding}");
    Kernel::block(96, &body.replace("96", "64")).is_clean();
}

#[test]
fn lanes_at_different_warp_barriers() {
    let body = "
        setp.lt.u32 %p0, %lane, 16;
        @%p0 bra LOW;
        bar.warp.sync -1;
        bra END;
        LOW:
        bar.warp.sync -1;
        END:
        st.global.u32 [%there], %tid;";
    let finding = Kernel::block(32, body).is_found(Kind::MissingLanes, &["bar.warp.sync"]);
    assert!(finding.message.contains("0-15") && finding.message.contains("16-31"), "{finding}");
    let right =
        body.replacen("bar.warp.sync -1", "bar.warp.sync 0xffff0000", 1).replacen("bar.warp.sync -1", "bar.warp.sync 0xffff", 1);
    Kernel::block(32, &right).is_clean();
}

#[test]
fn a_flag_that_nobody_raises() {
    let body = "
        setp.ne.u32 %p0, %block, 0;
        @%p0 bra END;
        SPIN:
        ld.volatile.global.u32 %r0, [%out+4096];
        setp.eq.u32 %p1, %r0, 0;
        @%p1 bra SPIN;
        END:";
    let finding = Kernel::grid(3, body).is_found(Kind::Deadlock, &["ld.volatile", "setp", "@%p1 bra"]);
    assert!(finding.message.contains("block (0, 0, 0)"), "{finding}");
    let raised =
        body.replace("END:", "END: mov.u32 %r1, 1; setp.eq.u32 %p2, %block, 2; @%p2 st.volatile.global.u32 [%out+4096], %r1;");
    Kernel::grid(3, &raised).is_clean();
}

#[test]
fn a_lock_that_is_never_given_back() {
    let body = "
        setp.ne.u32 %p0, %tid, 0;
        @%p0 bra END;
        mov.u32 %r1, 0; mov.u32 %r2, 1;
        SPIN:
        atom.global.cas.b32 %r0, [%out+4096], %r1, %r2;
        setp.ne.u32 %p1, %r0, 0;
        @%p1 bra SPIN;
        st.global.u32 [%there], %block;
        membar.gl;
        atom.global.exch.b32 %r0, [%out+4096], %r1;
        END:";
    Kernel::grid(3, body).is_clean();
    let kept = body.replace("atom.global.exch.b32 %r0, [%out+4096], %r1;", "");
    Kernel::grid(3, &kept).is_found(Kind::Deadlock, &["atom.global.cas", "setp", "@%p1 bra"]);
}

#[test]
fn the_cluster_s_barrier_without_one_block() {
    // One warp of one block spins, so the others wait for the cluster in vain.
    let body = "
        setp.ne.u32 %p0, %block, 1;
        @%p0 bra MEET;
        SPIN:
        ld.volatile.global.u32 %r0, [%out];
        setp.eq.u32 %p1, %r0, 0;
        @%p1 bra SPIN;
        MEET:
        barrier.cluster.arrive;
        barrier.cluster.wait;";
    for order in orders() {
        let (findings, _) = Kernel { body, grid: 2, block: 32, cluster: 2 }.run(order);
        let [finding] = findings.as_slice() else { panic!("{order:?}: {findings:?}") };
        assert_eq!(finding.kind, Kind::Deadlock);
        assert!(finding.message.contains("wait for the cluster's barrier"), "{finding}");
    }
}
