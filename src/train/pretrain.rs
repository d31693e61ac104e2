//! The run: from settings to a run directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::checkpoint::{Checkpoint, Store};
use super::corpus::Corpus;
use super::first_model::{first_model, resumed_model};
use super::metrics::{EventWriter, FILE_NAME, MetricsLog, Record, Report, Throughput, read_records};
use super::observer::{Event, Observer, Summary};
use super::options::Options;
use super::schedule::LearningRate;
use super::state::{self, Progress};
use super::trainer::{StepReport, Trainer, flops_per_token};
use crate::infer::{Generation, Sampling};
use crate::{Error, Result};

/// Trains a model as `settings` say (layers of flag names and values; a later one wins), and leaves a run directory.
///
/// With `from-resume 1` it goes on with the newest whole checkpoint of `out-dir`, to the same bits as a run never stopped.
pub fn pretrain(settings: &[Map<String, Value>], observer: &mut dyn Observer) -> Result<Summary> {
    let fresh = Options::resolve(settings);
    let asked = |name: &str| settings.iter().rev().find_map(|layer| layer.get(name));
    let resume = asked("from-resume").is_some_and(|value| value == 1);
    let run_dir = match (asked("out-dir").and_then(Value::as_str), &fresh) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Ok(options)) if resume => options.out_dir.clone(),
        (None, Ok(options)) => unused(&options.out_dir),
        (None, Err(_)) => return Err(fresh.err().unwrap_or_else(|| Error::Internal("settings".into()))),
    };
    if !resume {
        expect_unused(&run_dir)?;
        return Run::begin(Options { out_dir: run_dir, ..fresh? }, observer)?.finish(observer);
    }
    let store = open_to_resume(&run_dir)?;
    let resumed = |saved: &Options| Ok(Options { out_dir: run_dir.clone(), ..Options::resolve_resumed(saved, settings)? });
    match newest(&store, &run_dir, observer)? {
        Some((checkpoint, progress)) => {
            Run::resume(resumed(&progress.options)?, store, &checkpoint, progress, observer)?.finish(observer)
        }
        // Stopped before its first checkpoint: its bits are those of its beginning.
        None => {
            let options = match state::read_options(&run_dir)? {
                Some(saved) => resumed(&saved)?,
                None => Options { out_dir: run_dir.clone(), ..fresh? },
            };
            drop(store);
            Run::begin(options, observer)?.finish(observer)
        }
    }
}

/// An error where `dir` holds what a new run would write over.
fn expect_unused(dir: &Path) -> Result<()> {
    let shown = dir.display();
    if dir.join("checkpoints").is_dir() || dir.join(FILE_NAME).exists() {
        return Err(Error::config(format!(
            "{shown} holds a run already; go on with it by --from-resume 1, or name another --out-dir"
        )));
    }
    match ["model.safetensors", "config.json", "tokenizer.json"].iter().find(|name| dir.join(name).exists()) {
        Some(name) => Err(Error::config(format!("{shown} holds a {name}, which a run would write over; name another --out-dir"))),
        None => Ok(()),
    }
}

/// `dir`, or the first of `dir-2`, `dir-3`, … that does not exist: a run never writes over another.
fn unused(dir: &Path) -> PathBuf {
    let numbered = |n: u32| match n {
        1 => dir.to_path_buf(),
        _ => PathBuf::from(format!("{}-{n}", dir.display())),
    };
    (1..).map(numbered).find(|dir| !dir.exists()).unwrap_or_else(|| dir.to_path_buf())
}

fn open_to_resume(run_dir: &Path) -> Result<Store> {
    if !run_dir.join("checkpoints").is_dir() {
        return Err(Error::config(format!("there is no run to resume in {}: it has no checkpoints", run_dir.display())));
    }
    Store::open(run_dir, 1)
}

