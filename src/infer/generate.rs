//! Autoregressive generation with a key-value cache.

use super::Sampling;
use super::sequence::{Sequence, step};
use crate::Result;
use crate::cpu::awake;
use crate::model::Model;

/// Generates the tokens that follow a prompt, one at each call of `next`.
///
/// It ends after an end-of-text token (which it returns), after `max_new_tokens`, or where the model's positions end.
pub struct Generation<'a> {
    model: &'a Model,
    sequence: Sequence,
}

impl<'a> Generation<'a> {
    /// Begins after `prompt`, which must hold at least one token and leave room for another.
    pub fn new(model: &'a Model, prompt: &[u32], sampling: Sampling, max_new_tokens: usize) -> Result<Self> {
        Ok(Self { model, sequence: Sequence::new(model, prompt, sampling, max_new_tokens)? })
    }

    /// The same, ending after any of these tokens instead of the configuration's.
    pub fn with_end_tokens(mut self, end_tokens: Vec<u32>) -> Self {
        self.sequence.end_tokens = end_tokens;
        self
    }

    /// The same, going on after an end-of-text token.
    pub fn without_end(self) -> Self {
        self.with_end_tokens(Vec::new())
    }

    /// The prompt and what was generated so far.
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }

    /// What was generated so far.
    pub fn generated(&self) -> &[u32] {
        self.sequence.generated()
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if !self.sequence.goes_on() {
            return None;
        }
        let token = awake(|| step(self.model, &mut [&mut self.sequence]));
        if token.is_err() {
            self.sequence.stop();
        }
        token.map(|ids| ids.first().copied()).transpose()
    }
}

/// Generates after several prompts at once: each call of `next` reads the weights once and adds a token to every sequence.
///
/// Sequence i is what a [`Generation`] with the seed plus i gives, as long as there are at most 16: beyond, matrix products sum in
/// another order.
pub struct BatchGeneration<'a> {
    model: &'a Model,
    sequences: Vec<Sequence>,
}

impl<'a> BatchGeneration<'a> {
    /// Begins after the prompts, each as in [`Generation::new`].
    pub fn new(model: &'a Model, prompts: &[Vec<u32>], sampling: Sampling, max_new_tokens: usize) -> Result<Self> {
        let seeded = |i: usize| Sampling { seed: sampling.seed.wrapping_add(i as u64), ..sampling };
        let begin = |(i, prompt): (usize, &Vec<u32>)| Sequence::new(model, prompt, seeded(i), max_new_tokens);
        Ok(Self { model, sequences: prompts.iter().enumerate().map(begin).collect::<Result<_>>()? })
    }

    /// The same, going on after end-of-text tokens.
    pub fn without_end(mut self) -> Self {
        self.sequences.iter_mut().for_each(|sequence| sequence.end_tokens.clear());
        self
    }

    /// What was generated so far after prompt i.
    pub fn generated(&self, i: usize) -> &[u32] {
        self.sequences.get(i).map_or(&[], Sequence::generated)
    }
}

impl Iterator for BatchGeneration<'_> {
    /// The new token of each sequence, `None` where it has ended.
    type Item = Result<Vec<Option<u32>>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut tokens = vec![None; self.sequences.len()];
        let live = self.sequences.iter_mut().zip(&mut tokens).filter(|(sequence, _)| sequence.goes_on());
        let (mut live, places): (Vec<_>, Vec<_>) = live.unzip();
        if live.is_empty() {
            return None;
        }
        match awake(|| step(self.model, &mut live)) {
            Ok(ids) => {
                places.into_iter().zip(ids).for_each(|(place, id)| *place = Some(id));
                Some(Ok(tokens))
            }
            Err(error) => {
                live.iter_mut().for_each(|sequence| sequence.stop());
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
