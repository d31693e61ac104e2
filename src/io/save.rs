//! Writing weights in the safetensors format, in one file or in several.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::float_type::FloatType;
use super::weights::{INDEX, SINGLE};
use crate::params::{Entry, Layout};
use crate::{Error, Result};

/// Writes parameters under their public names in f32; `values` is the flat buffer. Streams: nothing is copied.
pub fn write_weights(out: &mut dyn Write, layout: &Layout, values: &[f32]) -> io::Result<()> {
    write_tensors(out, layout.entries().iter(), values, FloatType::F32)
}

/// Values that are converted at once.
const PIECE: usize = 1 << 16;

fn write_tensors<'a>(
    out: &mut dyn Write,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    values: &[f32],
    float: FloatType,
) -> io::Result<()> {
    let (mut header, mut end) = (Map::new(), 0);
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    for entry in entries.clone() {
        let start = end;
        end += float.size() * entry.shape.elements();
        let described = json!({ "dtype": float.header_name(), "shape": entry.shape.dims(), "data_offsets": [start, end] });
        header.insert(entry.name.clone(), described);
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut bytes = Vec::new();
    for values in entries.flat_map(|entry| values[entry.range()].chunks(PIECE)) {
        let as_is = float == FloatType::F32 && cfg!(target_endian = "little");
        let bytes = match as_is {
            true => bytemuck::cast_slice(values),
            false => {
                float.encode(values, &mut bytes);
                &*bytes
            }
        };
        out.write_all(bytes)?;
    }
    Ok(())
}

/// Writes the weights of a model directory: `model.safetensors`, or, where that would be longer than `max_shard_size` bytes,
/// several files in the order of the parameters, each as full as fits (a larger tensor has one alone), and their index.
///
/// # Errors
/// A value that would become infinite in `float` names its tensor; nothing is written then.
pub fn save_weights(dir: &Path, layout: &Layout, values: &[f32], float: FloatType, max_shard_size: Option<u64>) -> Result<()> {
    expect_range(dir, layout, values, float)?;
    let bytes = |entry: &Entry| (float.size() * entry.shape.elements()) as u64;
    let mut shards: Vec<Vec<&Entry>> = Vec::new();
    let mut room = 0;
    for entry in layout.entries() {
        match shards.last_mut() {
            Some(shard) if bytes(entry) <= room => shard.push(entry),
            _ => {
                shards.push(vec![entry]);
                room = max_shard_size.unwrap_or(u64::MAX);
            }
        }
        room = room.saturating_sub(bytes(entry));
    }
    if let [_] | [] = &*shards {
        return replace(&dir.join(SINGLE), |out| write_tensors(out, layout.entries().iter(), values, float));
    }
    let mut map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        replace(&dir.join(&name), |out| write_tensors(out, shard.iter().copied(), values, float))?;
        map.extend(shard.iter().map(|entry| (entry.name.clone(), Value::from(name.as_str()))));
    }
    let metadata = json!({ "total_parameters": layout.len(), "total_size": layout.entries().iter().map(bytes).sum::<u64>() });
    write_json(&dir.join(INDEX), &json!({ "metadata": metadata, "weight_map": map }))
}

/// An error that names a tensor with a value that would become infinite.
fn expect_range(path: &Path, layout: &Layout, values: &[f32], float: FloatType) -> Result<()> {
    let beyond = |entry: &&Entry| values[entry.range()].iter().any(|&value| float.overflows(value));
    match layout.entries().iter().find(beyond) {
        Some(Entry { name, .. }) => Err(Error::format(
            path,
            format!("the tensor `{name}` holds values beyond the range of {float}; write bfloat16 or float32"),
        )),
        None => Ok(()),
    }
}

/// Writes JSON for people.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    replace(path, |out| out.write_all(format!("{value:#}\n").as_bytes()))
}

/// Writes a file beside its place and moves it there when it is whole.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let written = || {
        let mut out = BufWriter::new(File::create(&beside)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|e| Error::io(path, e))
}

