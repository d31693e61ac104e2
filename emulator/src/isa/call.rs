//! `call`: device functions of the module, directly or by address, and the few that the CUDA runtime provides.
//!
//! Arguments and results are `.param` variables: bytes of the caller's and of the callee's local memory, which a call copies.

use super::modifiers;
use super::print::{AssertFail, Print};
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Mask, Reg};
use crate::program::{Address, Class, Decoded, Function, Lowering, MAX_LOCAL, Program, Symbol, next_frame};
use crate::ptx::ast::{self, Operand};
use crate::{Error, Result};

/// What `mov.u64 %rd, function;` gives for the function of this number: no address of memory, but one that a call knows again.
pub(crate) fn function_address(number: u32) -> u64 {
    0xF000_0000_0000_0000 | u64::from(number)
}

/// A function that is declared but not defined: one that is called by its name for what it does, or an error.
pub(crate) fn external(
    cx: &mut Lowering,
    function: &ast::Function,
    parameters: Vec<(u32, u32)>,
    returns: Vec<(u32, u32)>,
    program: &mut Program,
) -> Result<Function> {
    if !matches!(function.name.as_str(), "vprintf" | "__assertfail") {
        return Err(Error::Invalid { line: function.line, message: missing(&function.name) });
    }
    // No call goes there.
    let entry = program.instructions.len() as u32;
    Ok(Function { name: function.name.clone(), entry, frame: cx.take_frame(), parameters, returns, registers: Vec::new() })
}

fn missing(name: &str) -> String {
    let reason = match name {
        "malloc" | "free" => "there is no heap on the emulated device: pass memory in",
        _ if name.starts_with("cuda") => "there is no CUDA runtime on the emulated device",
        _ => "it is declared but not defined",
    };
    format!("function `{name}`: {reason}")
}

/// Which function is called.
enum Callee {
    Known(u32),
    /// One of those listed, by address.
    ByAddress(Reg<u64>, Box<[(u64, u32)]>),
}

struct Call {
    callee: Callee,
    /// Where the caller's local memory begins, and how many bytes it has.
    frame: Reg<u64>,
    bytes: u32,
    /// Offsets in it and sizes.
    arguments: Box<[(u32, u32)]>,
    /// The same of the results; `None`: not wanted.
    results: Box<[Option<(u32, u32)>]>,
}

impl Call {
    /// The lanes that call the function which the first active lane calls, and its number if it is one.
    fn callee(&self, cx: &Cx) -> (Mask, Option<u32>) {
        match &self.callee {
            Callee::Known(function) => (cx.active, Some(*function)),
            Callee::ByAddress(register, functions) => {
                let address = cx.get(*register);
                let first = address[cx.active.trailing_zeros() as usize];
                let lanes = lanes_of(cx.active).filter(|&lane| address[lane] == first).fold(0, |lanes, lane| lanes | 1 << lane);
                (lanes, functions.iter().find(|(at, _)| *at == first).map(|(_, function)| *function))
            }
        }
    }

    /// Says that the first active lane cannot make the call.
    fn fail(&self, cx: &mut Cx, message: impl FnOnce() -> String) -> Flow {
        cx.report(Kind::InvalidOperation, cx.active.trailing_zeros() as usize, message);
        Flow::Stop
    }
}

impl Execute for Call {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let program = cx.launch.program;
        let (lanes, function) = self.callee(cx);
        let lane = lanes.trailing_zeros() as usize;
        let caller = cx.get(self.frame)[lane] as u32;
        let Some(function) = function else {
            return self.fail(cx, || "the address that is called is no function's".into());
        };
        let callee = &program.functions[function as usize];
        let frame = next_frame(caller, self.bytes);
        if cx.resumed {
            for (result, &(at, bytes)) in self.results.iter().zip(&callee.returns) {
                if let Some((to, _)) = result {
                    cx.warp.copy_local(lanes, (frame + at) as usize, (caller + to) as usize, bytes as usize);
                }
            }
            return Flow::Next;
        }
        let sizes = |list: &[(u32, u32)]| -> Vec<u32> { list.iter().map(|(_, bytes)| *bytes).collect() };
        let results = self.results.iter().zip(&callee.returns).all(|(result, (_, bytes))| result.is_none_or(|(_, b)| b == *bytes));
        if sizes(&self.arguments) != sizes(&callee.parameters) || self.results.len() != callee.returns.len() || !results {
            return self.fail(cx, || format!("`{}` has other parameters than the call gives it", callee.name));
        }
        if frame + callee.frame.local_bytes > MAX_LOCAL {
            return self.fail(cx, || format!("calls within calls need more than {MAX_LOCAL} bytes of local memory"));
        }
        cx.warp.open_local(frame, callee.frame.local_bytes, lanes);
        for (&(from, bytes), &(to, _)) in self.arguments.iter().zip(&callee.parameters) {
            cx.warp.copy_local(lanes, (caller + from) as usize, (frame + to) as usize, bytes as usize);
        }
        Flow::Call { lanes, function }
    }
}

