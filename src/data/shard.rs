//! A corpus tokenized once, in one memory-mapped file.
//!
//! The file, in the machine's byte order: a header of 160 bytes; the tokens, 16 bits each where the vocabulary has at most
//! 65,536 entries, else 32, padded to a multiple of 8 bytes; then for each document, as 64 bits, the position at which it ends.
//! A document is `bos text eos`, as far as the tokenizer names these two.
//!
//! **Cache.** The file's name is the BLAKE3 hash of all that its content follows from: the input files' contents, formats and
//! order, the tokenizer's fingerprint, whether bad lines are skipped, and the format's version. It is written under another name,
//! synced and renamed: an interrupted build leaves no half shard. What it does leave, the next build of the same shard goes on
//! with, to the same bytes; what nobody went on with for a week, the next build of any shard removes.
//!
//! **Trust.** A cached shard is used if its header is whole (it ends in a checksum of itself) and has the right magic, version and
//! key, if the file is as long as the header says, and if the BLAKE3 hash over tokens and offsets is the header's: at several GB/s
//! less work than hashing the input files for the key. Anything else is built anew.

mod build;
mod journal;
mod writer;

pub use build::{ShardOptions, default_cache_dir};

use crate::{Error, Result, io::Mmap};
use std::{
    fs::File,
    io::{Seek, SeekFrom},
    ops::Range,
    path::Path,
};

/// "ferromnd" read in the byte order of the machine that wrote it: a shard of the other order is not taken for one.
const MAGIC: u64 = u64::from_le_bytes(*b"ferromnd");
/// Raised by every change of the format, of `Piece`s or of what a document's tokens are.
const VERSION: u64 = 1;
/// Stands for an id that the tokenizer does not have.
const NONE: u64 = u64::MAX;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    /// Bytes of a token: 2 or 4.
    width: u64,
    tokens: u64,
    documents: u64,
    skipped_lines: u64,
    vocab_size: u64,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    key: [u8; 32],
    /// BLAKE3 of what follows the header.
    content: [u8; 32],
}

impl Header {
    const BYTES: usize = 160;
    /// Where the first 16 bytes of the BLAKE3 of the header's other bytes stand.
    const CHECK: usize = 144;

    fn encode(&self) -> [u8; Self::BYTES] {
        let id = |id: Option<u32>| id.map_or(NONE, u64::from);
        let numbers = [MAGIC, VERSION, self.width, self.tokens, self.documents, self.skipped_lines, self.vocab_size];
        let ids = [id(self.bos), id(self.eos), id(self.pad)];
        let fields = [bytemuck::bytes_of(&numbers), bytemuck::bytes_of(&ids), &self.key, &self.content].concat();
        let mut bytes = [0; Self::BYTES];
        bytes[..Self::CHECK].copy_from_slice(&fields);
        bytes[Self::CHECK..].copy_from_slice(&blake3::hash(&fields).as_bytes()[..Self::BYTES - Self::CHECK]);
        bytes
    }

    /// The header in `bytes`, or nothing if they are no header of this version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, _) = bytes.get(..Self::BYTES)?.split_at(Self::CHECK);
        let (numbers, hashes) = fields.split_at(80);
        let [magic, version, width, tokens, documents, skipped_lines, vocab_size, bos, eos, pad]: [u64; 10] =
            bytemuck::try_pod_read_unaligned(numbers).ok()?;
        let id = |id| u32::try_from(id).ok();
        let (key, content) = (hashes[..32].try_into().ok()?, hashes[32..].try_into().ok()?);
        let (bos, eos, pad) = (id(bos), id(eos), id(pad));
        let header = Self { width, tokens, documents, skipped_lines, vocab_size, bos, eos, pad, key, content };
        let valid = magic == MAGIC && version == VERSION && matches!(width, 2 | 4) && header.encode() == bytes[..Self::BYTES];
        valid.then_some(header)
    }

    /// Bytes of the tokens with their padding, or nothing if the numbers cannot be those of a file.
    fn token_bytes(&self) -> Option<u64> {
        self.tokens.checked_mul(self.width)?.checked_next_multiple_of(8)
    }

    fn file_bytes(&self) -> Option<u64> {
        self.token_bytes()?.checked_add(self.documents.checked_mul(8)?)?.checked_add(Self::BYTES as u64)
    }
}

