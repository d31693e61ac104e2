//! Speed of whole kernels: thread instructions and multiply-adds per second of one core's time, with the checkers and without;
//! how much faster two workers are; and how much memory a launch takes.
//!
//! `cargo bench -p ptx-emulator --bench kernels`, or with `-- saxpy matmul unchecked` only those. `ptx/` holds the kernels' sources and what
//! NVRTC 13.0 makes of them for `compute_90`. The last line is JSON.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use ptx_emulator::{Device, Launch, Program, Report, Result};
use serde_json::{Value, json};

const REPETITIONS: usize = 7;
/// Launches that are timed together: the system counts a thread's time in milliseconds, and one launch takes ten.
const LAUNCHES: usize = 5;

/// A kernel and how it is launched.
struct Case {
    name: &'static str,
    ptx: &'static str,
    grid: [u32; 3],
    block: u32,
    /// Bytes of the buffers, which come first among the arguments.
    buffers: Vec<usize>,
    /// The other arguments, 4 bytes each.
    scalars: Vec<u32>,
}

fn cases() -> Vec<Case> {
    const ELEMENTWISE: &str = include_str!("ptx/elementwise.ptx");
    const ROWS: &str = include_str!("ptx/rows.ptx");
    const MATMUL: &str = include_str!("ptx/matmul.ptx");
    const N: u32 = 1 << 20;
    let wide = |blocks| ([blocks, 1, 1], 256);
    let case = |name, ptx, (grid, block), buffers: &[u32], scalars: &[u32]| Case {
        name,
        ptx,
        grid,
        block,
        buffers: buffers.iter().map(|&bytes| bytes as usize).collect(),
        scalars: scalars.to_vec(),
    };
    let step = [1e-3f32, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05].map(f32::to_bits);
    let (rows, columns, side) = (256, 4096, 512);
    let matrix = rows * columns * 4;
    vec![
        case("vadd", ELEMENTWISE, wide(N / 256), &[N * 4; 3], &[N]),
        case("saxpy", ELEMENTWISE, wide(64), &[N * 4; 2], &[2f32.to_bits(), N]),
        case("adamw", ELEMENTWISE, wide(N / 256), &[N * 4; 4], &[&[N][..], &step].concat()),
        case("swiglu", ELEMENTWISE, wide(64), &[N * 2; 3], &[N / 2]),
        case("softmax", ROWS, wide(rows), &[matrix; 2], &[columns]),
        case("rmsnorm", ROWS, wide(rows), &[matrix, matrix, columns * 4], &[columns, 1e-5f32.to_bits()]),
        case("matmul", MATMUL, ([side / 64, side / 64, 1], 128), &[side * side * 4, side * side * 2, side * side * 2], &[side; 2]),
    ]
}

/// What one way to launch a kernel costs at best.
struct Cost {
    /// Seconds of the processor, and by the clock on the wall.
    processor: f64,
    wall: f64,
    report: Report,
}

impl Case {
    fn run(&self, checked: bool, workers: usize) -> Result<Cost> {
        let mut device = Device::new();
        let module = device.load(Arc::new(Program::parse(self.ptx)?))?;
        let mut arguments = Vec::new();
        for (index, &bytes) in self.buffers.iter().enumerate() {
            // As f32 near 1, as bf16 pairs near 1 and in all of its neighbourhood.
            let word = |i: u32| 0x3f80_3f80 | i.wrapping_mul(0x9e37_79b9) & 0x003f_003f;
            let data: Vec<u8> = (0..bytes as u32 / 4).flat_map(|i| word(i).to_le_bytes()).collect();
            let buffer = device.allocate(["first", "second", "third", "fourth"][index], bytes as u64)?;
            device.write(buffer, &data)?;
            arguments.extend(buffer.to_le_bytes());
        }
        arguments.extend(self.scalars.iter().flat_map(|scalar| scalar.to_le_bytes()));
        let launch = Launch { checked, workers: Some(workers), ..Launch::new(self.grid, [self.block, 1, 1], arguments) };
        let mut best: Option<Cost> = None;
        for _ in 0..REPETITIONS {
            let (start, used) = (Instant::now(), processor_time());
            let mut report = device.launch(&module, self.name, &launch)?;
            for _ in 1..LAUNCHES {
                report = device.launch(&module, self.name, &launch)?;
            }
            let wall = start.elapsed().as_secs_f64() / LAUNCHES as f64;
            let used = used.and_then(|used| Some((processor_time()? - used) / LAUNCHES as f64));
            let processor = used.unwrap_or(wall * workers as f64);
            assert!(report.findings.is_empty(), "{}", report.findings[0]);
            best = Some(match best {
                None => Cost { processor, wall, report },
                Some(best) => Cost { processor: processor.min(best.processor), wall: wall.min(best.wall), report },
            });
        }
        Ok(best.unwrap_or_else(|| unreachable!("there are repetitions")))
    }
}

/// Seconds that the process's threads have run, where the system tells: other processes' load does not count.
fn processor_time() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds * 1e-9)
}

/// The most memory that the process has had, in bytes.
fn peak_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!(
        "{:8} {:>9} {:>22} {:>20} {:>10} {:>10}",
        "", "checkers", "G thread-instr./s", "G multiply-adds/s", "2 workers", "peak MiB"
    );
    let mut results = Vec::new();
    let has = |name: &str| words.iter().any(|word| word == name);
    let (cases, ways) = (cases(), [(true, "checked"), (false, "unchecked")]);
    let any_case = cases.iter().any(|case| has(case.name));
    let any_way = ways.iter().any(|(_, name)| has(name));
    for case in cases.iter().filter(|case| !any_case || has(case.name)) {
        for (checked, way) in ways.into_iter().filter(|(_, name)| !any_way || has(name)) {
            // Forgets the peak of the case before.
            let _ = fs::write("/proc/self/clear_refs", "5");
            let [one, two] = [case.run(checked, 1)?, case.run(checked, 2)?];
            let total = one.report.counters.total();
            let instructions = total.threads as f64 / one.processor / 1e9;
            let products = total.flops as f64 / 2.0 / one.processor / 1e9;
            let (faster, peak) = (one.wall / two.wall, peak_memory().unwrap_or(f64::NAN));
            let buffers: usize = case.buffers.iter().sum();
            println!("{:8} {:>9} {instructions:>22.3} {products:>20.2} {faster:>9.2}x {:>10.0}", case.name, way, peak / 1048576.0);
            results.push(json!({
                "kernel": case.name,
                "checked": checked,
                "thread_instructions_per_second": instructions * 1e9,
                "multiply_adds_per_second": products * 1e9,
                "two_workers_by_wall": faster,
                "two_workers_processor_seconds": two.processor / one.processor,
                "buffer_bytes": buffers,
                "peak_bytes": peak,
            }));
        }
    }
    println!("{}", json!({ "bench": "emulator kernels", "cases": Value::Array(results) }));
    Ok(())
}
