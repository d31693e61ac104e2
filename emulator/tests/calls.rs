//! Device functions: parameters by value, frames, recursion, divergence, pointers, `printf`, `assert`.

mod words;

use ptx_emulator::{Kind, Order};
use words::Kernel;

/// Functions as NVRTC writes them: `fact`, `inc`, `triple`, and a table of the last two.
const FUNCTIONS: &str = "
    .func (.param .b32 ret) fact(.param .b32 n);
    .func (.param .b32 ret) inc(.param .b32 x);
    .func (.param .b32 ret) triple(.param .b32 x);
    .global .align 8 .u64 table[2] = {inc, triple};
    .func (.param .b32 ret) fact(.param .b32 n) {
        .reg .pred %p<3>; .reg .b32 %r<5>;
        ld.param.u32 %r1, [n]; setp.gt.u32 %p1, %r1, 1; @%p1 bra MORE;
        st.param.b32 [ret+0], 1; ret;
        MORE: sub.u32 %r2, %r1, 1;
        { .param .b32 param0; st.param.b32 [param0+0], %r2; .param .b32 retval0;
          call.uni (retval0), fact, (param0); ld.param.b32 %r3, [retval0+0]; }
        mul.lo.u32 %r4, %r3, %r1;
        st.param.b32 [ret+0], %r4; ret;
    }
    .func (.param .b32 ret) inc(.param .b32 x) {
        .reg .b32 %r<3>; ld.param.u32 %r1, [x]; nanosleep.u32 1; add.u32 %r2, %r1, 1; st.param.b32 [ret+0], %r2; ret;
    }
    .func (.param .b32 ret) triple(.param .b32 x) {
        .reg .b32 %r<3>; ld.param.u32 %r1, [x]; nanosleep.u32 1; mul.lo.u32 %r2, %r1, 3; st.param.b32 [ret+0], %r2; ret;
    }
    .func (.param .align 8 .b8 ret[24]) mix(.param .b32 n, .param .align 8 .b8 s[24]) {
        .local .align 16 .b8 mine[64]; .reg .b64 %rd<8>; .reg .b32 %r<4>;
        ld.param.u32 %r1, [n]; ld.param.u64 %rd1, [s]; ld.param.u64 %rd2, [s+8]; ld.param.u64 %rd3, [s+16];
        st.local.u64 [mine], %rd3; st.local.u64 [mine+56], %rd1;
        mul.wide.u32 %rd4, %r1, 1; add.s64 %rd2, %rd2, %rd4;
        ld.local.u64 %rd5, [mine]; ld.local.u64 %rd6, [mine+56];
        st.param.u64 [ret], %rd5; st.param.u64 [ret+8], %rd2; st.param.u64 [ret+16], %rd6; ret;
    }";

fn kernel<'a>(body: &'a str, inputs: &'a [u32], outputs: u32) -> Kernel<'a> {
    Kernel { module: FUNCTIONS, ..Kernel::warp(body, inputs, outputs) }
}

fn factorial(n: u32) -> u32 {
    (2..=n).fold(1, u32::wrapping_mul)
}

#[test]
fn recursion_of_different_depths() {
    let body = "ld.global.u32 %r2, [%rd3];
        { .param .b32 a; st.param.b32 [a], %r2; .param .b32 r; call.uni (r), fact, (a); ld.param.b32 %r3, [r]; }
        activemask.b32 %r4; st.global.v2.u32 [%rd2], {%r3, %r4};";
    let depths: Vec<u32> = (0..32).map(|lane| lane * 7 % 13).collect();
    let words = kernel(body, &depths, 2).natural();
    for lane in 0..32 {
        assert_eq!(words[2 * lane..2 * lane + 2], [factorial(depths[lane]), !0], "lane {lane}");
    }
    let deep = kernel(body, &[1000; 32], 2).natural();
    assert_eq!(deep[0], factorial(1000));
    let values = body.replace("{%r3, %r4}", "{%r3, %r2}");
    let expected: Vec<u32> = depths.iter().flat_map(|&depth| [factorial(depth), depth]).collect();
    assert_eq!(kernel(&values, &depths, 2).run(), expected);
}

