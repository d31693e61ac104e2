//! From the syntax tree to decoded instructions.
//!
//! Each kernel is lowered together with copies of the device functions that it can reach, so that every address in shared memory
//! is known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::scope::Scopes;
use super::{
    Address, Class, Constant, Frame, Function, Guard, Instruction, Kernel, MAX_LOCAL, MAX_LOCAL_ALIGN, Meeting, Parameter, Program,
    RegisterName, Relocation, SharedVariable, Special, Variable,
};
use crate::check::races::Strength;
use crate::isa;
use crate::machine::execute::Execute;
use crate::machine::registers::{Bank, Lane, Pred, Reg};
use crate::memory::shared::{SHARED_GAP, SHARED_START};
use crate::ptx::ast::{self, Operand, Space, Statement, Type};
use crate::{Error, Result};

pub(crate) use super::scope::Symbol;

/// What a family of instructions makes of one of its own; which registers it touches, [`Lowering`] has noted.
pub(crate) struct Decoded {
    pub op: Box<dyn Execute>,
    pub class: Class,
    pub meeting: Option<Meeting>,
    pub own_taint: bool,
}

impl Decoded {
    /// An operation whose results are undefined wherever one of its sources is.
    pub(crate) fn new(class: Class, op: impl Execute + 'static) -> Result<Self> {
        Ok(Self { op: crate::machine::simd::boxed(op), class, meeting: None, own_taint: false })
    }

    /// It says itself which of its results are undefined.
    pub(crate) fn with_own_taint(mut self) -> Self {
        self.own_taint = true;
        self
    }

    /// Lanes wait for each other before it.
    pub(crate) fn meeting(mut self, meeting: Meeting) -> Self {
        self.meeting = Some(meeting);
        self
    }
}

pub(super) fn lower(module: &ast::Module) -> Result<Program> {
    let mut program = Program {
        instructions: Vec::new(),
        functions: Vec::new(),
        variables: Vec::new(),
        kernels: BTreeMap::new(),
        files: module.files.clone(),
        target: module.target.clone(),
    };
    let indices = variables(module, &mut program)?;
    for kernel in module.functions.iter().filter(|function| function.is_kernel && function.body.is_some()) {
        lower_kernel(module, kernel, &indices, &mut program)?;
    }
    Ok(program)
}

/// Lays out the module's global and constant variables.
fn variables(module: &ast::Module, program: &mut Program) -> Result<HashMap<String, usize>> {
    let places = |space| matches!(space, Space::Global | Space::Const);
    let declared: Vec<&ast::Variable> = module.variables.iter().filter(|variable| places(variable.space)).collect();
    let indices: HashMap<String, usize> =
        declared.iter().enumerate().map(|(index, variable)| (variable.name.clone(), index)).collect();
    for variable in declared {
        let element = u64::from(variable.element.bytes());
        let length = variable.length.unwrap_or(0).max(variable.initial.len() as u64);
        let bytes = length.checked_mul(element).filter(|&bytes| bytes < 1 << 40);
        let bytes =
            bytes.ok_or_else(|| Error::Invalid { line: variable.line, message: format!("`{}` is too large", variable.name) })?;
        let (mut initial, mut relocations) = (Vec::new(), Vec::new());
        for value in &variable.initial {
            let bits = match value {
                ast::Initial::Integer(bits) => *bits,
                ast::Initial::Float(value) if variable.element == Type::F32 => u64::from((*value as f32).to_bits()),
                ast::Initial::Float(value) => value.to_bits(),
                ast::Initial::Address { name, .. } if function_address(module, name).is_some() => {
                    function_address(module, name).unwrap_or_default()
                }
                ast::Initial::Address { name, offset, .. } => {
                    let target = *indices.get(name).ok_or_else(|| Error::Unsupported {
                        line: variable.line,
                        instruction: variable.name.clone(),
                        reason: Some(format!(
                            "it is initialised with the address of `{name}`, which is no variable or function of this module"
                        )),
                    })?;
                    relocations.push(Relocation { at: initial.len(), target, offset: *offset });
                    0
                }
            };
            initial.extend_from_slice(&bits.to_le_bytes()[..(element as usize).min(8)]);
        }
        program.variables.push(Variable {
            name: variable.name.clone(),
            constant: variable.space == Space::Const,
            initial,
            relocations,
            bytes,
        });
    }
    Ok(indices)
}

/// Functions of the module by name, aliases included.
fn find_function<'m>(module: &'m ast::Module, name: &str) -> Option<&'m ast::Function> {
    let name = module.aliases.get(name).map_or(name, String::as_str);
    let named = || module.functions.iter().filter(|function| function.name == name);
    named().find(|function| function.body.is_some()).or_else(|| named().next())
}

