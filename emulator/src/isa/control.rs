//! `bra`, `brx.idx`, `ret`, `exit`, `trap`.

use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

struct Branch {
    target: u32,
}

impl Execute for Branch {
    fn execute(&self, cx: &mut Cx) -> Flow {
        Flow::Branch { taken: cx.active, target: self.target }
    }
}

struct Return;

impl Execute for Return {
    fn execute(&self, _: &mut Cx) -> Flow {
        Flow::Return
    }
}

struct Exit;

impl Execute for Exit {
    fn execute(&self, _: &mut Cx) -> Flow {
        Flow::Exit
    }
}

struct Trap;

impl Execute for Trap {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let lane = cx.active.trailing_zeros() as usize;
        cx.report(Kind::Trap, lane, || "the kernel stopped itself".into());
        Flow::Stop
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("bra", [] | ["uni"]) => {
            let [target] = cx.operands(i)?;
            let target = cx.label(target)?;
            // Threads that go straight to the end have left, whatever the order of the code: nobody waits for them.
            if cx.is_end(target) { Decoded::new(Class::Control, Exit) } else { Decoded::new(Class::Control, Branch { target }) }
        }
        ("ret", [] | ["uni"]) => {
            cx.operands::<0>(i)?;
            if cx.is_kernel() { Decoded::new(Class::Control, Exit) } else { Decoded::new(Class::Control, Return) }
        }
        ("exit", []) => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Control, Exit)
        }
        ("trap", []) => Decoded::new(Class::Control, Trap),
        _ => Err(cx.unsupported(i)),
    }
}
