//! Golden cases: what a public implementation computed, compared **by name**.
//!
//! A case is a directory with `config.json`, `model.safetensors` and `golden.safetensors`, which holds `input_ids` and `labels`
//! `[B, T]` (position t predicts label t + 1, −100 does not count), `logits` `[B, T, V]`, `loss`, where the family has them
//! `aux_loss` and `ce_loss`, `grad.NAME` for every parameter, and `greedy` `[1, n]`: the first eight tokens of row 0 and what
//! follows them greedily. Without an `aux_loss` the `loss` is the cross-entropy: the transformers library adds no other by default.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::data::Batch;
use crate::infer::{Generation, Sampling};
use crate::io::{WeightsFile, load_model};
use crate::model::{Forward, Loss, Model};
use crate::params::{Entry, Gradients};
use crate::tape::Tape;
use crate::tensor::DType;
use crate::{Error, Result};

/// How far each quantity may be from the golden one. Rounding in f32 alone gives about 1e-6.
const LOSS: f64 = 1e-6;
const LOGITS: f64 = 1e-5;
const GRADIENT: f64 = 2e-5;
/// Tokens of row 0 that the greedy continuation begins with.
const GREEDY_PROMPT: usize = 8;

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The name in the golden file.
    pub name: String,
    /// What the error is: `relative`, `relative L2`, `L2`, `L2 / rounding`, `different tokens`.
    pub measure: &'static str,
    /// The error, or NaN where one of the two is missing.
    pub error: f64,
    /// The largest error that passes.
    pub bound: f64,
    /// Whether it passes.
    pub pass: bool,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Comparison {
    fn new(name: impl Into<String>, measure: &'static str, error: f64, bound: f64) -> Self {
        Self { name: name.into(), measure, error, bound, pass: error <= bound, missing: None }
    }

    fn missing(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { missing: Some(why.into()), ..Self::new(name, "", f64::NAN, 0.0) }
    }
}

/// Compares one case, in f32 or f64 (the greedy tokens always in f32).
pub fn compare(dir: impl AsRef<Path>, dtype: DType) -> Result<Vec<Comparison>> {
    let dir = dir.as_ref();
    let model = load_model(dir)?;
    let golden = WeightsFile::open(dir.join("golden.safetensors"))?;
    let (shape, ids) = golden.i32("input_ids")?;
    let (labels_shape, labels) = golden.i32("labels")?;
    let &[rows, seq_len] = shape.dims() else {
        return Err(Error::format(golden.path(), format!("`input_ids` has shape {shape}, expected [B, T]")));
    };
    if labels_shape != shape || ids.is_empty() {
        let message = format!("`input_ids` has shape {shape}, `labels` {labels_shape}; expected [B, T] of both, not empty");
        return Err(Error::format(golden.path(), message));
    }
    let forward = Forward::plain(rows, seq_len, ids.clone());
    let targets: Arc<[i32]> = labels.chunks(seq_len).flat_map(|row| row[1..].iter().copied().chain([Batch::IGNORE])).collect();
    let counted = targets.iter().filter(|&&target| target != Batch::IGNORE).count();

    let typed = match dtype {
        DType::F64 => &model.to_f64()?,
        _ => &model,
    };
    let mut tape = Tape::recording();
    let aux_weight = if golden.contains("aux_loss") { 1.0 } else { 0.0 };
    let loss = typed.loss(&mut tape, &forward, targets, counted, aux_weight)?;
    let mut gradients = Gradients::zeros(typed.params());
    tape.backward(&loss.total, 1.0, &mut gradients)?;
    gradients.expect_all_reached()?;
    let tape = &mut Tape::inference();
    let hidden = typed.hidden(tape, &forward)?.hidden;
    let logits = typed.logits(tape, &hidden)?.value().to_f64()?;

    let mut comparisons = losses(&golden, &loss)?;
    comparisons.push(distance(&golden, "logits", &logits, LOGITS, 0.0));
    comparisons.extend(compare_gradients(&golden, typed, &gradients)?);
    comparisons.push(greedy(&golden, &model, &ids[..seq_len.min(GREEDY_PROMPT)])?);
    Ok(comparisons)
}

