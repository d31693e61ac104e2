//! What the tests of whole runs share: a small corpus, the settings of a run of seconds, observers, the files to compare.
#![allow(dead_code)] // each test binary uses a part

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ferromind::rng::Philox;
use ferromind::train::{Event, Observer};
use serde_json::{Map, Value, json};

/// Several documents as JSON lines, of unequal length: about 4 kB of words drawn at random.
pub fn corpus(dir: &Path) -> PathBuf {
    const WORDS: [&str; 12] = ["the", "cat", "sees", "a", "small", "bird", "and", "sings", "under", "old", "trees", "today"];
    let draws = Philox::new(5);
    let mut next = 0;
    let mut below = |n: u64| {
        next += 1;
        draws.below(next, n)
    };
    let mut text = String::new();
    for _ in 0..60 {
        let words: Vec<&str> = (0..4 + below(20)).map(|_| WORDS[below(12) as usize]).collect();
        text += &format!("{}\n", json!({ "text": words.join(" ") }));
    }
    let path = dir.join("corpus.jsonl");
    fs::write(&path, text).unwrap();
    path
}

/// A model of 2 layers, 32 wide, on `corpus` in `dir`, 12 optimizer steps of 2 micro-batches; `changes` are laid over it.
pub fn settings(dir: &Path, out: &str, changes: Value) -> Map<String, Value> {
    let mut settings = json!({
        "data-path": [corpus(dir)], "tokenizer": "bytes", "cache-dir": dir.join("cache"), "out-dir": dir.join(out),
        "hidden-size": 32, "num-hidden-layers": 2, "num-attention-heads": 4, "num-key-value-heads": 2, "intermediate-size": 48,
        "max-seq-len": 32, "batch-size": 4, "accumulation-steps": 2, "epochs": 2, "max-steps": 12, "warmup-steps": 2,
        "schedule": "cosine", "learning-rate": 3e-3, "min-lr-ratio": 0.1, "init-std": 0.02, "val-fraction": 0.05,
        "log-interval": 1, "save-interval": 3, "val-interval": 0, "keep": 3,
    });
    let settings = settings.as_object_mut().unwrap();
    settings.extend(changes.as_object().unwrap().clone());
    settings.clone()
}

/// The same settings as flags of the command.
pub fn flags(settings: &Map<String, Value>) -> Vec<String> {
    let flag = |(name, value): (&String, &Value)| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let values = match value {
            Value::Bool(_) => Vec::new(),
            Value::Array(values) => values.iter().map(text).collect(),
            value => vec![text(value)],
        };
        [vec![format!("--{name}")], values].concat()
    };
    settings.iter().flat_map(flag).collect()
}

/// The program with `arguments`.
pub fn ferromind<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferromind"));
    command.args(arguments);
    command
}

/// `ferromind pretrain` with these settings.
pub fn pretrain_command(settings: &Map<String, Value>) -> Command {
    let mut command = ferromind(["pretrain"]);
    command.args(flags(settings));
    command
}

/// Both streams of a finished process.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Watches a run, remembers what was refused, and stops it after a number of steps.
#[derive(Default)]
pub struct Watcher {
    pub stop_after: Option<u64>,
    pub steps: u64,
    pub rejected: Vec<String>,
    pub saved: Vec<u64>,
    pub skipped_lines: u64,
}

impl Watcher {
    pub fn stopping_after(steps: u64) -> Self {
        Self { stop_after: Some(steps), ..Self::default() }
    }
}

impl Observer for Watcher {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step { .. } => self.steps += 1,
            Event::Rejected(name, reason) => self.rejected.push(format!("{name}: {reason}")),
            Event::Saved(step) => self.saved.push(step),
            Event::Started { skipped_lines, .. } => self.skipped_lines = skipped_lines,
            _ => {}
        }
    }

    fn stop_requested(&mut self) -> bool {
        self.stop_after == Some(self.steps)
    }
}

/// What must be the same to the bit in two runs: the root's weights, the newest checkpoint's weights and moments, and the losses.
#[derive(Debug, PartialEq)]
pub struct Bits {
    files: Vec<(String, blake3::Hash)>,
    losses: Vec<String>,
}

/// Those of a finished run.
pub fn bits(run_dir: &Path) -> Bits {
    let newest = newest_checkpoint(run_dir);
    let hash = |dir: &Path, name: &str| (name.to_owned(), blake3::hash(&fs::read(dir.join(name)).unwrap()));
    let moments = ["adam_m.safetensors", "adam_v.safetensors"].map(|name| hash(&newest, name));
    let weights = [run_dir, newest.as_path()].map(|dir| hash(dir, "model.safetensors"));
    let records = fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let losses = records.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        ["step", "loss", "aux_loss", "val_loss", "grad_norm", "lr", "tokens"].map(|name| record[name].to_string()).join(" ")
    });
    Bits { files: weights.into_iter().chain(moments).collect(), losses: losses.collect() }
}

/// The directory of the newest checkpoint.
pub fn newest_checkpoint(run_dir: &Path) -> PathBuf {
    let dir = run_dir.join("checkpoints");
    let steps = fs::read_dir(&dir)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
    dir.join(format!("step-{}", steps.max().expect("a checkpoint")))
}
