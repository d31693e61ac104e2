//! `call`: device functions of the module, and the few that the CUDA runtime provides.

use crate::Result;
use crate::program::{Decoded, Function, Lowering, Program};
use crate::ptx::ast;

/// What `mov.u64 %rd, function;` gives: no address of memory, but a number that a call knows again.
pub(crate) fn function_address(index: u32) -> u64 {
    0xF000_0000_0000_0000 | u64::from(index)
}

/// The code of a function that is declared but not defined.
pub(crate) fn external(
    cx: &mut Lowering,
    function: &ast::Function,
    _parameters: Vec<(u32, u32)>,
    _returns: Vec<(u32, u32)>,
    _program: &mut Program,
) -> Result<Function> {
    Err(cx.invalid(format!("function `{}` is declared but not defined", function.name)))
}

pub(super) fn decode(i: &ast::Instruction, cx: &mut Lowering) -> Result<Decoded> {
    Err(cx.unsupported(i))
}