/// The address of a function: no place in memory, but a number that calls know again, the same for all kernels.
fn function_address(module: &ast::Module, name: &str) -> Option<u64> {
    let function = find_function(module, name)?;
    let number = module.functions.iter().position(|other| other.name == function.name)?;
    Some(isa::call::function_address(number as u32))
}

/// The kernel and every device function that it can reach, itself first, each once.
fn reachable<'m>(module: &'m ast::Module, kernel: &'m ast::Function) -> Vec<&'m ast::Function> {
    let mut order = vec![kernel];
    let mut seen = BTreeSet::from([kernel.name.as_str()]);
    let mut at = 0;
    while at < order.len() {
        let mut names = Vec::new();
        each_instruction(order[at].body.as_deref().unwrap_or_default(), &mut |instruction| {
            let before = names.len();
            names.extend(instruction.operands.iter().filter_map(|operand| match operand {
                Operand::Name(name) => Some(name.as_str()),
                _ => None,
            }));
            // A call through a register can reach what tables of functions hold.
            if instruction.opcode == "call" && !names[before..].iter().any(|name| find_function(module, name).is_some()) {
                names.extend(module.variables.iter().flat_map(|variable| &variable.initial).filter_map(|value| match value {
                    ast::Initial::Address { name, .. } => Some(name.as_str()),
                    _ => None,
                }));
            }
        });
        for name in names {
            if let Some(function) = find_function(module, name)
                && seen.insert(&function.name)
            {
                order.push(function);
            }
        }
        at += 1;
    }
    order
}

fn each_instruction<'b>(body: &'b [Statement], visit: &mut impl FnMut(&'b ast::Instruction)) {
    for statement in body {
        match statement {
            Statement::Instruction(instruction) => visit(instruction),
            Statement::Block(inner) => each_instruction(inner, visit),
            _ => {}
        }
    }
}

fn lower_kernel(
    module: &ast::Module,
    kernel: &ast::Function,
    variables: &HashMap<String, usize>,
    program: &mut Program,
) -> Result<()> {
    let functions = reachable(module, kernel);
    let first_function = program.functions.len() as u32;
    let mut shared = SharedLayout::new(module, &functions)?;
    for function in &functions {
        let mut lowering = Lowering::new(module, variables, &functions, first_function, function.is_kernel);
        let lowered = lowering.function(function, &mut shared, program)?;
        program.functions.push(lowered);
    }
    let (mut parameters, mut offset) = (Vec::new(), 0usize);
    for parameter in &kernel.parameters {
        let align = (parameter.align.max(1) as usize).next_power_of_two();
        let size = parameter.element.bytes() as usize * parameter.length.unwrap_or(1) as usize;
        offset = offset.next_multiple_of(align);
        parameters.push(Parameter { name: parameter.name.clone(), offset, size, align, ty: parameter.element });
        offset += size;
    }
    let directives = kernel.directives.iter().cloned().collect();
    let lowered = Kernel {
        name: kernel.name.clone(),
        parameters,
        shared_bytes: shared.bytes,
        shared_variables: shared.variables,
        shared_end: shared.end,
        dynamic_align: shared.dynamic_align,
        local_bytes: program.functions[first_function as usize].frame.local_bytes,
        directives,
        function: first_function as usize,
    };
    program.kernels.insert(kernel.name.clone(), lowered);
    Ok(())
}

/// Where each static shared variable of a kernel lies; between two there is a gap, so that an index that leaves one is seen.
struct SharedLayout {
    variables: Vec<SharedVariable>,
    end: u32,
    /// What the program asked for, without our gaps.
    bytes: u32,
    dynamic_align: u32,
    /// Module-scope variables by name, and dynamic ones.
    module: HashMap<String, u32>,
    dynamic: Vec<String>,
}

impl SharedLayout {
    fn new(module: &ast::Module, functions: &[&ast::Function]) -> Result<Self> {
        let mut used = BTreeSet::new();
        for function in functions {
            each_instruction(function.body.as_deref().unwrap_or_default(), &mut |instruction| {
                for operand in &instruction.operands {
                    names(operand, &mut used);
                }
            });
        }
        let mut layout = Self {
            variables: Vec::new(),
            end: SHARED_START,
            bytes: 0,
            dynamic_align: 16,
            module: HashMap::new(),
            dynamic: Vec::new(),
        };
        for variable in
            module.variables.iter().filter(|variable| variable.space == Space::Shared && used.contains(variable.name.as_str()))
        {
            if variable.length.is_none() {
                layout.dynamic_align = layout.dynamic_align.max(shared_align(variable)?);
                layout.dynamic.push(variable.name.clone());
            } else {
                let offset = layout.place(variable)?;
                layout.module.insert(variable.name.clone(), offset);
            }
        }
        for function in functions {
            layout.place_local(function.body.as_deref().unwrap_or_default())?;
        }
        Ok(layout)
    }

