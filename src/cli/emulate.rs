//! `ferromind emulate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ferromind::gpu::Arch;
use ferromind::lab::emulate::{Build, Job, emulate, parse_define, parse_extent, parse_followed, parse_place};
use ptx_emulator::{Followed, Trace};
use serde_json::json;

use super::say;

/// Status if there are findings.
const FOUND: u8 = 1;
/// Status if it could not run; clap's own for bad flags.
const COULD_NOT_RUN: u8 = 2;

const EXAMPLES: &str = "\
Arguments of the kernel, one --arg each, in order:
  i32=-8  u64=0x1000  f32=0.5  bf16=1     a number: i8 to i64, u8 to u64, f16, bf16, f32, f64
  buf:f32:1000=randn:1                    a pointer to 1000 floats: TYPE:COUNT=CONTENT, where TYPE may also be e4m3 or e5m2,
  buf:bf16:64x128=zeros                     COUNT a product (it is the shape in .npy files), and CONTENT is zeros, ones, iota,
  buf:f32=x.npy                             full:V, randn:SEED, uniform:SEED, FILE.npy,
  buf:f32:1000=out                          out (undefined, and every byte must be written), scratch (undefined)
  buf:f32:1000=out@y.npy                  the same, and written to a file after the run; also as a further --arg @y.npy
  map:0:bf16:128x64:64x32:128B            a tensor map of argument 0's memory: SHAPE, BOX (innermost dimension first), swizzle
  map:bf16:128x64:64x32:128B=randn:1      a tensor map with memory of its own
  bytes=0100000000000040                  a structure by value, as it lies in memory

Examples:
  ferromind emulate kernels/axpy.cu --kernel axpy --grid 4 --block 256 \\
      --arg buf:f32:1000=randn:1@y.npy --arg buf:f32:1000=iota --arg f32=0.5 --arg i64=1000
  ferromind emulate mine.cu -D TILE=32 --grid 8,8 --block 32,8 --arg buf:f32:256x256=x.npy --arg buf:f32:256x256=out
  ferromind emulate mine.ptx --grid 1 --block 32 --trace 0 --arg buf:u32:32=out      follow thread 0 through the kernel

.cu files need NVRTC, NVIDIA's compiler, but no GPU: scripts/install_nvrtc installs it. The last line of the output is JSON. Exit
status: 0 all is well, 1 there are findings, 2 it could not run.";

/// Run a CUDA kernel with no GPU: its mistakes are found, its instructions and memory traffic counted.
#[derive(Args)]
#[command(after_help = EXAMPLES, allow_negative_numbers = true)]
pub struct Flags {
    /// A .cu or .ptx file
    file: PathBuf,
    /// The kernel [default: the only one]
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Blocks
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = parse_extent)]
    grid: [u32; 3],
    /// Threads of a block
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = parse_extent)]
    block: [u32; 3],
    /// Blocks of a cluster [default: as the kernel says]
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = parse_extent)]
    cluster: Option<[u32; 3]>,
    /// Dynamic shared memory of a block in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    smem: u32,
    /// An argument, in the kernel's order; see below
    #[arg(long, value_name = "SPEC")]
    arg: Vec<String>,
    /// What a .cu file is compiled for [default: sm_90a]
    #[arg(long)]
    arch: Option<Arch>,
    /// Defines a macro in a .cu file
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = parse_define)]
    defines: Vec<(String, String)>,
    /// Where headers of a .cu file are looked for, beside its own folder
    #[arg(short = 'I', value_name = "DIR")]
    include_dirs: Vec<PathBuf>,
    /// Draw the order of blocks and warps from this seed, on one core [default: their natural order, on all cores]
    #[arg(long, value_name = "SEED")]
    order: Option<u64>,
    /// Give up after this many warp instructions: the kernel may never end
    #[arg(long, value_name = "N", default_value_t = 10_000_000_000)]
    max_instructions: u64,
    /// Cores to use [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Look for no mistakes but strays outside of memory: about twice as fast
    #[arg(long)]
    no_checks: bool,
    /// Follow a thread or a warp: each instruction with the values that it read and wrote
    #[arg(long, value_name = "X[,Y[,Z]]|warp:N", value_parser = parse_followed)]
    trace: Option<Followed>,
    /// The block of the thread or warp that is followed
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = parse_place, default_value = "0", requires = "trace")]
    trace_block: [u32; 3],
    /// Lines after which the trace ends
    #[arg(long, value_name = "N", default_value_t = 1000)]
    trace_lines: usize,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let threads = flags.threads.map_or(0, usize::from);
    super::use_threads(threads)?;
    let job = Job {
        file: flags.file,
        build: Build { arch: flags.arch, defines: flags.defines, include_dirs: flags.include_dirs },
        kernel: flags.kernel,
        grid: flags.grid,
        block: flags.block,
        cluster: flags.cluster.unwrap_or([1; 3]),
        shared_bytes: flags.smem,
        arguments: flags.arg,
        order: flags.order,
        checked: !flags.no_checks,
        max_instructions: flags.max_instructions,
        workers: (threads > 0).then_some(threads),
        trace: flags.trace.map(|who| Trace { block: flags.trace_block, who, max_lines: flags.trace_lines }),
    };
    match emulate(&job) {
        Ok(outcome) => {
            if !flags.json {
                say!("{outcome}");
            }
            say!("{}", outcome.json());
            Ok(if outcome.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
        }
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "error: {error}");
            say!("{}", json!({ "error": error.to_string() }));
            Ok(ExitCode::from(COULD_NOT_RUN))
        }
    }
}