/// A tokenized corpus: one stream of token ids, and where its documents end.
#[derive(Debug)]
pub struct Shard {
    map: Mmap,
    header: Header,
}

impl Shard {
    /// Opens the shard at `path`. See the module for what is checked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::of(&File::open(path).map_err(|e| Error::io(path, e))?, path)
    }

    fn of(mut file: &File, path: &Path) -> Result<Self> {
        let map = Mmap::of(file, path)?;
        let damaged = |what: &str| Error::format(path, format!("not a whole shard of this version: {what}"));
        let header = Header::decode(&map).ok_or_else(|| damaged("foreign or altered header"))?;
        if header.file_bytes() != Some(map.len() as u64) {
            return Err(damaged("other length than its header says"));
        }
        // Read, not mapped: pages that were only hashed need not count as this process's memory.
        let mut content = blake3::Hasher::new();
        file.seek(SeekFrom::Start(Header::BYTES as u64))
            .and_then(|_| content.update_reader(file).map(drop))
            .map_err(|e| Error::io(path, e))?;
        if content.finalize().as_bytes() != &header.content {
            return Err(damaged("altered content"));
        }
        Ok(Self { map, header })
    }

    /// How many tokens the stream has.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// How many documents the stream has.
    pub fn documents(&self) -> u64 {
        self.header.documents
    }

    /// Entries of the vocabulary of the tokenizer that made the shard.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// The token at the beginning of each document.
    pub fn bos_id(&self) -> Option<u32> {
        self.header.bos
    }

    /// The token at the end of each document.
    pub fn eos_id(&self) -> Option<u32> {
        self.header.eos
    }

    /// The token that fills short samples.
    pub fn pad_id(&self) -> Option<u32> {
        self.header.pad
    }

    /// Bad lines that were passed over when the shard was built.
    pub fn skipped_lines(&self) -> u64 {
        self.header.skipped_lines
    }

    /// The hash of the tokens and of where the documents end: equal where the corpus is.
    pub fn content(&self) -> blake3::Hash {
        self.header.content.into()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The ids at `positions` of the stream, as far as they lie in it.
    pub fn read(&self, positions: Range<u64>) -> impl Iterator<Item = u32> + '_ {
        let width = self.header.width as usize;
        let end = positions.end.min(self.tokens()) as usize;
        let start = (positions.start as usize).min(end);
        let bytes = &self.map[Header::BYTES + start * width..Header::BYTES + end * width];
        bytes.chunks_exact(width).map(|token| match *token {
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
            _ => u16::from_ne_bytes([token[0], token[1]]).into(),
        })
    }

    /// The positions of document `index` in the stream; empty at its end where there is no such document.
    pub fn document(&self, index: u64) -> Range<u64> {
        let ends = self.ends();
        let end_of = |index: u64| ends.get(index as usize).copied().unwrap_or(self.tokens());
        let start = if index == 0 { 0 } else { end_of(index - 1) };
        start..end_of(index)
    }

    /// The index of the document that holds `position`; [`Shard::documents`] behind the last token.
    pub fn document_at(&self, position: u64) -> u64 {
        self.ends().partition_point(|&end| end <= position) as u64
    }

    /// The end of each document, ascending.
    fn ends(&self) -> &[u64] {
        let start = Header::BYTES + self.header.token_bytes().unwrap_or(0) as usize;
        // The map begins on a page and every part before is a multiple of 8 bytes: the cast cannot fail.
        bytemuck::try_cast_slice(&self.map[start..]).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests;
