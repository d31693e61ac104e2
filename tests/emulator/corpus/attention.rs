//! Causal attention, forward and backward, against the formula in f64.
//!
//! The kernels round probabilities (and their gradients) to bf16 before the second product, which is what bounds the results: one
//! bf16 roundoff of each term. What else happens in f32 is far below: sums of at most 80 terms, exponentials of arguments below 8.

use super::Argument::{Buffer, F32, I32, TensorMap};
use super::data::{Draw, bf16_bytes, f32_bytes};
use super::expected::{BF16_ROUNDOFF, Element, Expected, F32_ROUNDOFF};
use super::{Arch, Case, Launch, Swizzle, kernel};

/// Roundoffs of f32 that a term may gather: 64 of a dot product, 8 of an exponential, 80 of a sum, with room for the terms' growth.
const F32_SLACK: f64 = 256.0 * F32_ROUNDOFF;

/// Operands [heads, length, dim], and in f64 what the formula makes of them.
struct Attention {
    heads: usize,
    length: usize,
    dim: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Attention {
    fn new(seed: u64, [heads, length, dim]: [usize; 3]) -> Self {
        let mut draw = Draw(seed);
        let mut tensor = || draw.bf16s(heads * length * dim, 1.0);
        Attention { heads, length, dim, q: tensor(), k: tensor(), v: tensor(), dout: tensor() }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }

    /// The scale for a kernel that uses exp2.
    fn scale_log2(&self) -> f32 {
        (self.scale() * std::f64::consts::LOG2_E) as f32
    }

    /// Row `t` of head `h`.
    fn row<'a>(&self, x: &'a [f32], h: usize, t: usize) -> &'a [f32] {
        &x[(h * self.length + t) * self.dim..][..self.dim]
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    /// Probabilities of query `t` over the keys 0..=t, and their log-sum-exp.
    fn probabilities(&self, h: usize, t: usize) -> (Vec<f64>, f64) {
        let query = self.row(&self.q, h, t);
        let scores: Vec<f64> = (0..=t).map(|s| Self::dot(query, self.row(&self.k, h, s)) * self.scale()).collect();
        let lse = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
        (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
    }

    /// A query's output in column `d`, and the sum of its terms' magnitudes.
    fn output(&self, h: usize, p: &[f64], d: usize) -> (f64, f64) {
        let terms = || p.iter().enumerate().map(|(s, p)| p * f64::from(self.row(&self.v, h, s)[d]));
        (terms().sum(), terms().map(f64::abs).sum())
    }

    /// The case with its operands and what a forward kernel must give.
    fn forward(&self, case: Case) -> Case {
        let (mut o, mut lse) = (vec![], vec![]);
        for h in 0..self.heads {
            for t in 0..self.length {
                let (p, sum) = self.probabilities(h, t);
                lse.push((sum, F32_SLACK));
                o.extend((0..self.dim).map(|d| self.output(h, &p, d)).map(|(o, terms)| (o, (BF16_ROUNDOFF + F32_SLACK) * terms)));
            }
        }
        self.operands(case).expect(Expected::near_bf16("o", &o)).expect(Expected::near_f32("lse", &lse))
    }

    fn operands(&self, case: Case) -> Case {
        case.input("q", bf16_bytes(&self.q)).input("k", bf16_bytes(&self.k)).input("v", bf16_bytes(&self.v))
    }
}

/// Three tiles of 16 keys, the last cut: more than two stages.
pub fn flash_forward() -> Case {
    let attention = Attention::new(41, [2, 43, 32]);
    let arguments = ["o", "lse", "q", "k", "v"].map(Buffer).into_iter();
    attention.forward(Case::new("flash_forward", Arch::Compute80, kernel!("flash_forward.cu")).define("HEAD_DIM", 32)).launch(
        Launch::new("flash_forward", [2, 2, 1], [64, 1, 1], arguments.chain([I32(43), F32(attention.scale_log2())]).collect()),
    )
}

/// Two tiles of queries, the second cut to 48; four tiles of keys for it through two stages, so that each is filled again.
pub fn wgmma_attention() -> Case {
    let length = 112;
    let attention = Attention::new(43, [1, length, 64]);
    let map = |buffer, rows| {
        TensorMap(super::TensorMap {
            buffer,
            element: Element::Bf16,
            dims: vec![64, length as u64],
            strides: vec![128],
            tile: vec![64, rows],
            swizzle: Swizzle::Bytes128,
        })
    };
    let arguments =
        vec![Buffer("o"), Buffer("lse"), map("q", 64), map("k", 32), map("v", 32), I32(length as i32), F32(attention.scale_log2())];
    attention.forward(Case::new("wgmma_attention", Arch::Compute90a, kernel!("wgmma_attention.cu"))).launch(Launch::new(
        "wgmma_attention",
        [2, 1, 1],
        [160, 1, 1],
        arguments,
    ))
}

/// Three tiles of 16 queries for the first block of keys, one for the second.
pub fn flash_backward() -> Case {
    let attention = Attention::new(42, [2, 43, 32]);
    let Attention { heads, length, dim, .. } = attention;
    let scale = attention.scale();
    let (mut lse, mut delta) = (vec![], vec![]);
    let zero = (0.0, 0.0);
    let (mut dk, mut dv) = (vec![zero; heads * length * dim], vec![zero; heads * length * dim]);
    for h in 0..heads {
        for t in 0..length {
            let (p, sum) = attention.probabilities(h, t);
            let (query, dout) = (attention.row(&attention.q, h, t), attention.row(&attention.dout, h, t));
            let mean: f64 = (0..dim).map(|d| attention.output(h, &p, d).0 * f64::from(dout[d])).sum();
            lse.push(sum as f32);
            delta.push(mean as f32);
            for (s, &p) in p.iter().enumerate() {
                let dp = Attention::dot(dout, attention.row(&attention.v, h, s));
                let ds = p * (dp - mean);
                // The f32 error of ds is relative to what its difference is taken of, not to ds itself.
                let rounding = BF16_ROUNDOFF * ds.abs() + F32_SLACK * p * (dp.abs() + mean.abs() + 1.0);
                for d in 0..dim {
                    let (q, g) = (f64::from(query[d]), f64::from(dout[d]));
                    let i = (h * length + s) * dim + d;
                    dv[i] = (dv[i].0 + p * g, dv[i].1 + (BF16_ROUNDOFF + F32_SLACK) * (p * g).abs());
                    dk[i] = (dk[i].0 + scale * ds * q, dk[i].1 + scale * rounding * q.abs());
                }
            }
        }
    }
    attention
        .operands(Case::new("flash_backward", Arch::Compute80, kernel!("flash_backward.cu")).define("HEAD_DIM", dim as u32))
        .input("dout", bf16_bytes(&attention.dout))
        .input("lse", f32_bytes(&lse))
        .input("delta", f32_bytes(&delta))
        .expect(Expected::near_f32("dk", &dk))
        .expect(Expected::near_f32("dv", &dv))
        .launch(Launch::new(
            "flash_backward",
            [2, heads as u32, 1],
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
                I32(length as i32),
                F32(scale as f32),
            ],
        ))
}
