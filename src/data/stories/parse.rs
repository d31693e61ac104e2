//! Reading a story back: which choices of the grammar write this text?
//!
//! The parser keeps every way of reading the text so far. The grammar is meant to leave exactly one, which a test checks on
//! thousands of stories; were there two, their probabilities would be added, which is still the probability of the text.

use super::template::{Bindings, GRAMMAR, Grammar, Piece, Template, begins_with};

/// A text that the grammar writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parsed {
    /// The natural logarithm of the text's probability under the grammar.
    pub log_prob: f64,
    /// In how many ways the grammar writes the text: 1, unless the grammar is ambiguous.
    pub derivations: usize,
}

/// A text that is no story of the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no story of the grammar begins like this text beyond byte {at}, at `{rest}`")]
pub struct ParseError {
    /// How many bytes of the text a story of the grammar may begin with, to the last whole word or phrase.
    pub at: usize,
    /// What comes there, shortened.
    pub rest: String,
}

/// One way of reading the text up to `at`.
#[derive(Clone)]
struct Reading {
    at: usize,
    bindings: Bindings,
    log_prob: f64,
}

/// Reads a whole story.
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    GRAMMAR.parse(text)
}

/// Whether some sentence of the grammar, its slots filled consistently, reads `sentence`.
pub fn parse_sentence(sentence: &str) -> bool {
    GRAMMAR.parse_sentence(sentence)
}

/// The sentences of a text: each ends in `.`, `!` or `?`, or in one of them and a quote, before a space and a capital or a quote.
/// What follows the last such end is a sentence too, finished or not.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        let (sentence, after) = rest.split_at(sentence_end(rest));
        rest = after.trim_start();
        (!sentence.is_empty()).then_some(sentence)
    })
}

fn sentence_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let ends = |&end: &usize| {
        let said = bytes[..end].strip_suffix(b"\"").unwrap_or(&bytes[..end]);
        matches!(said.last(), Some(b'.' | b'!' | b'?'))
            && bytes[end] == b' '
            && bytes.get(end + 1).is_some_and(|&b| b.is_ascii_uppercase() || b == b'"')
    };
    (0..bytes.len()).find(ends).unwrap_or(bytes.len())
}

impl Grammar {
    pub(super) fn parse(&self, text: &str) -> Result<Parsed, ParseError> {
        let (mut probabilities, mut furthest) = (Vec::new(), 0);
        for beats in &self.plots {
            let begin = Reading { at: 0, bindings: self.unbound(), log_prob: -(self.plots.len() as f64).ln() };
            let mut readings = vec![begin];
            for beat in beats {
                let choice = (beat.len() as f64).ln();
                let chosen = |r: &Reading| Reading { log_prob: r.log_prob - choice, ..r.clone() };
                let each = |r: &Reading| beat.iter().flat_map(|s| self.read(s, text, chosen(r), &mut furthest)).collect::<Vec<_>>();
                readings = readings.iter().flat_map(each).collect();
            }
            probabilities.extend(readings.iter().filter(|r| r.at == text.len()).map(|r| r.log_prob));
        }
        if probabilities.is_empty() {
            let rest = text.get(furthest..).unwrap_or_default().chars().take(40).collect();
            return Err(ParseError { at: furthest, rest });
        }
        let most = probabilities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_prob = most + probabilities.iter().map(|p| (p - most).exp()).sum::<f64>().ln();
        Ok(Parsed { log_prob, derivations: probabilities.len() })
    }

    fn parse_sentence(&self, sentence: &str) -> bool {
        let begin = Reading { at: 0, bindings: self.unbound(), log_prob: 0.0 };
        let reads = |template: &Template| {
            let whole = |r: &Reading| r.at == sentence.len();
            !template.is_empty() && self.read(template, sentence, begin.clone(), &mut 0).iter().any(whole)
        };
        self.plots.iter().flatten().flatten().any(reads)
    }

    /// The ways to go on from `reading` through one sentence of the story; `furthest` is raised to the last byte understood.
    fn read(&self, sentence: &Template, text: &str, mut reading: Reading, furthest: &mut usize) -> Vec<Reading> {
        if reading.at > 0 && !sentence.is_empty() {
            if text.as_bytes().get(reading.at) != Some(&b' ') {
                return Vec::new();
            }
            reading.at += 1;
        }
        let mut readings = vec![reading];
        for piece in sentence {
            match *piece {
                Piece::Text(literal) => readings.retain_mut(|r| {
                    let fits = begins_with(&text[r.at..], literal, false);
                    r.at += literal.len();
                    fits
                }),
                Piece::Slot { list, column, capital } => {
                    let fill = |r: &Reading| self.fill(list, column, &text[r.at..], capital, r);
                    readings = readings.iter().flat_map(fill).collect();
                }
            }
            *furthest = readings.iter().map(|r| r.at).fold(*furthest, usize::max);
        }
        readings
    }

    /// The words of `list` with which `rest`, what `reading` has yet to read, may begin.
    fn fill(&self, list: usize, column: usize, rest: &str, capital: bool, reading: &Reading) -> Vec<Reading> {
        let words = &self.lists[list];
        let (candidates, choice) = match reading.bindings.get(list) {
            Some(word) => (word..word + 1, 0.0),
            None => (0..words.len(), (words.len() as f64).ln()),
        };
        let take = |word: usize| {
            let mut next = reading.clone();
            next.at += words[word][column].len();
            next.log_prob -= choice;
            next.bindings.bind(list, word);
            next
        };
        candidates.filter(|&word| begins_with(rest, words[word][column], capital)).map(take).collect()
    }
}
