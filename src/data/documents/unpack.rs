//! Reading files that may be packed: gzip with any number of members, zstd with any number of frames.
//!
//! What a file is packed with, its first bytes say: no text begins with those of gzip or zstd. A file that is named `.gz` or
//! `.zst` but begins otherwise is an error, as is one that ends before its packed data do: nothing is passed over in silence.

use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const BUFFER: usize = 1 << 18;
const BOM: &[u8] = b"\xEF\xBB\xBF";
const GZIP: &[u8] = b"\x1F\x8B";
const ZSTD: &[u8] = b"\x28\xB5\x2F\xFD";

/// The text of a file, unpacked.
pub(super) type Text = BufReader<Box<dyn Read + Send>>;

/// Opens a file behind its byte order mark. `read` goes up by every byte that is read of the file itself.
pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> Result<Text> {
    let failed = |e| failure(path, e);
    let file = Counted { inner: File::open(path).map_err(failed)?, read: read.clone() };
    let mut file = BufReader::with_capacity(BUFFER, file);
    let head = file.fill_buf().map_err(failed)?;
    let named = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let unpacked: Box<dyn Read + Send> = if head.starts_with(GZIP) {
        Box::new(Unpacked { inner: MultiGzDecoder::new(file), format: "gzip" })
    } else if head.starts_with(ZSTD) || named == "zst" && is_skippable(head) {
        Box::new(Unpacked { inner: Zstd { source: file, frame: FrameDecoder::new(), within: false }, format: "zstd" })
    } else if named == "gz" || named == "zst" {
        return Err(Error::format(path, format!("named .{named}, but the file does not begin as such files do")));
    } else {
        Box::new(file)
    };
    let mut text = BufReader::with_capacity(BUFFER, unpacked);
    if text.fill_buf().map_err(failed)?.starts_with(BOM) {
        text.consume(BOM.len());
    }
    Ok(text)
}

/// The error of a read: damaged data are the file's fault, the rest the system's.
pub(super) fn failure(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        ErrorKind::InvalidData => Error::format(path, e.to_string()),
        _ => Error::io(path, e),
    }
}

/// Whether a zstd frame for other programs begins here: `0x184D2A5?`, lowest byte first.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..])
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// A decoder whose errors say what is wrong with the file.
struct Unpacked<R> {
    inner: R,
    format: &'static str,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|e| {
            let format = self.format;
            let message = match ends_early(&e) {
                true => format!("the file is truncated: it ends within its {format} data"),
                false => format!("damaged {format} data: {e}"),
            };
            io::Error::new(ErrorKind::InvalidData, message)
        })
    }
}

/// Whether `e`, or one of the errors that it came from, is that a file ended.
fn ends_early(e: &io::Error) -> bool {
    let mut cause = e.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    let mut ended = e.kind() == ErrorKind::UnexpectedEof;
    while let (false, Some(inner)) = (ended, cause) {
        ended = inner.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::UnexpectedEof);
        cause = inner.source();
    }
    ended
}

/// The frames of a zstd file, one after the other.
struct Zstd<R> {
    source: R,
    frame: FrameDecoder,
    /// Whether a frame has begun that has not been read to its end.
    within: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame with text; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                self.within = self.next_frame()?;
                if !self.within {
                    return Ok(0);
                }
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1)).map_err(io::Error::other)?;
            }
            let bytes = self.frame.read(buffer)?;
            if bytes > 0 || buffer.is_empty() {
                return Ok(bytes);
            }
            let promised = self.frame.get_checksum_from_data();
            if promised.is_some() && promised != self.frame.get_calculated_checksum() {
                return Err(io::Error::other("the content differs from its checksum"));
            }
            self.within = false;
        }
    }
}

#[cfg(test)]
mod tests;
