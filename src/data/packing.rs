//! Samples of exactly T tokens out of a stream of documents.
//!
//! **Packed**, the default. The stream is cut every T tokens: sample i is the tokens at `i·T .. (i+1)·T`. Nothing is lost and
//! nothing is padding, except behind the end of the stream.
//! - A position's target is the next token of the stream, also where that one is the first of the next sample; it is
//!   [`Batch::IGNORE`] where the next token belongs to another document, and at the end of the stream.
//! - `document_starts` says for each position where its document begins in the row, so that attention stays within it. A long
//!   document goes on in the next sample, which begins at its column 0: what stood in the sample before is not seen.
//! - The last sample is filled with padding, a document of its own that nothing else attends to, with targets ignored. A last
//!   token that would be alone in its sample is only a target: it predicts nothing.
//!
//! **Padded** (`--no-packing`). Sample i is document i: whole if it has at most T tokens, else its first T − 1 (bos and text) and
//! its last (eos), or its first T where the tokenizer names no eos. Padding follows, with targets ignored. The row is one document:
//! under causal attention no token sees the padding behind it.
//!
//! Whatever the model averages by sequence, the sequence-level auxiliary loss of a mixture of experts above all, it averages by
//! row: with packing a row is T tokens of several documents, not one document.

use super::{Batch, Shards};

/// How a stream is seen as samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// The stream cut every T tokens.
    #[default]
    Packed,
    /// One document a sample, cut or padded to T tokens.
    Padded,
}

/// The tokens of a sample without its padding.
pub(super) struct Row {
    pub ids: Vec<u32>,
    /// As many as `ids`; none where nothing is counted.
    pub targets: Vec<Option<u32>>,
    pub document_starts: Vec<i32>,
}

impl View {
    /// How many samples `shards` have.
    pub fn samples(self, shards: &Shards, seq_len: usize) -> u64 {
        match self {
            Self::Packed => shards.tokens().saturating_sub(1).div_ceil(seq_len.max(1) as u64),
            Self::Padded => shards.documents(),
        }
    }

    /// Sample `index`, as if the stream ended before `end`.
    pub(super) fn row(self, shards: &Shards, seq_len: usize, index: u64, end: u64) -> Row {
        match self {
            Self::Packed => packed(shards, seq_len as u64, index, end),
            Self::Padded => padded(shards, seq_len, index),
        }
    }
}

impl Row {
    /// Appends the row to `batch`, filled up with `pad`.
    pub(super) fn append_to(&self, batch: &mut Batch, pad: u32, padding_start: i32) {
        let padding = batch.seq_len - self.ids.len();
        let id = |id: u32| id as i32;
        batch.rows += 1;
        batch.input_ids.extend(self.ids.iter().map(|&i| id(i)).chain(std::iter::repeat_n(id(pad), padding)));
        let targets = self.targets.iter().map(|target| target.map_or(Batch::IGNORE, id));
        batch.targets.extend(targets.chain(std::iter::repeat_n(Batch::IGNORE, padding)));
        batch.document_starts.extend(self.document_starts.iter().copied().chain(std::iter::repeat_n(padding_start, padding)));
    }
}

fn packed(shards: &Shards, seq_len: u64, index: u64, end: u64) -> Row {
    let start = index * seq_len;
    let stop = (start + seq_len).min(end);
    let mut stream = shards.read(start..(stop + 1).min(end)).peekable();
    let mut row = Row { ids: Vec::new(), targets: Vec::new(), document_starts: Vec::new() };
    let mut index = shards.document_at(start);
    let mut document = shards.document(index);
    for position in start..stop {
        while document.end <= position && index < shards.documents() {
            index += 1;
            document = shards.document(index);
        }
        row.ids.extend(stream.next());
        row.targets.push(stream.peek().copied().filter(|_| position + 1 < document.end));
        row.document_starts.push(document.start.saturating_sub(start) as i32);
    }
    row
}

fn padded(shards: &Shards, seq_len: usize, index: u64) -> Row {
    let document = shards.document(index);
    let fits = document.end - document.start <= seq_len as u64;
    let cut = if fits { document.end } else { document.start + seq_len as u64 };
    let mut ids: Vec<u32> = shards.read(document.start..cut).collect();
    if let (false, Some(eos), Some(last)) = (fits, shards.eos_id(), ids.last_mut()) {
        *last = eos;
    }
    let targets = ids.iter().skip(1).copied().map(Some).chain([None]).take(ids.len()).collect();
    let document_starts = vec![0; ids.len()];
    Row { ids, targets, document_starts }
}
