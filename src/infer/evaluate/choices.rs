//! Multiple choice by log-likelihood.
//!
//! **Rows.** One JSON object a line, in the form of the public HellaSwag files (Zellers et al. 2019, arXiv 1905.07830): `ctx`, the
//! list `endings`, and `label`, the right ending counted from 0, as a number or as text. `context` or `question`, `choices` and
//! `answer` may stand in their places; other fields are left alone.
//!
//! **What is scored.** `ctx`, a space and the ending, as the fields have them: lm-evaluation-harness's HellaSwag also puts
//! `activity_label` in front and removes bracketed titles, which is a matter of preparing the file. The border of tokens is drawn
//! as there: context and ending are encoded together, and the ending's tokens are what follows as many as the context has when
//! encoded alone; blanks at the end of the context go to the ending. The tokenizer's beginning-of-text token comes first, where it
//! names one. Of what is longer than a window the last tokens are taken.
//!
//! **Figures.** `acc` is the share of questions whose right ending has the largest log-likelihood, `acc_norm` the same after
//! division by the bytes of the ending; of equal ones the first counts. The standard error is that of a mean of zeros and ones
//! whose deviation is estimated: `√(p·(1 − p)/(n − 1))`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GATHERED_TOKENS, Progress, Sequence, Window, log_likelihoods};
use crate::data::Tokenizer;
use crate::model::Model;
use crate::{Error, Result};

/// What is scored, and how.
#[derive(Debug, Clone, Copy)]
pub struct ChoiceOptions {
    /// How many tokens the model sees at once; its stride does not matter.
    pub window: Window,
    /// Questions at most.
    pub limit: Option<u64>,
}

/// A question with the scores of its endings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The right ending, from 0.
    pub label: usize,
    /// ln p(ending | context) of each ending, in nats.
    pub log_likelihoods: Vec<f64>,
    /// The bytes of each ending, without the space before it.
    pub bytes: Vec<usize>,
}

impl Answer {
    /// The likeliest ending.
    pub fn choice(&self) -> usize {
        largest(self.log_likelihoods.iter().copied())
    }

    /// The ending that is likeliest per byte.
    pub fn choice_norm(&self) -> usize {
        largest(self.log_likelihoods.iter().zip(&self.bytes).map(|(score, &bytes)| score / bytes as f64))
    }
}

/// Where the largest value stands first.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let first = (0, f64::NEG_INFINITY);
    values.enumerate().fold(first, |best, (i, value)| if value > best.1 { (i, value) } else { best }).0
}

/// How often a model chose the right ending.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChoiceFigures {
    /// Share of questions that it got right by log-likelihood.
    pub acc: f64,
    /// Standard error of `acc`; none for a single question.
    pub acc_stderr: Option<f64>,
    /// Share of questions that it got right by log-likelihood per byte.
    pub acc_norm: f64,
    /// Standard error of `acc_norm`; none for a single question.
    pub acc_norm_stderr: Option<f64>,
    /// Questions.
    pub questions: u64,
    /// Endings of all questions.
    pub endings: u64,
}

/// Counts answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    questions: u64,
    endings: u64,
    right: u64,
    right_norm: u64,
}

impl Tally {
    pub(super) fn add(&mut self, answer: &Answer) {
        self.questions += 1;
        self.endings += answer.log_likelihoods.len() as u64;
        self.right += u64::from(answer.choice() == answer.label);
        self.right_norm += u64::from(answer.choice_norm() == answer.label);
    }

    /// The figures of at least one question.
    pub(super) fn figures(&self) -> ChoiceFigures {
        let n = self.questions as f64;
        let (acc, acc_norm) = (self.right as f64 / n, self.right_norm as f64 / n);
        let stderr = |p: f64| (self.questions > 1).then(|| (p * (1.0 - p) / (n - 1.0)).sqrt());
        ChoiceFigures {
            acc,
            acc_stderr: stderr(acc),
            acc_norm,
            acc_norm_stderr: stderr(acc_norm),
            questions: self.questions,
            endings: self.endings,
        }
    }
}

/// Answers the questions in the file at `path`, in memory that does not grow with it. `hear` is told after each group of batches
/// how far it is, and the group's answers in the order of the file; an error that it gives ends the evaluation.
///
/// # Errors
/// Whatever is wrong with a line, with its file and number: not JSON, fields missing, fewer than two endings or an empty one, a
/// label out of range, tokens that the model does not have, an ending longer than a window. A file without a question.
pub fn multiple_choice(
    model: &Model,
    tokenizer: &Tokenizer,
    path: impl AsRef<Path>,
    options: &ChoiceOptions,
    hear: &mut dyn FnMut(&Progress, &[Answer]) -> Result<()>,
) -> Result<ChoiceFigures> {
    let mut rows = Rows::open(path.as_ref())?;
    let encoder = Encoder { tokenizer, vocab_size: model.config().vocab_size, max_seq_len: options.window.max_seq_len };
    let mut progress = Progress { bytes_total: rows.bytes_total, ..Progress::default() };
    let mut tally = Tally::default();
    let mut ended = false;
    while !ended {
        let (mut sequences, mut answers, mut gathered) = (Vec::new(), Vec::new(), 0);
        while gathered < GATHERED_TOKENS {
            let row = if options.limit.is_none_or(|limit| progress.items < limit) { rows.next()? } else { None };
            let Some(row) = row else {
                ended = true;
                break;
            };
            for ending in encoder.encode(&row).map_err(|message| Error::data(&rows.path, row.line, message))? {
                gathered += ending.ids().len();
                sequences.push(ending);
            }
            progress.items += 1;
            let bytes = row.endings.iter().map(String::len).collect();
            answers.push(Answer { line: row.line, label: row.label, log_likelihoods: Vec::new(), bytes });
        }
        let mut scores = log_likelihoods(model, &sequences)?.into_iter();
        for answer in &mut answers {
            answer.log_likelihoods = scores.by_ref().take(answer.bytes.len()).collect();
            tally.add(answer);
        }
        progress.tokens += gathered as u64;
        progress.bytes_done = rows.bytes_done;
        hear(&progress, &answers)?;
    }
    if tally.questions == 0 {
        return Err(Error::format(&rows.path, "no question found: not one line {\"ctx\": …, \"endings\": […], \"label\": …}"));
    }
    Ok(tally.figures())
}

