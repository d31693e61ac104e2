//! `wgmma` in whole programs: products against plain loops, and mistakes planted in its protocol.

mod host;

use host::elements::{bits, numbers, product, width};
use host::{Outcome, kernel, registers, run, run_with};
use ptx_emulator::tensor::descriptor::{Descriptor, Major};
use ptx_emulator::tensor::fragment::Fragment;
use ptx_emulator::tensor::swizzle::Swizzle;
use ptx_emulator::{Kind, Order};

/// Shared address of the first variable.
const TILE: u32 = 1024;

/// One product and where its operands are.
#[derive(Debug, Clone, Copy)]
struct Case {
    n: usize,
    d: &'static str,
    a: &'static str,
    b: &'static str,
    majors: (Major, Major),
    swizzles: (Swizzle, Swizzle),
    a_in_registers: bool,
    accumulate: bool,
    scales: (i32, i32),
    saturate: bool,
}

const BF16: Case = Case {
    n: 64,
    d: "f32",
    a: "bf16",
    b: "bf16",
    majors: (Major::K, Major::K),
    swizzles: (Swizzle::B128, Swizzle::B128),
    a_in_registers: false,
    accumulate: true,
    scales: (1, 1),
    saturate: false,
};

impl Case {
    fn k(&self) -> usize {
        256 / width(self.a)
    }

    /// Descriptors of A and B, packed one behind the other.
    fn descriptors(&self) -> (Descriptor, Descriptor, u32) {
        let pack = |start: u32, rows: usize, major: Major, swizzle: Swizzle| {
            let (rows, span) = (rows as u32, swizzle.span());
            let (leading, stride, bytes) = match (major, swizzle) {
                (Major::K, Swizzle::None) => (16 * rows, 128, 32 * rows),
                (Major::K, _) => (0, 8 * span, rows * span),
                // 16 lines of K; the type has 16 bits.
                (Major::Mn, Swizzle::None) => (128, 256, 32 * rows),
                (Major::Mn, _) => (16 * span, 8 * span, 16 * span * (2 * rows).div_ceil(span)),
            };
            (Descriptor { start, leading, stride, base_offset: 0, swizzle }, (start + bytes).next_multiple_of(1024))
        };
        let (a, end) = pack(TILE, 64, self.majors.0, self.swizzles.0);
        let (b, end) = pack(end, self.n, self.majors.1, self.swizzles.1);
        (a, b, (end - TILE).next_multiple_of(2048))
    }

    fn instruction(&self) -> String {
        let saturate = if self.saturate { ".satfinite" } else { "" };
        let a = if self.a_in_registers { format!("{{{}}}", registers("a", 4)) } else { "%desc0".into() };
        let scales = if self.d == "s32" { String::new() } else { format!(", {}, {}", self.scales.0, self.scales.1) };
        let transposed = |major: Major| u32::from(major == Major::Mn);
        let transpositions = match (width(self.a), self.a_in_registers) {
            (16, true) => format!(", {}", transposed(self.majors.1)),
            (16, false) => format!(", {}, {}", transposed(self.majors.0), transposed(self.majors.1)),
            _ => String::new(),
        };
        format!(
            "wgmma.mma_async.sync.aligned.m64n{}k{}{saturate}.{}.{}.{} {{{}}}, {a}, %desc1, %p{scales}{transpositions};\n",
            self.n,
            self.k(),
            self.d,
            self.a,
            self.b,
            registers("d", self.registers())
        )
    }

    fn registers(&self) -> usize {
        self.n * width(self.d) / 64
    }

    /// A program of four warps that fills shared memory, A's and D's registers, does `steps` and stores D.
    fn program(&self, steps: &str) -> String {
        let (a, b, bytes) = self.descriptors();
        let mut body = String::from("add.s64 %in0, %in0, %sixteen;\nadd.s64 %in1, %in1, %four;\nadd.s64 %in2, %in2, %four;\n");
        body += &format!(
            "mov.u32 %base, tile;\nmad.lo.u32 %base, %lane, 16, %base;\nsetp.eq.u32 %p, 1, {};\n",
            u32::from(self.accumulate)
        );
        for at in (0..bytes).step_by(2048) {
            let words = "{%w0, %w1, %w2, %w3}";
            body += &format!("ld.global.v4.b32 {words}, [%in0+{at}];\nst.shared.v4.b32 [%base+{at}], {words};\n");
        }
        for r in 0..4 {
            body += &format!("ld.global.b32 %a{r}, [%in1+{}];\n", 512 * r);
        }
        for r in 0..self.registers() {
            body += &format!("ld.global.b32 %d{r}, [%in2+{}];\n", 512 * r);
        }
        let bits = |descriptor: Descriptor| descriptor.encode().unwrap();
        body += &format!("mov.b64 %desc0, {};\nmov.b64 %desc1, {};\n{PROXY_FENCE}bar.sync 0;\n", bits(a), bits(b));
        body += "add.s64 %out, %out, %four;\n";
        body += steps;
        for r in 0..self.registers() {
            body += &format!("st.global.b32 [%out+{}], %d{r};\n", 512 * r);
        }
        let declarations = format!(
            ".reg .b32 %w<4>, %a<4>, %d<128>, %e<128>, %base;\n.reg .b64 %desc<2>;\n.reg .pred %p, %q;\n\
             .shared .align 1024 .b8 tile[{bytes}];"
        );
        kernel(4, &declarations, &body)
    }

