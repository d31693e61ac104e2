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

/// Multiprocessors of the largest GPUs of today. How a sum is split depends on them, not on those of the device at hand.
const MULTIPROCESSORS: usize = 132;

impl Tiling {
    /// For C [`rows`, `columns`] on a device with so many bytes of shared memory for a block: what takes the multiprocessor with the
    /// most tiles the least time.
    pub fn new([rows, columns]: [usize; 2], element: ElementType, aligned: bool, shared: u32) -> Self {
        let usable = Self::all(element).into_iter().filter(|tiling| aligned && tiling.shared_bytes() <= shared);
        let fastest = usable.min_by_key(|tiling| tiling.tiles(rows, columns).div_ceil(MULTIPROCESSORS) * tiling.time());
        fastest.unwrap_or(Self::small(aligned))
    }

    /// For C [`rows`, `columns`] of which several blocks share a tile: the largest that there is enough of C for.
    pub fn shared([rows, columns]: [usize; 2], element: ElementType, aligned: bool, shared: u32) -> Self {
        let fits = |tiling: &Self| rows >= tiling.rows && columns >= tiling.columns && tiling.shared_bytes() <= shared;
        Self::all(element).into_iter().filter(|_| aligned).find(fits).unwrap_or(Self::small(aligned))
    }

    /// For C of `tiles` times `height` rows, where somebody else has chosen that tiles have a height of 64 or 128 rows.
    pub fn of_height(
        height: usize,
        [tiles, columns]: [usize; 2],
        element: ElementType,
        aligned: bool,
        shared: u32,
    ) -> Result<Self> {
        let usable = Self::all(element).into_iter().filter(|tiling| tiling.rows == height && tiling.shared_bytes() <= shared);
        let time = |tiling: &Self| (tiles * columns.div_ceil(tiling.columns)).div_ceil(MULTIPROCESSORS) * tiling.time();
        let fastest = usable.min_by_key(time).ok_or_else(|| Error::device(format!("tiles have 64 or 128 rows, not {height}")))?;
        Ok(match (aligned, height) {
            (true, _) => fastest,
            // Copying element by element takes the registers that a larger part of C would.
            (false, 128) => Self { rows: 128, columns: 64, warp_rows: 32, aligned },
            (false, _) => Self::small(aligned),
        })
    }

    /// All for rows at multiples of 16 bytes, the largest first.
    fn all(element: ElementType) -> Vec<Self> {
        let tiling = |rows, columns, warp_rows| Self { rows, columns, warp_rows, aligned: true };
        let (medium, small) = (tiling(64, 128, 32), Self::small(true));
        match element {
            // In float a thread's part of 64 rows would not fit into its registers.
            ElementType::F32 => vec![tiling(128, 128, 32), medium, small],
            ElementType::F16 | ElementType::BF16 => vec![tiling(128, 256, 64), tiling(128, 128, 64), medium, small],
        }
    }

    fn small(aligned: bool) -> Self {
        Self { rows: 64, columns: 64, warp_rows: 16, aligned }
    }

    /// How long a tile takes for each step along k, in no unit: what it loads through the L2 cache, and what it multiplies, which on an
    /// H200 take equally long where tiles have 128 x 256.
    fn time(self) -> usize {
        self.rows + self.columns + self.rows * self.columns / 85
    }

    /// Three stages of 128 bytes along k.
    fn shared_bytes(self) -> u32 {
        (3 * 128 * (self.rows + self.columns)) as u32
    }

    /// Tiles of C [`rows`, `columns`].
    pub fn tiles(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    /// Blocks that share each tile of C [`rows`, `columns`] where a sum over `depth` is long and the tiles are few: as many as fill
    /// the device, but none with less than 512 terms.
    pub fn splits(self, [rows, columns]: [usize; 2], depth: usize) -> usize {
        let blocks = if self.columns > 128 { MULTIPROCESSORS } else { 2 * MULTIPROCESSORS };
        (blocks / self.tiles(rows, columns).max(1)).clamp(1, (depth / 512).max(1))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Buffer, Limits};

    const H200: u32 = Limits::of_capability(9, 0).shared_per_block;
    const GEFORCE: u32 = Limits::of_capability(8, 9).shared_per_block;

    fn size(tiling: Tiling) -> [usize; 2] {
        [tiling.rows, tiling.columns]
    }

    #[test]
    fn large_tiles_where_there_are_enough_and_they_fit() {
        let of = |c, element, shared| size(Tiling::new(c, element, true, shared));
        assert_eq!(of([65536, 768], ElementType::BF16, H200), [128, 256]);
        assert_eq!(of([65536, 768], ElementType::BF16, GEFORCE), [128, 128]);
        assert_eq!(of([65536, 768], ElementType::F32, H200), [128, 128]);
        assert_eq!(of([17, 512], ElementType::BF16, H200), [64, 64]);
        assert_eq!(size(Tiling::new([65536, 768], ElementType::BF16, false, H200)), [64, 64]);
        for height in [64, 128] {
            for aligned in [true, false] {
                let tiling = Tiling::of_height(height, [40, 1408], ElementType::F16, aligned, GEFORCE).unwrap();
                assert!(tiling.rows == height && tiling.shared_bytes() <= GEFORCE && tiling.aligned == aligned);
            }
        }
        let error = Tiling::of_height(32, [1, 1], ElementType::F16, true, H200).unwrap_err().to_string();
        assert!(error.ends_with("tiles have 64 or 128 rows, not 32"), "{error}");
    }

    #[test]
    fn few_tiles_are_shared_by_as_many_blocks_as_fill_the_device() {
        let splits = |c, depth| Tiling::shared(c, ElementType::BF16, true, H200).splits(c, depth);
        assert_eq!(splits([512, 768], 65536), 11);
        assert_eq!(splits([512, 768], 2048), 4);
        assert_eq!(splits([8192, 8192], 65536), 1);
        assert_eq!(splits([8, 8], 100), 1);
    }

    #[test]
    fn memory_that_is_too_short_or_not_aligned() {
        let buffer = Buffer::new("x", 0x1000, 100, ());
        let mut layout = Layout::new("linear");
        let mut add = |rows, pitch| layout.add("x", buffer.all(), ElementType::BF16, [rows, 8], pitch);
        assert_eq!(add(6, 9).unwrap_err().to_string(), "device: linear: `x` has 50 elements, [6, 8] with rows 9 apart takes 53");
        assert!(add(2, 7).is_err() && add(usize::MAX, usize::MAX).is_err());
        add(3, 8).unwrap();
        assert!(layout.aligned());
        layout.add("y", buffer.all(), ElementType::BF16, [3, 8], 9).unwrap();
        assert!(!layout.aligned());
        assert!(layout.ints([1 << 31]).is_err());
    }
}
