//! A module made ready to run: names resolved to register slots and program counters, each instruction decoded into the code that
//! executes it.

mod lower;
mod lowering;
mod operands;
mod scope;
mod shared_layout;

use std::collections::BTreeMap;

use crate::check::races::Strength;
use crate::machine::execute::Execute;
use crate::machine::registers::{Bank, Mask, Pred, Reg};
use crate::ptx::ast;
use crate::{Error, Result};

pub(crate) use lower::Decoded;
pub(crate) use lowering::Lowering;
pub(crate) use scope::Symbol;

/// A PTX module, parsed and decoded; immutable, shared by any number of launches.
pub struct Program {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) functions: Vec<Function>,
    pub(crate) variables: Vec<Variable>,
    kernels: BTreeMap<String, Kernel>,
    files: BTreeMap<u32, String>,
    target: String,
}

/// An entry point.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As in the PTX; C++ names are mangled unless the kernel is `extern "C"`.
    pub name: String,
    /// In order.
    pub parameters: Vec<Parameter>,
    /// Bytes of statically sized shared memory.
    pub shared_bytes: u32,
    /// Bytes of local memory per thread (stack and spilled arrays of the PTX, without called functions).
    pub local_bytes: u32,
    /// `.maxntid`, `.reqntid`, `.reqnctapercluster` and their like, as written.
    pub directives: BTreeMap<String, Vec<u32>>,
    /// Where the static shared variables lie; there are gaps between them.
    pub(crate) shared_variables: Vec<SharedVariable>,
    /// Shared address behind the last of them.
    pub(crate) shared_end: u32,
    /// What dynamic shared memory is aligned to.
    pub(crate) dynamic_align: u32,
    pub(crate) function: usize,
}

/// A variable in shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedVariable {
    pub name: String,
    /// Shared address.
    pub offset: u32,
    pub bytes: u32,
}

/// Shared address of the first byte of dynamic shared memory behind static variables that end at `end`.
pub(crate) fn dynamic_shared_start(end: u32, no_static: bool, align: u32) -> u32 {
    let gap = if no_static { 0 } else { crate::memory::shared::SHARED_GAP };
    (end + gap).next_multiple_of(align.max(16))
}

/// A kernel's parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// As in the PTX: `kernel_param_0`.
    pub name: String,
    /// First byte among the packed arguments.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Bytes.
    pub align: usize,
    /// Type as declared; a structure by value is an array of `B8`.
    pub ty: ast::Type,
}

impl Kernel {
    /// Shared address of the first byte of dynamic shared memory.
    pub(crate) fn dynamic_start(&self) -> u32 {
        dynamic_shared_start(self.shared_end, self.shared_variables.is_empty(), self.dynamic_align)
    }

    /// Bytes that all arguments take when packed with their alignments.
    pub fn argument_bytes(&self) -> usize {
        self.parameters.last().map_or(0, |last| last.offset + last.size)
    }
}

/// A variable at module scope in global or constant memory.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub name: String,
    pub constant: bool,
    /// First values; the rest up to `bytes` is zero.
    pub initial: Vec<u8>,
    /// Places in `initial` that hold the address of another variable plus an offset.
    pub relocations: Vec<Relocation>,
    pub bytes: u64,
}

/// `initial[at..at + 8]` is the address of `variables[target]` plus `offset`.
#[derive(Debug, Clone)]
pub(crate) struct Relocation {
    pub at: usize,
    pub target: usize,
    pub offset: i64,
}

/// A kernel's or device function's code and frame.
pub(crate) struct Function {
    pub name: String,
    /// First instruction.
    pub entry: u32,
    pub frame: Frame,
    /// Byte offsets of the parameters in the frame's local memory (of a kernel: among its packed arguments), with their sizes.
    pub parameters: Vec<(u32, u32)>,
    /// The same of the returned values.
    pub returns: Vec<(u32, u32)>,
    /// By definedness id; slots for immediates have no name.
    pub registers: Vec<RegisterName>,
}

/// A register as the program calls it.
#[derive(Debug, Clone)]
pub(crate) struct RegisterName {
    pub name: String,
    pub ty: ast::Type,
    pub bank: Bank,
    pub index: u32,
}

/// Registers per bank.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub predicates: u32,
    pub b16: u32,
    pub b32: u32,
    pub b64: u32,
}

impl Counts {
    pub(crate) fn total(&self) -> u32 {
        self.predicates + self.b16 + self.b32 + self.b64
    }
}

/// What a call of a function needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub counts: Counts,
    /// Immediates and addresses known when the module is loaded.
    pub constants: Vec<Constant>,
    /// Special registers that keep their value while the warp lives, and the 32-bit registers that hold them.
    pub specials: Vec<(Special, Reg<u32>)>,
    /// Addresses known only when a call is made, and the 64-bit registers that hold them.
    pub addresses: Vec<(Address, Reg<u64>)>,
    /// Bytes of local memory.
    pub local_bytes: u32,
}

/// Where the local memory of a called function begins, if its caller's begins at `local` and has `bytes` bytes. A frame takes some
/// room in any case, so that endless recursion comes to an end.
pub(crate) fn next_frame(local: u32, bytes: u32) -> u32 {
    (local + bytes + 1).next_multiple_of(MAX_LOCAL_ALIGN)
}

/// What a variable in local memory can be aligned to at most.
pub(crate) const MAX_LOCAL_ALIGN: u32 = 128;

/// Bytes of local memory that a thread can have: CUDA's limit.
pub(crate) const MAX_LOCAL: u32 = 512 * 1024;

