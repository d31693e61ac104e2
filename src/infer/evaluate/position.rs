//! Loss by position: does a model still read well where a document is longer than those that it was trained on?
//!
//! Only documents that reach the asked length take part, and of them only their first so many tokens, each in a row of its own from
//! position 0. So every bucket of positions is filled by the same documents, and differs from its neighbours by the context alone.

use std::path::Path;

use serde::Serialize;

use super::{Sequence, each_token};
use crate::data::{Documents, Tokenizer};
use crate::model::Model;
use crate::{Error, Result};

/// Documents that pass through the model between two calls of `progress`.
const GROUP: usize = 16;

/// The beginnings of the long documents of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongDocuments {
    /// Their first tokens, all of one length.
    pub sequences: Vec<Sequence>,
    /// Documents that were too short.
    pub shorter: u64,
}

/// A range of positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Its first position.
    pub from: usize,
    /// The position behind its last.
    pub to: usize,
    /// Scored tokens at these positions.
    pub tokens: u64,
    /// Their mean of −ln p, in nats.
    pub loss: f64,
    /// e^loss.
    pub perplexity: f64,
}

/// The first `len` tokens of each document in `paths` that has so many, `limit` such documents at most. Tokens are counted as in
/// training, with that at the beginning and that at the end where the tokenizer has them.
///
/// # Errors
/// Those of [`Documents`] and of the tokenizer; no document is long enough.
pub fn long_documents(
    tokenizer: &Tokenizer,
    paths: &[impl AsRef<Path>],
    len: usize,
    limit: Option<u64>,
    skip_bad_lines: bool,
) -> Result<LongDocuments> {
    let mut found = LongDocuments { sequences: Vec::new(), shorter: 0 };
    let (mut ids, mut longest) = (Vec::new(), 0);
    for piece in Documents::open(paths, skip_bad_lines)? {
        if limit.is_some_and(|limit| found.sequences.len() as u64 >= limit) {
            break;
        }
        let piece = piece?;
        ids.extend(tokenizer.bos_id().filter(|_| piece.begins));
        if ids.len() < len {
            ids.extend(tokenizer.encode(&piece.text)?);
        }
        ids.extend(tokenizer.eos_id().filter(|_| piece.ends));
        if piece.ends {
            longest = longest.max(ids.len());
            if ids.len() >= len {
                found.sequences.push(Sequence::new(ids[..len].to_vec(), 1));
            } else {
                found.shorter += 1;
            }
            ids.clear();
        }
    }
    if found.sequences.is_empty() {
        return Err(Error::config(format!("no document has {len} tokens; the longest has {longest}")));
    }
    Ok(found)
}

/// The mean loss of `sequences` over each `width` positions. A token's position is that of its own, not of the one that predicts it; the
/// first token is predicted by none. `progress` hears how many tokens passed through the model so far.
///
/// # Errors
/// A `width` of 0; [`Error::TokenId`] for a token that the model does not have, [`Error::NonFinite`] where a loss is not finite.
pub fn loss_by_position(model: &Model, sequences: &[Sequence], width: usize, progress: &mut dyn FnMut(u64)) -> Result<Vec<Bucket>> {
    if width == 0 {
        return Err(Error::config("the width of a bucket of positions must be at least 1"));
    }
    let longest = sequences.iter().map(|sequence| sequence.ids().len()).max().unwrap_or(0);
    let mut sums = vec![(0.0, 0); longest.div_ceil(width)];
    let mut tokens = 0;
    for group in sequences.chunks(GROUP) {
        each_token(model, group, &mut |_, t, nats| {
            let (sum, count) = &mut sums[t / width];
            *sum -= nats;
            *count += 1;
        })?;
        tokens += group.iter().map(|sequence| sequence.ids().len() as u64).sum::<u64>();
        progress(tokens);
    }
    let buckets = sums.into_iter().enumerate().filter(|(_, (_, tokens))| *tokens > 0).map(|(i, (sum, tokens))| {
        let loss = sum / tokens as f64;
        Bucket { from: i * width, to: longest.min((i + 1) * width), tokens, loss, perplexity: loss.exp() }
    });
    let buckets: Vec<Bucket> = buckets.collect();
    match buckets.iter().find(|bucket| !bucket.loss.is_finite()) {
        Some(Bucket { from, to, loss, .. }) => Err(Error::NonFinite(format!(
            "the loss at the positions {from}..{to} is {loss}: the model's weights are broken or too large"
        ))),
        None => Ok(buckets),
    }
}
