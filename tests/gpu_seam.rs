//! The device seam, on whatever implements it: one suite, run on the emulator here, and on CUDA where there is a device.
//!
//! Nothing in `suite` knows which device it has.

use std::sync::Arc;

use ferromind::gpu::kernels::axpy::Axpy;
use ferromind::gpu::kernels::fill::{self, Fill};
use ferromind::gpu::kernels::{Call, axpy};
use ferromind::gpu::nvrtc::{Compiled, Compiler, Options};
use ferromind::gpu::{self, Arguments, Context, Device, DeviceKind, ElementType, LaunchConfig, Stream, View};
use ferromind::gpu::{TensorMapElement, TensorMapLayout};
use half::bf16;

/// Sizes around those of warps and blocks.
const SIZES: [usize; 4] = [1, 255, 256, 1000];

/// Two kernels on f32, launched as each test wants.
struct Kernels {
    device: Arc<dyn Device>,
    fill: gpu::Kernel,
    axpy: gpu::Kernel,
}

impl Kernels {
    fn load(device: &Arc<dyn Device>) -> Self {
        let compiler = Compiler::new().unwrap();
        let load = |source, name| {
            let compiled = compiler.compile(source, &Options::new(device.info().arch)).unwrap();
            device.kernel(&device.load(&compiled).unwrap(), name).unwrap()
        };
        Self { device: device.clone(), fill: load(&fill::SOURCE, "fill"), axpy: load(&axpy::SOURCE, "axpy") }
    }

    fn fill(&self, stream: &Stream, x: View<'_>, value: f32) -> ferromind::Result<()> {
        let x = x.elements_mut(ElementType::F32)?;
        let n = x.as_slice().len() as i64;
        self.fill_as(stream, &LaunchConfig::new(n.unsigned_abs().div_ceil(256) as u32, 256), &Fill { x, value, n })
    }

    fn fill_as(&self, stream: &Stream, config: &LaunchConfig, call: &Fill<'_>) -> ferromind::Result<()> {
        self.device.launch(stream, &self.fill, config, &call.arguments())
    }

    fn axpy(&self, stream: &Stream, y: View<'_>, x: View<'_>, a: f32) -> ferromind::Result<()> {
        let (y, x) = (y.elements_mut(ElementType::F32)?, x.elements(ElementType::F32)?);
        let n = x.len() as i64;
        let config = LaunchConfig::new(n.unsigned_abs().div_ceil(256) as u32, 256);
        self.device.launch(stream, &self.axpy, &config, &Axpy { y, x, a, n }.arguments())
    }
}

fn suite(open: impl Fn() -> Arc<dyn Device>) {
    let device = open();
    let kernels = Kernels::load(&device);
    memory(&device);
    launches(&device, &kernels);
    order(&device, &kernels);
    graphs(&device, &kernels);
    tensor_maps(&device);
    refusals(&device, &kernels, &open());
    // Last: a CUDA device is of no more use to the process.
    stray(&device, &kernels);
}

fn memory(device: &Arc<dyn Device>) {
    let stream = device.stream().unwrap();
    for n in SIZES {
        let values: Vec<u16> = (0..n as u16).map(|i| i.wrapping_mul(40503)).collect();
        let x = device.upload(&stream, "x", &values).unwrap();
        assert!(x.address().is_multiple_of(256) && x.bytes() == 2 * n && x.name() == "x");
        assert_eq!(device.download::<u16>(&stream, x.slice().unwrap()).unwrap(), values);
        let y = device.allocate("y", 2 * n).unwrap();
        device.copy(&stream, y.all(), x.all()).unwrap();
        let half = n / 2;
        device.fill(&stream, y.view(2 * half..).unwrap(), 0xab).unwrap();
        let got = device.download::<u16>(&stream, y.slice().unwrap()).unwrap();
        assert!(got[..half] == values[..half] && got[half..].iter().all(|&v| v == 0xabab), "{n}");
        device.write(&stream, y.slice_mut().unwrap().narrow(half, n - half).unwrap(), &values[half..]).unwrap();
        assert_eq!(device.download::<u16>(&stream, y.slice().unwrap().narrow(half, n - half).unwrap()).unwrap(), values[half..]);
    }
    let empty = device.upload::<f32>(&stream, "empty", &[]).unwrap();
    assert!(device.download::<f32>(&stream, empty.slice().unwrap()).unwrap().is_empty());
}