    /// Places the shared variables that a body declares; they are found again by their line.
    fn place_local(&mut self, body: &[Statement]) -> Result<()> {
        for statement in body {
            match statement {
                Statement::Variable(variable) if variable.space == Space::Shared => {
                    let offset = self.place(variable)?;
                    self.module.insert(format!("{}@{}", variable.name, variable.line), offset);
                }
                Statement::Block(inner) => self.place_local(inner)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn place(&mut self, variable: &ast::Variable) -> Result<u32> {
        let too_large =
            || Error::Invalid { line: variable.line, message: format!("`{}` does not fit in shared memory", variable.name) };
        let bytes = variable.length.unwrap_or(0).checked_mul(u64::from(variable.element.bytes()));
        let bytes = bytes.filter(|&bytes| bytes <= crate::memory::shared::MAX_BYTES).ok_or_else(too_large)? as u32;
        let align = shared_align(variable)?;
        let gap = if self.variables.is_empty() { 0 } else { SHARED_GAP };
        let offset = (self.end + gap).next_multiple_of(align);
        self.bytes = self.bytes.next_multiple_of(variable.align.max(1)) + bytes;
        if u64::from(self.bytes) > crate::memory::shared::MAX_BYTES {
            return Err(too_large());
        }
        self.end = offset + bytes;
        if self.end > crate::memory::shared::ADDRESSES / 2 {
            return Err(too_large());
        }
        self.variables.push(SharedVariable { name: plain_name(&variable.name).to_string(), offset, bytes });
        Ok(offset)
    }

    /// Address of the first dynamic byte.
    fn dynamic_start(&self) -> u32 {
        super::dynamic_shared_start(self.end, self.variables.is_empty(), self.dynamic_align)
    }
}

/// What a shared variable is aligned to.
fn shared_align(variable: &ast::Variable) -> Result<u32> {
    const MAX: u32 = 1 << 16;
    if variable.align > MAX {
        let message = format!("`{}` is aligned to more than {MAX} bytes", variable.name);
        return Err(Error::Invalid { line: variable.line, message });
    }
    Ok(variable.align.max(16).next_power_of_two())
}

/// The source's own name of a variable inside a function: `tile` of `_ZZ6kernelE4tile` (Itanium C++ ABI: length, then name).
fn plain_name(mangled: &str) -> &str {
    let last = mangled.strip_prefix("_ZZ").and_then(|rest| rest.rsplit_once('E')).map(|(_, last)| last);
    let named = last.and_then(|last| {
        let digits = last.bytes().take_while(u8::is_ascii_digit).count();
        let (length, name) = last.split_at(digits);
        name.get(..length.parse().ok()?)
    });
    named.unwrap_or(mangled)
}

fn names<'o>(operand: &'o Operand, found: &mut BTreeSet<&'o str>) {
    match operand {
        Operand::Name(name) | Operand::Offset { name, .. } | Operand::Address { base: Some(name), .. } => {
            found.insert(name);
        }
        Operand::Vector(inner) | Operand::AddressList(inner) => inner.iter().for_each(|operand| names(operand, found)),
        _ => {}
    }
}

/// Bytes of arguments that a kernel can take (PTX ISA 8.1).
const MAX_ARGUMENTS: u32 = 32764;

/// What decoders ask while one function is lowered: operands, labels, and room in its frame.
pub(crate) struct Lowering<'m> {
    module: &'m ast::Module,
    functions: &'m [&'m ast::Function],
    first_function: u32,
    is_kernel: bool,
    /// Program counter of the function's first instruction, and all its instructions with their scopes.
    entry: u32,
    flat: Vec<(usize, &'m ast::Instruction)>,
    scopes: Scopes,
    scope: usize,
    frame: Frame,
    registers: Vec<RegisterName>,
    constants: HashMap<(Bank, u64), (u32, u32)>,
    specials: HashMap<Special, Reg<u32>>,
    addresses: HashMap<Address, Reg<u64>>,
    carry: Option<Pred>,
    /// Sizes of the frame's parameter variables, by offset.
    param_bytes: HashMap<u32, u32>,
    reads: Vec<u32>,
    writes: Vec<u32>,
    critical: Vec<u32>,
    /// Lines of the asynchronous products so far, and the registers that they use.
    products: (BTreeSet<u32>, BTreeSet<u32>),
    /// Line of the instruction being decoded.
    pub(crate) line: u32,
    /// `.target` of the module.
    pub(crate) target: &'m str,
}

impl<'m> Lowering<'m> {
    fn new(
        module: &'m ast::Module,
        variables: &HashMap<String, usize>,
        functions: &'m [&'m ast::Function],
        first_function: u32,
        is_kernel: bool,
    ) -> Self {
        let mut scopes = Scopes::new();
        for variable in &module.variables {
            if let Some(&index) = variables.get(&variable.name) {
                scopes.declare(0, &variable.name, Symbol::Variable { index, constant: variable.space == Space::Const });
            }
        }
        for (index, function) in functions.iter().enumerate() {
            scopes.declare(0, &function.name, Symbol::Function(first_function + index as u32));
        }
        for (alias, target) in &module.aliases {
            if let Some(symbol) = scopes.find(0, target).cloned() {
                scopes.declare(0, alias, symbol);
            }
        }
        Self {
            module,
            functions,
            first_function,
            is_kernel,
            entry: 0,
            flat: Vec::new(),
            scopes,
            scope: 0,
            frame: Frame::default(),
            registers: Vec::new(),
            constants: HashMap::new(),
            specials: HashMap::new(),
            addresses: HashMap::new(),
            carry: None,
            param_bytes: HashMap::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            critical: Vec::new(),
            products: Default::default(),
            line: 0,
            target: &module.target,
        }
    }

