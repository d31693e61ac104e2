//! `setp`, `set`, `selp`, `slct`.

use super::bits::{BOOL_OP, combine};
use super::lanes::{holds, mask};
use super::modifiers::Modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Lane, Mask, Pred, Reg, each_lane};
use crate::numeric::compare::{BoolOp, Comparison, compare};
use crate::numeric::float::Float;
use crate::numeric::half_precision::{self as half, BF16, F16};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match i.opcode.as_str() {
        "setp" => setp(i, cx),
        "set" => set(i, cx),
        "selp" => selp(i, cx),
        "slct" => slct(i, cx),
        _ => Err(cx.unsupported(i)),
    }
}

/// The comparison that a name means for a type, if the type has it.
fn comparison(name: &str, ty: &str) -> Option<Comparison> {
    let any = match name {
        "eq" => Comparison::Eq,
        // On floats false if an operand is NaN; on integers the same as unequal.
        "ne" => Comparison::Ne,
        _ if ty.starts_with("b") && !ty.starts_with("bf16") => return None,
        "lt" => Comparison::Lt,
        "le" => Comparison::Le,
        "gt" => Comparison::Gt,
        "ge" => Comparison::Ge,
        "lo" if ty.starts_with('u') => Comparison::Lt,
        "ls" if ty.starts_with('u') => Comparison::Le,
        "hi" if ty.starts_with('u') => Comparison::Gt,
        "hs" if ty.starts_with('u') => Comparison::Ge,
        _ if !is_float(ty) => return None,
        "equ" => Comparison::Equ,
        "neu" => Comparison::Neu,
        "ltu" => Comparison::Ltu,
        "leu" => Comparison::Leu,
        "gtu" => Comparison::Gtu,
        "geu" => Comparison::Geu,
        "num" => Comparison::Num,
        "nan" => Comparison::Nan,
        _ => return None,
    };
    Some(any)
}

fn is_float(ty: &str) -> bool {
    matches!(ty, "f16" | "bf16" | "f16x2" | "bf16x2" | "f32" | "f64")
}

/// Whether a type of operands can be flushed.
fn has_ftz(ty: &str) -> bool {
    matches!(ty, "f16" | "f16x2" | "f32")
}

/// The Boolean operator of a comparison and the predicate that it combines the result with.
type With = Option<(BoolOp, (Pred, bool))>;

#[inline(always)]
fn conclude(cx: &Cx, truth: Mask, with: With) -> Mask {
    with.map_or(truth, |(op, c)| combine(op, truth, holds(cx, c)))
}

/// `setp p|q, a, b;`: `p` takes the comparison, `q` its opposite.
struct SetPredicate<T, F> {
    p: Option<Pred>,
    q: Option<Pred>,
    a: Reg<T>,
    b: Reg<T>,
    with: With,
    f: F,
}

impl<T: Lane, F: Fn(T, T) -> bool + Send + Sync> Execute for SetPredicate<T, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (cx.get(self.a), cx.get(self.b));
        let truth = mask(|lane| (self.f)(a[lane], b[lane]));
        let (p, q) = (conclude(cx, truth, self.with), conclude(cx, !truth, self.with));
        if let Some(register) = self.p {
            cx.set_predicate(register, p);
        }
        if let Some(register) = self.q {
            cx.set_predicate(register, q);
        }
        Flow::Next
    }
}

/// `setp.f16x2 p|q, a, b;`: `p` compares the lower halves, `q` the upper ones.
struct SetPair<F> {
    p: Option<Pred>,
    q: Option<Pred>,
    a: Reg<u32>,
    b: Reg<u32>,
    with: With,
    f: F,
}

impl<F: Fn(u16, u16) -> bool + Send + Sync> Execute for SetPair<F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (cx.get(self.a), cx.get(self.b));
        let low = mask(|lane| (self.f)(a[lane] as u16, b[lane] as u16));
        let high = mask(|lane| (self.f)((a[lane] >> 16) as u16, (b[lane] >> 16) as u16));
        let (p, q) = (conclude(cx, low, self.with), conclude(cx, high, self.with));
        if let Some(register) = self.p {
            cx.set_predicate(register, p);
        }
        if let Some(register) = self.q {
            cx.set_predicate(register, q);
        }
        Flow::Next
    }
}

