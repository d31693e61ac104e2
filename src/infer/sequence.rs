//! One sequence that grows, and the step that adds a token to several of them.

use super::{Sampler, Sampling};
use crate::model::{Cache, Model};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Tokens of a prompt that pass through the model together: bounds the memory of a long one.
const PREFILL: usize = 512;

/// A prompt and what was generated after it.
pub(super) struct Sequence {
    sampler: Sampler,
    cache: Cache,
    tokens: Vec<u32>,
    prompt_len: usize,
    end: usize,
    /// Each of them ends the sequence.
    pub end_tokens: Vec<u32>,
    ended: bool,
}

impl Sequence {
    /// Begins after `prompt`, which must hold at least one token and leave room for another.
    pub fn new(model: &Model, prompt: &[u32], sampling: Sampling, max_new_tokens: usize) -> Result<Self> {
        let config = model.config();
        if prompt.is_empty() {
            return Err(Error::config("the prompt holds no token, and the model has no beginning-of-text token to start from"));
        }
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= config.vocab_size) {
            return Err(Error::TokenId { id: id.into(), vocab_size: config.vocab_size });
        }
        if prompt.len() >= config.max_position_embeddings {
            let (len, max) = (prompt.len(), config.max_position_embeddings);
            return Err(Error::config(format!("the prompt has {len} tokens; the model has {max} positions, and one must be left")));
        }
        let end = config.max_position_embeddings.min(prompt.len().saturating_add(max_new_tokens));
        Ok(Self {
            sampler: Sampler::new(sampling)?,
            cache: model.cache(end),
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            end,
            end_tokens: config.eos_token_id.into_iter().collect(),
            ended: false,
        })
    }

    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// Whether another token can follow.
    pub fn goes_on(&self) -> bool {
        !self.ended && self.tokens.len() < self.end
    }

    /// Adds no more tokens.
    pub fn stop(&mut self) {
        self.ended = true;
    }

    /// The tokens that the cache does not hold yet.
    fn new_ids(&self) -> Vec<i32> {
        self.tokens[self.cache.len()..].iter().map(|&id| id as i32).collect()
    }

    fn draw(&mut self, logits: &[f32]) -> Result<u32> {
        let id = self.sampler.sample(logits, &self.tokens)?;
        self.tokens.push(id);
        self.ended = self.end_tokens.contains(&id);
        Ok(id)
    }
}

/// Adds a token to each of the sequences, and returns them. Prompts pass through the model one after the other; sequences that grew
/// by one token pass together, so that the weights are read once.
pub(super) fn step(model: &Model, sequences: &mut [&mut Sequence]) -> Result<Vec<u32>> {
    let tape = &mut Tape::inference();
    let width = model.config().hidden_size;
    let mut hidden = vec![0.0f32; sequences.len() * width];
    let mut single = (Vec::new(), Vec::new(), Vec::new());
    for (sequence, row) in sequences.iter_mut().zip(hidden.chunks_exact_mut(width)) {
        let ids = sequence.new_ids();
        if let &[id] = &ids[..] {
            single.0.push(id);
            single.1.push(&mut sequence.cache);
            single.2.push(row);
            continue;
        }
        for piece in ids.chunks(PREFILL) {
            let all = model.hidden_cached(tape, piece, &mut sequence.cache)?.hidden;
            row.copy_from_slice(all.value().row_range(piece.len() - 1, 1)?.data::<f32>()?);
        }
    }
    let (ids, mut caches, rows) = single;
    if !ids.is_empty() {
        let all = model.hidden_batch(tape, &ids, &mut caches)?.hidden;
        for (row, hidden) in rows.into_iter().zip(all.value().data::<f32>()?.chunks_exact(width)) {
            row.copy_from_slice(hidden);
        }
    }
    let logits = model.logits(tape, &Tensor::new([sequences.len(), width], hidden)?.into())?;
    let rows = logits.value().data::<f32>()?.chunks_exact(model.config().vocab_size);
    sequences.iter_mut().zip(rows).map(|(sequence, logits)| sequence.draw(logits)).collect()
}
