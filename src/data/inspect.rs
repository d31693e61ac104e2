//! What a model will see of a data set: how long its documents are, what packing saves, and single rows as they are fed.

mod picture;

use super::{Batch, Dataset, Shards, Tokenizer, View};
use crate::Result;
use std::{collections::BTreeMap, ops::Range};

pub use picture::picture;

/// A data set in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Documents.
    pub documents: u64,
    /// Tokens, those at the beginning and the end of documents among them.
    pub tokens: u64,
    /// How many documents have how many tokens.
    lengths: BTreeMap<u64, u64>,
    /// Documents packed side by side.
    pub packed: Rows,
    /// One document a row.
    pub padded: Rows,
}

/// The rows that a data set makes under one [`View`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// Rows of an epoch.
    pub rows: u64,
    /// Positions of all rows.
    pub positions: u64,
    /// Positions that hold no token of the data.
    pub padding: u64,
    /// Positions whose target counts in the loss.
    pub counted: u64,
    /// Tokens that no row holds: what does not fit behind the beginning of a long document, or a last token that is only a target.
    pub left_out: u64,
    /// Documents that a row does not hold whole.
    pub cut: u64,
}

impl Rows {
    /// The share of the positions that is padding; 0 where there is no row.
    pub fn padding_share(&self) -> f64 {
        self.padding as f64 / self.positions.max(1) as f64
    }
}

impl Figures {
    /// The figures of `shards` in rows of `seq_len` tokens. Reads where each document ends, and no token.
    pub fn of(shards: &Shards, seq_len: usize) -> Self {
        let width = seq_len as u64;
        let rows = |view: View| {
            let rows = view.samples(shards, seq_len);
            Rows { rows, positions: rows * width, ..Rows::default() }
        };
        let (mut packed, mut padded) = (rows(View::Packed), rows(View::Padded));
        let mut lengths = BTreeMap::new();
        let mut start = 0;
        for length in shards.document_lengths() {
            *lengths.entry(length).or_default() += 1;
            let held = length.min(width);
            padded.padding += width - held;
            padded.counted += held.saturating_sub(1);
            padded.left_out += length - held;
            padded.cut += u64::from(held < length);
            packed.counted += length.saturating_sub(1);
            packed.cut += u64::from(length > 0 && start / width != (start + length - 1) / width);
            start += length;
        }
        packed.padding = packed.positions.saturating_sub(shards.tokens());
        packed.left_out = shards.tokens().saturating_sub(packed.positions);
        Self { documents: shards.documents(), tokens: shards.tokens(), lengths, packed, padded }
    }

    /// The least number of tokens that at least a share of `quantile` (0 to 1) of the documents do not exceed: 0.5 is the median.
    pub fn length(&self, quantile: f64) -> u64 {
        let wanted = (quantile * self.documents as f64).ceil().max(1.0) as u64;
        let mut documents = 0;
        let reaches = |(_, count): &(&u64, &u64)| {
            documents += **count;
            documents >= wanted
        };
        self.lengths.iter().find(reaches).or(self.lengths.last_key_value()).map_or(0, |(&length, _)| length)
    }

    /// Tokens of a document on average.
    pub fn mean_length(&self) -> f64 {
        self.tokens as f64 / self.documents.max(1) as f64
    }

    /// The share of the positions that one document a row would need for as many tokens, and that packing does without.
    pub fn saved(&self) -> f64 {
        let full = |rows: &Rows| 1.0 - rows.padding_share();
        1.0 - full(&self.padded) / full(&self.packed)
    }
}

/// A row as it is fed, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which row of the data set.
    pub index: u64,
    /// The documents in it, from left to right.
    pub spans: Vec<Span>,
    /// What the model gets.
    pub batch: Batch,
}

/// What a row holds of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which document of the data set.
    pub document: u64,
    /// The columns of the row.
    pub columns: Range<usize>,
    /// The tokens of the document.
    pub tokens: Range<u64>,
    /// How many tokens the document has.
    pub of: u64,
}

