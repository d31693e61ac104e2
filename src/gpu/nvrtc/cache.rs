//! Compiled kernels on disk: `$FERROMIND_CACHE`, else `$XDG_CACHE_HOME/ferromind`, else `~/.cache/ferromind`, each with `kernels/`.
//!
//! A file is named by what went into it: the hash of source, headers, options, target and compiler. It is written beside and renamed,
//! so that processes never see half of one, and it carries a checksum, so that a damaged one is compiled anew. A cache that cannot
//! be written costs time and nothing else, and is therefore no error.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The variable that says where the cache is; set but empty, there is none.
pub const VARIABLE: &str = "FERROMIND_CACHE";
/// Begins every file; changes with the format.
const MAGIC: &[u8; 8] = b"FMKERN01";

/// A folder of compiled kernels.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub ptx: String,
    pub cubin: Vec<u8>,
    pub log: String,
}

impl Cache {
    /// A cache in this folder, which is made when something is stored.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The one that the environment names. `None` if it is switched off, or if there is no home to put it in.
    pub fn of_process() -> Option<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let folder = match variable(VARIABLE) {
            Some(own) if own.is_empty() => return None,
            Some(own) => PathBuf::from(own),
            None => {
                let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
                absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?.join("ferromind")
            }
        };
        Some(Self::at(folder.join("kernels")))
    }

    pub(super) fn load(&self, key: &blake3::Hash) -> Option<Entry> {
        decode(&std::fs::read(self.path(key)).ok()?)
    }

    pub(super) fn store(&self, key: &blake3::Hash, entry: &Entry) {
        // Failure only means that the kernel is compiled again next time.
        let _ = self.try_store(&self.path(key), entry);
    }

    fn try_store(&self, path: &Path, entry: &Entry) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&encode(entry))?;
        file.persist(path)?;
        Ok(())
    }

    fn path(&self, key: &blake3::Hash) -> PathBuf {
        self.folder.join(key.to_hex().as_str())
    }
}

/// Magic, checksum of the rest, then each part as its length in 8 bytes, little-endian, and its bytes.
fn encode(entry: &Entry) -> Vec<u8> {
    let mut body = Vec::new();
    for part in [entry.ptx.as_bytes(), &entry.cubin, entry.log.as_bytes()] {
        body.extend_from_slice(&(part.len() as u64).to_le_bytes());
        body.extend_from_slice(part);
    }
    [MAGIC, blake3::hash(&body).as_bytes().as_slice(), &body].concat()
}

fn decode(file: &[u8]) -> Option<Entry> {
    let (checksum, mut body) = file.strip_prefix(MAGIC)?.split_at_checked(blake3::OUT_LEN)?;
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let mut part = || {
        let (len, rest) = body.split_first_chunk::<8>()?;
        let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        body = rest;
        Some(part.to_vec())
    };
    let (ptx, cubin, log) = (part()?, part()?, part()?);
    Some(Entry { ptx: String::from_utf8(ptx).ok()?, cubin, log: String::from_utf8(log).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { ptx: ".version 9.0".into(), cubin: vec![1, 2, 3, 0, 255], log: String::new() }
    }

    #[test]
    fn what_is_stored_is_loaded_and_nothing_else_is_left() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().join("deep/kernels"));
        let key = blake3::hash(b"key");
        assert_eq!(cache.load(&key), None);
        cache.store(&key, &entry());
        assert_eq!(cache.load(&key), Some(entry()));
        assert_eq!(cache.load(&blake3::hash(b"other")), None);
        assert_eq!(std::fs::read_dir(&cache.folder).unwrap().count(), 1);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let file = encode(&entry());
        assert_eq!(decode(&file), Some(entry()));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x20;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&file[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::at(file.path().join("kernels"));
        cache.store(&blake3::hash(b"key"), &entry());
        assert_eq!(cache.load(&blake3::hash(b"key")), None);
    }

    #[test]
    fn the_environment_says_where() {
        let folder = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            Cache::from_variables(value).map(|cache| cache.folder)
        };
        assert_eq!(folder(&[("FERROMIND_CACHE", "/c"), ("HOME", "/h")]), Some("/c/kernels".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some("/x/ferromind/kernels".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]), Some("/h/.cache/ferromind/kernels".into()));
        assert_eq!(folder(&[("FERROMIND_CACHE", ""), ("HOME", "/h")]), None);
        assert_eq!(folder(&[]), None);
    }
}
