//! `bar` and `barrier`: the numbered barriers of a block, and `bar.warp.sync`.

use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::block::{BARRIERS, Barrier};
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Mask, Pred, Reg, WARP};
use crate::machine::worker::list;
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::{Instruction, Operand};

struct Numbered {
    id: Reg<u32>,
    threads: Option<Reg<u32>>,
    action: Action,
}

enum Action {
    Sync,
    Arrive,
    /// Counts the threads where a predicate holds.
    Count {
        predicate: (Pred, bool),
        d: Reg<u32>,
    },
    /// Whether a predicate holds in all threads, or in any.
    Combine {
        predicate: (Pred, bool),
        all: bool,
        d: Pred,
    },
}

impl Execute for Numbered {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let lane = cx.active.trailing_zeros() as usize;
        let ids = *cx.get(self.id);
        let id = ids[lane] as usize;
        if cx.resumed {
            self.finish(cx, id);
            return Flow::Next;
        }
        if let Some(other) = lanes_of(cx.active).find(|&other| ids[other] != ids[lane]) {
            cx.report(Kind::InvalidOperation, other, || {
                format!("lanes {lane} and {other} of a warp name barriers {id} and {} in one instruction", ids[other])
            });
        }
        if id >= BARRIERS {
            cx.report(Kind::InvalidOperation, lane, || format!("there is no barrier {id}: a block has 0 to 15"));
            return Flow::Stop;
        }
        let threads = self.threads.map(|threads| cx.get(threads)[lane]);
        if let Some(threads) = threads
            && (threads % WARP as u32 != 0 || threads == 0 && matches!(self.action, Action::Arrive))
        {
            cx.report(Kind::InvalidOperation, lane, || {
                format!("a barrier cannot wait for {threads} threads: the count must be a multiple of 32, and of `arrive` not 0")
            });
        }
        // A count of zero means all threads, as if there were none.
        let expected = threads.map(|threads| threads.next_multiple_of(WARP as u32)).filter(|&threads| threads != 0);
        let holding = match self.action {
            Action::Count { predicate, .. } | Action::Combine { predicate, .. } => super::lanes::holds(cx, predicate) & cx.active,
            _ => 0,
        };
        let waits = !matches!(self.action, Action::Arrive);
        if cx.arrive(id, expected, holding.count_ones(), waits) {
            self.finish(cx, id);
            return Flow::Next;
        }
        if waits { Flow::Wait } else { Flow::Next }
    }
}

impl Numbered {
    /// Writes what a reduction has found.
    fn finish(&self, cx: &mut Cx, id: usize) {
        let warp = cx.warp.index;
        let (holding, arrived) =
            cx.block().barriers.get(id).and_then(|barrier| barrier.results.get(warp).copied()).unwrap_or((0, 0));
        match self.action {
            Action::Count { d, .. } => cx.set(d, &[holding; WARP]),
            Action::Combine { all, d, .. } => {
                let holds = if all { holding == arrived } else { holding != 0 };
                cx.set_predicate(d, if holds { !0 } else { 0 });
            }
            Action::Sync | Action::Arrive => {}
        }
    }
}

