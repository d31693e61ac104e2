//! `ferromind generate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ferromind::cpu::awake;
use ferromind::data::Tokenizer;
use ferromind::infer::{Defaults, Generation, Sampling};
use ferromind::io::load_model_as;
use ferromind::tensor::DType;

use super::WeightType;

#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub struct Flags {
    /// A run directory, or any model directory with config.json, model.safetensors and tokenizer.json
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What the text begins with [default: the beginning-of-text token alone]
    #[arg(long, default_value = "", hide_default_value = true)]
    prompt: String,
    /// Tokens to write at most; the text may end before
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// 0 takes the likeliest token each time (greedy); higher is more varied [default: the model's generation_config.json, else 0.85]
    #[arg(long)]
    temperature: Option<f64>,
    /// Only the k likeliest tokens; 0 is off [default: the model's, else 0]
    #[arg(long)]
    top_k: Option<usize>,
    /// Only the likeliest tokens up to this share of the probability; 1 is off [default: the model's, else 0.85]
    #[arg(long)]
    top_p: Option<f64>,
    /// Only tokens at least this share as likely as the likeliest; 0 is off [default: the model's, else 0]
    #[arg(long)]
    min_p: Option<f64>,
    /// Makes tokens that were seen less likely; 1 is off [default: the model's, else 1]
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// One seed, one text
    #[arg(long, default_value_t = Sampling::default().seed)]
    seed: u64,
    /// What the weights are kept in: bfloat16 halves what each token reads, and rounds weights of a float32 file
    #[arg(long, default_value_t)]
    dtype: WeightType,
    /// Threads; 0 takes one for each core
    #[arg(long, default_value_t = 0)]
    num_workers: usize,
    #[command(flatten)]
    rope: super::rope::RopeFlags,
}

/// Streams the prompt and what the model writes after it.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    super::use_threads(flags.num_workers)?;
    let dtype = match flags.dtype {
        WeightType::Float32 => DType::F32,
        WeightType::Bfloat16 => DType::BF16,
    };
    let model = flags.rope.apply(load_model_as(&flags.model, dtype)?, &flags.model)?;
    let tokenizer = Tokenizer::load(&flags.model)?;
    let mut prompt: Vec<u32> = tokenizer.bos_id().into_iter().collect();
    prompt.extend(tokenizer.encode(&flags.prompt)?);
    let Defaults { sampling: default, end_tokens } = Defaults::read(&flags.model, model.config())?;
    let sampling = Sampling {
        repetition_penalty: flags.repetition_penalty.unwrap_or(default.repetition_penalty),
        temperature: flags.temperature.unwrap_or(default.temperature),
        top_k: flags.top_k.unwrap_or(default.top_k),
        top_p: flags.top_p.unwrap_or(default.top_p),
        min_p: flags.min_p.unwrap_or(default.min_p),
        seed: flags.seed,
    };
    let generation = Generation::new(&model, &prompt, sampling, flags.max_new_tokens)?.with_end_tokens(end_tokens);
    let mut stream = tokenizer.decode_stream(true);
    if !super::print_streamed(&flags.prompt)? {
        return Ok(ExitCode::SUCCESS);
    }
    awake(|| {
        for token in generation {
            if !super::print_streamed(&stream.push(token?)?)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        super::print_streamed(&format!("{}\n", stream.finish()?))?;
        Ok(ExitCode::SUCCESS)
    })
}
