//! `setp`, `selp`.

use super::lanes::mask;
use super::modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Lane, Pred, Reg};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

struct SetPredicate<T, F> {
    d: Pred,
    a: Reg<T>,
    b: Reg<T>,
    f: F,
}

impl<T: Lane, F: Fn(T, T) -> bool + Send + Sync> Execute for SetPredicate<T, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (*cx.get(self.a), *cx.get(self.b));
        let holds = mask(|lane| (self.f)(a[lane], b[lane]));
        cx.set_predicate(self.d, holds);
        Flow::Next
    }
}

fn setp<T: Lane>(cx: &mut Lowering, i: &Instruction, f: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Result<Decoded> {
    let [d, a, b] = cx.operands(i)?;
    let (a, b, d) = (cx.source(a)?, cx.source(b)?, cx.pred_dest(d)?);
    Decoded::new(Class::Move, SetPredicate { d, a, b, f })
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("setp", ["ge", "s32"]) => setp(cx, i, |a: i32, b: i32| a >= b),
        ("setp", ["lt", "s32"]) => setp(cx, i, |a: i32, b: i32| a < b),
        ("setp", ["gt", "s32"]) => setp(cx, i, |a: i32, b: i32| a > b),
        ("setp", ["gt", "u32"]) => setp(cx, i, |a: u32, b: u32| a > b),
        ("setp", ["lt", "u32"]) => setp(cx, i, |a: u32, b: u32| a < b),
        ("setp", ["eq", "s32" | "u32" | "b32"]) => setp(cx, i, |a: u32, b: u32| a == b),
        ("setp", ["ne", "s32" | "u32" | "b32"]) => setp(cx, i, |a: u32, b: u32| a != b),
        _ => Err(cx.unsupported(i)),
    }
}
