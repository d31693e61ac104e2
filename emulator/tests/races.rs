//! Races in shared memory, between warps and within one, and in global memory between blocks: each kernel as it should be, and with
//! the fault.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::Kind;

/// Found at one of two instructions, of which either may come second.
fn races(kernel: &Kernel, kind: Kind, instructions: &[&str]) {
    let finding = kernel.is_found(kind, instructions);
    assert!(finding.address.is_some() && finding.buffer.is_some(), "{finding}");
    assert!(finding.message.contains("PTX line") || finding.message.contains("lanes"), "{finding}");
}

#[test]
fn a_reversal_needs_its_barrier() {
    let body = "
        st.shared.u32 [%mine], %tid;
        bar.sync 0;
        mov.u32 %r0, s; add.s32 %r0, %r0, 508; sub.s32 %r0, %r0, %four;
        ld.shared.u32 %r1, [%r0];
        st.global.u32 [%there], %r1;";
    Kernel::block(128, body).is_clean();
    let without = body.replace("bar.sync 0;", "");
    for order in orders() {
        let (findings, _) = Kernel::block(128, &without).run(order);
        let found = findings.iter().find(|finding| finding.kind == Kind::SharedRace).expect("a race");
        assert_eq!(found.buffer.as_ref().map(|(name, _)| name.as_str()), Some("s"));
        assert!(found.message.contains("thread ("), "{found}");
    }
    // The same within one warp, where a barrier of the warp is enough, and one that names half of it is not.
    let body = body.replace("508", "124").replace("bar.sync 0;", "bar.warp.sync -1;");
    Kernel::block(32, &body).is_clean();
    let halves = "
        st.shared.u32 [%mine], %tid;
        setp.lt.u32 %p0, %lane, 16;
        mov.u32 %r5, -65536;
        @%p0 mov.u32 %r5, 65535;
        bar.warp.sync %r5;
        mov.u32 %r0, s; add.s32 %r0, %r0, 124; sub.s32 %r0, %r0, %four;
        ld.shared.u32 %r1, [%r0];
        st.global.u32 [%there], %r1;";
    races(&Kernel::block(32, halves), Kind::SharedRace, &["ld.shared"]);
    let own_half = halves.replace("124", "60").replace("ld.shared", "@%p0 ld.shared").replace("st.global", "@%p0 st.global");
    Kernel::block(32, &own_half).is_clean();
}

#[test]
fn a_loop_needs_both_its_barriers() {
    let body = "
        mov.u32 %r2, 0;
        LOOP:
        add.s32 %r3, %r2, %tid;
        st.shared.u32 [%mine], %r3;
        bar.sync 0;
        mov.u32 %r0, s; add.s32 %r0, %r0, 508; sub.s32 %r0, %r0, %four;
        ld.shared.u32 %r1, [%r0];
        barrier.sync 1;
        add.s32 %r2, %r2, 1;
        setp.lt.u32 %p0, %r2, 4;
        @%p0 bra LOOP;
        st.global.u32 [%there], %r1;";
    Kernel::block(128, body).is_clean();
    races(&Kernel::block(128, &body.replace("barrier.sync 1;", "")), Kind::SharedRace, &["st.shared", "ld.shared"]);
}

#[test]
fn readers_of_one_word_are_all_waited_for() {
    // Every thread reads the same word, then one warp overwrites it.
    let body = "
        setp.eq.u32 %p0, %tid, 0;
        @%p0 st.shared.u32 [%mine], %tid;
        bar.sync 0;
        mov.u32 %r0, s;
        ld.shared.u32 %r1, [%r0];
        bar.sync 0, 128;
        setp.eq.u32 %p0, %tid, 77;
        @%p0 st.shared.u32 [%r0], %tid;
        st.global.u32 [%there], %r1;";
    Kernel::block(128, body).is_clean();
    races(&Kernel::block(128, &body.replace("bar.sync 0, 128;", "")), Kind::SharedRace, &["@%p0 st.shared", "ld.shared"]);
}