/// The newest whole checkpoint, or none where none was saved yet; those that were refused are told.
fn newest(store: &Store, run_dir: &Path, observer: &mut dyn Observer) -> Result<Option<(Checkpoint, Progress)>> {
    let latest = store.latest()?;
    for rejected in &latest.rejected {
        observer.event(Event::Rejected(&rejected.name, &rejected.reason));
    }
    match (latest.checkpoint, latest.rejected.as_slice()) {
        (Some(checkpoint), _) => {
            let progress = state::read_progress(&checkpoint)?;
            Ok(Some((checkpoint, progress)))
        }
        (None, []) => Ok(None),
        (None, [newest, ..]) => Err(Error::config(format!(
            "there is no whole checkpoint in {} ({}: {}); begin a new run with another out-dir",
            run_dir.display(),
            newest.name,
            newest.reason
        ))),
    }
}

/// A run in progress.
struct Run {
    options: Options,
    corpus: Corpus,
    trainer: Trainer,
    store: Store,
    progress: Progress,
    /// Micro-batches of the whole run.
    total: u64,
    learning_rate: LearningRate,
    log: MetricsLog,
    events: EventWriter,
    throughput: Throughput,
    peak_flops: f64,
    last_loss: Option<f64>,
    last_val_loss: Option<f64>,
    last_saved: Option<u64>,
}

impl Run {
    fn begin(options: Options, observer: &mut dyn Observer) -> Result<Self> {
        let run_dir = options.out_dir.clone();
        let corpus = Corpus::prepare(&options, &mut |done, total| observer.event(Event::Tokenizing(done, total)))?;
        let model = first_model(&options, &corpus)?;
        let positions = model.config().max_position_embeddings;
        if options.max_seq_len > positions {
            let len = options.max_seq_len;
            return Err(Error::config(format!("max-seq-len is {len}; the model has {positions} positions")));
        }
        let total = corpus.micro_batches(&options)?;
        options.learning_rate(total)?;
        let store = Store::open(&run_dir, options.keep)?;
        state::write_root(&run_dir, model.config(), &corpus.tokenizer, &options)?;
        let trainer = Trainer::new(model, &options);
        let data = state::data_fingerprint(&corpus);
        let progress = Progress { step: 0, micro_batches: 0, tokens: 0, elapsed_s: 0.0, data, options: options.clone() };
        let (log, events) = (MetricsLog::create(&run_dir)?, EventWriter::create(&run_dir, Some(0))?);
        Self::assemble(options, corpus, trainer, store, progress, total, log, events, observer)
    }

