//! A decoder of one layer and one key and value head, forward and backward for the loss of the last token of a sequence, in
//! plain loops over f64: neither tape nor operations of the engine. Every value on the way has a name and is kept.

use super::{EPS, HEAD_DIM, HEADS, THETA};
use crate::Result;

/// The parameters, or their gradients: matrices `[out, in]`, row by row.
pub struct Weights {
    /// `[V, H]`: one row for each token, and, as the output is tied to it, one for each guess.
    pub table: Vec<f64>,
    pub norm_1: Vec<f64>,
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub o: Vec<f64>,
    pub norm_2: Vec<f64>,
    pub gate: Vec<f64>,
    pub up: Vec<f64>,
    pub down: Vec<f64>,
    pub norm_3: Vec<f64>,
}

impl Weights {
    /// From what `get` says of each public name.
    pub fn load(get: impl Fn(&str) -> Result<Vec<f64>>) -> Result<Self> {
        let layer = |name: &str| get(&format!("model.layers.0.{name}.weight"));
        Ok(Self {
            table: get("model.embed_tokens.weight")?,
            norm_1: layer("input_layernorm")?,
            q: layer("self_attn.q_proj")?,
            k: layer("self_attn.k_proj")?,
            v: layer("self_attn.v_proj")?,
            o: layer("self_attn.o_proj")?,
            norm_2: layer("post_attention_layernorm")?,
            gate: layer("mlp.gate_proj")?,
            up: layer("mlp.up_proj")?,
            down: layer("mlp.down_proj")?,
            norm_3: get("model.norm.weight")?,
        })
    }

    /// All of them, under the names of the page.
    pub fn named(&self) -> [(&'static str, &Vec<f64>); 11] {
        let Self { table, norm_1, q, k, v, o, norm_2, gate, up, down, norm_3 } = self;
        let (names, values) = (
            ["E", "w1", "Wq", "Wk", "Wv", "Wo", "w2", "Wg", "Wu", "Wd", "w3"],
            [table, norm_1, q, k, v, o, norm_2, gate, up, down, norm_3],
        );
        std::array::from_fn(|i| (names[i], values[i]))
    }
}

/// RMSNorm of one vector.
pub struct Norm {
    pub x: Vec<f64>,
    pub mean_square: f64,
    pub rstd: f64,
    pub y: Vec<f64>,
}

impl Norm {
    fn new(x: Vec<f64>, w: &[f64]) -> Self {
        let mean_square = dot(&x, &x) / x.len() as f64;
        let rstd = 1.0 / (mean_square + EPS).sqrt();
        let y = (0..x.len()).map(|c| w[c] * x[c] * rstd).collect();
        Self { x, mean_square, rstd, y }
    }

