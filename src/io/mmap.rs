//! Read-only memory maps: the one place that makes them.

use crate::{Error, Result};
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use std::{
    fs::File,
    ops::{Deref, Range},
    path::Path,
};

/// A whole file as `&[u8]`, paged in by the system as it is read and dropped by it when memory is short.
///
/// The file must keep its content while the map lives. Files of the project are written beside and renamed into place, never
/// changed where they lie, so that a map goes on showing what it was opened on. A file that another program cuts short under a
/// map stops the process with a bus error on the next read of the lost part: no program that maps files can prevent that.
#[derive(Debug)]
pub struct Mmap(memmap2::Mmap);

impl Mmap {
    /// Maps the file at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        Self::of(&file, path)
    }

    /// Maps an open file; `path` is for messages.
    pub fn of(file: &File, path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the map is private and read-only, so we never write through it. What remains is that the bytes behind a shared
        // `&[u8]` could change if someone else writes to the file; the type's contract above excludes it for our own files, and
        // every reader treats the bytes as untrusted: lengths and ids are checked, so that changed bytes are wrong data at worst.
        let map = unsafe { memmap2::Mmap::map(file) };
        map.map(Self).map_err(|e| Error::io(path, e))
    }

    /// Tells the system that these bytes were read and are not wanted soon: they stop counting as memory of the process. To read
    /// them again takes them from the file again.
    pub fn release(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if !bytes.is_empty() && bytes.end <= self.len() {
            // SAFETY: of a file's read-only map, this advice drops pages that come back with the file's content on the next read:
            // what the type's contract asks for keeps them the same.
            let advised = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
            let _ = advised; // it saves memory; without it all is as right
        }
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_bytes_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(&*Mmap::open(&path).unwrap(), b"abc");
        std::fs::write(&path, b"").unwrap();
        assert!(Mmap::open(&path).unwrap().is_empty());
        assert!(Mmap::open(dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn what_was_released_reads_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = Mmap::open(&path).unwrap();
        assert_eq!(*map, bytes);
        for range in [5000..30_000, 0..bytes.len(), 7..7, 39_999..40_001] {
            map.release(range);
            assert_eq!(*map, bytes);
        }
    }
}
