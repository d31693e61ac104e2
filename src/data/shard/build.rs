//! Building a shard: read, tokenize in parallel, write, in memory that does not grow with the corpus.
//!
//! Text is tokenized in chunks; the threads share a chunk's pieces, and the chunk's ids are written in the order of the text. So
//! the bytes depend neither on the number of threads nor on the size of the chunks. Ends of documents are spilled to a second,
//! nameless file and appended at the end.

use super::{Header, Shard, VERSION};
use crate::{
    Error, Result,
    data::{Documents, Format, Piece, Tokenizer},
};
use rayon::prelude::*;
use std::{
    env,
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const CHUNK_BYTES: usize = 2 << 20;
/// How the names of files begin that are still being written.
const UNFINISHED: &str = ".building-";
/// A build that has not written for so long was stopped.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How to build a shard from files.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// Where shards are kept.
    pub cache_dir: PathBuf,
    /// Whether bad lines are counted and passed over instead of stopping.
    pub skip_bad_lines: bool,
    /// About how many bytes of text are tokenized at once. Bounds memory; the shard does not depend on it.
    pub chunk_bytes: usize,
}

impl Default for ShardOptions {
    /// [`default_cache_dir`], bad lines stop, chunks of 2 MiB.
    fn default() -> Self {
        Self { cache_dir: default_cache_dir(), skip_bad_lines: false, chunk_bytes: CHUNK_BYTES }
    }
}

/// Where shards are kept if nobody says otherwise: `$FERROMIND_CACHE`, else `$XDG_CACHE_HOME/ferromind`, else
/// `~/.cache/ferromind`, else a `ferromind` in the system's temporary directory.
pub fn default_cache_dir() -> PathBuf {
    cache_dir(|name| env::var_os(name).map(PathBuf::from), env::home_dir())
}

pub(super) fn cache_dir(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let named = |dir: Option<PathBuf>| dir.filter(|dir| !dir.as_os_str().is_empty());
    named(variable("FERROMIND_CACHE"))
        .or_else(|| Some(named(variable("XDG_CACHE_HOME"))?.join("ferromind")))
        .or_else(|| Some(named(home)?.join(".cache/ferromind")))
        .unwrap_or_else(|| env::temp_dir().join("ferromind"))
}

impl Shard {
    /// The shard of the documents in `paths`: the cached one, or a new one. `progress` hears how many bytes of text, of how many
    /// in all, are tokenized; it is not called where the shard is cached.
    ///
    /// # Errors
    /// Those of [`Documents`], of the tokenizer, and of writing to the cache directory.
    pub fn from_files(
        paths: &[impl AsRef<Path>],
        tokenizer: &Tokenizer,
        options: &ShardOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let mut documents = Documents::open(paths, options.skip_bad_lines)?;
        let key = key(paths, tokenizer, options.skip_bad_lines)?;
        let path = options.cache_dir.join(format!("{}.tokens", key.to_hex()));
        if let Ok(shard) = Self::open(&path)
            && shard.header.key == *key.as_bytes()
        {
            return Ok(shard);
        }

        let dir = &options.cache_dir;
        let unusable = |e: io::Error| {
            let advice = format!("{e}; the cache of tokenized data lies here, FERROMIND_CACHE names another directory");
            Error::io(dir, io::Error::new(e.kind(), advice))
        };
        fs::create_dir_all(dir).map_err(unusable)?;
        sweep(dir);
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir).map_err(unusable)?;
        let spill = tempfile::tempfile_in(dir).map_err(unusable)?;
        let mut writer = Writer::new(file.as_file(), spill, tokenizer).map_err(unusable)?;
        let total = documents.bytes_total();
        loop {
            let chunk = next_chunk(&mut documents, tokenizer, options.chunk_bytes)?;
            if chunk.is_empty() {
                break;
            }
            writer.write(&chunk).map_err(unusable)?;
            progress(documents.bytes_done(), total);
        }
        progress(total, total);
        writer.header.key = *key.as_bytes();
        writer.header.skipped_lines = documents.skipped_lines();
        writer.finish().map_err(unusable)?;
        file.as_file().sync_all().map_err(unusable)?;
        file.persist(&path).map_err(|e| unusable(e.error))?;
        Self::open(&path)
    }

    /// The shard of documents in memory, in a nameless file of the system's temporary directory. Empty documents are passed over.
    ///
    /// # Errors
    /// No document that is not empty; those of the tokenizer and of writing.
    pub fn from_documents<D: AsRef<str>>(documents: impl IntoIterator<Item = D>, tokenizer: &Tokenizer) -> Result<Self> {
        let dir = env::temp_dir();
        let failed = |e| Error::io(&dir, e);
        let file = tempfile::tempfile().map_err(failed)?;
        let mut writer = Writer::new(&file, tempfile::tempfile().map_err(failed)?, tokenizer).map_err(failed)?;
        let mut pieces = documents.into_iter().flat_map(|d| Piece::of(d.as_ref()).map(Ok).collect::<Vec<_>>());
        loop {
            let chunk = next_chunk(&mut pieces, tokenizer, CHUNK_BYTES)?;
            if chunk.is_empty() {
                break;
            }
            writer.write(&chunk).map_err(failed)?;
        }
        if writer.header.documents == 0 {
            return Err(Error::config("there is no document to make a data set of"));
        }
        writer.finish().map_err(failed)?;
        Self::of(&file, &dir)
    }
}