#[test]
fn neighbours_in_one_word_do_not_race() {
    let body = "
        mov.u32 %r0, s; mad.lo.s32 %r0, %tid, 2, %r0;
        mov.u32 %r3, s; mad.lo.s32 %r3, %tid, 1, %r3;
        ld.global.u16 %h0, [%there];
        st.shared.u16 [%r0], %h0;
        ld.shared.u16 %h0, [%r0];
        st.shared.u8 [%r3+4096], %h0;
        ld.shared.u8 %h0, [%r3+4096];
        bar.sync 0;
        ld.shared.u32 %r1, [%mine];
        st.global.u32 [%there], %r1;";
    let body = body.replace(
        "ld.shared.u32 %r1, [%mine];",
        "mov.u32 %r2, s; setp.lt.u32 %p0, %tid, 32; mov.u32 %r1, 0; @%p0 ld.shared.u32 %r1, [%mine];",
    );
    Kernel::block(64, &body).is_clean();
    let without = body.replace("bar.sync 0;", "");
    for order in orders() {
        let (findings, _) = Kernel::block(64, &without).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{order:?}: {findings:?}");
    }
}

#[test]
fn one_instruction_may_store_the_same_but_not_different_values() {
    let body = "mov.u32 %r0, s; mov.u32 %r1, 5; st.shared.u32 [%r0], %r1;";
    Kernel::block(96, body).is_clean();
    races(&Kernel::block(32, &body.replace("[%r0], %r1", "[%r0], %tid")), Kind::SharedRace, &["st.shared"]);
    races(&Kernel::block(96, &body.replace("[%r0], %r1", "[%r0], %warp")), Kind::SharedRace, &["st.shared"]);
}

#[test]
fn arriving_releases_and_waiting_acquires() {
    let body = "
        setp.lt.u32 %p0, %tid, 32;
        @%p0 bra PRODUCE;
        bar.sync 1, 64;
        mov.u32 %r0, s; mad.lo.s32 %r0, %lane, 4, %r0;
        ld.shared.u32 %r1, [%r0];
        st.global.u32 [%there], %r1;
        bra END;
        PRODUCE:
        st.shared.u32 [%mine], %tid;
        bar.arrive 1, 64;
        END:";
    Kernel::block(64, body).is_clean();
    // What comes after the arrival is not released by it.
    let late = body.replace(
        "st.shared.u32 [%mine], %tid;\n        bar.arrive 1, 64;",
        "bar.arrive 1, 64;\n        st.shared.u32 [%mine], %tid;",
    );
    assert_ne!(late, body);
    for order in orders() {
        let (findings, _) = Kernel::block(64, &late).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{order:?}: {findings:?}");
    }
}

#[test]
fn flags_in_shared_memory_order_after_a_fence() {
    let body = "
        setp.eq.u32 %p0, %tid, 0;
        mov.u32 %r0, s;
        mov.u32 %r1, 0;
        @%p0 st.volatile.shared.u32 [%r0+4096], %r1;
        bar.sync 0;
        mov.u32 %r1, 1;
        setp.lt.u32 %p1, %tid, 32;
        @%p1 bra WRITE;
        SPIN:
        ld.volatile.shared.u32 %r2, [%r0+4096];
        setp.eq.u32 %p2, %r2, 0;
        @%p2 bra SPIN;
        membar.cta;
        ld.shared.u32 %r3, [%r0];
        st.global.u32 [%there], %r3;
        bra END;
        WRITE:
        @%p0 st.shared.u32 [%r0], %r1;
        membar.cta;
        @%p0 st.volatile.shared.u32 [%r0+4096], %r1;
        END:";
    Kernel::block(64, body).is_clean();
    let without = body.replace("membar.cta;\n        @%p0", "@%p0");
    assert_ne!(without, body);
    races(&Kernel::block(64, &without), Kind::SharedRace, &["ld.shared"]);
    let plain = body
        .replace("@%p0 st.volatile.shared.u32 [%r0+4096], %r1;\n        END", "@%p0 st.shared.u32 [%r0+4096], %r1;\n        END");
    assert_ne!(plain, body);
    races(&Kernel::block(64, &plain), Kind::SharedRace, &["ld.volatile.shared", "@%p0 st.shared"]);
}

