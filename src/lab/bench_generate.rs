//! Generation, timed.

use std::time::Instant;

use super::bench::peak_mib;
use crate::cpu::awake;
use crate::infer::{BatchGeneration, Sampling};
use crate::model::{Init, Model, Preset};
use crate::rng::Philox;
use crate::tensor::DType;
use crate::{Error, Result};

/// What to time.
#[derive(Debug, Clone, Copy)]
pub struct GenerateBench {
    /// The model, of random weights.
    pub preset: Preset,
    /// What the weights are kept in: f32 or bf16.
    pub dtype: DType,
    /// Sequences, generated together.
    pub batch_size: usize,
    /// Random tokens before each.
    pub prompt_len: usize,
    /// Steps of decoding, after the first token, which belongs to the prompt's time.
    pub new_tokens: usize,
    /// Runs that are timed, after one that is not.
    pub repetitions: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct GenerateFigures {
    /// Parameters.
    pub params: usize,
    /// New tokens of all sequences per second of decoding: the median of the runs.
    pub tok_s: f64,
    /// Tokens of the prompts per second until the first new ones: the median of the runs.
    pub prefill_tok_s: f64,
    /// The most memory that the process held.
    pub peak_mib: Option<u64>,
}

/// Generates greedily; `observe` hears each timed run's number, its tokens per second of the prompt and of decoding.
pub fn bench_generate(bench: &GenerateBench, mut observe: impl FnMut(usize, f64, f64) + Send) -> Result<GenerateFigures> {
    let GenerateBench { preset, dtype, batch_size, prompt_len, new_tokens, repetitions, vocab_size } = *bench;
    if [batch_size, prompt_len, new_tokens, repetitions, vocab_size].contains(&0) {
        return Err(Error::config("batch-size, prompt-len, new-tokens, repetitions and vocab-size must be at least 1"));
    }
    let random_model = || Model::random(preset.config(vocab_size), Init::Normal, 0.02, 0);
    let model = if dtype == DType::BF16 { random_model()?.to_bf16()? } else { random_model()? };
    let longest = model.config().max_position_embeddings;
    if prompt_len.saturating_add(new_tokens) >= longest {
        let message = format!(
            "{prompt_len} tokens of a prompt and {new_tokens} new ones, and a first one, are more than the model's {longest} positions"
        );
        return Err(Error::config(message));
    }
    let random = Philox::new(0);
    let token = |i: usize| random.below(i as u64, vocab_size as u64) as u32;
    let prompts: Vec<Vec<u32>> = (0..batch_size).map(|b| (b * prompt_len..(b + 1) * prompt_len).map(token).collect()).collect();
    let mut run = || -> Result<[f64; 2]> {
        let mut generation = BatchGeneration::new(&model, &prompts, Sampling::greedy(), new_tokens + 1)?.without_end();
        let begun = Instant::now();
        generation.next().transpose()?;
        let prefill = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        generation.try_for_each(|tokens| tokens.map(drop))?;
        let decoding = begun.elapsed().as_secs_f64();
        Ok([(batch_size * prompt_len) as f64 / prefill, (batch_size * new_tokens) as f64 / decoding])
    };
    let figures = awake(|| -> Result<Vec<[f64; 2]>> {
        run()?;
        (1..=repetitions)
            .map(|i| {
                let [prefill, decoding] = run()?;
                observe(i, prefill, decoding);
                Ok([prefill, decoding])
            })
            .collect()
    })?;
    let median = |which: usize| {
        let mut values: Vec<f64> = figures.iter().map(|figures| figures[which]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Ok(GenerateFigures { params: model.params().layout().len(), prefill_tok_s: median(0), tok_s: median(1), peak_mib: peak_mib() })
}
