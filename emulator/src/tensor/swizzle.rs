//! Shared-memory swizzles: which 16 bytes of a row of 32, 64 or 128 bytes are stored where (ISA 5.5.7 "Swizzling Modes";
//! `CUtensorMapSwizzle` of the driver API).
//!
//! With a span of `2^s` 16-byte chunks, bits 4 .. 4+s of an address are XORed with bits 7 .. 7+s: the chunk's index in its span
//! with the index of its 128-byte line. The pattern repeats every 256, 512 or 1024 bytes, and it is one of *absolute* shared
//! addresses: the tensor memory accelerator and `wgmma` agree whatever the buffer's alignment. The variants with atoms of 32 and
//! 64 bytes, of newer GPUs than Hopper, are not supported.

/// A swizzling mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Swizzle {
    /// Addresses are left as they are.
    #[default]
    None,
    /// 16-byte chunks within 32 bytes.
    B32,
    /// 16-byte chunks within 64 bytes.
    B64,
    /// 16-byte chunks within 128 bytes.
    B128,
}

impl Swizzle {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::None, Self::B32, Self::B64, Self::B128];

    /// Bytes within which chunks trade places: 16 for none.
    pub const fn span(self) -> u32 {
        match self {
            Self::None => 16,
            Self::B32 => 32,
            Self::B64 => 64,
            Self::B128 => 128,
        }
    }

    /// Bytes after which the pattern repeats; 16 for none.
    pub const fn period(self) -> u32 {
        match self {
            Self::None => 16,
            swizzled => 8 * swizzled.span(),
        }
    }

    /// Where what belongs at the shared address `address` is stored. The function is its own inverse.
    #[inline]
    pub const fn apply(self, address: u32) -> u32 {
        self.apply_from(address, 0)
    }

    /// [`apply`](Self::apply) with the pattern starting `line` 128-byte lines after a multiple of its period: `wgmma`'s base offset.
    #[inline]
    pub const fn apply_from(self, address: u32, line: u32) -> u32 {
        let chunks = self.span() / 16;
        address ^ (((address >> 7).wrapping_sub(line) & (chunks - 1)) << 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manual's pictures of one period: in row `y` of 128 bytes, chunk `x` lies at `x ^ y` (128B), and so on.
    #[test]
    fn chunks_are_where_the_manual_draws_them() {
        let row = |swizzle: Swizzle, y: u32| -> Vec<u32> { (0..8).map(|x| swizzle.apply(128 * y + 16 * x) / 16 % 8).collect() };
        assert_eq!(row(Swizzle::B128, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(row(Swizzle::B128, 1), [1, 0, 3, 2, 5, 4, 7, 6]);
        assert_eq!(row(Swizzle::B128, 2), [2, 3, 0, 1, 6, 7, 4, 5]);
        assert_eq!(row(Swizzle::B128, 7), [7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(row(Swizzle::B128, 8), row(Swizzle::B128, 0));
        assert_eq!(row(Swizzle::B64, 1), [1, 0, 3, 2, 5, 4, 7, 6]);
        assert_eq!(row(Swizzle::B64, 3), [3, 2, 1, 0, 7, 6, 5, 4]);
        assert_eq!(row(Swizzle::B64, 4), row(Swizzle::B64, 0));
        assert_eq!(row(Swizzle::B32, 1), [1, 0, 3, 2, 5, 4, 7, 6]);
        assert_eq!(row(Swizzle::B32, 2), row(Swizzle::B32, 0));
        assert_eq!(row(Swizzle::None, 5), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn swizzles_permute_each_span_and_undo_themselves() {
        for swizzle in Swizzle::ALL {
            for line in 0..8 {
                for address in 0..4096 {
                    let stored = swizzle.apply_from(address, line);
                    assert_eq!(swizzle.apply_from(stored, line), address);
                    assert_eq!(stored / swizzle.span(), address / swizzle.span());
                    assert_eq!(stored % 16, address % 16);
                    assert_eq!(swizzle.apply_from(address + swizzle.period(), line), stored + swizzle.period());
                }
            }
        }
    }
}
