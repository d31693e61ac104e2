//! `ferromind bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ferromind::lab::bench::{TrainBench, bench_train};
use ferromind::lab::bench_generate::{GenerateBench, bench_generate};
use ferromind::lab::stories::{StoryFigures, judge};
use serde_json::json;

use super::{WeightType, say};

#[derive(Subcommand)]
pub enum Command {
    /// Whole training steps on random tokens: tokens per second, time of a step, memory
    Train {
        /// The model
        #[arg(long, default_value = "minimind2-26m")]
        preset: String,
        /// cpu
        #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
        device: String,
        /// float32
        #[arg(long, default_value = "float32", value_parser = ["float32"])]
        dtype: String,
        /// Rows
        #[arg(long, default_value_t = 4)]
        batch_size: usize,
        /// Tokens of a row
        #[arg(long, default_value_t = 512)]
        seq_len: usize,
        /// Steps that are timed, after two that are not
        #[arg(long, default_value_t = 5)]
        steps: usize,
        /// Entries of the vocabulary
        #[arg(long, default_value_t = 6400)]
        vocab_size: usize,
        /// Threads; 0 takes one for each core
        #[arg(long, default_value_t = 0)]
        num_workers: usize,
        /// Only the last line, which is JSON
        #[arg(long)]
        json: bool,
    },
    /// Generation after random prompts with random weights: tokens per second of the prompt and of decoding, memory
    Generate {
        /// The model
        #[arg(long, default_value = "minimind2-26m")]
        preset: String,
        /// cpu
        #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
        device: String,
        /// What the weights are kept in; activations are float32
        #[arg(long, default_value_t)]
        dtype: WeightType,
        /// Tokens of each prompt
        #[arg(long, default_value_t = 32)]
        prompt_len: usize,
        /// Steps of decoding, after the first token, which belongs to the prompt
        #[arg(long, default_value_t = 128)]
        new_tokens: usize,
        /// Sequences, generated together
        #[arg(long, default_value_t = 1)]
        batch_size: usize,
        /// Runs that are timed, after one that is not; the figures are medians
        #[arg(long, default_value_t = 5)]
        repetitions: usize,
        /// Entries of the vocabulary
        #[arg(long, default_value_t = 6400)]
        vocab_size: usize,
        /// Threads; 0 takes one for each core
        #[arg(long, default_value_t = 0)]
        num_workers: usize,
        /// Only the last line, which is JSON
        #[arg(long)]
        json: bool,
    },
    /// A run on the embedded stories against the grammar that wrote them: loss over entropy, sentences that parse, stories that are new
    Stories {
        /// A run directory of `pretrain` without --data-path
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// Stories to sample
        #[arg(long, default_value_t = 100)]
        samples: usize,
        /// Decides the samples
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Train { preset, device, dtype, batch_size, seq_len, steps, vocab_size, num_workers, json } => {
            super::use_threads(num_workers)?;
            let bench = TrainBench { preset: preset.parse()?, batch_size, seq_len, steps, vocab_size };
            let result = bench_train(&bench, |step, ms| {
                if !json {
                    say!("step {step}: {ms:.1} ms");
                }
            })?;
            say!(
                "{}",
                json!({
                    "preset": preset, "params": result.params, "device": device, "dtype": dtype, "batch_size": batch_size,
                    "seq_len": seq_len, "steps": steps, "threads": rayon::current_num_threads(), "step_ms": result.step_ms,
                    "tok_s": result.tok_s, "mfu": result.mfu, "peak_mib": result.peak_mib, "loss": result.loss,
                })
            );
        }
        Command::Generate {
            preset,
            device,
            dtype,
            prompt_len,
            new_tokens,
            batch_size,
            repetitions,
            vocab_size,
            num_workers,
            json,
        } => {
            super::use_threads(num_workers)?;
            let bench = GenerateBench {
                preset: preset.parse()?,
                dtype: dtype.into(),
                batch_size,
                prompt_len,
                new_tokens,
                repetitions,
                vocab_size,
            };
            let result = bench_generate(&bench, |run, prefill, decoding| {
                if !json {
                    say!("run {run}: prompt {prefill:.0} tokens/s, then {decoding:.1} tokens/s");
                }
            })?;
            say!(
                "{}",
                json!({
                    "preset": preset, "params": result.params, "device": device, "dtype": dtype.to_string(),
                    "batch_size": batch_size, "prompt_len": prompt_len, "new_tokens": new_tokens, "repetitions": repetitions,
                    "threads": rayon::current_num_threads(), "tok_s": result.tok_s, "prefill_tok_s": result.prefill_tok_s,
                    "peak_mib": result.peak_mib,
                })
            );
        }
        Command::Stories { model, samples, seed } => {
            let StoryFigures { val_loss, entropy, sentences, parsed, stories, memorised } = judge(&model, samples, seed)?;
            say!("validation loss {val_loss:.4}, entropy {entropy:.4} nats per token: ratio {:.3}", val_loss / entropy);
            say!("{parsed} of {sentences} sampled sentences parse: {:.1} %", 100.0 * parsed as f64 / sentences.max(1) as f64);
            say!("{memorised} of {stories} sampled stories stand in the training set");
            say!(
                "{}",
                json!({ "val_loss": val_loss, "entropy": entropy, "ratio": val_loss / entropy, "sentences": sentences,
                    "parsed": parsed, "stories": stories, "memorised": memorised })
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
