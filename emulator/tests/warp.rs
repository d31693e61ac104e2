//! Warp-level instructions against their definitions in CUDA's words, and planted faults.

mod words;

use ptx_emulator::Kind;
use words::{Kernel, Random};

/// `value, b, c, mask` per lane.
fn shuffle(mode: &str, lanes: &[[u32; 4]]) -> (Vec<u32>, Vec<bool>) {
    let body = format!(
        "ld.global.v4.u32 {{%r2, %r3, %r4, %r5}}, [%rd3];
        shfl.sync.{mode}.b32 %r6|%p1, %r2, %r3, %r4, %r5;
        selp.b32 %r7, 1, 0, %p1;
        st.global.v2.u32 [%rd2], {{%r6, %r7}};"
    );
    let body = body.replace("selp.b32 %r7, 1, 0, %p1;", "mov.u32 %r7, 0; @%p1 mov.u32 %r7, 1;");
    let words = Kernel::warp(&body, lanes.as_flattened(), 2).run();
    (words.iter().step_by(2).copied().collect(), words.iter().skip(1).step_by(2).map(|&word| word == 1).collect())
}

/// The programming guide's `__shfl_*_sync(mask, value, delta, width)`: source lane, if it is in reach.
fn cuda_source(mode: &str, lane: u32, delta: u32, width: u32) -> Option<u32> {
    let (group, id) = (lane / width * width, lane % width);
    match mode {
        "up" => (id >= delta).then(|| lane - delta),
        "down" => (id + delta < width).then(|| lane + delta),
        // Earlier groups can be read, later ones cannot.
        "bfly" => Some(lane ^ delta).filter(|&source| source < group + width),
        _ => Some(group + delta % width),
    }
}

#[test]
fn shuffles_of_all_modes_widths_and_distances() {
    let mut random = Random(1);
    for mode in ["up", "down", "bfly", "idx"] {
        for width in [1, 2, 4, 8, 16, 32] {
            for delta in [0, 1, 2, 3, 5, 7, 8, 13, 16, 21, 31] {
                let values: [u32; 32] = std::array::from_fn(|_| random.word());
                // Each lane its own distance in every second round: only `idx` and `bfly` are used so, but all may be.
                let deltas: [u32; 32] = std::array::from_fn(|_| if delta % 2 == 0 { delta } else { random.below(32) });
                let c = (32 - width) << 8 | if mode == "up" { 0 } else { 31 };
                let lanes: Vec<[u32; 4]> = (0..32).map(|lane| [values[lane], deltas[lane], c, !0]).collect();
                let (got, reached) = shuffle(mode, &lanes);
                for lane in 0..32 {
                    let source = cuda_source(mode, lane as u32, deltas[lane], width);
                    let expected = values[source.unwrap_or(lane as u32) as usize];
                    assert_eq!((got[lane], reached[lane]), (expected, source.is_some()), "{mode} {width} {deltas:?} lane {lane}");
                }
            }
        }
    }
}

#[test]
fn lanes_with_different_masks_shuffle_among_themselves() {
    let masks = [0xffff, 0x00ff_0000, 0xff00_0000u32];
    let mask = |lane: u32| *masks.iter().find(|&&mask| mask >> lane & 1 == 1).unwrap_or(&0);
    let lanes: Vec<[u32; 4]> = (0..32).map(|lane| [lane * 100, 1, 24 << 8 | 31, mask(lane)]).collect();
    let (got, _) = shuffle("bfly", &lanes);
    assert_eq!(got, (0..32).map(|lane| (lane ^ 1) * 100).collect::<Vec<_>>());
}

#[test]
fn halves_of_a_warp_shuffle_in_their_own_branches() {
    let body = "setp.lt.u32 %p1, %r0, 16; @%p1 bra LOW;
        shfl.sync.bfly.b32 %r2, %r0, 1, 31, 0xffff0000; bra OUT;
        LOW: shfl.sync.bfly.b32 %r2, %r0, 2, 31, 0xffff;
        OUT: shfl.sync.idx.b32 %r3, %r2, 31, 31, -1;
        add.s32 %r2, %r2, %r3; st.global.u32 [%rd2], %r2;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 16 { lane ^ 2 } else { lane ^ 1 } + 30).collect();
    assert_eq!(Kernel::warp(body, &[0; 32], 1).run(), expected);
}

