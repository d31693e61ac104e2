//! A model out of a directory in the public layout.

use std::collections::HashSet;
use std::path::Path;

use half::bf16;
use rayon::prelude::*;

use super::{Weight, Weights, needless, read_config};
use crate::model::{Model, ModelConfig};
use crate::params::Params;
use crate::tensor::DType;
use crate::{Error, Result};

/// The configuration of the model in a directory; of the weights only the names are read.
pub fn read_model_config(dir: impl AsRef<Path>) -> Result<ModelConfig> {
    let dir = dir.as_ref();
    read_config(dir.join("config.json"), &Weights::open(dir)?.names())
}

/// A model from a directory that holds `config.json` and weights: `model.safetensors`, or several files and their index.
///
/// Every parameter of the configuration must be there under its public name and shape, in f32, bf16 or f16, experts one by one
/// or fused; a tensor that the model has no place for is an error too, but for a tied head written twice, rotary
/// frequencies, and DeepSeek-V3's modules for further tokens.
///
/// The files are mapped, converted on all cores straight into the place of the parameters, and given back piece by piece: the
/// most memory that this takes is that of the parameters.
pub fn load_model(dir: impl AsRef<Path>) -> Result<Model> {
    load::<f32>(dir.as_ref())
}

/// [`load_model`] with the weights in f32 or bf16; no copy in another type is made on the way.
pub fn load_model_as(dir: impl AsRef<Path>, dtype: DType) -> Result<Model> {
    match dtype {
        DType::F32 => load::<f32>(dir.as_ref()),
        DType::BF16 => load::<bf16>(dir.as_ref()),
        other => Err(Error::config(format!("weights cannot be held in {other}; they can in f32 and bf16"))),
    }
}

fn load<W: Weight>(dir: &Path) -> Result<Model> {
    if !dir.is_dir() {
        return Err(Error::config(format!(
            "{} is not a directory; a model is one that holds config.json and model.safetensors",
            dir.display()
        )));
    }
    let weights = Weights::open(dir)?;
    let config = read_config(dir.join("config.json"), &weights.names())?;
    let layout = Model::layout(&config)?;
    let tied_head = |name: &str| config.tie_word_embeddings && name == HEAD;
    let stored = layout.as_stored(|name| weights.contains(name));
    let places: HashSet<&str> = stored.iter().map(|entry| entry.name.as_str()).collect();
    let needless = |name: &str| needless::is_needless(&config, name, |name| weights.contains(name));
    let placeless = |name: &&String| !places.contains(name.as_str()) && !tied_head(name) && !needless(name);
    if let Some(name) = weights.names().iter().filter(placeless).min() {
        let path = weights.file(name)?.path();
        return Err(Error::format(path, format!("the model of config.json has no place for the tensor `{name}`")));
    }
    // Before there is room for them: sizes that only config.json has may be beyond any memory.
    stored.iter().try_for_each(|entry| weights.file(&entry.name)?.expect(&entry.name, &entry.shape).map(drop))?;
    let mut params = Params::zeros(layout.clone(), W::DTYPE);
    let (mut rest, mut parts) = (params.flat_mut::<W>()?, Vec::new());
    for entry in stored {
        let (values, tail) = rest.split_at_mut(entry.shape.elements());
        rest = tail;
        parts.push((entry, values));
    }
    parts.into_par_iter().try_for_each(|(entry, values)| weights.file(&entry.name)?.read(&entry.name, &entry.shape, values))?;
    if config.tie_word_embeddings && weights.contains(HEAD) {
        expect_tied::<W>(&weights, &params)?;
    }
    Model::new(config, params)
}

const HEAD: &str = "lm_head.weight";

/// A tied head that is written all the same must be the embedding: one that differs was trained apart from it.
fn expect_tied<W: Weight>(weights: &Weights, params: &Params) -> Result<()> {
    let file = weights.file(HEAD)?;
    let embedding = params.layout().entries().first().ok_or_else(|| Error::Internal("a model without embedding".into()))?;
    if file.holds(HEAD, &embedding.shape, &params.flat::<W>()?[embedding.range()])? {
        return Ok(());
    }
    let message = format!("`{HEAD}` differs from `{}`, but config.json ties them (`tie_word_embeddings`)", embedding.name);
    Err(Error::format(file.path(), message))
}
