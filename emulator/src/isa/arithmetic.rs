//! `add`, `sub`, `mul`, `mad`, `fma`.

use super::lanes::{binary, ternary};
use super::modifiers;
use crate::Result;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("add", ["s32" | "u32"]) => binary(cx, i, Class::Integer, u32::wrapping_add),
        ("add", ["s64" | "u64"]) => binary(cx, i, Class::Integer, u64::wrapping_add),
        ("sub", ["s32" | "u32"]) => binary(cx, i, Class::Integer, u32::wrapping_sub),
        ("add", ["f32"] | ["rn", "f32"]) => binary(cx, i, Class::Float, |a: f32, b: f32| a + b),
        ("mul", ["f32"] | ["rn", "f32"]) => binary(cx, i, Class::Float, |a: f32, b: f32| a * b),
        ("fma", ["rn", "f32"]) => ternary(cx, i, Class::Float, f32::mul_add),
        ("mad", ["lo", "s32" | "u32"]) => {
            ternary(cx, i, Class::Integer, |a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))
        }
        ("mul", ["lo", "s32" | "u32"]) => binary(cx, i, Class::Integer, u32::wrapping_mul),
        ("mul", ["wide", "s32"]) => binary(cx, i, Class::Integer, |a: i32, b: i32| i64::from(a) * i64::from(b)),
        ("mul", ["wide", "u32"]) => binary(cx, i, Class::Integer, |a: u32, b: u32| u64::from(a) * u64::from(b)),
        _ => Err(cx.unsupported(i)),
    }
}
