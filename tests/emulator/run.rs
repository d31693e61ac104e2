//! Subjects of faults on the emulator: what it is to run one, and how the corpus's cases do.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ptx_emulator::tensor::swizzle::Swizzle as Pattern;
use ptx_emulator::tensor::tensor_map::{self, DataType, Dimension, OutOfBounds};
use ptx_emulator::{Device, Kernel, Kind, Launch, Order, Program, Result};

use super::corpus::{self, Argument, Case, Contents, Element, Swizzle};

/// How a case ended: at the first thing that was wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing was wrong; the bytes of the expected buffers, in their order.
    Right(Vec<Vec<u8>>),
    /// A checker found something.
    Finding(Kind, String),
    /// An output differs from what it should be, or an input was changed.
    Wrong(String),
    /// An output has other bits than before, though near enough to what it should be.
    OtherBits(String),
    /// Nobody wrote a part of an output.
    NeverWritten(String),
    /// It could not be executed, or not to its end.
    Error(String),
}

/// How to run it.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    pub order: Order,
    /// Warp instructions for each launch.
    pub max_instructions: u64,
    pub workers: usize,
}

/// What happened.
pub struct Run {
    pub outcome: Outcome,
    /// The lines of the PTX that a warp reached.
    pub reached: BTreeSet<u32>,
    /// Instructions that warps executed.
    pub warp_instructions: u64,
}

/// What can be executed with a faulty program in the place of its own.
pub trait Execute: Sync {
    /// Launches its kernels on a new device and looks at everything that they leave behind.
    fn run(&self, program: &Arc<Program>, conditions: Conditions) -> Run;
}

impl Execute for Case {
    fn run(&self, program: &Arc<Program>, conditions: Conditions) -> Run {
        let mut run = Run { outcome: Outcome::Right(Vec::new()), reached: BTreeSet::new(), warp_instructions: 0 };
        run.outcome = attempt(self, program, conditions, &mut run).unwrap_or_else(|error| Outcome::Error(error.to_string()));
        run
    }
}

fn attempt(case: &Case, program: &Arc<Program>, conditions: Conditions, run: &mut Run) -> Result<Outcome> {
    let mut device = Device::new();
    let mut addresses = HashMap::new();
    for buffer in &case.buffers {
        let address = device.allocate(buffer.name, buffer.len() as u64)?;
        if let Contents::Input(bytes) | Contents::InOut(bytes) = &buffer.contents {
            device.write(address, bytes)?;
        }
        addresses.insert(buffer.name, address);
    }
    let module = device.load(program.clone())?;
    for step in &case.launches {
        let kernel = program.kernels().find(|kernel| kernel.name == step.kernel).expect("a kernel of the case");
        let launch = Launch {
            cluster: step.cluster,
            shared_bytes: step.shared,
            max_instructions: conditions.max_instructions,
            workers: Some(conditions.workers),
            order: conditions.order,
            ..Launch::new(step.grid, step.block, arguments(kernel, &step.arguments, &addresses))
        };
        let report = device.launch(&module, step.kernel, &launch)?;
        run.reached.extend(report.counters.instructions.iter().map(|line| line.place.ptx_line));
        run.warp_instructions += report.counters.warp_instructions();
        if let Some(finding) = report.findings.first() {
            return Ok(Outcome::Finding(finding.kind, finding.to_string()));
        }
    }
    let read = |name: &str, length: usize| {
        let mut bytes = vec![0; length];
        device.read(addresses[name], &mut bytes).map(|()| bytes)
    };
    let mut outputs = Vec::new();
    for expected in &case.expected {
        let bytes = read(expected.buffer, expected.len())?;
        if let Some(at) = device.first_undefined(addresses[expected.buffer], expected.len() as u64)? {
            return Ok(Outcome::NeverWritten(format!("{} from byte {at}", expected.buffer)));
        }
        if let Err(mismatch) = expected.check(&bytes) {
            return Ok(Outcome::Wrong(format!("{}: {mismatch:?}", expected.buffer)));
        }
        outputs.push(bytes);
    }
    for buffer in &case.buffers {
        if let Contents::Input(bytes) = &buffer.contents
            && read(buffer.name, bytes.len())? != *bytes
        {
            return Ok(Outcome::Wrong(format!("{} was changed", buffer.name)));
        }
    }
    Ok(Outcome::Right(outputs))
}

/// The arguments where the kernel expects them.
fn arguments(kernel: &Kernel, arguments: &[Argument], addresses: &HashMap<&str, u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (parameter, argument) in kernel.parameters.iter().zip(arguments) {
        bytes.resize(parameter.offset, 0);
        match argument {
            Argument::I32(value) => bytes.extend(value.to_ne_bytes()),
            Argument::U32(value) => bytes.extend(value.to_ne_bytes()),
            Argument::U64(value) => bytes.extend(value.to_ne_bytes()),
            Argument::F32(value) => bytes.extend(value.to_ne_bytes()),
            Argument::Buffer(name) => bytes.extend(addresses[name].to_ne_bytes()),
            Argument::TensorMap(map) => bytes.extend(tensor_map(map, addresses[map.buffer])),
        }
    }
    bytes
}

fn tensor_map(map: &corpus::TensorMap, address: u64) -> [u8; tensor_map::SIZE] {
    let element = match map.element {
        Element::U8 => DataType::Uint8,
        Element::I32 => DataType::Int32,
        Element::U32 => DataType::Uint32,
        Element::F16 => DataType::Float16,
        Element::Bf16 => DataType::Bfloat16,
        Element::F32 => DataType::Float32,
    };
    let strides = [map.element.size() as u64].into_iter().chain(map.strides.iter().copied());
    let extents = map.dims.iter().zip(strides).zip(&map.tile);
    let dimensions: Vec<_> = extents.map(|((&size, stride), &box_size)| Dimension { size, stride, box_size, step: 1 }).collect();
    let pattern = match map.swizzle {
        Swizzle::None => Pattern::None,
        Swizzle::Bytes128 => Pattern::B128,
    };
    let map = tensor_map::TensorMap::new(element, address, &dimensions, pattern, 0, OutOfBounds::Zero);
    map.expect("a legal tensor map").encode()
}
