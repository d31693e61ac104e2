//! Hints to the hardware, which change no value: `nanosleep`, `pmevent`, `setmaxnreg`, `griddepcontrol`.

use super::modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::{Instruction, Operand};

/// Does nothing.
struct Nothing;

impl Execute for Nothing {
    fn execute(&self, _: &mut Cx) -> Flow {
        Flow::Next
    }
}

/// Lets others go first.
struct Sleep;

impl Execute for Sleep {
    fn execute(&self, _: &mut Cx) -> Flow {
        Flow::Yield
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("nanosleep", ["u32"]) => {
            let [time] = cx.operands(i)?;
            cx.source::<u32>(time)?;
            Decoded::new(Class::Control, Sleep)
        }
        ("pmevent", [] | ["mask"]) => {
            let [event] = cx.operands(i)?;
            constant(cx, event)?;
            Decoded::new(Class::Control, Nothing)
        }
        // The emulator's registers are never scarce: only the rules for the operand are kept.
        ("setmaxnreg", ["inc" | "dec", "sync", "aligned", "u32"]) => {
            let [count] = cx.operands(i)?;
            let count = constant(cx, count)?;
            if !(24..=256).contains(&count) || count % 8 != 0 {
                return Err(cx.invalid(format!("{count} registers: only multiples of 8 from 24 to 256 can be asked for")));
            }
            if !cx.target.ends_with(['a', 'f']) {
                return Err(cx.refused(i, "it needs an architecture-specific target such as sm_90a"));
            }
            Ok(Decoded::new(Class::Control, Nothing)?.meeting(Meeting::Warp))
        }
        // A launch begins when those before it have ended, so that there is never anything to wait for or to start early.
        ("griddepcontrol", ["launch_dependents" | "wait"]) => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Barrier, Nothing)
        }
        _ => Err(cx.unsupported(i)),
    }
}

fn constant(cx: &Lowering, operand: &Operand) -> Result<u64> {
    match operand {
        Operand::Integer(value) => Ok(*value),
        _ => Err(cx.invalid(format!("`{operand}` is not a constant"))),
    }
}
