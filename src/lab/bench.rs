//! Whole training steps, timed.

use std::time::Instant;

use serde_json::Map;

use crate::data::Batch;
use crate::model::{Init, Model, Preset};
use crate::rng::Philox;
use crate::train::{Options, Trainer, flops_per_token};
use crate::{Error, Result};

/// Steps that are done before the clock runs.
const WARM_UP: usize = 2;

/// What to time.
#[derive(Debug, Clone, Copy)]
pub struct TrainBench {
    /// The model.
    pub preset: Preset,
    /// Rows.
    pub batch_size: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Steps that are timed.
    pub steps: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct TrainFigures {
    /// Parameters.
    pub params: usize,
    /// Median time of a step: forward, backward, clipping and update.
    pub step_ms: f64,
    /// Tokens per second at the median.
    pub tok_s: f64,
    /// Share of this machine's matrix-product speed.
    pub mfu: f64,
    /// The most memory that the process held.
    pub peak_mib: Option<u64>,
    /// Loss of the last step.
    pub loss: f64,
}

/// Trains on one batch of random tokens; `observe` hears each timed step's number and milliseconds.
pub fn bench_train(bench: &TrainBench, mut observe: impl FnMut(usize, f64)) -> Result<TrainFigures> {
    let TrainBench { preset, batch_size, seq_len, steps, vocab_size } = *bench;
    if batch_size == 0 || seq_len == 0 || steps == 0 || vocab_size == 0 {
        return Err(Error::config("batch-size, seq-len, steps and vocab-size must be at least 1"));
    }
    let options = Options::resolve(&[Map::new()])?;
    let config = preset.config(vocab_size);
    let flops = flops_per_token(&config, seq_len);
    let mut trainer = Trainer::new(Model::random(config, Init::Normal, 0.02, 0)?, &options);
    let params = trainer.model().params().layout().len();
    let random = Philox::new(0);
    let ids: Vec<i32> = (0..(batch_size * (seq_len + 1)) as u64).map(|i| random.below(i, vocab_size as u64) as i32).collect();
    let shifted = |from: usize| ids.chunks(seq_len + 1).flat_map(|row| row[from..from + seq_len].to_vec()).collect();
    let batch = Batch {
        rows: batch_size,
        seq_len,
        input_ids: shifted(0),
        targets: shifted(1),
        document_starts: vec![0; batch_size * seq_len],
        sample_ids: (0..batch_size as u64).collect(),
    };
    let (mut times, mut loss) = (Vec::new(), 0.0);
    for step in 1..=WARM_UP + steps {
        let begun = Instant::now();
        loss = trainer.step(step as u64, std::slice::from_ref(&batch), 5e-4)?.loss;
        if step > WARM_UP {
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            observe(step - WARM_UP, ms);
            times.push(ms);
        }
    }
    times.sort_by(f64::total_cmp);
    let step_ms = times[times.len() / 2];
    let tok_s = (batch_size * seq_len) as f64 / step_ms * 1e3;
    let mfu = tok_s * flops / crate::cpu::measure_peak_flops();
    Ok(TrainFigures { params, step_ms, tok_s, mfu, peak_mib: peak_mib(), loss })
}

/// The process's largest resident memory so far, where the system tells it (Linux).
pub(super) fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}
