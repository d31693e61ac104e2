//! A random order of n things that takes no memory: the shuffle of an epoch.
//!
//! A balanced Feistel network is a bijection of 0..2^(2h) whatever its round function is; with the smallest such domain that
//! holds n, walking on from a value outside 0..n until one lies inside (cycle walking, Black and Rogaway 2002, "Ciphers with
//! arbitrary finite domains") makes it one of 0..n, in fewer than 4 steps on average.

use crate::rng::Philox;

/// Rounds of the network. Luby and Rackoff's construction needs four to look random; small domains like a few more.
const ROUNDS: u32 = 8;

/// A bijection of 0..n, a function of n and the generator's key alone.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    philox: Philox,
    n: u64,
    half_bits: u32,
}

impl Permutation {
    /// The permutation of `0..n` that belongs to `philox`.
    pub fn new(n: u64, philox: Philox) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { philox, n, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Where `i` goes. `i` must be below n; others stay where they are.
    pub fn at(&self, i: u64) -> u64 {
        if i >= self.n {
            return i;
        }
        let mut x = self.shuffled(i);
        while x >= self.n {
            x = self.shuffled(x);
        }
        x
    }

    fn shuffled(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..ROUNDS {
            let [noise, ..] = self.philox.block([right as u32, round, 0, 0]);
            (left, right) = (right, left ^ u64::from(noise) & mask);
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: u64, seed: u64) -> Vec<u64> {
        let permutation = Permutation::new(n, Philox::new(seed));
        (0..n).map(|i| permutation.at(i)).collect()
    }

    #[test]
    fn is_a_bijection() {
        for n in (0..130).chain([255, 256, 257, 1000, 4095, 4097, 65_537]) {
            let mut sorted = order(n, n);
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..n), "{n}");
        }
    }

    #[test]
    fn stays_inside_huge_ranges() {
        for n in [u64::MAX, 1 << 63, (1 << 62) + 1, u64::from(u32::MAX)] {
            let permutation = Permutation::new(n, Philox::new(1));
            let images: Vec<u64> = (0..100).chain(n - 100..n).map(|i| permutation.at(i)).collect();
            assert!(images.iter().all(|&x| x < n));
            assert_eq!(images.iter().collect::<std::collections::HashSet<_>>().len(), 200);
        }
    }

    /// Over many keys each of the 24 orders of 4 things comes up about equally often: chi-squared with 23 degrees of freedom.
    #[test]
    fn orders_are_equally_likely() {
        let keys = 24_000;
        let mut counts = std::collections::HashMap::new();
        (0..keys).for_each(|seed| *counts.entry(order(4, seed)).or_insert(0u32) += 1);
        let expected = keys as f64 / 24.0;
        let chi2: f64 = counts.values().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        assert!(counts.len() == 24 && chi2 < 60.0, "{chi2}");
    }

    /// Neighbours do not stay neighbours, and a long order has about one fixed point.
    #[test]
    fn mixes() {
        let order = order(10_000, 3);
        assert!(order.windows(2).filter(|w| w[0].abs_diff(w[1]) == 1).count() < 20);
        assert!(order.iter().zip(0..).filter(|&(&x, i)| x == i).count() < 10);
    }
}
