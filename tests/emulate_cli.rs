//! `ferromind emulate`, the program itself: files in, findings, counters, files out, and every bad input's message and exit status.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// Kernels, right and wrong.
const KERNELS: &str = r#"
// y[i] = a * x[i]
extern "C" __global__ void scale(float* y, const float* x, float a, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i];
}

// Reversed within each block, through shared memory.
extern "C" __global__ void reverse(int* y, const int* x) {
    extern __shared__ int tile[];
    tile[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
#ifndef NO_BARRIER
    __syncthreads();
#endif
    y[blockIdx.x * blockDim.x + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

struct bf16 { unsigned short bits; };
struct Pair { int a; double b; };

extern "C" __global__ void scalars(double* y, signed char i8, unsigned char u8, short i16, unsigned short u16, int i32,
                                   unsigned u32, long long i64, unsigned long long u64, bf16 b, float f32, double f64, Pair pair) {
    y[0] = i8; y[1] = u8; y[2] = i16; y[3] = u16; y[4] = i32; y[5] = u32; y[6] = i64; y[7] = u64;
    y[8] = __uint_as_float((unsigned)b.bits << 16); y[9] = f32; y[10] = f64; y[11] = pair.a; y[12] = pair.b;
}

struct alignas(64) Map { unsigned words[32]; };

extern "C" __global__ void words(unsigned* y, const __grid_constant__ Map map) { y[threadIdx.x] = map.words[threadIdx.x]; }

extern "C" __global__ void misaligned(float* y) { *(float2*)(y + 1) = make_float2(1, 2); }

extern "C" __global__ void forever(volatile int* y) { while (true) *y += 1; }

extern "C" __global__ void nobody(volatile int* y) { while (*y == 0); }

extern "C" __global__ void says(int n) { printf("thread %d of %d\n", threadIdx.x, n); }

namespace inner { __global__ void mangled(int* y) { y[threadIdx.x] = TILE; } }
"#;

/// A box of 8 by 4 floats that the copy engine fetches by a tensor map.
const TILE: &str = r#"
struct alignas(64) Map { unsigned long long words[16]; };
extern "C" __global__ void tile(float* y, const __grid_constant__ Map map, int x0, int y0) {
    __shared__ alignas(128) float box[4][8];
    __shared__ alignas(8) unsigned long long barrier;
    const unsigned bar = __cvta_generic_to_shared(&barrier), to = __cvta_generic_to_shared(&box);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(bar));
        asm volatile("fence.mbarrier_init.release.cluster;");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 128;" :: "r"(bar));
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                     :: "r"(to), "l"(&map), "r"(x0), "r"(y0), "r"(bar) : "memory");
    }
    __syncthreads();
    unsigned done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(bar) : "memory");
    } while (!done);
    y[threadIdx.x] = box[threadIdx.x / 8][threadIdx.x % 8];
}
"#;

const PTX: &str = "
.version 9.0
.target sm_80
.address_size 64
.visible .entry store(.param .u64 store_param_0, .param .u32 store_param_1)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [store_param_0];
    ld.param.u32 %r1, [store_param_1];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd3, %r2, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.u32 [%rd4], %r1;
    ret;
}
";

struct Bench {
    folder: TempDir,
}

