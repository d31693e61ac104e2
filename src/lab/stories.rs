//! A model of the embedded stories against the grammar that wrote them.

use std::collections::HashSet;
use std::path::Path;

use crate::data::stories::{parse_sentence, sentences};
use crate::data::{Batch, Tokenizer};
use crate::infer::{Generation, Sampling};
use crate::io::load_model;
use crate::model::{Forward, Model};
use crate::tape::Tape;
use crate::train::corpus::{held_out_stories, stories};
use crate::{Error, Result};

/// The longest story that is sampled, in tokens: more than any story of the grammar.
const LONGEST: usize = 400;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoryFigures {
    /// Cross-entropy over whole held-out stories, nats per token.
    pub val_loss: f64,
    /// What the grammar itself pays for the same stories, nats per token.
    pub entropy: f64,
    /// Sampled sentences.
    pub sentences: usize,
    /// Those that are sentences of the grammar.
    pub parsed: usize,
    /// Sampled stories.
    pub stories: usize,
    /// Those that stand in the training set.
    pub memorised: usize,
}

/// Judges the run in `dir`: its loss over held-out stories, and `samples` stories of its own at temperature 1.
pub fn judge(dir: &Path, samples: usize, seed: u64) -> Result<StoryFigures> {
    let (model, tokenizer) = (load_model(dir)?, Tokenizer::load(dir)?);
    let (Some(bos), Some(eos)) = (tokenizer.bos_id(), tokenizer.eos_id()) else {
        return Err(Error::config(format!(
            "{} is no run on the embedded stories: its tokenizer has no bos and eos",
            dir.display()
        )));
    };
    let (mut nats, mut log_prob, mut tokens) = (0.0, 0.0, 0);
    for story in held_out_stories() {
        let mut ids = vec![bos];
        ids.extend(tokenizer.encode(&story.text)?);
        ids.push(eos);
        nats += nats_of(&model, &ids)?;
        log_prob += story.log_prob;
        tokens += ids.len() - 1;
    }
    let known: HashSet<String> = stories().iter().map(|story| story.text).collect();
    let mut figures = StoryFigures {
        val_loss: nats / tokens as f64,
        entropy: -log_prob / tokens as f64,
        sentences: 0,
        parsed: 0,
        stories: samples,
        memorised: 0,
    };
    for i in 0..samples as u64 {
        let sampling =
            Sampling { temperature: 1.0, top_p: 1.0, seed: seed.wrapping_mul(1_000_003).wrapping_add(i), ..Sampling::default() };
        let generated = Generation::new(&model, &[bos], sampling, LONGEST)?.collect::<Result<Vec<u32>>>()?;
        let text = tokenizer.decode(&generated, true)?;
        figures.memorised += usize::from(known.contains(text.trim()));
        for sentence in sentences(&text) {
            figures.sentences += 1;
            figures.parsed += usize::from(parse_sentence(sentence));
        }
    }
    Ok(figures)
}

/// What the model pays for the tokens after the first.
fn nats_of(model: &Model, ids: &[u32]) -> Result<f64> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let targets: Vec<i32> = ids[1..].iter().copied().chain([Batch::IGNORE]).collect();
    let loss = model.loss(&mut Tape::inference(), &Forward::plain(1, ids.len(), ids), targets.into(), 1, 0.0)?;
    Ok(loss.cross_entropy)
}
