//! The loops: 8 × 8 blocks of D, in vectors along its rows.

use super::{Addend, Mma};
use crate::tensor::Register;
use crate::tensor::element::{Accumulator, pack_f16x2, unpack_f16x2};
use crate::tensor::simd::vectorized;

vectorized! {
    /// Unpacks B: the rows of its 8-column panels, panel after panel.
    pub(super) fn unpack_b(mma: &Mma, b: &[Register], panels: &mut [[f32; 8]]) {
        match mma.b.per_register() {
            1 => unpack_blocks::<4>(mma, b, panels),
            2 => unpack_blocks::<8>(mma, b, panels),
            4 => unpack_blocks::<16>(mma, b, panels),
            _ => unpack_blocks::<32>(mma, b, panels),
        }
    }

    /// `D = A·B + C` with B unpacked.
    pub(super) fn multiply(mma: &Mma, a: &[Register], b: &[[f32; 8]], c: Addend, d: &mut [Register]) {
        match mma.a.per_register() {
            1 => multiply_blocks::<4>(mma, a, b, c, d),
            2 => multiply_blocks::<8>(mma, a, b, c, d),
            4 => multiply_blocks::<16>(mma, a, b, c, d),
            _ => multiply_blocks::<32>(mma, a, b, c, d),
        }
    }
}

#[inline(always)]
fn unpack_blocks<const W: usize>(mma: &Mma, b: &[Register], panels: &mut [[f32; 8]]) {
    let columns = mma.n / 8;
    for (panel, rows) in panels.chunks_exact_mut(mma.k).enumerate() {
        for (step, rows) in rows.chunks_exact_mut(W).enumerate() {
            let block = mma.b.block::<W>(&b[panel + columns * step]);
            for (k, row) in rows.iter_mut().enumerate() {
                *row = std::array::from_fn(|j| block[j][k]);
            }
        }
    }
}

#[inline(always)]
fn multiply_blocks<const W: usize>(mma: &Mma, a: &[Register], b: &[[f32; 8]], c: Addend, d: &mut [Register]) {
    let rows = mma.m / 8;
    // k is one or two blocks wide in every shape.
    let steps = mma.k / W;
    for i in 0..rows {
        let mut blocks = [[[0.0; W]; 8]; 2];
        for (step, block) in blocks[..steps].iter_mut().enumerate() {
            *block = mma.a.block(&a[i + rows * step]);
            if mma.negate {
                block.as_flattened_mut().iter_mut().for_each(|x| *x = -*x);
            }
        }
        for (j, panel) in b.chunks_exact(mma.k).enumerate() {
            let block = i + rows * j;
            let mut sum = if mma.a.is_integer() { [[0.0; 8]; 8] } else { load(mma, c, d, block) };
            for (a, b) in blocks.iter().zip(panel.chunks_exact(W)) {
                accumulate(a, b, &mut sum);
            }
            if mma.a.is_integer() { store_integers(mma, &sum, c, d, block) } else { store(mma, &sum, d, block) }
        }
    }
}

/// `sum += a·b` for 8 rows and 8 columns.
#[inline(always)]
fn accumulate<const W: usize>(a: &[[f32; W]; 8], b: &[[f32; 8]], sum: &mut [[f32; 8]; 8]) {
    for (k, b) in b.iter().enumerate().take(W) {
        for i in 0..8 {
            for j in 0..8 {
                sum[i][j] += a[i][k] * b[j];
            }
        }
    }
}

/// The block of 8 × 8 elements of a float C.
#[inline(always)]
fn load(mma: &Mma, c: Addend, d: &[Register], block: usize) -> [[f32; 8]; 8] {
    let (registers, kind) = match c {
        Addend::Zero => return [[0.0; 8]; 8],
        Addend::Registers(c) => (c, mma.c),
        Addend::Destination => (d, mma.d),
    };
    let mut elements = [[0.0; 8]; 8];
    let pairs = elements.as_flattened_mut().as_chunks_mut::<2>().0;
    if kind == Accumulator::F16 {
        for (pair, &word) in pairs.iter_mut().zip(&registers[block]) {
            *pair = unpack_f16x2(word);
        }
    } else {
        let (left, right) = (&registers[2 * block], &registers[2 * block + 1]);
        for (pair, (&x, &y)) in pairs.iter_mut().zip(left.iter().zip(right)) {
            *pair = [f32::from_bits(x), f32::from_bits(y)];
        }
    }
    elements
}

/// Writes a block of 8 × 8 elements to a float D.
#[inline(always)]
fn store(mma: &Mma, elements: &[[f32; 8]; 8], d: &mut [Register], block: usize) {
    let pairs = elements.as_flattened().as_chunks::<2>().0;
    if mma.d == Accumulator::F16 {
        for (word, &pair) in d[block].iter_mut().zip(pairs) {
            *word = pack_f16x2(pair);
        }
    } else {
        for part in 0..2 {
            for (word, pair) in d[2 * block + part].iter_mut().zip(pairs) {
                *word = if pair[part].is_nan() { 0x7fff_ffff } else { pair[part].to_bits() };
            }
        }
    }
}

/// Writes a block of 8 × 8 exact integer sums of products, with C added.
#[inline(always)]
fn store_integers(mma: &Mma, sums: &[[f32; 8]; 8], c: Addend, d: &mut [Register], block: usize) {
    for part in 0..2 {
        let addend = match c {
            Addend::Zero => [0; 32],
            Addend::Registers(c) => c[2 * block + part],
            Addend::Destination => d[2 * block + part],
        };
        for (lane, word) in d[2 * block + part].iter_mut().enumerate() {
            let (product, addend) = (sums[lane / 4][2 * (lane % 4) + part] as i32, addend[lane] as i32);
            *word = (if mma.saturate { addend.saturating_add(product) } else { addend.wrapping_add(product) }) as u32;
        }
    }
}