struct Run {
    status: i32,
    text: String,
    error: String,
    json: Value,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("k.cu"), KERNELS).unwrap();
        std::fs::write(folder.path().join("store.ptx"), PTX).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs in the folder, with the words of `line` and then `more` as arguments.
    fn run_with(&self, variables: &[(&str, &str)], line: &str, more: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_ferromind"))
            .arg("emulate")
            .args(line.split_whitespace())
            .args(more)
            .current_dir(self.folder.path())
            // One cache for all tests of this file: its name is the hash of what was compiled.
            .env("FERROMIND_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate-cache"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let json = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null);
        let error = String::from_utf8(output.stderr).unwrap();
        Run { status: output.status.code().expect("no signal"), text, error, json }
    }

    fn run(&self, line: &str) -> Run {
        self.run_with(&[], line, &[])
    }

    fn write_npy(&self, name: &str, descr: &str, shape: &str, elements: &[u8]) {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let len = (header.len() as u16).to_le_bytes();
        let file = [b"\x93NUMPY\x01\x00".as_slice(), &len, header.as_bytes(), elements].concat();
        std::fs::write(self.path(name), file).unwrap();
    }

    /// Header and elements.
    fn read_npy(&self, name: &str) -> (String, Vec<u8>) {
        let file = std::fs::read(self.path(name)).unwrap();
        let (header, elements) = file[10..].split_at(usize::from(u16::from_le_bytes([file[8], file[9]])));
        (String::from_utf8(header.to_vec()).unwrap(), elements.to_vec())
    }
}

impl Run {
    #[track_caller]
    fn ok(&self) -> &Self {
        assert_eq!(self.status, 0, "{}\n{}", self.text, self.error);
        assert!(self.error.is_empty() && self.json["findings"] == Value::Array(Vec::new()), "{}", self.text);
        self
    }

    #[track_caller]
    fn finds(&self, kind: &str, words: &[&str]) {
        assert_eq!(self.status, 1, "{}\n{}", self.text, self.error);
        let findings = self.json["findings"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding["kind"] == kind), "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "no {word} in {}", self.text);
        }
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) {
        assert_eq!(self.status, 2, "{}\n{}", self.text, self.error);
        for word in words {
            assert!(self.error.contains(word), "no {word} in {}", self.error);
        }
        // Errors of the command line itself are clap's.
        if self.error.contains("try '--help'") {
            return;
        }
        assert!(self.error.contains(self.json["error"].as_str().unwrap()), "{}", self.text);
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
}

#[test]
fn files_in_and_out() {
    let bench = Bench::new();
    let x: Vec<f32> = (0..300).map(|i| i as f32 / 7.0).collect();
    bench.write_npy("x.npy", "<f4", "(3, 100)", bytemuck::cast_slice(&x));
    let run = bench.run("k.cu -D TILE=1 --kernel scale --grid 2 --block 256 --arg buf:f32:300=out --arg @y.npy --arg buf:f32=x.npy --arg f32=-0.5 --arg i32=300");
    run.ok();
    let (header, elements) = bench.read_npy("y.npy");
    assert!(header.contains("'<f4'") && header.contains("(300,)"), "{header}");
    assert_eq!(floats(&elements), x.iter().map(|x| -0.5 * x).collect::<Vec<_>>());
    for words in
        ["no findings", "registers per thread", "occupancy", "instructions by class", "y[i] = a * x[i]", "k.cu:5", "lower bound"]
    {
        assert!(run.text.contains(words), "no {words} in {}", run.text);
    }
    let json = &run.json;
    assert_eq!(json["written"][0]["argument"], 0);
    assert_eq!(json["resources"]["spill_stores"], 0);
    assert!(json["resources"]["registers"].as_u64().unwrap() > 0 && json["occupancy"]["blocks"].as_u64().unwrap() > 0);
    // 300 floats in sectors of 32 bytes, read and written once each.
    let buffers = json["counters"]["buffers"].as_array().unwrap();
    assert_eq!((&buffers[0]["sectors_written"], &buffers[1]["sectors_read"]), (&38.into(), &38.into()));
    assert!(json["bound"]["seconds"].as_f64().unwrap() > 0.0);

    let line =
        "k.cu -D TILE=1 --kernel scale --grid 2 --block 256 --arg buf:f32:300=out --arg buf:f32=x.npy --arg f32=1 --arg i32=300";
    let quiet = bench.run_with(&[], line, &["--json"]);
    assert_eq!(quiet.ok().text.lines().count(), 1);
    let unchecked = bench.run_with(&[], line, &["--no-checks", "--threads", "1"]);
    assert_eq!(unchecked.ok().json["checked"], false);
}

