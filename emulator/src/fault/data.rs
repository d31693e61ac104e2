//! Faults in values: which, in which order, and whether they are there at all.

use super::index::is_wgmma;
use super::site::{Replacement, SPARE, Site};
use crate::ptx::ast::{Guard, Operand, Statement, Type};

/// A second register of a replacement's own.
const SPARE_RESULT: &str = "%fault_result";

/// The first and last component of a vector operand exchanged, or the first and second.
fn swapped(site: &Site, position: usize, second: impl Fn(usize) -> usize) -> Option<Replacement> {
    let Operand::Vector(components) = site.operand(position)? else { return None };
    let mut components = components.clone();
    let second = second(components.len());
    if components.first()? == components.get(second)? {
        return None;
    }
    components.swap(0, second);
    Some(site.with(position, Operand::Vector(components)))
}

/// Vector loads and stores, and the matrices of `ldmatrix` and `stmatrix`: the first and the last.
pub(super) fn swap_components(site: &Site) -> Vec<Replacement> {
    let position = match site.instruction.opcode.as_str() {
        "ld" | "ldu" | "ldmatrix" => 0,
        "st" | "stmatrix" => 1,
        _ => return Vec::new(),
    };
    swapped(site, position, |length| length.saturating_sub(1)).into_iter().collect()
}

/// The first two registers of A and of B; of `wgmma` with both operands in shared memory, the descriptors.
pub(super) fn swap_fragments(site: &Site) -> Vec<Replacement> {
    if site.is("mma") {
        return [1, 2].into_iter().filter_map(|position| swapped(site, position, |_| 1)).collect();
    }
    if !is_wgmma(site.instruction) {
        return Vec::new();
    }
    match (site.operand(1), site.operand(2)) {
        (Some(Operand::Vector(_)), _) => swapped(site, 1, |_| 1).into_iter().collect(),
        (Some(Operand::Name(a)), Some(Operand::Name(b))) if a != b => vec![site.exchanged(1, 2)],
        _ => Vec::new(),
    }
}

/// Where the order says something: not for comparisons with equality, nor for those that ask for a NaN.
pub(super) fn swap_operands(site: &Site) -> Vec<Replacement> {
    let is_symmetric = |name: &String| matches!(name.as_str(), "eq" | "ne" | "equ" | "neu" | "num" | "nan");
    let is_asymmetric = match site.instruction.opcode.as_str() {
        "sub" | "div" | "rem" => true,
        "setp" => site.instruction.modifiers.first().is_some_and(|name| !is_symmetric(name)),
        _ => false,
    };
    if is_asymmetric && site.operand(1) != site.operand(2) { vec![site.exchanged(1, 2)] } else { Vec::new() }
}

/// A load, the operation and a store, of which others may come in between; for a reduction, which returns nothing, also the
/// store alone. `inc` and `dec` have no instruction of their own and are left out.
pub(super) fn split_atomic(site: &Site) -> Vec<Replacement> {
    let is_reduction = site.is("red");
    let skip = if is_reduction { 0 } else { 1 };
    let (Some(place), Some(value)) = (site.operand(skip), site.operand(skip + 1)) else { return Vec::new() };
    let (true, Some(ty), Operand::Address { .. }) = (is_reduction || site.is("atom"), site.ty(), place) else { return Vec::new() };
    if matches!(value, Operand::Vector(_)) {
        return Vec::new();
    }
    let Some(operation) = ["add", "and", "or", "xor", "min", "max", "exch", "cas"].into_iter().find(|name| site.has(name)) else {
        return Vec::new();
    };
    let Some(raw) = Type::from_name(match ty.bytes() {
        2 => "b16",
        4 => "b32",
        8 => "b64",
        _ => return Vec::new(),
    }) else {
        return Vec::new();
    };
    let space = site.instruction.modifiers.iter().find(|m| m.starts_with("global") || m.starts_with("shared"));
    let access: Vec<&str> = space.map(String::as_str).into_iter().chain([raw.name()]).collect();
    let [old, result] = [SPARE, SPARE_RESULT].map(|name| Operand::Name(name.into()));
    let store = |value: &Operand| site.other("st", &access, vec![place.clone(), value.clone()]);

    let mut block = vec![site.declared(raw, SPARE), site.other("ld", &access, vec![old.clone(), place.clone()])];
    match operation {
        "exch" => block.push(store(value)),
        "cas" => {
            let (Some(new), None) = (site.operand(skip + 2), &site.instruction.guard) else { return Vec::new() };
            let equal = site.other("setp", &["eq", raw.name()], vec![result.clone(), old.clone(), value.clone()]);
            block.extend([site.declared(Type::Pred, SPARE_RESULT), equal, guarded(store(new), SPARE_RESULT)]);
        }
        name => {
            let sum = site.other(name, &[ty.name()], vec![result.clone(), old.clone(), value.clone()]);
            block.extend([site.declared(raw, SPARE_RESULT), sum, store(&result)]);
        }
    }
    if let (false, Some(target @ Operand::Name(_))) = (is_reduction, site.operand(0)) {
        block.push(site.other("mov", &[raw.name()], vec![target.clone(), old]));
    }
    let mut mutants = vec![vec![Statement::Block(block)]];
    if is_reduction {
        mutants.push(vec![store(value)]);
    }
    mutants
}

/// The statement under this predicate.
fn guarded(statement: Statement, predicate: &str) -> Statement {
    match statement {
        Statement::Instruction(mut instruction) => {
            instruction.guard = Some(Guard { register: predicate.into(), negated: false });
            Statement::Instruction(instruction)
        }
        other => other,
    }
}

/// Stores to anything but parameters, and asynchronous copies.
pub(super) fn drop_store(site: &Site) -> Vec<Replacement> {
    let is_store = match site.instruction.opcode.as_str() {
        "st" => !site.instruction.modifiers.iter().any(|m| m.starts_with("param")),
        "stmatrix" => true,
        "cp" => !site.has("mbarrier") && !site.has("prefetch") && !site.instruction.operands.is_empty() && !site.has("wait_group"),
        _ => false,
    };
    if is_store { vec![Vec::new()] } else { Vec::new() }
}

/// The literal zero with which a register begins that is written again elsewhere, or is copied to such a register, or that
/// a matrix product adds to. It comes from a register that nobody writes: leaving the `mov` out would be no fault where an
/// earlier one says the same.
pub(super) fn drop_initial<'a>(site: &Site<'a>) -> Vec<Replacement> {
    let (Some(register), Some(ty)) = (site.register(0), site.ty()) else { return Vec::new() };
    if !matches!(site.operand(1), Some(Operand::Integer(0) | Operand::Float32(0) | Operand::Float64(0))) {
        return Vec::new();
    }
    let is_rewritten = |register| site.flow.definitions(register).len() > 1;
    let is_passed_on = |other: Site<'a>| match other.instruction.opcode.as_str() {
        "mov" => other.register(1) == Some(register) && other.register(0).is_some_and(is_rewritten),
        "mma" => other.registers(3).contains(&register),
        _ => false,
    };
    let is_start = || is_rewritten(register) || (0..site.flow.nodes.len()).any(|node| is_passed_on(Site::new(site.flow, node)));
    if !site.is("mov") || ty == Type::Pred || !is_start() {
        return Vec::new();
    }
    let uninitialized = site.with(1, Operand::Name(SPARE.into()));
    vec![vec![Statement::Block([site.declared(ty, SPARE)].into_iter().chain(uninitialized).collect())]]
}
