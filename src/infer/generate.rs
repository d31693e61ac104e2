//! Autoregressive generation with a key-value cache.

use super::{Sampler, Sampling};
use crate::model::{Cache, Model};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Tokens of a prompt that pass through the model together: bounds the memory of a long one.
const PREFILL: usize = 512;

/// Generates the tokens that follow a prompt, one at each call of `next`.
///
/// It ends after an end-of-text token (which it returns), after `max_new_tokens`, or where the model's positions end.
pub struct Generation<'a> {
    model: &'a Model,
    sampler: Sampler,
    cache: Cache,
    tokens: Vec<u32>,
    prompt_len: usize,
    end: usize,
    end_token: Option<u32>,
    ended: bool,
}

impl<'a> Generation<'a> {
    /// Begins after `prompt`, which must hold at least one token and leave room for another.
    pub fn new(model: &'a Model, prompt: &[u32], sampling: Sampling, max_new_tokens: usize) -> Result<Self> {
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
            model,
            sampler: Sampler::new(sampling)?,
            cache: model.cache(end),
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            end,
            end_token: config.eos_token_id,
            ended: false,
        })
    }

    /// The same, going on after an end-of-text token.
    pub fn without_end(self) -> Self {
        Self { end_token: None, ..self }
    }

    /// The prompt and what was generated so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What was generated so far.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    fn step(&mut self) -> Result<u32> {
        let tape = &mut Tape::inference();
        let new: Vec<i32> = self.tokens[self.cache.len()..].iter().map(|&id| id as i32).collect();
        let mut last = None;
        for piece in new.chunks(PREFILL) {
            last = Some(self.model.hidden_cached(tape, piece, &mut self.cache)?.hidden);
        }
        let hidden = last.ok_or_else(|| Error::Internal("generation without a new token".into()))?;
        let logits = self.model.logits(tape, &last_row(hidden.value())?.into())?;
        self.sampler.sample(logits.value().data::<f32>()?, &self.tokens)
    }
}

/// The last row of `[.., H]` as `[1, H]`.
fn last_row(hidden: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (hidden.shape().rows(), hidden.shape().cols());
    hidden.reshape([1, rows * cols])?.columns((rows - 1) * cols, cols)
}

impl Iterator for Generation<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.ended || self.tokens.len() >= self.end {
            return None;
        }
        let token = self.step();
        match &token {
            Ok(id) => {
                self.tokens.push(*id);
                self.ended = self.end_token == Some(*id);
            }
            Err(_) => self.ended = true,
        }
        Some(token)
    }
}
