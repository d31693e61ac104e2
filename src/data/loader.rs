//! Batches in a random order that is a function of the seed alone.

use super::{Batch, Permutation, Shards, View};
use crate::{Error, Result, rng::Philox};
use std::{ops::Range, sync::Arc};

/// Separates the numbers of the shuffle from those of other purposes under the same seed.
const SHUFFLE: u64 = u64::from_le_bytes(*b"shuffle ");

/// Samples of T tokens: a stream of tokens, a view of it, and a range of that view's samples.
#[derive(Debug, Clone)]
pub struct Dataset {
    shards: Arc<Shards>,
    view: View,
    seq_len: usize,
    vocab_size: usize,
    pad: u32,
    samples: Range<u64>,
    /// Where the stream ends for these samples.
    end: u64,
}

impl Dataset {
    /// All samples of `shards`, `seq_len` tokens each, for a model whose vocabulary has `vocab_size` entries. Rows are filled with
    /// their padding token, else its end token, else 0.
    ///
    /// # Errors
    /// `seq_len` 0, or below 3 (bos, a token, eos) for [`View::Padded`]; a stream with no sample; a padding token outside the
    /// vocabulary.
    pub fn new(shards: Arc<Shards>, view: View, seq_len: usize, vocab_size: usize) -> Result<Self> {
        let least = if view == View::Padded { 3 } else { 1 };
        if seq_len < least || i32::try_from(seq_len).is_err() {
            return Err(Error::config(format!("samples of {seq_len} tokens cannot be made: at least {least} are needed")));
        }
        let samples = view.samples(&shards, seq_len);
        if samples == 0 {
            return Err(Error::config("the data set is too small: it has no token to predict"));
        }
        let pad = shards.pad_id().or(shards.eos_id()).unwrap_or(0);
        let end = shards.tokens();
        let dataset = Self { shards, view, seq_len, vocab_size, pad, samples: 0..samples, end };
        dataset.check(pad)?;
        Ok(dataset)
    }

    /// Holds out the last part of the samples: (training, validation), with `validation_fraction` of them, rounded, but at least
    /// one on each side.
    ///
    /// For [`View::Packed`] the stream is cut between two samples: no token behind the cut is an input or a target in training,
    /// so the last position before it predicts nothing. A document that lies across the cut is in training up to it and in
    /// validation from it on, where it begins anew.
    ///
    /// # Errors
    /// A fraction that is not between 0 and 1, or fewer than two samples.
    pub fn split(self, validation_fraction: f64) -> Result<(Self, Self)> {
        if !(validation_fraction > 0.0 && validation_fraction < 1.0) {
            return Err(Error::config(format!("the validation fraction must lie between 0 and 1, not {validation_fraction}")));
        }
        let samples = self.len();
        if samples < 2 {
            return Err(Error::config(format!(
                "{samples} sample of {} tokens cannot be split into training and validation: use more text or shorter samples",
                self.seq_len
            )));
        }
        let held_out = ((samples as f64 * validation_fraction).round() as u64).clamp(1, samples - 1);
        let cut = self.samples.end - held_out;
        let end = if self.view == View::Packed { cut * self.seq_len as u64 } else { self.end };
        let training = Self { samples: self.samples.start..cut, end, ..self.clone() };
        let validation = Self { samples: cut..self.samples.end, ..self };
        Ok((training, validation))
    }

