//! How far an unfinished shard has come, so that a build goes on after it was stopped at whatever moment.
//!
//! Beside the unfinished shard lies its journal: a record for each chunk of text, appended when the chunk's tokens are written. A
//! record holds, as 64 bits each, how many pieces of the input and how many tokens are done, and how many documents end in the
//! chunk; the BLAKE3 hash of all tokens so far; the position at which each of those documents ends; and the BLAKE3 hash of all
//! this under the shard's key, without which it does not count.
//!
//! Nothing is synced on the way. What a record promises is checked instead: going on reads what is there, and takes the last
//! record up to which the tokens have the hash that it says. So a killed process loses a chunk at most, and a power cut what the
//! system had not written, but neither can make a shard of other bytes.

use super::Header;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// A point from which a build can go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Point {
    /// Pieces of the input whose tokens are written.
    pub pieces: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Documents that end among them.
    pub documents: u64,
}

/// The records of one unfinished shard.
pub(super) struct Journal {
    file: File,
    key: [u8; 32],
}

struct Record {
    pieces: u64,
    tokens: u64,
    content: [u8; 32],
    ends: Vec<u64>,
}

impl Journal {
    /// The journal in `file`, of the shard that has `key`.
    pub fn new(file: File, key: [u8; 32]) -> Self {
        Self { file, key }
    }

    /// Adds that `point` is reached: `ends` are where the documents of the last chunk end, `content` hashes all tokens.
    pub fn append(&mut self, point: &Point, ends: &[u64], content: blake3::Hash) -> io::Result<()> {
        let numbers = [point.pieces, point.tokens, ends.len() as u64];
        let mut record = [bytemuck::bytes_of(&numbers), content.as_bytes(), bytemuck::cast_slice(ends)].concat();
        record.extend(blake3::keyed_hash(&self.key, &record).as_bytes());
        self.file.write_all(&record)
    }

    /// The last point that `shard`, tokens of `width` bytes behind room for a header, still bears out, and the hash of the tokens
    /// up to it. Both files are cut there, ready to be appended to.
    pub fn resume(&mut self, shard: &mut File, width: u64) -> io::Result<(Point, blake3::Hasher)> {
        let mut point = Point::default();
        let mut hasher = blake3::Hasher::new();
        let mut cut = 0;
        let mut tokens = BufReader::with_capacity(1 << 18, &*shard);
        tokens.seek(SeekFrom::Start(Header::BYTES as u64))?;
        self.file.seek(SeekFrom::Start(0))?;
        let mut records = Records { reader: BufReader::new(&self.file), key: self.key, read: 0 };
        while let Some(record) = records.next()? {
            let Some(bytes) = record.tokens.checked_sub(point.tokens).and_then(|tokens| tokens.checked_mul(width)) else { break };
            let mut so_far = hasher.clone();
            so_far.update_reader(tokens.by_ref().take(bytes))?;
            if so_far.finalize() != record.content {
                break;
            }
            hasher = so_far;
            let documents = point.documents + record.ends.len() as u64;
            point = Point { pieces: record.pieces, tokens: record.tokens, documents };
            cut = records.read;
        }
        self.file.set_len(cut)?;
        self.file.seek(SeekFrom::End(0))?;
        shard.set_len(Header::BYTES as u64 + point.tokens * width)?;
        shard.seek(SeekFrom::End(0))?;
        Ok((point, hasher))
    }

    /// Writes where all documents end to `out`.
    pub fn copy_ends(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut records = Records { reader: BufReader::new(&self.file), key: self.key, read: 0 };
        let mut out = BufWriter::with_capacity(1 << 18, out);
        while let Some(record) = records.next()? {
            out.write_all(bytemuck::cast_slice(&record.ends))?;
        }
        out.flush()
    }
}

/// The whole records of a journal, in order.
struct Records<R> {
    reader: R,
    key: [u8; 32],
    /// Bytes of the records so far.
    read: u64,
}

impl<R: Read> Records<R> {
    /// The next record, or nothing where there is no other that is whole.
    fn next(&mut self) -> io::Result<Option<Record>> {
        const FIXED: usize = 3 * 8 + 32;
        let mut bytes = Vec::new();
        if !self.fill(&mut bytes, FIXED as u64)? {
            return Ok(None);
        }
        let [pieces, tokens, count] = bytemuck::pod_read_unaligned::<[u64; 3]>(&bytes[..24]);
        let Some(rest) = count.checked_mul(8).and_then(|ends| ends.checked_add(32)) else { return Ok(None) };
        if !self.fill(&mut bytes, rest)? {
            return Ok(None);
        }
        let (record, check) = bytes.split_at(bytes.len() - 32);
        if blake3::keyed_hash(&self.key, record) != *<&[u8; 32]>::try_from(check).unwrap_or(&[0; 32]) {
            return Ok(None);
        }
        self.read += bytes.len() as u64;
        let content = record[24..FIXED].try_into().unwrap_or_default();
        let ends = record[FIXED..].chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
        Ok(Some(Record { pieces, tokens, content, ends }))
    }

    /// Appends the next `count` bytes to `bytes`; false where there are not so many.
    fn fill(&mut self, bytes: &mut Vec<u8>, count: u64) -> io::Result<bool> {
        Ok(self.reader.by_ref().take(count).read_to_end(bytes)? as u64 == count)
    }
}
