//! `wmma.load` and `wmma.store`: fragments between registers and a matrix in memory, row by row or column by column, with a
//! stride (ISA 9.7.14.4.3 and 9.7.14.4.4).
//!
//! How a fragment lies in the registers is the implementation's own business; what [`Fragment`] says of `mma` holds here too.

use super::{dests, expect_whole_warp, shape, sources};
use crate::Result;
use crate::check::Kind;
use crate::isa::access::Words;
use crate::isa::address::{AddressOperand, Target};
use crate::isa::modifiers;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Reg};
use crate::memory::bits::ones;
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::{Instruction, Operand};
use crate::tensor::element::{Accumulator, Multiplicand};
use crate::tensor::fragment::Fragment;
use crate::tensor::mma::Mma;

/// A matrix in memory and the registers that belong to it.
struct Matrix {
    fragment: Fragment,
    /// Register `r` holds what register `r % fragment.registers()` does.
    registers: Box<[Reg<u32>]>,
    /// Bytes of an element.
    size: u32,
    /// Rows are contiguous, not columns.
    by_rows: bool,
    target: Target,
    address: AddressOperand,
    /// Elements from one row (or column) to the next.
    stride: Reg<u32>,
}

struct Load(Matrix);

struct Store(Matrix);

/// Bytes that each lane moves at once: some elements of one register.
struct Piece {
    register: usize,
    /// First element.
    part: usize,
    bytes: u32,
    addresses: Lanes<u64>,
}

impl Matrix {
    /// Moves the fragment piece by piece: a register at once where its elements lie side by side, else one element.
    #[inline(always)]
    fn each_piece(&self, cx: &mut Cx, mut move_piece: impl FnMut(&mut Cx, Piece)) {
        expect_whole_warp(cx);
        let (bases, strides) = (self.address.addresses(cx), *cx.get(self.stride));
        let first = cx.active.trailing_zeros() as usize;
        if let Some(lane) = lanes_of(cx.active).find(|&lane| bases[lane] != bases[first] || strides[lane] != strides[first]) {
            cx.report(Kind::InvalidOperation, lane, || {
                "the lanes of the warp give different addresses or strides for one matrix".into()
            });
        }
        let (base, stride) = (bases[first], u64::from(strides[first]));
        let per_register = (4 / self.size) as usize;
        let offset = |lane: usize, register: usize, part: usize| {
            let (row, column) = self.fragment.element(lane, register, part);
            let (line, at) = if self.by_rows { (row, column) } else { (column, row) };
            (line as u64).wrapping_mul(stride).wrapping_add(at as u64).wrapping_mul(u64::from(self.size))
        };
        let whole = (1..per_register).all(|part| offset(0, 0, part) == offset(0, 0, 0) + part as u64 * u64::from(self.size));
        let step = if whole { per_register } else { 1 };
        for register in 0..self.fragment.registers() {
            for part in (0..per_register).step_by(step) {
                let addresses = std::array::from_fn(|lane| base.wrapping_add(offset(lane, register, part)));
                move_piece(cx, Piece { register, part, bytes: self.size * step as u32, addresses });
            }
        }
    }
}

impl Execute for Load {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let Self(matrix) = self;
        let mut values = vec![[0; 32]; matrix.fragment.registers()];
        let mut undefined = vec![0; values.len()];
        matrix.each_piece(cx, |cx, piece| {
            let data: Words<1> = cx.load(matrix.target, &piece.addresses, piece.bytes);
            for lane in lanes_of(cx.active) {
                values[piece.register][lane] |= data.words[0][lane] << (8 * matrix.size * piece.part as u32);
                undefined[piece.register] |= u32::from(data.any_undefined && data.undefined[lane] != 0) << lane;
            }
        });
        for (&register, (value, &undefined)) in matrix.registers.iter().zip(values.iter().zip(&undefined).cycle()) {
            cx.set(register, value);
            if cx.checked() {
                cx.set_undefined(register.id, undefined);
            }
        }
        Flow::Next
    }
}

