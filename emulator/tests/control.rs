//! Branches, groups of lanes and their order, waiting of any kind: against a scalar interpretation of the same program, and with
//! planted endless waits.

mod words;

use ptx_emulator::{Kind, Order};
use words::{Kernel, Random};

/// A language of two variables and gotos, which both the emulator and the test can run.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add(u32),
    Scale(u32, u32),
    Swap,
    /// To a step if x is below a bound, as long as there is fuel.
    Below(u32, usize),
    /// To one of these steps by y, as long as there is fuel.
    Choose([usize; 3]),
    Exchange,
}

const FUEL: u32 = 24;

fn ptx(steps: &[Step]) -> String {
    let mut text = format!("ld.global.v2.u32 {{%r10, %r11}}, [%rd3]; mov.u32 %r12, {FUEL};\n");
    for (at, step) in steps.iter().enumerate() {
        text += &format!("L{at}: ");
        let burn = "setp.eq.u32 %p1, %r12, 0; @%p1 bra END; sub.u32 %r12, %r12, 1;";
        text += &match *step {
            Step::Add(value) => format!("add.u32 %r10, %r10, {value};"),
            Step::Scale(factor, value) => format!("mad.lo.u32 %r10, %r10, {factor}, {value};"),
            Step::Swap => "mov.u32 %r13, %r10; mov.u32 %r10, %r11; mov.u32 %r11, %r13;".into(),
            Step::Below(bound, target) => format!("{burn} setp.lt.u32 %p2, %r10, {bound}; @%p2 bra L{target};"),
            Step::Choose([a, b, c]) => format!(
                "{burn} mov.u32 %r14, 2; setp.lt.u32 %p2, %r11, 0x80000000; @%p2 mov.u32 %r14, 1;
                setp.lt.u32 %p2, %r11, 0x40000000; @%p2 mov.u32 %r14, 0; brx.idx %r14, T{at}; T{at}: .branchtargets L{a}, L{b}, L{c};"
            ),
            Step::Exchange => "st.global.u32 [%rd2+8], %r10; ld.global.u32 %r11, [%rd2+8];".into(),
        };
        text += "\n";
    }
    text + "END: st.global.v2.u32 [%rd2], {%r10, %r11};"
}

fn interpret(steps: &[Step], mut x: u32, mut y: u32) -> [u32; 2] {
    let (mut at, mut fuel) = (0, FUEL);
    while at < steps.len() {
        let mut next = at + 1;
        if matches!(steps[at], Step::Below(..) | Step::Choose(_)) {
            if fuel == 0 {
                break;
            }
            fuel -= 1;
        }
        match steps[at] {
            Step::Add(value) => x = x.wrapping_add(value),
            Step::Scale(factor, value) => x = x.wrapping_mul(factor).wrapping_add(value),
            Step::Swap => (x, y) = (y, x),
            Step::Below(bound, target) if x < bound => next = target,
            Step::Below(..) => {}
            Step::Choose(targets) => {
                next = targets[if y < 0x4000_0000 {
                    0
                } else if y < 0x8000_0000 {
                    1
                } else {
                    2
                }]
            }
            Step::Exchange => y = x,
        }
        at = next;
    }
    [x, y]
}

#[test]
fn random_programs_do_what_a_scalar_machine_does() {
    let mut random = Random(3);
    for _ in 0..60 {
        let length = 4 + random.below(20) as usize;
        let steps: Vec<Step> = (0..length)
            .map(|_| {
                let mut target = || random.below(length as u32) as usize;
                let (a, b, c) = (target(), target(), target());
                match random.below(8) {
                    0 => Step::Add(random.word()),
                    1 | 2 => Step::Scale(random.word() | 1, random.word()),
                    3 => Step::Swap,
                    4 | 5 => Step::Below(random.word(), a),
                    6 => Step::Choose([a, b, c]),
                    _ => Step::Exchange,
                }
            })
            .collect();
        let inputs: Vec<u32> = (0..2 * 80).map(|_| random.word()).collect();
        let body = ptx(&steps);
        let kernel = Kernel { threads: 40, blocks: 2, ..Kernel::warp(&body, &inputs, 4) };
        let words = kernel.run();
        for thread in 0..80 {
            let expected = interpret(&steps, inputs[2 * thread], inputs[2 * thread + 1]);
            assert_eq!(words[4 * thread..4 * thread + 2], expected, "thread {thread} of {steps:#?}");
        }
    }
}

