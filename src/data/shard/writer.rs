//! Writing a shard: tokens as they come, the ends of the documents and the header last.

use super::{
    Header,
    journal::{Journal, Point},
};
use crate::{
    Result,
    data::{Piece, Tokenizer},
};
use rayon::prelude::*;
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

/// The tokens of a piece as a shard holds them.
pub(super) struct Encoded {
    bytes: Vec<u8>,
    /// Whether a document ends with them.
    ends: bool,
}

/// The tokens of `pieces`, in order; the threads share the work.
pub(super) fn encode(pieces: &[Piece], tokenizer: &Tokenizer) -> Result<Vec<Encoded>> {
    let narrow = width(tokenizer) == 2;
    let encode = |piece: &Piece| -> Result<Encoded> {
        let ids = tokenizer.encode(&piece.text)?;
        let bos = tokenizer.bos_id().filter(|_| piece.begins);
        let eos = tokenizer.eos_id().filter(|_| piece.ends);
        let ids = bos.into_iter().chain(ids).chain(eos);
        let bytes = match narrow {
            true => ids.flat_map(|id| (id as u16).to_ne_bytes()).collect(),
            false => ids.flat_map(u32::to_ne_bytes).collect(),
        };
        Ok(Encoded { bytes, ends: piece.ends })
    };
    pieces.par_iter().map(encode).collect()
}

/// Bytes of a token.
fn width(tokenizer: &Tokenizer) -> u64 {
    if tokenizer.vocab_size() <= 1 << 16 { 2 } else { 4 }
}

/// A shard being written.
pub(super) struct Writer {
    file: File,
    journal: Journal,
    hasher: blake3::Hasher,
    header: Header,
    point: Point,
}

impl Writer {
    /// Goes on with what `file` and `journal` hold of the shard that has `key`; empty files begin a new one.
    pub fn new(mut file: File, journal: File, tokenizer: &Tokenizer, key: [u8; 32]) -> io::Result<Self> {
        let header = Header {
            width: width(tokenizer),
            vocab_size: tokenizer.vocab_size() as u64,
            tokens: 0,
            documents: 0,
            skipped_lines: 0,
            bos: tokenizer.bos_id(),
            eos: tokenizer.eos_id(),
            pad: tokenizer.pad_id(),
            key,
            content: [0; 32],
        };
        let mut journal = Journal::new(journal, key);
        let (point, hasher) = journal.resume(&mut file, header.width)?;
        Ok(Self { file, journal, hasher, header, point })
    }

    /// How far the shard has come.
    pub fn point(&self) -> &Point {
        &self.point
    }

    /// Appends the tokens of the pieces that follow, if there are any.
    pub fn write(&mut self, chunk: &[Encoded]) -> io::Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(chunk.iter().map(|piece| piece.bytes.len()).sum());
        let mut ends = Vec::new();
        for piece in chunk {
            bytes.extend(&piece.bytes);
            self.point.tokens += piece.bytes.len() as u64 / self.header.width;
            ends.extend(piece.ends.then_some(self.point.tokens));
        }
        self.point.pieces += chunk.len() as u64;
        self.point.documents += ends.len() as u64;
        self.hasher.update(&bytes);
        self.file.write_all(&bytes)?;
        self.journal.append(&self.point, &ends, self.hasher.finalize())
    }

    /// Appends the ends of the documents and writes the header; returns the file, all of it on disk.
    pub fn finish(mut self, skipped_lines: u64) -> io::Result<File> {
        let header = Header { tokens: self.point.tokens, documents: self.point.documents, skipped_lines, ..self.header };
        let padding = (header.tokens * header.width).wrapping_neg() % 8;
        let mut out = Hashing { inner: &self.file, hasher: self.hasher };
        out.write_all(&[0; 8][..padding as usize])?;
        self.journal.copy_ends(&mut out)?;
        let content = out.hasher.finalize().into();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&Header { content, ..header }.encode())?;
        self.file.sync_all()?;
        Ok(self.file)
    }
}

/// Hashes what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
