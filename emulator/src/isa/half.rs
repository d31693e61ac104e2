//! f16 and bf16, alone and in pairs: arithmetic, `min`, `max`, signs, `ex2`, `tanh`.

use super::lanes::{binary, ternary, unary};
use super::modifiers::Modifiers;
use crate::Result;
use crate::numeric::exact::Format;
use crate::numeric::half_precision::{self as half, BF16, F16, Half};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match i.modifiers.last().map(String::as_str) {
        Some("f16" | "f16x2") => family::<F16>(i, cx),
        Some("bf16" | "bf16x2") => family::<BF16>(i, cx),
        _ => Err(cx.unsupported(i)),
    }
}

/// `.ftz`, `.sat` and `.relu` of an instruction.
#[derive(Debug, Clone, Copy)]
struct Mode {
    ftz: bool,
    sat: bool,
    relu: bool,
}

impl Mode {
    #[inline(always)]
    fn operand<H: Half>(self, a: u16) -> u16 {
        if self.ftz { half::ftz::<H>(a) } else { a }
    }

    #[inline(always)]
    fn result<H: Half>(self, d: u16) -> u16 {
        let d = if self.ftz { half::ftz::<H>(d) } else { d };
        let d = if self.sat { half::sat::<H>(d) } else { d };
        if self.relu { half::relu::<H>(d) } else { d }
    }
}

/// Decodes a function of one half each, for a pair too.
macro_rules! on_halves {
    ($decode:ident, $wide:ident, $cx:ident, $i:ident, $class:expr, |$($a:ident),+| $value:expr) => {
        if $i.modifiers.last().is_some_and(|ty| ty.ends_with("x2")) {
            $decode($cx, $i, $class, move |$($a: u32),+| half::$wide(|$($a: u16),+| $value, $($a),+))
        } else {
            $decode($cx, $i, $class, move |$($a: u16),+| $value)
        }
    };
}

fn family<H: Half + 'static>(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    let is_f16 = H::FORMAT == Format::F16;
    let opcode = i.opcode.as_str();
    let arithmetic = matches!(opcode, "add" | "sub" | "mul" | "fma");
    let rounded = arithmetic && modifiers.accept("rn");
    let approximate = matches!(opcode, "ex2" | "tanh") && modifiers.accept("approx");
    let ftz = modifiers.accept("ftz");
    let (sat, relu) = (arithmetic && modifiers.accept("sat"), opcode == "fma" && modifiers.accept("relu"));
    let mode = Mode { ftz, sat, relu };
    let extremum = matches!(opcode, "min" | "max");
    let (nan, xorsign) = (extremum && modifiers.accept("NaN"), extremum && modifiers.accept("xorsign"));
    if xorsign && !modifiers.accept("abs") {
        return Err(cx.unsupported(i));
    }
    let flushing = match opcode {
        "ex2" => ftz != is_f16,
        "tanh" => !ftz,
        _ => is_f16 || !(ftz || sat),
    };
    if modifiers.last().is_empty() || !flushing || sat && relu {
        return Err(cx.unsupported(i));
    }
    let plain = !(ftz || sat || relu);
    const CLASS: Class = Class::Float;
    macro_rules! binary {
        ($function:expr) => {
            if plain {
                on_halves!(binary, x2, cx, i, CLASS, |a, b| $function(a, b))
            } else {
                on_halves!(binary, x2, cx, i, CLASS, |a, b| mode.result::<H>($function(mode.operand::<H>(a), mode.operand::<H>(b))))
            }
        };
    }
    macro_rules! extremum {
        ($function:path) => {
            if xorsign { binary!(|a, b| half::xorsign_abs::<H>($function, a, b)) } else { binary!($function) }
        };
    }
    match (opcode, nan) {
        ("add", _) => binary!(half::add::<H>),
        ("sub", _) => binary!(half::sub::<H>),
        ("mul", _) => binary!(half::mul::<H>),
        ("fma", _) if rounded && plain => on_halves!(ternary, x2_ternary, cx, i, CLASS, |a, b, c| half::fma::<H>(a, b, c)),
        ("fma", _) if rounded => on_halves!(ternary, x2_ternary, cx, i, CLASS, |a, b, c| {
            mode.result::<H>(half::fma::<H>(mode.operand::<H>(a), mode.operand::<H>(b), mode.operand::<H>(c)))
        }),
        ("min", false) => extremum!(half::min::<H>),
        ("min", true) => extremum!(half::min_nan::<H>),
        ("max", false) => extremum!(half::max::<H>),
        ("max", true) => extremum!(half::max_nan::<H>),
        ("abs", _) => on_halves!(unary, x2_unary, cx, i, CLASS, |a| half::abs(mode.operand::<H>(a))),
        ("neg", _) => on_halves!(unary, x2_unary, cx, i, CLASS, |a| half::neg(mode.operand::<H>(a))),
        ("ex2", _) if approximate => {
            on_halves!(unary, x2_unary, cx, i, Class::Special, |a| mode.result::<H>(half::ex2::<H>(mode.operand::<H>(a))))
        }
        ("tanh", _) if approximate => on_halves!(unary, x2_unary, cx, i, Class::Special, |a| half::tanh::<H>(a)),
        _ => Err(cx.unsupported(i)),
    }
}
