//! The element types of ggml's tensors, as far as they are written here.

use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::io::FloatType;
use crate::{Error, Result};

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgmlType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// Blocks of 32 values of a row: a scale in f16, then 32 bytes; a value is its byte times the scale.
    Q8_0,
}

/// Values of a block of [`GgmlType::Q8_0`].
const BLOCK: usize = 32;

impl GgmlType {
    const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8_0];

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// ggml's number of the type.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
        }
    }

    /// llama.cpp's number of a file most of whose matrices have this type.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }

    /// The type of a matrix whose rows have this many values: blocks do not cross rows.
    pub(super) fn for_rows_of(self, cols: usize) -> Self {
        if self == Self::Q8_0 && !cols.is_multiple_of(BLOCK) { Self::F16 } else { self }
    }

    /// Bytes of so many values.
    pub(super) fn bytes(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::F16 => 2 * values,
            Self::Q8_0 => values / BLOCK * (2 + BLOCK),
        }
    }

    /// Whether all values stay finite.
    pub(super) fn holds(self, values: &[f32]) -> bool {
        values.iter().all(|&value| {
            value.is_finite()
                && match self {
                    Self::F32 => true,
                    Self::F16 => !FloatType::F16.overflows(value),
                    Self::Q8_0 => !FloatType::F16.overflows(value / 127.0),
                }
        })
    }

    /// Replaces `bytes` by the values in this type.
    pub(super) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => FloatType::F32.encode(values, bytes),
            Self::F16 => FloatType::F16.encode(values, bytes),
            Self::Q8_0 => {
                bytes.clear();
                bytes.extend(values.as_chunks::<BLOCK>().0.iter().flat_map(quantise));
            }
        }
    }
}

/// A block: the scale `d = max|x|/127` in f16, then `x/d` rounded to the nearest whole number, halves away from zero. The quotient is
/// that of the scale in f32, as ggml computes it.
fn quantise(values: &[f32; BLOCK]) -> [u8; 2 + BLOCK] {
    let scale = values.iter().fold(0.0, |most: f32, value| most.max(value.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = [0; 2 + BLOCK];
    let (head, quotients) = block.split_at_mut(2);
    head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    quotients.iter_mut().zip(values).for_each(|(quotient, value)| *quotient = ((value * inverse).round() as i8) as u8);
    block
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GgmlType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|ggml| ggml.name() == name);
        found.ok_or_else(|| Error::config(format!("GGUF files cannot be written in `{name}`; there are {}", known())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the public `gguf` package 0.19 makes of these values.
    #[test]
    fn blocks_are_those_of_the_public_package() {
        let first: Vec<f32> = (0..32).map(|i| (i * 37 % 64 - 31) as f32 / 7.0).collect();
        let third: Vec<f32> = (0..32).map(|i| ((i * 29 % 61 - 30) as f64 * 1e-3) as f32).collect();
        let mut bytes = Vec::new();
        GgmlType::Q8_0.encode(&[first, vec![0.0; 32], third].concat(), &mut bytes);
        let expected: [[u8; 34]; 3] = [
            [
                156, 40, 133, 24, 173, 64, 212, 103, 252, 145, 36, 185, 75, 224, 115, 8, 157, 48, 196, 87, 236, 127, 20, 169, 60,
                208, 99, 248, 141, 32, 181, 71, 220, 111,
            ],
            [0; 34],
            [
                190, 11, 129, 252, 119, 239, 106, 226, 93, 214, 80, 201, 68, 188, 55, 176, 42, 163, 30, 150, 17, 137, 4, 127, 248,
                114, 235, 102, 222, 89, 209, 76, 197, 64,
            ],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(bytes.len(), GgmlType::Q8_0.bytes(96));
    }

    #[test]
    fn the_range_of_each_type_is_known() {
        assert_eq!(GgmlType::ALL.map(|ggml| ggml.holds(&[1.0, -1e5])), [true, false, true]);
        assert_eq!(GgmlType::ALL.map(|ggml| ggml.holds(&[1e7])), [true, false, false]);
        assert_eq!(GgmlType::ALL.map(|ggml| ggml.holds(&[f32::NAN])), [false; 3]);
        assert_eq!([32, 48].map(|cols| GgmlType::Q8_0.for_rows_of(cols)), [GgmlType::Q8_0, GgmlType::F16]);
        assert!("q4_0".parse::<GgmlType>().unwrap_err().to_string().contains("`q4_0`; there are float32, float16, q8_0"));
    }
}
