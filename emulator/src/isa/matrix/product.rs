//! `mma.sync` and `wmma.mma`: `D = A·B + C` on matrices in the registers of a warp (ISA 9.7.14.5.14 and 9.7.14.4.5).

use super::{dests, expect_whole_warp, shape, sources};
use crate::Result;
use crate::isa::modifiers;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Mask, Reg};
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::Instruction;
use crate::tensor::Register;
use crate::tensor::element::{Accumulator, Multiplicand};
use crate::tensor::fragment::Fragment;
use crate::tensor::mma::{Addend, Mma, f64_fragments, multiply_f64, undefined};

/// A product whose fragments take at most so many registers; the last register fills the places that are left over.
struct Product<const A: usize, const B: usize, const C: usize> {
    mma: Mma,
    a: [Reg<u32>; A],
    b: [Reg<u32>; B],
    c: [Reg<u32>; C],
    d: Box<[Reg<u32>]>,
}

/// `mma` of f64.
struct Double {
    shape: (usize, usize, usize),
    /// Of A, B, C and D.
    fragments: [Fragment; 4],
    a: Box<[Reg<f64>]>,
    b: Box<[Reg<f64>]>,
    c: Box<[Reg<f64>]>,
    d: Box<[Reg<f64>]>,
}

impl<const A: usize, const B: usize, const C: usize> Execute for Product<A, B, C> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        expect_whole_warp(cx);
        let (a, b, c): ([Register; A], [Register; B], [Register; C]) =
            (self.a.map(|a| *cx.get(a)), self.b.map(|b| *cx.get(b)), self.c.map(|c| *cx.get(c)));
        let mut d = [[0; 32]; C];
        self.mma.run(&a, &b, Addend::Registers(&c), &mut d);
        let count = self.mma.d().registers();
        for (&register, value) in self.d.iter().zip(&d[..count]) {
            cx.set(register, value);
        }
        if cx.checked() {
            let undefined_of = |id: u32| cx.undefined(id) & cx.active;
            let (a, b, c) =
                (self.a.map(|a| undefined_of(a.id)), self.b.map(|b| undefined_of(b.id)), self.c.map(|c| undefined_of(c.id)));
            let mut d = [0; C];
            if a.iter().chain(&b).chain(&c).any(|&mask| mask != 0) {
                self.mma.undefined(&a, &b, &c, &mut d);
            }
            set_all_undefined(cx, &self.d, &d);
        }
        count_flops(cx, self.mma.shape());
        Flow::Next
    }
}

impl Execute for Double {
    fn execute(&self, cx: &mut Cx) -> Flow {
        expect_whole_warp(cx);
        let gather = |registers: &[Reg<f64>]| -> Vec<[f64; 32]> { registers.iter().map(|&register| *cx.get(register)).collect() };
        let (a, b, c) = (gather(&self.a), gather(&self.b), gather(&self.c));
        let mut d = c.clone();
        multiply_f64(self.fragments, &a, &b, &c, &mut d);
        for (&register, value) in self.d.iter().zip(&d) {
            cx.set(register, value);
        }
        if cx.checked() {
            let masks = |registers: &[Reg<f64>]| -> Vec<Mask> {
                registers.iter().map(|register| cx.undefined(register.id) & cx.active).collect()
            };
            let (a, b, c) = (masks(&self.a), masks(&self.b), masks(&self.c));
            let mut d = vec![0; self.d.len()];
            undefined(self.fragments, &a, &b, &c, &mut d);
            set_all_undefined(cx, &self.d, &d);
        }
        count_flops(cx, self.shape);
        Flow::Next
    }
}

#[inline(always)]
fn set_all_undefined<T>(cx: &mut Cx, registers: &[Reg<T>], masks: &[Mask]) {
    for (register, &mask) in registers.iter().zip(masks) {
        cx.set_undefined(register.id, mask);
    }
}

/// Counts the operations of one warp's product: a multiplication and an addition for each of m·n·k.
#[inline(always)]
pub(in crate::isa) fn count_flops(cx: &mut Cx, (m, n, k): (usize, usize, usize)) {
    cx.worker.tallies[cx.pc as usize].flops += 2 * (m * n * k) as u64;
}