pub(super) fn decode(i: &ast::Instruction, cx: &mut Lowering) -> Result<Decoded> {
    if !matches!(modifiers(i).as_slice(), [] | ["uni"]) {
        return Err(cx.unsupported(i));
    }
    let (results, rest): (&[Operand], _) = match i.operands.as_slice() {
        [Operand::Vector(results), rest @ ..] => (results, rest),
        rest => (&[], rest),
    };
    let (target, arguments): (_, &[Operand]) = match rest {
        [target] => (target, &[]),
        [target, Operand::Vector(arguments)] => (target, arguments),
        // What a prototype or list of targets says is checked when the call is made.
        [target, Operand::Vector(arguments), Operand::Name(_)] => (target, arguments),
        [target, Operand::Name(_)] => (target, &[]),
        _ => return Err(cx.unsupported(i)),
    };
    let results: Vec<_> = results.iter().map(|result| cx.passed(result)).collect::<Result<_>>()?;
    let mut passed = Vec::new();
    for argument in arguments {
        passed.push(cx.passed(argument)?.ok_or_else(|| cx.invalid("`_` cannot be passed"))?);
    }
    let known = match target {
        Operand::Name(name) => match cx.symbol(name)? {
            Symbol::Function(function) => Some(*function),
            _ => None,
        },
        _ => return Err(cx.unsupported(i)),
    };
    let callee = match known {
        None => Callee::ByAddress(cx.critical(target)?, cx.callable().into()),
        Some(function) => {
            let declared = cx.declaration(function);
            if declared.body.is_none() {
                return provided(cx, i, &declared.name, &passed, &results);
            }
            if declared.is_kernel {
                return Err(cx.refused(i, "a kernel cannot be called"));
            }
            if (declared.parameters.len(), declared.returns.len()) != (passed.len(), results.len()) {
                return Err(cx.invalid(format!("`{}` takes other parameters than it is given", declared.name)));
            }
            Callee::Known(function)
        }
    };
    let frame = cx.address_register(Address::Local { offset: 0 });
    let (arguments, results) = (passed.into(), results.into());
    Decoded::new(Class::Control, Call { callee, frame, bytes: cx.local_bytes(), arguments, results })
}

/// Functions of the CUDA runtime.
fn provided(
    cx: &mut Lowering,
    i: &ast::Instruction,
    name: &str,
    arguments: &[(u32, u32)],
    results: &[Option<(u32, u32)>],
) -> Result<Decoded> {
    let mut at = |(offset, _): (u32, u32)| cx.address_register(Address::Local { offset: i64::from(offset) });
    match (name, arguments, results) {
        ("vprintf", [format @ (_, 8), values @ (_, 8)], [] | [None] | [Some((_, 4))]) => {
            let (format, values) = (at(*format), at(*values));
            let result = results.first().copied().flatten().map(at);
            Ok(Decoded::new(Class::Control, Print { format, values, result })?.with_own_taint())
        }
        ("__assertfail", [message @ (_, 8), file @ (_, 8), line @ (_, 4), function @ (_, 8), (_, 8)], []) => {
            let op = AssertFail { message: at(*message), file: at(*file), line: at(*line), function: at(*function) };
            Decoded::new(Class::Control, op)
        }
        _ => Err(cx.refused(i, &missing(name))),
    }
}
