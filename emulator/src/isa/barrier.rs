//! `bar` and `barrier`: the numbered barriers of a block.

use super::modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::Reg;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

struct Sync {
    id: Reg<u32>,
    threads: Option<Reg<u32>>,
}

impl Execute for Sync {
    fn execute(&self, cx: &mut Cx) -> Flow {
        if cx.resumed {
            return Flow::Next;
        }
        let lane = cx.active.trailing_zeros() as usize;
        let (id, warp, active) = (cx.get(self.id)[lane] as usize % 16, cx.warp.index, cx.active);
        let expected = self.threads.map(|threads| cx.get(threads)[lane]);
        let pc = cx.pc;
        cx.worker.effects += 1;
        let block = cx.block();
        let warps = block.alive.len();
        let barrier = &mut block.barriers[id];
        if barrier.arrived.is_empty() {
            barrier.arrived = vec![0; warps];
            barrier.waiting = vec![0; warps];
            barrier.expected = expected;
            barrier.pc = pc;
        }
        barrier.arrived[warp] |= active;
        barrier.waiting[warp] |= active;
        if block.complete_barrier(id) {
            // This group has not begun to wait.
            block.woken[warp] &= !active;
            return Flow::Next;
        }
        Flow::Wait
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("bar" | "barrier", ["sync"] | ["cta", "sync"] | ["sync", "aligned"] | ["cta", "sync", "aligned"]) => {
            let (id, threads) = match i.operands.as_slice() {
                [id] => (id, None),
                [id, threads] => (id, Some(threads)),
                _ => return Err(cx.unsupported(i)),
            };
            let id = cx.critical(id)?;
            let threads = threads.map(|threads| cx.critical(threads)).transpose()?;
            Decoded::new(Class::Barrier, Sync { id, threads })
        }
        _ => Err(cx.unsupported(i)),
    }
}