#[test]
fn lanes_come_together_again() {
    let body = "ld.global.u32 %r2, [%rd3]; setp.lt.u32 %p1, %r2, 1; @%p1 bra A; setp.lt.u32 %p1, %r2, 2; @%p1 bra B; add.u32 %r2, %r2, 10; bra C;
        A: add.u32 %r2, %r2, 20; bra C;
        B: add.u32 %r2, %r2, 30;
        C: activemask.b32 %r3; st.global.v2.u32 [%rd2], {%r2, %r3};";
    let inputs: Vec<u32> = (0..32).map(|lane| lane % 3).collect();
    let words = Kernel::warp(body, &inputs, 2).natural();
    for lane in 0..32 {
        assert_eq!(words[2 * lane..2 * lane + 2], [[20, 31, 12][lane % 3], !0], "lane {lane}");
    }
}

#[test]
fn a_branch_beyond_its_labels_is_found() {
    let body = "brx.idx %r0, T; T: .branchtargets A, B; A: st.global.u32 [%rd2], 1; ret; B: st.global.u32 [%rd2], 2;";
    let finding = Kernel::warp(body, &[0; 32], 1).expect(Kind::InvalidOperation, "branch to label 2 of 2");
    assert_eq!(finding.thread, [2, 0, 0]);
    Kernel::warp("brx.idx %r0, k2;", &[0; 32], 1).refused("`k2` is not declared");
}

#[test]
fn traps_and_breakpoints_end_a_block() {
    for (instruction, message) in [("trap", "stopped itself"), ("brkpt", "no debugger")] {
        let body = format!("mov.u32 %r2, %ctaid.x; setp.eq.u32 %p1, %r2, 1; @%p1 {instruction}; st.global.u32 [%rd2], 9;");
        let kernel = Kernel { blocks: 3, ..Kernel::warp(&body, &[0; 96], 1) };
        let (words, report) = kernel.launch(|_| ()).unwrap();
        assert!(report.findings.len() == 1 && report.findings[0].kind == Kind::Trap, "{:?}", report.findings);
        assert!(report.findings[0].message.contains(message) && report.findings[0].block == [1, 0, 0]);
        assert_eq!((words[0], words[95]), (9, 9), "other blocks go on");
    }
}

/// Threads take turns by their numbers: each waits until the one before has been.
const TURNS: &str = "WAIT: ld.volatile.global.u32 %r2, [%rd4]; setp.ne.u32 %p1, %r2, %r1; @%p1 bra WAIT;
    ld.volatile.global.u32 %r3, [%rd4+4]; mad.lo.u32 %r3, %r3, 31, %r1; st.volatile.global.u32 [%rd4+4], %r3;
    add.u32 %r2, %r2, 1; st.volatile.global.u32 [%rd4], %r2; st.global.u32 [%rd2], %r3;";

fn turns(threads: u32) -> Vec<u32> {
    (0..threads)
        .scan(0u32, |sum, thread| {
            *sum = sum.wrapping_mul(31).wrapping_add(thread);
            Some(*sum)
        })
        .collect()
}

#[test]
fn lanes_spin_for_each_other_in_one_warp() {
    assert_eq!(Kernel::warp(TURNS, &[0; 32], 1).run(), turns(32));
    let sleepy = TURNS.replace("WAIT:", "WAIT: nanosleep.u32 100;");
    assert_eq!(Kernel::warp(&sleepy, &[0; 32], 1).run(), turns(32));
    // The one that is waited for comes behind the loop in the program, and below it.
    let body = "setp.eq.u32 %p1, %r0, 7; @%p1 bra SET;
        WAIT: ld.volatile.global.u32 %r2, [%rd4]; setp.eq.u32 %p1, %r2, 0; @%p1 bra WAIT; st.global.u32 [%rd2], %r2; ret;
        SET: st.volatile.global.u32 [%rd4], 5; st.global.u32 [%rd2], 5;";
    assert_eq!(Kernel::warp(body, &[0; 32], 1).run(), [5; 32]);
}