impl Execute for Store {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let Self(matrix) = self;
        matrix.each_piece(cx, |cx, piece| {
            let register = matrix.registers[piece.register];
            let mut data = Words::<1>::zero();
            data.words[0] = cx.get(register).map(|word| word >> (8 * matrix.size * piece.part as u32) & ones(8 * piece.bytes));
            let undefined = if cx.checked() { cx.undefined(register.id) & cx.active } else { 0 };
            if let Some(lane) = lanes_of(undefined).next() {
                let address = piece.addresses[lane];
                if cx.goes_to_threads(matrix.target, address) {
                    lanes_of(undefined).for_each(|lane| data.set_undefined(lane, ones(piece.bytes)));
                } else {
                    cx.report_at(Kind::Uninitialized, lane, Some(address), cx.buffer_of(address), || {
                        "the value stored comes from something that was never written".into()
                    });
                }
            }
            cx.store(matrix.target, &piece.addresses, piece.bytes, &data);
        });
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let modifiers = modifiers(i);
    let [action, matrix @ ("a" | "b" | "c" | "d"), "sync", "aligned", layout @ ("row" | "col"), extent, rest @ .., ty] =
        modifiers.as_slice()
    else {
        return Err(cx.unsupported(i));
    };
    let (target, class) = match rest {
        [] => (Target::Generic, Class::Global),
        ["global"] => (Target::Global, Class::Global),
        ["shared" | "shared::cta"] => (Target::Shared, Class::Shared),
        _ => return Err(cx.unsupported(i)),
    };
    let (extent, by_rows) = (shape(extent).ok_or_else(|| cx.unsupported(i))?, *layout == "row");
    let (fragment, registers, size) = fragment(matrix, extent, ty).map_err(|reason| cx.refused(i, &reason))?;
    let (operands, stride) = match (*action, *matrix, i.operands.as_slice()) {
        ("load", "a" | "b" | "c", [first, second, stride @ ..]) => ((first, second), stride),
        ("store", "d", [first, second, stride @ ..]) => ((second, first), stride),
        _ => return Err(cx.unsupported(i)),
    };
    let stride = match stride {
        [stride] => cx.critical(stride)?,
        [] => {
            let (rows, columns) = fragment.shape();
            cx.source(&Operand::Integer(if by_rows { columns } else { rows } as u64))?
        }
        _ => return Err(cx.unsupported(i)),
    };
    let (address, target) = AddressOperand::new(cx, operands.1, target)?;
    let decoded = if *action == "load" {
        let registers = dests(cx, operands.0, registers, "the fragment")?.into();
        Decoded::new(class, Load(Matrix { fragment, registers, size, by_rows, target, address, stride }))
    } else {
        let registers = sources(cx, operands.0, registers, "the fragment")?.into();
        Decoded::new(class, Store(Matrix { fragment, registers, size, by_rows, target, address, stride }))
    };
    Ok(decoded?.with_own_taint().meeting(Meeting::Warp))
}

/// The fragment of a matrix, the registers that PTX gives it, and the bytes of an element.
fn fragment(matrix: &str, extent: (usize, usize, usize), ty: &str) -> std::result::Result<(Fragment, usize, u32), String> {
    let unknown = || format!("wmma has no matrix {matrix} of {ty}");
    if matches!(matrix, "a" | "b") {
        let element = Multiplicand::from_name(ty).ok_or_else(unknown)?;
        let accumulator = if element.is_integer() { Accumulator::S32 } else { Accumulator::F32 };
        let mma = Mma::wmma(extent, element, element, accumulator, accumulator)?;
        let fragment = if matrix == "a" { mma.a() } else { mma.b() };
        let registers = if element == Multiplicand::F16 { 8 } else { fragment.registers() };
        return Ok((fragment, registers, element.bits() as u32 / 8));
    }
    let accumulator = Accumulator::from_name(ty).ok_or_else(unknown)?;
    let elements: &[Multiplicand] = match accumulator {
        Accumulator::S32 => &[Multiplicand::S8],
        Accumulator::F16 => &[Multiplicand::F16],
        Accumulator::F32 => &[Multiplicand::F16, Multiplicand::Tf32],
    };
    let products = elements.iter().map(|&element| Mma::wmma(extent, element, element, accumulator, accumulator));
    let fragment = products.reduce(|first, second| first.or(second)).ok_or_else(unknown)??.d();
    Ok((fragment, fragment.registers(), 4 / accumulator.per_register() as u32))
}
