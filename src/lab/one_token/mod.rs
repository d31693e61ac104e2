//! The numbers of `learn/01-one-token.md`: one token's way through a decoder that fits on a page, to the loss and back.
//!
//! Everything is computed twice in f64: in plain loops (`by_hand`), and by the model on the tape. There is a report only if both
//! agree, and a finite difference of the loss with them.

mod by_hand;

use std::sync::Arc;

use self::by_hand::{Backward, Forward, Weights, angle, backward, forward};
use crate::data::Batch;
use crate::model::{self, AttentionConfig, GqaConfig, Init, Model, ModelConfig};
use crate::params::Gradients;
use crate::tape::Tape;
use crate::{Error, Result};

const WORDS: [&str; 12] = ["the", "cat", "sat", "on", "my", "mat", "dog", "ran", "to", "big", "red", "."];
/// "the cat sat on my": the last one is followed.
const IDS: [usize; 5] = [0, 1, 2, 3, 4];
const LAST: usize = IDS.len() - 1;
const TARGET: usize = 5;
const HIDDEN: usize = 8;
const HEADS: usize = 2;
const HEAD_DIM: usize = 4;
const INNER: usize = 6;
const EPS: f64 = 1e-5;
/// A power of two, so that the model's angles, which are rounded to f32 as the public ones are, have nothing to round.
const THETA: f64 = 16.0;
const SEED: u64 = 1;

/// What the page shows, in its order. An error if any number by hand differs from the tape's.
pub fn report() -> Result<String> {
    let mut model = tiny_model()?;
    let (f, d) = compute_by_hand(&model)?;
    let mut page = Page::default();
    way_to_the_loss(&mut page, &f);
    way_back(&mut page, &f, &d);
    let gradients = compare_with_the_tape(&mut page, &model, &f, &d)?;
    move_one_number(&mut page, &mut model, &d)?;
    take_a_step(&mut page, &mut model, &gradients)?;
    Ok(page.0)
}

fn compute_by_hand(model: &Model) -> Result<(Forward, Backward)> {
    let values = |name: &str| model.params().get(name).ok_or_else(|| missing(name))?.to_f64();
    let w = Weights::load(values)?;
    let zeros = Weights::load(|name| Ok(vec![0.0; values(name)?.len()]))?;
    let f = forward(&w, &IDS, TARGET);
    let d = backward(&w, &f, &IDS, TARGET, zeros);
    Ok((f, d))
}

fn way_to_the_loss(page: &mut Page, f: &Forward) {
    let token = &f.tokens[LAST];
    page.title("1. The row: x = E[id]");
    page.line(format!(
        "id of \"{}\": {}, position {LAST}, to be followed by \"{}\": {TARGET}",
        WORDS[IDS[LAST]], IDS[LAST], WORDS[TARGET]
    ));
    page.vector("x", &token.norm.x);
    page.title("2. Norm: y1 = w1 ⊙ x·rstd, rstd = 1/√(mean(x²) + eps)");
    page.norm("y1", &token.norm);
    page.title("3. Query, key, value: q = Wq·y1, k = Wk·y1, v = Wv·y1");
    page.heads("q", &f.q_before);
    page.vector("k", &token.k_before);
    page.vector("v", &token.v);
    page.title("4. Rotation: (a, b) → (a·cos φ − b·sin φ, b·cos φ + a·sin φ), φ = position·16^(−2i/4)");
    page.vector("φ", &[0, 1].map(|i| angle(i, LAST as f64)));
    page.heads("q", &f.q);
    page.vector("k", &token.k);
    page.title("5. Attention: s = q·k/√4 for each key so far, a = softmax(s), for heads 0 and 1");
    page.line(format!("{:8}{:>9}{:>9}{:>9}{:>9}", "", "s 0", "a 0", "s 1", "a 1"));
    for (j, &id) in IDS.iter().enumerate() {
        page.vector(WORDS[id], &[f.scores[0][j], f.weights[0][j], f.scores[1][j], f.weights[1][j]]);
    }
    page.heads("Σ a·v", &f.mixed);
    page.title("6. Residual: h1 = x + Wo·(Σ a·v)");
    page.vector("Wo·", &f.o);
    page.vector("h1", &f.norm_2.x);
    page.title("7. Feed-forward: y2 = norm(h1), u = silu(Wg·y2) ⊙ Wu·y2, h2 = h1 + Wd·u");
    page.norm("y2", &f.norm_2);
    page.vector("gate", &f.gate);
    page.vector("up", &f.up);
    page.vector("u", &f.inner);
    page.vector("Wd·u", &f.down);
    page.vector("h2", &f.norm_3.x);
    page.title("8. The guess: y3 = norm(h2), z = E·y3, p = softmax(z)");
    page.norm("y3", &f.norm_3);
    page.line(format!("{:8}{:>9}{:>9}", "", "z", "p"));
    for (word, (&z, &p)) in WORDS.iter().zip(f.logits.iter().zip(&f.p)) {
        page.vector(word, &[z, p]);
    }
    page.title("9. The loss: L = −ln p[mat]");
    page.vector("L", &[f.loss]);
}

