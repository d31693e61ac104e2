//! Proofs that a fault makes no difference in a case: the intact kernel, with the fault computed beside it.
//!
//! Mutation testing says of a fault that it *infects* if the changed instruction yields another value, and that it *propagates*
//! if somebody sees that. Here every register that the fault can reach through arithmetic gets a shadow, which holds what it would
//! hold with the fault. Wherever a register leaves arithmetic (an address, a stored value, a branch, a shuffle, a matrix product)
//! it is compared with its shadow, and a difference traps. A run that does not trap does, step by step, what the faulty kernel
//! would have done. A register that was never written does not compare: what cannot be told counts as a difference.

use std::collections::{BTreeMap, BTreeSet};

use ptx_emulator::fault::{Fault, apply};
use ptx_emulator::ptx::ast::{Guard, Instruction, Module, Operand, Statement, Type};

/// Instructions whose results depend on their operands alone, and which do nothing else.
const ARITHMETIC: [&str; 39] = [
    "abs", "add", "and", "bfe", "bfi", "bfind", "brev", "clz", "cnot", "copysign", "cos", "cvt", "cvta", "div", "ex2", "fma",
    "lg2", "lop3", "mad", "max", "min", "mov", "mul", "neg", "not", "or", "popc", "prmt", "rcp", "rem", "rsqrt", "selp", "set",
    "setp", "shf", "shl", "shr", "sqrt", "sub",
];
/// Further ones, which may be executed once more without anybody noticing.
const REPEATABLE: [&str; 4] = ["xor", "tanh", "ld", "ldmatrix"];
/// The predicate in which a comparison with a shadow ends.
const DIFFERS: &str = "%differs";

/// How far a fault may get before it counts as a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not out of its own instruction.
    Instruction,
    /// Not out of arithmetic.
    Arithmetic,
}

/// The kernel that traps where the fault would make a difference; `None` if this cannot be told of such a fault.
pub fn shadowed(intact: &Module, fault: &Fault, reach: Reach) -> Option<Module> {
    let position = intact.functions.iter().position(|f| f.name == fault.function && f.body.is_some())?;
    let body = intact.functions[position].body.as_ref()?;
    let faulty = apply(intact, fault).ok()?.functions.swap_remove(position).body?;
    let original = instruction_at(body, &fault.path)?;
    let replacement = replacement_at(body, &faulty, &fault.path)?;

    let shadows = match guard_fault(original, replacement) {
        Some(probe) => Shadows { path: fault.path.clone(), site: vec![probe], names: BTreeMap::new(), reach },
        None => Shadows::of_value(body, original, replacement, fault, reach)?,
    };
    let mut module = intact.clone();
    let mut statements: Vec<Statement> = shadows
        .names
        .iter()
        .map(|(name, ty)| Statement::Registers { ty: *ty, name: shadow(name), count: None, line: fault.line })
        .collect();
    statements.extend(shadows.instrumented(body, &mut Vec::new()));
    module.functions[position].body = Some(statements);
    Some(module)
}

/// A guard that is left out makes a difference where it does not hold, a branch that is left out where it is taken.
fn guard_fault(original: &Instruction, replacement: &[Statement]) -> Option<Statement> {
    let guard = original.guard.as_ref()?;
    let negated = match replacement {
        [] if original.opcode == "bra" => guard.negated,
        [Statement::Instruction(new)] if new.guard.is_none() && new.operands == original.operands => !guard.negated,
        _ => return None,
    };
    let guard = Guard { register: guard.register.clone(), negated };
    Some(Statement::Instruction(Instruction { guard: Some(guard), ..plain(original, "trap", &[], Vec::new()) }))
}

/// Which registers have shadows, and what stands before the faulty instruction to compute the first of them.
struct Shadows {
    path: Vec<usize>,
    site: Vec<Statement>,
    names: BTreeMap<String, Type>,
    reach: Reach,
}

