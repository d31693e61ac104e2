//! The formulas in plain loops over whole matrices of scores: what kernels and fast paths are checked against.

use num_traits::Float as _;

use super::Attention;
use crate::ops::table::Precision;
use crate::tensor::Float;

/// What one head's query sees, and what the gradients of its row need.
struct Row<F> {
    /// Its row of the matrices that have a row for each head of each token.
    row: usize,
    /// Where its `lse` stands.
    place: usize,
    /// For each key that it sees: the row among all heads of all tokens, and what dropout multiplies its probability by.
    keys: Vec<(usize, F)>,
}

/// What [`Attention::reference_backward`] reads, each without gaps.
pub struct Saved<'a, F> {
    /// `[B·T, heads·D]`
    pub q: &'a [F],
    /// `[B·T, kv_heads·D]`
    pub k: &'a [F],
    /// `[B·T, kv_heads·Dv]`
    pub v: &'a [F],
    /// `[B·T, heads·Dv]`
    pub o: &'a [F],
    /// `[B, kv_heads, T, group]`
    pub lse: &'a [F],
    /// `[B·T, heads·Dv]`
    pub d_o: &'a [F],
}

/// What [`Attention::reference_backward`] gives, each in the shape of what it is the gradient of.
pub struct Gradients<F> {
    /// Of the queries.
    pub dq: Vec<F>,
    /// Of the keys.
    pub dk: Vec<F>,
    /// Of the values.
    pub dv: Vec<F>,
    /// `δ`, `[B, kv_heads, T, group]`
    pub delta: Vec<F>,
}

impl Attention {
    /// Contiguous `q`, `k`, `v` as in [`attention`](super::attention()) → `o` `[B·T, heads·Dv]`, `lse` `[B, kv_heads, T, group]`.
    /// A program of one kernel for each formula would store scores, probabilities and outputs.
    pub fn reference<P: Precision>(&self, [q, k, v]: [&[P::Number]; 3], o: &mut [P::Number], lse: &mut [P::Number]) {
        let d = self.width(q);
        let dv = o.len() / lse.len();
        for at in self.rows::<P::Number>() {
            let q = &q[at.row * d..][..d];
            let scores: Vec<P::Number> = at.keys.iter().map(|&(key, _)| self.score::<P>(q, &k[key * d..][..d])).collect();
            let max = scores.iter().copied().fold(P::Number::neg_infinity(), P::Number::max);
            let sum: P::Number = scores.iter().map(|&s| (s - max).exp()).sum();
            lse[at.place] = if at.keys.is_empty() { P::Number::infinity() } else { max + sum.ln() };
            let mut values = vec![P::Number::of(0.0); dv];
            for (&(key, keep), &s) in at.keys.iter().zip(&scores) {
                let p = P::round(P::round((s - max).exp() / sum) * keep);
                values.iter_mut().zip(&v[key * dv..]).for_each(|(o, &v)| *o += p * v);
            }
            o[at.row * dv..][..dv].iter_mut().zip(values).for_each(|(o, value)| *o = P::round(value));
        }
    }

    /// The gradients; the formulas are the module's.
    pub fn reference_backward<P: Precision>(&self, saved: &Saved<'_, P::Number>) -> Gradients<P::Number> {
        let zeros = |len: usize| vec![P::Number::of(0.0); len];
        let (d, dv) = (self.width(saved.q), saved.o.len() / saved.lse.len());
        let scale = P::Number::of(self.scale);
        let (mut dq, mut dk, mut d_v) = (zeros(saved.q.len()), zeros(saved.k.len()), zeros(saved.v.len()));
        let mut delta = zeros(saved.lse.len());
        for at in self.rows::<P::Number>() {
            let (q, d_o) = (&saved.q[at.row * d..][..d], &saved.d_o[at.row * dv..][..dv]);
            delta[at.place] = d_o.iter().zip(&saved.o[at.row * dv..]).map(|(&a, &b)| a * b).sum();
            for &(key, keep) in &at.keys {
                let (k, v) = (&saved.k[key * d..][..d], &saved.v[key * dv..][..dv]);
                let p = P::round((self.score::<P>(q, k) - saved.lse[at.place]).exp());
                let dp = P::round(P::round(d_o.iter().zip(v).map(|(&a, &b)| a * b).sum()) * keep);
                let ds = P::round(p * (dp - delta[at.place]));
                let kept = P::round(p * keep);
                d_v[key * dv..].iter_mut().zip(d_o).for_each(|(sum, &x)| *sum += kept * x);
                dk[key * d..].iter_mut().zip(q).for_each(|(sum, &x)| *sum += ds * x);
                dq[at.row * d..].iter_mut().zip(k).for_each(|(sum, &x)| *sum += ds * x);
            }
        }
        dq.iter_mut().chain(&mut dk).for_each(|x| *x = P::round(*x * scale));
        d_v.iter_mut().for_each(|x| *x = P::round(*x));
        Gradients { dq, dk, dv: d_v, delta }
    }

    fn width<F>(&self, q: &[F]) -> usize {
        q.len() / (self.batch * self.seq_len * self.heads)
    }

    fn score<P: Precision>(&self, q: &[P::Number], k: &[P::Number]) -> P::Number {
        P::round(P::Number::of(self.scale) * q.iter().zip(k).map(|(&q, &k)| q * k).sum::<P::Number>())
    }

    /// Every head of every token with the keys that it sees.
    fn rows<F: Float>(&self) -> impl Iterator<Item = Row<F>> {
        let group = self.heads / self.kv_heads;
        (0..self.batch * self.seq_len * self.heads).map(move |row| {
            let (token, head) = (row / self.heads, row % self.heads);
            let (b, t) = (token / self.seq_len, token % self.seq_len);
            let first = self.document_starts.as_ref().map_or(0, |starts| starts[token] as usize);
            let is_real = |j: &usize| self.attention_mask.as_ref().is_none_or(|mask| mask[b * self.seq_len + j] != 0);
            let keep = |j: usize| F::of(self.dropout.as_ref().map_or(1.0, |dropout| dropout.factor(b, head, t, j)));
            let key = |j: usize| (b * self.seq_len + j) * self.kv_heads + head / group;
            let keys = (first..=t).filter(is_real).map(|j| (key(j), keep(j))).collect();
            let place = ((b * self.kv_heads + head / group) * self.seq_len + t) * group + head % group;
            Row { row, place, keys }
        })
    }
}
