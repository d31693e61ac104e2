//! The next token of each sequence on a device: `kernels/sample.cu`.

use super::Settings;
use crate::error::{Error, Result};
use crate::gpu::kernels::sample::SampleForward;
use crate::gpu::{Context, Slice, SliceMut};

/// What [`Sequences::status`] says of a sequence that goes on.
pub const GOES_ON: i32 = 0;
/// It ended with an end token, or where its tokens reached their capacity.
pub const ENDED: i32 = 1;
/// A logit was infinite or NaN: no token was added.
pub const NOT_FINITE: i32 = 2;

/// Sequences on the device, which grow by a token with each call.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// [batch, capacity]
    pub tokens: SliceMut<'a, i32>,
    /// `[batch]`: tokens so far.
    pub lengths: SliceMut<'a, i32>,
    /// `[batch]`: [`GOES_ON`], [`ENDED`] or [`NOT_FINITE`]; only sequences of the first kind grow.
    pub status: SliceMut<'a, i32>,
    /// [batch, [`seen_words`]]: bit t of a sequence is set for each token t in it.
    pub seen: SliceMut<'a, u32>,
    /// `[batch]`: draws so far.
    pub draws: SliceMut<'a, i64>,
    /// `[batch]`: keys of the random numbers, [`Philox`](crate::rng::Philox)'s as one number.
    pub random: Slice<'a, i64>,
}

/// Words of the set of tokens that a sequence has.
pub const fn seen_words(vocabulary: usize) -> usize {
    vocabulary.div_ceil(32)
}

/// Adds to each sequence the token that its `logits` [batch, V] and the settings give. `keys` [batch, V]: workspace; each of
/// `end_tokens` ends a sequence.
pub fn next(
    context: &Context,
    [batch, vocabulary, capacity]: [usize; 3],
    sequences: Sequences<'_>,
    keys: SliceMut<'_, u32>,
    logits: Slice<'_, f32>,
    end_tokens: Slice<'_, i32>,
    settings: &Settings,
) -> Result<()> {
    let int = |size: usize| i32::try_from(size).map_err(|_| Error::device(format!("sample: {size} is too large")));
    if batch == 0 || vocabulary == 0 || logits.len() != batch * vocabulary {
        return Err(Error::device(format!("sample: {} logits of {batch} sequences and {vocabulary} tokens", logits.len())));
    }
    let Sequences { tokens, lengths, status, seen, draws, random } = sequences;
    let &Settings { repetition_penalty: penalty, temperature, top_k, top_p, min_p } = settings;
    #[allow(non_snake_case)] // the kernel's name
    let (batch, V, capacity, ends) = (int(batch)?, int(vocabulary)?, int(capacity)?, int(end_tokens.len())?);
    let call = SampleForward {
        tokens,
        lengths,
        status,
        seen,
        draws,
        keys,
        logits,
        random,
        end_tokens,
        batch,
        V,
        capacity,
        ends,
        penalty,
        temperature,
        top_k,
        top_p,
        min_p,
    };
    context.launch(&[], &call)
}