/// The operands of `setp`.
struct Predicates<'i> {
    p: Option<Pred>,
    q: Option<Pred>,
    a: &'i Operand,
    b: &'i Operand,
    with: With,
}

impl Predicates<'_> {
    fn decoded<T: Lane>(self, cx: &mut Lowering, f: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Result<Decoded> {
        let (a, b) = (cx.source(self.a)?, cx.source(self.b)?);
        Decoded::new(Class::Move, SetPredicate { p: self.p, q: self.q, a, b, with: self.with, f })
    }

    fn pair(self, cx: &mut Lowering, f: impl Fn(u16, u16) -> bool + Send + Sync + 'static) -> Result<Decoded> {
        let (a, b) = (cx.source(self.a)?, cx.source(self.b)?);
        Decoded::new(Class::Move, SetPair { p: self.p, q: self.q, a, b, with: self.with, f })
    }

    /// With the comparison a constant of the code, so that it vectorises.
    fn ordered<T: Lane + PartialOrd>(self, cx: &mut Lowering, comparison: Comparison) -> Result<Decoded> {
        match comparison {
            Comparison::Eq => self.decoded(cx, |a: T, b| compare(Comparison::Eq, a, b)),
            Comparison::Ne => self.decoded(cx, |a: T, b| compare(Comparison::Ne, a, b)),
            Comparison::Lt => self.decoded(cx, |a: T, b| compare(Comparison::Lt, a, b)),
            Comparison::Le => self.decoded(cx, |a: T, b| compare(Comparison::Le, a, b)),
            Comparison::Gt => self.decoded(cx, |a: T, b| compare(Comparison::Gt, a, b)),
            Comparison::Ge => self.decoded(cx, |a: T, b| compare(Comparison::Ge, a, b)),
            other => self.decoded(cx, move |a: T, b| compare(other, a, b)),
        }
    }

    fn floats<T: Lane + Float>(self, cx: &mut Lowering, comparison: Comparison, ftz: bool) -> Result<Decoded> {
        macro_rules! constant {
            ($($name:ident)+) => {
                match comparison {
                    $(Comparison::$name if ftz => self.decoded(cx, |a: T, b: T| compare(Comparison::$name, a.ftz(), b.ftz())),
                    Comparison::$name => self.decoded(cx, |a: T, b: T| compare(Comparison::$name, a, b)),)+
                }
            };
        }
        constant!(Eq Ne Lt Le Gt Ge Equ Neu Ltu Leu Gtu Geu Num Nan)
    }
}

fn setp(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let (name, op, ftz) = (modifiers.next(), modifiers.find(&BOOL_OP), modifiers.accept("ftz"));
    let ty = modifiers.last();
    let Some(comparison) = comparison(name, ty).filter(|_| !ftz || has_ftz(ty)) else { return Err(cx.unsupported(i)) };
    let (d, a, b, with) = match op {
        None => {
            let [d, a, b] = cx.operands(i)?;
            (d, a, b, None)
        }
        Some(op) => {
            let [d, a, b, c] = cx.operands(i)?;
            (d, a, b, Some((op, cx.pred(c)?)))
        }
    };
    let (p, q) = match d {
        Operand::Pair(p, q) => (some_predicate(cx, p)?, some_predicate(cx, q)?),
        p => (Some(cx.pred_dest(p)?), None),
    };
    let operands = Predicates { p, q, a, b, with };
    match ty {
        "f16" if ftz => {
            operands.decoded(cx, move |a, b| half::compare::<F16>(comparison, half::ftz::<F16>(a), half::ftz::<F16>(b)))
        }
        "f16" => operands.decoded(cx, move |a, b| half::compare::<F16>(comparison, a, b)),
        "bf16" => operands.decoded(cx, move |a, b| half::compare::<BF16>(comparison, a, b)),
        "f16x2" if ftz => operands.pair(cx, move |a, b| half::compare::<F16>(comparison, half::ftz::<F16>(a), half::ftz::<F16>(b))),
        "f16x2" => operands.pair(cx, move |a, b| half::compare::<F16>(comparison, a, b)),
        "bf16x2" => operands.pair(cx, move |a, b| half::compare::<BF16>(comparison, a, b)),
        "f32" => operands.floats::<f32>(cx, comparison, ftz),
        "f64" => operands.floats::<f64>(cx, comparison, false),
        _ => {
            typed!(cx, i, T = ty, [b16 b32 b64 u16 s16 u32 s32 u64 s64] => operands.ordered::<T>(cx, comparison))
        }
    }
}