impl Shadows {
    fn of_value(
        body: &[Statement],
        original: &Instruction,
        replacement: &[Statement],
        fault: &Fault,
        reach: Reach,
    ) -> Option<Self> {
        let is_known = |opcode: &str| is_arithmetic(opcode) || REPEATABLE.contains(&opcode);
        let last = match replacement {
            [Statement::Instruction(last)] => last,
            [Statement::Block(inner)] => match inner.last() {
                Some(Statement::Instruction(last)) => last,
                _ => return None,
            },
            _ => return None,
        };
        let written: BTreeSet<&str> = names(original.operands.first()?).into_iter().collect();
        let same = last.guard == original.guard
            && last.operands.first().map(names).is_some_and(|n| n.into_iter().collect::<BTreeSet<_>>() == written);
        if !same || !is_known(&original.opcode) || !is_known(&last.opcode) {
            return None;
        }
        let mut instructions = Vec::new();
        flatten(body, &mut instructions);
        let mut reached = written;
        let mut grows = reach == Reach::Arithmetic;
        while grows {
            let before = reached.len();
            for instruction in instructions.iter().filter(|i| is_arithmetic(&i.opcode)) {
                if reads(instruction).iter().any(|name| reached.contains(name)) {
                    reached.extend(instruction.operands.first().map(names).unwrap_or_default());
                }
            }
            grows = reached.len() > before;
        }
        reached.remove("_");
        let types = reached.iter().map(|&name| Some((name.to_owned(), declared(body, name)?))).collect::<Option<_>>()?;
        let mut shadows = Self { path: fault.path.clone(), site: Vec::new(), names: types, reach };
        shadows.site = shadows.copied(replacement);
        Some(shadows)
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The body with shadows computed beside it, and compared where they must agree.
    fn instrumented(&self, statements: &[Statement], path: &mut Vec<usize>) -> Vec<Statement> {
        let mut all = Vec::new();
        for (index, statement) in statements.iter().enumerate() {
            path.push(index);
            match statement {
                Statement::Instruction(instruction) => self.instruction(instruction, *path == self.path, &mut all),
                Statement::Block(inner) => all.push(Statement::Block(self.instrumented(inner, path))),
                other => all.push(other.clone()),
            }
            path.pop();
        }
        all
    }

    fn instruction(&self, instruction: &Instruction, is_site: bool, all: &mut Vec<Statement>) {
        if self.reach == Reach::Instruction {
            let this = Statement::Instruction(instruction.clone());
            if is_site {
                all.extend(self.site.iter().cloned());
                all.push(this);
                all.extend(self.names.keys().map(|name| self.compared(instruction, name, instruction.guard.as_ref())));
            } else {
                all.push(this);
            }
            return;
        }
        let read = reads(instruction);
        let is_reached = read.iter().any(|name| self.has(name));
        let guard_differs = instruction.guard.as_ref().filter(|guard| self.has(&guard.register));
        if let Some(guard) = guard_differs {
            all.push(self.compared(instruction, &guard.register, None));
        }
        let this = Statement::Instruction(instruction.clone());
        let written = || instruction.operands.first().map(names).unwrap_or_default().into_iter().filter(|name| self.has(name));
        if is_site {
            all.extend(self.site.iter().cloned());
            all.push(this);
        } else if is_arithmetic(&instruction.opcode) && is_reached {
            all.extend(self.copied(std::slice::from_ref(&this)));
            all.push(this);
        } else {
            let first = usize::from(has_result(instruction));
            let used: BTreeSet<&str> =
                instruction.operands.iter().skip(first).flat_map(names).filter(|name| self.has(name)).collect();
            all.extend(used.into_iter().map(|name| self.compared(instruction, name, instruction.guard.as_ref())));
            all.push(this);
            all.extend(written().map(|name| {
                let operands = vec![Operand::Name(shadow(name)), Operand::Name(name.to_owned())];
                let copy = plain(instruction, "mov", &[self.names[name].name()], operands);
                Statement::Instruction(Instruction { guard: instruction.guard.clone(), ..copy })
            }));
        }
    }

    /// The same statements on shadows.
    fn copied(&self, statements: &[Statement]) -> Vec<Statement> {
        let copied = |statement: &Statement| match statement {
            Statement::Instruction(instruction) => {
                let operands = instruction.operands.iter().map(|operand| self.renamed(operand)).collect();
                Statement::Instruction(Instruction { operands, ..instruction.clone() })
            }
            Statement::Block(inner) => Statement::Block(self.copied(inner)),
            other => other.clone(),
        };
        statements.iter().map(copied).collect()
    }

    fn renamed(&self, operand: &Operand) -> Operand {
        let new = |name: &String| if self.has(name) { shadow(name) } else { name.clone() };
        match operand {
            Operand::Name(name) => Operand::Name(new(name)),
            Operand::Not(name) => Operand::Not(new(name)),
            Operand::Address { base, offset } => Operand::Address { base: base.as_ref().map(new), offset: *offset },
            Operand::AddressList(inner) => Operand::AddressList(inner.iter().map(|operand| self.renamed(operand)).collect()),
            Operand::Vector(inner) => Operand::Vector(inner.iter().map(|operand| self.renamed(operand)).collect()),
            Operand::Pair(first, second) => Operand::Pair(Box::new(self.renamed(first)), Box::new(self.renamed(second))),
            other => other.clone(),
        }
    }

    /// Traps where the register is not what its shadow is, for threads for which the guard holds.
    fn compared(&self, at: &Instruction, name: &str, guard: Option<&Guard>) -> Statement {
        let name_of = |text: &str| Operand::Name(text.to_owned());
        let line = |opcode: &str, modifiers: &[&str], operands| Statement::Instruction(plain(at, opcode, modifiers, operands));
        let (opcode, modifiers) = match self.names[name] {
            Type::Pred => ("xor", vec!["pred"]),
            ty => ("setp", vec!["ne", ["b16", "b16", "b32", "b64"][ty.bytes().ilog2().min(3) as usize]]),
        };
        let mut block = vec![
            Statement::Registers { ty: Type::Pred, name: DIFFERS.into(), count: None, line: at.line },
            line(opcode, &modifiers, vec![name_of(DIFFERS), name_of(name), Operand::Name(shadow(name))]),
        ];
        if let Some(guard) = guard {
            let holds = if guard.negated { Operand::Not(guard.register.clone()) } else { name_of(&guard.register) };
            block.push(match holds {
                Operand::Not(register) => {
                    // `and` takes no negated predicate: what must not hold is taken away by a selection
                    let none = vec![name_of(DIFFERS), Operand::Integer(0)];
                    let cleared = plain(at, "mov", &["pred"], none);
                    Statement::Instruction(Instruction { guard: Some(Guard { register, negated: false }), ..cleared })
                }
                holds => line("and", &["pred"], vec![name_of(DIFFERS), name_of(DIFFERS), holds]),
            });
        }
        let trap = plain(at, "trap", &[], Vec::new());
        block.push(Statement::Instruction(Instruction { guard: Some(Guard { register: DIFFERS.into(), negated: false }), ..trap }));
        Statement::Block(block)
    }
}

fn shadow(name: &str) -> String {
    format!("%shadow_{}", name.trim_start_matches('%'))
}

fn is_arithmetic(opcode: &str) -> bool {
    ARITHMETIC.contains(&opcode) || opcode == "xor" || opcode == "tanh"
}

/// The first operand is what the instruction writes; of any other, all operands are looked at.
fn has_result(instruction: &Instruction) -> bool {
    let opcodes = ["ld", "ldu", "ldmatrix", "shfl", "atom", "mma", "vote", "match", "redux", "activemask", "elect", "mapa"];
    let opcode = instruction.opcode.as_str();
    is_arithmetic(opcode) && !matches!(instruction.operands.first(), Some(Operand::Address { .. })) || opcodes.contains(&opcode)
}

/// An instruction without a guard, at the line of another.
fn plain(at: &Instruction, opcode: &str, modifiers: &[&str], operands: Vec<Operand>) -> Instruction {
    let modifiers = modifiers.iter().map(|&modifier| modifier.to_owned()).collect();
    Instruction { guard: None, opcode: opcode.into(), modifiers, operands, line: at.line, location: at.location }
}

/// The names that an instruction with a result reads.
fn reads(instruction: &Instruction) -> Vec<&str> {
    let operands = instruction.operands.iter().skip(1).flat_map(names);
    operands.chain(instruction.guard.iter().map(|guard| guard.register.as_str())).collect()
}

fn names(operand: &Operand) -> Vec<&str> {
    match operand {
        Operand::Name(name) | Operand::Not(name) => vec![name],
        Operand::Address { base, .. } => base.iter().map(String::as_str).collect(),
        Operand::Vector(inner) | Operand::AddressList(inner) => inner.iter().flat_map(names).collect(),
        Operand::Pair(first, second) => [first, second].into_iter().flat_map(|operand| names(operand)).collect(),
        _ => Vec::new(),
    }
}

fn flatten<'a>(statements: &'a [Statement], all: &mut Vec<&'a Instruction>) {
    for statement in statements {
        match statement {
            Statement::Instruction(instruction) => all.push(instruction),
            Statement::Block(inner) => flatten(inner, all),
            _ => {}
        }
    }
}

