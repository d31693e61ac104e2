//! Names and what they stand for, block by block.

use std::collections::HashMap;

use crate::machine::registers::Bank;
use crate::ptx::ast::{Space, Type};

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Symbol {
    /// A register slot; a 128-bit register takes two 64-bit slots, the low half first.
    Register { ty: Type, bank: Bank, index: u32, id: u32 },
    /// A place in shared, local or (inside device functions and calls) parameter memory: an address of that space, or an offset
    /// in the frame.
    Memory { space: Space, offset: u32 },
    /// A kernel's parameter: offset among the packed arguments.
    Argument { offset: u32 },
    /// A variable at module scope.
    Variable { index: usize, constant: bool },
    /// An instruction.
    Label(u32),
    /// Labels of a `brx.idx`.
    Table(Vec<String>),
    /// A function of the program.
    Function(u32),
    /// A prototype of indirect calls.
    Prototype,
}

/// Nested blocks of names.
#[derive(Debug)]
pub(crate) struct Scopes {
    scopes: Vec<(Option<usize>, HashMap<String, Symbol>)>,
}

impl Scopes {
    /// The outermost scope is number 0.
    pub(crate) fn new() -> Self {
        Self { scopes: vec![(None, HashMap::new())] }
    }

    /// A scope inside another.
    pub(crate) fn open(&mut self, parent: usize) -> usize {
        self.scopes.push((Some(parent), HashMap::new()));
        self.scopes.len() - 1
    }

    /// Declares a name; false if the scope has it already.
    pub(crate) fn declare(&mut self, scope: usize, name: &str, symbol: Symbol) -> bool {
        self.scopes[scope].1.insert(name.to_string(), symbol).is_none()
    }

    /// What a name means in a scope: the innermost declaration.
    pub(crate) fn find(&self, scope: usize, name: &str) -> Option<&Symbol> {
        let mut at = Some(scope);
        while let Some(index) = at {
            let (parent, names) = &self.scopes[index];
            if let Some(symbol) = names.get(name) {
                return Some(symbol);
            }
            at = *parent;
        }
        None
    }
}