impl Sample {
    /// Row `index` of `dataset`.
    pub fn of(dataset: &Dataset, index: u64) -> Result<Self> {
        let batch = dataset.sample(index)?;
        let positions = dataset.positions(index);
        let filled = (positions.end - positions.start) as usize;
        // As attention sees it: a document is a run of columns that name the same beginning.
        let runs = batch.document_starts[..filled].chunk_by(|a, b| a == b);
        let mut column = 0;
        let span = |run: &[i32]| {
            let columns = column..column + run.len();
            column = columns.end;
            let first = positions.start + columns.start as u64;
            let document = dataset.shards().document_at(first);
            let whole = dataset.shards().document(document);
            let tokens = first - whole.start..first - whole.start + run.len() as u64;
            Span { document, columns, tokens, of: whole.end - whole.start }
        };
        Ok(Self { index, spans: runs.map(span).collect(), batch })
    }

    /// The columns behind the last document.
    pub fn padding(&self) -> Range<usize> {
        self.spans.last().map_or(0, |span| span.columns.end)..self.batch.seq_len
    }

    /// The columns whose targets do not count, as ranges.
    pub fn masked(&self) -> Vec<Range<usize>> {
        let mut masked: Vec<Range<usize>> = Vec::new();
        for (column, _) in self.batch.targets.iter().enumerate().filter(|(_, target)| **target == Batch::IGNORE) {
            match masked.last_mut().filter(|last| last.end == column) {
                Some(last) => last.end += 1,
                None => masked.push(column..column + 1),
            }
        }
        masked
    }

    /// The row as text: each document with its place and its first and last tokens, `│` between two tokens and `⏎` for a line's end.
    /// Nothing between two `│` is a part of a character that a later token completes.
    pub fn describe(&self, tokenizer: &Tokenizer) -> Result<String> {
        let range = |range: &Range<usize>| match range.len() {
            1 => range.start.to_string(),
            _ => format!("{}-{}", range.start, range.end - 1),
        };
        let mut lines = vec![format!("row {}", self.index)];
        let mut line = |line: String| lines.push(format!("  {line}"));
        for Span { document, columns, tokens, of } in &self.spans {
            let part = match (tokens.start, tokens.end == *of) {
                (0, true) => format!("whole, {of} tokens"),
                (0, false) => format!("its first {} of {of} tokens", tokens.end),
                (from, true) => format!("its last {} of {of} tokens, without sight of what stands before", of - from),
                (from, false) => format!("tokens {from}-{} of {of}, without sight of what stands before", tokens.end - 1),
            };
            line(format!("columns {}: document {document}, {part}", range(columns)));
            line(format!("  {}", tokens_of(&self.batch.input_ids[columns.clone()], tokenizer)?));
        }
        if !self.padding().is_empty() {
            line(format!("columns {}: padding", range(&self.padding())));
        }
        let masked = self.masked();
        let targets: usize = masked.iter().map(Range::len).sum();
        let shown = masked.iter().take(20).map(range).collect::<Vec<_>>().join(", ");
        let more = if masked.len() > 20 { ", …" } else { "" };
        line(match targets {
            0 => "all targets count".into(),
            _ => format!("{targets} of {} targets do not count: columns {shown}{more}", self.batch.seq_len),
        });
        Ok(lines.join("\n") + "\n")
    }
}

/// The tokens, with boundaries; of many, the first and the last.
fn tokens_of(ids: &[i32], tokenizer: &Tokenizer) -> Result<String> {
    const FIRST: usize = 32;
    const LAST: usize = 8;
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let shown = |ids: &[u32]| -> Result<String> {
        let mut stream = tokenizer.decode_stream(false);
        let parts = ids.iter().map(|&id| stream.push(id)).collect::<Result<Vec<String>>>()?;
        Ok(parts.join("│").replace('\n', "⏎"))
    };
    match ids.len() {
        n if n <= FIRST + LAST => shown(&ids),
        n => Ok(format!("{}│ … {} tokens … │{}", shown(&ids[..FIRST])?, n - FIRST - LAST, shown(&ids[n - LAST..])?)),
    }
}

#[cfg(test)]
mod tests;
