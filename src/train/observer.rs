//! What a run tells those who watch it, and how it ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::metrics::Record;
use crate::Error;
use crate::model::ModelConfig;

/// What happens in a run, for whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// Text is tokenized: bytes done, bytes in all.
    Tokenizing(u64, u64),
    /// All is ready.
    Started {
        /// The run directory.
        run_dir: &'a Path,
        /// The model.
        config: &'a ModelConfig,
        /// Parameters.
        params: usize,
        /// Tokens that are trained on in one epoch.
        training_tokens: u64,
        /// Bad lines of the data that were passed over.
        skipped_lines: u64,
        /// Optimizer steps of the whole run, and how many are done.
        steps: u64,
        /// See `steps`.
        done: u64,
    },
    /// A checkpoint that was not used, and why.
    Rejected(&'a str, &'a Error),
    /// An optimizer step is done. Loss and rates are of the last line of metrics.
    Step {
        /// Its number, from 1.
        step: u64,
        /// What was measured.
        record: &'a Record,
        /// Until the end of the run.
        time_left: Option<Duration>,
    },
    /// The held-out data was evaluated: step and loss.
    Validated(u64, f64),
    /// A checkpoint was saved at this step.
    Saved(u64),
}

/// Whoever watches a run, and may stop it.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);
    /// Whether the run should save and end after this step.
    fn stop_requested(&mut self) -> bool;
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run directory.
    pub run_dir: PathBuf,
    /// Optimizer steps done.
    pub step: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// The last training loss.
    pub loss: Option<f64>,
    /// The last validation loss.
    pub val_loss: Option<f64>,
    /// Seconds of training.
    pub elapsed_s: f64,
    /// Tokens per second over the whole of it.
    pub tok_s: f64,
    /// What the model writes: prompt and continuation.
    pub sample: (String, String),
}