#[test]
fn a_sink_takes_what_is_not_wanted() {
    let body = "shfl.sync.up.b32 _|%p1, %r0, 4, 0, -1; mov.u32 %r2, 0; @%p1 mov.u32 %r2, 1;
        elect.sync _|%p2, -1; @%p2 mov.u32 %r2, 7; st.global.u32 [%rd2], %r2;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane == 0 { 7 } else { u32::from(lane >= 4) }).collect();
    assert_eq!(Kernel::warp(body, &[0; 32], 1).run(), expected);
}

const COLLECTIVES: &str = "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd3];
    setp.ne.u32 %p1, %r4, 0;
    vote.sync.all.pred %p2, %p1, %r5; mov.u32 %r6, 0; @%p2 mov.u32 %r6, 1; st.global.u32 [%rd2], %r6;
    vote.sync.any.pred %p2, %p1, %r5; mov.u32 %r6, 0; @%p2 mov.u32 %r6, 1; st.global.u32 [%rd2+4], %r6;
    vote.sync.uni.pred %p2, !%p1, %r5; mov.u32 %r6, 0; @%p2 mov.u32 %r6, 1; st.global.u32 [%rd2+8], %r6;
    vote.sync.ballot.b32 %r6, !%p1, %r5; st.global.u32 [%rd2+12], %r6;
    match.any.sync.b32 %r6, %r4, %r5; st.global.u32 [%rd2+16], %r6;
    match.all.sync.b32 %r6|%p2, %r4, %r5; @%p2 add.s32 %r6, %r6, 1; st.global.u32 [%rd2+20], %r6;
    mul.wide.u32 %rd5, %r4, 0x80000001; match.any.sync.b64 %r6, %rd5, %r5; st.global.u32 [%rd2+24], %r6;
    redux.sync.add.s32 %r6, %r2, %r5; st.global.u32 [%rd2+28], %r6;
    redux.sync.min.u32 %r6, %r2, %r5; st.global.u32 [%rd2+32], %r6;
    redux.sync.max.u32 %r6, %r2, %r5; st.global.u32 [%rd2+36], %r6;
    redux.sync.min.s32 %r6, %r2, %r5; st.global.u32 [%rd2+40], %r6;
    redux.sync.max.s32 %r6, %r2, %r5; st.global.u32 [%rd2+44], %r6;
    redux.sync.and.b32 %r6, %r2, %r5; st.global.u32 [%rd2+48], %r6;
    redux.sync.or.b32 %r6, %r2, %r5; st.global.u32 [%rd2+52], %r6;
    redux.sync.xor.b32 %r6, %r2, %r5; st.global.u32 [%rd2+56], %r6;
    elect.sync %r6|%p2, %r5; @%p2 add.s32 %r6, %r6, 100; st.global.u32 [%rd2+60], %r6;";

#[test]
fn votes_matches_and_reductions_over_any_partition_of_the_warp() {
    let mut random = Random(2);
    for round in 0..60 {
        let parts = 1 + round % 4;
        let part: [u32; 32] = std::array::from_fn(|_| random.below(parts));
        let (kinds, base) = (1 + random.below(3), random.below(2));
        let lanes: Vec<[u32; 4]> = (0..32)
            .map(|lane| {
                let mask = (0..32).filter(|&other| part[other] == part[lane]).fold(0, |mask, other| mask | 1 << other);
                [random.word(), 0, base + random.below(kinds), mask]
            })
            .collect();
        let got = Kernel::warp(COLLECTIVES, lanes.as_flattened(), 16).run();
        for lane in 0..32 {
            let [_, _, key, mask] = lanes[lane];
            let members: Vec<usize> = (0..32).filter(|&other| part[other] == part[lane]).collect();
            let values: Vec<u32> = members.iter().map(|&other| lanes[other][0]).collect();
            let keys: Vec<u32> = members.iter().map(|&other| lanes[other][2]).collect();
            let mask_of = |f: &dyn Fn(u32) -> bool| {
                members.iter().zip(&keys).filter(|&(_, &key)| f(key)).fold(0u32, |mask, (&other, _)| mask | 1 << other)
            };
            let signed = || values.iter().map(|&value| value as i32);
            let same = keys.iter().all(|&other| other == key);
            let expected = [
                u32::from(keys.iter().all(|&key| key != 0)),
                u32::from(keys.iter().any(|&key| key != 0)),
                u32::from(keys.iter().all(|&key| key == 0) || keys.iter().all(|&key| key != 0)),
                mask_of(&|key| key == 0),
                mask_of(&|other| other == key),
                if same { mask.wrapping_add(1) } else { 0 },
                mask_of(&|other| other == key),
                values.iter().fold(0, |sum: u32, &value| sum.wrapping_add(value)),
                *values.iter().min().unwrap(),
                *values.iter().max().unwrap(),
                signed().min().unwrap() as u32,
                signed().max().unwrap() as u32,
                values.iter().fold(!0, |all, &value| all & value),
                values.iter().fold(0, |all, &value| all | value),
                values.iter().fold(0, |all, &value| all ^ value),
                members[0] as u32 + if members[0] == lane { 100 } else { 0 },
            ];
            assert_eq!(got[lane * 16..lane * 16 + 16], expected, "round {round} lane {lane}");
        }
    }
}

