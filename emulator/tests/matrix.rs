//! `ldmatrix`, `stmatrix`, `movmatrix`, `mma` and `wmma` in whole programs, against plain loops over the elements.

mod host;

use host::elements::{bits, numbers, product, width};
use host::{kernel, registers, run, run_with};
use ptx_emulator::tensor::fragment::Fragment;
use ptx_emulator::{Kind, Order};

/// The words of a fragment's registers, register by register, lane by lane (f64: low word, then high word).
fn deal(fragment: Fragment, columns: usize, ty: &str, values: &[i32]) -> Vec<u32> {
    let words = if ty == "f64" { 2 } else { 1 };
    let mut registers = vec![0; fragment.registers() * 32 * words];
    for (index, &value) in values.iter().enumerate() {
        let place = fragment.place(index / columns, index % columns);
        let at = (place.register * 32 + place.lane) * words;
        let shifted = bits(ty, value) << (place.part * width(ty));
        registers[at] |= shifted as u32;
        if words == 2 {
            registers[at + 1] = (shifted >> 32) as u32;
        }
    }
    registers
}

/// A program that loads fragments A, B and C register by register, executes an instruction and stores D.
fn fragments_program(instruction: &str, counts: [usize; 4], words: usize, guard: &str) -> String {
    let (ty, scale, step) = if words == 2 { ("b64", "%eight", 256) } else { ("b32", "%four", 128) };
    let [a, b, c, d] = counts;
    let mut body = String::from("mul.wide.u32 %eight, %lane, 8;\n");
    for (i, (name, count)) in [("a", a), ("b", b), ("c", c)].into_iter().enumerate() {
        body += &format!("add.s64 %in{i}, %in{i}, {scale};\n");
        for r in 0..count {
            body += &format!("ld.global.{ty} %{name}{r}, [%in{i}+{}];\n", r * step);
        }
    }
    let list = |name: &str, count: usize| registers(name, count);
    body += &format!(
        "{instruction} {{{}}}, {{{}}}, {{{}}}, {{{}}};\nadd.s64 %out, %out, {scale};\n",
        list("d", d),
        list("a", a),
        list("b", b),
        list("c", c)
    );
    for r in 0..d {
        body += &format!("{guard} st.global.{ty} [%out+{}], %d{r};\n", r * step);
    }
    kernel(4, &format!(".reg .b64 %eight;\n.reg .pred %p, %q;\n.reg .{ty} %a<8>, %b<8>, %c<8>, %d<8>;"), &body)
}

fn check_mma((m, n, k): (usize, usize, usize), [d, a, b, c]: [&str; 4], saturate: &str) {
    let per = |ty| (32 / width(ty)).max(1);
    let fragments = [
        Fragment::a(m, k, per(a)),
        Fragment::b(k, n, per(b)),
        Fragment::accumulator(m, n, per(c)),
        Fragment::accumulator(m, n, per(d)),
    ];
    let numbers_a = numbers(m * k, 1, a.starts_with('u'));
    let numbers_b = numbers(k * n, 5, b.starts_with('u'));
    let numbers_c = numbers(m * n, 9, false);
    let inputs = [deal(fragments[0], k, a, &numbers_a), deal(fragments[1], n, b, &numbers_b), deal(fragments[2], n, c, &numbers_c)];
    let expected = deal(fragments[3], n, d, &product((m, n, k), &numbers_a, &numbers_b, &numbers_c));
    let instruction = format!("mma.sync.aligned.m{m}n{n}k{k}.row.col{saturate}.{d}.{a}.{b}.{c}");
    let program = fragments_program(&instruction, fragments.map(|f| f.registers()), if d == "f64" { 2 } else { 1 }, "");
    let outcome = run(&program, 32, &inputs, expected.len());
    assert_eq!(outcome.report.counters.total().flops, 2 * (m * n * k) as u64);
    assert_eq!(outcome.clean(), expected, "{instruction}");
}