    /// `dx = rstd·(g − x̂·mean(g ⊙ x̂))` with `g = dy ⊙ w`, `x̂ = x·rstd`; adds `dy ⊙ x̂` to `dw`.
    fn backward(&self, w: &[f64], dy: &[f64], dw: &mut [f64]) -> Vec<f64> {
        let normed: Vec<f64> = self.x.iter().map(|x| x * self.rstd).collect();
        let g: Vec<f64> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
        let mean = dot(&g, &normed) / g.len() as f64;
        for (dw, (dy, normed)) in dw.iter_mut().zip(dy.iter().zip(&normed)) {
            *dw += dy * normed;
        }
        g.iter().zip(&normed).map(|(g, normed)| self.rstd * (g - normed * mean)).collect()
    }
}

/// What attention reads of one position.
pub struct Token {
    pub norm: Norm,
    pub k_before: Vec<f64>,
    /// After the rotation.
    pub k: Vec<f64>,
    pub v: Vec<f64>,
}

/// The way of the last token to the loss.
pub struct Forward {
    pub tokens: Vec<Token>,
    pub q_before: Vec<f64>,
    /// After the rotation.
    pub q: Vec<f64>,
    /// For each head, one number for each position.
    pub scores: Vec<Vec<f64>>,
    pub weights: Vec<Vec<f64>>,
    pub mixed: Vec<f64>,
    pub o: Vec<f64>,
    pub norm_2: Norm,
    pub gate: Vec<f64>,
    pub up: Vec<f64>,
    pub inner: Vec<f64>,
    pub down: Vec<f64>,
    pub norm_3: Norm,
    pub logits: Vec<f64>,
    pub p: Vec<f64>,
    pub loss: f64,
}

/// From the tokens to the loss of the last one's guess.
pub fn forward(w: &Weights, ids: &[usize], target: usize) -> Forward {
    let token = |(position, &id): (usize, &usize)| {
        let norm = Norm::new(row(&w.table, w.norm_1.len(), id).to_vec(), &w.norm_1);
        let (k_before, v) = (times(&w.k, &norm.y), times(&w.v, &norm.y));
        Token { k: turned(&k_before, position as f64), norm, k_before, v }
    };
    let tokens: Vec<Token> = ids.iter().enumerate().map(token).collect();
    let last = &tokens[ids.len() - 1].norm;
    let q_before = times(&w.q, &last.y);
    let q = turned(&q_before, (ids.len() - 1) as f64);
    let scale = 1.0 / (HEAD_DIM as f64).sqrt();
    let score = |q: &[f64]| -> Vec<f64> { tokens.iter().map(|token| scale * dot(q, &token.k)).collect() };
    let scores: Vec<Vec<f64>> = q.chunks_exact(HEAD_DIM).map(score).collect();
    let weights: Vec<Vec<f64>> = scores.iter().map(|scores| softmax(scores)).collect();
    let mix = |(head, c): (usize, usize)| tokens.iter().zip(&weights[head]).map(|(token, weight)| weight * token.v[c]).sum();
    let mixed: Vec<f64> = (0..HEADS).flat_map(|head| (0..HEAD_DIM).map(move |c| (head, c))).map(mix).collect();
    let o = times(&w.o, &mixed);
    let norm_2 = Norm::new(sum(&last.x, &o), &w.norm_2);
    let (gate, up) = (times(&w.gate, &norm_2.y), times(&w.up, &norm_2.y));
    let inner: Vec<f64> = gate.iter().zip(&up).map(|(&gate, up)| gate * sigmoid(gate) * up).collect();
    let down = times(&w.down, &inner);
    let norm_3 = Norm::new(sum(&norm_2.x, &down), &w.norm_3);
    let logits = times(&w.table, &norm_3.y);
    let p = softmax(&logits);
    let loss = -p[target].ln();
    Forward { tokens, q_before, q, scores, weights, mixed, o, norm_2, gate, up, inner, down, norm_3, logits, p, loss }
}

/// The way of the gradient back: each field is the gradient of the loss with respect to the value of the same name.
pub struct Backward {
    pub logits: Vec<f64>,
    pub y_3: Vec<f64>,
    pub h_2: Vec<f64>,
    pub inner: Vec<f64>,
    pub gate: Vec<f64>,
    pub up: Vec<f64>,
    pub y_2: Vec<f64>,
    pub h_1: Vec<f64>,
    pub mixed: Vec<f64>,
    pub weights: Vec<Vec<f64>>,
    pub scores: Vec<Vec<f64>>,
    pub q_before: Vec<f64>,
    /// Of the last token's key, before the rotation, and value.
    pub k_before: Vec<f64>,
    pub v: Vec<f64>,
    pub y_1: Vec<f64>,
    /// Of the last token's vector, as it enters the layer.
    pub x: Vec<f64>,
    pub parameters: Weights,
}

/// From the loss back to every parameter. `zeros` are the parameters' gradients so far.
pub fn backward(w: &Weights, f: &Forward, ids: &[usize], target: usize, zeros: Weights) -> Backward {
    let (mut d, last) = (zeros, ids.len() - 1);
    let mut logits = f.p.clone();
    logits[target] -= 1.0;
    let y_3 = through(&w.table, &mut d.table, &f.norm_3.y, &logits);
    let h_2 = f.norm_3.backward(&w.norm_3, &y_3, &mut d.norm_3);

    let inner = through(&w.down, &mut d.down, &f.inner, &h_2);
    let slope = |g: f64| sigmoid(g) * (1.0 + g * (1.0 - sigmoid(g)));
    let gate: Vec<f64> = (0..inner.len()).map(|i| inner[i] * f.up[i] * slope(f.gate[i])).collect();
    let up: Vec<f64> = (0..inner.len()).map(|i| inner[i] * f.gate[i] * sigmoid(f.gate[i])).collect();
    let from_gate = through(&w.gate, &mut d.gate, &f.norm_2.y, &gate);
    let y_2 = sum(&from_gate, &through(&w.up, &mut d.up, &f.norm_2.y, &up));
    let h_1 = sum(&h_2, &f.norm_2.backward(&w.norm_2, &y_2, &mut d.norm_2));

    let mixed = through(&w.o, &mut d.o, &f.mixed, &h_1);
    let of_heads = mixed.chunks_exact(HEAD_DIM);
    let weights: Vec<Vec<f64>> = of_heads.map(|d_o| f.tokens.iter().map(|token| dot(d_o, &token.v)).collect()).collect();
    let scores: Vec<Vec<f64>> = f.weights.iter().zip(&weights).map(|(a, da)| softmax_backward(a, da)).collect();
    let scale = 1.0 / (HEAD_DIM as f64).sqrt();
    let towards_key =
        |(head, c): (usize, usize)| f.tokens.iter().zip(&scores[head]).map(|(token, ds)| scale * ds * token.k[c]).sum();
    let q: Vec<f64> = (0..HEADS).flat_map(|head| (0..HEAD_DIM).map(move |c| (head, c))).map(towards_key).collect();
    let q_before = turned(&q, -(last as f64));
    let mut y_1 = through(&w.q, &mut d.q, &f.tokens[last].norm.y, &q_before);

    // Each position's key and value were read by both heads; what they are owed goes back to that position's own row.
    let (mut k_before, mut v, mut x) = (Vec::new(), Vec::new(), Vec::new());
    for (position, (token, &id)) in f.tokens.iter().zip(ids).enumerate() {
        let heads = |share: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..HEAD_DIM).map(|c| (0..HEADS).map(|head| share(head, c)).sum()).collect()
        };
        let k = heads(&|head, c| scale * scores[head][position] * f.q[head * HEAD_DIM + c]);
        k_before = turned(&k, -(position as f64));
        v = heads(&|head, c| f.weights[head][position] * mixed[head * HEAD_DIM + c]);
        let from_k = through(&w.k, &mut d.k, &token.norm.y, &k_before);
        let mut y = sum(&from_k, &through(&w.v, &mut d.v, &token.norm.y, &v));
        if position == last {
            y_1 = sum(&y_1, &y);
            y.clone_from(&y_1);
        }
        x = token.norm.backward(&w.norm_1, &y, &mut d.norm_1);
        if position == last {
            x = sum(&h_1, &x);
        }
        let width = x.len();
        for (row, x) in d.table[id * width..][..width].iter_mut().zip(&x) {
            *row += x;
        }
    }
    Backward { logits, y_3, h_2, inner, gate, up, y_2, h_1, mixed, weights, scores, q_before, k_before, v, y_1, x, parameters: d }
}

