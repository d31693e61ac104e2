//! Hints to the caches: `prefetch`, `prefetchu`, `applypriority`, `discard`, `createpolicy`. There are no caches here, so that
//! nothing happens; what `discard` gives up is undefined from then on.

use super::address::{AddressOperand, Target};
use super::{modifiers, tensor_copy};
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Reg, WARP};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

/// Bytes that `applypriority` and `discard` speak of, and their alignment.
const LINE: u32 = 128;

struct Nothing;

impl Execute for Nothing {
    fn execute(&self, _: &mut Cx) -> Flow {
        Flow::Next
    }
}

/// A line of global memory that must exist.
struct Line {
    address: AddressOperand,
    discards: bool,
}

impl Execute for Line {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let addresses = self.address.addresses(cx);
        for lane in lanes_of(cx.active) {
            if !cx.is_aligned_to(lane, addresses[lane], LINE) {
                continue;
            }
            if let Some((allocation, offset)) = cx.global_position(lane, addresses[lane], LINE)
                && self.discards
            {
                cx.launch.memory.get(allocation).define(offset, LINE.into(), false);
            }
        }
        Flow::Next
    }
}

/// A cache policy: an opaque number that is only ever handed on.
struct Policy {
    d: Reg<u64>,
}

impl Execute for Policy {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.set(self.d, &[0; WARP]);
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    const PRIORITIES: [&str; 4] = ["L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged"];
    let is_priority = |modifier: &str| PRIORITIES.contains(&modifier);
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("prefetch", ["tensormap"]) => tensor_copy::decode_prefetch_map(i, cx, Target::Generic),
        ("prefetch", ["param", "tensormap"]) => tensor_copy::decode_prefetch_map(i, cx, Target::Argument),
        ("prefetch", ["const", "tensormap"]) => tensor_copy::decode_prefetch_map(i, cx, Target::Global),
        ("prefetch", ["global" | "local", "L1" | "L2"] | ["L1" | "L2"])
        | ("prefetch", ["global", "L2::evict_last" | "L2::evict_normal"])
        | ("prefetchu", ["L1"]) => {
            let [address] = cx.operands(i)?;
            // A prefetch may go past the end: nobody reads what it brings.
            AddressOperand::new(cx, address, Target::Generic)?;
            Decoded::new(Class::Global, Nothing)
        }
        (opcode @ ("applypriority" | "discard"), ["global", level] | [level]) => {
            let wanted = if opcode == "discard" { "L2" } else { "L2::evict_normal" };
            let [address, Operand::Integer(128)] = cx.operands(i)? else { return Err(cx.unsupported(i)) };
            if *level != wanted {
                return Err(cx.unsupported(i));
            }
            let (address, _) = AddressOperand::new(cx, address, Target::Global)?;
            Decoded::new(Class::Global, Line { address, discards: opcode == "discard" })
        }
        ("createpolicy", ["fractional", primary, "b64"]) if is_priority(primary) => policy(i, cx),
        ("createpolicy", ["fractional", primary, second, "b64"]) if is_priority(primary) && is_priority(second) => policy(i, cx),
        ("createpolicy", ["range", "global", primary, "b64"]) | ("createpolicy", ["range", primary, "b64"])
            if is_priority(primary) =>
        {
            policy(i, cx)
        }
        ("createpolicy", ["range", "global", primary, second, "b64"]) | ("createpolicy", ["range", primary, second, "b64"])
            if is_priority(primary) && is_priority(second) =>
        {
            policy(i, cx)
        }
        ("createpolicy", ["cvt", "L2", "b64"]) => policy(i, cx),
        _ => Err(cx.unsupported(i)),
    }
}

/// Whatever the policy is made from must be declared, and is not looked at.
fn policy(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let Some((d, sources)) = i.operands.split_first() else { return Err(cx.unsupported(i)) };
    for source in sources {
        match source {
            Operand::Address { .. } => {
                AddressOperand::new(cx, source, Target::Global)?;
            }
            Operand::Name(_) => {
                let (_, _, _, id) = cx.any_register(source)?;
                cx.note_read(id);
            }
            _ => {}
        }
    }
    let d = cx.dest(d)?;
    Decoded::new(Class::Integer, Policy { d })
}
