//! Faults in addresses.

use super::flow::{Feed, names};
use super::site::{Replacement, Site, wrapped};
use crate::ptx::ast::{Instruction, Operand, Type};

/// Factors above this are taken for the multipliers by which compilers divide, not for strides.
const LARGEST_STRIDE: u64 = 1 << 24;
/// Descriptors of `wgmma` hold the stride between groups of eight rows, in 16 bytes, from this bit.
const DESCRIPTOR_STRIDE: u32 = 32;
/// Fourteen bits, before they are moved to their place.
const DESCRIPTOR_FIELD: u64 = (1 << 14) - 1;

/// How an instruction reads or writes memory.
struct Access {
    /// Bytes by which an address may be wrong and still not be a multiple of the alignment.
    element: i64,
    /// Bytes that one address stands for.
    bytes: i64,
    /// The operands that are addresses of data.
    addresses: Vec<usize>,
}

/// The accesses of an instruction to data, not those to parameters or to an mbarrier.
fn access(instruction: &Instruction) -> Option<Access> {
    let has = |modifier: &str| instruction.modifiers.iter().any(|m| m == modifier);
    let addresses = |count: usize| {
        let operands = instruction.operands.iter().take(count).enumerate();
        operands.filter(|(_, operand)| matches!(operand, Operand::Address { .. })).map(|(position, _)| position).collect::<Vec<_>>()
    };
    match instruction.opcode.as_str() {
        "ld" | "ldu" | "st" | "atom" | "red" if !instruction.modifiers.iter().any(|m| m.starts_with("param")) => {
            let element = i64::from(instruction.modifiers.iter().rev().find_map(|m| Type::from_name(m))?.bytes());
            let length = [("v2", 2), ("v4", 4), ("v8", 8)].into_iter().find(|(name, _)| has(name)).map_or(1, |(_, length)| length);
            Some(Access { element, bytes: element * length, addresses: addresses(2).into_iter().take(1).collect() })
        }
        "ldmatrix" | "stmatrix" => Some(Access { element: 2, bytes: 16, addresses: addresses(2) }),
        "cp" if has("mbarrier") || has("prefetch") => None,
        "cp" if has("tensor") => Some(Access { element: 16, bytes: 128, addresses: addresses(2) }),
        "cp" if has("bulk") => Some(Access { element: 8, bytes: 16, addresses: addresses(2) }),
        "cp" => match instruction.operands.get(2)? {
            Operand::Integer(bytes @ (4 | 8 | 16)) => Some(Access { element: 2, bytes: *bytes as i64, addresses: addresses(2) }),
            _ => None,
        },
        _ => None,
    }
}

/// The operand is an address in shared memory.
fn is_shared(instruction: &Instruction, position: usize) -> bool {
    let spaces = ["shared", "global", "local", "const", "param"];
    let mut written = instruction.modifiers.iter().filter(|m| spaces.iter().any(|space| m.split("::").next() == Some(*space)));
    let space = match instruction.opcode.as_str() {
        "ldmatrix" | "stmatrix" | "mbarrier" => return true,
        "cp" if position >= 2 || instruction.modifiers.iter().any(|m| m == "mbarrier") => return true,
        "cp" => written.nth(position),
        _ => written.next(),
    };
    space.is_some_and(|space| space.starts_with("shared"))
}

/// The names in an instruction's addresses, tensor coordinates and descriptors, and what they are for.
pub(super) fn roots(instruction: &Instruction) -> Vec<(&str, Feed)> {
    if instruction.modifiers.first().is_some_and(|space| space == "param") {
        return Vec::new();
    }
    let bytes = access(instruction).map_or(8, |access| access.bytes.unsigned_abs());
    let mut roots = Vec::new();
    for (position, operand) in instruction.operands.iter().enumerate() {
        match operand {
            Operand::Address { base: Some(name), .. } => {
                roots.push((name.as_str(), Feed { unit: bytes, shared: is_shared(instruction, position), descriptor: false }));
            }
            Operand::AddressList(parts) => {
                let coordinates = parts.iter().skip(1).flat_map(names);
                roots.extend(coordinates.map(|name| (name, Feed { unit: 1, shared: false, descriptor: false })));
            }
            Operand::Name(name) if (position == 1 || position == 2) && is_wgmma(instruction) => {
                roots.push((name, Feed { unit: 1, shared: true, descriptor: true }));
            }
            _ => {}
        }
    }
    roots
}

