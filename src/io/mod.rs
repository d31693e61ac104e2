//! Files that others read and write: weights, configurations, model directories.

mod config;
mod mmap;
mod safetensors;

use std::path::Path;

pub use config::{config_to_json, generation_config_to_json, read_config};
pub use mmap::Mmap;
pub use safetensors::{WeightsFile, write_weights};

use crate::model::Model;
use crate::params::Params;
use crate::tensor::DType;
use crate::{Error, Result};

/// A model from a directory that holds `config.json` and `model.safetensors`.
///
/// Every parameter of the configuration must be there under its public name and shape, in f32, bf16 or f16; a tensor that the
/// model has no place for is an error too, but for a tied head written twice.
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
    if let Some(name) = file.names().iter().find(|name| layout.find(name).is_none() && !tied_head(name)) {
        return Err(Error::format(file.path(), format!("the model of config.json has no place for the tensor `{name}`")));
    }
    let mut params = Params::zeros(layout.clone(), DType::F32);
    let values = params.flat_mut::<f32>()?;
    for entry in layout.entries() {
        file.read_f32(&entry.name, &entry.shape, &mut values[entry.range()])?;
    }
    Model::new(config, params)
}
