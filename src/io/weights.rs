//! The weights of a model directory, in one file or in several.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::safetensors::WeightsFile;
use crate::{Error, Result};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model directory: of `model.safetensors`, or of the files that `model.safetensors.index.json` lists.
#[derive(Debug)]
pub struct Weights {
    /// What says which tensors there are: the one file, or the index.
    path: PathBuf,
    files: Vec<WeightsFile>,
    /// The file of each tensor.
    holders: HashMap<String, usize>,
}

impl Weights {
    /// Opens the weights of a directory. Where it has both forms, the one file counts, as it does for the transformers library.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            return Self::of(single.clone(), vec![WeightsFile::open(single)?]);
        }
        if !index.exists() {
            return Err(Error::format(dir, format!("holds no weights: neither {SINGLE} nor {INDEX}{}", other_formats(dir))));
        }
        let map = read_index(&index)?;
        let mut names: Vec<&str> = map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let open = |name: &&str| {
            let path = dir.join(name);
            if !path.is_file() {
                return Err(Error::format(&index, format!("lists the file {name}, which is missing")));
            }
            WeightsFile::open(path)
        };
        let weights = Self::of(index.clone(), names.iter().map(open).collect::<Result<_>>()?)?;
        let holder = |tensor: &String| weights.holders.get(tensor).map(|&file| names[file]);
        match map.iter().filter(|(tensor, file)| holder(tensor) != Some(file)).min() {
            Some((tensor, file)) => {
                Err(Error::format(index, format!("places the tensor `{tensor}` in {file}, which does not hold it")))
            }
            None => Ok(weights),
        }
    }

    fn of(path: PathBuf, files: Vec<WeightsFile>) -> Result<Self> {
        let mut holders = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(first) = holders.insert(name.clone(), i) {
                    let first: &WeightsFile = &files[first];
                    let message = format!("the tensor `{name}` is in {} and in {}", first.path().display(), file.path().display());
                    return Err(Error::format(path, message));
                }
            }
        }
        Ok(Self { path, files, holders })
    }

    /// What says which tensors there are: the one file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors.
    pub fn names(&self) -> Vec<String> {
        self.holders.keys().cloned().collect()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.holders.contains_key(name)
    }

    /// The file that holds a tensor.
    pub fn file(&self, name: &str) -> Result<&WeightsFile> {
        let holder = self.holders.get(name).and_then(|&file| self.files.get(file));
        holder.ok_or_else(|| Error::format(&self.path, format!("the tensor `{name}` is missing")))
    }
}

/// The file of each tensor, as an index says it.
fn read_index(path: &Path) -> Result<HashMap<String, String>> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.filter(|map| !map.is_empty()).ok_or_else(|| Error::format(path, "has no `weight_map` from tensors to files"))?;
    let entry = |(tensor, file): (&String, &Value)| {
        // A name alone: an index that came from elsewhere reads nothing beside its own directory.
        let plain = |name: &&str| Path::new(name).file_name().is_some_and(|alone| alone == *name);
        let file = file.as_str().filter(plain);
        let file =
            file.ok_or_else(|| Error::format(path, format!("`weight_map` does not give the tensor `{tensor}` a file name")))?;
        Ok((tensor.clone(), file.to_owned()))
    };
    map.iter().map(entry).collect()
}

