//! The 64-bit matrix descriptor of `wgmma` and the shared-memory layouts that it describes (ISA 9.7.15.5.1.2, "Shared Memory
//! Matrix Layout", with its "Strides" and "Matrix Descriptor Format").
//!
//! | bits | field |
//! |---|---|
//! | 0–13 | start address / 16 |
//! | 16–29 | leading dimension byte offset / 16 |
//! | 32–45 | stride dimension byte offset / 16 |
//! | 49–51 | base offset: 128-byte lines by which the swizzle pattern's start misses a multiple of its period |
//! | 62–63 | swizzle: 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes |
//!
//! The others are zero. A matrix is made of atoms of 8 rows × one swizzle span (16 bytes without swizzle); each atom's rows follow
//! each other without gaps. The rows run along M or N and the span along K when the tile is *K-major*; the other way round when it
//! is *MN-major*. What the two offsets separate ("Major-ness supported by Strides"):
//!
//! | | leading | stride |
//! |---|---|---|
//! | K-major, no swizzle | adjacent 16 bytes along K | adjacent 8 rows along MN |
//! | K-major, swizzled | unused | adjacent 8 rows along MN |
//! | MN-major, no swizzle | adjacent 8 along K | adjacent 16 bytes along MN |
//! | MN-major, swizzled | adjacent spans along MN | adjacent 8 along K |

use super::swizzle::Swizzle;

/// A decoded matrix descriptor; addresses and offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// Shared address of the matrix, a multiple of 16.
    pub start: u32,
    /// Leading dimension byte offset.
    pub leading: u32,
    /// Stride dimension byte offset.
    pub stride: u32,
    /// Base offset, 0 to 7.
    pub base_offset: u32,
    /// Swizzling mode.
    pub swizzle: Swizzle,
}

/// Which dimension of a tile is contiguous in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Major {
    /// K: imm-trans is 0.
    K,
    /// M of A or N of B: imm-trans is 1.
    Mn,
}

const RESERVED: u64 = !(0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62);

impl Descriptor {
    /// Reads the 64 bits.
    ///
    /// # Errors
    /// A sentence when reserved bits are set, or when a base offset names another line than the one where the matrix starts. With
    /// none the pattern starts at a multiple of its period, as copies by tensor maps write it: the matrix may start inside it.
    pub fn decode(bits: u64) -> Result<Self, String> {
        if bits & RESERVED != 0 {
            return Err(format!("matrix descriptor {bits:#018x} has reserved bits set: {:#x}", bits & RESERVED));
        }
        let field = |shift: u32| ((bits >> shift & 0x3fff) as u32) << 4;
        let swizzle = [Swizzle::None, Swizzle::B128, Swizzle::B64, Swizzle::B32][(bits >> 62) as usize];
        let descriptor =
            Self { start: field(0), leading: field(16), stride: field(32), base_offset: (bits >> 49 & 7) as u32, swizzle };
        let lines = swizzle.period() / 128;
        if lines > 0 && descriptor.base_offset != 0 && (descriptor.start >> 7) % lines != descriptor.base_offset % lines {
            return Err(format!(
                "the matrix at shared address {:#x} starts {} lines of 128 bytes behind a multiple of a {}-byte swizzle's period, but \
                 the descriptor's base offset says {}: align the buffer to {} bytes and leave the base offset 0",
                descriptor.start,
                (descriptor.start >> 7) % lines,
                swizzle.span(),
                descriptor.base_offset,
                swizzle.period()
            ));
        }
        Ok(descriptor)
    }