#[test]
fn shared_memory_of_another_block_of_the_cluster() {
    let window = "
        mov.u32 %r4, 1; sub.s32 %r4, %r4, %block; add.s32 %r4, %r4, 1;
        mad.lo.s32 %r5, %r4, 16777216, %mine;";
    let body = format!(
        "{window}
        st.shared::cluster.u32 [%r5], %tid;
        barrier.cluster.arrive;
        barrier.cluster.wait;
        ld.shared.u32 %r1, [%mine];
        st.global.u32 [%there], %r1;"
    );
    let of = |body: &'static str| Kernel { body, grid: 2, block: 64, cluster: 2 };
    of(body.clone().leak()).is_clean();
    for order in orders() {
        let without = body.replace("barrier.cluster.wait;", "").replace("barrier.cluster.arrive;", "").leak();
        let (findings, _) = of(without).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{order:?}: {findings:?}");
    }
    // An arrival that is relaxed orders nothing.
    let relaxed = body.replace("arrive;", "arrive.relaxed;").leak();
    races(&of(relaxed), Kind::SharedRace, &["ld.shared"]);
}

#[test]
fn blocks_that_write_the_same_words() {
    Kernel::grid(4, "st.global.u32 [%there], %tid;").is_clean();
    let same = "mad.lo.s32 %r0, %block, 4, 0; mul.wide.s32 %d0, %four, 1; add.s64 %d0, %d0, %out;";
    races(&Kernel::grid(4, &format!("{same} st.global.u32 [%d0], %block;")), Kind::GlobalRace, &["st.global"]);
    // All write the same value by the same instruction.
    Kernel::grid(4, &format!("{same} st.global.u32 [%d0], %tid;")).is_clean();
    // Everybody reads, one writes.
    let read = format!("{same} ld.global.u32 %r1, [%d0]; st.global.u32 [%there+16384], %r1;");
    Kernel::grid(4, &read).is_clean();
    let overwritten = format!("{read} setp.eq.u32 %p0, %block, 2; @%p0 st.global.u32 [%d0], %tid;");
    races(&Kernel::grid(4, &overwritten), Kind::GlobalRace, &["ld.global", "@%p0 st.global"]);
}

#[test]
fn rows_of_odd_length_share_words_between_blocks() {
    // 17 halves per block.
    let body = "
        setp.lt.u32 %p0, %tid, 17;
        mad.lo.s32 %r0, %block, 17, %tid; mul.wide.s32 %d0, %r0, 2; add.s64 %d0, %d0, %out;
        ld.global.u16 %h0, [%there+16384];
        @%p0 st.global.u16 [%d0], %h0;
        @%p0 ld.global.u16 %h0, [%d0];";
    Kernel::grid(7, body).is_clean();
    let further = body.replace("mad.lo.s32 %r0, %block, 17", "mad.lo.s32 %r0, %block, 16").replace("[%there+16384]", "[%there]");
    for order in orders() {
        let (findings, _) = Kernel::grid(7, &further).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::GlobalRace), "{order:?}: {findings:?}");
    }
}

/// Block 0 writes 64 words and raises a flag; the others wait for it, which one thread does for all, and read them.
const FLAG: &str = "
        mul.wide.s32 %d0, %four, 1; add.s64 %d0, %d0, %out;
        mov.u32 %r1, 1;
        setp.eq.u32 %p0, %tid, 0;
        setp.ne.u32 %p1, %block, 0;
        @%p1 bra READ;
        st.global.u32 [%d0], %tid;
        membar.gl;
        bar.sync 0;
        @%p0 st.volatile.global.u32 [%out+8192], %r1;
        bra END;
        READ:
        @!%p0 bra MEET;
        SPIN:
        ld.volatile.global.u32 %r2, [%out+8192];
        setp.eq.u32 %p2, %r2, 0;
        @%p2 bra SPIN;
        fence.acq_rel.gpu;
        MEET:
        bar.sync 1;
        ld.global.u32 %r3, [%d0];
        st.global.u32 [%there+16384], %r3;
        END:";

