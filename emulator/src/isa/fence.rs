//! `membar` and `fence`. Stores take effect at once here, so a fence only tells what it orders.

use super::modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

struct Fence {
    /// Its scope goes beyond the cluster.
    device: bool,
}

impl Execute for Fence {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.fence(self.device);
        Flow::Next
    }
}

/// A fence between the ways on which memory is accessed: they are all one here, but what would be missing without it is told.
struct Proxy;

impl Execute for Proxy {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.proxy_fence();
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let scope = |name: &str| match name {
        "cta" | "cluster" => Some(false),
        "gl" | "gpu" | "sys" => Some(true),
        _ => None,
    };
    let fence = |cx: &mut Lowering, name: &str| {
        cx.operands::<0>(i)?;
        let device = scope(name).ok_or_else(|| cx.unsupported(i))?;
        Decoded::new(Class::Barrier, Fence { device })
    };
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("membar", [level @ ("cta" | "gl" | "sys")]) => fence(cx, level),
        ("fence", [level] | ["sc" | "acq_rel" | "acquire" | "release", level]) => fence(cx, level),
        // The ISA's examples have the scope first.
        ("fence", [level, "sc" | "acq_rel" | "acquire" | "release"]) => fence(cx, level),
        // Taken for all that the thread did, not only for what it initialised.
        ("fence", ["mbarrier_init", "release", "cluster"]) => fence(cx, "cluster"),
        ("fence", ["acquire", "sync_restrict::shared::cluster", "cluster"])
        | ("fence", ["release", "sync_restrict::shared::cta", "cluster"]) => fence(cx, "cluster"),
        (
            "membar" | "fence",
            ["proxy", "alias" | "async" | "async::generic"] | ["proxy", "async", "global" | "shared::cta" | "shared::cluster"],
        )
        | ("fence", ["proxy", "async::generic", "acquire", "sync_restrict::shared::cluster", "cluster"])
        | ("fence", ["proxy", "async::generic", "release", "sync_restrict::shared::cta", "cluster"]) => {
            cx.operands::<0>(i)?;
            Decoded::new(Class::Barrier, Proxy)
        }
        ("fence", ["proxy", "tensormap::generic", "release", level]) => fence(cx, level),
        ("fence", ["proxy", "tensormap::generic", "acquire", level]) => {
            let device = scope(level).ok_or_else(|| cx.unsupported(i))?;
            let [_, _] = cx.operands(i)?;
            Decoded::new(Class::Barrier, Fence { device })
        }
        _ => Err(cx.unsupported(i)),
    }
}
