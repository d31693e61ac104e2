//! `mov`, `cvta`.

use super::lanes::unary;
use super::modifiers;
use crate::Result;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("mov", ["b32" | "u32" | "s32" | "f32"]) => unary(cx, i, Class::Move, |a: u32| a),
        ("mov", ["b64" | "u64" | "s64" | "f64"]) => unary(cx, i, Class::Move, |a: u64| a),
        ("cvta", ["to", "global" | "const", "u64"] | ["global" | "const", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a),
        ("cvta", ["to", "shared", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a.wrapping_sub(SHARED_WINDOW)),
        ("cvta", ["shared", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a.wrapping_add(SHARED_WINDOW)),
        ("cvta", ["to", "local", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a.wrapping_sub(LOCAL_WINDOW)),
        ("cvta", ["local", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a.wrapping_add(LOCAL_WINDOW)),
        ("cvta", ["to", "param", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a.wrapping_sub(PARAM_WINDOW)),
        ("cvta", ["param", "u64"]) => unary(cx, i, Class::Integer, |a: u64| a.wrapping_add(PARAM_WINDOW)),
        _ => Err(cx.unsupported(i)),
    }
}