impl Cx<'_> {
    /// The active lanes arrive at a numbered barrier; whether it is complete by that.
    fn arrive(&mut self, id: usize, expected: Option<u32>, holding: u32, waits: bool) -> bool {
        let (warp, active, pc, rank, checked) = (self.warp.index, self.active, self.pc, self.rank, self.checked());
        self.worker.effects += 1;
        let block = self.block();
        let warps = block.alive.len();
        let everyone = (warps * WARP) as u32;
        if block.barriers.len() <= id {
            block.barriers.resize_with(id + 1, Barrier::default);
        }
        let barrier = &mut block.barriers[id];
        if barrier.is_idle() {
            barrier.arrived = vec![0; warps];
            barrier.waiting = vec![0; warps];
            barrier.expected = expected;
            barrier.first = (pc, warp);
        }
        let (first, first_warp) = barrier.first;
        let (before, again) = (barrier.expected, barrier.arrived[warp] & active);
        barrier.arrived[warp] |= active;
        if waits {
            barrier.waiting[warp] |= active;
        }
        barrier.holding += holding;
        if checked {
            block.races.timelines[warp].release(active, &mut barrier.release);
        }
        let came = barrier.threads(&block.alive);
        let lane = active.trailing_zeros() as usize;
        if again != 0 {
            self.report(Kind::MismatchedBarrier, lane, || {
                format!("lanes {} of warp {warp} arrive at barrier {id} again before it has completed", list(again))
            });
        }
        let (wanted, earlier) = (expected.unwrap_or(everyone), before.unwrap_or(everyone));
        if wanted != earlier {
            let place = self.launch.place(first);
            self.report(Kind::MismatchedBarrier, lane, || {
                format!(
                    "barrier {id} is to wait for {wanted} threads here, but for {earlier} where warp {first_warp} came at {place}"
                )
            });
        } else if came > earlier {
            self.report(Kind::MismatchedBarrier, lane, || {
                format!("{came} threads have come to barrier {id}, which waits for {earlier}")
            });
        } else if expected.is_none() && first != pc {
            // Told of at the later of the two instructions, whichever came first.
            let (here, there) = if pc > first { ((pc, warp), (first, first_warp)) } else { ((first, first_warp), (pc, warp)) };
            let place = self.launch.place(there.0);
            self.report_elsewhere(Kind::MismatchedBarrier, here.0, rank, here.1, || {
                format!(
                    "a barrier of the whole block is met at different instructions: by warp {} here, by warp {} at {place} (PTX line {})",
                    here.1, there.1, place.ptx_line
                )
            });
        }
        if !self.complete_barrier(rank, id) {
            return false;
        }
        // This group has not begun to wait.
        self.block().woken[warp] &= !active;
        true
    }

    /// Starts the next phase of a barrier if all that it waits for have arrived, and wakes those who wait; whether it did.
    pub(crate) fn complete_barrier(&mut self, rank: usize, id: usize) -> bool {
        let checked = self.checked();
        let block = &mut self.blocks[rank];
        if !block.barriers[id].is_complete(&block.alive) {
            return false;
        }
        let mut barrier = std::mem::take(&mut block.barriers[id]);
        let arrived: u32 = barrier.arrived.iter().map(|lanes| lanes.count_ones()).sum();
        barrier.results.resize(block.alive.len(), (0, 0));
        let clock = barrier.release.into_shared();
        for (warp, &waiting) in barrier.waiting.iter().enumerate().filter(|(_, waiting)| **waiting != 0) {
            block.woken[warp] |= waiting;
            barrier.results[warp] = (barrier.holding, arrived);
            if checked {
                block.races.timelines[warp].meet(waiting, &clock);
            }
        }
        block.barriers[id].results = barrier.results;
        let missing: Vec<(usize, Mask)> =
            block.lanes.iter().zip(&barrier.arrived).map(|(lanes, came)| lanes & !came).enumerate().collect();
        if barrier.expected.is_none() && missing.iter().any(|(_, lanes)| *lanes != 0) {
            let (pc, warp) = barrier.first;
            let gone = missing
                .iter()
                .filter(|(_, lanes)| *lanes != 0)
                .map(|(warp, lanes)| format!("lanes {} of warp {warp}", list(*lanes)));
            let gone: Vec<String> = gone.collect();
            self.report_elsewhere(Kind::MismatchedBarrier, pc, rank, warp, || {
                format!("threads of the block ended without coming to this barrier: {}", gone.join(", "))
            });
        }
        true
    }
}

/// `bar.warp.sync`
struct Warp {
    members: Reg<u32>,
}

impl Execute for Warp {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let members = *cx.get(self.members);
        let mut left = cx.active;
        while left != 0 {
            let mask = members[left.trailing_zeros() as usize];
            let together = lanes_of(left).filter(|&lane| members[lane] == mask).fold(0, |lanes, lane| lanes | 1 << lane);
            cx.meet(together);
            left &= !together;
        }
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let (mut modifiers, opcode) = (modifiers(i), i.opcode.as_str());
    if let ("bar", ["warp", "sync"]) = (opcode, modifiers.as_slice()) {
        let [members] = cx.operands(i)?;
        let members = cx.critical(members)?;
        return Ok(Decoded::new(Class::Barrier, Warp { members })?.meeting(Meeting::Members(members)));
    }
    if modifiers.first() == Some(&"cluster") {
        return super::cluster::decode(i, cx);
    }
    if modifiers.first() == Some(&"cta") {
        modifiers.remove(0);
    }
    // `bar` is `barrier` with `.aligned`.
    let mut aligned = opcode == "bar";
    if let Some(at) = modifiers.iter().position(|&modifier| modifier == "aligned") {
        modifiers.remove(at);
        aligned = true;
    }
    let operands = i.operands.as_slice();
    let counted = |cx: &mut Lowering, operands: &[Operand]| -> Result<(Reg<u32>, Option<Reg<u32>>)> {
        match operands {
            [id] => Ok((cx.critical(id)?, None)),
            [id, threads] => Ok((cx.critical(id)?, Some(cx.critical(threads)?))),
            _ => Err(cx.unsupported(i)),
        }
    };
    let (id, threads, action) = match (modifiers.as_slice(), operands) {
        (["sync"], _) => {
            let (id, threads) = counted(cx, operands)?;
            (id, threads, Action::Sync)
        }
        (["arrive"], [_, _]) => {
            let (id, threads) = counted(cx, operands)?;
            (id, threads, Action::Arrive)
        }
        (["red", how, ty], [d, barrier @ .., predicate]) => {
            let predicate = cx.pred(predicate)?;
            let action = match (*how, *ty) {
                ("popc", "u32") => Action::Count { predicate, d: cx.dest(d)? },
                ("and" | "or", "pred") => Action::Combine { predicate, all: *how == "and", d: cx.pred_dest(d)? },
                _ => return Err(cx.unsupported(i)),
            };
            let (id, threads) = counted(cx, barrier)?;
            (id, threads, action)
        }
        _ => return Err(cx.unsupported(i)),
    };
    let decoded = Decoded::new(Class::Barrier, Numbered { id, threads, action })?;
    Ok(if aligned { decoded.meeting(Meeting::Barrier) } else { decoded })
}