    fn function(&mut self, function: &'m ast::Function, shared: &mut SharedLayout, program: &mut Program) -> Result<Function> {
        let entry = program.instructions.len() as u32;
        self.entry = entry;
        for (name, &offset) in &shared.module {
            self.scopes.declare(0, name, Symbol::Memory { space: Space::Shared, offset });
        }
        for name in &shared.dynamic {
            self.scopes.declare(0, name, Symbol::Memory { space: Space::Shared, offset: shared.dynamic_start() });
        }
        let body_scope = self.scopes.open(0);
        let (mut parameters, mut returns) = (Vec::new(), Vec::new());
        let mut argument = 0u32;
        for (variable, list) in function.parameters.iter().map(|v| (v, true)).chain(function.returns.iter().map(|v| (v, false))) {
            if variable.space == Space::Register {
                return Err(self.unsupported_text(variable.line, &function.name, "parameters in registers"));
            }
            let bytes = self.bytes_of(variable)?;
            let symbol = if function.is_kernel {
                let fits = |end: u64| u32::try_from(end).ok().filter(|&end| end <= MAX_ARGUMENTS);
                let offset = u64::from(argument).next_multiple_of(u64::from(variable.align.max(1).next_power_of_two()));
                let message = format!("the kernel's parameters take more than {MAX_ARGUMENTS} bytes");
                argument = fits(offset + u64::from(bytes)).ok_or(Error::Invalid { line: variable.line, message })?;
                Symbol::Argument { offset: offset as u32 }
            } else {
                let offset = self.local(variable, bytes)?;
                if list { &mut parameters } else { &mut returns }.push((offset, bytes));
                Symbol::Memory { space: Space::Param, offset }
            };
            self.scopes.declare(body_scope, &variable.name, symbol);
        }
        let Some(body) = &function.body else {
            return isa::call::external(self, function, parameters, returns, program);
        };
        self.declare(body, body_scope)?;
        for at in 0..self.flat.len() {
            let (scope, instruction) = self.flat[at];
            self.scope = scope;
            let decoded = self.instruction(instruction)?;
            program.instructions.push(decoded);
        }
        // Falling off the end is a return.
        let end = ast::Instruction {
            guard: None,
            opcode: "ret".into(),
            modifiers: Vec::new(),
            operands: Vec::new(),
            line: function.line,
            location: self.flat.last().and_then(|(_, last)| last.location),
        };
        let end = self.instruction(&end)?;
        program.instructions.push(end);
        self.watch(&mut program.instructions[entry as usize..]);
        Ok(Function {
            name: function.name.clone(),
            entry,
            frame: std::mem::take(&mut self.frame),
            parameters,
            returns,
            registers: std::mem::take(&mut self.registers),
        })
    }

