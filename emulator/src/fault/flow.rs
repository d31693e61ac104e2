//! Which values feed which: a map of definitions by register and scope, and backward slices over it.
//!
//! The slices ignore control flow: a register is fed by all its definitions. That is coarse, but a fault that it places wrongly
//! is only a fault of another kind.

use super::index;
use crate::ptx::ast::{Instruction, Operand, Statement};
use std::collections::{BTreeMap, BTreeSet};

/// A register: the number of the block that declares it, and its name.
pub(super) type Register<'a> = (usize, &'a str);

/// An instruction where it stands.
pub(super) struct Node<'a> {
    pub instruction: &'a Instruction,
    /// An index into the statements, one more for each block entered.
    pub path: Vec<usize>,
    /// The innermost block around it; 0 is the body.
    scope: usize,
}

/// What an address that a register feeds is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Feed {
    /// By how much the register changes when the address moves by one access, at least 1.
    pub unit: u64,
    /// It feeds an address in shared memory.
    pub shared: bool,
    /// It feeds a matrix descriptor of `wgmma`.
    pub descriptor: bool,
}

/// The names that one block declares.
#[derive(Default)]
struct Scope<'a> {
    parent: Option<usize>,
    /// Names, or prefixes with a count.
    registers: Vec<(&'a str, Option<u32>)>,
    /// Labels with the number of instructions before them in the body.
    labels: BTreeMap<&'a str, usize>,
}

impl Scope<'_> {
    fn declares(&self, name: &str) -> bool {
        self.registers.iter().any(|(prefix, count)| match count {
            None => *prefix == name,
            Some(count) => name.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n < *count),
        })
    }
}

/// The instructions of one function and what is known of its registers.
#[derive(Default)]
pub(super) struct Flow<'a> {
    /// In the order of the text.
    pub nodes: Vec<Node<'a>>,
    scopes: Vec<Scope<'a>>,
    definitions: BTreeMap<Register<'a>, Vec<usize>>,
    addresses: BTreeMap<Register<'a>, Feed>,
    phases: BTreeSet<Register<'a>>,
    loop_conditions: BTreeSet<Register<'a>>,
}

impl<'a> Flow<'a> {
    /// Reads a function's body.
    pub fn new(body: &'a [Statement]) -> Self {
        let mut flow = Self { scopes: vec![Scope::default()], ..Self::default() };
        flow.walk(body, 0, &mut Vec::new());
        for index in 0..flow.nodes.len() {
            for name in destinations(flow.nodes[index].instruction) {
                flow.definitions.entry(flow.resolve(index, name)).or_default().push(index);
            }
        }
        flow.addresses = flow.slice_addresses();
        flow.phases = flow.slice(flow.phase_roots(), &["mov", "xor", "not", "and", "selp", "cvt"]);
        flow.loop_conditions = flow.slice(flow.loop_roots(), &["mov", "xor", "not", "and", "or"]);
        flow
    }

    fn walk(&mut self, statements: &'a [Statement], scope: usize, path: &mut Vec<usize>) {
        for (index, statement) in statements.iter().enumerate() {
            path.push(index);
            match statement {
                Statement::Registers { name, count, .. } => self.scopes[scope].registers.push((name, *count)),
                Statement::Label { name, .. } => {
                    let position = self.nodes.len();
                    self.scopes[scope].labels.insert(name, position);
                }
                Statement::Block(inner) => {
                    self.scopes.push(Scope { parent: Some(scope), ..Scope::default() });
                    self.walk(inner, self.scopes.len() - 1, path);
                }
                Statement::Instruction(instruction) => self.nodes.push(Node { instruction, path: path.clone(), scope }),
                _ => {}
            }
            path.pop();
        }
    }

