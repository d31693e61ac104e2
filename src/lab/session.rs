//! Where the table's cases run, and how one is run: what `lab check` and `lab bench` share.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gpu::context::Budget;
use crate::gpu::emulator::{EmulatorDevice, Launched, Settings};
use crate::gpu::nvrtc::Compiler;
use crate::gpu::{self, Arch, Context, Device, DeviceKind, ElementType, Replacement};
use crate::ops::table::{Operands, Problem, Role};
use crate::{Error, Result};

/// What runs the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// The emulator, a new one for each case.
    Emulator,
    /// A GPU by its number.
    Cuda(u32),
}

/// A compiler, a machine and perhaps somebody's own kernels, for many cases.
#[derive(Clone)]
pub struct Session {
    machine: Machine,
    compiler: Arc<Compiler>,
    replacement: Option<Replacement>,
    /// The GPU, which is opened once.
    device: Option<Arc<dyn Device>>,
}

impl Session {
    /// An error if the device or the compiler is not there.
    pub fn new(kind: DeviceKind, replacement: Option<Replacement>) -> Result<Self> {
        let (machine, device) = match kind {
            DeviceKind::Emulator => (Machine::Emulator, None),
            DeviceKind::Cuda(ordinal) => (Machine::Cuda(ordinal), Some(gpu::open(kind)?)),
            DeviceKind::Auto | DeviceKind::Cpu => return Err(Error::config(format!("kernels do not run on the device {kind}"))),
        };
        Ok(Self { machine, compiler: Arc::new(Compiler::new()?), replacement, device })
    }

    /// The same with other kernels in place of ours.
    pub fn replacing(&self, replacement: Option<Replacement>) -> Self {
        Self { replacement, ..self.clone() }
    }

    /// What runs the kernels.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// A device with its kernels, ready for a case.
    pub(super) fn bench(&self) -> Result<Bench> {
        let emulator = self.device.is_none().then(|| Arc::new(EmulatorDevice::default()));
        let device = match (&self.device, &emulator) {
            (Some(device), _) => device.clone(),
            (None, Some(emulator)) => emulator.clone() as Arc<dyn Device>,
            (None, None) => return Err(Error::Internal("a session has no device".into())),
        };
        let context = Context::with(device, self.compiler.clone())?.replacing(self.replacement.clone());
        Ok(Bench { context, emulator })
    }
}

/// A device with its kernels.
pub(super) struct Bench {
    context: Context,
    emulator: Option<Arc<EmulatorDevice>>,
}

/// Bytes by the operands' names.
pub(super) type HostBytes = BTreeMap<&'static str, Vec<u8>>;

/// The bytes of every output after a run.
pub struct OutputBytes {
    bytes: HostBytes,
    /// What was changed and should not have been.
    pub failures: Vec<String>,
}

impl OutputBytes {
    /// An output's bytes, gaps between its rows included.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.bytes.get(name).map(Vec::as_slice)
    }

    /// The name of an output that has other bits.
    pub fn first_difference(&self, other: &Self) -> Option<&'static str> {
        self.bytes.iter().find(|(name, bytes)| other.bytes.get(*name) != Some(*bytes)).map(|(name, _)| *name)
    }
}

impl Bench {
    /// Whether times are modelled.
    pub(super) fn is_emulated(&self) -> bool {
        self.emulator.is_some()
    }

    /// How the emulator goes on; nothing on a GPU.
    pub(super) fn set(&self, settings: Settings) {
        if let Some(emulator) = &self.emulator {
            emulator.set(settings);
        }
    }

    /// What the emulator's checkers found since the last call.
    pub(super) fn findings(&self) -> Vec<String> {
        let findings = self.emulator.as_ref().map(|emulator| emulator.take_findings()).unwrap_or_default();
        findings.iter().map(ToString::to_string).collect()
    }

    /// What was launched since the last call; `None` on a GPU.
    pub(super) fn launches(&self) -> Option<Vec<Launched>> {
        self.emulator.as_ref().map(|emulator| emulator.take_launches())
    }

    /// What the kernels that were launched need of a multiprocessor of this target.
    pub(super) fn budgets(&self, arch: Arch) -> Result<Vec<Budget>> {
        self.context.budgets(arch)
    }

    /// What the device's kernels are compiled for.
    pub(super) fn arch(&self) -> Arch {
        self.context.device().info().arch
    }

    /// Whether a kernel was taken from the user's file.
    pub(super) fn used_replacement(&self) -> bool {
        self.context.used_replacement()
    }

    /// What launches.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Lays out the operands, launches, and reads the outputs back.
    pub(super) fn run(&self, problem: &Problem, element: ElementType) -> Result<OutputBytes> {
        run(&self.context, problem, element)
    }
}

/// A problem's operands in the device's memory, and the bytes that were copied there.
pub(super) fn lay_out<'a>(context: &'a Context, problem: &Problem, element: ElementType) -> Result<(Operands<'a>, HostBytes)> {
    let (device, stream) = (context.device(), context.stream());
    let mut operands = Operands { context, element, buffers: BTreeMap::new() };
    let mut host = BTreeMap::new();
    for operand in &problem.operands {
        let bytes = operand.encode(element);
        let buffer = device.allocate(operand.name, bytes.len())?;
        // A workspace stays undefined: the emulator tells who reads what nobody wrote.
        if operand.role != Role::Workspace {
            device.copy_to_device(stream, buffer.all(), &bytes)?;
        }
        if operands.buffers.insert(operand.name, buffer).is_some() {
            return Err(Error::Internal(format!("two operands `{}`", operand.name)));
        }
        host.insert(operand.name, bytes);
    }
    Ok((operands, host))
}

/// Lays a problem's operands out in the device's memory, launches its kernels, and reads outputs and inputs back.
///
/// # Errors
/// What the device or the compiler says; on the emulator also what its checkers found.
pub fn run(context: &Context, problem: &Problem, element: ElementType) -> Result<OutputBytes> {
    let (device, stream) = (context.device(), context.stream());
    let (operands, before) = lay_out(context, problem, element)?;
    (problem.run)(&operands)?;
    device.synchronize(stream)?;
    let mut outputs = OutputBytes { bytes: BTreeMap::new(), failures: Vec::new() };
    for operand in problem.operands.iter().filter(|operand| operand.role != Role::Workspace) {
        let name = operand.name;
        let Some(buffer) = operands.buffers.get(name) else { continue };
        let mut bytes = vec![0; buffer.bytes()];
        device.copy_to_host(stream, &mut bytes, buffer.all())?;
        if operand.role == Role::Input {
            if before.get(name) != Some(&bytes) {
                outputs.failures.push(format!("`{name}` is an input and was written"));
            }
            continue;
        }
        outputs.bytes.insert(name, bytes);
    }
    Ok(outputs)
}
