//! What an output must be, and how far from it rounding may lead.

use half::{bf16, f16};

use super::data::{bf16_bytes, f32_bytes, i32_bytes, u32_bytes};

/// Unit roundoff of f32: one rounding to nearest changes a number by at most this part of it.
pub const F32_ROUNDOFF: f64 = 1.0 / (1u64 << 24) as f64;
/// Unit roundoff of bf16.
pub const BF16_ROUNDOFF: f64 = 1.0 / 256.0;

/// The type of an element in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    U8,
    I32,
    U32,
    F16,
    Bf16,
    F32,
}

impl Element {
    /// Size in bytes.
    pub fn size(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::I32 | Element::U32 | Element::F32 => 4,
        }
    }

    /// The number that these bytes stand for.
    fn decode(self, bytes: &[u8]) -> f64 {
        match *bytes {
            [x] => x.into(),
            [a, b] if self == Element::F16 => f16::from_ne_bytes([a, b]).to_f64(),
            [a, b] => bf16::from_ne_bytes([a, b]).to_f64(),
            [a, b, c, d] => match self {
                Element::I32 => i32::from_ne_bytes([a, b, c, d]).into(),
                Element::U32 => u32::from_ne_bytes([a, b, c, d]).into(),
                _ => f32::from_ne_bytes([a, b, c, d]).into(),
            },
            _ => f64::NAN,
        }
    }
}

/// The contents that a buffer must have after the last launch.
#[derive(Clone, Debug)]
pub struct Expected {
    pub buffer: &'static str,
    pub element: Element,
    /// The result, correctly rounded.
    pub bytes: Vec<u8>,
    /// The largest allowed distance from the unrounded result, per element; `None`: equal bits.
    pub near: Option<(Vec<f64>, Vec<f64>)>,
}

/// The first element that is not as expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    /// Index of the element in the buffer.
    pub index: usize,
    pub got: f64,
    pub want: f64,
    /// The distance allowed.
    pub bound: f64,
}

impl Expected {
    pub fn u8s(buffer: &'static str, values: Vec<u8>) -> Self {
        Expected { buffer, element: Element::U8, bytes: values, near: None }
    }

    pub fn i32s(buffer: &'static str, values: &[i32]) -> Self {
        Expected { buffer, element: Element::I32, bytes: i32_bytes(values), near: None }
    }

    pub fn u32s(buffer: &'static str, values: &[u32]) -> Self {
        Expected { buffer, element: Element::U32, bytes: u32_bytes(values), near: None }
    }

    pub fn f32s(buffer: &'static str, values: &[f32]) -> Self {
        Expected { buffer, element: Element::F32, bytes: f32_bytes(values), near: None }
    }

    /// 16-bit floats: their bytes.
    pub fn halves(buffer: &'static str, element: Element, bytes: Vec<u8>) -> Self {
        Expected { buffer, element, bytes, near: None }
    }

    /// f32 results known as (value, bound).
    pub fn near_f32(buffer: &'static str, results: &[(f64, f64)]) -> Self {
        let bytes = f32_bytes(&results.iter().map(|r| r.0 as f32).collect::<Vec<_>>());
        Expected { buffer, element: Element::F32, bytes, near: Some(results.iter().copied().unzip()) }
    }

    /// bf16 results known as (value, bound before the final rounding), to which the final rounding is added here.
    pub fn near_bf16(buffer: &'static str, results: &[(f64, f64)]) -> Self {
        let bytes = bf16_bytes(&results.iter().map(|r| r.0 as f32).collect::<Vec<_>>());
        let rounded = results.iter().map(|&(value, bound)| (value, bound + BF16_ROUNDOFF * (value.abs() + bound)));
        Expected { buffer, element: Element::Bf16, bytes, near: Some(rounded.unzip()) }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Compares a buffer's bytes with what they should be.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Mismatch> {
        let size = self.element.size();
        for (index, want) in self.bytes.chunks_exact(size).enumerate() {
            let got = bytes.get(index * size..(index + 1) * size).unwrap_or_default();
            let mismatch = match &self.near {
                None => (got != want).then_some((self.element.decode(want), 0.0)),
                Some((values, bounds)) => {
                    let (want, bound) = (values[index], bounds[index]);
                    let within = (self.element.decode(got) - want).abs() <= bound;
                    (!within).then_some((want, bound))
                }
            };
            if let Some((want, bound)) = mismatch {
                return Err(Mismatch { index, got: self.element.decode(got), want, bound });
            }
        }
        Ok(())
    }
}