/// A predicate to be written, or `_`.
fn some_predicate(cx: &mut Lowering, operand: &Operand) -> Result<Option<Pred>> {
    if *operand == Operand::Sink { Ok(None) } else { cx.pred_dest(operand).map(Some) }
}

/// `set`: the comparison as a value of type `D`.
struct SetValue<D, T, F> {
    d: Reg<D>,
    a: Reg<T>,
    b: Reg<T>,
    with: With,
    /// What stands for true; all bits zero stands for false.
    on: D,
    f: F,
}

impl<D: Lane, T: Lane, F: Fn(T, T) -> bool + Send + Sync> Execute for SetValue<D, T, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (cx.get(self.a), cx.get(self.b));
        let truth = conclude(cx, mask(|lane| (self.f)(a[lane], b[lane])), self.with);
        let value = each_lane(|lane| if truth >> lane & 1 == 1 { self.on } else { D::from_bits(0) });
        cx.set(self.d, &value);
        Flow::Next
    }
}

/// `set` on pairs: each half of the destination for its halves of the operands.
struct SetValues<F> {
    d: Reg<u32>,
    a: Reg<u32>,
    b: Reg<u32>,
    with: With,
    on: u16,
    f: F,
}

impl<F: Fn(u16, u16) -> bool + Send + Sync> Execute for SetValues<F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (cx.get(self.a), cx.get(self.b));
        let low = conclude(cx, mask(|lane| (self.f)(a[lane] as u16, b[lane] as u16)), self.with);
        let high = conclude(cx, mask(|lane| (self.f)((a[lane] >> 16) as u16, (b[lane] >> 16) as u16)), self.with);
        let half = |truth: Mask, lane: usize| if truth >> lane & 1 == 1 { u32::from(self.on) } else { 0 };
        let value = each_lane(|lane| half(low, lane) | half(high, lane) << 16);
        cx.set(self.d, &value);
        Flow::Next
    }
}

fn set(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let (name, op, ftz, to) = (modifiers.next(), modifiers.find(&BOOL_OP), modifiers.accept("ftz"), modifiers.next());
    let ty = modifiers.last();
    let Some(comparison) = comparison(name, ty).filter(|_| !ftz || has_ftz(ty)) else { return Err(cx.unsupported(i)) };
    let (d, a, b, with) = match op {
        None => {
            let [d, a, b] = cx.operands(i)?;
            (d, a, b, None)
        }
        Some(op) => {
            let [d, a, b, c] = cx.operands(i)?;
            (d, a, b, Some((op, cx.pred(c)?)))
        }
    };
    let flush = move |a: u16| if ftz { half::ftz::<F16>(a) } else { a };
    let f16 = move |a: u16, b: u16| half::compare::<F16>(comparison, flush(a), flush(b));
    let bf16 = move |a: u16, b: u16| half::compare::<BF16>(comparison, a, b);
    let on: u32 = match (to, ty) {
        ("u32" | "s32", "f16x2" | "bf16x2") => 0xffff,
        ("f16x2", "f16x2") => 0x3c00,
        ("bf16x2", "bf16x2") => 0x3f80,
        (_, "f16x2" | "bf16x2") => return Err(cx.unsupported(i)),
        ("u32" | "s32", _) => !0,
        ("f32", ty) if !matches!(ty, "f16" | "bf16") => 1f32.to_bits(),
        ("u16" | "s16", "f16" | "bf16") => 0xffff,
        ("f16", _) => 0x3c00,
        ("bf16", _) => 0x3f80,
        _ => return Err(cx.unsupported(i)),
    };
    macro_rules! pair {
        ($f:expr) => {{
            let (a, b, d) = (cx.source(a)?, cx.source(b)?, cx.dest(d)?);
            Decoded::new(Class::Move, SetValues { d, a, b, with, on: on as u16, f: $f })
        }};
    }
    macro_rules! single {
        ($T:ty, $f:expr) => {{
            let (a, b) = (cx.source::<$T>(a)?, cx.source::<$T>(b)?);
            if matches!(to, "u32" | "s32" | "f32") {
                Decoded::new(Class::Move, SetValue { d: cx.dest(d)?, a, b, with, on, f: $f })
            } else {
                Decoded::new(Class::Move, SetValue { d: cx.dest(d)?, a, b, with, on: on as u16, f: $f })
            }
        }};
    }
    match ty {
        "f16x2" => pair!(f16),
        "bf16x2" => pair!(bf16),
        "f16" => single!(u16, f16),
        "bf16" => single!(u16, bf16),
        "f32" if ftz => single!(f32, move |a: f32, b: f32| compare(comparison, a.ftz(), b.ftz())),
        _ => {
            typed!(cx, i, T = ty, [b16 b32 b64 u16 s16 u32 s32 u64 s64 f32 f64] => single!(T, move |a: T, b: T| compare(comparison, a, b)))
        }
    }
}

