//! From the syntax tree to decoded instructions.
//!
//! Each kernel is lowered together with copies of the device functions that it can reach, so that every address in shared memory
//! is known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::lowering::Lowering;
use super::shared_layout::SharedLayout;
use super::{Class, Kernel, Meeting, Parameter, Program, Relocation, Variable};
use crate::machine::execute::Execute;
use crate::ptx::ast::{self, Operand, Space, Statement, Type};
use crate::{Error, Result};

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
pub(super) fn function_address(module: &ast::Module, name: &str) -> Option<u64> {
    let function = find_function(module, name)?;
    let number = module.functions.iter().position(|other| other.name == function.name)?;
    Some(crate::isa::call::function_address(number as u32))
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

pub(super) fn each_instruction<'b>(body: &'b [Statement], visit: &mut impl FnMut(&'b ast::Instruction)) {
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
