//! What a run reads: its tokenizer, its training and its validation data.

use std::sync::Arc;

use super::first_model::weights_dir;
use super::options::Options;
use crate::data::stories::{DEFAULT_COUNT, Stories, Story};
use crate::data::{Dataset, Loader, ShardOptions, Shards, Tokenizer, View, default_cache_dir};
use crate::{Error, Result};

/// The seed of the embedded stories: the corpus is the same for every run.
pub const STORIES_SEED: u64 = 2026;
/// Entries of the vocabulary that is trained on the embedded stories.
pub const STORIES_VOCAB: usize = 1536;

/// How many stories there are for judging a model.
const HELD_OUT: usize = 200;

/// Tokenizer and data of a run.
pub struct Corpus {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Training batches.
    pub training: Loader,
    /// Held-out batches, in an order that never changes; none where nothing is held out.
    pub validation: Option<Loader>,
}

/// The embedded stories.
pub fn stories() -> Stories {
    Stories::new(STORIES_SEED, DEFAULT_COUNT)
}

/// Stories that no run trains on: those that would follow the embedded ones.
pub fn held_out_stories() -> impl Iterator<Item = Story> {
    (DEFAULT_COUNT..DEFAULT_COUNT + HELD_OUT).map(|i| stories().story(i))
}

/// The vocabulary of the embedded stories, trained on them; a second or two.
pub fn stories_tokenizer() -> Result<Tokenizer> {
    Tokenizer::train(stories().iter().map(|story| Ok(story.text)), STORIES_VOCAB)
}

/// The tokenizer that the weights of `from-weight` know; once the run has it in its own directory, that one, as the weights may
/// be gone by the time it is resumed.
fn weights_tokenizer(options: &Options) -> Result<Tokenizer> {
    let weights = weights_dir(options);
    match [&options.out_dir, &weights].into_iter().find(|dir| dir.join("tokenizer.json").is_file()) {
        Some(dir) => Tokenizer::load(dir),
        None if weights.is_dir() => Err(Error::config(format!(
            "{} holds no tokenizer.json; name the tokenizer of its weights by tokenizer",
            weights.display()
        ))),
        None => Err(Error::config(format!(
            "from-weight: {} is not a directory; name a model's, or a run beside this",
            weights.display()
        ))),
    }
}

impl Corpus {
    /// Loads or makes the tokenizer, tokenizes what is not cached (`progress` hears bytes done and bytes in all), and splits.
    pub fn prepare(options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let embedded = options.data_path.is_empty();
        let tokenizer = match options.tokenizer.as_deref() {
            None if options.from_weight != "none" => weights_tokenizer(options)?,
            None if embedded => stories_tokenizer()?,
            None | Some("bytes") => Tokenizer::bytes()?,
            Some(path) => Tokenizer::load(path)?,
        };
        let shards = if embedded {
            Shards::from_documents(stories().iter().map(|story| story.text), &tokenizer)?
        } else {
            let shard_options = ShardOptions {
                cache_dir: options.cache_dir.clone().unwrap_or_else(default_cache_dir),
                skip_bad_lines: options.skip_bad_lines,
                ..ShardOptions::default()
            };
            Shards::from_files(&options.data_path, &tokenizer, &shard_options, progress)?
        };
        let view = if options.no_packing { View::Padded } else { View::Packed };
        let dataset = Dataset::new(Arc::new(shards), view, options.max_seq_len, tokenizer.vocab_size())?;
        let (training, held_out) = match options.val_fraction {
            0.0 => (dataset, None),
            fraction => dataset.split(fraction).map(|(training, held_out)| (training, Some(held_out)))?,
        };
        let batch_size = options.batch_size;
        let validation = held_out.map(|held_out| {
            let rows = batch_size.min(usize::try_from(held_out.len()).unwrap_or(batch_size));
            Loader::new(held_out, rows, options.seed)
        });
        Ok(Self { tokenizer, training: Loader::new(training, batch_size, options.seed)?, validation: validation.transpose()? })
    }

    /// Micro-batches of the whole run: of all epochs, but no more than `max-steps` uses.
    pub fn micro_batches(&self, options: &Options) -> Result<u64> {
        let epochs = self.training.batches_per_epoch().checked_mul(options.epochs);
        let epochs = epochs.ok_or_else(|| Error::config(format!("epochs {} are more than can be counted", options.epochs)))?;
        Ok(match options.max_steps {
            Some(steps) => epochs.min(steps.saturating_mul(options.accumulation_steps)),
            None => epochs,
        })
    }
}