fn launches(device: &Arc<dyn Device>, kernels: &Kernels) {
    let stream = device.stream().unwrap();
    for n in SIZES {
        let ramp: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let x = device.upload(&stream, "x", &ramp).unwrap();
        let y = device.allocate("y", 4 * n).unwrap();
        kernels.fill(&stream, y.all(), 0.5).unwrap();
        kernels.axpy(&stream, y.all(), x.all(), -2.0).unwrap();
        let expected: Vec<f32> = ramp.iter().map(|x| 0.5 - 2.0 * x).collect();
        assert_eq!(device.download::<f32>(&stream, y.slice().unwrap()).unwrap(), expected);
    }
    // As operations launch: the type of the elements and the number of blocks follow from the arguments and the kernels' files.
    let context = Context::new(device.clone()).unwrap();
    for n in SIZES {
        let ramp: Vec<bf16> = (0..n).map(|i| bf16::from_f32(i as f32)).collect();
        let x = device.upload(context.stream(), "x", &ramp).unwrap();
        let y = device.allocate("y", 2 * n).unwrap();
        let [x, result] = [&x, &y].map(|buffer| buffer.all().elements_mut(ElementType::BF16).unwrap());
        context.launch(&[], &Fill { x: result, value: 0.5, n: n as i64 }).unwrap();
        context.launch(&[], &Axpy { y: result, x: x.as_slice(), a: -2.0, n: n as i64 }).unwrap();
        let expected: Vec<bf16> = ramp.iter().map(|x| bf16::from_f32(0.5 - 2.0 * x.to_f32())).collect();
        assert_eq!(device.download::<bf16>(context.stream(), y.slice().unwrap()).unwrap(), expected);
    }
    let [wide, narrow] = ["wide", "narrow"].map(|name| device.allocate(name, 64).unwrap());
    let mixed = Axpy {
        y: wide.all().elements_mut(ElementType::F32).unwrap(),
        x: narrow.all().elements(ElementType::BF16).unwrap(),
        a: 1.0,
        n: 16,
    };
    let message = context.launch(&[], &mixed).unwrap_err().to_string();
    assert!(message.contains("`axpy`") && message.contains("`y` has f32") && message.contains("`x` bf16"), "{message}");
    // A window in the middle: its neighbours stay as they were.
    let x = device.upload(&stream, "x", &[1f32; 64]).unwrap();
    kernels.fill(&stream, x.view(80..148).unwrap(), 9.0).unwrap();
    let got = device.download::<f32>(&stream, x.slice().unwrap()).unwrap();
    assert!((0..64).all(|i| got[i] == if (20..37).contains(&i) { 9.0 } else { 1.0 }));
}

fn order(device: &Arc<dyn Device>, kernels: &Kernels) {
    const N: usize = 1 << 16;
    let (first, second) = (device.stream().unwrap(), device.stream().unwrap());
    let [begin, filled, end] = [(); 3].map(|()| device.event().unwrap());
    let (x, y) = (device.allocate("x", 4 * N).unwrap(), device.allocate("y", 4 * N).unwrap());
    device.fill(&second, y.all(), 0).unwrap();
    device.record(&begin, &first).unwrap();
    kernels.fill(&first, x.all(), 3.0).unwrap();
    device.record(&filled, &first).unwrap();
    device.wait(&second, &filled).unwrap();
    kernels.axpy(&second, y.all(), x.all(), 2.0).unwrap();
    device.record(&end, &second).unwrap();
    assert_eq!(device.download::<f32>(&second, y.slice().unwrap()).unwrap(), vec![6.0; N]);
    device.synchronize(&first).unwrap();
    let (part, whole) = (device.elapsed(&begin, &filled).unwrap(), device.elapsed(&begin, &end).unwrap());
    assert!(!part.is_zero() && part < whole, "{part:?} {whole:?}");
    assert!(device.elapsed(&device.event().unwrap(), &end).is_err(), "an event that was never recorded");
}

