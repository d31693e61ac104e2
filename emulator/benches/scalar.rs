//! How many warp instructions of each hot scalar kind one core executes per second: a loop of 64 of them, without checks and with.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use ptx_emulator::{Device, Launch, Program};

/// Name and instruction; each writes a register of its own in turn (`#`), so that none waits for the one before.
const INSTRUCTIONS: [(&str, &str); 16] = [
    ("add.f32", "add.f32 %f#, %f8, %f9;"),
    ("mul.f32", "mul.f32 %f#, %f8, %f9;"),
    ("fma.rn.f32", "fma.rn.f32 %f#, %f8, %f9, %f10;"),
    ("fma.rn.ftz.f32", "fma.rn.ftz.f32 %f#, %f8, %f9, %f10;"),
    ("max.f32", "max.f32 %f#, %f8, %f9;"),
    ("ex2.approx.f32", "ex2.approx.f32 %f#, %f8;"),
    ("add.s32", "add.s32 %r#, %r8, %r9;"),
    ("mad.lo.s32", "mad.lo.s32 %r#, %r8, %r9, %r10;"),
    ("mul.wide.s32", "mul.wide.s32 %d#, %r8, %r9;"),
    ("add.s64", "add.s64 %d#, %d8, %d9;"),
    ("shl.b32", "shl.b32 %r#, %r8, 3;"),
    ("setp.lt.s32", "setp.lt.s32 %p#, %r8, %r9;"),
    ("setp.lt.f32", "setp.lt.f32 %p#, %f8, %f9;"),
    ("selp.b32", "selp.b32 %r#, %r8, %r9, %p8;"),
    ("cvt.rn.f32.s32", "cvt.rn.f32.s32 %f#, %r8;"),
    ("cvt.rn.bf16x2.f32", "cvt.rn.bf16x2.f32 %r#, %f8, %f9;"),
];

const PER_TURN: u32 = 64;

fn program(instruction: &str) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u32 n) {\n\
         .reg .b32 %f<12>; .reg .b32 %r<12>; .reg .b64 %d<12>; .reg .pred %p<12>; .reg .b32 %i; .reg .pred %again;\n\
         mov.u32 %r8, %tid.x; mov.u32 %r9, 77; mov.u32 %r10, 5; cvt.u64.u32 %d8, %r8; mov.u64 %d9, 3;\n\
         cvt.rn.f32.s32 %f8, %r8; mov.f32 %f9, 0f3F000001; mov.f32 %f10, 0fBF800000; setp.lt.s32 %p8, %r8, 12;\n\
         ld.param.u32 %i, [n];\nTURN:\n",
    );
    for number in 0..PER_TURN {
        let _ = writeln!(text, "{}", instruction.replace('#', &(number % 8).to_string()));
    }
    text + "add.s32 %i, %i, -1; setp.ne.s32 %again, %i, 0; @%again bra TURN;\nret;\n}\n"
}

fn main() -> ptx_emulator::Result<()> {
    println!("{:20} {:>12} {:>12}   million warp instructions per second, one core", "", "unchecked", "checked");
    for (name, instruction) in INSTRUCTIONS {
        let mut device = Device::new();
        let module = device.load(Arc::new(Program::parse(&program(instruction))?))?;
        let mut rates = Vec::new();
        for checked in [false, true] {
            const TURNS: u32 = 10_000;
            let mut launch = Launch::new([1, 1, 1], [256, 1, 1], TURNS.to_le_bytes().to_vec());
            launch.checked = checked;
            launch.workers = Some(1);
            let start = Instant::now();
            let report = device.launch(&module, "k", &launch)?;
            rates.push(report.counters.warp_instructions() as f64 / start.elapsed().as_secs_f64() / 1e6);
        }
        println!("{name:20} {:>12.1} {:>12.1}", rates[0], rates[1]);
    }
    Ok(())
}