#[test]
fn bf16_is_written_as_f32() {
    let bench = Bench::new();
    let run = bench.run("store.ptx --grid 1 --block 2 --arg buf:bf16:2x2=full:1@y.npy --arg u32=0x3f803fc0");
    run.ok();
    let (header, elements) = bench.read_npy("y.npy");
    assert!(header.contains("'<f4'") && header.contains("(2, 2,)"), "{header}");
    assert_eq!(floats(&elements), [1.5, 1.0, 1.5, 1.0]);
    assert_eq!(run.json["arch"], "sm_80", "as the PTX says");
    assert!(run.json["resources"].is_null());
}

#[test]
fn every_type_of_scalar_and_a_structure() {
    let bench = Bench::new();
    let numbers =
        "i8=-8 u8=200 i16=-300 u16=0xffff i32=-70000 u32=4000000000 i64=-5000000000 u64=0x10000000000 bf16=-1.5 f32=0.25 f64=1e300";
    let arguments: String = numbers.split(' ').map(|number| format!(" --arg {number}")).collect();
    let pair = format!("{}00000000{}", "feffffff", 2.5f64.to_le_bytes().map(|byte| format!("{byte:02x}")).concat());
    bench
        .run(&format!(
            "k.cu -D TILE=1 --kernel scalars --grid 1 --block 1 --arg buf:f64:13=out@y.npy{arguments} --arg bytes={pair}"
        ))
        .ok();
    let (_, elements) = bench.read_npy("y.npy");
    let got: Vec<f64> = elements.as_chunks().0.iter().map(|&chunk| f64::from_le_bytes(chunk)).collect();
    let expected = [-8.0, 200.0, -300.0, 65535.0, -70000.0, 4e9, -5e9, (1u64 << 40) as f64, -1.5, 0.25, 1e300, -2.0, 2.5];
    assert_eq!(got, expected);
}

#[test]
fn tensor_maps_by_value() {
    use ptx_emulator::tensor::tensor_map::{DataType, TensorMap};
    let bench = Bench::new();
    let decode = |line: &str| {
        bench.run(&format!("k.cu -D TILE=1 --kernel words --grid 1 --block 32 --arg buf:u32:32=out@y.npy --arg {line}")).ok();
        TensorMap::decode(bench.read_npy("y.npy").1.first_chunk().unwrap()).unwrap()
    };
    let map = decode("map:bf16:128x96:64x32:128B=randn:1");
    assert_eq!((map.data_type(), map.box_bytes()), (DataType::Bfloat16, 64 * 32 * 2));
    let dimensions: Vec<_> = map.dimensions().iter().map(|d| (d.size, d.stride, d.box_size)).collect();
    assert_eq!(dimensions, [(128, 2, 64), (96, 256, 32)]);
    assert_eq!(decode("map:0:u32:8x4:8x4").dimensions().len(), 2);

    let words =
        |line: &str| bench.run(&format!("k.cu -D TILE=1 --kernel words --grid 1 --block 32 --arg buf:u32:32=out --arg {line}"));
    words("map:0:u32:8x5:8x4").refused(&["argument 1", "160 bytes", "128"]);
    words("map:1:u32:8x4:8x4").refused(&["argument 1 is no buffer"]);
    words("map:0:bf16:64x1:64x1:64B").refused(&["argument 1", "64 bytes of the swizzle"]);
    words("map:0:u32:8x4:512x4").refused(&["boxDim[0] = 512"]);
}