#[test]
fn warps_and_blocks_spin_for_each_other() {
    let kernel = Kernel { threads: 100, ..Kernel::warp(TURNS, &[0; 100], 1) };
    assert_eq!(kernel.run(), turns(100));
    // Each block waits for the one after it: all must be begun although none ends.
    let body = TURNS.replace(
        "ld.volatile.global.u32 %r2, [%rd4]; setp.ne.u32 %p1, %r2, %r1;",
        "ld.volatile.global.u32 %r2, [%rd4]; sub.u32 %r5, 59, %r1; setp.ne.u32 %p1, %r2, %r5;",
    );
    let kernel = Kernel { blocks: 60, threads: 1, ..Kernel::warp(&body, &[0; 60], 1) };
    for workers in [1, 2, 3] {
        for order in [Order::Natural, Order::Seeded(5)] {
            let (words, report) = kernel.launch(|launch| (launch.workers, launch.order) = (Some(workers), order)).unwrap();
            assert!(report.findings.iter().all(|finding| finding.kind != Kind::Deadlock), "{:?}", report.findings);
            let expected = (0..60).rev().scan(0u32, |sum, thread| {
                *sum = sum.wrapping_mul(31).wrapping_add(thread);
                Some(*sum)
            });
            assert!(words.iter().rev().copied().eq(expected), "{workers} workers, {order:?}");
        }
    }
}

#[test]
fn a_spin_that_cannot_end_is_a_deadlock() {
    let forever = "WAIT: ld.volatile.global.u32 %r2, [%rd4]; setp.eq.u32 %p1, %r2, 0; @%p1 bra WAIT;";
    for body in [forever.to_string(), forever.replace("WAIT:", "WAIT: nanosleep.u32 20;")] {
        for (blocks, threads) in [(1, 1), (1, 200), (50, 40)] {
            let inputs = vec![0; (blocks * threads) as usize];
            let kernel = Kernel { blocks, threads, ..Kernel::warp(&body, &inputs, 1) };
            for order in [Order::Natural, Order::Seeded(1)] {
                for workers in [1, 2, 7] {
                    let (_, report) = kernel.launch(|launch| (launch.order, launch.workers) = (order, Some(workers))).unwrap();
                    assert!(!report.findings.is_empty() && report.findings.iter().all(|finding| finding.kind == Kind::Deadlock));
                    let count: u64 = report.findings.iter().map(|finding| finding.count).sum();
                    assert_eq!(count, u64::from(blocks), "each block once: {:?}", report.findings);
                }
            }
        }
    }
    // One warp waits at a barrier for one that spins for it.
    let body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra WAIT; bar.sync 0; st.volatile.global.u32 [%rd4], 1; ret;
        WAIT: ld.volatile.global.u32 %r2, [%rd4]; setp.eq.u32 %p1, %r2, 0; @%p1 bra WAIT; bar.sync 0;";
    let finding = Kernel { threads: 64, ..Kernel::warp(body, &[0; 64], 1) }.expect(Kind::Deadlock, "nothing can go on");
    assert!(finding.message.contains("bar.sync"), "{finding}");
}

#[test]
fn a_long_computation_is_no_deadlock() {
    // Four million instructions without a store, while another block waits for the result.
    let body = "mov.u32 %r3, %ctaid.x; setp.ne.u32 %p1, %r3, 0; @%p1 bra WAIT; mov.u32 %r2, 0; mov.u32 %r4, 1;
        LOOP: mad.lo.u32 %r4, %r4, 3, 1; add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 1000000; @%p1 bra LOOP;
        st.volatile.global.u32 [%rd4], %r4; st.global.u32 [%rd2], %r4; ret;
        WAIT: ld.volatile.global.u32 %r2, [%rd4]; setp.eq.u32 %p1, %r2, 0; @%p1 bra WAIT; st.global.u32 [%rd2], %r2;";
    let kernel = Kernel { blocks: 4, threads: 1, ..Kernel::warp(body, &[0; 4], 1) };
    let expected = (0..1_000_000).fold(1u32, |value, _| value.wrapping_mul(3).wrapping_add(1));
    for workers in [1, 2] {
        let (words, report) = kernel.launch(|launch| launch.workers = Some(workers)).unwrap();
        assert!(report.findings.iter().all(|finding| finding.kind != Kind::Deadlock), "{:?}", report.findings);
        assert_eq!(words, [expected; 4]);
    }
}

