//! Faults in barriers, fences, waits and commits.

use super::site::{Replacement, Site};
use crate::ptx::ast::{Operand, Type};

/// Threads of a warp, the unit in which barriers count.
const WARP: i64 = 32;
/// Named barriers of a block.
const BARRIERS: u64 = 16;

fn is_barrier(site: &Site) -> bool {
    site.is("bar") || site.is("barrier")
}

/// Of `bar.red` the thread's own predicate remains as the result.
pub(super) fn drop_barrier(site: &Site) -> Vec<Replacement> {
    if !is_barrier(site) {
        return Vec::new();
    }
    let (Some(target), Some(own), true) = (site.operand(0), site.instruction.operands.last(), site.has("red")) else {
        return vec![Vec::new()];
    };
    let (own, is_negated) = match own {
        Operand::Not(name) => (Operand::Name(name.clone()), true),
        other => (other.clone(), false),
    };
    let target = target.clone();
    vec![vec![match (site.has("popc"), is_negated) {
        (true, _) => {
            let [yes, no] = if is_negated { [0, 1] } else { [1, 0] };
            site.other("selp", &["b32"], vec![target, Operand::Integer(yes), Operand::Integer(no), own])
        }
        (false, true) => site.other("not", &["pred"], vec![target, own]),
        (false, false) => site.other("mov", &["pred"], vec![target, own]),
    }]]
}

/// A barrier of the whole block counts one warp only. One with a count waits for another warp, and, if another instruction
/// uses its number too, also gets the next number.
pub(super) fn change_barrier(site: &Site) -> Vec<Replacement> {
    if !is_barrier(site) || site.has("warp") || site.has("cluster") {
        return Vec::new();
    }
    let (number, operands) = if site.has("red") { (1, 4) } else { (0, 2) };
    let given = site.instruction.operands.len();
    if given <= number {
        return Vec::new();
    }
    if given < operands {
        return vec![site.edited(|instruction| instruction.operands.insert(number + 1, Operand::Integer(WARP as u64)))];
    }
    let mut mutants = vec![site.moved(number + 1, WARP, Type::U32)];
    let is_same = |other: &Site| is_barrier(other) && other.constant(number) == site.constant(number);
    let others = (0..site.flow.nodes.len()).map(|node| Site::new(site.flow, node)).filter(is_same).count();
    if let (Some(value), true) = (site.constant(number), others > 1) {
        mutants.push(site.with(number, Operand::Integer(value.wrapping_add(1) % BARRIERS)));
    }
    mutants
}

/// A wait for groups, or for the grid before. A test of an mbarrier's phase says that it is complete.
pub(super) fn drop_wait(site: &Site) -> Vec<Replacement> {
    if site.is("mbarrier") && (site.has("try_wait") || site.has("test_wait")) {
        let Some(done) = site.operand(0) else { return Vec::new() };
        return vec![vec![site.other("mov", &["pred"], vec![done.clone(), Operand::Integer(u64::MAX)])]];
    }
    let is_wait = site.has("wait_group") || site.has("wait_all") || (site.is("griddepcontrol") && site.has("wait"));
    if is_wait { vec![Vec::new()] } else { Vec::new() }
}

/// One group more may still be under way.
pub(super) fn weaken_wait(site: &Site) -> Vec<Replacement> {
    if site.has("wait_group") {
        return vec![site.moved(0, 1, Type::U32)];
    }
    if site.has("wait_all") {
        return vec![vec![site.other("cp", &["async", "wait_group"], vec![Operand::Integer(1)])]];
    }
    Vec::new()
}

/// Copies or products then belong to the next group.
pub(super) fn drop_commit(site: &Site) -> Vec<Replacement> {
    if site.has("commit_group") { vec![Vec::new()] } else { Vec::new() }
}

pub(super) fn drop_fence(site: &Site) -> Vec<Replacement> {
    let is_fence = site.is("membar") || site.is("fence") || (site.is("wgmma") && site.has("fence"));
    if is_fence { vec![Vec::new()] } else { Vec::new() }
}

/// `sys` to `gpu` (`gl`) to `cta`, `cluster` to `cta`; a fence between the proxies becomes one of the generic proxy.
pub(super) fn weaken_fence(site: &Site) -> Vec<Replacement> {
    if site.is("fence") && site.has("proxy") && site.has("async") {
        return vec![vec![site.other("fence", &["acq_rel", "cta"], Vec::new())]];
    }
    let narrower = |scope: &str| match scope {
        "sys" if site.is("membar") => Some("gl"),
        "sys" => Some("gpu"),
        "gl" | "gpu" | "cluster" => Some("cta"),
        _ => None,
    };
    // `fence.mbarrier_init` exists for the cluster only
    if !(site.is("membar") || site.is("fence")) || site.has("mbarrier_init") || site.has("proxy") {
        return Vec::new();
    }
    let found = site.instruction.modifiers.iter().enumerate().find_map(|(place, scope)| Some((place, narrower(scope)?)));
    found.map(|(place, scope)| site.edited(|instruction| instruction.modifiers[place] = scope.into())).into_iter().collect()
}
