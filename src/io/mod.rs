//! Files that others read and write: weights, configurations, model directories.

mod config;
mod mmap;
mod needless;
mod safetensors;

use std::collections::HashSet;
use std::path::Path;

pub use config::{config_to_json, generation_config_to_json, read_config};
pub use mmap::Mmap;
pub use safetensors::{WeightsFile, write_weights};

use crate::model::{Model, ModelConfig};
use crate::params::Params;
use crate::tensor::DType;
use crate::{Error, Result};

/// The configuration of the model in a directory; of the weights only the names are read.
pub fn read_model_config(dir: impl AsRef<Path>) -> Result<ModelConfig> {
    let dir = dir.as_ref();
    read_config(dir.join("config.json"), &WeightsFile::open(dir.join("model.safetensors"))?.names())
}

/// A model from a directory that holds `config.json` and `model.safetensors`.
///
/// Every parameter of the configuration must be there under its public name and shape, in f32, bf16 or f16, experts one by one
/// or fused; a tensor that the model has no place for is an error too, but for a tied head written twice and what
/// [the decoder does not need](needless).
pub fn load_model(dir: impl AsRef<Path>) -> Result<Model> {
    let dir = dir.as_ref();
    if !dir.is_dir() {
        return Err(Error::config(format!(
            "{} is not a directory; a model is one that holds config.json and model.safetensors",
            dir.display()
        )));
    }
    let file = WeightsFile::open(dir.join("model.safetensors"))?;
    let config = read_config(dir.join("config.json"), &file.names())?;
    let layout = Model::layout(&config)?;
    let tied_head = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    let names: HashSet<String> = file.names().into_iter().collect();
    let needless = |name: &str| needless::is_needless(&config, name, |name| names.contains(name));
    let stored = layout.as_stored(|name| names.contains(name));
    let places: HashSet<&str> = stored.iter().map(|entry| entry.name.as_str()).collect();
    if let Some(name) = names.iter().filter(|name| !places.contains(name.as_str()) && !tied_head(name) && !needless(name)).min() {
        return Err(Error::format(file.path(), format!("the model of config.json has no place for the tensor `{name}`")));
    }
    // Before there is room for them: sizes that only config.json has may be beyond any memory.
    stored.iter().try_for_each(|entry| file.expect(&entry.name, &entry.shape))?;
    let mut params = Params::zeros(layout.clone(), DType::F32);
    let values = params.flat_mut::<f32>()?;
    for entry in stored {
        file.read_f32(&entry.name, &entry.shape, &mut values[entry.range()])?;
    }
    if config.tie_word_embeddings && file.contains("lm_head.weight") {
        expect_tied(&file, &params)?;
    }
    Model::new(config, params)
}

/// A tied head that is written all the same must be the embedding: one that differs was trained apart from it.
fn expect_tied(file: &WeightsFile, params: &Params) -> Result<()> {
    let head = file.f32("lm_head.weight")?;
    // The embedding lies first, whatever its line calls it.
    let entry = params.layout().entries().first().ok_or_else(|| Error::Internal("a model without embedding".into()))?;
    if head.0 == entry.shape && head.1 == params.flat::<f32>()?[entry.range()] {
        return Ok(());
    }
    let message = format!("`lm_head.weight` differs from `{}`, but config.json ties them (`tie_word_embeddings`)", entry.name);
    Err(Error::format(file.path(), message))
}
