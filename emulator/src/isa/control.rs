//! `bra`, `brx.idx`, `ret`, `exit`, `trap`, `brkpt`.

use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Mask, Reg};
use crate::program::{Class, Decoded, Lowering, Symbol};
use crate::ptx::ast::{Instruction, Operand};

struct Branch {
    target: u32,
}

impl Execute for Branch {
    fn execute(&self, cx: &mut Cx) -> Flow {
        Flow::Branch { taken: cx.active, target: self.target }
    }
}

/// A branch to one of a list of labels.
struct BranchIndexed {
    index: Reg<u32>,
    targets: Box<[u32]>,
}

impl Execute for BranchIndexed {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let index = *cx.get(self.index);
        let lane = cx.active.trailing_zeros() as usize;
        let same = |other: &usize| index[*other] == index[lane];
        let lanes: Mask = lanes_of(cx.active).filter(same).fold(0, |lanes, lane| lanes | 1 << lane);
        match self.targets.get(index[lane] as usize) {
            Some(&target) => Flow::Jump { lanes, target },
            None => {
                let labels = self.targets.len();
                cx.report(Kind::InvalidOperation, lane, || format!("branch to label {} of {labels}", index[lane]));
                Flow::Stop
            }
        }
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

/// `trap`, and `brkpt`, which is the same where no debugger listens.
struct Trap {
    message: &'static str,
}

impl Execute for Trap {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let lane = cx.active.trailing_zeros() as usize;
        cx.report(Kind::Trap, lane, || self.message.into());
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
        ("brx", ["idx"] | ["idx", "uni"]) => {
            let [index, table] = cx.operands(i)?;
            let Operand::Name(name) = table else { return Err(cx.invalid(format!("`{table}` is not a list of labels"))) };
            let Symbol::Table(labels) = cx.symbol(name)?.clone() else {
                return Err(cx.invalid(format!("`{name}` is not a list of labels")));
            };
            let targets = labels.into_iter().map(|label| cx.label(&Operand::Name(label))).collect::<Result<_>>()?;
            let index = cx.critical(index)?;
            Decoded::new(Class::Control, BranchIndexed { index, targets })
        }
        ("trap", []) => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Control, Trap { message: "the kernel stopped itself" })
        }
        ("brkpt", []) => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Control, Trap { message: "a breakpoint, and no debugger" })
        }
        _ => Err(cx.unsupported(i)),
    }
}
