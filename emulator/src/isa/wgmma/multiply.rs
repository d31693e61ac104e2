//! `wgmma.mma_async`: one warp's 16 rows (ISA 9.7.15.5.2).

use super::warpgroup::WARPS;
use crate::check::Kind;
use crate::check::products::Role;
use crate::check::races::Access;
use crate::isa::lanes::holds;
use crate::isa::matrix::{count_flops, expect_whole_warp};
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Mask, Pred, Reg, WARP};
use crate::memory::bits::ones;
use crate::tensor::Register;
use crate::tensor::descriptor::{Descriptor, Major};
use crate::tensor::element::Multiplicand;
use crate::tensor::matrix8x8::Row;
use crate::tensor::mma::{Addend, Mma};
use crate::tensor::wgmma::Tile;

/// The operands.
pub(super) struct Multiply {
    pub mma: Mma,
    /// Types of A and B.
    pub kinds: (Multiplicand, Multiplicand),
    pub source: Source,
    pub b: (Reg<u64>, Major),
    /// Whether D is added, and whether the predicate is negated.
    pub scale_d: (Pred, bool),
    pub d: Box<[Reg<u32>]>,
}

/// Where A is.
pub(super) enum Source {
    Registers(Box<[Reg<u32>]>),
    Shared(Reg<u64>, Major),
}

/// A matrix ready to be multiplied.
struct Matrix {
    registers: Vec<Register>,
    /// Undefined lanes of each register; empty if there are none.
    undefined: Vec<Mask>,
}

impl Execute for Multiply {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        expect_whole_warp(cx);
        if cx.checked() {
            let a = match &self.source {
                Source::Registers(registers) => registers.iter(),
                Source::Shared(..) => [].iter(),
            };
            let d = self.d.iter().map(|register| (register.id, Role::Accumulator(self.d.len())));
            cx.begin_product(a.map(|register| (register.id, Role::Multiplicand)).chain(d));
        }
        self.multiply(cx);
        count_flops(cx, self.mma.shape());
        Flow::Next
    }
}

impl Multiply {
    /// Computes D, unless an operand is not what it should be: then D stays as it is.
    #[inline(always)]
    fn multiply(&self, cx: &mut Cx) -> Option<()> {
        let warp = cx.warp.index % WARPS;
        if cx.warp.index - warp + WARPS > cx.block().alive.len() {
            let lane = cx.active.trailing_zeros() as usize;
            cx.report(Kind::InvalidOperation, lane, || "wgmma is executed by four warps, the first a multiple of four".into());
            return None;
        }
        let columns = self.mma.shape().1 as u32;
        let a = match &self.source {
            Source::Registers(registers) => gathered(cx, registers),
            Source::Shared(descriptor, major) => {
                let tile = tile(cx, *descriptor, *major, self.kinds.0)?;
                fetched(cx, tile, 16 * warp as u32, 16, |_| true)?
            }
        };
        let tile = tile(cx, self.b.0, self.b.1, self.kinds.1)?;
        // The four warps read B together: each keeps account of a quarter.
        let b = fetched(cx, tile, 0, columns, |block| block % WARPS == warp)?;
        let added = holds(cx, self.scale_d) & cx.active;
        if added != 0 && added != cx.active {
            let lane = (added ^ cx.active).trailing_zeros() as usize;
            cx.report(Kind::InvalidOperation, lane, || "scale-d differs between the lanes of the warp".into());
        }
        let mut d: Vec<Register> = self.d.iter().map(|&register| *cx.get(register)).collect();
        self.mma.run(&a.registers, &b.registers, if added != 0 { Addend::Destination } else { Addend::Zero }, &mut d);
        for (&register, value) in self.d.iter().zip(&d) {
            cx.set(register, value);
        }
        if cx.checked() {
            self.taint(cx, a.undefined, b.undefined, added != 0);
        }
        Some(())
    }

    /// Says which lanes of D are undefined now.
    #[inline(always)]
    fn taint(&self, cx: &mut Cx, mut a: Vec<Mask>, mut b: Vec<Mask>, added: bool) {
        let mut any = 0;
        if added {
            any = self.d.iter().fold(0, |any, register| any | cx.undefined(register.id)) & cx.active;
        }
        if any == 0 && a.is_empty() && b.is_empty() {
            self.d.iter().for_each(|register| cx.set_undefined(register.id, 0));
            return;
        }
        let c: Vec<Mask> =
            if added { self.d.iter().map(|register| cx.undefined(register.id) & cx.active).collect() } else { vec![] };
        a.resize(self.mma.a().registers(), 0);
        b.resize(self.mma.b().registers(), 0);
        let mut d = vec![0; self.d.len()];
        self.mma.undefined(&a, &b, &c, &mut d);
        for (register, undefined) in self.d.iter().zip(d) {
            cx.set_undefined(register.id, undefined);
        }
    }
}

