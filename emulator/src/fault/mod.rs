//! Deliberate mistakes in a kernel: each [`Operator`] makes one kind of mistake wherever it can be made, one [`Fault`] at a
//! time, in the syntax tree of the PTX. A checker is worth trusting when it finds them.
//!
//! A fault replaces one instruction by nothing, by another, or by a block of a few; all else stays as it was. Constants and
//! registers are changed only where they really feed an address, a wait or a loop's condition, which a slice over the
//! function's definitions tells.

mod control;
mod data;
mod flow;
mod index;
mod mbarrier;
mod operator;
mod site;
mod synchronization;
#[cfg(test)]
mod tests;
mod warp;

use crate::error::{Error, Result};
use crate::ptx::ast::{Function, Location, Module, Operand, Statement};
use flow::Flow;
pub use operator::{Class, Operator};
use site::Site;

/// One mistake at one place, ready to be made by [`apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of mistake.
    pub operator: Operator,
    /// The kernel or device function that holds the instruction.
    pub function: String,
    /// Where the instruction stands in the function's body: an index into the statements, one more for each block entered.
    pub path: Vec<usize>,
    /// Which of the operator's ways to be wrong, from 0; at most two for a place.
    pub variant: usize,
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// The place in the source that the instruction was compiled from.
    pub location: Option<Location>,
    /// What is changed: ``dropped `bar.sync 0;` ``.
    pub description: String,
}

impl Fault {
    /// The group of its operator.
    pub fn class(&self) -> Class {
        self.operator.class()
    }
}

/// All faults of `kernel` and of the device functions that it calls, in the order of the text: the kernel first, then each
/// function when it is first called; within an instruction by operator, then variant. Empty for a name that has no body.
pub fn sites(module: &Module, kernel: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (function, body) in reachable(module, kernel) {
        let flow = Flow::new(body);
        for node in 0..flow.nodes.len() {
            let site = Site::new(&flow, node);
            for operator in Operator::ALL {
                for (variant, replacement) in operator.mutants(&site).into_iter().enumerate() {
                    faults.push(Fault {
                        operator,
                        function: function.name.clone(),
                        path: site.node.path.clone(),
                        variant,
                        line: site.instruction.line,
                        location: site.instruction.location,
                        description: describe(&site, &replacement),
                    });
                }
            }
        }
    }
    faults
}

/// A copy of the module with this one mistake in it.
///
/// # Errors
/// [`Error::Invalid`] if the fault was not found in this module: no such function or instruction, or the operator does not
/// apply to it.
pub fn apply(module: &Module, fault: &Fault) -> Result<Module> {
    let foreign = || Error::Invalid {
        line: fault.line,
        message: format!("no place for the fault `{}` in function `{}`", fault.description, fault.function),
    };
    let position = module.functions.iter().position(|f| f.name == fault.function && f.body.is_some()).ok_or_else(foreign)?;
    let mut mutated = module.clone();
    let function = mutated.functions.get_mut(position).ok_or_else(foreign)?;
    let body = function.body.as_mut().ok_or_else(foreign)?;
    let replacement = {
        let flow = Flow::new(body);
        let node = flow.nodes.iter().position(|node| node.path == fault.path).ok_or_else(foreign)?;
        fault.operator.mutants(&Site::new(&flow, node)).into_iter().nth(fault.variant).ok_or_else(foreign)?
    };
    splice(body, &fault.path, replacement).ok_or_else(foreign)?;
    Ok(mutated)
}

/// Puts `replacement` where the path leads; `None` if it leads nowhere.
fn splice(statements: &mut Vec<Statement>, path: &[usize], replacement: Vec<Statement>) -> Option<()> {
    let (&first, rest) = path.split_first()?;
    match (statements.get_mut(first)?, rest.is_empty()) {
        (Statement::Block(inner), false) => splice(inner, rest, replacement),
        (_, true) => {
            statements.splice(first..=first, replacement);
            Some(())
        }
        _ => None,
    }
}

/// The kernel and what it calls, each once, by first call.
fn reachable<'a>(module: &'a Module, kernel: &str) -> Vec<(&'a Function, &'a [Statement])> {
    let find = |name: &str| module.functions.iter().find_map(|f| Some((f, f.body.as_deref()?)).filter(|_| f.name == name));
    let mut found: Vec<_> = find(kernel).into_iter().collect();
    let mut next = 0;
    while let Some(&(_, body)) = found.get(next) {
        next += 1;
        for node in Flow::new(body).nodes.iter().filter(|node| node.instruction.opcode == "call") {
            for operand in &node.instruction.operands {
                let Operand::Name(name) = operand else { continue };
                let name = module.aliases.get(name).unwrap_or(name);
                if found.iter().all(|(function, _)| function.name != *name) {
                    found.extend(find(name));
                }
            }
        }
    }
    found
}

/// In words: what was there, and what is there now.
fn describe(site: &Site, replacement: &[Statement]) -> String {
    let mut instructions = Vec::new();
    for statement in replacement {
        match statement {
            Statement::Instruction(instruction) => instructions.push(instruction.to_string()),
            Statement::Block(inner) => instructions.extend(inner.iter().filter_map(|statement| match statement {
                Statement::Instruction(instruction) => Some(instruction.to_string()),
                _ => None,
            })),
            _ => {}
        }
    }
    match instructions.is_empty() {
        true => format!("dropped `{}`", site.instruction),
        false => format!("`{}` became `{}`", site.instruction, instructions.join(" ")),
    }
}
