//! Speed of whole kernels on the matrix units, on one core: multiply-adds per second with and without the checkers.
//!
//! `cargo bench -p ptx-emulator --bench matrix`, or with `-- unchecked`, `-- wgmma` and so on only those whose name has this word.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use ptx_emulator::{Device, Launch, Program, Result};

fn main() -> Result<()> {
    report("ldmatrix, mma.m16n8k16 bf16", &mma(), 8 * 2048)?;
    report("wgmma.m64n128k16 bf16", &wgmma(128), 16 * 128 * 16)?;
    report("wgmma.m64n256k16 bf16", &wgmma(256), 16 * 256 * 16)
}

/// A kernel of four warps that runs `step` in a loop; `%tile` is the shared address of 40 KiB of zeros.
fn kernel(step: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u32 steps)\n{{\n\
         .reg .b32 %tile, %steps, %row, %lane, %a<8>, %b<8>, %d<128>;\n.reg .b64 %x, %y;\n.reg .pred %p;\n\
         .shared .align 1024 .b8 tile[40960];\nld.param.u32 %steps, [steps];\nmov.u32 %tile, tile;\nmov.u32 %lane, %tid.x;\n\
         mad.lo.u32 %row, %lane, 16, %tile;\n{}{}fence.proxy.async.shared::cta;\nbar.sync 0;\nmov.b64 %x, {};\nmov.b64 %y, {};\n\
         loop:\n{step}sub.u32 %steps, %steps, 1;\nsetp.ne.u32 %p, %steps, 0;\n@%p bra loop;\nret;\n}}\n",
        lines(20, |i| format!("st.shared.v4.b32 [%row+{}], {{0, 0, 0, 0}};", 2048 * i)),
        lines(128, |i| format!("mov.b32 %d{i}, 0;")),
        // Swizzle of 128 bytes, 8 rows in 1024 bytes.
        1u64 << 62 | 64 << 32 | 0x40,
        1u64 << 62 | 64 << 32 | 0x240,
    )
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, i| {
        let _ = writeln!(text, "{}", line(i));
        text
    })
}

fn list(name: &str, registers: std::ops::Range<usize>) -> String {
    registers.map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ")
}

/// 16 k of a warp's tile of 32 × 32: what the inner loop of a matmul does.
fn mma() -> String {
    let mut step = String::new();
    for (i, name) in ["a", "b"].into_iter().enumerate() {
        let trans = if name == "b" { ".trans" } else { "" };
        for half in 0..2 {
            let registers = list(name, 4 * half..4 * half + 4);
            let at = 4096 * i + 512 * half;
            let _ = writeln!(step, "ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{{registers}}}, [%row+{at}];");
        }
    }
    for i in 0..2 {
        for j in 0..4 {
            let (d, a, b) = (16 * i + 4 * j, 4 * i, 2 * j);
            let (d, a, b) = (list("d", d..d + 4), list("a", a..a + 4), list("b", b..b + 2));
            let _ = writeln!(step, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{{d}}}, {{{a}}}, {{{b}}}, {{{d}}};");
        }
    }
    kernel(&step)
}

fn wgmma(n: usize) -> String {
    let d = list("d", 0..n / 2);
    kernel(&format!(
        "wgmma.fence.sync.aligned;\nwgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{d}}}, %x, %y, 1, 1, 1, 0, 0;\n\
         wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
    ))
}

/// Times a block of four warps, each of which does `products` multiply-adds per step; best of five.
fn report(name: &str, ptx: &str, products: u64) -> Result<()> {
    let program = Arc::new(Program::parse(ptx)?);
    let steps = (400_000_000 / (4 * products)) as u32;
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for checked in [false, true] {
        let name = format!("{name}, {}", if checked { "checked" } else { "unchecked" });
        if !words.iter().all(|word| name.split([' ', ',']).any(|part| part == word)) {
            continue;
        }
        let mut best = f64::MAX;
        for _ in 0..5 {
            let mut device = Device::new();
            let module = device.load(Arc::clone(&program))?;
            let launch = Launch { checked, workers: Some(1), ..Launch::new([1; 3], [128, 1, 1], steps.to_le_bytes().to_vec()) };
            let start = Instant::now();
            let report = device.launch(&module, "k", &launch)?;
            best = best.min(start.elapsed().as_secs_f64());
            assert!(report.findings.is_empty(), "{}", report.findings[0]);
        }
        let speed = (4 * products * u64::from(steps)) as f64 / best / 1e9;
        println!("{name:<40} {speed:5.2} G multiply-adds/s");
    }
    Ok(())
}
