//! Faults in the use of barriers in shared memory.

use super::site::{Replacement, Site};
use crate::ptx::ast::{Operand, Type};

/// The unit of asynchronous bulk copies.
const BULK_BYTES: i64 = 16;

/// The parity that a wait asks for, or the 0 or 1 at which a register begins that becomes such a parity.
pub(super) fn wrong_phase(site: &Site) -> Vec<Replacement> {
    if site.is("mbarrier") && site.has("parity") {
        return match (site.constant(2), site.operand(2)) {
            (Some(parity), _) => vec![site.with(2, Operand::Integer(parity ^ 1))],
            (None, Some(parity)) => vec![site.computed("xor", Type::B32, parity.clone(), 1, |spare| site.with(2, spare))],
            (None, None) => Vec::new(),
        };
    }
    let begins = |register| site.flow.is_phase(register) && site.flow.definitions(register).len() > 1;
    match (site.operand(1), site.register(0)) {
        (Some(Operand::Integer(parity @ (0 | 1))), Some(register)) if site.is("mov") && begins(register) => {
            vec![site.with(1, Operand::Integer(parity ^ 1))]
        }
        _ => Vec::new(),
    }
}

pub(super) fn wrong_transaction_bytes(site: &Site) -> Vec<Replacement> {
    if !site.is("mbarrier") || !(site.has("expect_tx") || site.has("complete_tx")) {
        return Vec::new();
    }
    let last = site.instruction.operands.len().saturating_sub(1);
    [BULK_BYTES, -BULK_BYTES].map(|bytes| site.moved(last, bytes, Type::U32)).to_vec()
}

/// The count at `init`, where 0 is not allowed, or the one that an arrival states.
pub(super) fn wrong_arrival_count(site: &Site) -> Vec<Replacement> {
    if !site.is("mbarrier") || site.has("expect_tx") {
        return Vec::new();
    }
    let is_address = |operand: &Operand| matches!(operand, Operand::Address { .. });
    let Some(count) = site.instruction.operands.iter().position(is_address).map(|address| address + 1) else { return Vec::new() };
    match (site.has("init"), site.has("arrive") || site.has("arrive_drop"), site.operand(count)) {
        (true, _, Some(_)) if site.constant(count) == Some(1) => vec![site.moved(count, 1, Type::U32)],
        (true, _, Some(_)) => [1, -1].map(|delta| site.moved(count, delta, Type::U32)).to_vec(),
        (_, true, Some(_)) => vec![site.moved(count, 1, Type::U32)],
        _ => Vec::new(),
    }
}

/// Also the arrival that asynchronous copies make, and expected bytes without an arrival.
pub(super) fn drop_arrive(site: &Site) -> Vec<Replacement> {
    let is_arrival = site.has("arrive") || site.has("arrive_drop") || site.has("expect_tx");
    if is_arrival && (site.is("mbarrier") || (site.is("cp") && site.has("mbarrier"))) { vec![Vec::new()] } else { Vec::new() }
}
