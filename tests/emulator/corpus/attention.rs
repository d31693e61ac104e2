//! Causal attention, forward and backward, against the formula in f64.
//!
//! The kernels round probabilities (and their gradients) to bf16 before the second product, which is what bounds the results: one
//! bf16 roundoff of each term. What else happens in f32 is far below: sums of at most 43 terms, exponentials of arguments below 8.

use super::Argument::{Buffer, F32, I32};
use super::data::{Draw, bf16_bytes, f32_bytes};
use super::expected::{BF16_ROUNDOFF, Expected, F32_ROUNDOFF};
use super::{Arch, Case, Launch, kernel};

const HEADS: usize = 2;
/// Three tiles of 16 keys or queries, the last cut: more than two stages.
const LENGTH: usize = 43;
const DIM: usize = 32;
/// Roundoffs of f32 that a term may gather: 32 of a dot product, 8 of an exponential, 43 of a sum, with room for the terms' growth.
const F32_SLACK: f64 = 256.0 * F32_ROUNDOFF;

/// Operands [HEADS, LENGTH, DIM], and in f64 what the formula makes of them.
struct Attention {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Attention {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(seed);
        let mut tensor = || draw.bf16s(HEADS * LENGTH * DIM, 1.0);
        Attention { q: tensor(), k: tensor(), v: tensor(), dout: tensor() }
    }

    fn scale() -> f64 {
        1.0 / (DIM as f64).sqrt()
    }

    /// Row `t` of head `h`.
    fn row(x: &[f32], h: usize, t: usize) -> &[f32] {
        &x[(h * LENGTH + t) * DIM..][..DIM]
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    /// Probabilities of query `t` over the keys 0..=t, and their log-sum-exp.
    fn probabilities(&self, h: usize, t: usize) -> (Vec<f64>, f64) {
        let query = Self::row(&self.q, h, t);
        let scores: Vec<f64> = (0..=t).map(|s| Self::dot(query, Self::row(&self.k, h, s)) * Self::scale()).collect();
        let lse = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
        (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
    }

    /// Output of query `t` in column `d`, and the sum of its terms' magnitudes.
    fn output(&self, h: usize, p: &[f64], d: usize) -> (f64, f64) {
        let terms = || p.iter().enumerate().map(|(s, p)| p * f64::from(Self::row(&self.v, h, s)[d]));
        (terms().sum(), terms().map(f64::abs).sum())
    }
}

pub fn flash_forward() -> Case {
    let attention = Attention::new(41);
    let (mut o, mut lse) = (vec![], vec![]);
    for h in 0..HEADS {
        for t in 0..LENGTH {
            let (p, sum) = attention.probabilities(h, t);
            lse.push((sum, F32_SLACK));
            o.extend((0..DIM).map(|d| attention.output(h, &p, d)).map(|(o, terms)| (o, (BF16_ROUNDOFF + F32_SLACK) * terms)));
        }
    }
    let scale_log2 = (Attention::scale() * std::f64::consts::LOG2_E) as f32;
    Case::new("flash_forward", Arch::Compute80, kernel!("flash_forward.cu"))
        .define("HEAD_DIM", DIM as u32)
        .input("q", bf16_bytes(&attention.q))
        .input("k", bf16_bytes(&attention.k))
        .input("v", bf16_bytes(&attention.v))
        .expect(Expected::near_bf16("o", &o))
        .expect(Expected::near_f32("lse", &lse))
        .launch(Launch::new(
            "flash_forward",
            [2, HEADS as u32, 1],
            [64, 1, 1],
            vec![Buffer("o"), Buffer("lse"), Buffer("q"), Buffer("k"), Buffer("v"), I32(LENGTH as i32), F32(scale_log2)],
        ))
}

pub fn flash_backward() -> Case {
    let attention = Attention::new(42);
    let scale = Attention::scale();
    let (mut lse, mut delta) = (vec![], vec![]);
    let zero = (0.0, 0.0);
    let (mut dk, mut dv) = (vec![zero; HEADS * LENGTH * DIM], vec![zero; HEADS * LENGTH * DIM]);
    for h in 0..HEADS {
        for t in 0..LENGTH {
            let (p, sum) = attention.probabilities(h, t);
            let (query, dout) = (Attention::row(&attention.q, h, t), Attention::row(&attention.dout, h, t));
            let mean: f64 = (0..DIM).map(|d| attention.output(h, &p, d).0 * f64::from(dout[d])).sum();
            lse.push(sum as f32);
            delta.push(mean as f32);
            for (s, &p) in p.iter().enumerate() {
                let dp = Attention::dot(dout, Attention::row(&attention.v, h, s));
                let ds = p * (dp - mean);
                // The f32 error of ds is relative to what its difference is taken of, not to ds itself.
                let rounding = BF16_ROUNDOFF * ds.abs() + F32_SLACK * p * (dp.abs() + mean.abs() + 1.0);
                for d in 0..DIM {
                    let (q, g) = (f64::from(query[d]), f64::from(dout[d]));
                    let i = (h * LENGTH + s) * DIM + d;
                    dv[i] = (dv[i].0 + p * g, dv[i].1 + (BF16_ROUNDOFF + F32_SLACK) * (p * g).abs());
                    dk[i] = (dk[i].0 + scale * ds * q, dk[i].1 + scale * rounding * q.abs());
                }
            }
        }
    }
    Case::new("flash_backward", Arch::Compute80, kernel!("flash_backward.cu"))
        .define("HEAD_DIM", DIM as u32)
        .input("q", bf16_bytes(&attention.q))
        .input("k", bf16_bytes(&attention.k))
        .input("v", bf16_bytes(&attention.v))
        .input("dout", bf16_bytes(&attention.dout))
        .input("lse", f32_bytes(&lse))
        .input("delta", f32_bytes(&delta))
        .expect(Expected::near_f32("dk", &dk))
        .expect(Expected::near_f32("dv", &dv))
        .launch(Launch::new(
            "flash_backward",
            [2, HEADS as u32, 1],
            [64, 1, 1],
            vec![
                Buffer("dk"),
                Buffer("dv"),
                Buffer("q"),
                Buffer("k"),
                Buffer("v"),
                Buffer("dout"),
                Buffer("lse"),
                Buffer("delta"),
                I32(LENGTH as i32),
                F32(scale as f32),
            ],
        ))
}
