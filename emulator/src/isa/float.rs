//! f32 and f64: arithmetic in every rounding, `min`, `max`, signs, `testp`, and the approximations.

use super::lanes::{binary, mask, ternary, unary};
use super::modifiers::Modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Lane, Pred, Reg};
use crate::numeric::compare::{self, Property, testp};
use crate::numeric::exact::Rounding;
use crate::numeric::float::{Float, sat};
use crate::numeric::{approximate, round};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

/// `.rnd`, `.ftz` and `.sat` of an instruction.
#[derive(Debug, Clone, Copy)]
struct Mode {
    rounding: Rounding,
    ftz: bool,
    sat: bool,
}

impl Mode {
    #[inline(always)]
    fn operand<F: Float>(self, a: F) -> F {
        if self.ftz { a.ftz() } else { a }
    }

    #[inline(always)]
    fn result<F: Float>(self, d: F) -> F {
        let d = if self.ftz { d.ftz() } else { d };
        if self.sat { sat(d) } else { d }
    }
}

/// Decodes one of the functions of `round` with constant modes where speed matters.
macro_rules! rounded {
    ($decode:ident, $cx:ident, $i:ident, $class:expr, $F:ty, $mode:expr, $function:path, ($($a:ident),+)) => {{
        use Rounding::Nearest;
        match $mode {
            Mode { rounding: Nearest, ftz: false, sat: false } => $decode($cx, $i, $class, |$($a: $F),+| $function(Nearest, $($a),+)),
            Mode { rounding: Nearest, ftz: true, sat: false } => {
                $decode($cx, $i, $class, |$($a: $F),+| $function(Nearest, $($a.ftz()),+).ftz())
            }
            mode => {
                $decode($cx, $i, $class, move |$($a: $F),+| mode.result($function(mode.rounding, $(mode.operand($a)),+)))
            }
        }
    }};
}

/// The same for both types: `.ftz` and `.sat` on f32 only.
macro_rules! both {
    ($decode:ident, $cx:ident, $i:ident, $class:expr, $ty:expr, $mode:expr, $function:path, $operands:tt) => {
        match ($ty, $mode) {
            ("f32", mode) => rounded!($decode, $cx, $i, $class, f32, mode, $function, $operands),
            ("f64", mode @ Mode { ftz: false, sat: false, .. }) => {
                rounded!($decode, $cx, $i, Class::Double, f64, mode, $function, $operands)
            }
            _ => Err($cx.unsupported($i)),
        }
    };
}

/// Decodes a function of f32, its operands and result flushed if `ftz`.
macro_rules! flushed {
    ($decode:ident, $cx:ident, $i:ident, $class:expr, $ftz:expr, $function:expr, ($($a:ident),+)) => {
        if $ftz {
            $decode($cx, $i, $class, |$($a: f32),+| $function($($a.ftz()),+).ftz())
        } else {
            $decode($cx, $i, $class, |$($a: f32),+| $function($($a),+))
        }
    };
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match i.opcode.as_str() {
        "add" | "sub" | "mul" | "fma" | "mad" => arithmetic(i, cx),
        "div" | "rcp" | "sqrt" => division(i, cx),
        "min" | "max" => extremum(i, cx),
        "abs" | "neg" => sign(i, cx),
        "copysign" => match Modifiers::new(i).last() {
            "f32" => binary(cx, i, Class::Float, compare::copysign::<f32>),
            "f64" => binary(cx, i, Class::Double, compare::copysign::<f64>),
            _ => Err(cx.unsupported(i)),
        },
        "testp" => test(i, cx),
        _ => approximation(i, cx),
    }
}

fn arithmetic(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let rounding = match (modifiers.rounding(), i.opcode.as_str()) {
        (Some(rounding), _) => rounding,
        (None, "add" | "sub" | "mul") => Rounding::Nearest,
        _ => return Err(cx.unsupported(i)),
    };
    let mode = Mode { rounding, ftz: modifiers.accept("ftz"), sat: modifiers.accept("sat") };
    match i.opcode.as_str() {
        "add" => both!(binary, cx, i, Class::Float, modifiers.last(), mode, round::add, (a, b)),
        "sub" => both!(binary, cx, i, Class::Float, modifiers.last(), mode, round::sub, (a, b)),
        "mul" => both!(binary, cx, i, Class::Float, modifiers.last(), mode, round::mul, (a, b)),
        _ => match (modifiers.last(), mode) {
            ("f32", Mode { rounding: Rounding::Down, ftz, sat: false }) => {
                flushed!(ternary, cx, i, Class::Float, ftz, fma_down, (a, b, c))
            }
            (ty, mode) => both!(ternary, cx, i, Class::Float, ty, mode, round::fma, (a, b, c)),
        },
    }
}

/// With a constant mode, for `expf` begins with it.
#[inline(always)]
fn fma_down(a: f32, b: f32, c: f32) -> f32 {
    round::fma(Rounding::Down, a, b, c)
}