fn graphs(device: &Arc<dyn Device>, kernels: &Kernels) {
    let (stream, side) = (device.stream().unwrap(), device.stream().unwrap());
    let x = device.upload(&stream, "x", &[1f32; 300]).unwrap();
    let [y, z] = ["y", "z"].map(|name| device.upload(&stream, name, &[0f32; 300]).unwrap());
    let [forked, joined] = [(); 2].map(|()| device.event().unwrap());
    let graph = device
        .capture(&stream, || {
            kernels.axpy(&stream, y.all(), x.all(), 1.0)?;
            device.record(&forked, &stream)?;
            device.wait(&side, &forked)?;
            device.copy(&side, z.all(), y.all())?;
            device.record(&joined, &side)?;
            device.wait(&stream, &joined)?;
            device.fill(&stream, x.view(..4)?, 0)
        })
        .unwrap();
    let read = |buffer: &gpu::Buffer| device.download::<f32>(&stream, buffer.slice().unwrap()).unwrap();
    assert!(read(&x) == [1.0; 300] && read(&y) == [0.0; 300] && read(&z) == [0.0; 300], "captured work is not done");
    for step in 1..=3 {
        device.replay(&stream, &graph).unwrap();
        let (x, y, z) = (read(&x), read(&y), read(&z));
        // The first element of x is cleared by the first replay, behind its use.
        assert!(x[0] == 0.0 && x[1..] == [1.0; 299], "{step}");
        assert!(y[0] == 1.0 && y[1..].iter().all(|&v| v == step as f32) && z == y, "{step}");
    }
    device.copy(&side, z.all(), x.all()).unwrap();
    device.synchronize(&side).unwrap();
    assert_eq!(read(&z)[1], 1.0, "the side stream does its work again after the capture");

    let refused: [&dyn Fn() -> ferromind::Result<()>; 5] = [
        &|| device.synchronize(&stream),
        &|| device.allocate("late", 4).map(drop),
        &|| device.copy_to_device(&stream, x.view(..4)?, &[0; 4]),
        &|| device.copy_to_host(&stream, &mut [0; 4], x.view(..4)?),
        &|| device.begin_capture(&stream),
    ];
    for work in refused {
        assert!(device.capture(&stream, work).is_err());
    }
    kernels.fill(&stream, x.all(), 5.0).unwrap();
    assert_eq!(read(&x), [5.0; 300], "a capture that failed has ended");
    assert!(device.end_capture(&stream).is_err());
}

fn tensor_maps(device: &Arc<dyn Device>) {
    let buffer = device.allocate("tensor", 64 * 128 * 2).unwrap();
    let layout = TensorMapLayout {
        memory: buffer.all(),
        element: TensorMapElement::BF16,
        shape: &[128, 64],
        strides: &[256],
        tile: &[64, 16],
        swizzle: gpu::Swizzle::B128,
        l2_promotion: gpu::L2Promotion::B128,
        out_of_bounds: gpu::OutOfBounds::NaN,
    };
    if device.info().arch.capability() < (9, 0) {
        assert!(device.encode_tensor_map(&layout).is_err());
        return;
    }
    let map = device.encode_tensor_map(&layout).unwrap();
    assert_ne!(map, device.encode_tensor_map(&TensorMapLayout { tile: &[32, 16], ..layout.clone() }).unwrap());
    let message = device.encode_tensor_map(&TensorMapLayout { tile: &[128, 16], ..layout }).unwrap_err().to_string();
    assert!(message.contains("`tensor`"), "{message}");
}