/// Repeats the last register up to `N` places.
fn padded<const N: usize>(registers: &[Reg<u32>]) -> Option<[Reg<u32>; N]> {
    let last = registers.last()?;
    (registers.len() <= N).then(|| std::array::from_fn(|place| *registers.get(place).unwrap_or(last)))
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let modifiers = modifiers(i);
    let (extent, types, saturate, wide) = match (i.opcode.as_str(), modifiers.as_slice()) {
        ("mma", ["sync", "aligned", extent, "row", "col", "satfinite", types @ ..]) => (*extent, types, true, false),
        ("mma", ["sync", "aligned", extent, "row", "col", types @ ..]) => (*extent, types, false, false),
        ("wmma", ["mma", "sync", "aligned", "row" | "col", "row" | "col", extent, types @ .., "satfinite"]) => {
            (*extent, types, true, true)
        }
        ("wmma", ["mma", "sync", "aligned", "row" | "col", "row" | "col", extent, types @ ..]) => (*extent, types, false, true),
        _ => return Err(cx.unsupported(i)),
    };
    let extent = shape(extent).ok_or_else(|| cx.unsupported(i))?;
    if (types, wide, saturate) == (&["f64", "f64", "f64", "f64"], false, false) {
        return double(i, cx, extent);
    }
    let (d, a, b, c) = match types {
        [d, a, b, c] => (*d, *a, *b, *c),
        // wmma with f16 leaves the types of A and B out.
        [d, c] if wide => (*d, "f16", "f16", *c),
        _ => return Err(cx.unsupported(i)),
    };
    let element = |name| Multiplicand::from_name(name).ok_or_else(|| cx.unsupported(i));
    let accumulator = |name| Accumulator::from_name(name).ok_or_else(|| cx.unsupported(i));
    let (a, b, c, d) = (element(a)?, element(b)?, accumulator(c)?, accumulator(d)?);
    let mma = if wide { Mma::wmma(extent, a, b, c, d) } else { Mma::sync(extent, a, b, c, d) };
    let mma = if saturate { mma.and_then(Mma::saturating) } else { mma };
    let mma = mma.map_err(|reason| cx.refused(i, &reason))?;
    // A wmma fragment of f16 has 8 registers, some of them copies.
    let multiplicands = |fragment: Fragment| if wide && a == Multiplicand::F16 { 8 } else { fragment.registers() };
    let [d, a, b, c] = cx.operands(i)?;
    let a = sources(cx, a, multiplicands(mma.a()), "A")?;
    let b = sources(cx, b, multiplicands(mma.b()), "B")?;
    let c = sources(cx, c, mma.c().registers(), "C")?;
    let d: Box<[Reg<u32>]> = dests(cx, d, mma.d().registers(), "D")?.into();
    let decoded = if let (Some(a), Some(b), Some(c)) = (padded(&a), padded(&b), padded(&c)) {
        Decoded::new(Class::Matrix, Product::<4, 2, 4> { mma, a, b, c, d })
    } else if let (Some(a), Some(b), Some(c)) = (padded(&a), padded(&b), padded(&c)) {
        Decoded::new(Class::Matrix, Product::<8, 8, 8> { mma, a, b, c, d })
    } else {
        Err(cx.unsupported(i))
    };
    Ok(decoded?.with_own_taint().meeting(Meeting::Warp))
}

fn double(i: &Instruction, cx: &mut Lowering, shape: (usize, usize, usize)) -> Result<Decoded> {
    let fragments = f64_fragments(shape).map_err(|reason| cx.refused(i, &reason))?;
    let [of_a, of_b, of_c, of_d] = fragments.map(Fragment::registers);
    let [d, a, b, c] = cx.operands(i)?;
    let a = sources(cx, a, of_a, "A")?.into();
    let b = sources(cx, b, of_b, "B")?.into();
    let c = sources(cx, c, of_c, "C")?.into();
    let d = dests(cx, d, of_d, "D")?.into();
    Ok(Decoded::new(Class::Matrix, Double { shape, fragments, a, b, c, d })?.with_own_taint().meeting(Meeting::Warp))
}