    /// The 64 bits.
    ///
    /// # Errors
    /// A sentence when an address or offset is not a multiple of 16 below 2¹⁸, or the base offset exceeds 7.
    pub fn encode(self) -> Result<u64, String> {
        let field = |name: &str, value: u32| {
            if value.is_multiple_of(16) && value < 1 << 18 {
                Ok(u64::from(value >> 4))
            } else {
                Err(format!("{name} of a matrix descriptor is a multiple of 16 below 2^18, not {value:#x}"))
            }
        };
        if self.base_offset > 7 {
            return Err(format!("base offset of a matrix descriptor is 0 to 7, not {}", self.base_offset));
        }
        let mode = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3,
        };
        Ok(field("start address", self.start)?
            | field("leading offset", self.leading)? << 16
            | field("stride offset", self.stride)? << 32
            | u64::from(self.base_offset) << 49
            | mode << 62)
    }

    /// Shared address of the element at `row` (along M of A, N of B) and `k`, of `size` bytes.
    pub fn address(self, major: Major, row: u32, k: u32, size: u32) -> u32 {
        let (line, byte) = match major {
            Major::K => (row, k * size),
            Major::Mn => (k, row * size),
        };
        self.chunk(major, line, byte / 16) + byte % 16
    }

    /// Shared address of 16 contiguous bytes: the `chunk`-th along the contiguous dimension, in `line` of the other one. It may
    /// lie beyond shared memory.
    pub fn chunk(self, major: Major, line: u32, chunk: u32) -> u32 {
        let span = self.swizzle.span();
        let (atom, within) = (chunk / (span / 16), chunk % (span / 16));
        // Which offset separates atoms along the contiguous dimension, and which along the other.
        let (along, across) = match (major, self.swizzle) {
            (Major::K, Swizzle::None) => (self.leading, self.stride),
            (Major::K, _) => (span, self.stride),
            (Major::Mn, Swizzle::None) => (self.stride, self.leading),
            (Major::Mn, _) => (self.leading, self.stride),
        };
        let linear = self.start + atom * along + within * 16 + line / 8 * across + line % 8 * span;
        self.swizzle.apply_from(linear, self.base_offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn descriptor(swizzle: Swizzle) -> Descriptor {
        Descriptor { start: 0x2000, leading: 0x80, stride: 0x400, base_offset: 0, swizzle }
    }

    #[test]
    fn bits_survive_a_round_trip() {
        for swizzle in Swizzle::ALL {
            let descriptor = descriptor(swizzle);
            assert_eq!(Descriptor::decode(descriptor.encode().unwrap()), Ok(descriptor));
        }
        // The usual literal for a 128-byte swizzle: start 0x2000, stride 1024, leading 16.
        let bits = 1 << 62 | 64 << 32 | 1 << 16 | 0x200;
        let expected = Descriptor { start: 0x2000, leading: 16, stride: 1024, base_offset: 0, swizzle: Swizzle::B128 };
        assert_eq!(Descriptor::decode(bits), Ok(expected));
    }

    #[test]
    fn contradictions_are_refused_with_a_reason() {
        for bit in [14, 15, 30, 31, 46, 48, 52, 61] {
            assert!(Descriptor::decode(1 << bit).unwrap_err().contains("reserved"), "bit {bit}");
        }
        let shifted = |start, base_offset| Descriptor { start, base_offset, ..descriptor(Swizzle::B128) };
        assert!(Descriptor::decode(shifted(0x2080, 2).encode().unwrap()).unwrap_err().contains("align the buffer to 1024"));
        assert!(Descriptor::decode(shifted(0x2080, 0).encode().unwrap()).is_ok(), "the pattern starts before the matrix");
        assert!(Descriptor::decode(shifted(0x2080, 1).encode().unwrap()).is_ok());
        assert!(Descriptor::decode(shifted(0x2060, 0).encode().unwrap()).is_ok(), "a step along K inside the first row");
        assert!(shifted(0x2008, 0).encode().unwrap_err().contains("start address"));
        assert!(shifted(0x40000, 0).encode().unwrap_err().contains("start address"));
        assert!(shifted(0, 8).encode().unwrap_err().contains("base offset"));
    }

    /// The canonical layouts as nested strides, in 16-byte units of a row-major (8, m) × (unit, k) tile: written from the manual's
    /// figures of 64 rows of 16-bit elements, by hand for a few elements of each.
    #[test]
    fn elements_are_where_the_manual_draws_them() {
        let at = |swizzle, major, row, k| descriptor(swizzle).address(major, row, k, 2) - 0x2000;
        // K-major: 8 elements of K are contiguous.
        assert_eq!(at(Swizzle::None, Major::K, 0, 7), 14);
        assert_eq!(at(Swizzle::None, Major::K, 3, 0), 48);
        assert_eq!(at(Swizzle::None, Major::K, 0, 8), 0x80);
        assert_eq!(at(Swizzle::None, Major::K, 9, 9), 0x400 + 0x80 + 16 + 2);
        assert_eq!(at(Swizzle::B128, Major::K, 1, 0), 128 + 16);
        assert_eq!(at(Swizzle::B128, Major::K, 5, 63), 5 * 128 + (7 ^ 5) * 16 + 14);
        assert_eq!(at(Swizzle::B128, Major::K, 13, 8), 0x400 + 5 * 128 + (1 ^ 5) * 16);
        assert_eq!(at(Swizzle::B64, Major::K, 1, 0), 64, "two rows of 64 bytes share a line of 128");
        assert_eq!(at(Swizzle::B64, Major::K, 2, 0), 128 + 16);
        assert_eq!(at(Swizzle::B32, Major::K, 3, 8), 96 + 16);
        assert_eq!(at(Swizzle::B32, Major::K, 4, 8), 128);
        // MN-major: 8 elements of M or N are contiguous.
        assert_eq!(at(Swizzle::None, Major::Mn, 7, 1), 16 + 14);
        assert_eq!(at(Swizzle::None, Major::Mn, 8, 0), 0x400);
        assert_eq!(at(Swizzle::None, Major::Mn, 0, 8), 0x80);
        assert_eq!(at(Swizzle::B128, Major::Mn, 8, 0), 16);
        assert_eq!(at(Swizzle::B128, Major::Mn, 8, 1), 128);
        assert_eq!(at(Swizzle::B128, Major::Mn, 64, 8), 0x80 + 0x400 + 16);
        assert_eq!(at(Swizzle::B32, Major::Mn, 16, 0), 0x80 + 16);
    }

    #[test]
    fn each_element_has_bytes_of_its_own() {
        for swizzle in Swizzle::ALL {
            for (major, size) in [(Major::K, 1), (Major::K, 2), (Major::K, 4), (Major::Mn, 2), (Major::Mn, 1), (Major::Mn, 4)] {
                let (rows, ks) = (128, 32 / size);
                // Tiles packed without gaps: the two offsets follow from the layout.
                let (span, bytes) = (swizzle.span(), rows * ks * size);
                let (leading, stride) = match (major, swizzle) {
                    (Major::K, Swizzle::None) => (128, 256),
                    (Major::K, _) => (0, 8 * span),
                    (Major::Mn, Swizzle::None) => (128 * (rows * size / 16), 128),
                    (Major::Mn, _) => (8 * span, 8 * span * (rows * size / span)),
                };
                let tile = Descriptor { start: 0x4000, leading, stride, base_offset: 0, swizzle };
                let addresses: HashSet<u32> =
                    (0..rows).flat_map(|row| (0..ks).map(move |k| tile.address(major, row, k, size))).collect();
                assert_eq!(addresses.len() as u32, rows * ks, "{swizzle:?} {major:?} {size}");
                assert!(addresses.iter().all(|a| a % size == 0));
                // Every tile with rows of 32 bytes, or as long as the span, is packed without gaps.
                if major == Major::Mn && ks.is_multiple_of(8) || span <= 32 && major == Major::K {
                    assert!(addresses.iter().all(|a| (0x4000..0x4000 + bytes).contains(a)), "{swizzle:?} {major:?} {size}");
                }
            }
        }
    }

    /// Rows 3 and on of an aligned matrix are where a matrix that starts there, inside the pattern, has its rows 0 and on.
    #[test]
    fn without_base_offset_the_pattern_stays_where_it_is() {
        let (whole, inside) = (descriptor(Swizzle::B128), Descriptor { start: 0x2180, ..descriptor(Swizzle::B128) });
        for (row, k) in [(0, 0), (1, 8), (4, 40), (7, 3), (12, 63)] {
            assert_eq!(inside.address(Major::K, row, k, 2), whole.address(Major::K, row + 3, k, 2), "{row} {k}");
        }
    }

    #[test]
    fn base_offset_moves_the_pattern_with_the_tile() {
        let (aligned, moved) =
            (descriptor(Swizzle::B128), Descriptor { start: 0x2180, base_offset: 3, ..descriptor(Swizzle::B128) });
        for (row, k) in [(0, 0), (1, 8), (7, 40), (12, 3)] {
            assert_eq!(moved.address(Major::K, row, k, 2) - 0x180, aligned.address(Major::K, row, k, 2), "{row} {k}");
        }
    }
}