#[test]
fn structures_go_by_value_and_frames_do_not_overlap() {
    // The caller's array and its parameter variable keep what the callee writes to its own.
    let body = ".local .align 16 .b8 array[48]; mul.wide.u32 %rd5, %r0, 1000; add.s64 %rd6, %rd5, 1; add.s64 %rd7, %rd5, 2;
        st.local.u64 [array], %rd5; st.local.u64 [array+40], %rd7;
        { .param .b32 n; st.param.b32 [n], %r0; .param .align 8 .b8 s[24];
          st.param.u64 [s], %rd5; st.param.u64 [s+8], %rd6; st.param.u64 [s+16], %rd7;
          .param .align 8 .b8 r[24]; call.uni (r), mix, (n, s);
          ld.param.u64 %rd8, [r]; ld.param.u64 %rd9, [r+8]; ld.param.u64 %rd10, [r+16]; ld.param.u64 %rd11, [s+8]; }
        ld.local.u64 %rd12, [array]; ld.local.u64 %rd13, [array+40];
        st.global.u64 [%rd2], %rd8; st.global.u64 [%rd2+8], %rd9; st.global.u64 [%rd2+16], %rd10;
        st.global.u64 [%rd2+24], %rd11; st.global.u64 [%rd2+32], %rd12; st.global.u64 [%rd2+40], %rd13;";
    let words = kernel(body, &[0; 32], 12).run();
    for lane in 0..32u32 {
        let x = lane * 1000;
        let expected = [x + 2, x + 1 + lane, x, x + 1, x, x + 2].map(|low| [low, 0]);
        assert_eq!(words[lane as usize * 12..][..12], *expected.as_flattened(), "lane {lane}");
    }
}

/// Calls `%rd5` with `%r0` twice, once from within a branch.
const BY_POINTER: &str =
    "{ .param .b32 a; st.param.b32 [a], %r0; .param .b32 r; proto: .callprototype (.param .b32 _) _ (.param .b32 _);
        call (r), %rd5, (a), proto; ld.param.b32 %r3, [r]; }
        activemask.b32 %r4; st.global.v2.u32 [%rd2], {%r3, %r4};";

#[test]
fn function_pointers_differ_between_lanes() {
    let body = format!(
        "ld.global.u32 %r2, [%rd3]; mov.u64 %rd5, inc; setp.eq.u32 %p1, %r2, 1; @%p1 mov.u64 %rd5, triple;
        setp.eq.u32 %p1, %r2, 2; @%p1 mov.u64 %rd5, fact; {BY_POINTER}"
    );
    let which: Vec<u32> = (0..32).map(|lane| lane * 5 % 3).collect();
    let words = kernel(&body, &which, 2).natural();
    for lane in 0..32 {
        let x = lane as u32;
        let expected = [x + 1, x * 3, factorial(x)][which[lane] as usize];
        assert_eq!(words[2 * lane], expected, "lane {lane}");
    }
    let body = format!(
        "ld.global.u32 %r2, [%rd3]; mul.wide.u32 %rd6, %r2, 8; mov.u64 %rd7, table; add.s64 %rd7, %rd7, %rd6;
        ld.global.u64 %rd5, [%rd7]; {BY_POINTER}"
    );
    let which: Vec<u32> = (0..32).map(|lane| lane / 3 % 2).collect();
    // Without the sleep, all come together again.
    let awake = FUNCTIONS.replace("nanosleep.u32 1;", "");
    let words = Kernel { module: &awake, ..kernel(&body, &which, 2) }.natural();
    for lane in 0..32 {
        let expected = if which[lane] == 0 { lane as u32 + 1 } else { lane as u32 * 3 };
        assert_eq!(words[2 * lane..2 * lane + 2], [expected, !0], "lane {lane}");
    }
}