fn refusals(device: &Arc<dyn Device>, kernels: &Kernels, other: &Arc<dyn Device>) {
    let fails = |result: ferromind::Result<()>, words: &[&str]| {
        let message = result.unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    };
    let stream = device.stream().unwrap();
    let x = device.upload(&stream, "x", &[0f32; 8]).unwrap();
    fails(device.allocate("logits", 1 << 50).map(drop), &["`logits`", "1125899906842624"]);
    fails(device.copy_to_device(&stream, x.all(), &[0; 7]), &["`x`", "32", "7"]);
    fails(device.copy_to_host(&stream, &mut [0; 33], x.all()), &["`x`", "32", "33"]);
    fails(device.copy(&stream, x.view(..4).unwrap(), x.view(4..).unwrap()), &["`x`"]);
    let broken = Compiled::from_ptx("broken.ptx", device.info().arch, "nonsense".to_owned());
    fails(device.load(&broken).map(drop), &["broken.ptx"]);
    let compiled = Compiler::new().unwrap().compile(&fill::SOURCE, &Options::new(device.info().arch)).unwrap();
    let module = device.load(&compiled).unwrap();
    fails(device.kernel(&module, "absent").map(drop), &["`absent`"]);
    let kernel = device.kernel(&module, "fill").unwrap();
    let mut few = Arguments::new();
    few.push(1f32);
    fails(device.launch(&stream, &kernel, &LaunchConfig::new(1, 1), &few), &["`fill`", "[4]", "[8, 4, 8]"]);
    let n = 8;
    let call = Fill { x: x.all().elements_mut(ElementType::F32).unwrap(), value: 0.0, n };
    let good = LaunchConfig::new(1, 8);
    for (config, word) in [
        (LaunchConfig { grid: [0, 1, 1], ..good }, "grid"),
        (LaunchConfig { block: [2048, 1, 1], ..good }, "1024"),
        (LaunchConfig { shared_bytes: 1 << 20, ..good }, "shared"),
        (LaunchConfig { cluster: [3, 1, 1], ..good }, "cluster"),
    ] {
        fails(kernels.fill_as(&stream, &config, &call), &["`fill`", word]);
    }
    fails(device.synchronize(&other.stream().unwrap()), &["another device"]);
    fails(device.record(&other.event().unwrap(), &stream), &["another device"]);
    fails(device.synchronize(&Stream::new(())), &["Stream of another"]);
    // None of it has left anything behind.
    device.synchronize(&stream).unwrap();
    assert_eq!(device.download::<f32>(&stream, x.slice().unwrap()).unwrap(), [0.0; 8]);
}

/// A kernel that writes where nothing is: an error of a later call, with its name.
fn stray(device: &Arc<dyn Device>, kernels: &Kernels) {
    let stream = device.stream().unwrap();
    let x = device.allocate("x", 64).unwrap();
    // So far behind the buffer that no device has memory there.
    let far = gpu::Buffer::new("far", x.address() + (1 << 44), 4 << 20, ());
    let call = Fill { x: far.all().elements_mut(ElementType::F32).unwrap(), value: 1.0, n: 1 << 20 };
    kernels.fill_as(&stream, &LaunchConfig::new(1 << 10, 1 << 10), &call).unwrap();
    let message = device.synchronize(&stream).unwrap_err().to_string();
    assert!(message.contains("fill"), "{message}");
}

#[test]
fn emulator() {
    suite(|| gpu::open(DeviceKind::Emulator).unwrap());
}

/// Only where there is a device: elsewhere it says so and checks nothing.
#[test]
fn cuda() {
    match gpu::probe_cuda() {
        Ok(()) => suite(|| gpu::open(DeviceKind::Cuda(0)).unwrap()),
        Err(reason) => eprintln!("not run: {reason}"),
    }
}

/// What the emulator tells beyond the seam.
mod of_the_emulator {
    use ferromind::gpu::emulator::{EmulatorDevice, Settings};
    use ptx_emulator::{Kind, Order};

    use super::*;

    fn open(settings: Settings) -> (Arc<EmulatorDevice>, Arc<dyn Device>, Kernels) {
        let emulator = Arc::new(EmulatorDevice::new(settings));
        let device: Arc<dyn Device> = emulator.clone();
        let kernels = Kernels::load(&device);
        (emulator, device, kernels)
    }

