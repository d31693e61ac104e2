//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A number is a pure function of a key and a counter, so that it never depends on the order in which threads ask for it.
//! The kernels use the same function: a dropout mask has the same bits on every device, however a batch is cut.

/// Philox4x32-10 under one 64-bit key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

impl Philox {
    /// The generator whose key is `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// A generator for another purpose under the same seed: `stream` names the purpose.
    pub fn stream(self, stream: u64) -> Self {
        let [a, b, c, d] = self.block([stream as u32, (stream >> 32) as u32, 0x7374_7265, 0x616D_0000]);
        Self { key: [a ^ c, b ^ d] }
    }

    /// The four 32-bit words at `counter`.
    #[inline(always)]
    pub fn block(self, counter: [u32; 4]) -> [u32; 4] {
        let (mut c, mut k) = (counter, self.key);
        for _ in 0..10 {
            let p0 = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
            let p1 = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
            c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        c
    }

    /// The 64 random bits at `index`.
    pub fn bits(self, index: u64) -> u64 {
        let [a, b, ..] = self.block([index as u32, (index >> 32) as u32, 0, 0]);
        u64::from(a) | u64::from(b) << 32
    }

    /// Uniform in [0, 1) with 53 random bits.
    pub fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform among 0..n without modulo bias that matters (n up to 2^32: bias below 2^-32). `n` must not be 0.
    pub fn below(self, index: u64, n: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal, by Box and Muller's transform of the block at `index`.
    pub fn normal(self, index: u64) -> f64 {
        let [a, b, c, d] = self.block([index as u32, (index >> 32) as u32, 0, 0]);
        let unit = |hi: u32, lo: u32| ((u64::from(hi) << 21 | u64::from(lo) >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64);
        (-2.0 * unit(a, b).ln()).sqrt() * (std::f64::consts::TAU * unit(c, d)).cos()
    }
}

/// A sequence of draws from one generator, for code that consumes numbers in order.
#[derive(Debug, Clone)]
pub struct Draws {
    philox: Philox,
    next: u64,
}

impl Draws {
    /// Starts at the first number of `philox`.
    pub fn new(philox: Philox) -> Self {
        Self { philox, next: 0 }
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.next += 1;
        self.philox.uniform(self.next - 1)
    }

    /// Uniform among 0..n; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        self.philox.below(self.next - 1, n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn known_answers() {
        assert_eq!(Philox::new(0).block([0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(Philox::new(u64::MAX).block([u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = Philox::new(0x299f_31d0_a409_3822).block([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn uniform_and_normal_have_the_right_moments() {
        let (p, n) = (Philox::new(7), 100_000u64);
        let mean = (0..n).map(|i| p.uniform(i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0f64 / n as f64).sqrt());
        let (m, s) = (0..n).map(|i| p.normal(i)).fold((0.0, 0.0), |(m, s), x| (m + x, s + x * x));
        assert!((m / n as f64).abs() < 5.0 / (n as f64).sqrt());
        assert!((s / n as f64 - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
    }

    #[test]
    fn streams_differ() {
        let p = Philox::new(3);
        assert_ne!(p.stream(0).bits(0), p.stream(1).bits(0));
        assert_ne!(p.bits(0), p.stream(0).bits(0));
    }
}