/// What else lies in a directory without weights that looks like weights, and what to do with it.
fn other_formats(dir: &Path) -> String {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let pickled = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "bin" || extension == "pth");
    match files.filter(pickled).min() {
        Some(path) => format!("; {} can be converted with scripts/convert_pth.py", path.display()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::FloatType;
    use crate::io::save::save_weights;
    use crate::params::Layout;
    use serde_json::json;

    /// Tensors `a` `[4]`, `b` `[2, 3]` and `c` `[5]` of 0, 1, 2, ... in three files.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::default();
        layout.add("a", [4]);
        layout.add("b", [2, 3]);
        layout.add("c", [5]);
        let values: Vec<f32> = (0..15u8).map(f32::from).collect();
        save_weights(dir.path(), &layout, &values, FloatType::F32, Some(24)).unwrap();
        dir
    }

    fn shard(i: usize) -> String {
        format!("model-0000{i}-of-00003.safetensors")
    }

    fn error(dir: &Path) -> String {
        Weights::open(dir).unwrap_err().to_string()
    }

    /// Changes the index of a directory.
    fn edit(dir: &Path, change: impl Fn(&mut Value)) {
        let path = dir.join(INDEX);
        let mut json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(path, json.to_string()).unwrap();
    }

    #[test]
    fn several_files_are_as_one() {
        let dir = directory();
        let weights = Weights::open(dir.path()).unwrap();
        let mut names = weights.names();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(weights.file("b").unwrap().f32("b").unwrap(), ([2, 3].into(), (4..10u8).map(f32::from).collect()));
        assert!(weights.file("c").unwrap().path().ends_with(shard(3)));
        assert!(weights.contains("c") && !weights.contains("d"));
        let missing = weights.file("d").unwrap_err().to_string();
        assert!(missing.contains(INDEX) && missing.contains("`d` is missing"), "{missing}");
        // One file beside them is what counts.
        fs::copy(dir.path().join(shard(1)), dir.path().join(SINGLE)).unwrap();
        assert_eq!(Weights::open(dir.path()).unwrap().names(), ["a"]);
    }

    #[test]
    fn what_an_index_gets_wrong_is_named() {
        let fails = |change: &dyn Fn(&mut Value), phrases: &[&str]| {
            let dir = directory();
            edit(dir.path(), change);
            let error = error(dir.path());
            assert!(error.contains(INDEX) && phrases.iter().all(|phrase| error.contains(phrase)), "{phrases:?}: {error}");
        };
        fails(&|json| json["weight_map"]["b"] = shard(9).into(), &[&shard(9), "missing"]);
        fails(&|json| json["weight_map"]["b"] = shard(3).into(), &["`b`", &shard(3), "does not hold it"]);
        fails(&|json| json["weight_map"]["x"] = shard(1).into(), &["`x`", &shard(1), "does not hold it"]);
        fails(&|json| json["weight_map"]["b"] = "../b.safetensors".into(), &["`b` a file name"]);
        fails(&|json| json["weight_map"]["b"] = 7.into(), &["`b` a file name"]);
        fails(&|json| json["weight_map"] = json!({}), &["has no `weight_map`"]);
        fails(&|json| *json = json!([]), &["has no `weight_map`"]);
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = directory();
        fs::remove_file(dir.path().join(shard(2))).unwrap();
        assert!(error(dir.path()).contains(&format!("lists the file {}, which is missing", shard(2))));

        let dir = directory();
        let path = dir.path().join(shard(2));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let cut = error(dir.path());
        assert!(cut.contains(&shard(2)) && cut.contains("cut short") && cut.contains("`b`"), "{cut}");
        for length in [0, 7, 8, 40] {
            fs::write(&path, &whole[..length]).unwrap();
            let cut = error(dir.path());
            assert!(cut.contains(&shard(2)) && cut.contains("cut short"), "{length}: {cut}");
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(error(dir.path()).contains(&format!("has {} bytes, its header describes {}", whole.len() + 1, whole.len())));
        fs::write(dir.path().join(INDEX), "{").unwrap();
        assert!(error(dir.path()).contains("not JSON"));
    }

    #[test]
    fn a_tensor_in_two_files_is_refused() {
        let dir = directory();
        let mut layout = Layout::default();
        layout.add("b", [6]);
        layout.add("a", [4]);
        let other = tempfile::tempdir().unwrap();
        save_weights(other.path(), &layout, &[0.0; 10], FloatType::F32, None).unwrap();
        fs::copy(other.path().join(SINGLE), dir.path().join(shard(2))).unwrap();
        let error = error(dir.path());
        assert!(error.contains("`a` is in") && error.contains(&shard(1)) && error.contains(&shard(2)), "{error}");
    }

    #[test]
    fn a_directory_without_weights_says_what_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = error(dir.path());
        assert!(nothing.contains(SINGLE) && nothing.contains(INDEX) && !nothing.contains("convert_pth"), "{nothing}");
        fs::write(dir.path().join("full_sft_512.pth"), "").unwrap();
        assert!(error(dir.path()).contains("full_sft_512.pth can be converted with scripts/convert_pth.py"));
    }
}
