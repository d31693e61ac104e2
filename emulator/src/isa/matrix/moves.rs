//! `ldmatrix`, `stmatrix` and `movmatrix`: whole 8 × 8 matrices of 16-bit elements (ISA 9.7.14.5.15 to 17).

use super::{dests, expect_whole_warp, sources};
use crate::Result;
use crate::check::Kind;
use crate::isa::access::Rows;
use crate::isa::address::{AddressOperand, Target};
use crate::isa::modifiers;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lanes, Mask, Reg, WARP, each_lane};
use crate::memory::bits::ones;
use crate::memory::{SHARED_WINDOW, WINDOW_BYTES};
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::Instruction;
use crate::tensor::Register;
use crate::tensor::matrix8x8::{self, Row};

/// `ldmatrix`: register `i` takes the matrix whose rows lanes `8i` to `8i + 7` point to.
struct Load {
    registers: Box<[Reg<u32>]>,
    rows: RowAddresses,
    transpose: bool,
}

/// `stmatrix`: the other way.
struct Store {
    registers: Box<[Reg<u32>]>,
    rows: RowAddresses,
    transpose: bool,
}

/// `movmatrix.trans`
struct Transpose {
    d: Reg<u32>,
    a: Reg<u32>,
}

/// The operand that gives each row's address.
struct RowAddresses {
    target: Target,
    address: AddressOperand,
}

impl RowAddresses {
    /// The lanes that point to rows of `matrices` matrices, and the shared addresses that they give.
    #[inline(always)]
    fn of(&self, cx: &mut Cx, matrices: usize) -> (Mask, Lanes<u64>) {
        let addresses = self.address.addresses(cx);
        let mut lanes = cx.active & ones(8 * matrices as u32);
        if self.target == Target::Shared {
            return (lanes, addresses);
        }
        let local = each_lane(|lane| addresses[lane].wrapping_sub(SHARED_WINDOW));
        for lane in lanes_of(lanes) {
            if local[lane] >= WINDOW_BYTES {
                cx.report_at(Kind::OutOfBounds, lane, Some(addresses[lane]), None, || {
                    "a row of a matrix at a generic address outside shared memory".into()
                });
                lanes &= !(1 << lane);
            }
        }
        (lanes, local)
    }
}

impl Execute for Load {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        expect_whole_warp(cx);
        let (lanes, addresses) = self.rows.of(cx, self.registers.len());
        let mut rows = Rows::zero();
        cx.load_rows(lanes, &addresses, &mut rows);
        for (matrix, &register) in rows.rows.as_chunks::<8>().0.iter().zip(&self.registers) {
            cx.set(register, &matrix8x8::load(matrix, self.transpose));
        }
        if cx.checked() {
            for (matrix, register) in rows.undefined.as_chunks::<8>().0.iter().zip(&self.registers) {
                let undefined = if rows.any_undefined { undefined_lanes(matrix, self.transpose) } else { 0 };
                cx.set_undefined(register.id, undefined);
            }
        }
        Flow::Next
    }
}

impl Execute for Store {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        expect_whole_warp(cx);
        let (lanes, addresses) = self.rows.of(cx, self.registers.len());
        let mut rows = Rows::zero();
        for (matrix, &register) in rows.rows.as_chunks_mut::<8>().0.iter_mut().zip(&self.registers) {
            *matrix = matrix8x8::store(cx.get(register), self.transpose);
        }
        if cx.checked() {
            for (matrix, register) in rows.undefined.as_chunks_mut::<8>().0.iter_mut().zip(&self.registers) {
                let undefined = cx.undefined(register.id) & cx.active;
                if undefined != 0 {
                    *matrix = undefined_bytes(undefined, self.transpose);
                    rows.any_undefined = true;
                }
            }
        }
        cx.worker.effects += 1;
        cx.store_rows(lanes, &addresses, &rows);
        Flow::Next
    }
}

impl Execute for Transpose {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        expect_whole_warp(cx);
        let value = matrix8x8::transposed(cx.get(self.a));
        cx.set(self.d, &value);
        if cx.checked() {
            let undefined = cx.undefined(self.a.id) & cx.active;
            let undefined = if undefined == 0 { 0 } else { nonzero(&matrix8x8::transposed(&spread(undefined))) };
            cx.set_undefined(self.d.id, undefined);
        }
        Flow::Next
    }
}

/// The lanes that get anything of the undefined bytes (one bit each) of a matrix's rows.
#[cold]
fn undefined_lanes(bytes: &[u32; 8], transpose: bool) -> Mask {
    let rows: [Row; 8] = bytes.map(|bytes| {
        std::array::from_fn(|word| (0..4).filter(|byte| bytes >> (4 * word + byte) & 1 == 1).map(|byte| 0xff << (8 * byte)).sum())
    });
    nonzero(&matrix8x8::load(&rows, transpose))
}

/// The undefined bytes of a matrix's rows (one bit each) when these lanes of its register are undefined.
#[cold]
fn undefined_bytes(lanes: Mask, transpose: bool) -> [u32; 8] {
    matrix8x8::store(&spread(lanes), transpose)
        .map(|row| (0..16).filter(|byte| row[byte / 4] >> (8 * (byte % 4)) & 0xff != 0).map(|byte| 1 << byte).sum())
}

/// A register that is all ones in these lanes.
fn spread(lanes: Mask) -> Register {
    std::array::from_fn(|lane| if lanes >> lane & 1 == 1 { !0 } else { 0 })
}

/// The lanes where a register is not zero.
fn nonzero(register: &Register) -> Mask {
    (0..WARP).filter(|&lane| register[lane] != 0).map(|lane| 1 << lane).sum()
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let modifiers = modifiers(i);
    let decoded = match (i.opcode.as_str(), modifiers.as_slice()) {
        ("movmatrix", ["sync", "aligned", "m8n8", "trans", "b16"]) => {
            let [d, a] = cx.operands(i)?;
            let (a, d) = (cx.source(a)?, cx.dest(d)?);
            Decoded::new(Class::Warp, Transpose { d, a })
        }
        (opcode @ ("ldmatrix" | "stmatrix"), ["sync", "aligned", "m8n8", number @ ("x1" | "x2" | "x4"), rest @ .., "b16"]) => {
            let (transpose, space) = match rest {
                ["trans", space @ ..] => (true, space),
                space => (false, space),
            };
            let target = match space {
                [] => Target::Generic,
                ["shared" | "shared::cta"] => Target::Shared,
                _ => return Err(cx.unsupported(i)),
            };
            let matrices = if *number == "x4" { 4 } else { usize::from(*number == "x2") + 1 };
            let [first, second] = cx.operands(i)?;
            let (registers, address) = if opcode == "ldmatrix" { (first, second) } else { (second, first) };
            let (address, target) = AddressOperand::new(cx, address, target)?;
            let rows = RowAddresses { target, address };
            if opcode == "ldmatrix" {
                let registers = dests(cx, registers, matrices, opcode)?.into();
                Decoded::new(Class::Shared, Load { registers, rows, transpose })
            } else {
                let registers = sources(cx, registers, matrices, opcode)?.into();
                Decoded::new(Class::Shared, Store { registers, rows, transpose })
            }
        }
        _ => Err(cx.unsupported(i)),
    };
    Ok(decoded?.with_own_taint().meeting(Meeting::Warp))
}
