//! Judging a model by the probability that it gives to text: [`text_loss`] of documents, [`multiple_choice`] among endings.
//!
//! [`loss_by_position`] tells the first tokens of long documents from their later ones.
//!
//! All of it comes down to the log-likelihoods of the tokens of [`Sequence`]s. These are sorted by length and run in batches of about
//! `BATCH_TOKENS` tokens, each sequence in a row of its own from position 0, so that its score does not depend on its
//! neighbours; what fills up a shorter row stands behind it, where causal attention never looks. Logits exist `CHUNK` rows
//! at a time, and only of tokens that count.

mod choices;
mod picture;
mod position;
mod text;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use rayon::prelude::*;

pub use choices::{Answer, ChoiceFigures, ChoiceOptions, multiple_choice};
pub use picture::positions_svg;
pub use position::{Bucket, LongDocuments, long_documents, loss_by_position};
pub use text::{TextFigures, TextOptions, text_loss};

use crate::cpu::vectorized;
use crate::model::{Forward, Model, ModelConfig};
use crate::tape::Tape;
use crate::tensor::{Float, Tensor};
use crate::{Error, Result};

/// Tokens that pass through the model together, unless one row has more.
const BATCH_TOKENS: usize = 4096;
/// Tokens that are gathered, sorted and batched at once: the more, the less is padding.
const GATHERED_TOKENS: usize = 16 * BATCH_TOKENS;
/// Rows whose logits exist at one time.
const CHUNK: usize = 256;
/// The longest window that is taken unless another is asked for: attention's cost grows with it.
const LONGEST_BY_DEFAULT: usize = 2048;

/// How much of a text the model sees at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    max_seq_len: usize,
    stride: usize,
}

impl Window {
    /// Windows of at most `max_seq_len` tokens (none: the model's positions, but at most 2048), each beginning `stride` tokens
    /// after the one before (none: half a window). The last token of a window is only predicted.
    ///
    /// # Errors
    /// A length below 2 or beyond the model's positions; a stride that is 0, or that leaves a window no context.
    pub fn new(config: &ModelConfig, max_seq_len: Option<usize>, stride: Option<usize>) -> Result<Self> {
        let positions = config.max_position_embeddings;
        let max_seq_len = max_seq_len.unwrap_or(positions.min(LONGEST_BY_DEFAULT));
        if max_seq_len < 2 || max_seq_len > positions {
            return Err(Error::config(format!(
                "max-seq-len is {max_seq_len}; it must lie in 2..={positions}, the model's positions"
            )));
        }
        let stride = stride.unwrap_or(max_seq_len / 2);
        if stride == 0 || stride >= max_seq_len {
            return Err(Error::config(format!(
                "stride is {stride}; it must lie in 1..={}, below max-seq-len, so that every token has context",
                max_seq_len - 1
            )));
        }
        Ok(Self { max_seq_len, stride })
    }

    /// The most tokens of a window.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// Tokens from the beginning of a window to that of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }
}

/// Tokens of which the first ones are given, and the others are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    ids: Vec<u32>,
    given: usize,
}

impl Sequence {
    /// `ids`, of which the first `given` are not scored. The very first never is: nothing stands before it.
    pub fn new(ids: Vec<u32>, given: usize) -> Self {
        Self { ids, given: given.max(1) }
    }

    /// Its tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many of them are scored.
    pub fn scored(&self) -> usize {
        self.ids.len().saturating_sub(self.given)
    }

    /// The tokens that the model reads: the last one is only predicted.
    fn inputs(&self) -> &[u32] {
        self.ids.split_last().map_or(&[], |(_, inputs)| inputs)
    }
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Documents or questions that are read.
    pub items: u64,
    /// Bytes of the files that are read.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Tokens that passed through the model, padding left out.
    pub tokens: u64,
}

/// `Σ_t ln p(ids[t] | ids[..t])` over the scored tokens of each sequence, in nats, in the order of `sequences`.
///
/// # Errors
/// [`Error::TokenId`] for a token that the model does not have, [`Error::NonFinite`] where a score is not finite.
pub fn log_likelihoods(model: &Model, sequences: &[Sequence]) -> Result<Vec<f64>> {
    let mut scores = vec![0.0; sequences.len()];
    each_token(model, sequences, &mut |sequence, _, nats| scores[sequence] += nats)?;
    match scores.iter().find(|score| !score.is_finite()) {
        Some(score) => {
            Err(Error::NonFinite(format!("the log-likelihood of a text is {score}: the model's weights are broken or too large")))
        }
        None => Ok(scores),
    }
}