/// Removes what builds that were stopped have left in `dir`. Another process may do the same: that a file is gone already, or
/// cannot be removed, is not worth stopping for.
fn sweep(dir: &Path) {
    let abandoned = |entry: &fs::DirEntry| {
        let age = entry.metadata().ok().and_then(|m| m.modified().ok()?.elapsed().ok());
        entry.file_name().to_string_lossy().starts_with(UNFINISHED) && age.is_some_and(|age| age > ABANDONED)
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(abandoned) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The hash of all that a shard's content follows from.
fn key(paths: &[impl AsRef<Path>], tokenizer: &Tokenizer, skip_bad_lines: bool) -> Result<blake3::Hash> {
    let mut key = blake3::Hasher::new();
    key.update(&VERSION.to_le_bytes()).update(&[u8::from(skip_bad_lines)]).update(tokenizer.fingerprint().as_bytes());
    for path in paths.iter().map(AsRef::as_ref) {
        let mut content = blake3::Hasher::new();
        File::open(path).and_then(|file| content.update_reader(file).map(drop)).map_err(|e| Error::io(path, e))?;
        key.update(&[Format::of(path)? as u8]).update(content.finalize().as_bytes());
    }
    Ok(key.finalize())
}

/// Takes about `bytes` of text from `pieces`, with its ids; nothing at the end.
fn next_chunk(
    pieces: &mut impl Iterator<Item = Result<Piece>>,
    tokenizer: &Tokenizer,
    bytes: usize,
) -> Result<Vec<(Piece, Vec<u32>)>> {
    let mut chunk = Vec::new();
    let mut gathered = 0;
    while gathered < bytes.max(1)
        && let Some(piece) = pieces.next().transpose()?
    {
        gathered += piece.text.len();
        chunk.push(piece);
    }
    chunk.into_par_iter().map(|piece| tokenizer.encode(&piece.text).map(|ids| (piece, ids))).collect()
}

/// A shard being written.
struct Writer<'f> {
    file: &'f File,
    out: BufWriter<Hashing<&'f File>>,
    ends: BufWriter<File>,
    header: Header,
}

impl<'f> Writer<'f> {
    fn new(mut file: &'f File, spill: File, tokenizer: &Tokenizer) -> io::Result<Self> {
        let header = Header {
            width: if tokenizer.vocab_size() <= 1 << 16 { 2 } else { 4 },
            vocab_size: tokenizer.vocab_size() as u64,
            tokens: 0,
            documents: 0,
            skipped_lines: 0,
            bos: tokenizer.bos_id(),
            eos: tokenizer.eos_id(),
            pad: tokenizer.pad_id(),
            key: [0; 32],
            content: [0; 32],
        };
        file.write_all(&[0; Header::BYTES])?;
        let out = BufWriter::with_capacity(1 << 18, Hashing { inner: file, hasher: blake3::Hasher::new() });
        Ok(Self { file, out, ends: BufWriter::new(spill), header })
    }

    fn write(&mut self, chunk: &[(Piece, Vec<u32>)]) -> io::Result<()> {
        for (piece, ids) in chunk {
            let bos = self.header.bos.filter(|_| piece.begins);
            let eos = self.header.eos.filter(|_| piece.ends);
            bos.iter().chain(ids).chain(&eos).try_for_each(|&id| self.token(id))?;
            if piece.ends {
                self.header.documents += 1;
                self.ends.write_all(&self.header.tokens.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    fn token(&mut self, id: u32) -> io::Result<()> {
        self.header.tokens += 1;
        match self.header.width {
            2 => self.out.write_all(&(id as u16).to_ne_bytes()),
            _ => self.out.write_all(&id.to_ne_bytes()),
        }
    }

    /// Appends the ends of the documents and writes the header.
    fn finish(mut self) -> io::Result<()> {
        let padding = (self.header.tokens * self.header.width).wrapping_neg() % 8;
        self.out.write_all(&[0; 8][..padding as usize])?;
        let mut ends = self.ends.into_inner()?;
        ends.seek(SeekFrom::Start(0))?;
        io::copy(&mut ends.take(self.header.documents * 8), &mut self.out)?;
        self.out.flush()?;
        self.header.content = self.out.get_ref().hasher.finalize().into();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.header.encode())
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