fn losses(golden: &WeightsFile, loss: &Loss) -> Result<Vec<Comparison>> {
    let computed =
        [("loss", loss.total.value().item()?, true), ("ce_loss", loss.cross_entropy, false), ("aux_loss", loss.aux, false)];
    let mut comparisons = Vec::new();
    for (name, value, required) in computed {
        if golden.contains(name) {
            let expected = golden.f32(name)?.1.first().map_or(f64::NAN, |&x| f64::from(x));
            let error = if expected == 0.0 { value.abs() } else { (value / expected - 1.0).abs() };
            comparisons.push(Comparison::new(name, "relative", error, LOSS));
        } else if required {
            comparisons.push(Comparison::missing(name, "not in golden.safetensors"));
        }
    }
    Ok(comparisons)
}

/// Every parameter that is trained must have a golden gradient, and every golden gradient a parameter; experts are named one by one or
/// fused.
fn compare_gradients(golden: &WeightsFile, model: &Model, gradients: &Gradients) -> Result<Vec<Comparison>> {
    let flat: Vec<f64> = match model.params().dtype() {
        DType::F64 => gradients.flat::<f64>()?.to_vec(),
        _ => gradients.flat::<f32>()?.iter().map(|&g| f64::from(g)).collect(),
    };
    let names = golden.names();
    let stored = model.params().layout().as_stored(|name| golden.contains(&format!("grad.{name}")));
    // A sum of terms that cancel is but their rounding: with one normalised choice, the router's gradient.
    let largest = stored.iter().map(|entry| l2(&flat[entry.range()])).fold(0.0, f64::max);
    let rounding = f64::from(f32::EPSILON) * largest;
    let compare_one = |entry: &&Entry| distance(golden, &format!("grad.{}", entry.name), &flat[entry.range()], GRADIENT, rounding);
    let mut comparisons: Vec<_> = stored.iter().filter(|entry| entry.trainable).map(compare_one).collect();
    let tied_head = |name: &str| model.config().tie_word_embeddings && name == "lm_head.weight";
    for name in names {
        if let Some(parameter) = name.strip_prefix("grad.")
            && !stored.iter().any(|entry| entry.name == parameter)
            && !tied_head(parameter)
        {
            comparisons.push(Comparison::missing(name.clone(), "the model has no such parameter"));
        }
    }
    Ok(comparisons)
}

fn l2(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// ‖computed − golden‖₂ / ‖golden‖₂; where the golden norm is within `rounding`, zero but for that, ‖computed − golden‖₂ in its units.
fn distance(golden: &WeightsFile, name: &str, computed: &[f64], bound: f64, rounding: f64) -> Comparison {
    let expected: Vec<f64> = match golden.f32(name) {
        Ok((_, expected)) => expected.into_iter().map(f64::from).collect(),
        Err(error) => return Comparison::missing(name, error.to_string()),
    };
    if expected.len() != computed.len() {
        return Comparison::missing(name, format!("{} elements, the model's has {}", expected.len(), computed.len()));
    }
    let (norm, difference) = (l2(&expected), l2(&computed.iter().zip(&expected).map(|(a, b)| a - b).collect::<Vec<_>>()));
    match norm {
        0.0 if rounding == 0.0 => Comparison::new(name, "L2", difference, bound),
        norm if norm <= rounding => Comparison::new(name, "L2 / rounding", difference / rounding, 1.0),
        norm => Comparison::new(name, "relative L2", difference / norm, bound),
    }
}

fn greedy(golden: &WeightsFile, model: &Model, ids: &[i32]) -> Result<Comparison> {
    if !golden.contains("greedy") {
        return Ok(Comparison::missing("greedy", "not in golden.safetensors"));
    }
    let (_, expected) = golden.i32("greedy")?;
    let prompt: Vec<u32> = ids.iter().take(GREEDY_PROMPT).map(|&id| id as u32).collect();
    let new_tokens = expected.len().saturating_sub(prompt.len());
    let mut generation = Generation::new(model, &prompt, Sampling::greedy(), new_tokens)?.without_end();
    generation.by_ref().collect::<Result<Vec<u32>>>()?;
    let tokens = generation.tokens();
    let different = expected.iter().zip(tokens).filter(|(a, b)| i64::from(**a) != i64::from(**b)).count();
    let different = different + expected.len().abs_diff(tokens.len());
    Ok(Comparison::new("greedy", "different tokens", different as f64, 0.0))
}