/// The product itself, whose second and third operands are descriptors where they are not registers.
pub(super) fn is_wgmma(instruction: &Instruction) -> bool {
    instruction.opcode == "wgmma" && instruction.modifiers.first().is_some_and(|m| m == "mma_async")
}

/// The address of an operand moved by some bytes.
fn displaced(site: &Site, position: usize, bytes: i64) -> Option<Replacement> {
    match site.operand(position)? {
        Operand::Address { base, offset } => {
            Some(site.with(position, Operand::Address { base: base.clone(), offset: offset.wrapping_add(bytes) }))
        }
        _ => None,
    }
}

/// Accesses: one access on or back; copies: at the destination or the source; tensors: also the first coordinate. Arithmetic
/// that feeds an address: its constant. A sum whose constant would become zero is left alone, for a loop would stand still.
pub(super) fn shift_index(site: &Site) -> Vec<Replacement> {
    if let Some(Access { bytes, addresses, .. }) = access(site.instruction) {
        let mut mutants: Vec<_> = match addresses.as_slice() {
            &[only] if !site.is("cp") => [bytes, -bytes].iter().filter_map(|&bytes| displaced(site, only, bytes)).collect(),
            _ => addresses.iter().filter_map(|&position| displaced(site, position, bytes)).collect(),
        };
        mutants.extend(shift_coordinate(site));
        return mutants;
    }
    let (Some(feed), Ok(unit)) = (site.feed(), i64::try_from(site.feed().map_or(1, |feed| feed.unit))) else { return Vec::new() };
    match (site.instruction.opcode.as_str(), site.integer()) {
        ("add", Some(ty)) => {
            let Some((position, value)) = [2, 1].into_iter().find_map(|position| Some((position, site.constant(position)?))) else {
                return Vec::new();
            };
            let shifted = [unit, -unit].map(|unit| wrapped(value.wrapping_add_signed(unit), ty));
            shifted.into_iter().filter(|value| *value != 0).map(|value| site.with(position, Operand::Integer(value))).collect()
        }
        ("or", Some(ty)) if feed.descriptor && site.constant(2).is_some() => vec![site.moved(2, unit, ty)],
        ("mov", Some(_)) => match site.operand(1) {
            Some(Operand::Offset { name, offset }) => [unit, -unit]
                .map(|unit| site.with(1, Operand::Offset { name: name.clone(), offset: offset.wrapping_add(unit) }))
                .to_vec(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The first coordinate of a tensor copy, one on.
fn shift_coordinate(site: &Site) -> Option<Replacement> {
    let is_list = |operand: &Operand| matches!(operand, Operand::AddressList(_));
    let position = site.instruction.operands.iter().position(is_list)?;
    let Some(Operand::AddressList(parts)) = site.operand(position) else { return None };
    let Some(Operand::Vector(coordinates)) = parts.get(1) else { return None };
    let first = coordinates.first()?;
    let replaced = |coordinate: Operand| {
        let coordinates = std::iter::once(coordinate).chain(coordinates.iter().skip(1).cloned()).collect();
        let parts = parts.iter().take(1).cloned().chain([Operand::Vector(coordinates)]).chain(parts.iter().skip(2).cloned());
        site.with(position, Operand::AddressList(parts.collect()))
    };
    Some(match site.value(first) {
        Some(value) => replaced(Operand::Integer(wrapped(value.wrapping_add(1), Type::S32))),
        None => site.computed("add", Type::S32, first.clone(), 1, replaced),
    })
}

/// The operand that is a constant factor, for `shl` the number of bits, of arithmetic that feeds an address.
fn factor(site: &Site) -> Option<(usize, u64)> {
    let positions: &[usize] = match site.instruction.opcode.as_str() {
        "mul" | "mad" if !site.has("hi") => &[2, 1],
        "shl" => &[2],
        _ => return None,
    };
    site.integer()?;
    let (position, value) = positions.iter().find_map(|&position| Some((position, site.constant(position)?)))?;
    (value > 0 && value <= LARGEST_STRIDE).then_some((position, value))
}

/// Twice and half a factor; without one, `a·b + c` becomes `c·b + a`; in a descriptor, twice the stride.
pub(super) fn swap_stride(site: &Site) -> Vec<Replacement> {
    let Some(feed) = site.feed() else { return Vec::new() };
    if let Some((position, value)) = factor(site) {
        let [more, less] = if site.is("shl") { [value + 1, value - 1] } else { [2 * value, value / 2] };
        return [more, less].map(|value| site.with(position, Operand::Integer(value))).to_vec();
    }
    let constant = |position| site.constant(position);
    match site.instruction.opcode.as_str() {
        "mad" if !site.has("wide") && !site.has("hi") && [1, 2].into_iter().all(|p| constant(p).is_none()) => {
            vec![site.exchanged(1, 3)]
        }
        "or" if feed.descriptor => match constant(2) {
            Some(value) => {
                let field = DESCRIPTOR_FIELD << DESCRIPTOR_STRIDE;
                vec![site.with(2, Operand::Integer((value & !field) | (((value & field) << 1) & field)))]
            }
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// A product of a constant and an index that all threads share no longer counts in a shared address; an offset that is
/// toggled by an exclusive or stays as it is.
pub(super) fn merge_stages<'a>(site: &Site<'a>) -> Vec<Replacement> {
    if let ("xor", Some(register), Some(Feed { shared: true, .. })) =
        (site.instruction.opcode.as_str(), site.register(0), site.feed())
    {
        let is_toggled = site.flow.definitions(register).len() > 1 && !site.flow.varies_by_thread(register);
        return if is_toggled && site.constant(2).is_some() { vec![site.with(2, Operand::Integer(0))] } else { Vec::new() };
    }
    let (Some(feed), Some((position, _)), Some(ty)) = (site.feed(), factor(site), site.integer()) else { return Vec::new() };
    let index = if site.is("shl") { 1 } else { 3 - position };
    let is_uniform = site.register(index).is_some_and(|index| !site.flow.varies_by_thread(index));
    // a product that is taken away again is part of a remainder, `k - 3*(k/3)`
    let is_taken_away = |other: Site<'a>| other.is("sub") && other.register(2) == site.register(0);
    if (0..site.flow.nodes.len()).any(|node| is_taken_away(Site::new(site.flow, node))) {
        return Vec::new();
    }
    let (Some(target), true) = (site.operand(0), feed.shared && is_uniform && site.constant(index).is_none()) else {
        return Vec::new();
    };
    let rest = if site.is("mad") { site.operand(3).cloned().unwrap_or(Operand::Sink) } else { Operand::Integer(0) };
    let bits = if ty.bytes() == 8 || site.has("wide") { "b64" } else { "b32" };
    vec![vec![site.other("mov", &[bits], vec![target.clone(), rest])]]
}

/// A wide access one element on, so that it is no longer aligned as a whole.
pub(super) fn misalign_access(site: &Site) -> Vec<Replacement> {
    match access(site.instruction) {
        Some(Access { element, bytes, addresses }) if bytes > element => {
            addresses.iter().filter_map(|&position| displaced(site, position, element)).collect()
        }
        _ => Vec::new(),
    }
}