#[test]
fn every_mma_multiplies() {
    for (shape, a, accumulators) in [
        ((16, 8, 8), "f16", &["f16", "f32"][..]),
        ((16, 8, 16), "f16", &["f16", "f32"]),
        ((16, 8, 8), "bf16", &["f32"]),
        ((16, 8, 16), "bf16", &["f32"]),
        ((16, 8, 4), "tf32", &["f32"]),
        ((16, 8, 8), "tf32", &["f32"]),
        ((8, 8, 4), "f64", &["f64"]),
        ((16, 8, 4), "f64", &["f64"]),
        ((16, 8, 8), "f64", &["f64"]),
        ((16, 8, 16), "f64", &["f64"]),
    ] {
        for d in accumulators {
            check_mma(shape, [d, a, a, d], "");
        }
    }
    for (shapes, types) in [(&[(16, 8, 16), (16, 8, 32)][..], ["e4m3", "e5m2"])] {
        for &shape in shapes {
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                for d in ["f16", "f32"] {
                    check_mma(shape, [d, types[a], types[b], d], "");
                }
            }
        }
    }
    for (shapes, types) in
        [(&[(8, 8, 16), (16, 8, 16), (16, 8, 32)], ["s8", "u8"]), (&[(8, 8, 32), (16, 8, 32), (16, 8, 64)], ["s4", "u4"])]
    {
        for &shape in shapes {
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                // s4 holds -8 to 7, u4 0 to 15.
                check_mma(shape, ["s32", types[a], types[b], "s32"], "");
                check_mma(shape, ["s32", types[a], types[b], "s32"], ".satfinite");
            }
        }
    }
}

#[test]
fn satfinite_clamps_where_it_would_wrap() {
    let inputs = [vec![0x0101_0101; 128], vec![0x0101_0101; 64], vec![i32::MAX as u32 - 3; 128]];
    for (saturate, expected) in [("", (i32::MAX - 3).wrapping_add(32)), (".satfinite", i32::MAX)] {
        let instruction = format!("mma.sync.aligned.m16n8k32.row.col{saturate}.s32.s8.s8.s32");
        let words = run(&fragments_program(&instruction, [4, 2, 4, 4], 1, ""), 32, &inputs, 128).clean();
        assert!(words.iter().all(|&word| word as i32 == expected), "{saturate}");
    }
}

#[test]
fn what_is_undefined_in_a_row_of_a_is_undefined_in_that_row_of_d() {
    let instruction = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32";
    let mut a = vec![Some(0x3f80_3f80); 128];
    // Row 3, columns 2 and 3.
    a[13] = None;
    let inputs = [a, vec![Some(0x3f80_3f80); 64], vec![Some(0); 128]];
    let others = "setp.lt.u32 %p, %lane, 12;\n@%p";
    let outcome = run_with(&fragments_program(instruction, [4, 2, 4, 4], 1, others), 32, &inputs, 128, Order::Natural);
    assert!(outcome.findings.is_empty(), "{}", outcome.findings[0]);
    let outcome = run_with(&fragments_program(instruction, [4, 2, 4, 4], 1, ""), 32, &inputs, 128, Order::Natural);
    outcome.only(Kind::Uninitialized);
    // Registers 0 and 1 hold rows 0 to 7.
    assert_eq!(outcome.findings.len(), 2);
    assert_eq!(outcome.findings[0].thread, [12, 0, 0]);
}

