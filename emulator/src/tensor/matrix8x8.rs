//! The warp-wide moves of 8 × 8 matrices of 16-bit elements: `ldmatrix` (ISA 9.7.14.5.15), `stmatrix` (9.7.14.5.16) and
//! `movmatrix` (9.7.14.5.17).
//!
//! In a register, lane `l` holds elements `2·(l % 4)` and `2·(l % 4) + 1` of row `l / 4`. Row `r` of matrix `i` is the 16 bytes at
//! the address that lane `8·i + r` gives. The functions only move bits, so they move masks of undefined bits as well.

use super::Register;

/// 16 bytes of shared memory, as four little-endian words.
pub type Row = [u32; 4];

/// `ldmatrix`: the register of one matrix from its eight rows; with `transpose` (`.trans`) the rows are its columns.
#[inline(always)]
pub fn load(rows: &[Row; 8], transpose: bool) -> Register {
    let register: Register = bytemuck::cast(*rows);
    if transpose { transposed(&register) } else { register }
}

/// `stmatrix`: the eight rows of one matrix from its register; with `transpose` (`.trans`) the rows are its columns.
#[inline(always)]
pub fn store(register: &Register, transpose: bool) -> [Row; 8] {
    bytemuck::cast(if transpose { transposed(register) } else { *register })
}

/// `movmatrix.trans`: the transposed matrix.
#[inline(always)]
pub fn transposed(register: &Register) -> Register {
    let element = |row: usize, column: usize| register[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff;
    let mut transposed = [0; 32];
    for (lane, word) in transposed.iter_mut().enumerate() {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        *word = element(column, row) | element(column + 1, row) << 16;
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fragment::Fragment;

    /// Element (r, c) is 8r + c.
    fn rows() -> [Row; 8] {
        std::array::from_fn(|r| std::array::from_fn(|w| (8 * r + 2 * w) as u32 | ((8 * r + 2 * w + 1) as u32) << 16))
    }

    #[test]
    fn loads_give_each_lane_its_elements() {
        let (plain, transposed) = (load(&rows(), false), load(&rows(), true));
        for lane in 0..32 {
            for part in 0..2 {
                let half = |register: &Register| (register[lane] >> (16 * part) & 0xffff) as usize;
                let (row, column) = Fragment::a(8, 8, 2).element(lane, 0, part);
                assert_eq!(half(&plain), 8 * row + column);
                let (k, n) = (column, row);
                assert_eq!(half(&transposed), 8 * k + n);
                assert_eq!(Fragment::b(8, 8, 2).element(lane, 0, part), (k, n), ".trans is how row-major B is loaded");
            }
        }
    }

    #[test]
    fn stores_undo_loads() {
        for transpose in [false, true] {
            assert_eq!(store(&load(&rows(), transpose), transpose), rows());
        }
        assert_ne!(store(&load(&rows(), true), false), rows());
    }
}