/// Hears the number of a sequence, t, and `ln p(ids[t] | ids[..t])` in nats.
type Found<'a> = dyn FnMut(usize, usize, f64) + 'a;

/// Scores each token that is to be scored, in an order of its own between sequences, from the left within one.
fn each_token(model: &Model, sequences: &[Sequence], found: &mut Found<'_>) -> Result<()> {
    let mut order: Vec<(usize, &Sequence)> = sequences.iter().enumerate().filter(|(_, sequence)| sequence.scored() > 0).collect();
    order.sort_by_key(|(_, sequence)| Reverse(sequence.ids.len()));
    let mut rest = order.as_slice();
    while let Some((_, longest)) = rest.first() {
        let rows = BATCH_TOKENS / longest.inputs().len();
        let (batch, later) = rest.split_at(rows.clamp(1, rest.len()));
        score(model, batch, found)?;
        rest = later;
    }
    Ok(())
}

/// One batch, the longest sequence first.
fn score(model: &Model, batch: &[(usize, &Sequence)], found: &mut Found<'_>) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    if let Some(&id) = batch.iter().flat_map(|(_, sequence)| &sequence.ids).find(|&&id| id as usize >= vocab_size) {
        return Err(Error::TokenId { id: id.into(), vocab_size });
    }
    let seq_len = batch.first().map_or(0, |(_, longest)| longest.inputs().len());
    let mut ids = vec![0; batch.len() * seq_len];
    for (row, (_, sequence)) in ids.chunks_exact_mut(seq_len).zip(batch) {
        row.iter_mut().zip(sequence.inputs()).for_each(|(slot, &id)| *slot = id as i32);
    }
    let tape = &mut Tape::inference();
    let hidden = model.hidden(tape, &Forward::plain(batch.len(), seq_len, ids))?.hidden;
    let (width, hidden) = (hidden.value().shape().cols(), hidden.value().data::<f32>()?);

    let predictions: Vec<Prediction> = batch
        .iter()
        .enumerate()
        .flat_map(|(row, &(number, sequence))| {
            let target =
                move |t: usize| Prediction { sequence: number, t, from: row * seq_len + t - 1, target: sequence.ids[t] as usize };
            (sequence.given..sequence.ids.len()).map(target)
        })
        .collect();
    for chunk in predictions.chunks(CHUNK) {
        let x = Tensor::build([chunk.len(), width], |x: &mut [f32]| {
            for (x, prediction) in x.chunks_exact_mut(width).zip(chunk) {
                x.copy_from_slice(&hidden[prediction.from * width..][..width]);
            }
        });
        let logits = model.logits(tape, &x.into())?;
        let rows = logits.value().data::<f32>()?.par_chunks_exact(vocab_size);
        let nats: Vec<f64> = rows.zip(chunk).map(|(logits, p)| logits[p.target].f64() - log_sum_exp(logits)).collect();
        chunk.iter().zip(nats).for_each(|(prediction, nats)| found(prediction.sequence, prediction.t, nats));
    }
    Ok(())
}

/// One scored token.
struct Prediction {
    /// The number of its sequence.
    sequence: usize,
    /// Its place in the sequence.
    t: usize,
    /// The hidden state that predicts it, counted over the batch.
    from: usize,
    target: usize,
}

vectorized! {
    /// `ln Σ e^x`.
    fn log_sum_exp<F: Float>(x: &[F]) -> f64 {
        const LANES: usize = 32;
        let mut lanes = [F::neg_infinity(); LANES];
        for chunk in x.chunks(LANES) {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let max = lanes.iter().fold(F::neg_infinity(), |max, &x| if x > max { x } else { max });
        let mut sums = [F::of(0.0); LANES];
        for chunk in x.chunks(LANES) {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += (x - max).exp_lane();
            }
        }
        max.f64() + sums.iter().map(|sum| sum.f64()).sum::<f64>().ln()
    }
}