    /// The inputs of the program: shared memory's image, A's registers, D's.
    fn inputs(&self) -> ([Vec<u32>; 3], [Vec<i32>; 3]) {
        let (n, k) = (self.n, self.k());
        let a = numbers(64 * k, 1, self.a.starts_with('u'));
        let b = numbers(n * k, 5, self.b.starts_with('u'));
        let d = numbers(64 * n, 9, false);
        let (tile_a, tile_b, bytes) = self.descriptors();
        let mut image = vec![0u8; bytes as usize];
        let mut place = |tile: Descriptor, major, row: usize, x: usize, ty: &str, value| {
            let size = width(ty) / 8;
            let at = (tile.address(major, row as u32, x as u32, size as u32) - TILE) as usize;
            image[at..at + size].copy_from_slice(&bits(ty, value).to_le_bytes()[..size]);
        };
        for x in 0..k {
            (0..64).for_each(|row| place(tile_a, self.majors.0, row, x, self.a, a[row * k + x]));
            (0..n).for_each(|column| place(tile_b, self.majors.1, column, x, self.b, b[x * n + column]));
        }
        let image = image.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
        let of_a = Fragment::a(16, k, 32 / width(self.a));
        let registers_a = deal(of_a, k, self.a, &a);
        ([image, registers_a, self.accumulators(&d)], [a, b, d])
    }

    fn accumulators(&self, values: &[i32]) -> Vec<u32> {
        deal(Fragment::accumulator(16, self.n, 32 / width(self.d)), self.n, self.d, values)
    }

    #[track_caller]
    fn run(&self, steps: &str) -> Outcome {
        run(&self.program(steps), 128, &self.inputs().0, 128 * self.registers())
    }

    fn check(&self) {
        let steps = format!(
            "wgmma.fence.sync.aligned;\n{}wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n",
            self.instruction()
        );
        let (_, [mut a, b, d]) = self.inputs();
        a.iter_mut().for_each(|a| *a *= self.scales.0 * self.scales.1);
        let added = if self.accumulate { d } else { vec![0; 64 * self.n] };
        let expected = self.accumulators(&product((64, self.n, self.k()), &a, &b, &added));
        let outcome = self.run(&steps);
        assert_eq!(outcome.report.counters.total().flops, 2 * 64 * (self.n * self.k()) as u64);
        assert_eq!(outcome.clean(), expected, "{self:?}");
    }
}

/// The registers of four warps, each with 16 rows of a matrix: register by register, thread by thread.
fn deal(fragment: Fragment, columns: usize, ty: &str, values: &[i32]) -> Vec<u32> {
    let mut registers = vec![0; fragment.registers() * 128];
    for (index, &value) in values.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let place = fragment.place(row % 16, column);
        registers[place.register * 128 + row / 16 * 32 + place.lane] |= (bits(ty, value) as u32) << (place.part * width(ty));
    }
    registers
}

#[test]
fn every_width_multiplies() {
    for n in (8..=256).step_by(8) {
        Case { n, ..BF16 }.check();
    }
}

#[test]
fn every_type_multiplies_from_shared_memory_and_registers() {
    let floats = [("f32", "f16"), ("f16", "f16"), ("f32", "bf16"), ("f32", "tf32")].map(|(d, a)| (d, a, a));
    let mut types = floats.to_vec();
    for (names, accumulators) in [(["e4m3", "e5m2"], &["f16", "f32"][..]), (["s8", "u8"], &["s32"])] {
        for a in names {
            types.extend(names.iter().flat_map(|&b| accumulators.iter().map(move |&d| (d, a, b))));
        }
    }
    for (d, a, b) in types {
        for swizzle in Swizzle::ALL {
            for a_in_registers in [false, true] {
                let case = Case { d, a, b, swizzles: (swizzle, swizzle), a_in_registers, n: 48, ..BF16 };
                case.check();
                if d == "s32" {
                    Case { saturate: true, ..case }.check();
                }
            }
        }
    }
}

