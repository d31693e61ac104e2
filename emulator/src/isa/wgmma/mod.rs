//! `wgmma`: products of a warpgroup with operands in shared memory, executed asynchronously (ISA 9.7.15).
//!
//! Each warp computes its 16 rows of D when it comes to the instruction; that the result is not there before it has been waited
//! for is kept account of in [`crate::check::products`].

mod multiply;
mod warpgroup;

pub(crate) use warpgroup::{Warpgroup, wake};

use super::matrix::{dests, shape, sources};
use super::modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::Reg;
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::{Instruction, Operand};
use crate::tensor::descriptor::Major;
use crate::tensor::element::{Accumulator, Multiplicand};
use crate::tensor::mma::Mma;
use multiply::{Multiply, Source};

/// `wgmma.fence`
struct Fence;

/// `wgmma.commit_group`
struct Commit;

/// `wgmma.wait_group`
struct Wait {
    pending: u64,
}

impl Execute for Fence {
    fn execute(&self, cx: &mut Cx) -> Flow {
        if cx.checked() {
            cx.fence_products();
        }
        Flow::Next
    }
}

impl Execute for Commit {
    fn execute(&self, cx: &mut Cx) -> Flow {
        if cx.checked() {
            cx.commit_products();
        }
        cx.commit_group();
        Flow::Next
    }
}

impl Execute for Wait {
    fn execute(&self, cx: &mut Cx) -> Flow {
        if !cx.groups_are_complete(self.pending) {
            return Flow::Wait;
        }
        if cx.checked() {
            cx.wait_for_products(self.pending);
        }
        // The lanes wait for each other here, so that one of them can tell others that all are done with their operands.
        cx.meet(cx.active);
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    if !cx.target.starts_with("sm_90a") {
        return Err(cx.refused(i, &format!("wgmma needs .target sm_90a, not {}", cx.target)));
    }
    let modifiers = modifiers(i);
    let decoded = match (modifiers.as_slice(), i.operands.as_slice()) {
        (["fence", "sync", "aligned"], []) => Decoded::new(Class::Barrier, Fence),
        (["commit_group", "sync", "aligned"], []) => Decoded::new(Class::Barrier, Commit),
        (["wait_group", "sync", "aligned"], [Operand::Integer(pending)]) => {
            Decoded::new(Class::Barrier, Wait { pending: *pending })
        }
        (["mma_async", "sync", "aligned", extent, "satfinite", d, a, b], _) => product(i, cx, extent, [d, a, b], true),
        (["mma_async", "sync", "aligned", extent, d, a, b], _) => product(i, cx, extent, [d, a, b], false),
        _ => Err(cx.unsupported(i)),
    };
    Ok(decoded?.meeting(Meeting::Warp))
}

fn product(i: &Instruction, cx: &mut Lowering, extent: &str, [d, a, b]: [&str; 3], saturate: bool) -> Result<Decoded> {
    let element = |name| Multiplicand::from_name(name).ok_or_else(|| cx.unsupported(i));
    let (a, b, d) = (element(a)?, element(b)?, Accumulator::from_name(d).ok_or_else(|| cx.unsupported(i))?);
    let (m, n, k) = shape(extent).ok_or_else(|| cx.unsupported(i))?;
    let mma = Mma::wgmma(n, a, b, d).and_then(|mma| if saturate { mma.saturating() } else { Ok(mma) });
    let mma = mma.map_err(|reason| cx.refused(i, &reason))?;
    if m != 64 || k != mma.shape().2 {
        return Err(cx.refused(i, &format!("wgmma of {a:?} has the shape m64n{n}k{}", mma.shape().2)));
    }
    let [registers_d, source_a, descriptor_b, scale_d, immediates @ ..] = i.operands.as_slice() else {
        return Err(cx.unsupported(i));
    };
    let in_registers = matches!(source_a, Operand::Vector(_));
    let numbers = immediates.iter().map(|operand| match operand {
        Operand::Integer(bits) => Ok(*bits as i64),
        _ => Err(cx.invalid(format!("`{operand}` must be an immediate number"))),
    });
    let numbers: Vec<i64> = numbers.collect::<Result<_>>()?;
    // Integers have neither scales nor transposition, other types than the 16-bit floats no transposition, and A in registers none.
    let (scales, transpositions) = match (numbers.as_slice(), a.is_integer(), a.bits(), in_registers) {
        ([], true, ..) => ((1, 1), (0, 0)),
        (&[x, y], false, 8 | 32, _) => ((x, y), (0, 0)),
        (&[x, y, b], false, 16, true) => ((x, y), (0, b)),
        (&[x, y, a, b], false, 16, false) => ((x, y), (a, b)),
        _ => return Err(cx.invalid(format!("`{i}` has the wrong number of immediate operands for its type"))),
    };
    let mma = mma.scaled(scales.0, scales.1).map_err(|reason| cx.refused(i, &reason))?;
    let major = |transposed: i64| match transposed {
        0 => Ok(Major::K),
        1 => Ok(Major::Mn),
        other => Err(cx.invalid(format!("imm-trans is 0 or 1, not {other}"))),
    };
    let (major_a, major_b) = (major(transpositions.0)?, major(transpositions.1)?);

    let source = if in_registers {
        let registers = sources(cx, source_a, mma.a().registers(), "A")?;
        cx.note_product(registers.iter().map(|register| register.id));
        Source::Registers(registers.into())
    } else {
        Source::Shared(cx.critical(source_a)?, major_a)
    };
    let descriptor = (cx.critical(descriptor_b)?, major_b);
    let kinds = (a, b);
    let scale_d = cx.pred(scale_d)?;
    cx.note_critical(scale_d.0.id);
    let d: Box<[Reg<u32>]> = dests(cx, registers_d, mma.d().registers(), "D")?.into();
    cx.note_product(d.iter().map(|register| register.id));
    Ok(Decoded::new(Class::Matrix, Multiply { mma, kinds, source, b: descriptor, scale_d, d })?.with_own_taint())
}