    /// Declares everything that a body names, and lists its instructions with the scope that each stands in.
    fn declare(&mut self, body: &'m [Statement], scope: usize) -> Result<()> {
        for statement in body {
            let (name, symbol, line) = match statement {
                Statement::Instruction(instruction) => {
                    self.flat.push((scope, instruction));
                    continue;
                }
                Statement::Block(inner) => {
                    let inside = self.scopes.open(scope);
                    self.declare(inner, inside)?;
                    continue;
                }
                Statement::Registers { ty, name, count, line } => {
                    const MAX_REGISTERS: u32 = 1 << 20;
                    match count {
                        Some(count) if *count > MAX_REGISTERS => {
                            return Err(Error::Invalid {
                                line: *line,
                                message: format!("{count} registers are more than {MAX_REGISTERS}"),
                            });
                        }
                        Some(count) => {
                            for number in 0..*count {
                                let name = format!("{name}{number}");
                                let symbol = self.register(*ty, &name);
                                self.scopes.declare(scope, &name, symbol);
                            }
                            continue;
                        }
                        None => (name, self.register(*ty, name), *line),
                    }
                }
                Statement::Variable(variable) => (&variable.name, self.variable(variable)?, variable.line),
                Statement::Label { name, line } => (name, Symbol::Label(self.entry + self.flat.len() as u32), *line),
                Statement::BranchTargets { name, targets, line } => (name, Symbol::Table(targets.clone()), *line),
                Statement::CallPrototype { name, line, .. } => (name, Symbol::Prototype, *line),
            };
            if !self.scopes.declare(scope, name, symbol) {
                return Err(Error::Invalid { line, message: format!("`{name}` is declared twice") });
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &ast::Variable) -> Result<Symbol> {
        match variable.space {
            Space::Shared => {
                let key = format!("{}@{}", variable.name, variable.line);
                self.scopes.find(0, &key).cloned().ok_or_else(|| self.invalid(format!("`{}` has no place", variable.name)))
            }
            Space::Local | Space::Param => {
                let bytes = self.bytes_of(variable)?;
                Ok(Symbol::Memory { space: variable.space, offset: self.local(variable, bytes)? })
            }
            _ => Err(self.unsupported_text(variable.line, &variable.name, "a global variable inside a function")),
        }
    }

    fn bytes_of(&self, variable: &ast::Variable) -> Result<u32> {
        let bytes = variable.length.unwrap_or(0).checked_mul(u64::from(variable.element.bytes()));
        match bytes {
            Some(bytes) if bytes <= u64::from(MAX_LOCAL) => Ok(bytes as u32),
            _ => Err(self.too_large(variable)),
        }
    }

    fn too_large(&self, variable: &ast::Variable) -> Error {
        let message = format!("`{}` does not fit in the {MAX_LOCAL} bytes of a thread's local memory", variable.name);
        Error::Invalid { line: variable.line, message }
    }

    /// Room in the frame's local memory.
    fn local(&mut self, variable: &ast::Variable, bytes: u32) -> Result<u32> {
        if variable.align > MAX_LOCAL_ALIGN {
            let message = format!("`{}` is aligned to more than {MAX_LOCAL_ALIGN} bytes", variable.name);
            return Err(Error::Invalid { line: variable.line, message });
        }
        let offset = self.frame.local_bytes.next_multiple_of(variable.align.max(1).next_power_of_two());
        if offset + bytes > MAX_LOCAL {
            return Err(self.too_large(variable));
        }
        self.frame.local_bytes = offset + bytes;
        if variable.space == Space::Param && bytes > 0 {
            self.param_bytes.insert(offset, bytes);
        }
        Ok(offset)
    }

    fn register(&mut self, ty: Type, name: &str) -> Symbol {
        let bank = match ty {
            Type::Pred => Bank::Predicate,
            _ => match ty.bytes() {
                1 | 2 => Bank::B16,
                4 => Bank::B32,
                _ => Bank::B64,
            },
        };
        let (index, id) = self.slot(bank);
        self.registers[id as usize] = RegisterName { name: name.to_string(), ty, bank, index };
        if ty == Type::B128 {
            self.slot(bank);
        }
        Symbol::Register { ty, bank, index, id }
    }

    fn slot(&mut self, bank: Bank) -> (u32, u32) {
        let counts = &mut self.frame.counts;
        let id = counts.total();
        let count = match bank {
            Bank::Predicate => &mut counts.predicates,
            Bank::B16 => &mut counts.b16,
            Bank::B32 => &mut counts.b32,
            Bank::B64 => &mut counts.b64,
        };
        *count += 1;
        let index = *count - 1;
        self.registers.push(RegisterName { name: String::new(), ty: Type::B32, bank, index });
        (index, id)
    }

    fn instruction(&mut self, instruction: &ast::Instruction) -> Result<Instruction> {
        self.line = instruction.line;
        for list in [&mut self.reads, &mut self.writes, &mut self.critical] {
            list.clear();
        }
        let decoded = isa::decode(instruction, self)?;
        let guard = match &instruction.guard {
            None => None,
            Some(guard) => {
                let register = self.find_predicate(&guard.register)?;
                Some(Guard { register, negated: guard.negated })
            }
        };
        let sorted = |list: &mut Vec<u32>| {
            list.sort_unstable();
            list.dedup();
            list.as_slice().into()
        };
        Ok(Instruction {
            guard,
            op: decoded.op,
            reads: sorted(&mut self.reads),
            writes: sorted(&mut self.writes),
            critical: sorted(&mut self.critical),
            own_taint: decoded.own_taint,
            watched: Box::default(),
            meeting: decoded.meeting,
            strength: Strength::of(instruction),
            class: decoded.class,
            line: instruction.line,
            location: instruction.location,
            text: instruction.to_string().into(),
        })
    }

    /// Tells a function's instructions which of their registers asynchronous products use.
    fn watch(&self, instructions: &mut [Instruction]) {
        let (lines, registers) = &self.products;
        if registers.is_empty() {
            return;
        }
        for instruction in instructions.iter_mut().filter(|instruction| !lines.contains(&instruction.line)) {
            let touched = instruction.reads.iter().chain(&instruction.writes).copied();
            instruction.watched = touched.filter(|id| registers.contains(id)).collect();
        }
    }

    // What decoders use.

    /// What the module says of a function of the program that this kernel reaches.
    pub(crate) fn declaration(&self, function: u32) -> &'m ast::Function {
        self.functions[(function - self.first_function) as usize]
    }

    /// The addresses of all functions that this kernel can call, with their numbers in the program.
    pub(crate) fn callable(&self) -> Vec<(u64, u32)> {
        let functions = self.functions.iter().zip(self.first_function..);
        let callable = functions.filter(|(function, _)| !function.is_kernel && function.body.is_some());
        callable.filter_map(|(function, index)| Some((function_address(self.module, &function.name)?, index))).collect()
    }

    /// Offset and bytes of a variable in parameter memory that a call passes or receives; `None`: a sink.
    pub(crate) fn passed(&self, operand: &Operand) -> Result<Option<(u32, u32)>> {
        match operand {
            Operand::Sink => Ok(None),
            Operand::Name(name) => match self.symbol(name)? {
                Symbol::Memory { space: Space::Param, offset } => {
                    Ok(Some((*offset, self.param_bytes.get(offset).copied().unwrap_or(0))))
                }
                _ => Err(self.invalid(format!("`{name}` is no `.param` variable: nothing else can be passed"))),
            },
            _ => Err(self.invalid(format!("`{operand}` is no `.param` variable: nothing else can be passed"))),
        }
    }

    /// The frame as it is so far, for a function without a body.
    pub(crate) fn take_frame(&mut self) -> Frame {
        std::mem::take(&mut self.frame)
    }

    /// Bytes of local memory that the function being lowered has.
    pub(crate) fn local_bytes(&self) -> u32 {
        self.frame.local_bytes
    }

    /// Whether the function being lowered is the kernel itself.
    pub(crate) fn is_kernel(&self) -> bool {
        self.is_kernel
    }

    /// What a name stands for here.
    pub(crate) fn symbol(&self, name: &str) -> Result<&Symbol> {
        self.scopes.find(self.scope, name).ok_or_else(|| self.invalid(format!("`{name}` is not declared")))
    }

    /// A source of type `T`: a register, an immediate, a special register, or the address of a variable in its own space.
    pub(crate) fn source<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>> {
        let (index, id) = match operand {
            Operand::Integer(bits) => self.constant(T::BANK, *bits),
            Operand::Float32(bits) if T::BANK == Bank::B32 => self.constant(T::BANK, u64::from(*bits)),
            Operand::Float64(bits) if T::BANK == Bank::B64 => self.constant(T::BANK, *bits),
            Operand::Float64(bits) if T::BANK == Bank::B32 => {
                self.constant(T::BANK, u64::from((f64::from_bits(*bits) as f32).to_bits()))
            }
            Operand::Name(name) => self.named(name, 0, T::BANK)?,
            Operand::Offset { name, offset } => self.named(name, *offset, T::BANK)?,
            _ => return Err(self.invalid(format!("`{operand}` cannot be a source here"))),
        };
        self.reads.push(id);
        Ok(Reg::new(index, id))
    }

    /// A source that decides an address, a mask or a way: an undefined value in it is a finding.
    pub(crate) fn critical<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>> {
        let register = self.source(operand)?;
        self.critical.push(register.id);
        Ok(register)
    }

    fn named(&mut self, name: &str, offset: i64, bank: Bank) -> Result<(u32, u32)> {
        if name == "WARP_SZ" {
            return Ok(self.constant(bank, 32));
        }
        let symbol = match self.scopes.find(self.scope, name) {
            Some(symbol) => symbol.clone(),
            None => {
                let Some(special) = special(name) else { return Err(self.invalid(format!("`{name}` is not declared"))) };
                if bank != Bank::B32 {
                    return Err(self.invalid(format!("`{name}` is 32 bits wide here")));
                }
                let register = self.special(special, name);
                return Ok((register.index, register.id));
            }
        };
        match symbol {
            Symbol::Register { bank: has, index, id, .. } if offset == 0 => {
                if has != bank {
                    return Err(self.invalid(format!("register `{name}` has the wrong width for this operand")));
                }
                Ok((index, id))
            }
            Symbol::Memory { space: Space::Shared, offset: at } => {
                Ok(self.constant(bank, u64::from(at).wrapping_add_signed(offset)))
            }
            Symbol::Argument { offset: at } => Ok(self.constant(bank, u64::from(at).wrapping_add_signed(offset))),
            Symbol::Memory { offset: at, .. } if bank == Bank::B64 => {
                let register = self.address_register(Address::Local { offset: i64::from(at).wrapping_add(offset) });
                Ok((register.index, register.id))
            }
            Symbol::Variable { index, .. } if bank == Bank::B64 => {
                let register = self.address_register(Address::Variable { index, offset });
                Ok((register.index, register.id))
            }
            Symbol::Function(index) if bank == Bank::B64 => {
                let address = function_address(self.module, &self.declaration(index).name);
                Ok(self.constant(bank, address.unwrap_or_default()))
            }
            _ => Err(self.invalid(format!("`{name}` cannot be a source here"))),
        }
    }

    /// A slot that always holds these bits.
    pub(crate) fn constant(&mut self, bank: Bank, bits: u64) -> (u32, u32) {
        let bits = match bank {
            Bank::Predicate => {
                if bits != 0 {
                    u64::from(u32::MAX)
                } else {
                    0
                }
            }
            Bank::B16 => bits & 0xffff,
            Bank::B32 => bits & 0xffff_ffff,
            Bank::B64 => bits,
        };
        if let Some(&slot) = self.constants.get(&(bank, bits)) {
            return slot;
        }
        let (index, id) = self.slot(bank);
        self.frame.constants.push(Constant { bank, index, id, bits });
        self.constants.insert((bank, bits), (index, id));
        (index, id)
    }

    /// A register that holds a special register's value.
    pub(crate) fn special(&mut self, special: Special, name: &str) -> Reg<u32> {
        if let Some(&register) = self.specials.get(&special) {
            return register;
        }
        let (index, id) = self.slot(Bank::B32);
        let register = Reg::new(index, id);
        self.registers[id as usize].name = name.to_string();
        self.frame.specials.push((special, register));
        self.specials.insert(special, register);
        register
    }

    /// The carry flag of `add.cc` and its kin: a predicate register that no name reaches.
    pub(crate) fn carry(&mut self) -> Pred {
        if let Some(carry) = self.carry {
            return carry;
        }
        let (index, id) = self.slot(Bank::Predicate);
        *self.carry.insert(Pred { index, id })
    }

    /// A register that holds an address known only at launch or call.
    pub(crate) fn address_register(&mut self, address: Address) -> Reg<u64> {
        if let Some(&register) = self.addresses.get(&address) {
            return register;
        }
        let (index, id) = self.slot(Bank::B64);
        let register = Reg::new(index, id);
        self.frame.addresses.push((address, register));
        self.addresses.insert(address, register);
        register
    }

    /// A register to be written, of type `T`.
    pub(crate) fn dest<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>> {
        let (_, bank, index, id) = self.any_register(operand)?;
        if bank != T::BANK {
            return Err(self.invalid(format!("register `{operand}` has the wrong width for this operand")));
        }
        self.writes.push(id);
        Ok(Reg::new(index, id))
    }

    /// A register of any type that is to be written: loads and conversions may have wider destinations than their type.
    pub(crate) fn any_dest(&mut self, operand: &Operand) -> Result<(Bank, u32, u32)> {
        let (ty, bank, index, id) = self.any_register(operand)?;
        self.writes.push(id);
        if ty == Type::B128 {
            self.writes.push(id + 1);
        }
        Ok((bank, index, id))
    }

    /// The declared type, bank, slot and definedness id of a register; notes neither a read nor a write.
    pub(crate) fn any_register(&self, operand: &Operand) -> Result<(Type, Bank, u32, u32)> {
        match operand {
            Operand::Name(name) => match self.symbol(name)? {
                Symbol::Register { ty, bank, index, id } => Ok((*ty, *bank, *index, *id)),
                _ => Err(self.invalid(format!("`{name}` is not a register"))),
            },
            _ => Err(self.invalid(format!("`{operand}` is not a register"))),
        }
    }

    /// Notes that a register is read, for operands found by [`Lowering::any_register`].
    pub(crate) fn note_read(&mut self, id: u32) {
        self.reads.push(id);
    }

    /// Notes that the instruction is an asynchronous product, which goes on using these registers.
    pub(crate) fn note_product(&mut self, registers: impl IntoIterator<Item = u32>) {
        self.products.0.insert(self.line);
        self.products.1.extend(registers);
    }

    /// Notes that a register is written.
    pub(crate) fn note_write(&mut self, id: u32) {
        self.writes.push(id);
    }

    /// Notes that a register decides an address or a way.
    pub(crate) fn note_critical(&mut self, id: u32) {
        self.reads.push(id);
        self.critical.push(id);
    }

    /// A predicate source and whether it is negated; an integer literal counts as true or false.
    pub(crate) fn pred(&mut self, operand: &Operand) -> Result<(Pred, bool)> {
        let (register, negated) = match operand {
            Operand::Name(name) => (self.find_predicate(name)?, false),
            Operand::Not(name) => (self.find_predicate(name)?, true),
            Operand::Integer(bits) => {
                let (index, id) = self.constant(Bank::Predicate, *bits);
                (Pred { index, id }, false)
            }
            _ => return Err(self.invalid(format!("`{operand}` is not a predicate"))),
        };
        self.reads.push(register.id);
        Ok((register, negated))
    }

    /// A predicate to be written.
    pub(crate) fn pred_dest(&mut self, operand: &Operand) -> Result<Pred> {
        let Operand::Name(name) = operand else { return Err(self.invalid(format!("`{operand}` is not a predicate register"))) };
        let register = self.find_predicate(name)?;
        self.writes.push(register.id);
        Ok(register)
    }

    fn find_predicate(&self, name: &str) -> Result<Pred> {
        match self.symbol(name)? {
            Symbol::Register { bank: Bank::Predicate, index, id, .. } => Ok(Pred { index: *index, id: *id }),
            _ => Err(self.invalid(format!("`{name}` is not a predicate register"))),
        }
    }

    /// The instruction that a label stands before.
    pub(crate) fn label(&self, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Name(name) => match self.symbol(name)? {
                Symbol::Label(pc) => Ok(*pc),
                _ => Err(self.invalid(format!("`{name}` is not a label"))),
            },
            _ => Err(self.invalid(format!("`{operand}` is not a label"))),
        }
    }