/// `d = c ? a : b`; only the chosen operand makes the result undefined, and the choice.
struct Select<T, C> {
    d: Reg<T>,
    a: Reg<T>,
    b: Reg<T>,
    /// The lanes that take `a`.
    c: C,
    /// Definedness id of what `c` reads.
    id: u32,
}

impl<T: Lane, C: Fn(&Cx) -> Mask + Send + Sync> Execute for Select<T, C> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let chosen = (self.c)(cx);
        if cx.checked() {
            let (a, b) = (cx.undefined(self.a.id), cx.undefined(self.b.id));
            let undefined = a & chosen | b & !chosen | cx.undefined(self.id);
            cx.set_undefined(self.d.id, undefined);
        }
        let (a, b) = (cx.get(self.a), cx.get(self.b));
        let value = each_lane(|lane| if chosen >> lane & 1 == 1 { a[lane] } else { b[lane] });
        cx.set(self.d, &value);
        Flow::Next
    }
}

fn selp(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let [d, a, b, c] = cx.operands(i)?;
    // Bits are moved: the widths alone matter.
    typed!(cx, i, T = untyped(Modifiers::new(i).last()), [b16 b32 b64] => {
        let (a, b, c, d) = (cx.source::<T>(a)?, cx.source(b)?, cx.pred(c)?, cx.dest(d)?);
        Ok(Decoded::new(Class::Move, Select { d, a, b, c: move |cx: &Cx| holds(cx, c), id: c.0.id })?.with_own_taint())
    })
}

fn slct(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let (ftz, ty) = (modifiers.accept("ftz"), modifiers.next());
    let [d, a, b, c] = cx.operands(i)?;
    typed!(cx, i, T = untyped(ty), [b16 b32 b64] => {
        let (a, b, d) = (cx.source::<T>(a)?, cx.source(b)?, cx.dest(d)?);
        let decoded = match modifiers.last() {
            "s32" if !ftz => {
                let c = cx.source::<i32>(c)?;
                let at_least_zero = move |cx: &Cx| {
                    let c = cx.get(c);
                    mask(|lane| c[lane] >= 0)
                };
                Decoded::new(Class::Move, Select { d, a, b, c: at_least_zero, id: c.id })
            }
            // A subnormal that is flushed is a zero, and so is -0: at least zero, both.
            "f32" => {
                let c = cx.source::<f32>(c)?;
                let flush = move |c: f32| if ftz { c.ftz() } else { c };
                let at_least_zero = move |cx: &Cx| {
                    let c = cx.get(c);
                    mask(|lane| flush(c[lane]) >= 0.0)
                };
                Decoded::new(Class::Move, Select { d, a, b, c: at_least_zero, id: c.id })
            }
            _ => Err(cx.unsupported(i)),
        };
        Ok(decoded?.with_own_taint())
    })
}

/// The untyped bits of a type of 16, 32 or 64 bits.
pub(super) fn untyped(ty: &str) -> &str {
    match ty {
        "u16" | "s16" => "b16",
        "u32" | "s32" | "f32" => "b32",
        "u64" | "s64" | "f64" => "b64",
        other => other,
    }
}