/// A from registers.
#[inline(always)]
fn gathered(cx: &Cx, registers: &[Reg<u32>]) -> Matrix {
    let mut undefined = Vec::new();
    if cx.checked() && registers.iter().any(|register| cx.undefined(register.id) & cx.active != 0) {
        undefined = registers.iter().map(|register| cx.undefined(register.id) & cx.active).collect();
    }
    Matrix { registers: registers.iter().map(|&register| *cx.get(register)).collect(), undefined }
}

/// The tile that a descriptor describes; a finding if it describes none.
#[inline(always)]
fn tile(cx: &mut Cx, descriptor: Reg<u64>, major: Major, kind: Multiplicand) -> Option<Tile> {
    let (bits, first) = (*cx.get(descriptor), cx.active.trailing_zeros() as usize);
    if let Some(lane) = lanes_of(cx.active).find(|&lane| bits[lane] != bits[first]) {
        cx.report(Kind::InvalidOperation, lane, || {
            format!("the matrix descriptor differs between the lanes of the warp: {:#x} and {:#x}", bits[first], bits[lane])
        });
    }
    match Descriptor::decode(bits[first]).and_then(|descriptor| Tile::new(descriptor, major, kind)) {
        Ok(tile) => Some(tile),
        Err(message) => {
            cx.report(Kind::InvalidOperation, first, || message);
            None
        }
    }
}

/// Rows of a tile from shared memory; a finding if some lie outside. For the blocks of 8 rows that `held` picks, the checkers are
/// told who reads them, and that nobody may overwrite them before the product is waited for.
#[inline(always)]
fn fetched(cx: &mut Cx, tile: Tile, first: u32, rows: u32, held: impl Fn(usize) -> bool) -> Option<Matrix> {
    let mut positions = Vec::with_capacity(2 * rows as usize);
    let mut partly = false;
    let shared = &cx.blocks[cx.rank].shared;
    let registers = tile.gather(first, rows, |address| {
        let position = shared.position(address, 16).ok_or(address)?;
        positions.push(position as u32);
        partly |= shared.defined.get(position, 16) != ones(16);
        Ok(shared.row(position))
    });
    let registers = match registers {
        Ok(registers) => registers,
        Err(address) => {
            let (lane, address): (usize, u32) = (cx.active.trailing_zeros() as usize, address);
            cx.report_at(Kind::OutOfBounds, lane, Some(u64::from(address)), cx.launch.shared.nearest(address), || {
                "a matrix descriptor leads outside the block's shared memory".into()
            });
            return None;
        }
    };
    cx.worker.tallies[cx.pc as usize].bytes += 16 * positions.len() as u64;
    let mut undefined = Vec::new();
    if cx.checked() {
        if partly {
            undefined = undefined_lanes(cx, tile, first, rows);
        }
        note(cx, &positions, held);
    }
    Some(Matrix { registers, undefined })
}

/// Tells the checkers of those rows of 16 bytes that this warp keeps account of; `positions` are the first 16 bytes of K of all
/// rows, then the second.
#[inline(never)]
fn note(cx: &mut Cx, positions: &[u32], held: impl Fn(usize) -> bool) {
    let rows = positions.len() / 2;
    let held: Vec<u32> =
        positions.iter().enumerate().filter(|(at, _)| held(at % rows / 8)).map(|(_, &position)| position).collect();
    let rank = cx.rank;
    for part in held.chunks(WARP) {
        let lanes: Lanes<u32> = std::array::from_fn(|lane| part.get(lane).copied().unwrap_or(0));
        cx.note_shared(rank, &lanes, ones(part.len() as u32), 16, Access::Read);
    }
    let lane = cx.active.trailing_zeros() as usize;
    for &position in &held {
        cx.check_proxy(rank, position as usize, 16, lane);
    }
    let (left, right) = held.split_at(held.len() / 2);
    for (&left, &right) in left.iter().zip(right) {
        if left.abs_diff(right) == 16 {
            cx.begin_product_read(left.min(right), 32);
        } else {
            cx.begin_product_read(left, 16);
            cx.begin_product_read(right, 16);
        }
    }
}

#[cold]
fn undefined_lanes(cx: &Cx, tile: Tile, first: u32, rows: u32) -> Vec<Mask> {
    let shared = &cx.blocks[cx.rank].shared;
    let masks = tile.gather(first, rows, |address| {
        let defined = shared.position(address, 16).map_or(0, |position| shared.defined.get(position, 16));
        let byte = |at: usize| if defined >> at & 1 == 1 { 0 } else { 0xff << (8 * (at % 4)) };
        Ok::<Row, ()>(std::array::from_fn(|word| (4 * word..4 * word + 4).map(byte).sum()))
    });
    let lanes = |register: Register| (0..WARP).fold(0, |mask, lane| mask | u32::from(register[lane] != 0) << lane);
    masks.unwrap_or_default().into_iter().map(lanes).collect()
}
