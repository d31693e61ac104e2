//! Which files a `--data-path` names.
//!
//! A path of something that exists is that file, whatever characters it has; a directory stands for the data files right in it
//! (`.jsonl`, `.ndjson` and `.txt`, each also with `.gz` or `.zst`; hidden ones are left out), sorted by name. What else holds
//! `*`, `?` or `[` is a pattern: `*` and `?` stay within a name, `**` stands for any directories; the files that match are sorted
//! by path. Order and repetition of the paths themselves are kept: a file that is named twice counts twice.

use crate::{Error, Result};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Extensions of data files in a directory, and those that may follow them.
const DATA: [&str; 3] = ["jsonl", "ndjson", "txt"];
const PACKED: [&str; 2] = ["gz", "zst"];

/// The files that `paths` name, by the module's rule.
///
/// # Errors
/// No path at all, a path that is not there, a pattern that is malformed or matches no file, a directory without data files.
pub fn expand(paths: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>> {
    if paths.is_empty() {
        return Err(Error::config("no data file is named"));
    }
    let mut files = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        if path.is_dir() {
            files.extend(in_directory(path)?);
        } else if let (false, Some(pattern)) = (path.exists(), path.to_str().filter(|p| p.contains(['*', '?', '[']))) {
            files.extend(matching(pattern)?);
        } else {
            path.metadata().map_err(|e| Error::io(path, e))?;
            files.push(path.to_path_buf());
        }
    }
    Ok(files)
}

/// The extension of `path` in small letters, behind that of the packing, if it has one.
pub(super) fn extension(path: &Path) -> Option<String> {
    let lower = |name: &Path| name.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match lower(path) {
        Some(packed) if PACKED.contains(&packed.as_str()) => path.file_stem().and_then(|stem| lower(Path::new(stem))),
        other => other,
    }
}

fn in_directory(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        let hidden = path.file_name().map(OsStr::as_encoded_bytes).is_some_and(|name| name.starts_with(b"."));
        if !hidden && extension(&path).is_some_and(|e| DATA.contains(&e.as_str())) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::format(dir, "the directory holds no .jsonl, .ndjson or .txt, nor one of them with .gz or .zst"));
    }
    files.sort_unstable();
    Ok(files)
}

fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let found = glob::glob(pattern).map_err(|e| Error::format(pattern, format!("this is no pattern of file names: {e}")))?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|e| Error::io(e.path(), std::io::Error::new(e.error().kind(), e.to_string())))?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::format(pattern, "no file matches this pattern"));
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names below a directory of `files` that `patterns` name, or the message.
    fn expanded(files: &[&str], patterns: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let paths: Vec<PathBuf> = patterns.iter().map(|pattern| dir.path().join(pattern)).collect();
        let name = |path: PathBuf| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().replace('\\', "/");
        expand(&paths).map(|found| found.into_iter().map(name).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn patterns_are_expanded_and_sorted() {
        let files = ["b.jsonl", "a.jsonl", "c.txt", "sub/d.jsonl", "sub/deep/e.jsonl"];
        assert_eq!(expanded(&files, &["*.jsonl"]).unwrap(), ["a.jsonl", "b.jsonl"]);
        assert_eq!(expanded(&files, &["?.txt", "[ab].jsonl"]).unwrap(), ["c.txt", "a.jsonl", "b.jsonl"]);
        assert_eq!(expanded(&files, &["**/*.jsonl"]).unwrap(), ["a.jsonl", "b.jsonl", "sub/d.jsonl", "sub/deep/e.jsonl"]);
        assert_eq!(expanded(&files, &["c.txt", "c.txt"]).unwrap(), ["c.txt", "c.txt"]);
        assert!(expanded(&files, &["*.zst"]).unwrap_err().contains("no file matches"));
        assert!(expanded(&files, &["a***.txt"]).unwrap_err().contains("no pattern of file names"));
        assert!(expanded(&files, &["none.txt"]).unwrap_err().contains("none.txt"));
    }

    #[test]
    fn a_name_with_special_characters_is_a_name() {
        assert_eq!(expanded(&["x[1].txt", "x1.txt"], &["x[1].txt"]).unwrap(), ["x[1].txt"]);
        assert_eq!(expanded(&["x1.txt"], &["x[1].txt"]).unwrap(), ["x1.txt"]);
    }

    #[test]
    fn a_directory_is_its_data_files() {
        let files = ["d/b.jsonl.gz", "d/a.TXT", "d/c.ndjson.zst", "d/README.md", "d/x.gz", "d/.h.txt", "d/info.json", "d/s/e.txt"];
        assert_eq!(expanded(&files, &["d"]).unwrap(), ["d/a.TXT", "d/b.jsonl.gz", "d/c.ndjson.zst"]);
        assert!(expanded(&["d/x.md"], &["d"]).unwrap_err().contains("no .jsonl"));
    }
}
