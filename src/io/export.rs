//! A model directory out of another.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::float_type::FloatType;
use super::save::{save_weights, write_json};
use super::weights::{INDEX, SINGLE};
use super::{config_to_json, load_model};
use crate::{Error, Result};

/// What a model directory holds beside weights and `config.json`, and what is copied as it is.
const BESIDE: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"];

/// Writes the model in `model` to the directory `out`, its weights in `float`, in files of at most `max_shard_size` bytes where that is
/// given. Tokenizer and settings of generation are copied.
///
/// # Errors
/// A directory `out` that holds weights already; see [`load_model`] and [`save_weights`].
pub fn export_model(model: &Path, out: &Path, float: FloatType, max_shard_size: Option<u64>) -> Result<()> {
    if let Some(there) = [SINGLE, INDEX].map(|name| out.join(name)).iter().find(|path| path.exists()) {
        return Err(Error::config(format!("{} is there already; choose another directory", there.display())));
    }
    let loaded = load_model(model)?;
    fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let params = loaded.params();
    save_weights(out, params.layout(), params.flat()?, float, max_shard_size)?;
    for name in BESIDE {
        let from = model.join(name);
        if from.exists() {
            fs::copy(&from, out.join(name)).map_err(|e| Error::io(&from, e))?;
        }
    }
    let mut config = config_to_json(loaded.config());
    config["torch_dtype"] = Value::from(float.torch_name());
    write_json(&out.join("config.json"), &config)
}