    /// Whether an instruction of the kernel just ends the threads that come to it: a branch there is an exit.
    pub(crate) fn is_end(&self, pc: u32) -> bool {
        let instruction = self.flat.get((pc - self.entry) as usize).map(|(_, instruction)| instruction);
        self.is_kernel && instruction.is_none_or(|end| end.guard.is_none() && matches!(end.opcode.as_str(), "ret" | "exit"))
    }

    /// Exactly `N` operands.
    pub(crate) fn operands<'i, const N: usize>(&self, instruction: &'i ast::Instruction) -> Result<&'i [Operand; N]> {
        let given = instruction.operands.len();
        instruction
            .operands
            .as_slice()
            .try_into()
            .map_err(|_| self.invalid(format!("`{instruction}` takes {N} operands, not {given}")))
    }

    /// The components of `{a, b}`, or the operand itself.
    pub(crate) fn components<'i>(&self, operand: &'i Operand) -> &'i [Operand] {
        match operand {
            Operand::Vector(components) => components,
            single => std::slice::from_ref(single),
        }
    }

    /// An error about this instruction.
    pub(crate) fn invalid(&self, message: impl Into<String>) -> Error {
        Error::Invalid { line: self.line, message: message.into() }
    }

    /// This form of the instruction is not known.
    pub(crate) fn unsupported(&self, instruction: &ast::Instruction) -> Error {
        Error::Unsupported { line: instruction.line, instruction: instruction.to_string(), reason: None }
    }

    /// This form is known, and why it is refused.
    pub(crate) fn refused(&self, instruction: &ast::Instruction, reason: &str) -> Error {
        Error::Unsupported { line: instruction.line, instruction: instruction.to_string(), reason: Some(reason.into()) }
    }

    fn unsupported_text(&self, line: u32, what: &str, reason: &str) -> Error {
        Error::Unsupported { line, instruction: what.into(), reason: Some(reason.into()) }
    }
}

/// Special registers that hold still, by name.
fn special(name: &str) -> Option<Special> {
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, usize::MAX),
    };
    let with_axis: Option<fn(usize) -> Special> = match base {
        "%tid" => Some(Special::Tid),
        "%ntid" => Some(Special::Ntid),
        "%ctaid" => Some(Special::Ctaid),
        "%nctaid" => Some(Special::Nctaid),
        "%clusterid" => Some(Special::Clusterid),
        "%nclusterid" => Some(Special::Nclusterid),
        "%cluster_ctaid" => Some(Special::ClusterCtaid),
        "%cluster_nctaid" => Some(Special::ClusterNctaid),
        _ => None,
    };
    if axis < 3 {
        return with_axis.map(|special| special(axis));
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NWarpId,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NSmId,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%dynamic_smem_size" => Special::DynamicSharedSize,
        "%total_smem_size" => Special::TotalSharedSize,
        "%tid.w" | "%ctaid.w" | "%ntid.w" | "%nctaid.w" => Special::Zero,
        _ => return None,
    })
}
