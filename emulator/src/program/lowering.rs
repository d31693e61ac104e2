//! One function on its way from the syntax tree: its names, its frame, its instructions in order.

use std::collections::{BTreeSet, HashMap};

use super::scope::{Scopes, Symbol};
use super::shared_layout::SharedLayout;
use super::{Address, Frame, Function, Guard, Instruction, MAX_LOCAL, MAX_LOCAL_ALIGN, Program, RegisterName, Special};
use crate::check::races::Strength;
use crate::isa;
use crate::machine::registers::{Bank, Pred, Reg};
use crate::ptx::ast::{self, Space, Statement, Type};
use crate::{Error, Result};

/// Bytes of arguments that a kernel can take (PTX ISA 8.1).
const MAX_ARGUMENTS: u32 = 32764;

/// What decoders ask while one function is lowered: operands, labels, and room in its frame.
pub(crate) struct Lowering<'m> {
    pub(super) module: &'m ast::Module,
    pub(super) functions: &'m [&'m ast::Function],
    pub(super) first_function: u32,
    pub(super) is_kernel: bool,
    /// Program counter of the function's first instruction, and all its instructions with their scopes.
    pub(super) entry: u32,
    pub(super) flat: Vec<(usize, &'m ast::Instruction)>,
    pub(super) scopes: Scopes,
    pub(super) scope: usize,
    pub(super) frame: Frame,
    pub(super) registers: Vec<RegisterName>,
    pub(super) constants: HashMap<(Bank, u64), (u32, u32)>,
    pub(super) specials: HashMap<Special, Reg<u32>>,
    pub(super) addresses: HashMap<Address, Reg<u64>>,
    pub(super) carry: Option<Pred>,
    /// Sizes of the frame's parameter variables, by offset.
    pub(super) param_bytes: HashMap<u32, u32>,
    pub(super) reads: Vec<u32>,
    pub(super) writes: Vec<u32>,
    pub(super) critical: Vec<u32>,
    /// Lines of the asynchronous products so far, and the registers that they use.
    pub(super) products: (BTreeSet<u32>, BTreeSet<u32>),
    /// Line of the instruction being decoded.
    pub(crate) line: u32,
    /// `.target` of the module.
    pub(crate) target: &'m str,
}

impl<'m> Lowering<'m> {
    pub(super) fn new(
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

    pub(super) fn function(
        &mut self,
        function: &'m ast::Function,
        shared: &mut SharedLayout,
        program: &mut Program,
    ) -> Result<Function> {
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
    pub(super) fn declare(&mut self, body: &'m [Statement], scope: usize) -> Result<()> {
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

    pub(super) fn variable(&mut self, variable: &ast::Variable) -> Result<Symbol> {
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

    pub(super) fn bytes_of(&self, variable: &ast::Variable) -> Result<u32> {
        let bytes = variable.length.unwrap_or(0).checked_mul(u64::from(variable.element.bytes()));
        match bytes {
            Some(bytes) if bytes <= u64::from(MAX_LOCAL) => Ok(bytes as u32),
            _ => Err(self.too_large(variable)),
        }
    }

    pub(super) fn too_large(&self, variable: &ast::Variable) -> Error {
        let message = format!("`{}` does not fit in the {MAX_LOCAL} bytes of a thread's local memory", variable.name);
        Error::Invalid { line: variable.line, message }
    }

    /// Room in the frame's local memory.
    pub(super) fn local(&mut self, variable: &ast::Variable, bytes: u32) -> Result<u32> {
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

    pub(super) fn register(&mut self, ty: Type, name: &str) -> Symbol {
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

    pub(super) fn slot(&mut self, bank: Bank) -> (u32, u32) {
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

    pub(super) fn instruction(&mut self, instruction: &ast::Instruction) -> Result<Instruction> {
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
    pub(super) fn watch(&self, instructions: &mut [Instruction]) {
        let (lines, registers) = &self.products;
        if registers.is_empty() {
            return;
        }
        for instruction in instructions.iter_mut().filter(|instruction| !lines.contains(&instruction.line)) {
            let touched = instruction.reads.iter().chain(&instruction.writes).copied();
            instruction.watched = touched.filter(|id| registers.contains(id)).collect();
        }
    }
}
