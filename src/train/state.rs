//! What a checkpoint holds: enough to go on to the same bits.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Store, replace_root_file};
use super::corpus::Corpus;
use super::options::Options;
use super::trainer::Trainer;
use crate::data::Tokenizer;
use crate::io::{WeightsFile, config_to_json, generation_config_to_json, read_config, write_weights};
use crate::model::ModelConfig;
use crate::params::Layout;
use crate::{Error, Result};

const WEIGHTS: &str = "model.safetensors";
const MOMENTS: [&str; 2] = ["adam_m.safetensors", "adam_v.safetensors"];
const STATE: &str = "state.json";
/// The settings of the run, in its root.
pub(super) const OPTIONS: &str = "run.json";

/// How far a run has come. Random numbers need no state: each is a function of the seed and these counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Micro-batches done.
    pub micro_batches: u64,
    /// Tokens that passed through the model.
    pub tokens: u64,
    /// Seconds of training.
    pub elapsed_s: f64,
    /// What the run reads, in a form that differs where the data differ.
    pub data: String,
    /// The settings.
    pub options: Options,
}

/// What tells one corpus from another.
pub(super) fn data_fingerprint(corpus: &Corpus) -> String {
    let shards = corpus.training.dataset().shards();
    let (content, tokenizer) = (shards.content().to_hex(), corpus.tokenizer.fingerprint().to_hex());
    format!("{} documents, {} tokens, content {content}, tokenizer {tokenizer}", shards.documents(), shards.tokens())
}

/// Saves a checkpoint, then replaces the newest weights in the run's root.
pub(super) fn save(store: &mut Store, run_dir: &Path, trainer: &Trainer, progress: &Progress) -> Result<()> {
    let layout = trainer.model().params().layout();
    let weights = trainer.model().params().flat::<f32>()?;
    let [m, v] = trainer.moments();
    let state = serde_json::to_vec_pretty(progress).map_err(|e| Error::Internal(e.to_string()))?;
    let tensors = |values: &'_ [f32], out: &mut dyn Write| write_weights(out, layout, values);
    store.save(
        progress.step,
        &[
            (WEIGHTS, &|out| tensors(weights, out)),
            (MOMENTS[0], &|out| tensors(m, out)),
            (MOMENTS[1], &|out| tensors(v, out)),
            (STATE, &|out| out.write_all(&state)),
        ],
    )?;
    write_root_weights(run_dir, trainer)
}

/// Replaces the weights in the run's root.
pub(super) fn write_root_weights(run_dir: &Path, trainer: &Trainer) -> Result<()> {
    let (layout, weights) = (trainer.model().params().layout(), trainer.model().params().flat::<f32>()?);
    replace_root_file(run_dir, WEIGHTS, &|out| write_weights(out, layout, weights)).map(drop)
}

/// How far the run of a checkpoint had come.
pub(super) fn read_progress(checkpoint: &Checkpoint) -> Result<Progress> {
    let bytes = checkpoint.read(STATE)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::format(checkpoint.dir().join(STATE), e.to_string()))
}

/// Puts a checkpoint's weights and moments into a trainer of the same model.
pub(super) fn restore(checkpoint: &Checkpoint, trainer: &mut Trainer) -> Result<()> {
    let layout = trainer.model().params().layout().clone();
    let (model, [m, v]) = trainer.state_mut();
    read_all(checkpoint, WEIGHTS, &layout, model.params_mut().flat_mut::<f32>()?)?;
    read_all(checkpoint, MOMENTS[0], &layout, m)?;
    read_all(checkpoint, MOMENTS[1], &layout, v)
}

fn read_all(checkpoint: &Checkpoint, name: &str, layout: &Layout, values: &mut [f32]) -> Result<()> {
    let file = WeightsFile::open(checkpoint.path(name)?)?;
    layout.entries().iter().try_for_each(|entry| file.read(&entry.name, &entry.shape, &mut values[entry.range()]))
}

/// Writes what a run directory holds besides weights: configurations, tokenizer, settings.
pub(super) fn write_root(run_dir: &Path, config: &ModelConfig, tokenizer: &Tokenizer, options: &Options) -> Result<()> {
    let options = serde_json::to_value(options).map_err(|e| Error::Internal(e.to_string()))?;
    let files = [
        ("config.json", config_to_json(config)),
        ("generation_config.json", generation_config_to_json(config)),
        (OPTIONS, options),
    ];
    for (name, value) in files {
        replace_root_file(run_dir, name, &|out| write_json(out, &value))?;
    }
    tokenizer.save(run_dir)
}

/// The settings that the run in `run_dir` began with; none where it was stopped before it wrote them, or where there is no run.
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] of a `run.json` that cannot be read.
pub fn read_options(run_dir: &Path) -> Result<Option<Options>> {
    let path = run_dir.join(OPTIONS);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::format(&path, e.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(&path, error)),
    }
}

/// The model configuration of the run in `run_dir`, whose weights are those of `checkpoint`.
pub(super) fn read_root_config(run_dir: &Path, checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let names = WeightsFile::open(checkpoint.path(WEIGHTS)?)?.names();
    read_config(run_dir.join("config.json"), &names)
}

fn write_json(out: &mut dyn Write, value: &serde_json::Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}
