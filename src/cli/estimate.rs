//! `ferromind estimate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ferromind::io::read_model_config;
use ferromind::lab::estimate::{Estimate, estimate};
use ferromind::model::ModelConfig;
use ferromind::train::Options;
use serde_json::{Map, Value, json};

use super::say;

#[derive(Args)]
pub struct Flags {
    /// The model [default: tiny]
    #[arg(long, conflicts_with = "model")]
    preset: Option<String>,
    /// A model directory in place of a preset
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Width of the residual stream in place of the preset's
    #[arg(long, conflicts_with = "model")]
    hidden_size: Option<usize>,
    /// Layers in place of the preset's
    #[arg(long, conflicts_with = "model")]
    num_hidden_layers: Option<usize>,
    /// 1 for a mixture of experts, 0 for none, in place of the preset's choice
    #[arg(long, conflicts_with = "model")]
    use_moe: Option<u8>,
    /// Entries of the vocabulary
    #[arg(long, default_value_t = 6400, conflicts_with = "model")]
    vocab_size: usize,
    /// Rows of a micro-batch [default: the preset's]
    #[arg(long)]
    batch_size: Option<usize>,
    /// Tokens of a row, and of a sequence that is generated [default: the preset's]
    #[arg(long)]
    max_seq_len: Option<usize>,
    /// cpu
    #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
    device: String,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
}

/// Prints what training and generation will take.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Option<Value>| value.map(|value| settings.insert(name.into(), value));
    set("preset", flags.preset.as_deref().map(Value::from));
    set("hidden-size", flags.hidden_size.map(Value::from));
    set("num-hidden-layers", flags.num_hidden_layers.map(Value::from));
    set("use-moe", flags.use_moe.map(Value::from));
    let options = Options::resolve(&[settings])?;
    let config = match &flags.model {
        Some(dir) => read_model_config(dir)?,
        None => options.model(flags.vocab_size)?,
    };
    let batch_size = flags.batch_size.unwrap_or(options.batch_size);
    let seq_len = flags.max_seq_len.unwrap_or(options.max_seq_len);
    let result = estimate(&config, batch_size, seq_len)?;
    if !flags.json {
        print(&config, &result, batch_size, seq_len);
    }
    let mut line = serde_json::to_value(&result)?;
    line["batch_size"] = batch_size.into();
    line["max_seq_len"] = seq_len.into();
    line["device"] = json!(flags.device);
    say!("{line}");
    Ok(ExitCode::SUCCESS)
}

fn print(config: &ModelConfig, result: &Estimate, batch_size: usize, seq_len: usize) {
    let mib = |bytes: f64| format!("{:>10.1} MiB", bytes / (1 << 20) as f64);
    let million = |count: usize| count as f64 / 1e6;
    say!("{:.2} M parameters, of which a token uses {:.2} M", million(result.parameters), million(result.active_parameters));
    say!("\ntraining, {batch_size} rows of {seq_len} tokens at a time");
    for (name, bytes) in [
        ("parameters", result.weights),
        ("gradients", result.gradients),
        ("optimizer (two moments)", result.optimizer),
        ("activations", result.activations),
        ("at the peak besides", result.transient),
        ("the program", result.program),
        ("together", result.training),
    ] {
        say!("  {name:<26}{}", mib(bytes));
    }
    let cache = &result.cache;
    let kind = if config.gqa().is_some() { "this model" } else { "this model (latent)" };
    say!("\ngeneration: what the cache keeps of a token, in f32");
    for (name, bytes) in [
        (kind, cache.per_token),
        ("with grouped queries, 4 : 1", cache.grouped_per_token),
        ("with keys for each head", cache.multi_head_per_token),
    ] {
        say!("  {name:<30}{bytes:>8.0} bytes");
    }
    say!("  a sequence of {seq_len} tokens    {}", mib(cache.sequence));
}
