//! One instruction in its surroundings, and the ways to write what stands in its place.

use super::flow::{Feed, Flow, Node, Register, names};
use crate::ptx::ast::{Instruction, Operand, Statement, Type};

/// What stands in the place of an instruction.
pub(super) type Replacement = Vec<Statement>;

/// The register that a replacement brings along; its block hides it from all others.
pub(super) const SPARE: &str = "%fault";

/// An instruction where it stands.
pub(super) struct Site<'a> {
    pub flow: &'a Flow<'a>,
    pub node: &'a Node<'a>,
    pub instruction: &'a Instruction,
    index: usize,
}

impl<'a> Site<'a> {
    /// The instruction of this number.
    pub fn new(flow: &'a Flow<'a>, index: usize) -> Self {
        let node = &flow.nodes[index];
        Self { flow, node, instruction: node.instruction, index }
    }

    pub fn is(&self, opcode: &str) -> bool {
        self.instruction.opcode == opcode
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.instruction.modifiers.iter().any(|m| m == modifier)
    }

    pub fn operand(&self, position: usize) -> Option<&'a Operand> {
        self.instruction.operands.get(position)
    }

    /// The number that the operand is known to be.
    pub fn constant(&self, position: usize) -> Option<u64> {
        self.value(self.operand(position)?)
    }

    /// The number that an operand, or a part of one, is known to be.
    pub fn value(&self, operand: &'a Operand) -> Option<u64> {
        self.flow.constant(self.index, operand)
    }

    /// The register that the operand names.
    pub fn register(&self, position: usize) -> Option<Register<'a>> {
        match self.operand(position)? {
            Operand::Name(name) => Some(self.flow.resolve(self.index, name)),
            _ => None,
        }
    }

    /// All registers that the operand names.
    pub fn registers(&self, position: usize) -> Vec<Register<'a>> {
        let names = self.operand(position).map(names).unwrap_or_default();
        names.into_iter().map(|name| self.flow.resolve(self.index, name)).collect()
    }

    /// The first register that the instruction writes, if that is one or the first of a pair.
    pub fn destination(&self) -> Option<Register<'a>> {
        match self.operand(0)? {
            Operand::Pair(first, _) => match &**first {
                Operand::Name(name) => Some(self.flow.resolve(self.index, name)),
                _ => None,
            },
            _ => self.register(0),
        }
    }

    /// What the address is for that the result feeds.
    pub fn feed(&self) -> Option<Feed> {
        self.flow.feed(self.destination()?)
    }

    pub fn is_backward(&self) -> bool {
        self.flow.is_backward(self.index)
    }

    /// The last modifier that is a type.
    pub fn ty(&self) -> Option<Type> {
        self.instruction.modifiers.iter().rev().find_map(|modifier| Type::from_name(modifier))
    }

    /// Its type if that is an integer's, signed or not.
    pub fn integer(&self) -> Option<Type> {
        self.ty().filter(|ty| ty.name().starts_with(['s', 'u', 'b']) && !ty.name().starts_with("bf"))
    }

    /// The replacement says what is already there.
    pub fn is_unchanged(&self, replacement: &Replacement) -> bool {
        matches!(replacement.as_slice(), [Statement::Instruction(instruction)] if instruction == self.instruction)
    }

    /// The instruction with something changed in it.
    pub fn edited(&self, edit: impl FnOnce(&mut Instruction)) -> Replacement {
        let mut instruction = self.instruction.clone();
        edit(&mut instruction);
        vec![Statement::Instruction(instruction)]
    }

    /// The instruction with another operand.
    pub fn with(&self, position: usize, operand: Operand) -> Replacement {
        self.edited(|instruction| {
            if let Some(place) = instruction.operands.get_mut(position) {
                *place = operand;
            }
        })
    }

    /// The instruction with two operands exchanged.
    pub fn exchanged(&self, first: usize, second: usize) -> Replacement {
        self.edited(|instruction| {
            if first.max(second) < instruction.operands.len() {
                instruction.operands.swap(first, second);
            }
        })
    }

    /// Another instruction under the same guard, at the same line.
    pub fn other(&self, opcode: &str, modifiers: &[&str], operands: Vec<Operand>) -> Statement {
        Statement::Instruction(Instruction {
            opcode: opcode.into(),
            modifiers: modifiers.iter().map(|&modifier| modifier.into()).collect(),
            operands,
            ..self.instruction.clone()
        })
    }

    /// Declares a register for a replacement's block.
    pub fn declared(&self, ty: Type, name: &str) -> Statement {
        Statement::Registers { ty, name: name.into(), count: None, line: self.instruction.line }
    }

    /// The instruction with an operand moved by `delta`: a known constant becomes another, a register is added to in a block.
    pub fn moved(&self, position: usize, delta: i64, ty: Type) -> Replacement {
        match (self.constant(position), self.operand(position)) {
            (Some(value), _) => self.with(position, Operand::Integer(wrapped(value.wrapping_add_signed(delta), ty))),
            (None, Some(operand)) => self.computed("add", ty, operand.clone(), delta, |spare| self.with(position, spare)),
            (None, None) => Vec::new(),
        }
    }

    /// A block that computes the spare register from an operand and a number, then executes what `use_of` makes of it.
    pub fn computed(
        &self,
        opcode: &str,
        ty: Type,
        operand: Operand,
        value: i64,
        use_of: impl FnOnce(Operand) -> Replacement,
    ) -> Replacement {
        let spare = || Operand::Name(SPARE.into());
        let arguments = vec![spare(), operand, Operand::Integer(value as u64)];
        let mut block = vec![self.declared(ty, SPARE), self.other(opcode, &[ty.name()], arguments)];
        block.extend(use_of(spare()));
        vec![Statement::Block(block)]
    }
}

/// The value as an integer of that type, in the two's complement of 64 bits that the syntax tree keeps.
pub(super) fn wrapped(value: u64, ty: Type) -> u64 {
    let unused = 64_u32.saturating_sub(8 * ty.bytes());
    let shifted = value.wrapping_shl(unused);
    if ty.name().starts_with('u') { shifted.wrapping_shr(unused) } else { (shifted as i64).wrapping_shr(unused) as u64 }
}