fn way_back(page: &mut Page, f: &Forward, d: &Backward) {
    page.title("10. Back through loss and softmax: dz = p − onehot(mat)");
    page.line(format!("{:8}{:>9}", "", "dz"));
    for (word, &dz) in WORDS.iter().zip(&d.logits) {
        page.vector(word, &[dz]);
    }
    page.title("11. Back through the output and its norm: dy3 = Eᵀ·dz, dh2 = rstd·(g − x̂·mean(g ⊙ x̂)), g = w3 ⊙ dy3, x̂ = h2·rstd");
    page.vector("dy3", &d.y_3);
    page.vector("dh2", &d.h_2);
    page.title("12. Back through the feed-forward: du = Wdᵀ·dh2, dgate = du ⊙ up ⊙ silu′(gate), dup = du ⊙ silu(gate)");
    page.vector("du", &d.inner);
    page.vector("dgate", &d.gate);
    page.vector("dup", &d.up);
    page.title("13. And its norm and residual: dy2 = Wgᵀ·dgate + Wuᵀ·dup, dh1 = dh2 + norm′(dy2)");
    page.vector("dy2", &d.y_2);
    page.vector("dh1", &d.h_1);
    page.title("14. Back through attention: do = Woᵀ·dh1, da = do·v, ds = a·(da − Σ a·da)");
    page.heads("do", &d.mixed);
    page.line(format!("{:8}{:>9}{:>9}{:>9}{:>9}", "", "da 0", "ds 0", "da 1", "ds 1"));
    for (j, &id) in IDS.iter().enumerate() {
        page.vector(WORDS[id], &[d.weights[0][j], d.scores[0][j], d.weights[1][j], d.scores[1][j]]);
    }
    page.title(
        "15. To q, k, v: dq = Σ ds·k/√4; of its own k and v, summed over heads: dk = Σ ds·q/√4, dv = Σ a·do; turned back by −φ",
    );
    page.heads("dq", &d.q_before);
    page.vector("dk", &d.k_before);
    page.vector("dv", &d.v);
    page.title("16. To the row: dy1 = Wqᵀ·dq + Wkᵀ·dk + Wvᵀ·dv, dx = dh1 + norm′(dy1)");
    page.vector("dy1", &d.y_1);
    page.vector("dx", &d.x);
    page.title("17. The gradient of the row: dE[my] = dx + dz[my]·y3");
    let id = IDS[LAST];
    page.vector("dz·y3", &f.norm_3.y.iter().map(|y| d.logits[id] * y).collect::<Vec<_>>());
    page.vector("dE[my]", &d.parameters.table[id * HIDDEN..][..HIDDEN]);
}

/// The loss, the guess and every parameter's gradient, by hand and by the tape.
fn compare_with_the_tape(page: &mut Page, model: &Model, f: &Forward, d: &Backward) -> Result<Vec<f64>> {
    page.title("18. The same by the tape: lengths of both vectors, and of their difference");
    let mut tape = Tape::recording();
    let loss = loss(model, &mut tape)?;
    let inference = &mut Tape::inference();
    let hidden = model.hidden(inference, &input())?.hidden;
    let logits = model.logits(inference, &hidden)?.value().to_f64()?;
    page.agreement("L", &[f.loss], &[loss.cross_entropy])?;
    page.agreement("z", &f.logits, &logits[LAST * WORDS.len()..])?;
    let mut gradients = Gradients::zeros(model.params());
    tape.backward(&loss.total, 1.0, &mut gradients)?;
    gradients.expect_all_reached()?;
    let flat = gradients.flat::<f64>()?;
    let by_tape = Weights::load(|name| {
        let entry = model.params().layout().find(name).ok_or_else(|| missing(name))?;
        Ok(flat[entry.range()].to_vec())
    })?;
    for ((name, hand), (_, tape)) in d.parameters.named().into_iter().zip(by_tape.named()) {
        page.agreement(&format!("d{name}"), hand, tape)?;
    }
    Ok(flat.to_vec())
}

/// A finite difference of the model's loss, against the gradient.
fn move_one_number(page: &mut Page, model: &mut Model, d: &Backward) -> Result<()> {
    const H: f64 = 1e-4;
    page.title("19. The same without derivatives: move the first number of the row by ±h and look at the loss, h = 0.0001");
    let at = IDS[LAST] * HIDDEN; // the table lies at the beginning of the parameters
    let mut moved = |by: f64| -> Result<f64> {
        model.params_mut().flat_mut::<f64>()?[at] += by;
        let value = loss(model, &mut Tape::inference())?.cross_entropy;
        model.params_mut().flat_mut::<f64>()?[at] -= by;
        Ok(value)
    };
    let (above, below) = (moved(H)?, moved(-H)?);
    let (quotient, gradient) = ((above - below) / (2.0 * H), d.parameters.table[at]);
    page.line(format!("L(+h)             {above:12.8}"));
    page.line(format!("L(−h)             {below:12.8}"));
    page.line(format!("their slope       {quotient:12.6}"));
    page.line(format!("dE[my][0]         {gradient:12.6}"));
    expect_close("the slope of the loss", &[quotient], &[gradient], 1e-6)
}