#[test]
fn a_flag_orders_blocks_after_a_fence() {
    Kernel::grid(4, FLAG).is_clean();
    races(&Kernel::grid(4, &FLAG.replace("membar.gl;", "")), Kind::GlobalRace, &["ld.global"]);
    races(&Kernel::grid(4, &FLAG.replace("membar.gl;", "membar.cta;")), Kind::GlobalRace, &["ld.global"]);
    // One thread's fence after the barrier is enough; a fence after the flag is none.
    let cumulative = FLAG.replace("membar.gl;\n        bar.sync 0;", "bar.sync 0;\n        membar.gl;");
    Kernel::grid(4, &cumulative).is_clean();
    // A fence by another warp, for which the writer of the flag has waited or not.
    let other = |after: &str| {
        let fence = format!("bar.sync 0; setp.gt.u32 %p3, %tid, 31; @%p3 membar.gl; {after}");
        FLAG.replace("membar.gl;\n        bar.sync 0;", &fence)
    };
    Kernel::grid(4, &other("barrier.sync 2;")).is_clean();
    races(&Kernel::grid(4, &other("")), Kind::GlobalRace, &["ld.global"]);
    // The reader needs a fence as well, or an acquire, of the device's scope.
    races(&Kernel::grid(4, &FLAG.replace("fence.acq_rel.gpu;", "")), Kind::GlobalRace, &["ld.global"]);
    races(&Kernel::grid(4, &FLAG.replace("fence.acq_rel.gpu;", "fence.acq_rel.cta;")), Kind::GlobalRace, &["ld.global"]);
    let acquired = FLAG.replace("fence.acq_rel.gpu;", "").replace("ld.volatile", "ld.acquire.gpu");
    Kernel::grid(4, &acquired).is_clean();
    races(&Kernel::grid(4, &acquired.replace("acquire.gpu", "acquire.cta")), Kind::GlobalRace, &["ld.global"]);
    let plain = FLAG.replace("st.volatile.global.u32 [%out+8192]", "st.global.u32 [%out+8192]");
    for order in orders() {
        let (findings, _) = Kernel::grid(4, &plain).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::GlobalRace), "{order:?}: {findings:?}");
    }
}

#[test]
fn flags_are_passed_on_from_block_to_block() {
    // Block n waits for block n - 1, adds to what it left, and tells block n + 1: what each reads was written two blocks before too.
    let body = "
        mul.wide.s32 %d0, %four, 1; add.s64 %d0, %d0, %out;
        mul.wide.s32 %d1, %block, 4; add.s64 %d1, %d1, %out;
        mov.u32 %r1, 1;
        setp.eq.u32 %p0, %tid, 0;
        setp.eq.u32 %p1, %block, 0;
        @%p1 bra WORK;
        SPIN:
        ld.volatile.global.u32 %r2, [%d1+8188];
        setp.eq.u32 %p2, %r2, 0;
        @%p2 bra SPIN;
        membar.gl;
        WORK:
        bar.sync 0;
        ld.global.u32 %r3, [%d0];
        add.s32 %r3, %r3, 1;
        st.global.u32 [%d0], %r3;
        membar.gl;
        barrier.sync 1;
        @%p0 st.volatile.global.u32 [%d1+8192], %r1;";
    Kernel::grid(6, body).is_clean();
    let (_, out) = Kernel::grid(6, body).run(ptx_emulator::Order::Natural);
    assert!(out[..64].iter().all(|&value| value == 6), "{:?}", &out[..8]);
    races(&Kernel::grid(6, &body.replace("membar.gl;\n        barrier", "barrier")), Kind::GlobalRace, &["ld.global", "st.global"]);
}

/// Each block writes a word of its own and counts itself; the last one adds them all up.
const LAST: &str = "
        setp.ne.u32 %p0, %tid, 0;
        @%p0 bra MEET;
        add.s32 %r0, %block, 1;
        mul.wide.s32 %d0, %block, 4; add.s64 %d0, %d0, %out;
        st.global.u32 [%d0], %r0;
        membar.gl;
        atom.global.add.u32 %r1, [%out+8192], 1;
        fence.acq_rel.gpu;
        st.shared.u32 [s], %r1;
        MEET:
        bar.sync 0;
        ld.shared.u32 %r1, [s];
        setp.ne.u32 %p1, %r1, 4;
        @%p1 bra END;
        @%p0 bra END;
        mov.u32 %r2, 0; mov.u32 %r3, 0; mov.u64 %d0, %out;
        SUM:
        ld.global.u32 %r4, [%d0];
        add.s32 %r2, %r2, %r4; add.s32 %r3, %r3, 1; add.s64 %d0, %d0, 4;
        setp.lt.u32 %p2, %r3, 5;
        @%p2 bra SUM;
        st.global.u32 [%out+16384], %r2;
        END:";