#[test]
fn tiles_are_transposed() {
    for a in ["f16", "bf16"] {
        for x in Swizzle::ALL {
            for y in Swizzle::ALL {
                for majors in [(Major::K, Major::Mn), (Major::Mn, Major::K), (Major::Mn, Major::Mn)] {
                    Case { a, b: a, n: 72, majors, swizzles: (x, y), ..BF16 }.check();
                }
            }
            Case { a, b: a, majors: (Major::K, Major::Mn), swizzles: (x, x), a_in_registers: true, ..BF16 }.check();
        }
    }
}

#[test]
fn operands_are_negated_and_accumulators_left_out() {
    for scales in [(1, 1), (-1, 1), (1, -1), (-1, -1)] {
        for accumulate in [false, true] {
            Case { scales, accumulate, ..BF16 }.check();
            Case { scales, accumulate, a: "f16", b: "f16", d: "f16", a_in_registers: true, ..BF16 }.check();
        }
    }
}

const PROXY_FENCE: &str = "fence.proxy.async.shared::cta;\n";
const FENCE: &str = "wgmma.fence.sync.aligned;\n";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;\n";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";

/// The same product into the registers `%e`.
fn other(case: Case) -> String {
    case.instruction().replace("%d", "%e").replace("%eesc", "%desc")
}

fn zeros(case: Case) -> String {
    (0..case.registers()).map(|r| format!("mov.b32 %e{r}, 0;\n")).collect()
}

#[test]
fn results_are_waited_for() {
    let mma = BF16.instruction();
    let first = format!("{}{FENCE}{mma}{mma}{COMMIT}", zeros(BF16));
    BF16.run(&format!("{first}{WAIT}")).clean();
    let early = BF16.run(&first);
    let finding = early.only(Kind::NotWaitedFor);
    assert!(finding.message.contains("`%d0` is an accumulator of the wgmma at PTX line"), "{finding}");
    assert_eq!(early.findings.len(), BF16.registers());
    // Reading, writing and copying them are all the same.
    BF16.run(&format!("{first}mov.b32 %w0, %d3;\n{WAIT}")).only(Kind::NotWaitedFor);
    BF16.run(&format!("{first}mov.b32 %d3, %w0;\n{WAIT}")).only(Kind::NotWaitedFor);
    BF16.run(&format!("{first}mov.b32 %e3, %w0;\n{WAIT}")).clean();
    // Of two groups the last may go on.
    let two = format!("{first}{}{COMMIT}wgmma.wait_group.sync.aligned 1;\n", other(BF16));
    BF16.run(&format!("{two}add.f32 %d3, %d3, %d3;\n")).clean();
    BF16.run(&format!("{two}add.f32 %d3, %e3, %e3;\n")).only(Kind::NotWaitedFor);
    // What was not committed is not waited for.
    let uncommitted = BF16.run(&format!("{FENCE}{mma}{WAIT}"));
    assert!(uncommitted.only(Kind::NotWaitedFor).message.contains("not even committed"));
}

#[test]
fn fences_stand_between_other_accesses_and_products() {
    let mma = BF16.instruction();
    let rest = format!("{COMMIT}{WAIT}");
    let missing = BF16.run(&format!("{mma}{rest}"));
    assert!(missing.only(Kind::InvalidOperation).message.contains("before the first wgmma"));
    let late = BF16.run(&format!("{FENCE}mov.b32 %d5, 0;\n{mma}{rest}"));
    let finding = late.only(Kind::InvalidOperation);
    assert!(finding.message.contains("no wgmma.fence since `%d5` was accessed at PTX line"), "{finding}");
    assert_eq!(finding.count, 4, "once per warp");
    BF16.run(&format!("mov.b32 %d5, 0;\n{FENCE}{mma}{rest}")).clean();
    // Reading counts as well, and the fence of the last time does not help.
    BF16.run(&format!("{FENCE}{mma}{rest}mov.b32 %w0, %d5;\n{mma}{rest}")).only(Kind::InvalidOperation);
    BF16.run(&format!("{FENCE}{mma}{rest}mov.b32 %w0, %d5;\n{FENCE}{mma}{rest}")).clean();
    // Two shapes on the same registers.
    let narrow = Case { n: 32, ..BF16 }.instruction();
    BF16.run(&format!("{FENCE}{mma}{narrow}{rest}")).only(Kind::InvalidOperation);
    BF16.run(&format!("{FENCE}{mma}{rest}{FENCE}{narrow}{rest}")).clean();
}

