//! File operations that survive a crash when done in the right order: write, sync, rename, sync the directory.
//!
//! Each passes a failpoint (`faults.rs`), so that a test can stop the process between any two of them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::faults::{self, Unsynced};
use crate::{Error, Result};

/// Writes the content of one file, in as many pieces as it likes; called once for each file.
pub type Content<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

/// What [`write_file`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Size of the file.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub hash: blake3::Hash,
}

/// Pieces smaller than this are gathered; larger ones go to the file as they are, never copied.
const BUFFER: usize = 1 << 20;

/// Creates or overwrites `path` with `content`, synced to the disk; it is hashed as it passes.
pub fn write_file(path: &Path, content: Content<'_>) -> Result<Written> {
    let write = || -> io::Result<Written> {
        faults::point("durable::create", || ())?;
        let file = File::create(path)?;
        let unsynced = Unsynced::new(&file)?;
        let mut writer = BufWriter::with_capacity(BUFFER, HashingFile { file, hasher: blake3::Hasher::new() });
        content(&mut writer)?;
        let HashingFile { file, hasher } = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        faults::point("durable::sync", || ())?;
        file.sync_all()?;
        unsynced.synced();
        Ok(Written { bytes: hasher.count(), hash: hasher.finalize() })
    };
    write().map_err(|error| Error::io(path, error))
}

struct HashingFile {
    file: File,
    hasher: blake3::Hasher,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        faults::point("durable::write", || write_half(&mut self.file, bytes))?;
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write_half(file: &mut File, bytes: &[u8]) {
    let _ = file.write_all(&bytes[..bytes.len() / 2]);
}

/// Adds `bytes` at the end of `file`, whose name is `path`; not synced.
pub fn append(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    faults::point("durable::append", || write_half(file, bytes))
        .and_then(|()| file.write_all(bytes))
        .map_err(|error| Error::io(path, error))
}

/// Creates the directory `path` inside one that exists.
pub fn create_dir(path: &Path) -> Result<()> {
    faults::point("durable::create_dir", || ()).and_then(|()| fs::create_dir(path)).map_err(|error| Error::io(path, error))
}

/// Syncs the names in the directory `path`: which files it holds, not what is in them.
pub fn sync_dir(path: &Path) -> Result<()> {
    let sync = || if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) };
    faults::point("durable::sync_dir", || ()).and_then(|()| sync()).map_err(|error| Error::io(path, error))
}

/// Renames a file or directory; the error names the new path.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    faults::point("durable::rename", || ()).and_then(|()| fs::rename(from, to)).map_err(|error| Error::io(to, error))
}

/// Removes the directory `path` with all that is in it; stopped half-way, some of it is left.
pub fn remove_dir(path: &Path) -> Result<()> {
    let remove_one = || {
        if let Some(Ok(entry)) = fs::read_dir(path).ok().and_then(|mut entries| entries.next()) {
            let _ = fs::remove_file(entry.path());
        }
    };
    faults::point("durable::remove_dir", remove_one).and_then(|()| fs::remove_dir_all(path)).map_err(|error| Error::io(path, error))
}

/// Replaces the file `name` in `dir` at once: a reader, or whoever comes after a crash, sees the old content or the new, never a part.
///
/// The new content is written to `.NAME.partial` beside it, synced, and renamed. On an error the old file is whole and nothing else is left.
pub fn replace_root_file(dir: &Path, name: &str, content: Content<'_>) -> Result<Written> {
    let (partial, path) = (dir.join(format!(".{name}.partial")), dir.join(name));
    let replace = || -> Result<Written> {
        let written = write_file(&partial, content)?;
        rename(&partial, &path)?;
        sync_dir(dir)?;
        Ok(written)
    };
    replace().map_err(|error| {
        let _ = fs::remove_file(&partial); // gone already if the rename was done
        match error {
            Error::Io { cause, .. } => Error::io(&path, cause),
            other => other,
        }
    })
}
