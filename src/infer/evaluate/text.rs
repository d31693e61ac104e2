//! Loss, perplexity and bits per byte of documents.
//!
//! A document is what training makes of it: the tokenizer's beginning-of-text token where it names one, the text, its end-of-text
//! token where it names one. Each token after the first is scored once. Without a beginning-of-text token a document's first token
//! has nothing before it and is not scored, though its bytes count.
//!
//! **Windows.** A document of more tokens than a window is cut as is usual for strided perplexity: window k holds the tokens from
//! k·stride on, and scores those that no earlier window had, so that a token sees at least `max_seq_len − stride` tokens before it.

use std::path::Path;

use serde::Serialize;

use super::{GATHERED_TOKENS, Progress, Sequence, Window, log_likelihoods};
use crate::data::{Documents, Tokenizer};
use crate::model::Model;
use crate::{Error, Result};

/// What is scored, and how.
#[derive(Debug, Clone, Copy)]
pub struct TextOptions {
    /// How much of a document the model sees at once.
    pub window: Window,
    /// Whether the end-of-text token is scored after each document, as in training.
    pub end_of_text: bool,
    /// Documents at most.
    pub limit: Option<u64>,
    /// Whether bad lines are counted and passed over instead of stopping.
    pub skip_bad_lines: bool,
}

/// How well a model predicts documents.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextFigures {
    /// Mean over all scored tokens of −ln p, in nats.
    pub loss: f64,
    /// e^loss.
    pub perplexity: f64,
    /// Σ −log₂ p over the bytes of the texts: comparable between vocabularies.
    pub bits_per_byte: f64,
    /// Scored tokens.
    pub tokens: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of the documents' text in UTF-8.
    pub bytes: u64,
    /// Bad lines that were passed over.
    pub skipped_lines: u64,
}

/// Scores the documents in `paths`, read as [`Documents`] reads them, in memory that does not grow with them. `progress` hears
/// how far it is after each group of batches.
///
/// # Errors
/// Those of [`Documents`] and of the tokenizer; a document with a token that the model does not have; nothing to score.
pub fn text_loss(
    model: &Model,
    tokenizer: &Tokenizer,
    paths: &[impl AsRef<Path>],
    options: &TextOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<TextFigures> {
    let mut pieces = Documents::open(paths, options.skip_bad_lines)?;
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id().filter(|_| options.end_of_text));
    let mut cutter = Cutter::new(options.window);
    let mut group = Group { model, sequences: Vec::new(), gathered: 0, nats: 0.0, scored: 0 };
    let mut so_far = Progress { bytes_total: pieces.bytes_total(), ..Progress::default() };
    let (mut documents, mut bytes) = (0, 0);
    while options.limit.is_none_or(|limit| documents < limit)
        && let Some(piece) = pieces.next().transpose()?
    {
        bytes += piece.text.len() as u64;
        let (begin, end) = (bos.filter(|_| piece.begins), eos.filter(|_| piece.ends));
        let text = tokenizer.encode(&piece.text)?;
        let ids = || begin.iter().chain(&text).chain(&end).copied();
        let vocab_size = model.config().vocab_size;
        if let Some(id) = ids().find(|&id| id as usize >= vocab_size) {
            let names: Vec<_> = paths.iter().map(|path| path.as_ref().display().to_string()).collect();
            let (names, error) = (names.join(", "), Error::TokenId { id: id.into(), vocab_size });
            return Err(Error::config(format!("{names}: document {}: {error}; the tokenizer is not the model's", documents + 1)));
        }
        for id in ids() {
            group.add(cutter.push(id), &mut so_far)?;
        }
        if piece.ends {
            group.add(cutter.finish(), &mut so_far)?;
            documents += 1;
        }
        so_far = Progress { items: documents, bytes_done: pieces.bytes_done(), ..so_far };
        progress(&so_far);
    }
    group.score(&mut so_far)?;
    progress(&so_far);
    if group.scored == 0 {
        return Err(Error::config("there is no token to score: every document is a single token, and no token begins a document"));
    }
    let loss = group.nats / group.scored as f64;
    Ok(TextFigures {
        loss,
        perplexity: loss.exp(),
        bits_per_byte: group.nats / std::f64::consts::LN_2 / bytes as f64,
        tokens: group.scored,
        documents,
        bytes,
        skipped_lines: pieces.skipped_lines(),
    })
}

/// Windows that wait to be scored together, and what came out so far.
struct Group<'m> {
    model: &'m Model,
    sequences: Vec<Sequence>,
    gathered: usize,
    nats: f64,
    scored: u64,
}

impl Group<'_> {
    fn add(&mut self, sequence: Option<Sequence>, progress: &mut Progress) -> Result<()> {
        self.gathered += sequence.as_ref().map_or(0, |sequence| sequence.ids().len());
        self.sequences.extend(sequence);
        if self.gathered >= GATHERED_TOKENS { self.score(progress) } else { Ok(()) }
    }

    fn score(&mut self, progress: &mut Progress) -> Result<()> {
        self.nats -= log_likelihoods(self.model, &self.sequences)?.iter().sum::<f64>();
        self.scored += self.sequences.iter().map(|sequence| sequence.scored() as u64).sum::<u64>();
        progress.tokens += self.gathered as u64;
        self.gathered = 0;
        self.sequences.clear();
        Ok(())
    }
}

/// Cuts documents, token by token, into windows.
pub(super) struct Cutter {
    window: Window,
    /// The tokens of the current window so far, and how many of them are not to be scored in it.
    ids: Vec<u32>,
    given: usize,
}

impl Cutter {
    pub(super) fn new(window: Window) -> Self {
        Self { window, ids: Vec::new(), given: 1 }
    }

    /// Takes a document's next token; gives the window that is full and cannot hold it.
    pub(super) fn push(&mut self, id: u32) -> Option<Sequence> {
        let full = (self.ids.len() == self.window.max_seq_len).then(|| Sequence::new(self.ids.clone(), self.given));
        if full.is_some() {
            self.ids.drain(..self.window.stride);
            self.given = self.ids.len();
        }
        self.ids.push(id);
        full
    }

    /// Ends the document; gives its last window, unless it is a document of one token.
    pub(super) fn finish(&mut self) -> Option<Sequence> {
        let last = Sequence::new(std::mem::take(&mut self.ids), std::mem::replace(&mut self.given, 1));
        (last.scored() > 0).then_some(last)
    }
}
