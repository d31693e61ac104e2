//! The model that a run begins or goes on with.

use std::path::PathBuf;

use super::checkpoint::Checkpoint;
use super::corpus::Corpus;
use super::options::Options;
use super::state;
use crate::io::load_model;
use crate::model::{Model, ModelConfig};
use crate::params::Params;
use crate::tensor::DType;
use crate::{Error, Result};

/// The model that a run begins with: random, or another run's.
pub(super) fn first_model(options: &Options, corpus: &Corpus) -> Result<Model> {
    let vocab_size = corpus.tokenizer.vocab_size();
    if options.from_weight != "none" {
        let model = load_model(weights_dir(options))?;
        expect_shape(options, model.config())?;
        if model.config().vocab_size < vocab_size {
            let has = model.config().vocab_size;
            return Err(Error::config(format!("the weights have a vocabulary of {has} entries, the tokenizer {vocab_size}")));
        }
        return Ok(model.with_dropout(options.dropout));
    }
    let config = with_special_tokens(options.model(vocab_size)?, corpus);
    expect_memory(&config, crate::cpu::available_memory())?;
    Model::random(config, options.init, options.init_std, options.seed)
}

/// An error where parameters, gradients and the two moments alone, in f32, take more than the memory that is free.
fn expect_memory(config: &ModelConfig, free: Option<u64>) -> Result<()> {
    let params = Model::layout(config)?.len() as u64;
    let needed = params.saturating_mul(16);
    match free {
        Some(free) if needed > free => Err(Error::config(format!(
            "{:.1} M parameters with gradients and moments take {:.1} GiB, and {:.1} GiB of memory are free; \
             lower hidden-size or num-hidden-layers",
            params as f64 / 1e6,
            needed as f64 / GIB,
            free as f64 / GIB
        ))),
        _ => Ok(()),
    }
}

const GIB: f64 = (1u64 << 30) as f64;

/// The model of a run that is resumed, its values yet to be read: what it began with may be gone by now.
pub(super) fn resumed_model(options: &Options, corpus: &Corpus, checkpoint: &Checkpoint) -> Result<Model> {
    let config = match options.from_weight.as_str() {
        "none" => with_special_tokens(options.model(corpus.tokenizer.vocab_size())?, corpus),
        _ => ModelConfig { dropout: options.dropout, ..state::read_root_config(&options.out_dir, checkpoint)? },
    };
    let params = Params::zeros(Model::layout(&config)?, DType::F32);
    Model::new(config, params)
}

/// An error that names a size that was asked for and is not that of the weights.
fn expect_shape(options: &Options, has: &ModelConfig) -> Result<()> {
    let experts = has.moe.as_ref();
    let sizes = [
        ("hidden-size", options.hidden_size, has.hidden_size),
        ("num-hidden-layers", options.num_hidden_layers, has.num_hidden_layers),
        ("num-attention-heads", options.num_attention_heads, has.num_attention_heads),
        ("num-key-value-heads", options.num_key_value_heads, has.gqa().map_or(0, |gqa| gqa.num_key_value_heads)),
        ("intermediate-size", options.intermediate_size, experts.map_or(has.intermediate_size, |moe| moe.intermediate_size)),
        ("use-moe", options.use_moe.map(usize::from), usize::from(experts.is_some())),
    ];
    match sizes.into_iter().find(|(_, asked, has)| asked.is_some_and(|asked| asked != *has)) {
        Some((name, asked, has)) => Err(Error::config(format!(
            "{name} is {}, that of the weights in {} is {has}; leave the flag out",
            asked.unwrap_or_default(),
            options.from_weight
        ))),
        None => Ok(()),
    }
}

/// `from-weight` as a path, or as the name of a run beside this one.
pub(super) fn weights_dir(options: &Options) -> PathBuf {
    let path = PathBuf::from(&options.from_weight);
    let beside = options.out_dir.parent().map(|parent| parent.join(&options.from_weight));
    match beside {
        Some(beside) if !path.is_dir() && beside.is_dir() => beside,
        _ => path,
    }
}

/// The tokenizer's special tokens, in the model's configuration.
fn with_special_tokens(config: ModelConfig, corpus: &Corpus) -> ModelConfig {
    let tokenizer = &corpus.tokenizer;
    ModelConfig { bos_token_id: tokenizer.bos_id(), eos_token_id: tokenizer.eos_id(), pad_token_id: tokenizer.pad_id(), ..config }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_fit_is_told_before_its_memory_is_taken() {
        let config = ModelConfig::minimind2(512, 8, 6400);
        let needed = 16 * 25_829_888;
        assert!(expect_memory(&config, Some(needed)).is_ok() && expect_memory(&config, None).is_ok());
        let message = expect_memory(&config, Some(needed - 1)).unwrap_err().to_string();
        assert!(message.contains("25.8 M parameters") && message.contains("hidden-size"), "{message}");
    }
}