#[test]
fn an_endless_loop_ends_at_the_limit() {
    for body in ["LOOP: add.u32 %r2, %r1, 1; add.u32 %r3, %r3, %r2; bra LOOP;", "LOOP: st.global.u32 [%rd2], 1; bra LOOP;"] {
        let body = format!("mov.u32 %r3, 0; {body}");
        let kernel = Kernel { blocks: 9, threads: 64, ..Kernel::warp(&body, &[0; 9 * 64], 1) };
        for order in [Order::Natural, Order::Seeded(1)] {
            for workers in [1, 4] {
                let error = kernel.launch(|launch| {
                    (launch.order, launch.workers, launch.max_instructions) = (order, Some(workers), 300_000);
                });
                assert!(error.is_err_and(|error| error.to_string().contains("stopped after 300000 warp instructions")));
            }
        }
    }
}

#[test]
fn hints_are_taken_and_checked() {
    let body = "setmaxnreg.inc.sync.aligned.u32 240; setmaxnreg.dec.sync.aligned.u32 24; griddepcontrol.wait; pmevent 3;
        griddepcontrol.launch_dependents; nanosleep.u32 %r0; st.global.u32 [%rd2], %r0;";
    assert_eq!(Kernel::warp(body, &[0; 32], 1).run(), (0..32).collect::<Vec<_>>());
    for count in [16, 100, 264] {
        Kernel::warp(&format!("setmaxnreg.inc.sync.aligned.u32 {count};"), &[0; 32], 1).refused("multiples of 8 from 24 to 256");
    }
    // Half of a warp only, while the other half waits elsewhere.
    let body = "setp.lt.u32 %p1, %r0, 16; @%p1 bra OUT; setmaxnreg.dec.sync.aligned.u32 24; OUT:
        setmaxnreg.inc.sync.aligned.u32 48;";
    let (_, report) = Kernel::warp(body, &[0; 32], 1).launch(|_| ()).unwrap();
    let apart =
        |finding: &ptx_emulator::Finding| finding.kind == Kind::MissingLanes && finding.message.contains("came without lanes");
    assert!(report.findings.len() == 2 && report.findings.iter().all(apart), "{:?}", report.findings);
}

#[test]
fn sizes_beyond_all_bounds_are_errors() {
    let declared = |declaration: &str| Kernel::warp(declaration, &[0; 32], 1).launch(|_| ());
    for declaration in [
        ".local .b8 a[18446744073709551615];",
        ".local .b64 a[4611686018427387904];",
        ".local .align 2147483648 .b8 a[4];",
        ".shared .b8 a[4294967296]; mov.u32 %r2, a;",
        ".shared .align 2147483648 .b8 a[4]; mov.u32 %r2, a;",
    ] {
        assert!(declared(declaration).is_err(), "{declaration}");
    }
    let many: String = (0..9000).map(|number| format!(".local .b8 a{number}[524288];\n")).collect();
    assert!(declared(&many).is_err());
    let kernel = Kernel::warp("", &[0; 32], 1);
    for extent in [[u32::MAX; 3], [0, 1, 1], [1 << 31, 1, 1]] {
        assert!(kernel.launch(|launch| launch.grid = extent).is_err(), "grid {extent:?}");
        assert!(kernel.launch(|launch| launch.block = extent).is_err(), "block {extent:?}");
        assert!(kernel.launch(|launch| launch.cluster = extent).is_err(), "cluster {extent:?}");
    }
    assert!(kernel.launch(|launch| launch.shared_bytes = u32::MAX).is_err());
    // Addresses at the ends of each space.
    for access in ["ld.local.u32 %r2, [%rd5]", "ld.shared.u32 %r2, [%rd5]", "ld.u32 %r2, [%rd5]", "ld.global.u32 %r2, [%rd5]"] {
        for address in ["-4", "0x1fffffffc", "0x2fffffffc", "0x3fffffffc", "0x7ffffffffffffffc"] {
            let body = format!("mov.u64 %rd5, {address}; {access};");
            Kernel::warp(&body, &[0; 32], 1).expect(Kind::OutOfBounds, "");
        }
    }
}