    #[test]
    fn findings_name_the_buffer_and_the_line_and_are_told_once() {
        let (emulator, device, kernels) = open(Settings::default());
        let stream = device.stream().unwrap();
        let x = device.allocate("weights", 40).unwrap();
        let call = Fill { x: x.all().elements_mut(ElementType::F32).unwrap(), value: 1.0, n: 11 };
        kernels.fill_as(&stream, &LaunchConfig::new(1, 32), &call).unwrap();
        let message = device.synchronize(&stream).unwrap_err().to_string();
        for part in ["out of bounds", "`weights` +40 bytes", "fill.cu:13", "thread (10, 0, 0)"] {
            assert!(message.contains(part), "no {part} in {message}");
        }
        device.synchronize(&stream).unwrap();
        let findings = emulator.take_findings();
        assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::OutOfBounds]);
        assert!(emulator.take_findings().is_empty());

        // The next launch returns it too, and is not done.
        kernels.fill_as(&stream, &LaunchConfig::new(1, 32), &call).unwrap();
        let whole = Fill { n: 10, value: 2.0, ..call };
        assert!(kernels.fill_as(&stream, &LaunchConfig::new(1, 32), &whole).is_err());
        assert_eq!(device.download::<f32>(&stream, x.slice().unwrap()).unwrap(), [1.0; 10]);
    }

    #[test]
    fn without_checks_only_strays_are_seen() {
        let (emulator, device, kernels) = open(Settings { checked: false, ..Settings::default() });
        let stream = device.stream().unwrap();
        let [x, y] = ["x", "y"].map(|name| device.allocate(name, 400).unwrap());
        kernels.axpy(&stream, y.all(), x.all(), 1.0).unwrap();
        device.download::<f32>(&stream, y.slice().unwrap()).unwrap();
        emulator.set(Settings { checked: true, ..emulator.settings() });
        kernels.axpy(&stream, y.all(), x.all(), 1.0).unwrap();
        assert!(device.synchronize(&stream).is_err());
    }

    #[test]
    fn what_nobody_wrote_is_found_when_it_is_used() {
        let (emulator, device, kernels) = open(Settings::default());
        let stream = device.stream().unwrap();
        let [x, y, z] = ["x", "y", "z"].map(|name| device.allocate(name, 400).unwrap());
        kernels.fill(&stream, x.view(..396).unwrap(), 1.0).unwrap();
        let message = device.download::<f32>(&stream, x.slice().unwrap()).unwrap_err().to_string();
        assert!(message.contains("never written") && message.contains("`x` +396 bytes"), "{message}");
        // A copy is as undefined as what it copies, and a kernel that computes with it is told.
        device.copy(&stream, y.all(), x.all()).unwrap();
        device.fill(&stream, z.all(), 0).unwrap();
        kernels.axpy(&stream, z.all(), y.all(), 1.0).unwrap();
        let message = device.synchronize(&stream).unwrap_err().to_string();
        assert!(message.contains("uninitialised") && message.contains("axpy.cu:15"), "{message}");
        emulator.take_findings();

        let freed = device.upload(&stream, "freed", &[0f32; 100]).unwrap();
        let graph = device.capture(&stream, || kernels.axpy(&stream, z.all(), freed.all(), 1.0)).unwrap();
        drop(freed);
        device.replay(&stream, &graph).unwrap();
        let message = device.synchronize(&stream).unwrap_err().to_string();
        assert!(message.contains("use after free") && message.contains("`freed`"), "{message}");
    }

    #[test]
    fn launches_are_logged_with_their_counters_and_time_is_modelled() {
        let (emulator, device, kernels) = open(Settings { log: true, order: Order::Seeded(7), ..Settings::default() });
        let run = || {
            let stream = device.stream().unwrap();
            let [begin, end] = [(); 2].map(|()| device.event().unwrap());
            let x = device.allocate("x", 4 << 16).unwrap();
            device.record(&begin, &stream).unwrap();
            kernels.fill(&stream, x.all(), 1.0).unwrap();
            device.record(&end, &stream).unwrap();
            device.elapsed(&begin, &end).unwrap()
        };
        assert_eq!(run(), run());
        let launches = emulator.take_launches();
        assert_eq!(launches.len(), 2);
        let buffers = &launches[0].report.counters.buffers;
        assert_eq!((buffers[0].name.as_str(), buffers[0].sectors_read, buffers[0].sectors_written), ("x", 0, (4 << 16) / 32));
        assert!(launches[0].report.findings.is_empty() && launches[0].bound.seconds > 0.0);
    }

    #[test]
    fn a_kernel_that_never_ends_is_given_up() {
        let (_, device, kernels) = open(Settings { max_instructions: 100, ..Settings::default() });
        let stream = device.stream().unwrap();
        let x = device.allocate("x", 4 << 10).unwrap();
        let message = kernels.fill(&stream, x.all(), 1.0).unwrap_err().to_string();
        assert!(message.contains("`fill`") && message.contains("100"), "{message}");
    }
}
