//! The instruction set, one file per family: how each instruction is decoded, and the code that executes it.
//!
//! A decoder matches the modifiers, takes its operands from [`Lowering`] and returns an operation. Whatever it does not match is
//! an error that names the instruction: nothing is guessed.

#[macro_use]
mod modifiers;

pub(crate) mod access;
mod address;
mod atomic;
mod barrier;
mod bits;
mod bulk;
pub(crate) mod bulk_group;
mod bulk_move;
pub(crate) mod call;
mod cluster;
mod compare;
mod control;
mod convert;
pub(crate) mod cp_async;
mod distributed;
mod fence;
mod float;
mod half;
mod integer;
mod lanes;
mod matrix;
pub(crate) mod mbarrier;
mod memory;
mod misc;
mod moves;
mod prefetch;
mod print;
mod reduction;
mod store_async;
mod tensor_copy;
mod warp;
pub(crate) mod wgmma;

use crate::Result;
use crate::program::{Decoded, Lowering};
use crate::ptx::ast::Instruction;

/// The operation of one instruction.
pub(crate) fn decode(instruction: &Instruction, lowering: &mut Lowering) -> Result<Decoded> {
    let decoder: Decoder = match instruction.opcode.as_str() {
        "mov" | "cvta" | "isspacep" => moves::decode,
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs" | "neg" => arithmetic(instruction),
        "addc" | "subc" | "madc" | "mul24" | "mad24" | "sad" | "dp4a" | "dp2a" | "vabsdiff4" => integer::decode,
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" | "testp" => arithmetic(instruction),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "popc" | "clz" | "brev" | "bfind" | "bfe"
        | "bfi" | "bmsk" | "szext" | "fns" | "prmt" => bits::decode,
        "setp" | "set" | "selp" | "slct" => compare::decode,
        "cvt" => convert::decode,
        "st" | "red" if instruction.modifiers.first().is_some_and(|first| first == "async") => store_async::decode,
        "ld" | "ldu" | "st" => memory::decode,
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" => control::decode,
        "nanosleep" | "pmevent" | "setmaxnreg" | "griddepcontrol" => misc::decode,
        "shfl" | "vote" | "activemask" | "match" | "redux" | "elect" => warp::decode,
        "atom" | "red" => atomic::decode,
        "mbarrier" => mbarrier::decode,
        "cp" => cp_async::decode,
        "mapa" | "getctarank" => distributed::decode,
        "prefetch" | "prefetchu" | "applypriority" | "discard" | "createpolicy" => prefetch::decode,
        "call" => call::decode,
        "bar" | "barrier" => barrier::decode,
        "ldmatrix" | "stmatrix" | "movmatrix" | "mma" | "wmma" => matrix::decode,
        "wgmma" => wgmma::decode,
        "membar" | "fence" => fence::decode,
        _ => return Err(lowering.unsupported(instruction)),
    };
    decoder(instruction, lowering)
}

type Decoder = fn(&Instruction, &mut Lowering) -> Result<Decoded>;

/// The family of an arithmetic instruction, by its type.
fn arithmetic(instruction: &Instruction) -> Decoder {
    match instruction.modifiers.last().map(String::as_str) {
        Some("f32" | "f64") => float::decode,
        Some("f16" | "f16x2" | "bf16" | "bf16x2") => half::decode,
        _ => integer::decode,
    }
}

/// The modifiers as string slices, to match on.
fn modifiers(instruction: &Instruction) -> Vec<&str> {
    instruction.modifiers.iter().map(String::as_str).collect()
}