/// Back through `y = W·x`: adds `dy·xᵀ` to `dw`, and gives `dx = Wᵀ·dy`.
fn through(w: &[f64], dw: &mut [f64], x: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; x.len()];
    for (r, dy) in dy.iter().enumerate() {
        for c in 0..x.len() {
            dw[r * x.len() + c] += dy * x[c];
            dx[c] += dy * w[r * x.len() + c];
        }
    }
    dx
}

/// Back through softmax: `ds = a ⊙ (da − Σ a·da)`.
fn softmax_backward(a: &[f64], da: &[f64]) -> Vec<f64> {
    let mean = dot(a, da);
    a.iter().zip(da).map(|(a, da)| a * (da - mean)).collect()
}

/// Turns each head's pair of columns i and i + D/2 by `position · THETA^(−2i/D)`.
fn turned(x: &[f64], position: f64) -> Vec<f64> {
    let mut y = x.to_vec();
    for head in y.chunks_exact_mut(HEAD_DIM) {
        for i in 0..HEAD_DIM / 2 {
            let (sin, cos) = angle(i, position).sin_cos();
            let (a, b) = (head[i], head[i + HEAD_DIM / 2]);
            (head[i], head[i + HEAD_DIM / 2]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    y
}

/// The angle of pair `i` at a position.
pub fn angle(i: usize, position: f64) -> f64 {
    position * THETA.powf(-2.0 * i as f64 / HEAD_DIM as f64)
}

/// Row `r` of a matrix of `cols` columns.
pub fn row(matrix: &[f64], cols: usize, r: usize) -> &[f64] {
    &matrix[r * cols..][..cols]
}

fn times(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let total: f64 = x.iter().map(|x| x.exp()).sum();
    x.iter().map(|x| x.exp() / total).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