#[test]
fn forms_that_ptx_does_not_have_are_refused() {
    for (instruction, counts, reason) in [
        ("mma.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32", [4, 2, 4, 4], "no shape"),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", [2, 2, 4, 4], "A takes 4 registers"),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", [4, 4, 4, 4], "B takes 2 registers"),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", [4, 2, 2, 4], "C takes 4 registers"),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", [4, 2, 4, 2], "D takes 4 registers"),
        ("mma.sync.aligned.m16n8k16.row.col.satfinite.f32.bf16.bf16.f32", [4, 2, 4, 4], "satfinite"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32", [2, 2, 8, 8], "Volta"),
    ] {
        let error = ptx_emulator::Program::parse(&fragments_program(instruction, counts, 1, "")).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// A program in which lane `l` stores 16 bytes of the input to `tile + l·stride`, then loads matrices.
fn ldmatrix_program(count: usize, modifiers: &str, stride: usize, address: &str) -> String {
    let mut body = format!(
        "add.s64 %in0, %in0, %sixteen;\nld.global.v4.b32 {{%w0, %w1, %w2, %w3}}, [%in0];\nmov.u32 %base, tile;\n\
         mad.lo.u32 %row, %lane, {stride}, %base;\nst.shared.v4.b32 [%row], {{%w0, %w1, %w2, %w3}};\nbar.sync 0;\n\
         mul.wide.u32 %wide, %row, 1;\ncvta.shared.u64 %generic, %wide;\nadd.s64 %out, %out, %four;\n\
         ldmatrix.sync.aligned.m8n8.x{count}{modifiers}.b16 {{{}}}, [{address}];\n",
        registers("r", count)
    );
    for r in 0..count {
        body += &format!("st.global.b32 [%out+{}], %r{r};\n", 128 * r);
    }
    let declarations = ".reg .b32 %w<4>, %r<4>, %base, %row;\n.reg .b64 %wide, %generic;\n.shared .align 128 .b8 tile[4096];";
    kernel(2, declarations, &body)
}

/// 16-bit element (row, column) of matrix `i`, whose rows are the lanes' 16 bytes.
fn element(words: &[u32], i: usize, row: usize, column: usize) -> u32 {
    words[(8 * i + row) * 4 + column / 2] >> (16 * (column % 2)) & 0xffff
}

fn matrices(words: &[u32], count: usize, transpose: bool) -> Vec<u32> {
    let mut expected = Vec::new();
    for i in 0..count {
        for lane in 0..32 {
            let (row, column) = (lane / 4, lane % 4 * 2);
            let at = |column| if transpose { element(words, i, column, row) } else { element(words, i, row, column) };
            expected.push(at(column) | at(column + 1) << 16);
        }
    }
    expected
}

#[test]
fn ldmatrix_deals_rows_to_lanes() {
    let words: Vec<u32> = (0..128).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
    for count in [1, 2, 4] {
        for transpose in [false, true] {
            let trans = if transpose { ".trans" } else { "" };
            for (space, address) in [(".shared", "%row"), (".shared::cta", "%wide"), ("", "%generic")] {
                let program = ldmatrix_program(count, &format!("{trans}{space}"), 48, address);
                let found = run(&program, 32, std::slice::from_ref(&words), 32 * count).clean();
                assert_eq!(found, matrices(&words, count, transpose), "x{count} {trans} {space}");
            }
        }
    }
}

#[test]
fn ldmatrix_counts_a_pass_for_each_matrix_and_its_bank_conflicts() {
    let words = vec![0; 128];
    // Strides in 16-byte units: odd ones are free of conflicts, 2 gives two, 8 puts all rows in the same banks.
    for (stride, passes) in [(16, 4), (48, 4), (32, 8), (64, 16), (128, 32)] {
        let outcome = run(&ldmatrix_program(4, ".shared", stride, "%row"), 32, std::slice::from_ref(&words), 128);
        let line = outcome.report.counters.instructions.iter().find(|line| line.place.instruction.starts_with("ldmatrix")).unwrap();
        assert_eq!((line.tally.wavefronts, line.tally.ideal_wavefronts, line.tally.bytes), (passes, 4, 512), "{stride}");
    }
}

#[test]
fn ldmatrix_is_checked_row_by_row() {
    let words = vec![vec![7; 128]];
    let fault = |address: &str, threads: u32| run(&ldmatrix_program(4, ".shared", 16, address), threads, &words, 128);
    fault("%row", 32).clean();
    let misaligned = fault("%row+8", 32);
    assert_eq!(misaligned.only(Kind::Misaligned).count, 32);
    // Each lane points to the next one's row, the last one behind all.
    let outside = run(&ldmatrix_program(4, ".shared", 16, "%row+16").replace("[4096]", "[512]"), 32, &words, 128);
    let finding = outside.only(Kind::OutOfBounds);
    assert_eq!((finding.count, finding.thread, finding.buffer.clone()), (1, [31, 0, 0], Some(("tile".into(), 512))));
    let half = fault("%row", 16);
    assert!(half.findings[0].kind == Kind::MissingLanes && half.findings[0].message.contains("16-31"), "{}", half.findings[0]);
    let global = run(&ldmatrix_program(4, "", 16, "%in0"), 32, &words, 128);
    assert_eq!(global.only(Kind::OutOfBounds).count, 32);
    let apart = ldmatrix_program(1, ".shared", 16, "%row").replace("ldmatrix", "setp.lt.u32 %p, %lane, 8;\n@%p ldmatrix");
    let apart = apart.replace(".reg .b64 %wide", ".reg .pred %p;\n.reg .b64 %wide");
    assert!(run(&apart, 32, &words, 32).findings.iter().any(|finding| finding.kind == Kind::MissingLanes));
}

#[test]
fn undefined_rows_reach_the_lanes_that_hold_them() {
    let mut words = vec![Some(1); 128];
    // Row 2 of matrix 0, columns 4 and 5.
    words[2 * 4 + 2] = None;
    for (trans, lanes) in [("", vec![10]), (".trans", vec![17, 21])] {
        let program = ldmatrix_program(1, &format!("{trans}.shared"), 16, "%row");
        let outcome = run_with(&program, 32, std::slice::from_ref(&words), 32, Order::Natural);
        let finding = outcome.only(Kind::Uninitialized);
        assert_eq!((finding.thread, finding.count), ([lanes[0], 0, 0], 1), "{trans}");
        // The other lanes alone are defined.
        let mut guarded = program.replace(".reg .b64 %wide", ".reg .pred %p;\n.reg .b64 %wide");
        for lane in &lanes {
            guarded = guarded.replacen("st.global", &format!("setp.eq.u32 %p, %lane, {lane};\n@%p mov.u32 %r0, 0;\nst.global"), 1);
        }
        run_with(&guarded, 32, std::slice::from_ref(&words), 32, Order::Natural).clean();
    }
}

/// A program that stores the registers in the input by `stmatrix` and copies the rows to the output.
fn stmatrix_program(count: usize, modifiers: &str, address: &str) -> String {
    let mut body = String::from(
        "mov.u32 %base, tile;\nmad.lo.u32 %row, %lane, 48, %base;\nmul.wide.u32 %wide, %row, 1;\n\
         cvta.shared.u64 %generic, %wide;\nadd.s64 %in0, %in0, %four;\nadd.s64 %out, %out, %sixteen;\n",
    );
    for r in 0..count {
        body += &format!("ld.global.b32 %r{r}, [%in0+{}];\n", 128 * r);
    }
    body += &format!(
        "stmatrix.sync.aligned.m8n8.x{count}{modifiers}.b16 [{address}], {{{}}};\nbar.sync 0;\nsetp.lt.u32 %p, %lane, {};\n\
         @%p ld.shared.v4.b32 {{%w0, %w1, %w2, %w3}}, [%row];\n@%p st.global.v4.b32 [%out], {{%w0, %w1, %w2, %w3}};\n",
        registers("r", count),
        8 * count
    );
    let declarations =
        ".reg .b32 %w<4>, %r<4>, %base, %row;\n.reg .b64 %wide, %generic;\n.reg .pred %p;\n.shared .align 128 .b8 tile[1536];";
    kernel(2, declarations, &body)
}

#[test]
fn stmatrix_undoes_ldmatrix() {
    let words: Vec<u32> = (0..128).map(|i| 0x8000_4000 + 2 * i + ((2 * i + 1) << 16)).collect();
    for count in [1, 2, 4] {
        for transpose in [false, true] {
            let trans = if transpose { ".trans" } else { "" };
            for (space, address) in [(".shared", "%row"), (".shared::cta", "%wide"), ("", "%generic")] {
                let program = stmatrix_program(count, &format!("{trans}{space}"), address);
                let found = run(&program, 32, &[matrices(&words, count, transpose)], 32 * count).clean();
                assert_eq!(found, words[..32 * count], "x{count} {trans} {space}");
            }
        }
    }
}

#[test]
fn stmatrix_is_checked_row_by_row() {
    let words = vec![vec![7; 128]];
    let misaligned = run(&stmatrix_program(4, ".shared", "%row+4"), 32, &words, 128);
    assert_eq!(misaligned.findings[0].kind, Kind::Misaligned);
    assert_eq!(misaligned.findings[0].count, 32);
    let outside = run(&stmatrix_program(4, ".shared", "%row+48"), 32, &words, 128);
    let finding = outside.findings.iter().find(|finding| finding.kind == Kind::OutOfBounds).unwrap();
    assert_eq!((finding.count, finding.thread), (1, [31, 0, 0]));
    // Lane 5's register undefined: row 1, columns 2 and 3.
    let mut words = vec![Some(1); 128];
    words[5] = None;
    let outcome = run_with(&stmatrix_program(4, ".shared", "%row"), 32, std::slice::from_ref(&words), 128, Order::Natural);
    assert_eq!(outcome.only(Kind::Uninitialized).thread, [1, 0, 0]);
    let outcome = run_with(&stmatrix_program(4, ".trans.shared", "%row"), 32, std::slice::from_ref(&words), 128, Order::Natural);
    // Column 1 of rows 2 and 3.
    assert_eq!(outcome.only(Kind::Uninitialized).thread, [2, 0, 0]);
}

#[test]
fn movmatrix_transposes() {
    let body = "add.s64 %in0, %in0, %four;\nadd.s64 %out, %out, %four;\nld.global.b32 %a, [%in0];\n\
                movmatrix.sync.aligned.m8n8.trans.b16 %b, %a;\nst.global.b32 [%out], %b;\n";
    let program = kernel(2, ".reg .b32 %a, %b;", body);
    let words: Vec<u32> = (0..32).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
    assert_eq!(run(&program, 32, std::slice::from_ref(&words), 32).clean(), matrices(&words, 1, true));
    let mut words = vec![Some(1); 32];
    // Row 0, columns 2 and 3: column 0 of rows 2 and 3.
    words[1] = None;
    let outcome = run_with(&program, 32, &[words], 32, Order::Natural);
    assert_eq!(outcome.only(Kind::Uninitialized).thread, [8, 0, 0]);
}

/// Bytes of a matrix with rows (or columns) of `stride` elements, as words.
fn memory(values: &[i32], columns: usize, by_rows: bool, stride: usize, ty: &str) -> Vec<u32> {
    let rows = values.len() / columns;
    let size = width(ty) / 8;
    let mut bytes = vec![0; (if by_rows { rows } else { columns }) * stride * size];
    for (index, &value) in values.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let at = if by_rows { row * stride + column } else { column * stride + row } * size;
        bytes[at..at + size].copy_from_slice(&bits(ty, value).to_le_bytes()[..size]);
    }
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

fn check_wmma((m, n, k): (usize, usize, usize), [d, a, c]: [&str; 3], layouts: [&str; 4], padding: usize) {
    let ab = if a == "f16" { String::new() } else { format!(".{a}.{a}") };
    let counts = match a {
        "f16" => (8, 8),
        _ => (Fragment::a(m, k, 32 / width(a)).registers(), Fragment::b(k, n, 32 / width(a)).registers()),
    };
    let of = |ty: &str| Fragment::accumulator(m, n, 32 / width(ty)).registers();
    let lists = [registers("a", counts.0), registers("b", counts.1), registers("c", of(c)), registers("d", of(d))];
    let stride = |i: usize, rows: usize, columns: usize| (if layouts[i] == "row" { columns } else { rows }) + padding;
    let strides = [stride(0, m, k), stride(1, k, n), stride(2, m, n), stride(3, m, n)];
    // Without padding the stride is left out.
    let written = strides.map(|stride| if padding == 0 { String::new() } else { format!(", {stride}") });
    let shape = format!("m{m}n{n}k{k}");
    let [la, lb, lc, ld] = layouts;
    let body = format!(
        "wmma.load.a.sync.aligned.{la}.{shape}.global.{a} {{{}}}, [%in0]{};\n\
         wmma.load.b.sync.aligned.{lb}.{shape}.{a} {{{}}}, [%in1]{};\n\
         wmma.load.c.sync.aligned.{lc}.{shape}.global.{c} {{{}}}, [%in2]{};\n\
         wmma.mma.sync.aligned.{la}.{lb}.{shape}.{d}{ab}.{c} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n\
         wmma.store.d.sync.aligned.{ld}.{shape}.global.{d} [%out], {{{}}}{};\n",
        lists[0],
        written[0],
        lists[1],
        written[1],
        lists[2],
        written[2],
        lists[3],
        lists[0],
        lists[1],
        lists[2],
        lists[3],
        written[3]
    );
    let program = kernel(4, ".reg .b32 %a<8>, %b<8>, %c<8>, %d<8>;", &body);
    let unsigned = a == "u8";
    let (x, y, z) = (numbers(m * k, 1, unsigned), numbers(k * n, 5, unsigned), numbers(m * n, 9, false));
    let row = |i: usize| layouts[i] == "row";
    let inputs = [memory(&x, k, row(0), strides[0], a), memory(&y, n, row(1), strides[1], a), memory(&z, n, row(2), strides[2], c)];
    let expected = memory(&product((m, n, k), &x, &y, &z), n, row(3), strides[3], d);
    assert_eq!(run(&program, 32, &inputs, expected.len()).clean(), expected, "{shape} {d} {a} {c} {layouts:?} {padding}");
}

#[test]
fn wmma_loads_multiplies_and_stores() {
    let layouts = [["row", "col", "row", "row"], ["col", "row", "col", "col"], ["row", "row", "col", "row"]];
    for layout in layouts {
        for padding in [0, 16] {
            for shape in [(16, 16, 16), (32, 8, 16), (8, 32, 16)] {
                for types in [["f32", "f16", "f32"], ["f16", "f16", "f16"], ["f32", "f16", "f16"], ["f16", "f16", "f32"]] {
                    check_wmma(shape, types, layout, padding);
                }
                for types in [["f32", "bf16", "f32"], ["s32", "s8", "s32"], ["s32", "u8", "s32"]] {
                    check_wmma(shape, types, layout, padding);
                }
            }
            check_wmma((16, 16, 8), ["f32", "tf32", "f32"], layout, padding);
        }
    }
}

#[test]
fn wmma_is_checked() {
    let program = |stride: &str, address: &str| {
        let body = format!(
            "add.s64 %four, %four, %in0;\nwmma.load.c.sync.aligned.row.m16n16k16.global.f32 {{{0}}}, [{address}], {stride};\n\
             wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%out], {{{0}}}, 16;\n",
            registers("c", 8)
        );
        kernel(2, ".reg .b32 %c<8>;", &body)
    };
    let words = vec![vec![0; 256]];
    run(&program("16", "%in0"), 32, &words, 256).clean();
    run(&program("17", "%in0"), 32, &words, 256).only(Kind::OutOfBounds);
    let different = run(&program("16", "%four"), 32, &words, 256);
    assert!(different.only(Kind::InvalidOperation).message.contains("different addresses"));
    let mut undefined = vec![Some(0); 256];
    // Row 2, column 5: lane 2·4 + 2.
    undefined[37] = None;
    let outcome = run_with(&program("16", "%in0"), 32, &[undefined], 256, Order::Natural);
    assert_eq!(outcome.only(Kind::Uninitialized).thread, [10, 0, 0]);
}