#[test]
fn float_reductions_order_zeros_and_pass_nan_over_or_on() {
    let operations = ["min", "max", "min.abs", "max.abs", "min.NaN", "max.abs.NaN"];
    let body: String =
        operations.iter().enumerate().fold("ld.global.v2.u32 {%r2, %r3}, [%rd3];".into(), |body, (at, operation)| {
            body + &format!("redux.sync.{operation}.f32 %r4, %r2, %r3; st.global.u32 [%rd2+{}], %r4;", 4 * at)
        });
    let nan = 0x7fff_ffffu32;
    let bits = |value: f32| value.to_bits();
    // Values of four groups of lanes, and the results of the six operations.
    let groups: [(Vec<u32>, [u32; 6]); 4] = [
        (vec![bits(0.0), bits(-0.0)], [bits(-0.0), bits(0.0), 0, 0, bits(-0.0), 0]),
        (vec![0xffc0_0001, bits(-3.0), bits(1e-40)], [bits(-3.0), bits(1e-40), bits(1e-40), bits(3.0), nan, nan]),
        (vec![0x7fc0_0000, 0xff80_0001], [nan; 6]),
        (vec![bits(-2.5)], [bits(-2.5), bits(-2.5), bits(2.5), bits(2.5), bits(-2.5), bits(2.5)]),
    ];
    let (mut inputs, mut expected) = (Vec::new(), Vec::new());
    for lane in 0..32usize {
        let mask = 0xff << (lane / 8 * 8);
        let (values, results) = &groups[lane / 8];
        inputs.extend([values[lane % values.len()], mask]);
        expected.extend(results);
    }
    assert_eq!(Kernel::warp(&body, &inputs, 6).run(), expected);
}

#[test]
fn active_lanes_see_each_other() {
    let body = "setp.lt.u32 %p1, %r0, 5; @%p1 bra FEW; activemask.b32 %r2; st.global.u32 [%rd2], %r2; ret;
        FEW: activemask.b32 %r2; st.global.u32 [%rd2], %r2;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 5 { 0x1f } else { !0x1f }).collect();
    assert_eq!(Kernel::warp(body, &[0; 32], 1).natural(), expected);
}