/// The type of a register, if its name is declared but once: what is said of it then holds everywhere.
fn declared(statements: &[Statement], register: &str) -> Option<Type> {
    let mut types: Vec<Type> = Vec::new();
    for statement in statements {
        match statement {
            Statement::Registers { ty, name, count, .. } => {
                let is_this = match count {
                    None => name == register,
                    Some(count) => {
                        register.strip_prefix(name.as_str()).and_then(|n| n.parse().ok()).is_some_and(|n: u32| n < *count)
                    }
                };
                types.extend(is_this.then_some(*ty));
            }
            Statement::Block(inner) => types.extend(declared(inner, register)),
            _ => {}
        }
    }
    (types.len() == 1).then(|| types[0])
}

fn instruction_at<'a>(statements: &'a [Statement], path: &[usize]) -> Option<&'a Instruction> {
    let (&first, rest) = path.split_first()?;
    match (statements.get(first)?, rest.is_empty()) {
        (Statement::Instruction(instruction), true) => Some(instruction),
        (Statement::Block(inner), false) => instruction_at(inner, rest),
        _ => None,
    }
}

/// What stands in the faulty body in the place of one statement of the intact one.
fn replacement_at<'a>(intact: &[Statement], faulty: &'a [Statement], path: &[usize]) -> Option<&'a [Statement]> {
    let (&first, rest) = path.split_first()?;
    if rest.is_empty() {
        return faulty.get(first..(first + 1 + faulty.len()).checked_sub(intact.len())?);
    }
    match (intact.get(first)?, faulty.get(first)?) {
        (Statement::Block(intact), Statement::Block(faulty)) => replacement_at(intact, faulty, rest),
        _ => None,
    }
}
