//! Tensor maps: what the copy engine (TMA, from `sm_90` on) must know of a tensor in global memory to copy boxes of it.
//!
//! The rules that [`TensorMapLayout::check`] names are those of `cuTensorMapEncodeTiled` in the CUDA driver's documentation, which
//! itself answers any mistake with nothing but "invalid value".

use super::memory::View;
use crate::error::{Error, Result};

/// An encoded tensor map: 128 bytes that only the device which encoded it can read. Passed to kernels by value, as
/// `const __grid_constant__ TensorMap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub struct TensorMap([u8; 128]);

impl TensorMap {
    /// For implementations of [`Device`](super::Device).
    pub fn from_bytes(bytes: [u8; 128]) -> Self {
        Self(bytes)
    }

    /// The device's own encoding.
    pub fn as_bytes(&self) -> &[u8; 128] {
        &self.0
    }
}

/// Types of the elements that the copy engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum TensorMapElement {
    U8,
    U16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl TensorMapElement {
    /// Bytes of one.
    pub fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }
}

/// How 16-byte chunks of a box's rows are exchanged in shared memory, so that columns are read without bank conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swizzle {
    /// Rows as they are.
    #[default]
    None,
    /// Within rows of 32 bytes.
    B32,
    /// Within rows of 64 bytes.
    B64,
    /// Within rows of 128 bytes.
    B128,
}

impl Swizzle {
    /// The most bytes that a box's row may have; `None` without a swizzle.
    pub fn span(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::B32 => Some(32),
            Self::B64 => Some(64),
            Self::B128 => Some(128),
        }
    }
}

/// How much of a row the copy engine reads into the L2 cache at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum L2Promotion {
    /// What is asked for.
    #[default]
    None,
    /// 64 bytes.
    B64,
    /// 128 bytes.
    B128,
    /// 256 bytes.
    B256,
}

/// What is written for elements of a box that lie outside of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfBounds {
    /// Zeros.
    #[default]
    Zero,
    /// A NaN; floating types only.
    NaN,
}

/// A tensor in global memory and the boxes that are copied of it. Dimensions count from the innermost, whose elements are adjacent.
#[derive(Debug, Clone)]
pub struct TensorMapLayout<'a> {
    /// Where it lies: its begin must be a multiple of 16 bytes.
    pub memory: View<'a>,
    /// Type of its elements.
    pub element: TensorMapElement,
    /// Elements in each of 1 to 5 dimensions.
    pub shape: &'a [u64],
    /// Bytes from one index to the next in each dimension but the innermost: one less than `shape` has. Multiples of 16.
    pub strides: &'a [u64],
    /// Elements of a box in each dimension, at most 256.
    pub tile: &'a [u32],
    /// Arrangement in shared memory.
    pub swizzle: Swizzle,
    /// Reading into L2.
    pub l2_promotion: L2Promotion,
    /// Outside of the tensor.
    pub out_of_bounds: OutOfBounds,
}

impl TensorMapLayout<'_> {
    /// An error that names the rule which it breaks, if it breaks one. Implementations call it first.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::device(format!("tensor map of `{}`: {message}", self.memory.buffer().name())));
        let Self { shape, strides, tile, .. } = self;
        let rank = shape.len();
        if !(1..=5).contains(&rank) || strides.len() + 1 != rank || tile.len() != rank {
            let (strides, tile) = (strides.len(), tile.len());
            return fail(format!("{rank} extents with {strides} strides and a tile of {tile}: expected 1 to 5, one less, as many"));
        }
        if !self.memory.address().is_multiple_of(16) {
            return fail(format!("offset {} is no multiple of 16 bytes", self.memory.offset()));
        }
        if shape.iter().any(|&n| n == 0 || n > 1 << 32) {
            return fail(format!("shape {shape:?}: each extent must be 1 to 2^32"));
        }
        if strides.iter().any(|&n| !n.is_multiple_of(16) || n >= 1 << 40) {
            return fail(format!("strides {strides:?}: each must be a multiple of 16 bytes, below 2^40"));
        }
        if tile.iter().any(|&n| n == 0 || n > 256) {
            return fail(format!("tile {tile:?}: each extent must be 1 to 256"));
        }
        let row = u64::from(tile[0]) * self.element.size();
        if !row.is_multiple_of(16) {
            return fail(format!("a row of the tile has {row} bytes, which is no multiple of 16"));
        }
        if let Some(span) = self.swizzle.span().filter(|&span| row > span) {
            return fail(format!("a row of the tile has {row} bytes, more than the {span} of its swizzle"));
        }
        if self.out_of_bounds == OutOfBounds::NaN && !self.element.is_float() {
            return fail(format!("elements of type {:?} have no NaN to fill with", self.element));
        }
        // The last element's end: saturated, it lies outside of any buffer.
        let steps = shape[1..].iter().zip(*strides).map(|(&n, &stride)| (n - 1).saturating_mul(stride));
        let end = steps.fold(shape[0].saturating_mul(self.element.size()), u64::saturating_add);
        if end > self.memory.bytes() as u64 {
            return fail(format!(
                "shape {shape:?} with strides {strides:?} needs {end} bytes, its memory has {}",
                self.memory.bytes()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Buffer;
    use super::*;

    #[test]
    fn each_broken_rule_is_named() {
        let buffer = Buffer::new("weights", 0x1000, 64 * 256, ());
        let good = TensorMapLayout {
            memory: buffer.all(),
            element: TensorMapElement::BF16,
            shape: &[128, 64],
            strides: &[256],
            tile: &[64, 64],
            swizzle: Swizzle::B128,
            l2_promotion: L2Promotion::B256,
            out_of_bounds: OutOfBounds::NaN,
        };
        good.check().unwrap();
        let bad = [
            (TensorMapLayout { shape: &[], ..good.clone() }, "extents"),
            (TensorMapLayout { strides: &[], ..good.clone() }, "strides"),
            (TensorMapLayout { tile: &[64], ..good.clone() }, "tile"),
            (TensorMapLayout { memory: buffer.view(8..).unwrap(), ..good.clone() }, "offset 8"),
            (TensorMapLayout { shape: &[0, 64], ..good.clone() }, "2^32"),
            (TensorMapLayout { strides: &[250], ..good.clone() }, "multiple of 16"),
            (TensorMapLayout { tile: &[64, 257], ..good.clone() }, "256"),
            (TensorMapLayout { tile: &[4, 64], ..good.clone() }, "8 bytes"),
            (TensorMapLayout { tile: &[128, 64], ..good.clone() }, "swizzle"),
            (TensorMapLayout { element: TensorMapElement::U16, ..good.clone() }, "NaN"),
            (TensorMapLayout { shape: &[128, 65], ..good.clone() }, "16640"),
            (TensorMapLayout { shape: &[1 << 32, 1 << 32], strides: &[(1 << 40) - 16], ..good.clone() }, "needs"),
        ];
        for (layout, word) in bad {
            let message = layout.check().unwrap_err().to_string();
            assert!(message.contains("`weights`") && message.contains(word), "{word}: {message}");
        }
    }
}