    /// How many samples there are; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.samples.end - self.samples.start
    }

    /// Tokens in a sample, T.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The tokens behind the samples.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// How the stream is seen as samples.
    pub fn view(&self) -> View {
        self.view
    }

    /// The tokens of sample `index` (below [`Dataset::len`]), as positions in the stream, without its padding.
    pub fn positions(&self, index: u64) -> Range<u64> {
        let (index, seq_len) = (self.samples.start + index, self.seq_len as u64);
        match self.view {
            View::Packed => (index * seq_len).min(self.end)..((index + 1) * seq_len).min(self.end),
            View::Padded => {
                let document = self.shards.document(index);
                document.start..document.end.min(document.start + seq_len)
            }
        }
    }

    /// Sample `index` (below [`Dataset::len`]) as a batch of one row.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id outside the vocabulary.
    pub fn sample(&self, index: u64) -> Result<Batch> {
        let (input_ids, targets, document_starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut batch = Batch { rows: 0, seq_len: self.seq_len, input_ids, targets, document_starts, sample_ids: vec![index] };
        self.append(index, &mut batch)?;
        Ok(batch)
    }

    /// Appends sample `index` (below [`Dataset::len`]) to `batch` as a row.
    fn append(&self, index: u64, batch: &mut Batch) -> Result<()> {
        let row = self.view.row(&self.shards, self.seq_len, self.samples.start + index, self.end);
        row.ids.iter().chain(row.targets.iter().flatten()).try_for_each(|&id| self.check(id))?;
        let padding_start = if self.view == View::Packed { row.ids.len() as i32 } else { 0 };
        row.append_to(batch, self.pad, padding_start);
        Ok(())
    }

    fn check(&self, id: u32) -> Result<()> {
        match (id as usize) < self.vocab_size && i32::try_from(id).is_ok() {
            true => Ok(()),
            false => Err(Error::TokenId { id: id.into(), vocab_size: self.vocab_size }),
        }
    }
}

/// Deals a data set out in batches, epoch after epoch, each epoch in an order of its own.
#[derive(Debug, Clone)]
pub struct Loader {
    dataset: Dataset,
    batch_size: usize,
    shuffle: Philox,
}

impl Loader {
    /// Batches of `batch_size` samples in the order of `seed`.
    ///
    /// # Errors
    /// `batch_size` 0 or more than the data set has samples.
    pub fn new(dataset: Dataset, batch_size: usize, seed: u64) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::config("the batch size is 0; it must be at least 1"));
        }
        if batch_size as u64 > dataset.len() {
            return Err(Error::config(format!(
                "a batch of {batch_size} samples is larger than the data set, which has {} of {} tokens: use a smaller batch, shorter samples or more text",
                dataset.len(),
                dataset.seq_len
            )));
        }
        Ok(Self { dataset, batch_size, shuffle: Philox::new(seed).stream(SHUFFLE) })
    }

    /// The data set that is dealt out.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Batches in an epoch, a shorter last one included.
    pub fn batches_per_epoch(&self) -> u64 {
        self.dataset.len().div_ceil(self.batch_size as u64)
    }

    /// The order of epoch `epoch`: which sample stands at each place.
    pub fn order(&self, epoch: u64) -> Permutation {
        Permutation::new(self.dataset.len(), self.shuffle.stream(epoch))
    }

    /// Batch `index`, counted over all epochs: a pure function of it, so that going on after a stop needs no state. The last batch
    /// of an epoch has fewer rows where the samples do not divide. A row's `sample_ids` entry is epoch · samples + place in the
    /// epoch's order: it does not depend on the batch size.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id outside the vocabulary.
    pub fn batch(&self, index: u64) -> Result<Batch> {
        let samples = self.dataset.len();
        let (epoch, within) = (index / self.batches_per_epoch(), index % self.batches_per_epoch());
        let order = self.order(epoch);
        let start = within * self.batch_size as u64;
        let stop = (start + self.batch_size as u64).min(samples);

        let seq_len = self.dataset.seq_len;
        let room = || Vec::with_capacity((stop - start) as usize * seq_len);
        let mut batch = Batch {
            rows: 0,
            seq_len,
            input_ids: room(),
            targets: room(),
            document_starts: room(),
            sample_ids: (start..stop).map(|place| epoch.wrapping_mul(samples).wrapping_add(place)).collect(),
        };
        for place in start..stop {
            self.dataset.append(order.at(place), &mut batch)?;
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;
