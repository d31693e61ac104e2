//! Follows one thread or one warp, instruction by instruction, with the values that it reads and writes: for learners.

use super::execute::{Cx, lanes_of};
use super::registers::{Bank, Lanes, Mask, WARP};
use super::worker::list;
use crate::program::{Instruction, RegisterName};
use crate::ptx::ast::Type;

/// Whom to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// `blockIdx`.
    pub block: [u32; 3],
    /// A thread of the block, or a whole warp.
    pub who: Followed,
    /// Lines after which the trace ends.
    pub max_lines: usize,
}

/// A thread or a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// `threadIdx`.
    Thread([u32; 3]),
    /// Number of the warp in its block.
    Warp(usize),
}

impl Trace {
    /// The lanes of a warp that are followed.
    pub(crate) fn lanes(&self, block: [u32; 3], warp: usize, threads: &[Lanes<u32>; 3]) -> Mask {
        if block != self.block {
            return 0;
        }
        match self.who {
            Followed::Warp(followed) => {
                if followed == warp {
                    !0
                } else {
                    0
                }
            }
            Followed::Thread(thread) => {
                (0..WARP).fold(0, |lanes, lane| lanes | u32::from(threads.map(|axis| axis[lane]) == thread) << lane)
            }
        }
    }
}

/// The values that an instruction is about to read, as text.
pub(crate) fn sources(cx: &Cx, instruction: &Instruction, names: &[RegisterName], lanes: Mask) -> String {
    values(cx, &instruction.reads, names, lanes & cx.active)
}

/// Adds a line to the trace: the instruction, what it read and what it has written.
pub(crate) fn line(cx: &mut Cx, instruction: &Instruction, names: &[RegisterName], lanes: Mask, sources: &str) {
    let max_lines = cx.launch.launch.trace.map_or(0, |trace| trace.max_lines);
    if cx.worker.trace.len() >= max_lines {
        return;
    }
    let place = match (&instruction.location, instruction.line) {
        (Some(at), _) => format!("{:>4}", at.line),
        (None, line) => format!("ptx {line}"),
    };
    let who = match lanes.count_ones() {
        1 => String::new(),
        _ => format!("[{}] ", list(cx.active & lanes)),
    };
    let mut text = format!("{place}  {who}{}", instruction.text);
    if cx.active & lanes == 0 {
        text += "   (not executed: its predicate is false)";
    } else {
        let written = values(cx, &instruction.writes, names, lanes & cx.active);
        if !written.is_empty() {
            text += &format!("   → {written}");
        }
        if !sources.is_empty() {
            text += &format!("   from {sources}");
        }
    }
    cx.worker.trace.push(text);
}

fn values(cx: &Cx, ids: &[u32], names: &[RegisterName], lanes: Mask) -> String {
    let mut parts = Vec::new();
    for &id in ids {
        // Immediates stand in the instruction's text.
        let Some(register) = names.get(id as usize).filter(|register| !register.name.is_empty()) else { continue };
        let each: Vec<String> = lanes_of(lanes).map(|lane| value(cx, register, id, lane)).collect();
        let same = each.iter().all(|value| Some(value) == each.first());
        let shown = if same { each.first().cloned().unwrap_or_default() } else { format!("{{{}}}", each.join(" ")) };
        parts.push(format!("{} = {shown}", register.name));
    }
    parts.join(", ")
}

fn value(cx: &Cx, register: &RegisterName, id: u32, lane: usize) -> String {
    let registers = &cx.warp.registers;
    if cx.checked() && registers.undefined(id) >> lane & 1 == 1 {
        return "undefined".into();
    }
    let bits = registers.bits(register.bank, register.index, lane);
    match (register.bank, register.ty) {
        (Bank::Predicate, _) => if bits & 1 == 1 { "true" } else { "false" }.into(),
        (_, Type::F32) => f32::from_bits(bits as u32).to_string(),
        (_, Type::F64) => f64::from_bits(bits).to_string(),
        (Bank::B16, _) => format!("{bits:#06x}"),
        (Bank::B32, _) => {
            if bits < 1 << 24 {
                bits.to_string()
            } else {
                format!("{} ({bits:#010x})", bits as i32)
            }
        }
        (Bank::B64, _) => {
            if bits < 1 << 24 {
                bits.to_string()
            } else {
                format!("{bits:#x}")
            }
        }
    }
}