#[test]
fn the_last_block_reads_what_all_have_written() {
    Kernel::grid(5, LAST).is_clean();
    assert!(orders().all(|order| Kernel::grid(5, LAST).run(order).1[4096] == 15));
    races(&Kernel::grid(5, &LAST.replace("membar.gl;", "")), Kind::GlobalRace, &["ld.global"]);
    races(&Kernel::grid(5, &LAST.replace("membar.gl;", "fence.acq_rel.cta;")), Kind::GlobalRace, &["ld.global"]);
    races(&Kernel::grid(5, &LAST.replace("fence.acq_rel.gpu;", "")), Kind::GlobalRace, &["ld.global"]);
    races(&Kernel::grid(5, &LAST.replace("fence.acq_rel.gpu;", "fence.acq_rel.cta;")), Kind::GlobalRace, &["ld.global"]);
    // The fences in the atomic itself.
    let released =
        LAST.replace("membar.gl;", "").replace("fence.acq_rel.gpu;", "").replace("atom.global.add", "atom.acq_rel.gpu.global.add");
    Kernel::grid(5, &released).is_clean();
    let narrow = released.replace("acq_rel.gpu", "acq_rel.cta");
    races(&Kernel::grid(5, &narrow), Kind::GlobalRace, &["ld.global"]);
}

#[test]
fn a_barrier_of_the_grid_orders_its_phases() {
    // Everybody writes, waits until all have, and reads the next block's words.
    let body = "
        st.global.u32 [%there], %index;
        bar.sync 0;
        setp.ne.u32 %p0, %tid, 0;
        @%p0 bra MEET;
        membar.gl;
        red.global.add.u32 [%out+8192], 1;
        SPIN:
        ld.acquire.gpu.global.u32 %r1, [%out+8192];
        setp.lt.u32 %p1, %r1, 4;
        @%p1 bra SPIN;
        MEET:
        barrier.sync 1;
        add.s32 %r0, %index, 64; setp.gt.u32 %p0, %r0, 255; @%p0 sub.s32 %r0, %r0, 256;
        mul.wide.s32 %d0, %r0, 4; add.s64 %d0, %d0, %out;
        ld.global.u32 %r2, [%d0];
        st.global.u32 [%there+16384], %r2;";
    Kernel::grid(4, body).is_clean();
    races(&Kernel::grid(4, &body.replace("membar.gl;", "")), Kind::GlobalRace, &["ld.global"]);
    let released = body.replace("membar.gl;", "").replace("red.global", "red.release.gpu.global");
    Kernel::grid(4, &released).is_clean();
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    Kernel::grid(4, "red.global.add.u32 [%out], 1; atom.global.max.u32 %r0, [%out+4], %tid;").is_clean();
    let read = "red.global.add.u32 [%out], 1; ld.global.u32 %r0, [%out]; st.global.u32 [%there+16384], %r0;";
    races(&Kernel::grid(4, read), Kind::GlobalRace, &["ld.global", "red.global"]);
    let shared = "
        mov.u32 %r1, 0; setp.eq.u32 %p0, %tid, 0;
        @%p0 st.shared.u32 [s], %r1;
        bar.sync 0;
        red.shared.add.u32 [s], 1;
        bar.sync 0, 96;
        ld.shared.u32 %r0, [s];
        st.global.u32 [%there], %r0;";
    Kernel::block(96, shared).is_clean();
    races(&Kernel::block(96, &shared.replace("bar.sync 0, 96;", "")), Kind::SharedRace, &["ld.shared", "red.shared"]);
    let early = shared.replace("bar.sync 0;", "");
    for order in orders() {
        // In some orders the sum is undefined as well.
        let (findings, _) = Kernel::block(96, &early).run(order);
        assert!(findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{order:?}: {findings:?}");
    }
    // The counter is set by one block while others may count already.
    let reset = "setp.eq.u32 %p0, %index, 0; mov.u32 %r1, 0; @%p0 st.global.u32 [%out], %r1; red.global.add.u32 [%out], 1;";
    races(&Kernel::grid(4, reset), Kind::GlobalRace, &["@%p0 st.global", "red.global"]);
}