#[test]
fn lanes_are_in_different_functions_at_once() {
    // The frames of `inc` and `triple` lie in the same place, and both give way before they use their constants.
    let call = |name: &str| {
        format!("{{ .param .b32 a; st.param.b32 [a], %r0; .param .b32 r; call (r), {name}, (a); ld.param.b32 %r3, [r]; }}")
    };
    let body = format!(
        "setp.lt.u32 %p1, %r0, 11; @%p1 bra LOW; {} bra OUT; LOW: {} OUT: st.global.u32 [%rd2], %r3;",
        call("inc"),
        call("triple")
    );
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 11 { lane * 3 } else { lane + 1 }).collect();
    assert_eq!(kernel(&body, &[0; 32], 1).run(), expected);
    let guarded = "mov.u32 %r3, 77; setp.lt.u32 %p1, %r0, 11; .param .b32 a; st.param.b32 [a], %r0; .param .b32 r;
        @%p1 call (r), triple, (a); @%p1 ld.param.b32 %r3, [r]; st.global.u32 [%rd2], %r3;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 11 { lane * 3 } else { 77 }).collect();
    assert_eq!(kernel(guarded, &[0; 32], 1).run(), expected);
}

#[test]
fn definedness_goes_with_parameters_and_results() {
    let body = |given: &str, used: &str| {
        format!(
            "{{ .param .align 8 .b8 s[24]; {given} .param .b32 n; st.param.b32 [n], 5; .param .align 8 .b8 r[24];
            call (r), mix, (n, s); ld.param.u64 %rd8, [r]; ld.param.u64 %rd9, [r+8]; }} st.global.u64 [%rd2], {used};"
        )
    };
    let partly = "mov.u64 %rd5, 3; st.param.u64 [s], %rd5; st.param.u64 [s+16], %rd5;";
    kernel(&body(partly, "%rd8"), &[0; 32], 2).run();
    kernel(&body(partly, "%rd9"), &[0; 32], 2).expect(Kind::Uninitialized, "");
    // What an earlier call left in the frame does not count.
    let twice = "{ .param .b32 a; st.param.b32 [a], 1; .param .b32 r; call (r), inc, (a); }
        { .param .b32 a; .param .b32 r; call (r), triple, (a); ld.param.b32 %r3, [r]; } st.global.u32 [%rd2], %r3;";
    kernel(twice, &[0; 32], 1).expect(Kind::Uninitialized, "");
}

#[test]
fn bad_calls_are_found_or_refused() {
    let pointer = |address: &str| format!("mov.u64 %rd5, {address}; {BY_POINTER}");
    kernel(&pointer("0"), &[0; 32], 2).expect(Kind::InvalidOperation, "no function's");
    kernel(&pointer("mix"), &[0; 32], 2).expect(Kind::InvalidOperation, "`mix` has other parameters than the call gives it");
    let endless = ".func f() { call f; ret; }";
    let finding = Kernel { module: endless, ..Kernel::warp("call f;", &[0; 32], 1) };
    finding.expect(Kind::InvalidOperation, "calls within calls need more than 524288 bytes");
    kernel("call f;", &[0; 32], 1).refused("`f` is not declared");
    kernel("{ .param .b32 a; call inc, (a); }", &[0; 32], 1).refused("takes other parameters");
    kernel("{ .param .b32 r; call (r), inc, (%r0); }", &[0; 32], 1).refused("no `.param` variable");
    for (name, reason) in
        [("malloc", "no heap"), ("cudaDeviceSynchronize", "no CUDA runtime"), ("helper", "declared but not defined")]
    {
        let module = format!(".extern .func (.param .b64 r) {name} (.param .b64 a);");
        let body = format!("{{ .param .b64 a; .param .b64 r; st.param.b64 [a], 8; call (r), {name}, (a); }}");
        Kernel { module: &module, ..Kernel::warp(&body, &[0; 32], 1) }.refused(reason);
        // Declared alone does no harm.
        Kernel { module: &module, ..Kernel::warp("", &[0; 32], 1) }.run();
    }
}