    fn resume(
        options: Options,
        mut store: Store,
        checkpoint: &Checkpoint,
        progress: Progress,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let run_dir = options.out_dir.clone();
        let corpus = Corpus::prepare(&options, &mut |done, total| observer.event(Event::Tokenizing(done, total)))?;
        let data = state::data_fingerprint(&corpus);
        if data != progress.data {
            return Err(Error::config(format!("the run began on other data ({}) than there is now ({data})", progress.data)));
        }
        let mut trainer = Trainer::new(resumed_model(&options, &corpus, checkpoint)?, &options);
        state::restore(checkpoint, &mut trainer)?;
        let total = corpus.micro_batches(&options)?;
        store.discard_after(checkpoint.step())?;
        let store = store.keeping(options.keep);
        // The run may have been stopped between a checkpoint and the root, or the newest checkpoint refused.
        state::write_root_weights(&run_dir, &trainer)?;
        let (log, events) = (MetricsLog::resume(&run_dir, progress.step)?, EventWriter::create(&run_dir, Some(progress.step))?);
        let records = read_records(&run_dir.join(FILE_NAME))?;
        let progress = Progress { options: options.clone(), ..progress };
        Ok(Self {
            last_loss: records.iter().rev().find_map(|record| record.loss),
            last_val_loss: records.iter().rev().find_map(|record| record.val_loss),
            ..Self::assemble(options, corpus, trainer, store, progress, total, log, events, observer)?
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn assemble(
        options: Options,
        corpus: Corpus,
        trainer: Trainer,
        store: Store,
        progress: Progress,
        total: u64,
        log: MetricsLog,
        events: EventWriter,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let learning_rate = options.learning_rate(total)?;
        observer.event(Event::Started {
            run_dir: &options.out_dir,
            config: trainer.model().config(),
            params: trainer.model().params().layout().len(),
            training_tokens: corpus.training.dataset().len() * options.max_seq_len as u64,
            skipped_lines: corpus.training.dataset().shards().skipped_lines(),
            steps: total.div_ceil(options.accumulation_steps),
            done: progress.step,
        });
        let last_saved = (progress.step > 0).then_some(progress.step);
        Ok(Self {
            throughput: Throughput::start(Instant::now(), Duration::from_secs(10)),
            peak_flops: crate::cpu::measure_peak_flops(),
            options,
            corpus,
            trainer,
            store,
            progress,
            total,
            learning_rate,
            log,
            events,
            last_loss: None,
            last_val_loss: None,
            last_saved,
        })
    }

    /// All steps that are left, then the last validation, checkpoint, sample and report.
    fn finish(mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let mut stopped = false;
        while self.progress.micro_batches < self.total && !stopped {
            self.one_step(observer)?;
            let step = self.progress.step;
            let is_due = |interval: u64| interval > 0 && step.is_multiple_of(interval);
            let ended = self.progress.micro_batches >= self.total;
            stopped = !ended && observer.stop_requested();
            if ended || is_due(self.options.val_interval) {
                self.validate(observer)?;
            }
            if ended || stopped || is_due(self.options.save_interval) {
                self.save(observer)?;
            }
            self.throughput.skip(Instant::now());
        }
        if self.last_saved != Some(self.progress.step) {
            self.save(observer)?;
        }
        let sample = self.sample()?;
        self.write_report(&sample)?;
        let Progress { step, tokens, elapsed_s, .. } = self.progress;
        Ok(Summary {
            run_dir: self.options.out_dir.clone(),
            step,
            stopped,
            loss: self.last_loss,
            val_loss: self.last_val_loss,
            elapsed_s,
            tok_s: if elapsed_s > 0.0 { tokens as f64 / elapsed_s } else { 0.0 },
            sample,
        })
    }

    fn one_step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let begun = Instant::now();
        let first = self.progress.micro_batches;
        let end = self.total.min(first + self.options.accumulation_steps);
        let group = (first..end).map(|index| self.corpus.training.batch(index)).collect::<Result<Vec<_>>>()?;
        let step = self.progress.step + 1;
        let lr = self.learning_rate.at(end);
        let report = self.trainer.step(step, &group, lr).map_err(|error| self.with_last_checkpoint(error))?;
        self.progress.step = step;
        self.progress.micro_batches = end;
        self.progress.tokens += report.tokens as u64;
        let now = Instant::now();
        self.progress.elapsed_s += (now - begun).as_secs_f64();
        self.throughput.add(now, report.tokens as u64);
        self.last_loss = Some(report.loss);
        let record = self.record(&report, lr);
        if step.is_multiple_of(self.options.log_interval) || end == self.total {
            self.log.append(&record)?;
            self.events.record(&record)?;
        }
        let per_micro_batch = (self.options.batch_size * self.options.max_seq_len) as u64;
        let time_left = self.throughput.time_left((self.total - end) * per_micro_batch);
        observer.event(Event::Step { step, record: &record, time_left });
        Ok(())
    }

    fn record(&self, report: &StepReport, lr: f64) -> Record {
        let tok_s = self.throughput.tokens_per_second();
        let flops = flops_per_token(self.trainer.model().config(), self.options.max_seq_len);
        Record {
            step: self.progress.step,
            epoch: Some(self.progress.micro_batches as f64 / self.corpus.training.batches_per_epoch() as f64),
            tokens: Some(self.progress.tokens),
            loss: Some(report.loss),
            aux_loss: report.aux_loss,
            val_loss: None,
            lr: Some(lr),
            grad_norm: Some(report.grad_norm),
            tok_s,
            mfu: tok_s.map(|tok_s| tok_s * flops / self.peak_flops),
            elapsed_s: Some(self.progress.elapsed_s),
            expert_load: (!report.expert_load.is_empty()).then(|| report.expert_load.clone()),
        }
    }

    /// A loss that is not finite says which checkpoint is left to go on from.
    fn with_last_checkpoint(&self, error: Error) -> Error {
        match error {
            Error::NonFinite(message) => {
                let left = match self.last_saved {
                    Some(step) => format!(
                        "the last good checkpoint is {}",
                        self.options.out_dir.join(format!("checkpoints/step-{step}")).display()
                    ),
                    None => "no checkpoint was saved yet".to_owned(),
                };
                Error::NonFinite(format!("{message}; {left}. A lower learning rate, more warm-up or other data may help"))
            }
            other => other,
        }
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Some(loader) = &self.corpus.validation else { return Ok(()) };
        let ended = self.progress.micro_batches >= self.total;
        let all = loader.batches_per_epoch();
        let batches = if ended || self.options.val_batches == 0 { all } else { all.min(self.options.val_batches) };
        let val_loss = self.trainer.evaluate((0..batches).map(|index| loader.batch(index)));
        let val_loss = val_loss.map_err(|error| match error {
            Error::NonFinite(message) => Error::NonFinite(format!("validation after step {}: {message}", self.progress.step)),
            other => other,
        });
        let val_loss = val_loss.map_err(|error| self.with_last_checkpoint(error))?;
        let record = Record { step: self.progress.step, val_loss: Some(val_loss), ..Record::default() };
        self.log.append(&record)?;
        self.events.record(&record)?;
        self.last_val_loss = Some(val_loss);
        observer.event(Event::Validated(self.progress.step, val_loss));
        Ok(())
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.log.sync()?;
        state::save(&mut self.store, &self.options.out_dir, &self.trainer, &self.progress)?;
        self.last_saved = Some(self.progress.step);
        observer.event(Event::Saved(self.progress.step));
        Ok(())
    }

    /// What the model writes after the beginning-of-text token, or after a line break where there is none.
    fn sample(&self) -> Result<(String, String)> {
        let tokenizer = &self.corpus.tokenizer;
        let mut prompt = match tokenizer.bos_id() {
            Some(bos) => vec![bos],
            None => tokenizer.encode("\n")?,
        };
        if prompt.is_empty() {
            prompt.push(0); // a tokenizer that drops blanks: any token will do
        }
        let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed: self.options.seed, ..Sampling::default() };
        let generation = Generation::new(self.trainer.model(), &prompt, sampling, self.options.max_seq_len)?;
        let mut tokens = generation.collect::<Result<Vec<u32>>>()?;
        // Weights that came with a larger vocabulary may write tokens that this tokenizer has no text for.
        tokens.retain(|&id| tokenizer.token(id).is_some());
        Ok((String::new(), tokenizer.decode(&tokens, true)?))
    }

    fn write_report(&self, sample: &(String, String)) -> Result<()> {
        let run_dir = &self.options.out_dir;
        let records = read_records(&run_dir.join(FILE_NAME))?;
        let settings = serde_json::to_value(&self.options).map_err(|e| Error::Internal(e.to_string()))?;
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(values) if values.is_empty() => "the embedded stories".to_owned(),
            other => other.to_string(),
        };
        let (model, params) = (self.trainer.model().config(), self.trainer.model().params().layout().len());
        let sizes = [
            ("parameters", format!("{:.2} M", params as f64 / 1e6)),
            ("layers", model.num_hidden_layers.to_string()),
            ("width", model.hidden_size.to_string()),
            ("vocabulary", model.vocab_size.to_string()),
        ];
        let given = settings.as_object().into_iter().flatten().filter(|(name, value)| !value.is_null() && *name != "from-resume");
        let settings = given.map(|(name, value)| (name.clone(), shown(value)));
        let settings: Vec<(String, String)> =
            sizes.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(settings).collect();
        let title = format!("ferromind: {}", self.options.save_weight);
        Report { title: &title, records: &records, settings: &settings, samples: std::slice::from_ref(sample) }.write(run_dir)
    }
}