/// A size as people write it: `5GB`, `500 MB`, `2GiB`, or bytes alone.
pub fn parse_size(text: &str) -> Result<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("", 1),
    ];
    let parsed = UNITS.iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
        number.checked_mul(*bytes).filter(|&size| size > 0)
    });
    parsed.ok_or_else(|| Error::config(format!("`{text}` is not a size; write a whole number and KB, MB, GB, KiB, MiB or GiB")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Weights;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        [("b", 6), ("a", 3), ("c", 20), ("d", 1)].into_iter().for_each(|(name, len)| drop(layout.add(name, [len])));
        layout
    }

    /// The names of the tensors in each file of a directory, and what an index says.
    fn files(dir: &Path) -> Vec<(String, Vec<String>)> {
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let names = |path: &std::path::PathBuf| {
            let bytes = fs::read(path).unwrap();
            let mut names: Vec<_> = match safetensors::SafeTensors::deserialize(&bytes) {
                Ok(tensors) => tensors.names().into_iter().map(str::to_owned).collect(),
                Err(_) => Vec::new(),
            };
            names.sort();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), names)
        };
        files.iter().map(names).collect()
    }

    #[test]
    fn files_are_filled_in_order_and_read_back() {
        let values: Vec<f32> = (0..30).map(|x| x as f32 * 0.5).collect();
        for (float, size, expected) in [
            (FloatType::F32, None, vec!["abcd"]),
            (FloatType::F32, Some(120), vec!["abcd"]),
            (FloatType::F32, Some(119), vec!["abc", "d"]),
            (FloatType::F32, Some(40), vec!["ab", "c", "d"]),
            (FloatType::BF16, Some(40), vec!["ab", "c", "d"]),
            (FloatType::F16, Some(58), vec!["abc", "d"]),
            (FloatType::F32, Some(1), vec!["b", "a", "c", "d"]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            save_weights(dir.path(), &layout(), &values, float, size).unwrap();
            let files = files(dir.path());
            let tensors: Vec<String> =
                files.iter().filter(|(_, names)| !names.is_empty()).map(|(_, names)| names.concat()).collect();
            assert_eq!(tensors, expected, "{float} {size:?}");
            assert_eq!(files.len(), if expected.len() == 1 { 1 } else { expected.len() + 1 });
            let weights = Weights::open(dir.path()).unwrap();
            for entry in layout().entries() {
                let (shape, read) = weights.file(&entry.name).unwrap().f32(&entry.name).unwrap();
                assert_eq!((&shape, &*read), (&entry.shape, &values[entry.range()]), "{float} {size:?} {}", entry.name);
            }
        }
    }

    #[test]
    fn the_index_names_each_tensor_and_the_size_of_all() {
        let dir = tempfile::tempdir().unwrap();
        save_weights(dir.path(), &layout(), &[0.0; 30], FloatType::BF16, Some(40)).unwrap();
        let index: Value = serde_json::from_str(&fs::read_to_string(dir.path().join(INDEX)).unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], 60);
        let file = |i: usize| format!("model-0000{i}-of-00003.safetensors");
        assert_eq!(index["weight_map"], json!({ "b": file(1), "a": file(1), "c": file(2), "d": file(3) }));
    }

    #[test]
    fn values_beyond_a_type_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut values = vec![0.0; 30];
        values[7] = -1e5;
        let error = save_weights(dir.path(), &layout(), &values, FloatType::F16, None).unwrap_err().to_string();
        assert!(error.contains("`a` holds values beyond the range of float16"), "{error}");
        assert!(files(dir.path()).is_empty());
        save_weights(dir.path(), &layout(), &values, FloatType::BF16, None).unwrap();
    }

    #[test]
    fn sizes_as_people_write_them() {
        let sizes = ["5GB", "500 MB", "2GiB", "123", "1KiB"].map(|text| parse_size(text).unwrap());
        assert_eq!(sizes, [5_000_000_000, 500_000_000, 1 << 31, 123, 1024]);
        for text in ["", "GB", "0GB", "-1MB", "1.5GB", "5 gigs", "99999999999999999999", "20000000TiB"] {
            assert!(parse_size(text).unwrap_err().to_string().contains("is not a size"), "{text}");
        }
    }
}
