//! The compiler as a user meets it. These need NVRTC and fail without it: the message says how to install it.

use std::sync::Barrier;

use super::super::kernels::{HEADERS, SOURCES, axpy};
use super::*;

const SAXPY: &str = "\
extern \"C\" __global__ void saxpy(float* y, const float* x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
";

fn compiler(cache: Option<&Path>) -> Compiler {
    let library = find::Surroundings::of_process().open().unwrap_or_else(|error| panic!("{error}"));
    Compiler::with(library, cache.map(Cache::at))
}

fn source(text: &str) -> Source<'_> {
    Source { name: "dir/k.cu", text, headers: &[] }
}

fn arch(text: &str) -> Arch {
    text.parse().unwrap()
}

fn log_of(result: Result<Compiled>) -> String {
    match result {
        Err(Error::Compile { log, .. }) => log,
        other => panic!("{other:?}"),
    }
}

#[test]
fn machine_code_ptx_and_resources_in_one_call() {
    let compiled = compiler(None).compile(&source(SAXPY), &Options::new(arch("sm_90a"))).unwrap();
    assert!(compiled.ptx.contains(".entry saxpy") && compiled.ptx.contains(".target sm_90a"));
    assert!(compiled.ptx.contains(".loc") && compiled.ptx.contains("dir/k.cu"), "line information is on by default");
    assert!(compiled.cubin.starts_with(b"\x7fELF"));
    let [saxpy] = &compiled.resources[..] else { panic!("{:?}", compiled.resources) };
    assert_eq!((saxpy.kernel.as_str(), saxpy.spill_stores, saxpy.shared), ("saxpy", 0, 0));
    assert!((1..=255).contains(&saxpy.registers));
    let ptx = compiler(None).compile(&source(SAXPY), &Options::new(arch("compute_80"))).unwrap();
    assert!(ptx.ptx.contains(".target sm_80") && ptx.cubin.is_empty() && ptx.resources.is_empty());
}

/// A kernel made to need a stack, shared memory, barriers and more registers than it is allowed.
#[test]
fn resources_are_those_of_the_kernel() {
    let text = "\
extern \"C\" __global__ void greedy(float* x, int n) {
    __shared__ float tile[96];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float kept[64];
    #pragma unroll
    for (int i = 0; i < 64; i++) kept[i] = x[i * 37] * tile[i];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 64; i++) x[i * 37 + n] = kept[i] * kept[(i * 7) % 64];
}
";
    let mut options = Options::new(arch("sm_80"));
    let free = compiler(None).compile(&source(text), &options).unwrap().resources.remove(0);
    options.extra.push("--maxrregcount=32".into());
    let tight = compiler(None).compile(&source(text), &options).unwrap().resources.remove(0);
    assert_eq!((free.spill_stores, free.spill_loads, free.shared, free.barriers), (0, 0, 384, 1));
    assert!(free.registers > 64);
    assert!(tight.registers <= 32 && tight.spill_stores > 0 && tight.spill_loads > 0 && tight.stack > 0, "{tight:?}");
}

#[test]
fn errors_name_the_line_of_the_source() {
    let log = log_of(compiler(None).compile(&source("\n\n__global__ void k() { nonsense }"), &Options::new(arch("sm_90a"))));
    assert!(log.contains("dir/k.cu(3)") && log.contains("nonsense"), "{log}");
    let log = log_of(compiler(None).compile(&source("#include \"absent.cuh\""), &Options::new(arch("sm_90a"))));
    assert!(log.contains("dir/k.cu(1)") && log.contains("absent.cuh"), "{log}");
}

/// Inline PTX passes through a `compute_*` compilation unread; the assembler's line of the PTX becomes one of the source.
#[test]
fn wrong_inline_ptx_is_found_by_the_assembler_with_its_line() {
    let text = "extern \"C\" __global__ void k(float* x) {\n    float v = x[0];\n\n    asm volatile(\"bogus.op %0;\" : \"+f\"(v));\n    x[1] = v;\n}\n";
    compiler(None).compile(&source(text), &Options::new(arch("compute_90a"))).unwrap();
    let log = log_of(compiler(None).compile(&source(text), &Options::new(arch("sm_90a"))));
    assert!(log.contains("dir/k.cu(4): ") && log.contains("bogus"), "{log}");
}

#[test]
fn options_reach_the_compiler() {
    let text = "#ifndef WIDTH\n#error no width\n#endif\nextern \"C\" __global__ void k(float* x) { x[WIDTH] = x[0] / x[1]; }";
    let compiler = compiler(None);
    let options = Options::new(arch("compute_80"));
    assert!(log_of(compiler.compile(&source(text), &options)).contains("no width"));
    let options = options.define("WIDTH", 1234);
    let precise = compiler.compile(&source(text), &options).unwrap();
    assert!(precise.ptx.contains("4936") && precise.ptx.contains("div.rn.f32"), "{}", precise.ptx);
    let fast = compiler.compile(&source(text), &Options { fast_math: true, line_info: false, ..options.clone() }).unwrap();
    assert!(fast.ptx.contains("div.approx.ftz.f32") && !fast.ptx.contains(".loc"), "{}", fast.ptx);
    let bad = Options { extra: vec!["--no-such-option".into()], ..options };
    assert!(compiler.compile(&source(text), &bad).unwrap_err().to_string().contains("no-such-option"));
}

#[test]
fn a_target_that_the_compiler_does_not_know_and_a_zero_byte() {
    let message = compiler(None).compile(&source(SAXPY), &Options::new(arch("sm_999"))).unwrap_err().to_string();
    assert!(message.contains("sm_999"), "{message}");
    let message = compiler(None).compile(&source("a\0b"), &Options::new(arch("sm_80"))).unwrap_err().to_string();
    assert!(message.contains("zero byte"), "{message}");
}