/// A register slot that always holds `bits`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Constant {
    pub bank: Bank,
    pub index: u32,
    pub id: u32,
    pub bits: u64,
}

/// An address that differs from launch to launch or from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// Of a module-scope variable, in its own space, plus bytes.
    Variable { index: usize, offset: i64 },
    /// Of a byte of the frame's local memory, in the local space.
    Local { offset: i64 },
}

/// Special registers that do not change during a warp's life; all are 32 bits wide here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // PTX's own names
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    Clusterid(usize),
    Nclusterid(usize),
    ClusterCtaid(usize),
    ClusterNctaid(usize),
    ClusterCtarank,
    ClusterNctarank,
    IsExplicitCluster,
    DynamicSharedSize,
    TotalSharedSize,
    Zero,
}

/// `@p` or `@!p`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    pub register: Pred,
    pub negated: bool,
}

/// One decoded instruction.
pub(crate) struct Instruction {
    pub guard: Option<Guard>,
    pub op: Box<dyn Execute>,
    /// Definedness ids of all registers read (without the guard) and written.
    pub reads: Box<[u32]>,
    pub writes: Box<[u32]>,
    /// The reads whose value decides where control, an address or other lanes go: an undefined lane there is a finding.
    pub critical: Box<[u32]>,
    /// The operation says itself which destinations are undefined.
    pub own_taint: bool,
    /// Those of its registers that asynchronous products use; empty for the products, which keep account themselves.
    pub watched: Box<[u32]>,
    /// Lanes must meet here before it executes.
    pub meeting: Option<Meeting>,
    /// How its memory accesses order others.
    pub strength: Strength,
    pub class: Class,
    /// Line in the PTX.
    pub line: u32,
    pub location: Option<ast::Location>,
    /// As PTX, for findings and traces.
    pub text: Box<str>,
}

/// Which lanes a `.sync` instruction waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meeting {
    /// All lanes that have not exited (`.aligned`).
    Warp,
    /// The same, at a barrier, which itself tells of those that have exited.
    Barrier,
    /// Those in a membermask: a 32-bit register.
    Members(Reg<u32>),
}

/// What an instruction costs on a GPU, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Integer and logic.
    Integer,
    /// f32, f16 and bf16 arithmetic.
    Float,
    /// f64 arithmetic.
    Double,
    /// Approximations on the special-function units: exponentials, reciprocals, square roots, trigonometry.
    Special,
    /// Conversions between types.
    Convert,
    /// Moves, selects, predicates.
    Move,
    /// Branches, calls, exits.
    Control,
    /// Loads and stores of global memory.
    Global,
    /// Loads and stores of shared memory, `ldmatrix` and `stmatrix`.
    Shared,
    /// Loads and stores of local memory.
    Local,
    /// Loads of constants and parameters.
    Constant,
    /// Atomics and reductions in memory.
    Atomic,
    /// Shuffles, votes, matches, warp reductions.
    Warp,
    /// Barriers, fences and waits.
    Barrier,
    /// Asynchronous copies.
    Copy,
    /// Matrix products.
    Matrix,
}

impl Program {
    /// Parses and decodes PTX.
    ///
    /// # Errors
    /// Text that is not PTX, an instruction that the emulator does not know, a name that is not declared: each with its line.
    pub fn parse(text: &str) -> Result<Self> {
        Self::new(&crate::ptx::parse(text)?)
    }

    /// Decodes a syntax tree.
    ///
    /// # Errors
    /// As [`Program::parse`], but for the syntax.
    pub fn new(module: &ast::Module) -> Result<Self> {
        lower::lower(module)
    }

    /// The entry point of this name.
    ///
    /// # Errors
    /// No such kernel; the message lists those that the module has.
    pub fn kernel(&self, name: &str) -> Result<&Kernel> {
        self.kernels.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.kernels.keys().map(String::as_str).collect();
            Error::Launch(format!("no kernel `{name}` in this module; it has: {}", names.join(", ")))
        })
    }

    /// All entry points, by name.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.values()
    }

    /// `.target`: `sm_90a`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What the program calls a register of the function that an instruction stands in.
    pub(crate) fn register_name(&self, pc: u32, id: u32) -> &str {
        let function = self.functions.iter().rfind(|function| function.entry <= pc);
        function.and_then(|function| function.registers.get(id as usize)).map_or("", |register| &register.name)
    }

    /// Name of the source file that a location speaks of.
    pub fn file(&self, location: ast::Location) -> Option<&str> {
        self.files.get(&location.file).map(String::as_str)
    }

    /// Whether there are copies or products that see shared memory through a proxy of their own.
    pub(crate) fn uses_async_proxy(&self) -> bool {
        let uses = |class: Class, text: &str| match class {
            Class::Copy => text.contains(".bulk"),
            Class::Matrix => text.contains("wgmma"),
            _ => false,
        };
        self.instructions.iter().any(|instruction| uses(instruction.class, &instruction.text))
    }

    /// Whether an address is the start of one of the module's constants, given where its variables were placed.
    #[inline(always)]
    pub(crate) fn is_constant(&self, addresses: &[u64], address: u64) -> bool {
        !addresses.is_empty() && self.variables.iter().zip(addresses).any(|(variable, &at)| variable.constant && at == address)
    }

    /// The instruction's mask of lanes where its guard holds.
    #[inline(always)]
    pub(crate) fn guarded(guard: Option<Guard>, registers: &crate::machine::registers::Registers, lanes: Mask) -> Mask {
        match guard {
            None => lanes,
            Some(Guard { register, negated: false }) => lanes & registers.predicate(register),
            Some(Guard { register, negated: true }) => lanes & !registers.predicate(register),
        }
    }
}
