//! Operands of `wgmma.mma_async` in shared memory (ISA 9.7.15.5): gathered into the registers in which `mma` takes them.
//!
//! The 8 rows × 16 bytes (K-major), or 8 k × 16 bytes (MN-major), that the manual calls a core matrix are what one register of a
//! warp holds, so a tile in shared memory becomes registers with no arithmetic, and [`Mma::wgmma`] does the rest. The four warps of
//! a warpgroup share B: gather and [`unpack`](Mma::unpack) it once.
//!
//! ```
//! # fn main() -> Result<(), String> {
//! use ptx_emulator::tensor::descriptor::{Descriptor, Major};
//! use ptx_emulator::tensor::element::{Accumulator, Multiplicand};
//! use ptx_emulator::tensor::mma::{Addend, Mma};
//! use ptx_emulator::tensor::wgmma::{Tile, row_of};
//!
//! let shared = vec![0u8; 65536];
//! let read = |address: u32| row_of(&shared, address).ok_or(format!("no shared memory at {address:#x}"));
//! let mma = Mma::wgmma(64, Multiplicand::Bf16, Multiplicand::Bf16, Accumulator::F32)?.scaled(1, -1)?;
//! let a = Tile::new(Descriptor::decode(1 << 62 | 64 << 32)?, Major::K, Multiplicand::Bf16)?;
//! let b = Tile::new(Descriptor::decode(1 << 62 | 64 << 32 | 0x400)?, Major::K, Multiplicand::Bf16)?;
//! let panels = mma.unpack(&b.gather(0, 64, read)?);
//! for warp in 0..4 {
//!     let mut d = vec![[0; 32]; mma.d().registers()];
//!     mma.multiply(&a.gather(16 * warp, 16, read)?, &panels, Addend::Zero, &mut d);
//! }
//! # Ok(())
//! # }
//! ```

use super::Register;
use super::descriptor::{Descriptor, Major};
use super::element::Multiplicand;
use super::matrix8x8::{self, Row};
#[cfg(doc)]
use super::mma::Mma;

/// A tile of A or B in shared memory, as one `wgmma` reads it: its rows (M of A, N of B) by 32 bytes of K.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    descriptor: Descriptor,
    major: Major,
}

impl Tile {
    /// A tile of elements of type `element`.
    ///
    /// # Errors
    /// For an MN-major tile (imm-trans 1) of elements other than f16 and bf16, which `wgmma` cannot transpose.
    pub fn new(descriptor: Descriptor, major: Major, element: Multiplicand) -> Result<Self, String> {
        if major == Major::Mn && element.bits() != 16 {
            return Err(format!("wgmma transposes f16 and bf16 only, not {element:?}"));
        }
        Ok(Self { descriptor, major })
    }

    /// The shared addresses, of 16 bytes each, that make up the register of rows `8·block` to `8·block + 7` and of the first or
    /// second (`step` 0 or 1) 16 bytes of K.
    pub fn addresses(self, block: u32, step: u32) -> [u32; 8] {
        std::array::from_fn(|i| match self.major {
            Major::K => self.descriptor.chunk(Major::K, 8 * block + i as u32, step),
            Major::Mn => self.descriptor.chunk(Major::Mn, 8 * step + i as u32, block),
        })
    }

    /// The registers of `rows` rows from `first` on (both multiples of 8), in the order of the fragment of A or B; `read` gives
    /// the 16 bytes at a shared address, and may note the access, or refuse it. A `read` of masks of undefined bits gives the
    /// registers' undefined bits.
    ///
    /// # Errors
    /// The first of `read`.
    pub fn gather<E>(self, first: u32, rows: u32, mut read: impl FnMut(u32) -> Result<Row, E>) -> Result<Vec<Register>, E> {
        let mut registers = Vec::with_capacity(rows as usize / 4);
        for step in 0..2 {
            for block in first / 8..(first + rows) / 8 {
                let mut lines = [Row::default(); 8];
                for (line, address) in lines.iter_mut().zip(self.addresses(block, step)) {
                    *line = read(address)?;
                }
                registers.push(matrix8x8::load(&lines, self.major == Major::Mn));
            }
        }
        Ok(registers)
    }
}

/// 16 bytes of little-endian memory at `address`, if they are there.
pub fn row_of(memory: &[u8], address: u32) -> Option<Row> {
    let bytes = memory.get(address as usize..)?.first_chunk::<16>()?;
    Some(std::array::from_fn(|i| u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])))
}

#[cfg(test)]
mod tests;
