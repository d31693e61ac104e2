//! `mbarrier`: arrivals, announced bytes, waits.

mod object;

pub(crate) use object::Object;

use super::address::{AddressOperand, Target};
use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::check::races::Access;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Mask, Pred, Reg, WARP};
use crate::memory::mbarrier::{Mbarrier, SIZE};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

/// What an instruction does to an object.
enum Action {
    Init { count: Reg<u32> },
    Invalidate,
    ExpectBytes(Reg<u32>),
    CompleteBytes(Reg<u32>),
    Arrive { count: Option<Reg<u32>>, expect: Option<Reg<u32>>, drop: bool, may_complete: bool, state: Option<Reg<u64>> },
}

struct Update {
    target: Target,
    address: AddressOperand,
    action: Action,
    releases: bool,
}

impl Execute for Update {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.worker.effects += 1;
        let addresses = self.address.addresses(cx);
        let mut tokens: Lanes<u64> = [0; WARP];
        let mut left = cx.active;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let mut same: Mask = 0;
            for lane in lanes_of(left) {
                same |= u32::from(addresses[lane] == addresses[first]) << lane;
            }
            left &= !same;
            let Some((rank, position)) = cx.mbarrier_position(self.target, first, addresses[first]) else { continue };
            let writes = matches!(self.action, Action::Init { .. } | Action::Invalidate);
            if rank != cx.rank && writes {
                cx.report_at(Kind::InvalidOperation, first, Some(addresses[first]), None, || {
                    "an mbarrier is initialised and invalidated by its own block only".into()
                });
                continue;
            }
            cx.note_mbarrier(rank, position, same, if writes { Access::Write } else { Access::Atomic });
            match self.action {
                Action::Init { count } => self.init(cx, position, same, count),
                Action::Invalidate => {
                    if cx.mbarrier(rank, position, first).is_some() {
                        cx.block().mbarriers.remove(&position);
                        cx.block().shared.defined.put(position, SIZE, 0);
                    }
                }
                _ => {
                    // Lanes that have arrived in the current phase.
                    let mut arrived: Mask = 0;
                    for lane in lanes_of(same) {
                        arrived |= 1 << lane;
                        if let Some(token) = self.count(cx, rank, position, lane, &mut arrived) {
                            tokens[lane] = token;
                        }
                    }
                    if self.releases {
                        cx.leave_at_mbarrier(rank, position, arrived);
                    }
                }
            }
        }
        if let Action::Arrive { state: Some(state), .. } = self.action {
            cx.set(state, &tokens);
        }
        Flow::Next
    }
}

impl Update {
    fn init(&self, cx: &mut Cx, position: usize, lanes: Mask, count: Reg<u32>) {
        let lane = lanes.trailing_zeros() as usize;
        let made = if cx.block().mbarriers.contains_key(&position) {
            Err("initialised again without mbarrier.inval before".to_string())
        } else {
            Ok(())
        };
        let barrier = Mbarrier::new(cx.get(count)[lane]);
        for problem in [made.err(), barrier.as_ref().err().cloned()].into_iter().flatten() {
            cx.report_mbarrier(cx.rank, position, lane, || problem);
        }
        if let Ok(barrier) = barrier {
            cx.block().mbarriers.insert(position, Object::new(barrier));
            cx.block().shared.defined.put(position, SIZE, !0);
            cx.store_image(cx.rank, position);
        }
    }

    /// What one lane does, and the state before it. If it completes the phase, those who `came` in it leave what they know.
    fn count(&self, cx: &mut Cx, rank: usize, position: usize, lane: usize, came: &mut Mask) -> Option<u64> {
        let value = |register: Reg<u32>| cx.get(register)[lane];
        let (bytes, count, drop, may_complete) = match self.action {
            Action::ExpectBytes(bytes) => (Some(value(bytes)), None, false, true),
            Action::Arrive { count, expect, drop, may_complete, .. } => {
                (expect.map(value), Some(count.map_or(1, value)), drop, may_complete)
            }
            Action::CompleteBytes(bytes) => {
                let bytes = value(bytes);
                cx.mbarrier(rank, position, lane)?;
                cx.complete_bytes(rank, position, lane, bytes);
                return None;
            }
            Action::Init { .. } | Action::Invalidate => return None,
        };
        let object = cx.mbarrier(rank, position, lane)?;
        let token = object.barrier.token();
        let expected = bytes.map_or(Ok(()), |bytes| object.barrier.expect(bytes));
        let arrived = match count {
            Some(count) => object.barrier.arrive(count, if drop { count } else { 0 }),
            None => Ok(false),
        };
        if arrived == Ok(true) && self.releases {
            cx.leave_at_mbarrier(rank, position, std::mem::take(came));
        }
        cx.end_phase(rank, position, arrived == Ok(true));
        let forbidden = (arrived == Ok(true) && !may_complete).then(|| "arrives with .noComplete, but completes the phase".into());
        for problem in [expected.err(), arrived.err(), forbidden].into_iter().flatten() {
            cx.report_mbarrier(rank, position, lane, || problem);
        }
        Some(token)
    }
}

/// Which phase is waited for.
#[derive(Clone, Copy)]
enum Phase {
    Parity(Reg<u32>),
    State(Reg<u64>),
}

/// `test_wait` and `try_wait`: neither waits here, but a thread that finds the phase incomplete lets all others go first.
struct Wait {
    target: Target,
    address: AddressOperand,
    phase: Phase,
    complete: Pred,
    acquires: bool,
}

