//! GGUF, version 3: the one-file form that llama.cpp and its relatives run (specification: `docs/gguf.md` of ggml). Written only.
//!
//! | part | content |
//! |---|---|
//! | header | `GGUF`, version, number of tensors, number of keys |
//! | keys | each a name, a type and a value: sizes of the model, the whole tokenizer |
//! | tensors | each a name, its extents (the fastest first), type, place in the data |
//! | data | the tensors, each at a multiple of 32 bytes |
//!
//! Everything is little-endian; a text is its length in 8 bytes and its bytes.

mod element;
mod model;
mod tokenizer;
mod value;

use std::io::{self, Write};
use std::path::Path;

pub use element::GgmlType;
use model::Tensor;
use value::Value;

use super::{load_model, save};
use crate::{Error, Result};

/// The place of each tensor's data is a multiple of it: the default, written all the same.
const ALIGNMENT: usize = 32;

/// Writes the model in the directory `model` as one GGUF file: a dense one of the lines Llama (and MiniMind-2) and Qwen3 (and
/// MiniMind-3), with the tokenizer of the directory. Matrices are in `ggml`, what has one dimension in f32. Returns the names of
/// matrices that are in f16 though `ggml` is [`GgmlType::Q8_0`], because their rows are not whole blocks.
///
/// # Errors
/// A model, a rotary scaling or a tokenizer of a form that llama.cpp has not, or that is not written here; a value that `ggml` cannot
/// hold; a file `out` that is there already.
pub fn export_gguf(model: &Path, out: &Path, ggml: GgmlType) -> Result<Vec<String>> {
    if out.exists() {
        return Err(Error::config(format!("{} is there already; choose another name", out.display())));
    }
    let loaded = load_model(model)?;
    let mut keys = model::keys(&loaded, &name_of(model), ggml).map_err(|e| Error::format(model, e.to_string()))?;
    keys.extend(tokenizer::keys(model, loaded.config())?);
    let tensors = model::tensors(&loaded, ggml)?;
    if let Some(tensor) = tensors.iter().find(|tensor| !tensor.ggml.holds(&tensor.values)) {
        let message = format!("the tensor `{}` holds values that {} cannot; write float32", tensor.name, tensor.ggml);
        return Err(Error::format(model, message));
    }
    save::replace(out, |file| write(file, &keys, &tensors))?;
    let narrower = tensors.iter().filter(|tensor| ggml == GgmlType::Q8_0 && tensor.ggml == GgmlType::F16);
    Ok(narrower.map(|tensor| tensor.name.clone()).collect())
}

/// What the model is called: the name of its directory.
fn name_of(model: &Path) -> String {
    let full = model.canonicalize().unwrap_or_else(|_| model.to_path_buf());
    full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

fn write(out: &mut dyn Write, keys: &[(String, Value)], tensors: &[Tensor<'_>]) -> io::Result<()> {
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        value::put_text(&mut header, key);
        value.put(&mut header);
    }
    let mut place = 0;
    for tensor in tensors {
        value::put_text(&mut header, &tensor.name);
        header.extend((tensor.shape.dims().len() as u32).to_le_bytes());
        tensor.shape.dims().iter().rev().for_each(|&extent| header.extend((extent as u64).to_le_bytes()));
        header.extend(tensor.ggml.id().to_le_bytes());
        header.extend((place as u64).to_le_bytes());
        place += tensor.ggml.bytes(tensor.values.len()).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&header)?;
    let mut bytes = Vec::new();
    for tensor in tensors {
        tensor.ggml.encode(&tensor.in_order(), &mut bytes);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes)?;
    }
    Ok(())
}