const RUNTIME: &str = "
    .extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
    .extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);
    .global .align 1 .b8 format[17] = {37, 100, 32, 37, 46, 50, 102, 32, 37, 115, 32, 37, 108, 108, 117, 10};
    .global .align 1 .b8 plain[5] = {98, 97, 114, 101};
    .global .align 1 .b8 text[4] = {97, 98, 99};";

#[test]
fn printing_goes_block_by_block_and_lane_by_lane() {
    // printf("%d %.2f %s %llu\n", thread, 2.5, "abc", thread * 2^32), then printf("bare").
    let body = ".local .align 8 .b8 args[32]; .reg .f64 %fd<2>; st.local.u32 [args], %r1; mov.f64 %fd1, 0d4004000000000000; st.local.f64 [args+8], %fd1;
        mov.u64 %rd5, text; cvta.global.u64 %rd5, %rd5; st.local.u64 [args+16], %rd5; mul.wide.u32 %rd6, %r1, 65536;
        mov.u64 %rd7, args; cvta.local.u64 %rd7, %rd7; st.local.u64 [args+24], %rd6;
        { .param .b64 f; .param .b64 a; .param .b32 r; mov.u64 %rd8, format; cvta.global.u64 %rd8, %rd8;
          st.param.b64 [f], %rd8; st.param.b64 [a], %rd7; call.uni (r), vprintf, (f, a); ld.param.b32 %r5, [r]; }
        st.global.u32 [%rd2], %r5;
        { .param .b64 f; .param .b64 a; .param .b32 r; mov.u64 %rd8, plain; cvta.global.u64 %rd8, %rd8;
          st.param.b64 [f], %rd8; st.param.b64 [a], 0; call.uni (r), vprintf, (f, a); }";
    let kernel = Kernel { module: RUNTIME, blocks: 3, threads: 2, ..Kernel::warp(body, &[0; 6], 1) };
    let line = |thread: u64| format!("{thread} 2.50 abc {}\n", thread * 65536);
    let mut expected = Vec::new();
    for block in 0..3 {
        expected.extend([line(2 * block), line(2 * block + 1), "bare".into(), "bare".into()]);
    }
    for order in [Order::Natural, Order::Seeded(3), Order::Seeded(4)] {
        let (words, report) = kernel.launch(|launch| launch.order = order).unwrap();
        assert_eq!((report.printed, words), (expected.clone(), vec![4; 6]), "{order:?}");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
    // A value that was never stored, and a string beyond its buffer.
    let unset = body.replace("st.local.u32 [args], %r1;", "");
    let (_, report) = Kernel { module: RUNTIME, ..Kernel::warp(&unset, &[0; 32], 1) }.launch(|_| ()).unwrap();
    assert!(
        report.findings.iter().any(|f| f.kind == Kind::Uninitialized && f.message.contains("printed")),
        "{:?}",
        report.findings
    );
    let unended = RUNTIME.replace("text[4]", "text[3]");
    Kernel { module: &unended, ..Kernel::warp(body, &[0; 32], 1) }.expect(Kind::OutOfBounds, "");
}

#[test]
fn a_failed_assertion_is_told_in_its_words() {
    let body = "setp.ne.u32 %p1, %r0, 4; @%p1 bra OUT; mov.u64 %rd5, plain; mov.u64 %rd6, text;
        { .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 c;
          st.param.b64 [m], %rd5; st.param.b64 [f], %rd6; st.param.b32 [l], 12; st.param.b64 [n], %rd6; st.param.b64 [c], 1;
          call.uni __assertfail, (m, f, l, n, c); }
        OUT: st.global.u32 [%rd2], 1;";
    let finding =
        Kernel { module: RUNTIME, ..Kernel::warp(body, &[0; 32], 1) }.expect(Kind::Trap, "assertion `bare` failed in abc (abc:12)");
    assert_eq!(finding.thread, [4, 0, 0]);
}
