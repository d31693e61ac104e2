//! `barrier.cluster`: arriving at the barrier of a cluster and waiting for it.

use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::worker::list;
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::Instruction;

struct Arrive {
    releases: bool,
}

struct Wait;

impl Execute for Arrive {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (rank, warp, active, checked) = (cx.rank, cx.warp.index, cx.active, cx.checked());
        cx.worker.effects += 1;
        let warps: Vec<Vec<u32>> = cx.blocks.iter().map(|block| vec![0; block.alive.len()]).collect();
        let mut barrier = std::mem::take(&mut cx.blocks[0].cluster_barrier);
        for lanes in [&mut barrier.arrived, &mut barrier.pending, &mut barrier.waiting] {
            if lanes.is_empty() {
                lanes.clone_from(&warps);
            }
        }
        let again = barrier.pending[rank][warp] & active;
        barrier.arrived[rank][warp] |= active;
        barrier.pending[rank][warp] |= active;
        if checked {
            let timeline = &mut cx.block().races.timelines[warp];
            if self.releases {
                timeline.release(active, &mut barrier.release);
            } else {
                timeline.release_fenced(active, &mut barrier.release);
            }
        }
        cx.blocks[0].cluster_barrier = barrier;
        if again != 0 {
            cx.report(Kind::MismatchedBarrier, again.trailing_zeros() as usize, || {
                format!("lanes {} of warp {warp} arrive at the cluster's barrier again without having waited", list(again))
            });
        }
        cx.complete_cluster_barrier();
        Flow::Next
    }
}

impl Execute for Wait {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (rank, warp, active, checked) = (cx.rank, cx.warp.index, cx.active, cx.checked());
        let mut barrier = std::mem::take(&mut cx.blocks[0].cluster_barrier);
        let lanes = |of: &Vec<Vec<u32>>| of.get(rank).and_then(|warps| warps.get(warp)).copied().unwrap_or(0);
        let (not_come, too_early) = (active & !lanes(&barrier.pending), active & lanes(&barrier.arrived));
        if too_early == 0 {
            if let Some(pending) = barrier.pending.get_mut(rank).and_then(|warps| warps.get_mut(warp)) {
                *pending &= !active;
            }
            if checked {
                cx.block().races.timelines[warp].acquire(active, &barrier.completed);
            }
        } else {
            barrier.waiting[rank][warp] |= active;
        }
        cx.blocks[0].cluster_barrier = barrier;
        if not_come != 0 {
            cx.report(Kind::MismatchedBarrier, not_come.trailing_zeros() as usize, || {
                format!("lanes {} of warp {warp} wait for the cluster's barrier without having arrived", list(not_come))
            });
        }
        if too_early == 0 { Flow::Next } else { Flow::Wait }
    }
}

impl Cx<'_> {
    /// Starts the next phase of the cluster's barrier if all threads that have not ended have arrived.
    pub(crate) fn complete_cluster_barrier(&mut self) {
        let arrived = &self.blocks[0].cluster_barrier.arrived;
        let all = !arrived.is_empty()
            && self
                .blocks
                .iter()
                .zip(arrived)
                .all(|(block, came)| block.alive.iter().zip(came).all(|(alive, came)| alive & !came == 0));
        if !all || arrived.iter().flatten().all(|&lanes| lanes == 0) {
            return;
        }
        let mut barrier = std::mem::take(&mut self.blocks[0].cluster_barrier);
        barrier.completed = std::mem::take(&mut barrier.release);
        barrier.arrived.iter_mut().flatten().for_each(|lanes| *lanes = 0);
        for (block, waiting) in self.blocks.iter_mut().zip(&mut barrier.waiting) {
            for (woken, waiting) in block.woken.iter_mut().zip(waiting) {
                *woken |= std::mem::take(waiting);
            }
        }
        self.blocks[0].cluster_barrier = barrier;
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    cx.operands::<0>(i)?;
    let mut modifiers = modifiers(i);
    let aligned = modifiers.last() == Some(&"aligned");
    if aligned {
        modifiers.pop();
    }
    let decoded = match modifiers.as_slice() {
        ["cluster", "arrive"] | ["cluster", "arrive", "release"] => Decoded::new(Class::Barrier, Arrive { releases: true }),
        ["cluster", "arrive", "relaxed"] => Decoded::new(Class::Barrier, Arrive { releases: false }),
        ["cluster", "wait"] | ["cluster", "wait", "acquire"] => Decoded::new(Class::Barrier, Wait),
        _ => return Err(cx.unsupported(i)),
    }?;
    Ok(if aligned { decoded.meeting(Meeting::Barrier) } else { decoded })
}
