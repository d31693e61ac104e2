//! Faults in guards, bounds and loops.

use super::site::{Replacement, Site, wrapped};
use crate::ptx::ast::Type;

/// The comparison that differs at equality only, and by how much a constant bound changes to err the other way.
fn off_by_one(comparison: &str) -> Option<(&'static str, i64)> {
    Some(match comparison {
        "lt" => ("le", -1),
        "le" => ("lt", 1),
        "gt" => ("ge", 1),
        "ge" => ("gt", -1),
        "lo" => ("ls", -1),
        "ls" => ("lo", 1),
        "hi" => ("hs", 1),
        "hs" => ("hi", -1),
        _ => return None,
    })
}

/// An integer comparison, its type, and whether it decides on a loop.
fn comparison<'a>(site: &Site<'a>) -> Option<(&'a str, Type, bool)> {
    let name = site.instruction.modifiers.first().filter(|_| site.is("setp"))?;
    let is_loop = site.destination().is_some_and(|predicate| site.flow.is_loop_condition(predicate));
    Some((name, site.integer()?, is_loop))
}

/// The comparison at equality; with a constant bound also the next constant on the other side.
pub(super) fn bounds_off_by_one(site: &Site) -> Vec<Replacement> {
    let Some((name, ty, false)) = comparison(site) else { return Vec::new() };
    let Some((other, delta)) = off_by_one(name) else { return Vec::new() };
    let mut mutants = vec![site.edited(|instruction| {
        if let Some(name) = instruction.modifiers.first_mut() {
            *name = other.into();
        }
    })];
    // an unsigned bound of 0 has none below it
    let is_lowest = ty.name().starts_with('u') && site.constant(2) == Some(0) && delta < 0;
    if site.constant(2).is_some() && !is_lowest {
        mutants.push(site.moved(2, delta, ty));
    }
    mutants
}

/// The bound moved by the counter's constant step, by 1 if it has none. A comparison for equality needs such a step: without
/// one it waits for something other than a count.
pub(super) fn loop_bound(site: &Site) -> Vec<Replacement> {
    let Some((name, ty, true)) = comparison(site) else { return Vec::new() };
    let step = match step(site) {
        Some(step) => wrapped(step, ty) as i64,
        None if off_by_one(name).is_some() => 1,
        None => return Vec::new(),
    };
    [step, step.wrapping_neg()].map(|delta| site.moved(2, delta, ty)).to_vec()
}

/// The constant that is added to the compared register.
fn step(site: &Site) -> Option<u64> {
    let definitions = site.flow.definitions(site.register(1)?);
    let sums = definitions.iter().map(|&node| Site::new(site.flow, node)).filter(|definition| definition.is("add"));
    sums.filter_map(|sum| sum.constant(2)).find(|step| *step != 0)
}

pub(super) fn negate_guard(site: &Site) -> Vec<Replacement> {
    if site.instruction.guard.is_none() {
        return Vec::new();
    }
    vec![site.edited(|instruction| {
        if let Some(guard) = &mut instruction.guard {
            guard.negated = !guard.negated;
        }
    })]
}

/// A branch is never taken, or, if it leads forward, always; anything else is always executed.
pub(super) fn drop_guard(site: &Site) -> Vec<Replacement> {
    if site.instruction.guard.is_none() {
        return Vec::new();
    }
    let unguarded = site.edited(|instruction| instruction.guard = None);
    match (site.is("bra"), site.is_backward()) {
        (true, true) => vec![Vec::new()],
        (true, false) => vec![Vec::new(), unguarded],
        (false, _) => vec![unguarded],
    }
}
