//! The default corpus: short stories, written by a grammar whose entropy is known.
//!
//! A model cannot predict the stories better than the grammar that wrote them. The exact probability of a text is the product of
//! the choices that lead to it, so the expected loss of a perfect model is known before any training: [`entropy`] nats per
//! story. Whatever the tokenizer, tokens are only another spelling of the same text, hence
//!
//! ```text
//! perfect loss per token = entropy() / mean tokens per story
//! ```
//!
//! where a story's tokens count its end-of-story token, whose prediction pays for knowing that the story is over, and not the
//! token that begins it, which is given. Over particular stories (a validation set) the mean of their `-log_prob` takes the
//! place of [`entropy`]. Both suppose that the model sees each story from its beginning: a packing that cuts stories and shows
//! only the second part raises the floor.
//!
//! The same sums give [`collision`], the chance that two stories coincide: about 1e-22, so that a sampled story that stands in
//! the training set has been learned by heart.
//!
//! The tables in `grammar.rs` are meant to be read and extended.

mod grammar;
mod parse;
mod template;
#[cfg(test)]
mod tests;

pub use parse::{ParseError, Parsed, parse, parse_sentence, sentences};

use crate::rng::{Draws, Philox};
use template::GRAMMAR;

/// How many stories the default corpus has: about 3 MB of text.
pub const DEFAULT_COUNT: usize = 7000;

/// A story of the grammar.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The text: one paragraph of ASCII without a newline.
    pub text: String,
    /// The natural logarithm of its probability under the grammar.
    pub log_prob: f64,
}

/// A corpus of stories: story `i` is a pure function of the seed and `i`.
#[derive(Debug, Clone, Copy)]
pub struct Stories {
    philox: Philox,
    count: usize,
}

impl Stories {
    /// The corpus of `count` stories under `seed`.
    pub fn new(seed: u64, count: usize) -> Self {
        Self { philox: Philox::new(seed), count }
    }

    /// How many stories [`iter`](Self::iter) yields.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the corpus has no stories.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Story `index`. An index from [`len`](Self::len) on gives a story outside the corpus, as good as any for validation.
    pub fn story(&self, index: usize) -> Story {
        let (text, log_prob) = GRAMMAR.draw(&mut Draws::new(self.philox.stream(index as u64)));
        Story { text, log_prob }
    }

    /// The stories in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Story> + use<> {
        let stories = *self;
        (0..self.count).map(move |index| stories.story(index))
    }
}

/// The grammar's entropy: the expected `-log_prob` of a story in nats, summed exactly over all stories.
pub fn entropy() -> f64 {
    GRAMMAR.measures().entropy
}

/// The probability that two independently drawn stories are the same, summed exactly over all stories. The expected number of
/// stories of a perfect sampler that stand in a corpus of N is N times this for each story sampled.
pub fn collision() -> f64 {
    GRAMMAR.measures().collision
}
