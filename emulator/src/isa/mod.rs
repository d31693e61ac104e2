//! The instruction set, one file per family: how each instruction is decoded, and the code that executes it.
//!
//! A decoder matches the modifiers, takes its operands from [`Lowering`] and returns an operation. Whatever it does not match is
//! an error that names the instruction: nothing is guessed.

pub(crate) mod access;
mod address;
mod arithmetic;
mod barrier;
pub(crate) mod call;
mod compare;
mod control;
mod lanes;
mod matrix;
mod memory;
mod moves;
mod wgmma;

use crate::Result;
use crate::program::{Decoded, Lowering};
use crate::ptx::ast::Instruction;

/// The operation of one instruction.
pub(crate) fn decode(instruction: &Instruction, lowering: &mut Lowering) -> Result<Decoded> {
    let decoder = match instruction.opcode.as_str() {
        "mov" | "cvta" => moves::decode,
        "add" | "sub" | "mul" | "mad" | "fma" => arithmetic::decode,
        "setp" | "selp" => compare::decode,
        "ld" | "ldu" | "st" => memory::decode,
        "bra" | "ret" | "exit" | "trap" => control::decode,
        "call" => call::decode,
        "bar" | "barrier" => barrier::decode,
        "ldmatrix" | "stmatrix" | "movmatrix" | "mma" | "wmma" => matrix::decode,
        "wgmma" => wgmma::decode,
        _ => return Err(lowering.unsupported(instruction)),
    };
    decoder(instruction, lowering)
}

/// The modifiers as string slices, to match on.
fn modifiers(instruction: &Instruction) -> Vec<&str> {
    instruction.modifiers.iter().map(String::as_str).collect()
}
