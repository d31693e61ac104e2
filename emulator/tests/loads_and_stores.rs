//! Forms of `ld` and `st`: 128-bit registers, hints to the caches, releases and acquires; hints that stand alone.

mod kernel;

use kernel::{Kernel, orders};
use ptx_emulator::{Kind, Order, Program};

#[test]
fn hints_change_nothing() {
    let body = "
        .reg .b64 %policy;
        createpolicy.fractional.L2::evict_last.b64 %policy, 1.0;
        add.s32 %r0, %tid, 3;
        st.global.L1::evict_last.L2::cache_hint.u32 [%there], %r0, %policy;
        prefetch.global.L2 [%there]; prefetchu.L1 [%there];
        ld.global.L1::no_allocate.L2::cache_hint.L2::128B.u32 %r1, [%there], %policy;
        add.s32 %r1, %r1, %r0;
        st.global.wb.u32 [%there], %r1;";
    let (findings, out) = Kernel::block(64, body).run(Order::Natural);
    assert!(findings.is_empty(), "{}", findings[0]);
    assert!((0..64).all(|tid| out[tid as usize] == 2 * (tid + 3)));
}

#[test]
fn registers_of_128_bits_keep_both_halves() {
    let body = "
        .reg .b128 %wide;
        mul.wide.u32 %d0, %tid, 16; add.s64 %d0, %d0, %out;
        cvt.u64.u32 %d1, %tid; add.s64 %d2, %d1, 0x500000000;
        mov.u32 %r0, s; mad.lo.s32 %r0, %tid, 16, %r0;
        st.shared.v2.u64 [%r0], {%d1, %d2};
        ld.shared.b128 %wide, [%r0];
        st.global.b128 [%d0], %wide;";
    let (findings, out) = Kernel::block(32, body).run(Order::Natural);
    assert!(findings.is_empty(), "{}", findings[0]);
    assert!((0..32).all(|tid| out[tid as usize * 4..][..4] == [tid, 0, tid, 5]), "{:?}", &out[..8]);
    // Half of it was never written.
    let half = body.replace("st.shared.v2.u64 [%r0], {%d1, %d2};", "st.shared.u64 [%r0+8], %d2;");
    Kernel::block(32, &half).is_found(Kind::Uninitialized, &["st.global.b128"]);
}

#[test]
fn a_release_is_seen_by_who_acquires_it() {
    // Block 0 writes data and then a flag; block 1 waits for the flag and reads the data.
    let body = "
        setp.ne.u32 %p0, %tid, 0;
        @%p0 bra END;
        setp.ne.u32 %p1, %block, 0;
        @%p1 bra READ;
        st.global.u32 [%out+1024], 7;
        st.release.gpu.global.u32 [%out+2048], 1;
        bra END;
        READ:
        ld.acquire.gpu.global.u32 %r0, [%out+2048];
        setp.eq.u32 %p2, %r0, 0;
        @%p2 bra READ;
        ld.global.u32 %r1, [%out+1024];
        st.global.u32 [%out], %r1;
        END:";
    for order in orders() {
        let (findings, out) = Kernel::grid(2, body).run(order);
        assert!(findings.is_empty(), "{order:?}\n{}", findings[0]);
        assert_eq!(out[0], 7);
    }
    let relaxed = body.replace("st.release", "st.relaxed");
    Kernel::grid(2, &relaxed).is_found(Kind::GlobalRace, &["ld.global", "st.global"]);
}

#[test]
fn what_is_discarded_is_undefined() {
    let body = "setp.eq.u32 %p0, %tid, 0; @%p0 discard.global.L2 [%out+128], 128; ld.global.u32 %r0, [%out+252]; st.global.u32 [%out], %r0;";
    Kernel::block(1, body).is_found(Kind::Uninitialized, &["st.global"]);
    Kernel::block(1, &body.replace("252", "256")).is_clean();
}

#[test]
fn device_memory_of_others_is_refused() {
    let ptx = ".version 8.3\n.target sm_90\n.address_size 64\n.visible .entry k()\n{ .reg .b32 %r; .reg .b64 %d;\n\
               ld.mmio.relaxed.sys.global.u32 %r, [%d];\nret; }";
    let error = Program::parse(ptx).err().expect("it is refused").to_string();
    assert!(error.contains("memory-mapped"), "{error}");
}