#[test]
fn a_box_fetched_by_a_tensor_map() {
    let bench = Bench::new();
    std::fs::write(bench.path("tile.cu"), TILE).unwrap();
    for (x0, y0) in [(0, 0), (12, 3), (-3, -1)] {
        let line = format!(
            "tile.cu --grid 1 --block 32 --arg buf:f32:4x8=out@y.npy --arg map:f32:16x6:8x4=iota --arg i32={x0} --arg i32={y0}"
        );
        bench.run(&line).ok();
        // 16 columns and 6 rows, numbered row by row; zeros outside.
        let inside = |x: i32, y: i32| if (0..16).contains(&x) && (0..6).contains(&y) { (16 * y + x) as f32 } else { 0.0 };
        let expected: Vec<f32> = (0..32).map(|i| inside(x0 + i % 8, y0 + i / 8)).collect();
        assert_eq!(floats(&bench.read_npy("y.npy").1), expected, "box at {x0}, {y0}");
    }
}

#[test]
fn orders_drawn_from_seeds_and_a_kernel_by_its_name_in_cpp() {
    let bench = Bench::new();
    for seed in 0..3 {
        let out = format!("y{seed}.npy");
        let line = format!("k.cu -D TILE=1 --kernel reverse --grid 4 --block 64 --smem 256 --order {seed}");
        bench.run_with(&[], &line, &["--arg", "buf:i32:256=out", "--arg", &format!("@{out}"), "--arg", "buf:i32:256=iota"]).ok();
        let got: Vec<i32> = bench.read_npy(&out).1.as_chunks().0.iter().map(|&chunk| i32::from_le_bytes(chunk)).collect();
        assert!((0..256).all(|i| got[i] == (i / 64 * 64 + 63 - i % 64) as i32), "{seed}: {got:?}");
    }
    let run = bench.run("k.cu -D TILE=32 --kernel mangled --grid 1 --block 8 --arg buf:i32:8=out@y.npy");
    assert_eq!(run.ok().json["kernel"], "_ZN5inner7mangledEPi");
    assert_eq!(bench.read_npy("y.npy").1, 32i32.to_le_bytes().repeat(8));
}