#[test]
fn the_cache_answers_for_the_same_and_only_for_the_same() {
    let root = tempfile::tempdir().unwrap();
    let include = tempfile::tempdir().unwrap();
    std::fs::write(include.path().join("scale.cuh"), "#define SCALE 2.0f").unwrap();
    let text = format!("#include \"scale.cuh\"\n{}", SAXPY.replace("a * x", "SCALE * a * x"));
    let compiler = compiler(Some(root.path()));
    let options = Options { include_dirs: vec![include.path().into()], ..Options::new(arch("sm_80")) };
    let first = compiler.compile(&source(&text), &options).unwrap();
    let second = compiler.compile(&source(&text), &options).unwrap();
    assert_eq!((first.from_cache, second.from_cache), (false, true));
    assert_eq!(
        (&first.ptx, &first.cubin, &first.log, &first.resources),
        (&second.ptx, &second.cubin, &second.log, &second.resources)
    );

    let anew = |source: &Source<'_>, options: &Options| !compiler.compile(source, options).unwrap().from_cache;
    assert!(anew(&source(&text), &Options { arch: arch("sm_90a"), ..options.clone() }));
    assert!(anew(&source(&text), &Options { fast_math: true, ..options.clone() }));
    assert!(anew(&source(&text), &options.clone().define("UNUSED", "")));
    assert!(anew(&source(&format!("{text}\n")), &options));
    assert!(anew(&Source { name: "other.cu", ..source(&text) }, &options));
    std::fs::write(include.path().join("scale.cuh"), "#define SCALE 3.0f").unwrap();
    assert!(anew(&source(&text), &options), "a header has changed");
}

/// What `includes` takes for granted of NVRTC: headers in memory come first, then the folder that the source's name has.
#[test]
fn where_the_compiler_looks_for_headers() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.cuh"), "#define VALUE 7001").unwrap();
    let name = root.path().join("k.cu");
    let text = "#include \"a.cuh\"\nextern \"C\" __global__ void k(int* x) { x[0] = VALUE; }";
    let compile = |headers: &[(&str, &str)]| {
        let source = Source { name: name.to_str().unwrap(), text, headers };
        compiler(None).compile(&source, &Options::new(arch("compute_80"))).unwrap().ptx
    };
    assert!(compile(&[]).contains("7001"));
    assert!(compile(&[("a.cuh", "#define VALUE 7002")]).contains("7002"));
}

#[test]
fn a_damaged_cache_is_compiled_anew_and_mended() {
    let root = tempfile::tempdir().unwrap();
    let compiler = compiler(Some(root.path()));
    let options = Options::new(arch("sm_80"));
    let first = compiler.compile(&source(SAXPY), &options).unwrap();
    let files: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let again = compiler.compile(&source(SAXPY), &options).unwrap();
    assert!(!again.from_cache && again.ptx == first.ptx && again.cubin == first.cubin);
    assert!(compiler.compile(&source(SAXPY), &options).unwrap().from_cache);
}

#[test]
fn many_at_once_agree_and_leave_one_file() {
    let root = tempfile::tempdir().unwrap();
    let begin = Barrier::new(6);
    let work = || {
        let compiler = compiler(Some(root.path()));
        begin.wait();
        compiler.compile(&source(SAXPY), &Options::new(arch("sm_80"))).unwrap().cubin
    };
    let cubins: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(cubins.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "temporary files are gone");
}

/// `sm_90a` alone checks inline PTX; none may spill.
#[test]
fn every_kernel_compiles_for_every_tier_without_spilling() {
    let compiler = compiler(None);
    let mut kernels = 0;
    for source in SOURCES {
        for target in ["sm_80", "sm_90a", "sm_100"] {
            // Constants that only a launch comment counts with look unused to the compiler.
            let options = Options { extra: vec!["--diag-suppress=177".to_owned()], ..Options::new(arch(target)) };
            let compiled = compiler.compile(source, &options).unwrap_or_else(|error| panic!("{error}"));
            assert!(!compiled.log.contains("warning"), "{target}: {}", compiled.log);
            assert!(!compiled.resources.is_empty(), "{}: no kernel", source.name);
            for resources in &compiled.resources {
                assert_eq!((resources.spill_stores, resources.spill_loads), (0, 0), "{target}: {resources:?}");
                kernels += 1;
            }
        }
    }
    assert!(kernels >= 12, "only {kernels}");
}

#[test]
fn what_is_embedded_is_what_lies_in_the_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for source in SOURCES {
        assert_eq!(source.text, read(source.name));
    }
    let mut hasher = blake3::Hasher::new();
    hash_part(&mut hasher, b"axpy.cu", read("kernels/axpy.cu").as_bytes());
    for (name, text) in HEADERS {
        assert_eq!(*text, read(&format!("kernels/{name}")));
        hash_part(&mut hasher, name.as_bytes(), text.as_bytes());
    }
    assert_eq!(axpy::HASH, hasher.finalize().to_hex().as_str());
}

/// Also when the process has NVRTC open already, which the system's loader then finds by its bare name.
#[test]
fn the_toolkits_own_headers_are_found() {
    let first = compiler(None);
    assert_eq!(first.library().path(), compiler(None).library().path());
    assert!(first.library().path().is_absolute());
    let text =
        "#include <cuda_fp16.h>\n#include <cuda_bf16.h>\nextern \"C\" __global__ void k(__half* x) { x[0] = __hadd(x[1], x[2]); }";
    compiler(None).compile(&source(text), &Options::new(arch("sm_80"))).unwrap_or_else(|error| panic!("{error}"));
}
