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
    Model::random(with_special_tokens(options.model(vocab_size)?, corpus), options.init, options.init_std, options.seed)
}

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
        ("num-key-value-heads", options.num_key_value_heads, has.num_key_value_heads),
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