#[test]
fn what_a_thread_does_and_says() {
    let bench = Bench::new();
    let run = bench.run("store.ptx --grid 2 --block 40 --trace 33 --trace-block 1 --arg buf:u32:40=out --arg u32=7");
    let trace: Vec<&str> = run.json["trace"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(trace.len(), 8, "{trace:#?}");
    assert!(trace[3].contains("mov.u32") && trace[3].contains("%r2 = 33"), "{}", trace[3]);
    let warp = bench.run("store.ptx --grid 1 --block 40 --trace warp:1 --trace-lines 3 --arg buf:u32:40=out --arg u32=7");
    assert_eq!(warp.ok().json["trace"].as_array().unwrap().len(), 3);
    let run = bench.run("k.cu -D TILE=1 --kernel says --grid 1 --block 3 --arg i32=3");
    assert!(run.ok().text.contains("thread 0 of 3\nthread 1 of 3\nthread 2 of 3\n"), "{}", run.text);
}

#[test]
fn planted_mistakes_are_found() {
    let bench = Bench::new();
    let scale = |y: &str, x: &str, n: u32| {
        bench.run(&format!(
            "k.cu -D TILE=1 --kernel scale --grid 2 --block 256 --arg buf:f32:{y} --arg buf:f32:{x} --arg f32=1 --arg i32={n}"
        ))
    };
    scale("300=out", "300=ones", 300).ok();
    scale("299=out", "300=ones", 300)
        .finds("out-of-bounds", &["k.cu:5", "`argument 0, f32[299]` +1196 bytes", "thread (43, 0, 0)"]);
    scale("300=out", "300=scratch", 300).finds("uninitialized", &["k.cu:5", "block (0, 0, 0)"]);
    scale("3x100=out", "300=ones", 250).finds("never-written", &["element [2, 50] of argument 0, f32[3x100]"]);
    scale("300=scratch", "300=ones", 250).ok();
    let reverse = "k.cu -D TILE=1 -D NO_BARRIER --kernel reverse --grid 1 --block 64 --smem 256";
    bench.run_with(&[], reverse, &["--arg", "buf:i32:64=out", "--arg", "buf:i32:64=iota"]).finds("shared-race", &["k.cu:15"]);
    let small = "k.cu -D TILE=1 --kernel reverse --grid 1 --block 64 --smem 252 --arg buf:i32:64=out --arg buf:i32:64=iota";
    bench.run(small).finds("out-of-bounds", &["k.cu:11"]);
    bench
        .run("k.cu -D TILE=1 --kernel misaligned --grid 1 --block 1 --arg buf:f32:4=zeros")
        .finds("misaligned", &["k.cu:31", "multiple of 8"]);
    bench.run("k.cu -D TILE=1 --kernel nobody --grid 1 --block 1 --arg buf:i32:1=zeros").finds("deadlock", &[]);
}

#[test]
fn bad_arguments_are_refused_with_the_parameters() {
    let bench = Bench::new();
    let store = |arguments: &str| bench.run(&format!("store.ptx --grid 1 --block 4 {arguments}"));
    let list = "kernel `store` takes 2 arguments:\n  0  store_param_0 (8 bytes): a pointer";
    store("--arg buf:u32:4=out").refused(&["1 arguments given, 2 expected", list]);
    store("--arg buf:u32:4=out --arg u32=1 --arg u32=1").refused(&["3 arguments given, 2 expected", list]);
    store("--arg i32=1 --arg u32=1").refused(&["argument 0, `i32=1`: i32 has 4 bytes, the parameter has 8", list]);
    store("--arg buf:u32:4=out --arg u64=1").refused(&["argument 1", "u64 has 8 bytes", list]);
    store("--arg buf:u32:4=out --arg f32=1").refused(&["argument 1", "is an integer", list]);
    store("--arg buf:u32:4=out --arg buf:u32:4=out").refused(&["argument 1", "8 bytes", list]);
    store("--arg bytes=00 --arg u32=1").refused(&["argument 0", "1 bytes", list]);
    store("--arg buf:u33:4=out --arg u32=1").refused(&["argument 0", "unknown type `u33`", "e5m2", list]);
    store("--arg buf:u32:4=what --arg u32=1").refused(&["unknown content `what`", list]);
    store("--arg @y.npy").refused(&["only a buffer", list]);
    store("--arg buf:u32:4294967296x4294967296x2=out --arg u32=1").refused(&["2^64", list]);
    store("--arg buf:u32:4611686018427387904=out --arg u32=1").refused(&["more than 2^64 bytes", list]);
    store("--arg buf:u32:1000000000000000=zeros --arg u32=1").refused(&["4000000000000000 bytes of memory are needed", list]);
    store("--arg buf:u32:4=out@nowhere/y.npy --arg u32=1").refused(&["no folder nowhere", list]);
    let pointer =
        "k.cu -D TILE=1 --kernel scale --grid 1 --block 1 --arg buf:f32:1=out --arg buf:f32:1=ones --arg i32=1 --arg i32=1";
    bench.run(pointer).refused(&["argument 2", "floating-point number, not i32", "3  scale_param_3 (4 bytes)"]);
}

#[test]
fn bad_files_are_refused() {
    let bench = Bench::new();
    let store = |content: &str| bench.run(&format!("store.ptx --grid 1 --block 4 --arg buf:{content} --arg u32=1"));
    store("f32=missing.npy").refused(&["argument 0", "missing.npy", "No such file"]);
    std::fs::write(bench.path("bad.npy"), "not an array").unwrap();
    store("f32=bad.npy").refused(&["bad.npy", "no .npy file"]);
    bench.write_npy("x.npy", "<f8", "(2,)", &[0.5f64, 0.1].map(f64::to_le_bytes).concat());
    store("f64:3=x.npy").refused(&["has 2 elements, 3 are asked for"]);
    store("f32=x.npy").refused(&["x.npy", "element 1, 0.1 in f64, is no f32"]);
    bench.write_npy("huge.npy", "<f8", "(4294967296, 4294967296, 4294967296)", &[0; 16]);
    store("f64=huge.npy").refused(&["huge.npy", "does not fit"]);

    let source = |name: &str, text: &str| {
        std::fs::write(bench.path(name), text).unwrap();
        bench.run(&format!("{name} --grid 1 --block 1"))
    };
    bench.run("absent.cu --grid 1 --block 1").refused(&["absent.cu", "No such file"]);
    source("k.txt", "").refused(&["k.txt", ".cu or .ptx"]);
    source("bad.cu", "extern \"C\" __global__ void k() {\n    int x = y;\n}\n")
        .refused(&["bad.cu(2)", "identifier \"y\" is undefined"]);
    source("bad_asm.cu", "extern \"C\" __global__ void k() {\n    asm volatile(\"bogus.op;\");\n}\n").refused(&["bad_asm.cu(2)"]);
    source("none.cu", "__device__ int f() { return 1; }").refused(&["no kernel"]);
    source("bad.ptx", "nonsense").refused(&["bad.ptx", "line 1"]);
    let unknown = PTX.replace("cvta.to.global.u64 %rd2, %rd1", "bogus.u64 %rd2, %rd1");
    source("unknown.ptx", &unknown).refused(&["unknown.ptx", "PTX line 11", "bogus.u64"]);
    bench.run("store.ptx --arch sm_80 --grid 1 --block 1").refused(&["is PTX", "--arch"]);
    bench.run("k.cu --grid 1 --block 1").refused(&["k.cu", "TILE"]);
    bench.run("k.cu -D TILE=1 --kernel absent --grid 1 --block 1").refused(&["no kernel `absent`", "reverse", "scale"]);
    bench.run("k.cu -D TILE=1 --grid 1 --block 1").refused(&["9 kernels", "--kernel", "scale"]);
    bench
        .run_with(&[("FERROMIND_NVRTC", "/nowhere")], "k.cu -D TILE=1 --kernel says --grid 1 --block 1 --arg i32=1", &[])
        .refused(&["NVRTC", "/nowhere", "scripts/install_nvrtc"]);
}

#[test]
fn bad_launches_are_refused() {
    let bench = Bench::new();
    let store = |flags: &str| bench.run(&format!("store.ptx {flags} --arg buf:u32:4=out --arg u32=1"));
    store("--grid 0 --block 4").refused(&["grid"]);
    store("--grid 1,65536 --block 4").refused(&["65535"]);
    store("--grid 1 --block 1025").refused(&["1024"]);
    store("--grid 1 --block 1024,1024,64").refused(&["1024"]);
    store("--grid 4294967295,4294967295,4294967295 --block 1").refused(&["grid"]);
    store("--grid 3 --block 4 --cluster 2").refused(&["cluster"]);
    store("--grid 1 --block 4 --smem 300000").refused(&["shared memory"]);
    store("--grid 1 --block 4 --trace 4").refused(&["thread [4, 0, 0]"]);
    store("--grid 1 --block 4 --trace warp:1").refused(&["1 warps"]);
    store("--grid 1 --block 4 --trace 0 --trace-block 1").refused(&["--trace-block"]);
    for flags in [
        "--grid 1",
        "--grid x --block 1",
        "--grid 1 --block 1,2,3,4",
        "--grid 1 --block 1 --order x",
        "--grid 1 --block 1 --arch 90",
    ] {
        store(flags).refused(&["error:"]);
    }
    bench
        .run("k.cu -D TILE=1 --kernel forever --grid 1 --block 32 --max-instructions 100000 --arg buf:i32:1=zeros")
        .refused(&["100000"]);
}

#[test]
fn help_teaches() {
    let help = Bench::new().run("--help").text;
    for words in ["buf:bf16:64x128=zeros", "map:0:bf16:128x64:64x32:128B", "--arg buf:f32:1000=iota", "Exit", "--trace"] {
        assert!(help.contains(words), "no {words} in {help}");
    }
}