#[test]
fn fragments_of_a_stay_as_they_are_until_waited_for() {
    let case = Case { a_in_registers: true, ..BF16 };
    let (mma, rest) = (case.instruction(), format!("{COMMIT}{WAIT}"));
    case.run(&format!("{FENCE}{mma}{mma}{rest}")).clean();
    let changed = case.run(&format!("{FENCE}{mma}{COMMIT}mov.b32 %a2, 0;\n{WAIT}"));
    assert!(changed.only(Kind::NotWaitedFor).message.contains("`%a2` is a part of A"));
    case.run(&format!("{FENCE}{mma}{rest}mov.b32 %a2, 0;\n{mma}{rest}")).only(Kind::InvalidOperation);
    case.run(&format!("{FENCE}{mma}{rest}mov.b32 %a2, 0;\n{FENCE}{mma}{rest}")).clean();
}

#[test]
fn shared_memory_is_not_overwritten_under_a_product() {
    let mma = BF16.instruction();
    let store = "st.shared.b32 [%base], %w0;\n";
    let early = BF16.run(&format!("{FENCE}{mma}{COMMIT}bar.sync 0;\n{store}{WAIT}"));
    assert!(early.only(Kind::OperandInFlight).message.contains("wgmma"), "{}", early.findings[0]);
    BF16.run(&format!("{FENCE}{mma}{COMMIT}{WAIT}bar.sync 0;\n{store}")).clean();
    // The first of two groups is done, and with it its operands; both read the same ones here.
    let two = format!("{}{FENCE}{mma}{COMMIT}{}{COMMIT}wgmma.wait_group.sync.aligned 1;\nbar.sync 0;\n", zeros(BF16), other(BF16));
    BF16.run(&format!("{two}{store}{WAIT}")).only(Kind::OperandInFlight);
    let stmatrix = "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%base], {%w0, %w1, %w2, %w3};\n";
    BF16.run(&format!("{FENCE}{mma}{COMMIT}bar.sync 0;\n{stmatrix}{WAIT}")).only(Kind::OperandInFlight);
    BF16.run(&format!("{FENCE}{mma}{COMMIT}{WAIT}bar.sync 0;\n{stmatrix}")).clean();
}

/// A product is one operation of four warps: whoever has waited for it knows that the others have read their operands too.
#[test]
fn one_thread_hands_operands_back_for_the_warpgroup() {
    let mma = BF16.instruction();
    let store = "setp.eq.u32 %q, %lane, 0;\n@%q st.shared.b32 [%base], %w0;\n";
    BF16.run(&format!("{FENCE}{mma}{COMMIT}{WAIT}{store}")).clean();
    assert!(!BF16.run(&format!("{FENCE}{mma}{COMMIT}{store}{WAIT}")).findings.is_empty());
}

#[test]
fn what_threads_write_is_seen_behind_a_proxy_fence() {
    let program = BF16.program(&format!("{FENCE}{}{COMMIT}{WAIT}", BF16.instruction()));
    let run = |program: &str| run(program, 128, &BF16.inputs().0, 128 * BF16.registers());
    run(&program).clean();
    for weak in ["", "fence.acq_rel.cta;\n"] {
        let found = run(&program.replace(PROXY_FENCE, weak));
        assert!(found.only(Kind::MissingProxyFence).message.contains("st.shared"), "{}", found.findings[0]);
    }
    // The warps that multiply may fence what others have written.
    run(&program.replace(&format!("{PROXY_FENCE}bar.sync 0;\n"), &format!("bar.sync 0;\n{PROXY_FENCE}"))).clean();
}

