//! `st.async`, `red.async`: values for another block's shared memory, whose `mbarrier` counts their bytes.

use super::address::{AddressOperand, Target};
use super::modifiers;
use super::reduction::{Combine, reduction};
use crate::Result;
use crate::check::races::{Release, Told};
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::Reg;
use crate::machine::transfer::Land;
use crate::memory::in_flight::Use;
use crate::memory::shared::Range;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Type};

/// A source: its slot in the bank of 32- or of 64-bit registers, and its definedness id.
type Source = (u32, u32);

struct StoreAsync {
    to: AddressOperand,
    mbarrier: AddressOperand,
    values: Box<[Source]>,
    /// Bytes of one value.
    size: u32,
    combine: Option<Combine>,
}

impl Execute for StoreAsync {
    fn execute(&self, cx: &mut Cx) -> Flow {
        cx.worker.effects += 1;
        let (to, mbarriers) = (self.to.addresses(cx), self.mbarrier.addresses(cx));
        let bytes = self.size * self.values.len() as u32;
        let mut stores = Vec::new();
        for lane in lanes_of(cx.active) {
            if !cx.is_aligned(lane, to[lane], bytes) {
                continue;
            }
            let Some((rank, position)) = cx.shared_position(lane, to[lane], bytes) else { continue };
            let Some(mbarrier) = cx.counting_mbarrier(lane, mbarriers[lane], rank, &[rank]) else { continue };
            let values = self.values.iter().map(|&(index, id)| match self.size {
                4 => u64::from(cx.get(Reg::<u32>::new(index, id))[lane]),
                _ => cx.get(Reg::<u64>::new(index, id))[lane],
            });
            let values = values.collect();
            let defined = !cx.checked() || self.values.iter().all(|&(_, id)| cx.undefined(id) >> lane & 1 == 0);
            cx.begin_in_flight(rank, position, bytes as usize, Use::Writes, lane);
            stores.push(Store { lane, rank, position, mbarrier, values, defined });
        }
        let lanes = stores.iter().fold(0, |lanes, store| lanes | 1 << store.lane);
        if lanes != 0 {
            cx.begin_transfer(lanes, Box::new(Stores { stores, size: self.size, combine: self.combine }));
        }
        Flow::Next
    }
}

/// What one lane stores.
struct Store {
    lane: usize,
    rank: usize,
    position: usize,
    mbarrier: usize,
    values: Vec<u64>,
    defined: bool,
}

struct Stores {
    stores: Vec<Store>,
    size: u32,
    combine: Option<Combine>,
}

impl Land for Stores {
    fn land(&mut self, cx: &mut Cx, issued: &Release) {
        for store in &self.stores {
            let Store { lane, rank, position, mbarrier, ref values, defined } = *store;
            let bytes = self.size * values.len() as u32;
            let mut done = Release::default();
            cx.end_in_flight(rank, position, bytes as usize, Use::Writes);
            let range = Range { rank, position, bytes: bytes as usize };
            cx.note_copy(issued, Told::Mbarrier { rank, position: mbarrier }, range, true, &mut done);
            let shared = &mut cx.blocks[rank].shared;
            for (&value, at) in values.iter().zip((position..).step_by(self.size as usize)) {
                let value = self.combine.map_or(value, |combine| combine(shared.read_wide(at, self.size), value, 0));
                shared.write_wide(at, self.size, value);
            }
            let defined = if defined { !0 } else { 0 };
            let kept = if self.combine.is_some() { shared.defined.get(position, bytes) } else { !0 };
            shared.defined.put(position, bytes, defined & kept);
            cx.leave_copy_at_mbarrier(rank, mbarrier, &done);
            cx.complete_bytes(rank, mbarrier, lane, bytes);
        }
    }
}

/// `st.async` and `red.async`, whose first modifier is `async`.
pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    const COUNTED: [&str; 2] = ["shared::cluster", "mbarrier::complete_tx::bytes"];
    let modifiers = modifiers(i);
    let rest: Vec<&str> = modifiers.into_iter().filter(|modifier| !COUNTED.contains(modifier)).collect();
    let (lanes, combine, ty) = match (i.opcode.as_str(), rest.as_slice()) {
        ("st", ["async"] | ["async", "weak"]) => return Err(cx.unsupported(i)),
        ("st", ["async", "weak", vector @ .., ty] | ["async", vector @ .., ty]) => match vector {
            [] => (1, None, *ty),
            ["v2"] => (2, None, *ty),
            ["v4"] => (4, None, *ty),
            _ => return Err(cx.unsupported(i)),
        },
        ("red", ["async", "relaxed", "cluster", operation, ty] | ["async", operation, ty]) => {
            (1, Some(reduction(operation, ty).ok_or_else(|| cx.unsupported(i))?.combine), *ty)
        }
        _ => return Err(cx.unsupported(i)),
    };
    let size = Type::from_name(ty).map_or(0, Type::bytes);
    if rest.len() + 2 != i.modifiers.len() || !matches!(size * lanes, 4 | 8 | 16) || size < 4 {
        return Err(cx.unsupported(i));
    }
    let [to, value, mbarrier] = cx.operands(i)?;
    let (to, _) = AddressOperand::new(cx, to, Target::Shared)?;
    let (mbarrier, _) = AddressOperand::new(cx, mbarrier, Target::Shared)?;
    let components = cx.components(value);
    if components.len() != lanes as usize {
        return Err(cx.unsupported(i));
    }
    let mut values = Vec::new();
    for component in components {
        values.push(match size {
            4 => cx.source::<u32>(component).map(|register| (register.index, register.id))?,
            _ => cx.source::<u64>(component).map(|register| (register.index, register.id))?,
        });
    }
    Ok(Decoded::new(Class::Copy, StoreAsync { to, mbarrier, values: values.into(), size, combine })?.with_own_taint())
}
