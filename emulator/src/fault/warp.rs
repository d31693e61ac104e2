//! Faults in what the lanes of a warp do together.

use super::site::{Replacement, Site, wrapped};
use crate::ptx::ast::{Operand, Type};

/// The last operand of `shfl.sync` with which every lane is a segment of its own: a segment mask of 31 from bit 8, and the
/// clamp 31.
const ALONE: u64 = 0x1f1f;

/// The operand that says which lanes, or which blocks of a cluster, take part.
fn mask(site: &Site) -> Option<(usize, Type)> {
    let last = site.instruction.operands.len().checked_sub(1)?;
    match site.instruction.opcode.as_str() {
        "shfl" | "vote" | "match" | "redux" | "elect" if site.has("sync") => Some((last, Type::B32)),
        "bar" if site.has("warp") => Some((0, Type::B32)),
        "cp" if site.has("multicast::cluster") => Some((last.checked_sub(usize::from(site.has("L2::cache_hint")))?, Type::B16)),
        _ => None,
    }
}

/// Without the lowest of its lanes; full, if it was not.
pub(super) fn wrong_mask(site: &Site) -> Vec<Replacement> {
    let Some((position, ty)) = mask(site) else { return Vec::new() };
    let full = wrapped(u64::MAX, ty);
    let written = site.constant(position).map(|mask| wrapped(mask, ty));
    let mut mutants = Vec::new();
    if let Some(mask) = written.filter(|mask| mask & mask.wrapping_sub(1) != 0) {
        mutants.push(site.with(position, Operand::Integer(mask & mask.wrapping_sub(1))));
    }
    if ty == Type::B32 && written != Some(full) {
        mutants.push(site.with(position, Operand::Integer(full)));
    }
    mutants
}

/// Half the distance, or twice where half is none; and each lane by itself.
pub(super) fn wrong_shuffle(site: &Site) -> Vec<Replacement> {
    if !site.is("shfl") {
        return Vec::new();
    }
    let distance = match (site.constant(2), site.operand(2)) {
        (Some(0), _) => vec![site.with(2, Operand::Integer(1))],
        (Some(1), _) => vec![site.with(2, Operand::Integer(2))],
        (Some(distance), _) => vec![site.with(2, Operand::Integer(distance / 2))],
        (None, Some(_)) => vec![site.moved(2, 1, Type::U32)],
        (None, None) => Vec::new(),
    };
    distance.into_iter().chain([site.with(3, Operand::Integer(ALONE))]).collect()
}