#[test]
fn descriptors_are_checked() {
    let steps = format!("{FENCE}{}{COMMIT}{WAIT}", BF16.instruction());
    let with = |a: String| BF16.run(&format!("mov.b64 %desc0, {a};\n{steps}"));
    let bits = |start: u32| Descriptor { start, ..BF16.descriptors().0 }.encode().unwrap().to_string();
    with(bits(TILE)).clean();
    let shifted = Descriptor { start: TILE + 0x80, base_offset: 2, ..BF16.descriptors().0 }.encode().unwrap().to_string();
    assert!(with(shifted).only(Kind::InvalidOperation).message.contains("align the buffer to 1024"));
    assert!(with((1u64 << 62 | 1 << 52).to_string()).only(Kind::InvalidOperation).message.contains("reserved bits"));
    let outside = with(bits(0x20000));
    assert!((0x20000..0x22000).contains(&outside.only(Kind::OutOfBounds).address.unwrap()));
    let differing = BF16.run(&format!("setp.gt.u32 %q, %lane, 120;\n@%q mov.b64 %desc0, 0;\n{steps}"));
    assert!(differing.findings[0].kind == Kind::InvalidOperation && differing.findings[0].message.contains("differs"));
    let scale = BF16.run(&format!("setp.lt.u32 %p, %lane, 7;\n{steps}"));
    assert!(scale.only(Kind::InvalidOperation).message.contains("scale-d differs"));
}

#[test]
fn a_warpgroup_has_four_whole_warps() {
    let program = BF16.program(&format!("{FENCE}{}{COMMIT}{WAIT}", BF16.instruction()));
    let outcome = run(&program, 64, &BF16.inputs().0, 128 * BF16.registers());
    assert!(outcome.findings.iter().any(|finding| finding.message.contains("four warps")));
    let alone = BF16.program(&format!("{FENCE}setp.lt.u32 %q, %lane, 7;\n@%q {}", BF16.instruction()));
    let outcome = run(&alone, 128, &BF16.inputs().0, 128 * BF16.registers());
    assert!(outcome.findings.iter().any(|finding| finding.kind == Kind::MissingLanes));
}

#[test]
fn undefined_operands_make_their_rows_and_columns_undefined() {
    let steps = format!("{FENCE}{}{COMMIT}{WAIT}", BF16.instruction());
    let inputs = |case: Case| case.inputs().0.map(|words| words.into_iter().map(Some).collect::<Vec<_>>());
    let run = |case: Case, inputs: &[Vec<Option<u32>>], steps: &str| {
        run_with(&case.program(steps), 128, inputs, 128 * case.registers(), Order::Natural)
    };
    // Row 19 of A is row 3 of the second warp: its lanes 12 to 15 hold it, in every other pair of registers.
    let mut a = inputs(BF16);
    let at = BF16.descriptors().0.address(Major::K, 19, 4, 2) - TILE;
    a[0][at as usize / 4] = None;
    let outcome = run(BF16, &a, &steps);
    assert_eq!(outcome.only(Kind::Uninitialized).thread, [32 + 12, 0, 0]);
    assert_eq!(outcome.findings.len(), BF16.registers() / 2);
    // Column 9 of B: the lanes whose pair of columns it is in, of all warps, in the second block's odd registers.
    let mut b = inputs(BF16);
    let at = BF16.descriptors().1.address(Major::K, 9, 4, 2) - TILE;
    b[0][at as usize / 4] = None;
    let outcome = run(BF16, &b, &steps);
    let stores: Vec<&str> = outcome.findings.iter().map(|f| f.place.as_ref().unwrap().instruction.as_str()).collect();
    assert_eq!(stores.len(), 2, "{stores:?}");
    assert!(stores[0].ends_with("%d5;") && stores[1].ends_with("%d7;"), "{stores:?}");
    // An accumulator that is not added need not be defined.
    let mut d = inputs(BF16);
    d[2].fill(None);
    let outcome = run(BF16, &d, &steps);
    assert_eq!(outcome.findings.len(), BF16.registers());
    run(Case { accumulate: false, ..BF16 }, &d, &steps).clean();
}

#[test]
fn forms_that_ptx_does_not_have_are_refused() {
    let refused = |case: Case, change: (&str, &str)| {
        let program = case.program(&case.instruction()).replace(change.0, change.1);
        ptx_emulator::Program::parse(&program).err().unwrap().to_string()
    };
    assert!(refused(BF16, ("m64n64k16", "m64n64k8")).contains("m64n64k16"));
    assert!(refused(BF16, ("m64n64k16", "m64n60k16")).contains("multiple of 8"));
    assert!(refused(BF16, ("%d31}", "%d31, %e0}")).contains("D takes 32 registers"));
    assert!(refused(BF16, ("1, 1, 0, 0", "1, 2, 0, 0")).contains("imm-scale"));
    assert!(refused(BF16, ("1, 1, 0, 0", "1, 1, 2, 0")).contains("imm-trans"));
    assert!(refused(BF16, ("1, 1, 0, 0", "1, 1, 0")).contains("immediate operands"));
    assert!(refused(BF16, (".target sm_90a", ".target sm_90")).contains("sm_90a"));
}