impl Execute for Wait {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let addresses = self.address.addresses(cx);
        let mut complete: Mask = 0;
        let mut previous = None;
        for lane in lanes_of(cx.active) {
            let Some((rank, position)) = cx.mbarrier_position(self.target, lane, addresses[lane]) else { continue };
            if rank != cx.rank {
                cx.report_at(Kind::InvalidOperation, lane, Some(addresses[lane]), None, || {
                    "a block waits for its own mbarriers only".into()
                });
                continue;
            }
            if previous.replace(position) != Some(position) {
                cx.note_mbarrier(rank, position, cx.active & addressed(&addresses, lane), Access::Atomic);
            }
            let Some(object) = cx.mbarrier(rank, position, lane) else {
                // Told of; waiting for ever would only hide what comes after.
                complete |= 1 << lane;
                continue;
            };
            let barrier = object.barrier;
            let passed = match self.phase {
                Phase::Parity(parity) => Ok(barrier.has_passed_parity(cx.get(parity)[lane])),
                Phase::State(state) => barrier.has_passed(cx.get(state)[lane]),
            };
            match passed {
                Ok(passed) => complete |= u32::from(passed) << lane,
                Err(problem) => {
                    complete |= 1 << lane;
                    cx.report_mbarrier(rank, position, lane, || problem);
                }
            }
        }
        if self.acquires {
            self.acquire(cx, complete, &addresses);
        }
        cx.set_predicate(self.complete, complete);
        if complete == cx.active { Flow::Next } else { Flow::Yield }
    }
}

impl Wait {
    /// The lanes that found their phase complete know what was left there.
    fn acquire(&self, cx: &mut Cx, complete: Mask, addresses: &Lanes<u64>) {
        let mut left = complete;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let lanes = left & addressed(addresses, first);
            left &= !lanes;
            let Some((rank, position)) = cx.mbarrier_position(self.target, first, addresses[first]) else { continue };
            let Some(object) = cx.blocks[rank].mbarriers.get_mut(&position) else { continue };
            let release = std::mem::take(&mut object.left);
            cx.acquire(lanes, &release);
            if let Some(object) = cx.blocks[rank].mbarriers.get_mut(&position) {
                object.left = release;
            }
        }
    }
}

/// The lanes with the same address as a given one.
fn addressed(addresses: &Lanes<u64>, lane: usize) -> Mask {
    super::lanes::mask(|other| addresses[other] == addresses[lane])
}

struct PendingCount {
    d: Reg<u32>,
    state: Reg<u64>,
}

impl Execute for PendingCount {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let pending = cx.get(self.state).map(Mbarrier::pending_of);
        cx.set(self.d, &pending);
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let modifiers = modifiers(i);
    let Some((&operation, rest)) = modifiers.split_first() else { return Err(cx.unsupported(i)) };
    if (operation, rest) == ("pending_count", &["b64"]) {
        let [d, state] = cx.operands(i)?;
        let (state, d) = (cx.source(state)?, cx.dest(d)?);
        return Decoded::new(Class::Barrier, PendingCount { d, state });
    }
    let (mut target, mut relaxed, mut parity, mut expects, mut may_complete, mut typed) =
        (Target::Generic, false, false, false, true, false);
    let (waits, arrives) = (matches!(operation, "test_wait" | "try_wait"), matches!(operation, "arrive" | "arrive_drop"));
    for &modifier in rest {
        match modifier {
            "shared" | "shared::cta" => target = Target::Shared,
            "shared::cluster" if !waits => target = Target::Shared,
            "release" if arrives => {}
            "acquire" if waits => {}
            "cta" | "cluster" => {}
            "relaxed" => relaxed = true,
            "parity" if waits => parity = true,
            "expect_tx" if arrives => expects = true,
            "noComplete" if arrives => may_complete = false,
            "b64" => typed = true,
            _ => return Err(cx.unsupported(i)),
        }
    }
    if !typed || expects && !may_complete {
        return Err(cx.unsupported(i));
    }
    if waits {
        let (d, address, phase) = match i.operands.as_slice() {
            [d, address, phase] => (d, address, phase),
            [d, address, phase, hint] if operation == "try_wait" => {
                cx.source::<u32>(hint)?;
                (d, address, phase)
            }
            _ => return Err(cx.unsupported(i)),
        };
        let (address, target) = AddressOperand::new(cx, address, target)?;
        let phase = if parity { Phase::Parity(cx.critical(phase)?) } else { Phase::State(cx.critical(phase)?) };
        let complete = cx.pred_dest(d)?;
        return Decoded::new(Class::Barrier, Wait { target, address, phase, complete, acquires: !relaxed });
    }
    let (state, operands) = match i.operands.as_slice() {
        [state, operands @ ..] if arrives => (Some(state).filter(|state| **state != Operand::Sink), operands),
        operands => (None, operands),
    };
    let (address, operand) = match operands {
        [address] => (address, None),
        [address, operand] => (address, Some(operand)),
        _ => return Err(cx.unsupported(i)),
    };
    let (address, target) = AddressOperand::new(cx, address, target)?;
    let operand = operand.map(|operand| cx.critical::<u32>(operand)).transpose()?;
    let action = match (operation, operand) {
        ("init", Some(count)) => Action::Init { count },
        ("inval", None) => Action::Invalidate,
        ("expect_tx", Some(bytes)) => Action::ExpectBytes(bytes),
        ("complete_tx", Some(bytes)) => Action::CompleteBytes(bytes),
        ("arrive" | "arrive_drop", operand) if !expects || operand.is_some() => {
            let (count, expect) = if expects { (None, operand) } else { (operand, None) };
            let state = state.map(|state| cx.dest(state)).transpose()?;
            Action::Arrive { count, expect, drop: operation == "arrive_drop", may_complete, state }
        }
        _ => return Err(cx.unsupported(i)),
    };
    Decoded::new(Class::Barrier, Update { target, address, action, releases: arrives && !relaxed })
}