/// `div`, `rcp`, `sqrt`: rounded or approximate.
fn division(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    const CLASS: Class = Class::Special;
    let mut modifiers = Modifiers::new(i);
    let opcode = i.opcode.as_str();
    if let Some(rounding) = modifiers.rounding() {
        let mode = Mode { rounding, ftz: modifiers.accept("ftz"), sat: false };
        return match opcode {
            "div" => both!(binary, cx, i, CLASS, modifiers.last(), mode, round::div, (a, b)),
            "rcp" => both!(unary, cx, i, CLASS, modifiers.last(), mode, round::rcp, (a)),
            _ => both!(unary, cx, i, CLASS, modifiers.last(), mode, round::sqrt, (a)),
        };
    }
    let way = modifiers.next();
    let ftz = modifiers.accept("ftz");
    match (opcode, way, modifiers.last()) {
        ("div", "approx", "f32") => flushed!(binary, cx, i, CLASS, ftz, approximate::div, (a, b)),
        ("div", "full", "f32") => flushed!(binary, cx, i, CLASS, ftz, approximate::div_full, (a, b)),
        ("rcp", "approx", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::rcp, (a)),
        ("rcp", "approx", "f64") if ftz => unary(cx, i, CLASS, approximate::rcp_coarse),
        ("sqrt", "approx", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::sqrt, (a)),
        _ => Err(cx.unsupported(i)),
    }
}

/// `rsqrt`, `sin`, `cos`, `lg2`, `ex2`, `tanh`.
fn approximation(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    const CLASS: Class = Class::Special;
    let mut modifiers = Modifiers::new(i);
    if !modifiers.accept("approx") {
        return Err(cx.unsupported(i));
    }
    let ftz = modifiers.accept("ftz");
    match (i.opcode.as_str(), modifiers.last()) {
        ("rsqrt", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::rsqrt, (a)),
        ("rsqrt", "f64") if ftz => unary(cx, i, CLASS, approximate::rsqrt_coarse),
        ("rsqrt", "f64") => unary(cx, i, CLASS, approximate::rsqrt_f64),
        ("sin", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::sin, (a)),
        ("cos", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::cos, (a)),
        ("lg2", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::lg2, (a)),
        ("ex2", "f32") => flushed!(unary, cx, i, CLASS, ftz, approximate::ex2, (a)),
        ("tanh", "f32") if !ftz => unary(cx, i, CLASS, approximate::tanh),
        _ => Err(cx.unsupported(i)),
    }
}

/// `min` and `max`.
fn extremum(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let (ftz, nan) = (modifiers.accept("ftz"), modifiers.accept("NaN"));
    let xorsign = modifiers.accept("xorsign");
    if xorsign && !modifiers.accept("abs") {
        return Err(cx.unsupported(i));
    }
    macro_rules! decode {
        ($function:path) => {
            match modifiers.last() {
                "f32" if xorsign => {
                    flushed!(binary, cx, i, Class::Float, ftz, |a, b| compare::xorsign_abs($function, a, b), (a, b))
                }
                "f32" => flushed!(binary, cx, i, Class::Float, ftz, $function, (a, b)),
                "f64" if !(ftz || nan || xorsign) => binary(cx, i, Class::Double, $function as fn(f64, f64) -> f64),
                _ => Err(cx.unsupported(i)),
            }
        };
    }
    match (i.opcode.as_str(), nan) {
        ("min", false) => decode!(compare::min),
        ("min", true) => decode!(compare::min_nan),
        (_, false) => decode!(compare::max),
        (_, true) => decode!(compare::max_nan),
    }
}

fn sign(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let ftz = modifiers.accept("ftz");
    match (i.opcode.as_str(), modifiers.last()) {
        ("abs", "f32") => flushed!(unary, cx, i, Class::Float, ftz, compare::abs, (a)),
        ("neg", "f32") => flushed!(unary, cx, i, Class::Float, ftz, compare::neg, (a)),
        ("abs", "f64") if !ftz => unary(cx, i, Class::Double, compare::abs::<f64>),
        ("neg", "f64") if !ftz => unary(cx, i, Class::Double, compare::neg::<f64>),
        _ => Err(cx.unsupported(i)),
    }
}

/// `testp.property.type p, a;`
struct Test<T> {
    p: Pred,
    a: Reg<T>,
    property: Property,
}

impl<T: Lane + Float> Execute for Test<T> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = *cx.get(self.a);
        cx.set_predicate(self.p, mask(|lane| testp(self.property, a[lane])));
        Flow::Next
    }
}

fn test(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let property = modifiers.find(&[
        ("finite", Property::Finite),
        ("infinite", Property::Infinite),
        ("number", Property::Number),
        ("notanumber", Property::NotANumber),
        ("normal", Property::Normal),
        ("subnormal", Property::Subnormal),
    ]);
    let Some(property) = property else { return Err(cx.unsupported(i)) };
    let [p, a] = cx.operands(i)?;
    match modifiers.last() {
        "f32" => {
            let (a, p) = (cx.source::<f32>(a)?, cx.pred_dest(p)?);
            Decoded::new(Class::Float, Test { p, a, property })
        }
        "f64" => {
            let (a, p) = (cx.source::<f64>(a)?, cx.pred_dest(p)?);
            Decoded::new(Class::Double, Test { p, a, property })
        }
        _ => Err(cx.unsupported(i)),
    }
}
