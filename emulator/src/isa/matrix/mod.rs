//! The matrix units at a warp's service: 8 × 8 matrices between registers and shared memory (`ldmatrix`, `stmatrix`,
//! `movmatrix`), and products of matrices in registers (`mma`, `wmma`). The layouts are those of [`crate::tensor`].

mod fragments;
mod moves;
mod product;

use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lane, Reg};
use crate::machine::worker::list;
use crate::program::{Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

pub(super) use product::count_flops;

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), i.modifiers.first().map(String::as_str)) {
        ("ldmatrix" | "stmatrix" | "movmatrix", _) => moves::decode(i, cx),
        ("wmma", Some("load" | "store")) => fragments::decode(i, cx),
        _ => product::decode(i, cx),
    }
}

/// `m16n8k16` as (16, 8, 16).
pub(super) fn shape(text: &str) -> Option<(usize, usize, usize)> {
    let (m, rest) = text.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

/// The registers of a fragment that is read: exactly `count` of them.
pub(super) fn sources<T: Lane>(cx: &mut Lowering, operand: &Operand, count: usize, what: &str) -> Result<Vec<Reg<T>>> {
    counted(cx, operand, count, what)?.iter().map(|register| cx.source(register)).collect()
}

/// The registers of a fragment that is written: exactly `count` of them.
pub(super) fn dests<T: Lane>(cx: &mut Lowering, operand: &Operand, count: usize, what: &str) -> Result<Vec<Reg<T>>> {
    counted(cx, operand, count, what)?.iter().map(|register| cx.dest(register)).collect()
}

fn counted<'i>(cx: &Lowering, operand: &'i Operand, count: usize, what: &str) -> Result<&'i [Operand]> {
    let registers = cx.components(operand);
    if registers.len() != count {
        return Err(cx.invalid(format!("{what} takes {count} registers, not {}", registers.len())));
    }
    Ok(registers)
}

/// The matrix units need all 32 lanes; a finding if some have ended or never were.
#[inline(always)]
pub(super) fn expect_whole_warp(cx: &mut Cx) {
    let missing = !cx.active;
    if missing != 0 && cx.checked() {
        let lane = lanes_of(cx.active).next().unwrap_or(0);
        cx.report(Kind::MissingLanes, lane, || {
            format!("all 32 lanes of a warp must execute this; lanes {} have ended or do not exist", list(missing))
        });
    }
}
