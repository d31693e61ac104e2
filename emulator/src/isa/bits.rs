//! Bits: logic, shifts, fields, searches, permutations.

use super::lanes::{binary, holds, mask, quaternary, ternary, unary};
use super::modifiers;
use super::modifiers::Modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Mask, Pred, Reg, each_lane};
use crate::numeric::bits::{self, Overrun, PermuteMode};
use crate::numeric::compare::BoolOp;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

const CLASS: Class = Class::Integer;

/// Names of [`Overrun`].
const OVERRUN: [(&str, Overrun); 2] = [("clamp", Overrun::Clamp), ("wrap", Overrun::Wrap)];

/// Names of [`BoolOp`].
pub(super) const BOOL_OP: [(&str, BoolOp); 3] = [("and", BoolOp::And), ("or", BoolOp::Or), ("xor", BoolOp::Xor)];

/// A Boolean operator on all lanes.
#[inline(always)]
pub(super) fn combine(op: BoolOp, a: Mask, b: Mask) -> Mask {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("and", ["pred"]) => logic(i, cx, BoolOp::And),
        ("or", ["pred"]) => logic(i, cx, BoolOp::Or),
        ("xor", ["pred"]) => logic(i, cx, BoolOp::Xor),
        ("not", ["pred"]) => {
            let [d, a] = cx.operands(i)?;
            let ((a, negated), d) = (cx.pred(a)?, cx.pred_dest(d)?);
            Decoded::new(Class::Move, MovePredicate { d, a: (a, !negated) })
        }
        ("and", [ty]) => typed!(cx, i, T = ty, [b16 b32 b64] => binary(cx, i, CLASS, |a: T, b: T| a & b)),
        ("or", [ty]) => typed!(cx, i, T = ty, [b16 b32 b64] => binary(cx, i, CLASS, |a: T, b: T| a | b)),
        ("xor", [ty]) => typed!(cx, i, T = ty, [b16 b32 b64] => binary(cx, i, CLASS, |a: T, b: T| a ^ b)),
        ("not", [ty]) => typed!(cx, i, T = ty, [b16 b32 b64] => unary(cx, i, CLASS, |a: T| !a)),
        ("cnot", [ty]) => typed!(cx, i, T = ty, [b16 b32 b64] => unary(cx, i, CLASS, bits::cnot::<T>)),
        ("shl", [ty]) => typed!(cx, i, T = ty, [b16 b32 b64] => binary(cx, i, CLASS, bits::shl::<T>)),
        ("shr", [ty]) => {
            typed!(cx, i, T = ty, [b16 b32 b64 u16 u32 u64 s16 s32 s64] => binary(cx, i, CLASS, bits::shr::<T>))
        }
        ("shf", ["l", "clamp", "b32"]) => ternary(cx, i, CLASS, |a, b, n| bits::shf_l(Overrun::Clamp, a, b, n)),
        ("shf", ["l", "wrap", "b32"]) => ternary(cx, i, CLASS, |a, b, n| bits::shf_l(Overrun::Wrap, a, b, n)),
        ("shf", ["r", "clamp", "b32"]) => ternary(cx, i, CLASS, |a, b, n| bits::shf_r(Overrun::Clamp, a, b, n)),
        ("shf", ["r", "wrap", "b32"]) => ternary(cx, i, CLASS, |a, b, n| bits::shf_r(Overrun::Wrap, a, b, n)),
        ("popc", [ty]) => typed!(cx, i, T = ty, [b32 b64] => unary(cx, i, CLASS, bits::popc::<T>)),
        ("clz", [ty]) => typed!(cx, i, T = ty, [b32 b64] => unary(cx, i, CLASS, bits::clz::<T>)),
        ("brev", [ty]) => typed!(cx, i, T = ty, [b32 b64] => unary(cx, i, CLASS, bits::brev::<T>)),
        ("bfind", [ty]) => {
            typed!(cx, i, T = ty, [u32 s32 u64 s64] => unary(cx, i, CLASS, bits::bfind::<T>))
        }
        ("bfind", ["shiftamt", ty]) => {
            typed!(cx, i, T = ty, [u32 s32 u64 s64] => unary(cx, i, CLASS, bits::bfind_shiftamt::<T>))
        }
        ("bfe", [ty]) => typed!(cx, i, T = ty, [u32 s32 u64 s64] => ternary(cx, i, CLASS, bits::bfe::<T>)),
        ("bfi", [ty]) => typed!(cx, i, T = ty, [b32 b64] => quaternary(cx, i, CLASS, bits::bfi::<T>)),
        ("fns", ["b32"]) => ternary(cx, i, CLASS, bits::fns),
        ("bmsk" | "szext", _) => extension(i, cx),
        ("prmt", ["b32"]) => ternary(cx, i, CLASS, bits::prmt),
        ("prmt", ["b32", _]) => permutation(i, cx),
        ("lop3", _) => lop3(i, cx),
        _ => Err(cx.unsupported(i)),
    }
}