#[test]
fn planted_faults_are_found() {
    let warp = |body: &'static str| Kernel::warp(body, &[0; 32], 1);
    let store = "st.global.u32 [%rd2], %r2;";
    let finding = warp("shfl.sync.down.b32 %r2, %r0, 4, 31, 0xff; st.global.u32 [%rd2], %r2;");
    let (_, report) = finding.launch(|_| ()).unwrap();
    assert!(report.findings.iter().any(|f| f.message.contains("does not name it")), "{:?}", report.findings);
    // The upper half has its own mask, whose lanes the lower half reads.
    let body = format!(
        "mov.u32 %r3, 0xffff0000; setp.lt.u32 %p1, %r0, 16; @%p1 mov.u32 %r3, 0xffff;
        shfl.sync.down.b32 %r2, %r0, 4, 31, %r3; {store}"
    );
    let finding =
        Kernel::warp(&body, &[0; 32], 1).expect(Kind::MissingLanes, "lane 12 reads the value of lane 16, which does not take part");
    assert_eq!((finding.count, finding.thread), (4, [12, 0, 0]));
    // The full mask in a branch that half of the warp takes; the others end.
    let body =
        format!("mov.u32 %r2, 0; setp.lt.u32 %p1, %r0, 16; @!%p1 bra OUT; shfl.sync.bfly.b32 %r2, %r0, 1, 31, -1; OUT: {store}");
    Kernel::warp(&body, &[0; 32], 1).expect(Kind::MissingLanes, "lanes 0-15 came");
    // Lanes of one mask that bring another.
    let body = format!(
        "mov.u32 %r3, -1; setp.eq.u32 %p1, %r0, 9; @%p1 mov.u32 %r3, 0x200; shfl.sync.idx.b32 %r2, %r0, 0, 31, %r3; {store}"
    );
    let (_, report) = Kernel::warp(&body, &[0; 32], 1).launch(|_| ()).unwrap();
    assert!(report.findings.iter().any(|f| f.message.contains("with the mask 0xffffffff, lane 9 in it with 0x00000200")));
    // Exited lanes are not waited for, but cannot be read.
    let body = format!("setp.ge.s32 %p1, %r0, 20; @%p1 bra OUT; shfl.sync.down.b32 %r2, %r0, 8, 31, -1; {store} OUT:");
    let finding = Kernel::warp(&body, &[0; 32], 1).expect(Kind::MissingLanes, "lane 12 reads the value of lane 20");
    assert_eq!(finding.count, 8);
    // Two branches of one warp wait for each other in two places.
    let body = format!(
        "setp.lt.u32 %p1, %r0, 16; @%p1 bra LOW; shfl.sync.bfly.b32 %r2, %r0, 1, 31, -1; bra OUT;
        LOW: shfl.sync.bfly.b32 %r2, %r0, 2, 31, -1; OUT: {store}"
    );
    let (_, report) = Kernel::warp(&body, &[0; 32], 1).launch(|_| ()).unwrap();
    let apart =
        |finding: &ptx_emulator::Finding| finding.kind == Kind::MissingLanes && finding.message.contains("came without lanes");
    assert!(report.findings.len() == 2 && report.findings.iter().all(apart), "{:?}", report.findings);
    warp("shfl.down.b32 %r2, %r0, 1, 31;").refused("does not exist from sm_70 on");
    warp("vote.ballot.b32 %r2, %p0;").refused("does not exist from sm_70 on");
    warp("shfl.sync.down.b64 %rd5, %rd2, 1, 31, -1;").refused("is not supported");
}

#[test]
fn undefined_values_come_from_the_lane_that_is_read() {
    // Only lane 3 has no value, and 11 and 19 get it from there; then only the lanes from `from` on use theirs.
    let using = |how: &str, from: u32| {
        let body = format!(
            "setp.ne.u32 %p1, %r0, 3; @%p1 mov.u32 %r2, 5; {how}
            setp.ge.s32 %p3, %r0, {from}; @%p3 st.global.u32 [%rd2], %r4;"
        );
        let (_, report) = Kernel::warp(&body, &[0; 32], 1).launch(|_| ()).unwrap();
        assert!(report.findings.iter().all(|finding| finding.kind == Kind::Uninitialized));
        report.findings.first().map(|finding| finding.thread[0])
    };
    let shuffles = "shfl.sync.up.b32 %r3, %r2, 8, 0, -1; shfl.sync.up.b32 %r4, %r3, 8, 0, -1;";
    assert_eq!([0, 4, 12, 20].map(|from| using(shuffles, from)), [Some(3), Some(11), Some(19), None]);
    let masks = "mov.u32 %r5, 0xffffff00; setp.lt.u32 %p4, %r0, 8; @%p4 mov.u32 %r5, 0xff;";
    for vote in [
        "setp.eq.u32 %p2, %r2, 5; vote.sync.ballot.b32 %r4, %p2, %r5;",
        "redux.sync.add.u32 %r4, %r2, %r5;",
        "match.any.sync.b32 %r4, %r2, %r5;",
        "match.all.sync.b32 %r4|%p2, %r2, %r5;",
    ] {
        // The eight lanes whose mask names lane 3.
        assert_eq!([0, 7, 8].map(|from| using(&format!("{masks} {vote}"), from)), [Some(0), Some(7), None], "{vote}");
    }
}
