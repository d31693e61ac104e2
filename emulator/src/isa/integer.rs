//! Integer arithmetic: `add`, `sub`, `mul`, `mad` and their 24-bit and carrying forms, `div`, `rem`, `sad`, `abs`, `neg`, `min`,
//! `max`, `dp4a`, `dp2a`, `vabsdiff4`.

use super::lanes::{binary, mask, ternary, unary};
use super::modifiers;
use super::modifiers::unsigned;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Lane, Pred, Reg, each_lane};
use crate::numeric::integer as int;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    const CLASS: Class = Class::Integer;
    let signed = |ty: &str| if ty.starts_with('s') { Some(true) } else { ty.starts_with('u').then_some(false) };
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("add", ["sat", "s32"]) => binary(cx, i, CLASS, int::add_sat),
        ("sub", ["sat", "s32"]) => binary(cx, i, CLASS, int::sub_sat),
        ("add", ["u16x2" | "s16x2"]) => binary(cx, i, CLASS, |a, b| int::x2(int::add::<u16>, a, b)),
        ("add" | "sub", [ty]) => typed!(cx, i, T = unsigned(ty), [u16 u32 u64] => match i.opcode.as_str() {
            "add" => binary(cx, i, CLASS, int::add::<T>),
            _ => binary(cx, i, CLASS, int::sub::<T>),
        }),
        ("add" | "sub", ["cc", ty]) | ("addc" | "subc", [ty] | ["cc", ty]) => {
            typed!(cx, i, T = unsigned(ty), [u32 u64] => match i.opcode.as_str() {
                "add" | "addc" => chained(cx, i, |a: T, b, _, carry| int::add_cc(a, b, carry)),
                _ => chained(cx, i, |a: T, b, _, borrow| int::sub_cc(a, b, borrow)),
            })
        }
        ("mad", [part @ ("lo" | "hi"), "cc", ty]) | ("madc", [part @ ("lo" | "hi"), ty] | [part @ ("lo" | "hi"), "cc", ty]) => {
            typed!(cx, i, T = ty, [u32 s32 u64 s64] => match *part {
                "lo" => chained(cx, i, int::mad_lo_cc::<T>),
                _ => chained(cx, i, int::mad_hi_cc::<T>),
            })
        }
        ("mul", ["lo", ty]) => typed!(cx, i, T = unsigned(ty), [u16 u32 u64] => binary(cx, i, CLASS, int::mul_lo::<T>)),
        ("mad", ["lo", ty]) => typed!(cx, i, T = unsigned(ty), [u16 u32 u64] => ternary(cx, i, CLASS, int::mad_lo::<T>)),
        ("mul", ["hi", ty]) => {
            typed!(cx, i, T = ty, [u16 s16 u32 s32 u64 s64] => binary(cx, i, CLASS, int::mul_hi::<T>))
        }
        ("mad", ["hi", ty]) => {
            typed!(cx, i, T = ty, [u16 s16 u32 s32 u64 s64] => ternary(cx, i, CLASS, int::mad_hi::<T>))
        }
        ("mad", ["hi", "sat", "s32"]) => ternary(cx, i, CLASS, int::mad_hi_sat),
        ("mul", ["wide", ty]) => typed!(cx, i, T = ty, [u16 s16 u32 s32] => binary(cx, i, CLASS, int::mul_wide::<T>)),
        ("mad", ["wide", ty]) => typed!(cx, i, T = ty, [u16 s16 u32 s32] => ternary(cx, i, CLASS, int::mad_wide::<T>)),
        ("mul24", ["lo", ty]) => typed!(cx, i, T = ty, [u32 s32] => binary(cx, i, CLASS, int::mul24_lo::<T>)),
        ("mul24", ["hi", ty]) => typed!(cx, i, T = ty, [u32 s32] => binary(cx, i, CLASS, int::mul24_hi::<T>)),
        ("mad24", ["lo", ty]) => typed!(cx, i, T = ty, [u32 s32] => ternary(cx, i, CLASS, int::mad24_lo::<T>)),
        ("mad24", ["hi", ty]) => typed!(cx, i, T = ty, [u32 s32] => ternary(cx, i, CLASS, int::mad24_hi::<T>)),
        ("mad24", ["hi", "sat", "s32"]) => ternary(cx, i, CLASS, int::mad24_hi_sat),
        ("sad", [ty]) => typed!(cx, i, T = ty, [u16 s16 u32 s32 u64 s64] => ternary(cx, i, CLASS, int::sad::<T>)),
        ("div" | "rem", [ty]) => typed!(cx, i, T = ty, [u16 s16 u32 s32 u64 s64] => match i.opcode.as_str() {
            "div" => binary(cx, i, CLASS, int::div::<T>),
            _ => binary(cx, i, CLASS, int::rem::<T>),
        }),
        ("abs" | "neg", [ty]) => typed!(cx, i, T = ty, [s16 s32 s64] => match i.opcode.as_str() {
            "abs" => unary(cx, i, CLASS, int::abs::<T>),
            _ => unary(cx, i, CLASS, int::neg::<T>),
        }),
        ("min" | "max", _) => extremum(i, cx),
        ("dp4a", [a, b]) => match (signed(a), signed(b)) {
            (Some(first), Some(second)) if a.ends_with("32") && b.ends_with("32") => {
                ternary(cx, i, CLASS, move |a, b, c| int::dp4a((first, second), a, b, c))
            }
            _ => Err(cx.unsupported(i)),
        },
        ("dp2a", [part @ ("lo" | "hi"), a @ ("u32" | "s32"), b @ ("u32" | "s32")]) => {
            let (signs, high) = ((a.starts_with('s'), b.starts_with('s')), *part == "hi");
            ternary(cx, i, CLASS, move |a, b, c| int::dp2a(signs, high, a, b, c))
        }
        ("vabsdiff4", ["u32", "u32", "u32"]) => {
            ternary(cx, i, CLASS, |a: u32, b: u32, _: u32| u32::from_le_bytes(byte_differences(a, b)))
        }
        ("vabsdiff4", ["u32", "u32", "u32", "add"]) => ternary(cx, i, CLASS, |a: u32, b: u32, c: u32| {
            byte_differences(a, b).into_iter().fold(c, |sum, byte| sum.wrapping_add(u32::from(byte)))
        }),
        _ => Err(cx.unsupported(i)),
    }
}