/// One step of plain gradient descent.
fn take_a_step(page: &mut Page, model: &mut Model, gradients: &[f64]) -> Result<()> {
    page.title("20. What it is for: subtract from every parameter 0.1 times its gradient");
    let before = loss(model, &mut Tape::inference())?.cross_entropy;
    for (parameter, gradient) in model.params_mut().flat_mut::<f64>()?.iter_mut().zip(gradients) {
        *parameter -= 0.1 * gradient;
    }
    let after = loss(model, &mut Tape::inference())?.cross_entropy;
    page.line(format!("loss {before:.4} → {after:.4}, p[mat] {:.4} → {:.4}", (-before).exp(), (-after).exp()));
    Ok(())
}

/// MiniMind-2, as small as can be, with random parameters.
fn tiny_model() -> Result<Model> {
    let config = ModelConfig {
        num_attention_heads: HEADS,
        attention: AttentionConfig::Gqa(GqaConfig { num_key_value_heads: 1, head_dim: HEAD_DIM, qk_norm: false }),
        intermediate_size: INNER,
        max_position_embeddings: IDS.len(),
        rope_theta: THETA,
        rms_norm_eps: EPS,
        ..ModelConfig::minimind2(HIDDEN, 1, WORDS.len())
    };
    Model::random(config, Init::Pytorch, 0.02, SEED)?.to_f64()
}

fn input() -> model::Forward {
    model::Forward::plain(1, IDS.len(), IDS.map(|id| id as i32))
}

/// The loss of the last token's guess alone.
fn loss(model: &Model, tape: &mut Tape) -> Result<model::Loss> {
    let targets: Arc<[i32]> = (0..IDS.len()).map(|t| if t == LAST { TARGET as i32 } else { Batch::IGNORE }).collect();
    model.loss(tape, &input(), targets, 1, 0.0)
}

fn missing(name: &str) -> Error {
    Error::Internal(format!("the tiny model has no parameter {name}"))
}

fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// An error unless ‖a − b‖ ≤ tolerance·‖b‖.
fn expect_close(what: &str, a: &[f64], b: &[f64], tolerance: f64) -> Result<()> {
    let difference = length(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
    if a.len() == b.len() && difference <= tolerance * length(b) {
        return Ok(());
    }
    Err(Error::Internal(format!("{what}: two ways of computing it differ by {difference:e}")))
}

/// The text so far.
#[derive(Default)]
struct Page(String);

impl Page {
    fn title(&mut self, title: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(format!("{gap}{title}"));
    }

    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    fn vector(&mut self, name: &str, values: &[f64]) {
        // Adding zero turns a negative zero, which is what a tiny negative number rounds to, into a positive one.
        let rounded = values.iter().map(|x| (x * 1e4).round() / 1e4 + 0.0);
        self.line(format!("{name:8}{}", rounded.map(|x| format!("{x:9.4}")).collect::<String>()));
    }

    fn heads(&mut self, name: &str, values: &[f64]) {
        for (head, values) in values.chunks_exact(HEAD_DIM).enumerate() {
            self.vector(&format!("{name} {head}"), values);
        }
    }

    fn norm(&mut self, name: &str, norm: &by_hand::Norm) {
        self.vector("mean x²", &[norm.mean_square]);
        self.vector("rstd", &[norm.rstd]);
        self.vector(name, &norm.y);
    }

    fn agreement(&mut self, name: &str, hand: &[f64], tape: &[f64]) -> Result<()> {
        expect_close(name, hand, tape, 1e-12)?;
        self.line(format!("{name:8}by hand {:9.6}   tape {:9.6}   difference < 1e-12", length(hand), length(tape)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_differ_are_no_report() {
        let mut page = Page::default();
        assert!(page.agreement("x", &[1.0, 2.0], &[1.0, 2.0]).is_ok());
        let error = page.agreement("x", &[1.0, 2.0], &[1.0, 2.0 + 1e-11]).unwrap_err().to_string();
        assert!(error.contains("x: two ways of computing it differ by 1"), "{error}");
        assert!(page.agreement("x", &[1.0], &[1.0, 0.0]).is_err());
    }

    #[test]
    fn a_wrong_gradient_is_no_report() {
        let mut model = tiny_model().unwrap();
        let (f, mut d) = compute_by_hand(&model).unwrap();
        let page = &mut Page::default();
        assert!(compare_with_the_tape(page, &model, &f, &d).is_ok() && move_one_number(page, &mut model, &d).is_ok());
        d.parameters.k[3] += 1e-9;
        let error = compare_with_the_tape(page, &model, &f, &d).unwrap_err().to_string();
        assert!(error.contains("dWk: two ways"), "{error}");
        d.parameters.table[IDS[LAST] * HIDDEN] *= 1.00001;
        assert!(move_one_number(page, &mut model, &d).is_err());
    }

    #[test]
    fn a_report_is_the_same_each_time() {
        assert_eq!(report().unwrap(), report().unwrap());
    }
}
