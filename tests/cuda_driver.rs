//! `src/gpu/cuda` against a stand-in for NVIDIA's driver (`stand_in/libcuda.c`): what is asked of the driver, and how its answers
//! are reported. It proves nothing about a device, only that the calls are well-formed and that no answer leads to a panic. And
//! `src/gpu/nvrtc` against NVRTCs of other versions (`stand_in/libnvrtc.c`).
//!
//! The driver is found when a process starts, so each test runs one of the `child_*` functions in a process of its own.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ferromind::Error;
use ferromind::gpu::nvrtc::find::Surroundings;
use ferromind::gpu::nvrtc::{Compiled, Compiler, Options, Source};
use ferromind::gpu::{self, Arguments, Device, DeviceKind, LaunchConfig, TensorMapElement, TensorMapLayout};
use tempfile::TempDir;

/// Makes `NAME.so` of `NAME.c` with these flags, in a folder that is removed again.
fn stand_in(name: &str, flags: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stand_in/{name}.c"));
    let library = folder.path().join(format!("{name}.so"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(compiler).args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&source).args(flags).status();
    assert!(status.expect("a C compiler").success());
    (folder, library)
}

/// What `child` writes with the driver that these flags make.
fn run(child: &str, flags: &[&str], variables: &[(&str, &str)]) -> String {
    let (folder, _) = stand_in("libcuda", flags);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([child, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("LD_LIBRARY_PATH", folder.path())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

fn open() -> Arc<dyn Device> {
    gpu::open(DeviceKind::Cuda(0)).unwrap()
}

fn ptx() -> Compiled {
    Compiled::from_ptx("scale.ptx", "sm_90a".parse().unwrap(), ".version 9.0\n".to_owned())
}

#[test]
fn memory_launches_events_and_graphs() {
    let text = run("child_work", &[], &[]);
    for line in [
        "grid 4 1 1 block 128 1 1 shared 0\n",
        // Beyond the limits that every kernel has: shared memory (8) and clusters above 8 blocks (14) are asked for once.
        "attribute 8 = 102400\nattribute 14 = 1\ngrid 16 1 1 block 32 1 1 shared 102400, launch attribute 4 = 16, \
         launch attribute 2 = 1, launch attribute 6 = 1\ngrid 16 1 1",
        "graph destroyed",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert_eq!(text.matches("freed").count(), 2, "{text}");
    assert!(text.contains("context released"), "after all that lived in it:\n{text}");
}

#[test]
#[ignore = "run by another test, with a driver"]
fn child_work() {
    let device = open();
    assert_eq!((device.info().name.as_str(), device.info().arch.to_string().as_str()), ("Stand-in", "sm_90a"));
    let kernel = device.kernel(&device.load(&ptx()).unwrap(), "scale").unwrap();
    let stream = device.stream().unwrap();
    let x = device.upload(&stream, "x", &[1f32, 2.0, 3.0, 4.0]).unwrap();
    let launch = |config: &LaunchConfig, a: f32| {
        let mut arguments = Arguments::new();
        arguments.push(x.slice_mut::<f32>().unwrap());
        arguments.push(a);
        arguments.push(4i32);
        device.launch(&stream, &kernel, config, &arguments)
    };
    let read = || device.download::<f32>(&stream, x.slice().unwrap()).unwrap();
    launch(&LaunchConfig::new(4, 128), 2.0).unwrap();
    assert_eq!(read(), [2.0, 4.0, 6.0, 8.0]);
    let large = LaunchConfig {
        cluster: [16, 1, 1],
        shared_bytes: 100 << 10,
        cooperative: true,
        overlap: true,
        ..LaunchConfig::new(16, 32)
    };
    launch(&large, 0.5).unwrap();
    launch(&large, 1.0).unwrap();

    let graph = device.capture(&stream, || launch(&LaunchConfig::new(1, 4), 3.0)).unwrap();
    assert_eq!(read(), [1.0, 2.0, 3.0, 4.0], "a captured launch is not done");
    device.replay(&stream, &graph).unwrap();
    device.replay(&stream, &graph).unwrap();
    assert_eq!(read(), [9.0, 18.0, 27.0, 36.0]);

    let y = device.allocate("y", 16).unwrap();
    device.fill(&stream, y.all(), 0xff).unwrap();
    device.copy(&stream, y.view(8..).unwrap(), x.view(4..12).unwrap()).unwrap();
    let y = device.download::<f32>(&stream, y.slice().unwrap()).unwrap();
    assert!(y[0].is_nan() && y[1].is_nan() && y[2..] == [18.0, 27.0]);

    let (start, end) = (device.event().unwrap(), device.event().unwrap());
    device.record(&start, &stream).unwrap();
    device.record(&end, &stream).unwrap();
    device.wait(&stream, &end).unwrap();
    assert_eq!(device.elapsed(&start, &end).unwrap(), Duration::from_micros(1500));
}

#[test]
fn tensor_maps_are_encoded_as_asked() {
    run("child_tensor_map", &[], &[]);
}

#[test]
#[ignore = "run by another test, with a driver"]
fn child_tensor_map() {
    let device = open();
    // Of no kernel, so at an address of our own: the driver's would depend on the C library.
    let memory = gpu::Buffer::new("weights", 4096, 64 * 128, ());
    let layout = TensorMapLayout {
        memory: memory.all(),
        element: TensorMapElement::BF16,
        shape: &[64, 60],
        strides: &[128],
        tile: &[32, 16],
        swizzle: gpu::Swizzle::B64,
        l2_promotion: gpu::L2Promotion::B256,
        out_of_bounds: gpu::OutOfBounds::NaN,
    };
    let map = device.encode_tensor_map(&layout).unwrap();
    // Type 9 is brain float; rank 2; shape, stride, box; element stride 1; swizzle 2 is 64 bytes; promotion 3 is 256 bytes; NaN.
    assert_eq!(map.as_bytes()[..11], [9, 2, 64, 60, 128, 32, 16, 1, 2, 3, 1]);
}

#[test]
fn what_the_driver_refuses_is_an_error_with_its_words() {
    run("child_refusals", &[], &[]);
}

#[test]
#[ignore = "run by another test, with a driver"]
fn child_refusals() {
    let device = open();
    let stream = device.stream().unwrap();
    let fails = |result: ferromind::Result<()>, words: &[&str]| {
        let message = result.unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    };
    fails(device.allocate("logits", 1 << 30).map(drop), &["`logits`", "1073741824", "1234 of 1048576"]);
    let bad = Compiled { ptx: "nonsense".to_owned(), ..ptx() };
    fails(device.load(&bad).map(drop), &["scale.ptx", "not an image"]);
    let module = device.load(&ptx()).unwrap();
    fails(device.kernel(&module, "absent").map(drop), &["`absent`"]);
    let kernel = device.kernel(&module, "scale").unwrap();
    let mut arguments = Arguments::new();
    arguments.push(1i32);
    fails(device.launch(&stream, &kernel, &LaunchConfig::new(1, 1), &arguments), &["`scale`", "[4]", "[8, 4, 4]"]);
    fails(device.launch(&stream, &kernel, &LaunchConfig::new(0, 1), &arguments), &["`scale`", "grid"]);
    let buffer = device.allocate("x", 8).unwrap();
    fails(device.copy_to_device(&stream, buffer.all(), &[0; 7]), &["`x`", "8", "7"]);
    let upload = device.capture(&stream, || device.copy_to_device(&stream, buffer.all(), &[0; 8]));
    fails(upload.map(drop), &["captured"]);
    fails(device.synchronize(&gpu::Stream::new(())), &["Stream of another"]);
    fails(device.synchronize(&open().stream().unwrap()), &["another device"]);
    fails(gpu::open(DeviceKind::Cuda(7)).map(drop), &["CUDA device 7", "knows 1"]);
}

#[test]
fn a_kernel_that_strays_is_named_later() {
    run("child_fault", &[], &[("FAKE_FAULT", "1")]);
}

#[test]
#[ignore = "run by another test, with a driver"]
fn child_fault() {
    let device = open();
    let stream = device.stream().unwrap();
    let kernel = device.kernel(&device.load(&ptx()).unwrap(), "scale").unwrap();
    let mut arguments = Arguments::new();
    arguments.push(0u64);
    arguments.push(1f32);
    arguments.push(1i32);
    device.launch(&stream, &kernel, &LaunchConfig::new(1, 1), &arguments).unwrap();
    let message = device.synchronize(&stream).unwrap_err().to_string();
    for part in ["CUDA_ERROR_ILLEGAL_ADDRESS", "the last one first: scale", "CUDA_LAUNCH_BLOCKING"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_old_driver_and_a_machine_without_a_device_are_errors() {
    run("child_missing", &["-DOLD"], &[("EXPECTED", "libcuda.so.1, which lacks cuTensorMapEncodeTiled")]);
    run("child_missing", &["-DNO_DEVICE"], &[("EXPECTED", "knows no device")]);
}

#[test]
#[ignore = "run by another test, with a driver"]
fn child_missing() {
    let expected = std::env::var("EXPECTED").unwrap();
    // Twice: the second answer is the first.
    for _ in 0..2 {
        match gpu::open(DeviceKind::Cuda(0)) {
            Err(Error::Missing { looked, remedy, .. }) => {
                assert!(looked.iter().any(|place| place.contains(&expected)), "{looked:?}");
                assert!(remedy.contains("driver 580"));
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened"),
        }
    }
    assert!(gpu::probe_cuda().is_err());
    let (kind, note) = DeviceKind::Auto.choose(gpu::probe_cuda);
    assert_eq!(kind, DeviceKind::Cpu);
    assert!(note.unwrap().contains(&expected));
}

#[test]
fn an_old_nvrtc_is_refused_and_a_newer_one_is_warned_of() {
    let open = |library: &Path| Surroundings { variable: Some(library.into()), ..Surroundings::default() }.open();
    let (_folder, old) = stand_in("libnvrtc", &["-DMAJOR=11", "-DMINOR=8"]);
    let message = open(&old).err().unwrap().to_string();
    assert!(message.contains("version 11.8; 12.0 or newer is needed") && message.contains(old.to_str().unwrap()), "{message}");

    let (_folder, newer) = stand_in("libnvrtc", &["-DMAJOR=13", "-DMINOR=5"]);
    let library = open(&newer).unwrap();
    assert!(library.version().warning().unwrap().contains("13.5"));
    let source = Source { name: "k.cu", text: "", headers: &[] };
    let failed = Compiler::with(library, None).compile(&source, &Options::new("sm_80".parse().unwrap()));
    assert!(failed.unwrap_err().to_string().contains("NVRTC_ERROR_STAND_IN"));
}
