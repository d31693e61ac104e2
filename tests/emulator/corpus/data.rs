//! Inputs from a small deterministic generator, and their bytes.

use half::{bf16, f16};

/// SplitMix64 (Steele et al. 2014).
pub struct Draw(pub u64);

impl Draw {
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn u32s(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| (self.u64() >> 32) as u32).collect()
    }

    /// Numbers below `limit`.
    pub fn below(&mut self, n: usize, limit: u64) -> Vec<u64> {
        (0..n).map(|_| self.u64() % limit).collect()
    }

    /// Integers of either sign, from 1 to `limit` in magnitude: none is lost from a sum unseen.
    pub fn integers(&mut self, n: usize, limit: u64) -> Vec<f32> {
        (0..n).map(|_| self.sign() * (1 + self.u64() % limit) as f32).collect()
    }

    /// Numbers of either sign, from `scale` / 4 to `scale` in magnitude, for the same reason.
    pub fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.sign() * scale * (0.25 + 0.75 * (self.u64() >> 40) as f32 / (1 << 24) as f32)).collect()
    }

    /// The same, rounded to bfloat16.
    pub fn bf16s(&mut self, n: usize, scale: f32) -> Vec<f32> {
        self.floats(n, scale).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect()
    }

    /// The same, rounded to half precision.
    pub fn f16s(&mut self, n: usize, scale: f32) -> Vec<f32> {
        self.floats(n, scale).into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
    }

    fn sign(&mut self) -> f32 {
        if self.u64() >> 63 == 0 { 1.0 } else { -1.0 }
    }
}

/// The bytes of numbers in the machine's order, as f32.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

/// As bf16, rounded to nearest even.
pub fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&x| bf16::from_f32(x).to_ne_bytes()).collect()
}

/// As f16, rounded to nearest even.
pub fn f16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&x| f16::from_f32(x).to_ne_bytes()).collect()
}

pub fn i32_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

pub fn u32_bytes(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}
