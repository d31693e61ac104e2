//! The floating-point types of weights files.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16, slice::HalfFloatSliceExt};
use safetensors::Dtype;

use crate::tensor::Element;
use crate::{Error, Result};

/// A type that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// 32 bits.
    F32,
    /// The upper half of an f32: its range, 8 bits of precision.
    BF16,
    /// IEEE 754 half precision: 11 bits of precision, up to 65504.
    F16,
}

impl FloatType {
    const ALL: [Self; 3] = [Self::F32, Self::BF16, Self::F16];

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 | Self::F16 => 2,
        }
    }

    /// As PyTorch and `config.json` call it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::BF16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// As the header of a safetensors file calls it.
    pub(super) fn header_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::BF16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// The type that a safetensors file declares, where it is one of these.
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::BF16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// Values as little-endian bytes of this type, each rounded to the nearest, ties to even; beyond its range, infinite.
    pub(super) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        bytes.clear();
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::BF16 => bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
            Self::F16 => bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
        }
    }

    /// Whether a finite value becomes infinite in this type.
    pub(super) fn overflows(self, value: f32) -> bool {
        value.is_finite()
            && match self {
                Self::F32 => false,
                Self::BF16 => bf16::from_f32(value).is_infinite(),
                Self::F16 => f16::from_f32(value).is_infinite(),
            }
    }
}

/// A type that a model's weights are held in.
pub trait Weight: Element + PartialEq {
    /// Little-endian values of a type to this one, each exactly or to the nearest, ties to even. `bytes` holds one for each of `values`.
    #[doc(hidden)]
    fn decode(float: FloatType, bytes: &[u8], values: &mut [Self]);
}

impl Weight for f32 {
    fn decode(float: FloatType, bytes: &[u8], values: &mut [Self]) {
        match float {
            FloatType::F32 => from_le(bytes, values, Self::from_le_bytes),
            FloatType::BF16 => from_le(bytes, values, |b| Self::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            // The machine's own instruction, where it has one and the values lie aligned.
            FloatType::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(halves) if cfg!(target_endian = "little") => halves.convert_to_f32_slice(values),
                _ => from_le(bytes, values, |b| f16::from_le_bytes(b).to_f32()),
            },
        }
    }
}

impl Weight for bf16 {
    fn decode(float: FloatType, bytes: &[u8], values: &mut [Self]) {
        match float {
            FloatType::F32 => from_le(bytes, values, |b| Self::from_f32(f32::from_le_bytes(b))),
            FloatType::BF16 => from_le(bytes, values, Self::from_le_bytes),
            FloatType::F16 => from_le(bytes, values, |b| Self::from_f32(f16::from_le_bytes(b).to_f32())),
        }
    }
}

/// Little-endian values of N bytes each.
pub(super) fn from_le<const N: usize, E>(bytes: &[u8], values: &mut [E], from: impl Fn([u8; N]) -> E) {
    let (chunks, _) = bytes.as_chunks::<N>();
    values.iter_mut().zip(chunks).for_each(|(value, chunk)| *value = from(*chunk));
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.torch_name())
    }
}

impl FromStr for FloatType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::torch_name).join(", ");
        let found = Self::ALL.into_iter().find(|float| float.torch_name() == name);
        found.ok_or_else(|| Error::config(format!("weights cannot be written in `{name}`; there are {}", known())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly_and_narrowed_back() {
        for (float, value) in [
            (FloatType::BF16, (|bits| f64::from(bf16::from_bits(bits))) as fn(u16) -> f64),
            (FloatType::F16, |bits| f64::from(f16::from_bits(bits))),
        ] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![0.0; 1 << 16];
            f32::decode(float, &bytes, &mut values);
            // The same through bytes that no half can be read from in place.
            let shifted: Vec<u8> = [0].into_iter().chain(bytes.iter().copied()).collect();
            let mut unaligned = vec![0.0; 1 << 16];
            f32::decode(float, &shifted[1..], &mut unaligned);
            let mut back = Vec::new();
            float.encode(&values, &mut back);
            for (bits, (x, y)) in (0..=u16::MAX).zip(values.iter().zip(&unaligned)) {
                let at = 2 * usize::from(bits);
                match value(bits) {
                    exact if exact.is_nan() => assert!(x.is_nan() && y.is_nan(), "{float} {bits:#x}"),
                    exact => {
                        assert_eq!((f64::from(*x), f64::from(*y)), (exact, exact), "{float} {bits:#x}");
                        assert_eq!(back[at..at + 2], bytes[at..at + 2], "{float} {bits:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn bf16_keeps_its_bits_and_rounds_the_others() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut kept = vec![bf16::ZERO; 1 << 16];
        bf16::decode(FloatType::BF16, &bytes, &mut kept);
        assert!((0..=u16::MAX).zip(&kept).all(|(bits, value)| value.to_bits() == bits));
        // Half way between two neighbours is the even one.
        let values = [1.0f32, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.01 / 256.0, 3.4e38];
        for (float, expected) in [
            (FloatType::F32, [1.0, 1.0, 1.0 + 4.0 / 256.0, -1.0 - 2.0 / 256.0, f64::INFINITY]),
            // Rounded before, the fourth value lies half way, too.
            (FloatType::F16, [1.0, 1.0, 1.0 + 4.0 / 256.0, -1.0, f64::INFINITY]),
        ] {
            let mut bytes = Vec::new();
            float.encode(&values, &mut bytes);
            let mut read = [bf16::ZERO; 5];
            bf16::decode(float, &bytes, &mut read);
            assert_eq!(read.map(|x| x.to_f64()), expected, "{float}");
        }
    }

    #[test]
    fn names_and_ranges() {
        for float in FloatType::ALL {
            assert_eq!(float.to_string().parse::<FloatType>().unwrap(), float);
        }
        assert!("int8".parse::<FloatType>().unwrap_err().to_string().contains("`int8`; there are float32, bfloat16, float16"));
        // 65519.996 is the largest that rounds to 65504 and not beyond.
        assert_eq!([65519.0, 65520.0, f32::INFINITY].map(|x| FloatType::F16.overflows(x)), [false, true, false]);
        assert!(FloatType::BF16.overflows(f32::MAX) && !FloatType::BF16.overflows(3.38e38) && !FloatType::F32.overflows(f32::MAX));
    }
}