fn extension(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let Some(overrun) = modifiers.find(&OVERRUN) else { return Err(cx.unsupported(i)) };
    match (i.opcode.as_str(), modifiers.last()) {
        ("bmsk", "b32") => binary(cx, i, CLASS, move |a, b| bits::bmsk(overrun, a, b)),
        ("szext", "u32") => binary(cx, i, CLASS, move |a: u32, b| bits::szext(overrun, a, b)),
        ("szext", "s32") => binary(cx, i, CLASS, move |a: i32, b| bits::szext(overrun, a, b)),
        _ => Err(cx.unsupported(i)),
    }
}

fn permutation(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    modifiers.accept("b32");
    let mode = modifiers.find(&[
        ("f4e", PermuteMode::ForwardExtract),
        ("b4e", PermuteMode::BackwardExtract),
        ("rc8", PermuteMode::Replicate8),
        ("ecl", PermuteMode::EdgeClampLeft),
        ("ecr", PermuteMode::EdgeClampRight),
        ("rc16", PermuteMode::Replicate16),
    ]);
    let Some(mode) = mode else { return Err(cx.unsupported(i)) };
    ternary(cx, i, CLASS, move |a, b, selector| bits::prmt_mode(mode, a, b, selector))
}

/// `lop3.b32 d, a, b, c, table;` and `lop3.BoolOp.b32 d|p, a, b, c, table, q;`, where `p` is `d != 0` combined with `q`.
struct Lop3 {
    d: Option<Reg<u32>>,
    p: Option<(Pred, BoolOp, (Pred, bool))>,
    a: Reg<u32>,
    b: Reg<u32>,
    c: Reg<u32>,
    table: u8,
}

impl Execute for Lop3 {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b, c) = (*cx.get(self.a), *cx.get(self.b), *cx.get(self.c));
        let result = each_lane(|lane| bits::lop3(a[lane], b[lane], c[lane], self.table));
        if let Some((p, op, q)) = self.p {
            let truth = mask(|lane| result[lane] != 0);
            cx.set_predicate(p, combine(op, truth, holds(cx, q)));
        }
        if let Some(d) = self.d {
            cx.set(d, &result);
        }
        Flow::Next
    }
}

fn lop3(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let op = modifiers.find(&BOOL_OP);
    if modifiers.last() != "b32" {
        return Err(cx.unsupported(i));
    }
    let (dest, a, b, c, table, with) = match op {
        None => {
            let [d, a, b, c, table] = cx.operands(i)?;
            (d, a, b, c, table, None)
        }
        Some(op) => {
            let [d, a, b, c, table, q] = cx.operands(i)?;
            (d, a, b, c, table, Some((op, cx.pred(q)?)))
        }
    };
    let Operand::Integer(table @ 0..=0xff) = *table else {
        return Err(cx.invalid("the table of `lop3` is a number from 0 to 255"));
    };
    let (a, b, c) = (cx.source(a)?, cx.source(b)?, cx.source(c)?);
    let (d, p) = match (dest, with) {
        (Operand::Pair(d, p), Some((op, q))) => {
            let d = if **d == Operand::Sink { None } else { Some(cx.dest(d)?) };
            (d, Some((cx.pred_dest(p)?, op, q)))
        }
        (d, None) => (Some(cx.dest(d)?), None),
        _ => return Err(cx.unsupported(i)),
    };
    Decoded::new(CLASS, Lop3 { d, p, a, b, c, table: table as u8 })
}

/// `and`, `or` and `xor` of predicates. A defined operand that decides the result alone makes it defined: `a && b` is compiled to
/// this where `b` is computed only if `a` holds.
struct Logic {
    op: BoolOp,
    d: Pred,
    a: (Pred, bool),
    b: (Pred, bool),
}

impl Execute for Logic {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (holds(cx, self.a), holds(cx, self.b));
        if cx.checked() {
            let (undefined_a, undefined_b) = (cx.undefined(self.a.0.id), cx.undefined(self.b.0.id));
            let (open_a, open_b) = match self.op {
                BoolOp::And => (a, b),
                BoolOp::Or => (!a, !b),
                BoolOp::Xor => (!0, !0),
            };
            let undefined = undefined_a & (undefined_b | open_b) | undefined_b & (undefined_a | open_a);
            cx.set_undefined(self.d.id, undefined);
        }
        cx.set_predicate(self.d, combine(self.op, a, b));
        Flow::Next
    }
}

fn logic(i: &Instruction, cx: &mut Lowering, op: BoolOp) -> Result<Decoded> {
    let [d, a, b] = cx.operands(i)?;
    let (a, b, d) = (cx.pred(a)?, cx.pred(b)?, cx.pred_dest(d)?);
    Ok(Decoded::new(Class::Move, Logic { op, d, a, b })?.with_own_taint())
}

/// `mov.pred` and, of the negated operand, `not.pred`.
pub(super) struct MovePredicate {
    pub d: Pred,
    pub a: (Pred, bool),
}

impl Execute for MovePredicate {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let value = holds(cx, self.a);
        cx.set_predicate(self.d, value);
        Flow::Next
    }
}
