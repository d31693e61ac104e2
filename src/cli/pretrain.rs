//! `ferromind pretrain`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ferromind::train::{Event, Observer, pretrain};
use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{data, say};

/// Only what is given is laid over the preset's recipe; `--help` tells the recipe of `tiny`, and where the others differ.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(allow_negative_numbers = true)]
pub struct Flags {
    /// Settings from a TOML file, under the names of the flags; a flag wins over the file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Model and recipe: tiny (default), minimind2-26m, minimind2-moe, minimind3-64m, minimind3-moe
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    /// Plain UTF-8 text or JSON lines {"text": …}, also .gz or .zst: files, quoted patterns ('data/*.jsonl.zst') and directories, as
    /// many as you like. Tokenized once, see `data tokenize`. Without it: embedded stories
    #[arg(long, num_args = 1.., value_name = "PATH")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data_path: Vec<PathBuf>,
    /// "bytes" (the default with --data-path: 259 entries, no training), or a tokenizer.json or its directory; with --from-weight,
    /// the default is that of the weights
    #[arg(long, value_name = "DIR|bytes")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer: Option<String>,
    /// The run directory [default: out/pretrain, or the first of out/pretrain-2, -3, … that does not exist]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    out_dir: Option<PathBuf>,
    /// The run's name, in its report [default: pretrain]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    save_weight: Option<String>,
    /// 1 goes on with the run in --out-dir, to the same bits as if it had never stopped
    #[arg(long, value_name = "0|1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from_resume: Option<u8>,
    /// Begin with the weights of this model directory, or of the run of this name beside --out-dir [default: none]
    #[arg(long, value_name = "none|NAME|DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from_weight: Option<String>,
    /// Width of the residual stream [default: the preset's; tiny 128]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_size: Option<usize>,
    /// Blocks [default: the preset's; tiny 4]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_hidden_layers: Option<usize>,
    /// Query heads
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_attention_heads: Option<usize>,
    /// Key and value heads
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_key_value_heads: Option<usize>,
    /// Width inside the feed-forward network, or inside an expert
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    intermediate_size: Option<usize>,
    /// 1 puts a mixture of experts into every layer
    #[arg(long, value_name = "0|1", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    use_moe: Option<u8>,
    /// How the chosen experts are weighted: normalised, normalised-if-several, softmax [default: as published]
    #[arg(long, value_name = "RULE", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_weights: Option<String>,
    /// By how much a step moves the corrections that balance experts without a loss (DeepSeek-V3) [default: 0.001]
    #[arg(long, value_name = "SPEED", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    router_bias_speed: Option<f64>,
    /// Base of the rotary frequencies [default: the preset's; tiny 1000000]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_theta: Option<f64>,
    /// Positions that the model has [default: the preset's; tiny 32768]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_position_embeddings: Option<usize>,
    /// Probability of dropout [default: 0]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,
    /// First values: normal or pytorch [default: normal]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<String>,
    /// Deviation of the first values under normal [default: tiny 0.14, others 0.02]
    #[arg(long, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    init_std: Option<f64>,
    /// Passes over the data [default: tiny 4, others 1]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u64>,
    /// Optimizer steps at most [default: tiny 1200, others as many as the epochs have]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_steps: Option<u64>,
    /// Rows of a micro-batch [default: tiny 1, others 32]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
    /// Micro-batches of an optimizer step; their losses weigh by their counted tokens [default: tiny 1, others 8]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    accumulation_steps: Option<u64>,
    /// Tokens of a row [default: tiny 1024, minimind2 512, minimind3 340]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_seq_len: Option<usize>,
    /// Highest learning rate [default: tiny 4e-3, others 5e-4]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    learning_rate: Option<f64>,
    /// Its course: notes, minimind, cosine, wsd [default: tiny cosine, others minimind]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    /// Optimizer steps of linear warm-up, at most half of the run [default: tiny 50, others 0]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,
    /// Optimizer steps of the final decay of wsd [default: 0]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decay_steps: Option<u64>,
    /// How wsd decays: linear or sqrt [default: sqrt]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decay_shape: Option<String>,
    /// Last learning rate over the highest, of cosine and wsd [default: tiny 0.02, others 0.1]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_lr_ratio: Option<f64>,
    /// AdamW's first beta [default: 0.9]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta1: Option<f64>,
    /// AdamW's second beta [default: tiny 0.98, others 0.999]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    /// AdamW's epsilon [default: 1e-8]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adam_eps: Option<f64>,
    /// AdamW's weight decay [default: tiny 0.1, others 0.01]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    /// What decays: all, or matrices (norms are spared) [default: tiny matrices, others all]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decay_scope: Option<String>,
    /// Largest global norm of the gradient; 0 does not clip [default: 1]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    grad_clip: Option<f64>,
    /// Decides every random number [default: 42]
    #[arg(long, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// One document a row, padded, instead of documents packed side by side with a document mask
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_packing: bool,
    /// Count bad lines and go on, instead of stopping at the first
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skip_bad_lines: bool,
    /// Where tokenized data is kept [default: $FERROMIND_CACHE, or ferromind in the user's cache directory]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
    /// Share of the data, at its end, that is held out [default: tiny 0.02, others 0.01]
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    val_fraction: Option<f64>,
    /// Optimizer steps between validations; 0 validates only at the end [default: tiny 200, others 100]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    val_interval: Option<u64>,
    /// Batches of a validation on the way at most; 0 takes all, as the last one does [default: 16]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    val_batches: Option<u64>,
    /// Optimizer steps between lines of metrics [default: 10]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_interval: Option<u64>,
    /// Optimizer steps between checkpoints; 0 saves only at the end [default: tiny 500, others 100]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    save_interval: Option<u64>,
    /// Checkpoints that are kept [default: 2]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
    /// cpu or auto [default: auto]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// float32; bfloat16 and float16 need a GPU [default: float32]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// Threads; 0 takes one for each core. The bits do not depend on it [default: 0]
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_workers: Option<usize>,
}