/// One question as the file has it.
#[derive(Debug)]
struct Row {
    line: u64,
    context: String,
    endings: Vec<String>,
    label: usize,
}

impl Row {
    fn parse(text: &[u8], line: u64) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(alias = "context", alias = "question")]
            ctx: String,
            #[serde(alias = "choices")]
            endings: Vec<String>,
            #[serde(alias = "answer")]
            label: Value,
        }
        let text = std::str::from_utf8(text).map_err(|e| format!("not valid UTF-8 (byte {} of the line)", e.valid_up_to() + 1))?;
        let fields: Fields = serde_json::from_str(text)
            .map_err(|e| format!("expected {{\"ctx\": …, \"endings\": [\"…\", …], \"label\": …}}: {e}"))?;
        let Fields { ctx: context, endings, label } = fields;
        if endings.len() < 2 {
            return Err(format!("a choice needs at least two endings; there are {}", endings.len()));
        }
        if let Some(i) = endings.iter().position(String::is_empty) {
            return Err(format!("ending {i} is empty (they are counted from 0)"));
        }
        if label.as_str().is_some_and(|label| label.trim().is_empty()) {
            return Err("the label is empty: nobody says which ending is right, as in the public test files".into());
        }
        let number = label.as_u64().or_else(|| label.as_str()?.trim().parse().ok());
        let in_range = number.and_then(|label| usize::try_from(label).ok()).filter(|&label| label < endings.len());
        let label = in_range
            .ok_or_else(|| format!("the label is {label}; it must be one of 0..={}, the number of an ending", endings.len() - 1))?;
        Ok(Self { line, context, endings, label })
    }
}

/// The rows of a file, one after the other.
struct Rows {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    bytes_done: u64,
    bytes_total: u64,
}

impl Rows {
    fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let bytes_total = file.metadata()?.len();
            Ok((BufReader::new(file), bytes_total))
        };
        let (reader, bytes_total) = open().map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_path_buf(), reader, line: 0, bytes_done: 0, bytes_total })
    }

    /// The next row; blank lines are passed over.
    fn next(&mut self) -> Result<Option<Row>> {
        let mut raw = Vec::new();
        loop {
            raw.clear();
            let bytes = self.reader.read_until(b'\n', &mut raw).map_err(|e| Error::io(&self.path, e))?;
            if bytes == 0 {
                return Ok(None);
            }
            self.bytes_done += bytes as u64;
            self.line += 1;
            let mark = if self.line == 1 { "\u{FEFF}".as_bytes() } else { b"" };
            let text = raw.strip_prefix(mark).unwrap_or(&raw).trim_ascii();
            if !text.is_empty() {
                let row = Row::parse(text, self.line);
                return row.map(Some).map_err(|message| Error::data(&self.path, self.line, message));
            }
        }
    }
}

/// Turns a row into the sequences of its endings.
struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    vocab_size: usize,
    max_seq_len: usize,
}

impl Encoder<'_> {
    fn encode(&self, row: &Row) -> Result<Vec<Sequence>, String> {
        let ids = |text: &str| self.tokenizer.encode(text).map_err(|e| e.to_string());
        let bos = self.tokenizer.bos_id();
        let context = row.context.trim_end();
        let given = ids(context)?.len();
        if given == 0 && bos.is_none() {
            return Err("the context is empty, and the tokenizer names no token that begins a text".into());
        }
        let sequence = |(i, ending): (usize, &String)| {
            let whole = ids(&format!("{} {ending}", row.context))?;
            if let Some(&id) = bos.iter().chain(&whole).find(|&&id| id as usize >= self.vocab_size) {
                let error = Error::TokenId { id: id.into(), vocab_size: self.vocab_size };
                return Err(format!("{error}; the tokenizer is not the model's"));
            }
            let scored = whole.len().saturating_sub(given);
            if scored == 0 || scored >= self.max_seq_len {
                let most = self.max_seq_len - 1;
                return Err(format!(
                    "ending {i} has {scored} tokens; from 1 to {most} (max-seq-len less one of context) can be scored"
                ));
            }
            let ids: Vec<u32> = bos.into_iter().chain(whole).collect();
            let kept = ids.len().min(self.max_seq_len);
            Ok(Sequence::new(ids[ids.len() - kept..].to_vec(), kept - scored))
        };
        row.endings.iter().enumerate().map(sequence).collect()
    }
}