    /// The blocks around an instruction, from the inside.
    fn around(&self, node: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(self.nodes[node].scope), |scope| self.scopes[*scope].parent)
    }

    /// The register that a name means at an instruction; what no block declares belongs to the body.
    pub fn resolve(&self, node: usize, name: &'a str) -> Register<'a> {
        (self.around(node).find(|scope| self.scopes[*scope].declares(name)).unwrap_or(0), name)
    }

    /// The instructions that write a register, in the order of the text.
    pub fn definitions(&self, register: Register<'a>) -> &[usize] {
        self.definitions.get(&register).map_or(&[], Vec::as_slice)
    }

    /// The number that an operand is known to be: a literal, or a register with one definition, an unguarded `mov` of one.
    pub fn constant(&self, node: usize, operand: &'a Operand) -> Option<u64> {
        match operand {
            Operand::Integer(value) => Some(*value),
            Operand::Name(name) => match *self.definitions(self.resolve(node, name)) {
                [definition] => match self.nodes[definition].instruction {
                    Instruction { guard: None, opcode, operands, .. } if opcode == "mov" => match operands.get(1) {
                        Some(Operand::Integer(value)) => Some(*value),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// What the register's address is for, if it feeds one.
    pub fn feed(&self, register: Register) -> Option<Feed> {
        self.addresses.get(&register).copied()
    }

    /// The register feeds the parity of a wait.
    pub fn is_phase(&self, register: Register) -> bool {
        self.phases.contains(&register)
    }

    /// The predicate decides whether a loop goes on.
    pub fn is_loop_condition(&self, register: Register) -> bool {
        self.loop_conditions.contains(&register)
    }

    /// A branch to a label that stands before it.
    pub fn is_backward(&self, node: usize) -> bool {
        let instruction = self.nodes[node].instruction;
        let Some(Operand::Name(label)) = instruction.operands.first() else { return false };
        let target = self.around(node).find_map(|scope| self.scopes[scope].labels.get(label.as_str()));
        instruction.opcode == "bra" && target.is_some_and(|position| *position <= node)
    }

    /// The register may differ between the threads of a block: it depends on a thread's number or on memory.
    pub fn varies_by_thread(&self, register: Register<'a>) -> bool {
        let mut seen = BTreeSet::from([register]);
        let mut open = vec![register];
        while let Some(register) = open.pop() {
            for &definition in self.definitions(register) {
                let instruction = self.nodes[definition].instruction;
                let is_parameter = instruction.modifiers.first().is_some_and(|space| space == "param");
                if matches!(instruction.opcode.as_str(), "ld" | "atom" | "shfl") && !is_parameter {
                    return true;
                }
                for name in instruction.operands.iter().skip(1).flat_map(names) {
                    if name.starts_with("%tid") || name == "%laneid" {
                        return true;
                    }
                    let source = self.resolve(definition, name);
                    if seen.insert(source) {
                        open.push(source);
                    }
                }
            }
        }
        false
    }

    /// All registers that reach the roots through these opcodes, the roots included.
    fn slice(&self, roots: Vec<Register<'a>>, opcodes: &[&str]) -> BTreeSet<Register<'a>> {
        let mut found: BTreeSet<_> = roots.iter().copied().collect();
        let mut open = roots;
        while let Some(register) = open.pop() {
            for &definition in self.definitions(register) {
                let instruction = self.nodes[definition].instruction;
                if !opcodes.contains(&instruction.opcode.as_str()) {
                    continue;
                }
                for name in instruction.operands.iter().skip(1).flat_map(names) {
                    let source = self.resolve(definition, name);
                    if found.insert(source) {
                        open.push(source);
                    }
                }
            }
        }
        found
    }

    fn phase_roots(&self) -> Vec<Register<'a>> {
        let waits = self.nodes.iter().enumerate().filter(|(_, n)| n.instruction.modifiers.iter().any(|m| m == "parity"));
        waits
            .flat_map(|(i, n)| n.instruction.operands.get(2).into_iter().flat_map(names).map(move |r| self.resolve(i, r)))
            .collect()
    }

    fn loop_roots(&self) -> Vec<Register<'a>> {
        let guarded = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((i, n.instruction.guard.as_ref()?)));
        guarded.filter(|(i, _)| self.is_backward(*i)).map(|(i, guard)| self.resolve(i, &guard.register)).collect()
    }

    /// Backwards from every address through integer arithmetic. A register that feeds several gets the smallest unit.
    fn slice_addresses(&self) -> BTreeMap<Register<'a>, Feed> {
        let mut found: BTreeMap<Register<'a>, Feed> = BTreeMap::new();
        let mut open: Vec<(Register<'a>, Feed)> = Vec::new();
        for (node, Node { instruction, .. }) in self.nodes.iter().enumerate() {
            for (name, feed) in index::roots(instruction) {
                open.push((self.resolve(node, name), feed));
            }
        }
        while let Some((register, mut feed)) = open.pop() {
            if let Some(known) = found.get(&register) {
                feed.unit = feed.unit.min(known.unit);
                feed.shared |= known.shared;
                feed.descriptor |= known.descriptor;
                if feed == *known {
                    continue;
                }
            }
            found.insert(register, feed);
            for &definition in self.definitions(register) {
                let instruction = self.nodes[definition].instruction;
                for (position, operand) in instruction.operands.iter().enumerate().skip(1) {
                    let Some(unit) = self.unit_before(definition, position, feed.unit) else { continue };
                    for name in names(operand) {
                        open.push((self.resolve(definition, name), Feed { unit, ..feed }));
                    }
                }
            }
        }
        found
    }

    /// The unit of an operand of address arithmetic whose result has this unit; `None` for any other instruction.
    fn unit_before(&self, node: usize, position: usize, unit: u64) -> Option<u64> {
        let instruction = self.nodes[node].instruction;
        let constant = |position: usize| instruction.operands.get(position).and_then(|operand| self.constant(node, operand));
        let before = match (instruction.opcode.as_str(), position) {
            ("mul" | "mad" | "mul24" | "mad24", 1 | 2) => match constant(3 - position) {
                Some(factor) => unit.checked_div(factor).unwrap_or(unit),
                None => 1,
            },
            ("shl", 1) => constant(2).and_then(|bits| unit.checked_shr(u32::try_from(bits).ok()?)).unwrap_or(1),
            ("shr", 1) => {
                constant(2).and_then(|bits| unit.checked_mul(1_u64.checked_shl(u32::try_from(bits).ok()?)?)).unwrap_or(unit)
            }
            // the number of a block in its cluster
            ("shl" | "shr", _) | ("mapa", 2) => 1,
            (
                "add" | "sub" | "mad" | "mad24" | "and" | "or" | "xor" | "not" | "neg" | "mov" | "cvt" | "cvta" | "min" | "max",
                _,
            ) => unit,
            ("selp" | "rem" | "div" | "bfe" | "bfi" | "lop3" | "prmt" | "mapa" | "abs", _) => unit,
            _ => return None,
        };
        Some(before.max(1))
    }
}

/// Names that an instruction writes. What has no result begins with an address, or is listed.
fn destinations(instruction: &Instruction) -> Vec<&str> {
    let has_result = match instruction.opcode.as_str() {
        "bar" | "barrier" => instruction.modifiers.iter().any(|modifier| modifier == "red"),
        "bra" | "brx" | "nanosleep" | "setmaxnreg" | "trap" | "exit" | "ret" => false,
        _ => true,
    };
    match instruction.operands.first() {
        Some(operand @ (Operand::Name(_) | Operand::Vector(_) | Operand::Pair(..))) if has_result => names(operand),
        _ => Vec::new(),
    }
}

/// All names in an operand, whatever they mean.
pub(super) fn names(operand: &Operand) -> Vec<&str> {
    match operand {
        Operand::Name(name) | Operand::Not(name) | Operand::Offset { name, .. } => vec![name],
        Operand::Address { base, .. } => base.iter().map(String::as_str).collect(),
        Operand::Vector(inner) | Operand::AddressList(inner) => inner.iter().flat_map(names).collect(),
        Operand::Pair(first, second) => [first, second].into_iter().flat_map(|operand| names(operand)).collect(),
        _ => Vec::new(),
    }
}
