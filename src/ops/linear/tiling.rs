//! How a product is cut into tiles: what `kernels/matmul_tile.cuh` is compiled with.

use crate::error::{Error, Result};
use crate::gpu::{ElementType, View};

/// The tiles of C that blocks own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a tile.
    pub rows: usize,
    /// Columns of a tile.
    pub columns: usize,
    /// Rows of a warp's part; it has 64 columns.
    warp_rows: usize,
    /// Whether every row of every matrix begins at a multiple of 16 bytes.
    aligned: bool,
}

/// Blocks that keep the largest GPUs of today busy: one on each of 132 multiprocessors. The number depends on nothing else, so that
/// sums come out alike on every device.
const BLOCKS: usize = 132;

impl Tiling {
    /// For C [`rows`, `columns`]: the largest tiles of which there are enough for all multiprocessors.
    pub fn new(rows: usize, columns: usize, element: ElementType, aligned: bool) -> Self {
        let largest = [Self::large(element), Self::medium()].into_iter().find(|tiling| tiling.tiles(rows, columns) >= BLOCKS);
        largest.filter(|_| aligned).unwrap_or(Self::small(aligned))
    }

    /// For C [`rows`, `columns`] of which several blocks share a tile.
    pub fn shared(rows: usize, columns: usize, element: ElementType, aligned: bool) -> Self {
        let large = Self::large(element);
        if aligned && rows >= large.rows && columns >= large.columns { large } else { Self::small(aligned) }
    }

    /// For C in tiles of so many rows, 64 or 128, that somebody else has chosen.
    pub fn of_rows(rows: usize, element: ElementType, aligned: bool) -> Result<Self> {
        match (rows, aligned) {
            (128, true) => Ok(Self::large(element)),
            (64, true) => Ok(Self::medium()),
            (64, false) => Ok(Self::small(false)),
            // Copying element by element takes the registers that a larger part would.
            (128, false) => Ok(Self { rows: 128, columns: 64, warp_rows: 32, aligned }),
            _ => Err(Error::device(format!("tiles have 64 or 128 rows, not {rows}"))),
        }
    }

    /// Multiplies the most for each byte that it loads.
    fn large(element: ElementType) -> Self {
        // In float a thread's part of 64 rows would not fit into its registers.
        let warp_rows = if element == ElementType::F32 { 32 } else { 64 };
        Self { rows: 128, columns: 128, warp_rows, aligned: true }
    }

    fn medium() -> Self {
        Self { rows: 64, columns: 128, warp_rows: 32, aligned: true }
    }

    fn small(aligned: bool) -> Self {
        Self { rows: 64, columns: 64, warp_rows: 16, aligned }
    }

    /// Tiles of C [`rows`, `columns`].
    pub fn tiles(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    /// Blocks that share each tile of C [`rows`, `columns`] where a sum over `depth` is long and the tiles are few: as many as fill
    /// the device twice, but none with less than 512 terms.
    pub fn splits(self, rows: usize, columns: usize, depth: usize) -> usize {
        (2 * BLOCKS / self.tiles(rows, columns).max(1)).clamp(1, (depth / 512).max(1))
    }

    /// Macros of the kernels' file.
    pub fn defines(self) -> [(&'static str, i64); 5] {
        [
            ("TILE_M", self.rows as i64),
            ("TILE_N", self.columns as i64),
            ("WARP_M", self.warp_rows as i64),
            ("WARP_N", 64),
            ("ALIGNED", i64::from(self.aligned)),
        ]
    }
}

/// The matrices of a product: whether their memory holds them, and whether it can be moved by 16 bytes.
pub struct Layout {
    op: &'static str,
    aligned: bool,
}

impl Layout {
    /// Of no matrix yet.
    pub fn new(op: &'static str) -> Self {
        Self { op, aligned: true }
    }

    /// A matrix of `rows` × `cols`, its rows `pitch` elements apart. An error if the memory ends before it.
    pub fn add(
        &mut self,
        name: &'static str,
        memory: View<'_>,
        element: ElementType,
        [rows, cols]: [usize; 2],
        pitch: usize,
    ) -> Result<()> {
        let held = memory.bytes() / element.bytes();
        let needed = if rows == 0 { 0 } else { (rows - 1).saturating_mul(pitch).saturating_add(cols) };
        if needed > held || (pitch < cols && rows > 1) {
            let op = self.op;
            return Err(Error::device(format!(
                "{op}: `{name}` has {held} elements, [{rows}, {cols}] with rows {pitch} apart takes {needed}"
            )));
        }
        self.aligned &= memory.address().is_multiple_of(16) && (pitch * element.bytes()).is_multiple_of(16);
        Ok(())
    }

    /// Whether every row of every matrix begins at a multiple of 16 bytes.
    pub fn aligned(&self) -> bool {
        self.aligned
    }

    /// Numbers as kernels take them.
    pub fn ints<const N: usize>(&self, numbers: [usize; N]) -> Result<[i32; N]> {
        let mut ints = [0; N];
        for (int, number) in ints.iter_mut().zip(numbers) {
            *int = i32::try_from(number).map_err(|_| Error::device(format!("{}: {number} is more than {}", self.op, i32::MAX)))?;
        }
        Ok(ints)
    }
}
