//! Where a kernel's shared variables lie.

use std::collections::{BTreeSet, HashMap};

use super::SharedVariable;
use super::lower::each_instruction;
use crate::memory::shared::{SHARED_GAP, SHARED_START};
use crate::ptx::ast::{self, Operand, Space, Statement};
use crate::{Error, Result};

/// Where each static shared variable of a kernel lies; between two there is a gap, so that an index that leaves one is seen.
pub(super) struct SharedLayout {
    pub(super) variables: Vec<SharedVariable>,
    pub(super) end: u32,
    /// What the program asked for, without our gaps.
    pub(super) bytes: u32,
    pub(super) dynamic_align: u32,
    /// Module-scope variables by name, and dynamic ones.
    pub(super) module: HashMap<String, u32>,
    pub(super) dynamic: Vec<String>,
}

impl SharedLayout {
    pub(super) fn new(module: &ast::Module, functions: &[&ast::Function]) -> Result<Self> {
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
    pub(super) fn place_local(&mut self, body: &[Statement]) -> Result<()> {
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

    pub(super) fn place(&mut self, variable: &ast::Variable) -> Result<u32> {
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
    pub(super) fn dynamic_start(&self) -> u32 {
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
