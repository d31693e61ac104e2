//! `mapa`, `getctarank`: addresses in the shared memory of the cluster's blocks.

use super::access::window_of;
use super::address::Target;
use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lane, Lanes, Reg, WARP};
use crate::memory::shared::RANK_SHIFT;
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};

/// Bits of a shared address below the rank.
const OFFSET: u64 = (1 << RANK_SHIFT) - 1;

/// An address that one's own block has for a byte, made into that of another block of the cluster.
struct MapAddress<T> {
    d: Reg<T>,
    a: Reg<T>,
    rank: Reg<u32>,
    /// Generic addresses.
    generic: bool,
}

impl<T: Lane> Execute for MapAddress<T> {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (addresses, ranks) = (cx.get(self.a).map(T::to_bits), *cx.get(self.rank));
        let mut mapped: Lanes<u64> = [0; WARP];
        for lane in lanes_of(cx.active) {
            let (address, rank) = (addresses[lane], ranks[lane]);
            if rank as usize >= cx.blocks.len() {
                let blocks = cx.blocks.len();
                cx.report(Kind::InvalidOperation, lane, || format!("rank {rank} in a cluster of {blocks}"));
            }
            if self.generic && window_of(address).0 != Target::Shared {
                cx.report_at(Kind::InvalidOperation, lane, Some(address), None, || "not an address of shared memory".into());
            }
            let rank = u64::from(rank & 0xff) + 1;
            // The window's base lies above all ranks.
            mapped[lane] = address & !(0xffff_ffff & !OFFSET) | rank << RANK_SHIFT & 0xffff_ffff;
        }
        cx.set(self.d, &mapped.map(T::from_bits));
        Flow::Next
    }
}

/// The rank of the block that an address belongs to.
struct RankOf<T> {
    d: Reg<u32>,
    a: Reg<T>,
}

impl<T: Lane> Execute for RankOf<T> {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let own = cx.rank as u32;
        let ranks = cx.get(self.a).map(|address| match address.to_bits() as u32 >> RANK_SHIFT {
            0 => own,
            rank => rank - 1,
        });
        cx.set(self.d, &ranks);
        Flow::Next
    }
}

fn map<T: Lane>(i: &Instruction, cx: &mut Lowering, generic: bool) -> Result<Decoded> {
    let [d, a, rank]: &[Operand; 3] = cx.operands(i)?;
    let (a, rank, d) = (cx.source::<T>(a)?, cx.critical(rank)?, cx.dest(d)?);
    Decoded::new(Class::Integer, MapAddress { d, a, rank, generic })
}

fn rank_of<T: Lane>(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let [d, a] = cx.operands(i)?;
    let (a, d) = (cx.source::<T>(a)?, cx.dest(d)?);
    Decoded::new(Class::Integer, RankOf { d, a })
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("mapa", ["shared::cluster", "u32"]) => map::<u32>(i, cx, false),
        ("mapa", ["shared::cluster", "u64"]) => map::<u64>(i, cx, false),
        ("mapa", ["u64"]) => map::<u64>(i, cx, true),
        ("getctarank", ["shared::cluster", "u32"]) => rank_of::<u32>(i, cx),
        ("getctarank", ["shared::cluster", "u64"] | ["u64"]) => rank_of::<u64>(i, cx),
        _ => Err(cx.unsupported(i)),
    }
}
