//! The grammar in compiled form: how a story is drawn from it, and what can be computed about it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::grammar::{LISTS, List, PLOTS};
use crate::rng::Draws;

/// A piece of a sentence.
pub(super) enum Piece {
    Text(&'static str),
    Slot { list: usize, column: usize, capital: bool },
}

/// A sentence: empty where a beat is left out.
pub(super) type Template = Vec<Piece>;

/// Which word each list has given to the story so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bindings(Vec<Option<usize>>);

impl Bindings {
    pub fn get(&self, list: usize) -> Option<usize> {
        self.0[list]
    }

    pub fn bind(&mut self, list: usize, word: usize) {
        self.0[list] = Some(word);
    }
}

pub(super) struct Grammar {
    /// `[plot][beat][alternative]`
    pub plots: Vec<Vec<Vec<Template>>>,
    /// `[list][word][column]`
    pub lists: Vec<Vec<Vec<&'static str>>>,
}

/// What can be computed of the grammar by summing over all its stories.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measures {
    /// The expected negative log-probability of a story, in nats.
    pub entropy: f64,
    /// The probability that two independent stories are the same.
    pub collision: f64,
}

/// The tables of `grammar.rs`.
pub(super) static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::compile(PLOTS, LISTS));

impl Grammar {
    /// Panics where a table is malformed: a slip in the source that any test of this module shows.
    pub fn compile(plots: &[&[&[&'static str]]], lists: &'static [List]) -> Self {
        let mut slots = BTreeMap::new();
        for (list, entry) in lists.iter().enumerate() {
            for (column, name) in entry.slots.split('|').enumerate() {
                assert!(slots.insert(name, (list, column)).is_none(), "two lists fill the slot `{name}`");
            }
        }
        let words = |entry: &List| entry.words.iter().map(|word| word.split('|').collect()).collect();
        let sentence = |text: &&'static str| template(text, &slots);
        let beat = |sentences: &&[&'static str]| sentences.iter().map(sentence).collect();
        Self {
            plots: plots.iter().map(|beats| beats.iter().map(beat).collect()).collect(),
            lists: lists.iter().map(words).collect(),
        }
    }

    pub fn unbound(&self) -> Bindings {
        Bindings(vec![None; self.lists.len()])
    }

    /// A story and the natural logarithm of its probability.
    pub fn draw(&self, draws: &mut Draws) -> (String, f64) {
        let (mut text, mut log_prob, mut bindings) = (String::new(), 0.0, self.unbound());
        let mut choose = |n: usize| {
            log_prob -= (n as f64).ln();
            draws.below(n)
        };
        for beat in &self.plots[choose(self.plots.len())] {
            let sentence = &beat[choose(beat.len())];
            if !sentence.is_empty() && !text.is_empty() {
                text.push(' ');
            }
            for piece in sentence {
                match *piece {
                    Piece::Text(literal) => text.push_str(literal),
                    Piece::Slot { list, column, capital } => {
                        let word = bindings.get(list).unwrap_or_else(|| choose(self.lists[list].len()));
                        bindings.bind(list, word);
                        push_word(&mut text, self.lists[list][word][column], capital);
                    }
                }
            }
        }
        (text, log_prob)
    }

    /// Exact sums over all stories. A word's choice does not change what follows, only that it was made does: so it is enough to
    /// walk the beats once with the probability of each set of lists that have given their word.
    pub fn measures(&self) -> Measures {
        let share = 1.0 / self.plots.len() as f64;
        let (mut entropy, mut collision) = (-share.ln(), 0.0);
        for beats in &self.plots {
            // From the set to (Σ p, Σ p²) over the beginnings of stories that reach it.
            let mut reached = BTreeMap::from([(vec![false; self.lists.len()], (share, share * share))]);
            for beat in beats {
                let chance = 1.0 / beat.len() as f64;
                let mut next = BTreeMap::new();
                for (bound, (p, p2)) in reached {
                    for sentence in beat {
                        // How many ways there are to fill the sentence's new slots, each with probability 1 / ways.
                        let (mut bound, mut ways) = (bound.clone(), 1.0);
                        for piece in sentence {
                            if let Piece::Slot { list, .. } = *piece
                                && !std::mem::replace(&mut bound[list], true)
                            {
                                ways *= self.lists[list].len() as f64;
                            }
                        }
                        let q = chance / ways;
                        entropy -= p * chance * q.ln();
                        let (sum, squares) = next.entry(bound).or_insert((0.0, 0.0));
                        *sum += p * chance;
                        *squares += p2 * q * q * ways;
                    }
                }
                reached = next;
            }
            collision += reached.values().map(|(_, squares)| squares).sum::<f64>();
        }
        Measures { entropy, collision }
    }
}

/// Appends `word`, with its first letter raised where `capital`.
fn push_word(text: &mut String, word: &str, capital: bool) {
    let start = text.len();
    text.push_str(word);
    if capital {
        text[start..start + 1].make_ascii_uppercase();
    }
}

/// Whether `text` begins with `word`, with its first letter raised where `capital`.
pub(super) fn begins_with(text: &str, word: &str, capital: bool) -> bool {
    let raised = |(i, byte): (usize, u8)| if capital && i == 0 { byte.to_ascii_uppercase() } else { byte };
    text.len() >= word.len() && text.bytes().zip(word.bytes().enumerate().map(raised)).all(|(a, b)| a == b)
}

fn template(text: &'static str, slots: &BTreeMap<&str, (usize, usize)>) -> Template {
    let mut pieces = Template::new();
    for (i, part) in text.split(['{', '}']).enumerate().filter(|(_, part)| !part.is_empty()) {
        pieces.push(if i % 2 == 0 {
            Piece::Text(part)
        } else {
            let name = part.to_ascii_lowercase();
            let &(list, column) = slots.get(&*name).unwrap_or_else(|| panic!("`{text}`: no list fills the slot `{part}`"));
            Piece::Slot { list, column, capital: name != part }
        });
    }
    pieces
}