/// Trains, with a progress bar; Ctrl-C, SIGTERM and SIGHUP save and end.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut settings: Vec<Map<String, Value>> = Vec::new();
    if let Some(path) = &flags.config {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        settings.push(toml::from_str(&text).with_context(|| path.display().to_string())?);
    }
    match serde_json::to_value(flags)? {
        Value::Object(given) => settings.push(given),
        other => anyhow::bail!("flags are not a table: {other}"),
    }
    let threads = settings.iter().rev().find_map(|layer| layer.get("num-workers")?.as_u64());
    super::use_threads(usize::try_from(threads.unwrap_or(0))?)?;
    let stop = Arc::new(AtomicBool::new(false));
    let tokenizing = Arc::new(AtomicBool::new(false));
    let (handler, resumable) = (stop.clone(), tokenizing.clone());
    ctrlc::set_handler(move || {
        if resumable.load(Ordering::SeqCst) {
            let _ = writeln!(std::io::stderr(), "\nstopped while tokenizing: the same command goes on from here");
            std::process::exit(130);
        }
        if handler.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        // At once: the step in progress may take minutes.
        let _ = writeln!(std::io::stderr(), "\nstopping: after this step a checkpoint is saved (Ctrl-C again to leave at once)");
    })?;
    let mut screen = Screen::new(stop, tokenizing);
    let summary = pretrain(&settings, &mut screen)?;
    screen.bar.finish_and_clear();
    let dir = summary.run_dir.display();
    let number = |x: Option<f64>| x.map_or("none".to_owned(), |x| format!("{x:.4}"));
    if summary.stopped {
        say!("Stopped and saved after step {}. Go on with: ferromind pretrain --out-dir {dir} --from-resume 1", summary.step);
    } else {
        say!(
            "Done: {} steps in {:.1} s, {:.0} tokens/s, training loss {}, validation loss {}",
            summary.step,
            summary.elapsed_s,
            summary.tok_s,
            number(summary.loss),
            number(summary.val_loss)
        );
    }
    say!("\nWhat the model writes:\n\n{}\n", summary.sample.1.trim());
    say!("The run is in {dir}: open {dir}/report.html, or let it write more:\n  ferromind generate --model {dir}");
    Ok(ExitCode::SUCCESS)
}

/// The progress bar.
struct Screen {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    /// While this holds there is nothing to save: what is tokenized is kept anyhow.
    tokenizing: Arc<AtomicBool>,
    val_loss: Option<f64>,
    /// When the last line about a step was written; only where there is no terminal.
    last_line: Option<Instant>,
}

/// Without a terminal, a line after the first step and one now and then say how far the run is, however long its steps take.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Screen {
    fn new(stop: Arc<AtomicBool>, tokenizing: Arc<AtomicBool>) -> Self {
        Self { bar: ProgressBar::hidden(), stop, tokenizing, val_loss: None, last_line: None }
    }

    fn bar(&mut self, len: u64, template: &str) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::new(len);
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// A line above the bar, also where there is no terminal.
    fn line(&self, text: String) {
        if self.bar.is_hidden() { say!("{text}") } else { self.bar.println(text) }
    }
}

impl Observer for Screen {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Tokenizing(done, total) => {
                self.tokenizing.store(true, Ordering::SeqCst);
                if self.bar.length() != Some(total) {
                    self.bar(total, data::TOKENIZING);
                    // What was tokenized before is no speed of now.
                    self.bar.set_position(done);
                    self.bar.reset_eta();
                }
                self.bar.set_position(done);
            }
            Event::Started { run_dir, config, params, training_tokens, skipped_lines, steps, done } => {
                self.tokenizing.store(false, Ordering::SeqCst);
                self.bar(steps, "{wide_bar} {pos}/{len} {msg}");
                self.bar.set_position(done);
                let kind = if config.moe.is_some() { "mixture-of-experts" } else { "dense" };
                self.line(format!(
                    "{kind} model: {:.2} M parameters, {} layers, {} wide, vocabulary {}",
                    params as f64 / 1e6,
                    config.num_hidden_layers,
                    config.hidden_size,
                    config.vocab_size
                ));
                self.line(format!(
                    "{training_tokens} training tokens an epoch; {steps} steps; run directory {}",
                    run_dir.display()
                ));
                if skipped_lines > 0 {
                    self.line(format!("{skipped_lines} bad lines of the data were passed over"));
                }
                if done > 0 {
                    self.line(format!("resumed after step {done}"));
                }
            }
            Event::Rejected(name, reason) => self.line(format!("checkpoint {name} was refused: {reason}")),
            Event::Step { step, record, time_left } => {
                let left = time_left.map_or(String::new(), |left| format!(", {} left", FormattedDuration(left)));
                let val = self.val_loss.map_or(String::new(), |loss| format!(", val {loss:.3}"));
                let (loss, tok_s) = (record.loss.unwrap_or(f64::NAN), record.tok_s.unwrap_or(0.0));
                let message = format!("loss {loss:.3}{val}, {tok_s:.0} tokens/s{left}");
                if self.bar.is_hidden() && self.last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES) {
                    self.last_line = Some(Instant::now());
                    say!("step {step}: {message}");
                }
                self.bar.set_position(step);
                self.bar.set_message(message);
            }
            Event::Validated(step, loss) => {
                self.val_loss = Some(loss);
                self.line(format!("step {step}: validation loss {loss:.4}"));
            }
            Event::Saved(_) => {}
        }
    }

    fn stop_requested(&mut self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
