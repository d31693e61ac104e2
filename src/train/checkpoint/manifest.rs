//! A finished checkpoint directory: its `manifest.json` and the files that this vouches for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The name of the manifest, which no other file of a checkpoint may bear.
pub(super) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "ferromind-checkpoint";
const VERSION: u32 = 1;

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub name: String,
    pub bytes: u64,
    /// In hexadecimal.
    pub blake3: String,
}

/// What `manifest.json` holds; its last field is the hash over all the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    version: u32,
    step: u64,
    files: Vec<Entry>,
    #[serde(default)]
    manifest_blake3: String,
}

/// The part that every version shares, read first to tell a foreign or newer file from a damaged one.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

impl Manifest {
    pub fn new(step: u64, files: Vec<Entry>) -> Self {
        Self { format: FORMAT.into(), version: VERSION, step, files, manifest_blake3: String::new() }
    }

    /// The bytes of the file: the same for the same content, so that reading can compare them.
    pub fn render(&mut self) -> Result<Vec<u8>> {
        let json = |manifest: &Self| {
            serde_json::to_vec_pretty(manifest).map_err(|error| Error::Internal(format!("manifest of a checkpoint: {error}")))
        };
        self.manifest_blake3.clear();
        self.manifest_blake3 = blake3::hash(&json(self)?).to_hex().to_string();
        let mut bytes = json(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
        let no_manifest = |error| Error::format(path, format!("is not the manifest of a checkpoint: {error}"));
        let Header { format, version } = serde_json::from_slice(&bytes).map_err(no_manifest)?;
        if format != FORMAT {
            return Err(Error::format(path, format!("has the format `{format}`, expected `{FORMAT}`")));
        }
        if version != VERSION {
            return Err(Error::format(path, format!("has format version {version}, this program reads {VERSION}")));
        }
        let mut manifest: Self = serde_json::from_slice(&bytes).map_err(no_manifest)?;
        if manifest.render()? != bytes {
            return Err(Error::format(path, "was altered: its content does not fit its own hash"));
        }
        Ok(manifest)
    }
}

/// Whether `name` may be a file of a checkpoint: directly in its directory, visible, and not the manifest.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']) && name != MANIFEST
}

/// The step of a directory named `step-N`, N without leading zeros.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (name == format!("step-{step}")).then_some(step)
}

/// A checkpoint on the disk, each file of which was found whole when it was opened.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Opens the checkpoint directory `dir` and reads all its files once to compare their hashes.
    ///
    /// Errors name the file: missing, truncated, altered, of a foreign format or a newer version, or of another step than the
    /// directory's name says. Files that the manifest does not name are no part of the checkpoint.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        let path = dir.join(MANIFEST);
        let manifest = Manifest::read(&path)?;
        let named = dir.file_name().and_then(|name| step_of(name.to_str()?));
        if let Some(step) = named.filter(|&step| step != manifest.step) {
            return Err(Error::format(path, format!("is of step {}, not {step} as its directory says", manifest.step)));
        }
        let checkpoint = Self { dir, manifest };
        for (index, entry) in checkpoint.manifest.files.iter().enumerate() {
            if !is_file_name(&entry.name) || checkpoint.names().take(index).any(|name| name == entry.name) {
                return Err(Error::format(path, format!("names a file that cannot be in a checkpoint: {:?}", entry.name)));
            }
            checkpoint.verify(entry)?;
        }
        Ok(checkpoint)
    }

    /// The step that it was saved at.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The names of its files, in the order in which they were saved.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.files.iter().map(|entry| entry.name.as_str())
    }

    /// Where the file `name` lies, for a caller that maps or streams it; an error where there is none.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir.join(&self.entry(name)?.name))
    }

    /// The content of the file `name`, its size and hash compared once more.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let entry = self.entry(name)?;
        let path = self.dir.join(name);
        let bytes = fs::read(&path).map_err(|error| Error::io(&path, error))?;
        check(&path, entry, bytes.len() as u64, || Ok(blake3::hash(&bytes)))?;
        Ok(bytes)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.manifest.files.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            Error::format(&self.dir, format!("the checkpoint has no file `{name}`, only {}", names.join(", ")))
        })
    }

    fn verify(&self, entry: &Entry) -> Result<()> {
        let path = self.dir.join(&entry.name);
        let io = |error| Error::io(&path, error);
        let mut file = File::open(&path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        check(&path, entry, bytes, || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&mut file).map_err(io)?;
            Ok(hasher.finalize())
        })
    }
}

/// Compares a file with its entry; only one of the right size is hashed.
fn check(path: &Path, entry: &Entry, bytes: u64, hash: impl FnOnce() -> Result<blake3::Hash>) -> Result<()> {
    if bytes != entry.bytes {
        let what = if bytes < entry.bytes { "was truncated" } else { "has grown" };
        return Err(Error::format(path, format!("{what}: {bytes} bytes, {} when it was saved", entry.bytes)));
    }
    if hash()?.to_hex().as_str() != entry.blake3 {
        return Err(Error::format(path, "was altered: its content does not fit its hash in the manifest"));
    }
    Ok(())
}