/// The distance of each unsigned byte.
#[inline(always)]
fn byte_differences(a: u32, b: u32) -> [u8; 4] {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    std::array::from_fn(|at| a[at].abs_diff(b[at]))
}

/// `min` and `max`; `.relu` stands before the type or, as in CUDA's own headers, behind it.
fn extremum(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    const CLASS: Class = Class::Integer;
    let least = i.opcode == "min";
    match (least, modifiers(i).as_slice()) {
        (true, ["relu", "s32"] | ["s32", "relu"]) => binary(cx, i, CLASS, |a: i32, b: i32| int::relu(int::min(a, b))),
        (false, ["relu", "s32"] | ["s32", "relu"]) => binary(cx, i, CLASS, |a: i32, b: i32| int::relu(int::max(a, b))),
        (true, ["u16x2"]) => binary(cx, i, CLASS, |a, b| int::x2(int::min::<u16>, a, b)),
        (false, ["u16x2"]) => binary(cx, i, CLASS, |a, b| int::x2(int::max::<u16>, a, b)),
        (true, ["s16x2"]) => binary(cx, i, CLASS, |a, b| int::x2(int::min::<i16>, a, b)),
        (false, ["s16x2"]) => binary(cx, i, CLASS, |a, b| int::x2(int::max::<i16>, a, b)),
        (true, ["relu", "s16x2"] | ["s16x2", "relu"]) => {
            binary(cx, i, CLASS, |a, b| int::x2(|a: i16, b| int::relu(int::min(a, b)), a, b))
        }
        (false, ["relu", "s16x2"] | ["s16x2", "relu"]) => {
            binary(cx, i, CLASS, |a, b| int::x2(|a: i16, b| int::relu(int::max(a, b)), a, b))
        }
        (_, [ty]) => typed!(cx, i, T = ty, [u16 s16 u32 s32 u64 s64] => match least {
            true => binary(cx, i, CLASS, int::min::<T>),
            false => binary(cx, i, CLASS, int::max::<T>),
        }),
        _ => Err(cx.unsupported(i)),
    }
}

/// `d = f(a, b, c, carry)`, with the carry flag as a predicate per lane.
struct Chained<T, F> {
    d: Reg<T>,
    a: Reg<T>,
    b: Reg<T>,
    /// `b` again where there is no third operand.
    c: Reg<T>,
    carry: Pred,
    /// `.cc` reads no carry but in the forms that end in `c`, and only `.cc` writes one.
    reads: bool,
    writes: bool,
    f: F,
}

impl<T: Lane, F: Fn(T, T, T, bool) -> (T, bool) + Send + Sync> Execute for Chained<T, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b, c) = (*cx.get(self.a), *cx.get(self.b), *cx.get(self.c));
        let carry = if self.reads { cx.predicate(self.carry) } else { 0 };
        let result = each_lane(|lane| (self.f)(a[lane], b[lane], c[lane], carry >> lane & 1 == 1));
        cx.set(self.d, &each_lane(|lane| result[lane].0));
        if self.writes {
            cx.set_predicate(self.carry, mask(|lane| result[lane].1));
        }
        Flow::Next
    }
}

fn chained<T: Lane>(
    cx: &mut Lowering,
    i: &Instruction,
    f: impl Fn(T, T, T, bool) -> (T, bool) + Send + Sync + 'static,
) -> Result<Decoded> {
    let (d, a, b, c) = if i.opcode.starts_with("mad") {
        let [d, a, b, c] = cx.operands(i)?;
        (d, a, b, c)
    } else {
        let [d, a, b] = cx.operands(i)?;
        (d, a, b, b)
    };
    let (a, b, c, d) = (cx.source(a)?, cx.source(b)?, cx.source(c)?, cx.dest(d)?);
    let (reads, writes) = (i.opcode.ends_with('c'), i.modifiers.iter().any(|modifier| modifier == "cc"));
    let carry = cx.carry();
    if reads {
        cx.note_read(carry.id);
    }
    if writes {
        cx.note_write(carry.id);
    }
    Decoded::new(Class::Integer, Chained { d, a, b, c, carry, reads, writes, f })
}
