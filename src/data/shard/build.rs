//! Building a shard: read, tokenize in parallel, write, in memory that does not grow with the corpus.
//!
//! Text is tokenized in chunks: while the threads share a chunk's pieces, one of them writes the tokens of the chunk before, in the
//! order of the text, and reads the chunk after. So the bytes depend neither on the number of threads nor on the size of the
//! chunks, nor on where a build was stopped and went on (see [`super::journal`]): then the input is read from its beginning, at
//! the speed of reading, and the pieces that are done are passed over.

use super::{
    Shard, VERSION,
    writer::{Encoded, Writer, encode},
};
use crate::{
    Error, Result,
    data::{Documents, Format, Piece, Tokenizer},
};
use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

/// How much text each thread gets of a chunk, and the least that a chunk has.
const CHUNK_BYTES_A_THREAD: usize = 512 << 10;
const CHUNK_BYTES: usize = 2 << 20;
/// Files smaller than this are tokenized together.
const SHARD_BYTES: u64 = 256 << 20;
/// How the names of files begin that are still being written.
const UNFINISHED: &str = ".building-";
/// A build that has not written for a week is not waited for.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

/// How to build shards from files.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// Where shards are kept.
    pub cache_dir: PathBuf,
    /// Whether bad lines are counted and passed over instead of stopping.
    pub skip_bad_lines: bool,
    /// About how many bytes of text are tokenized at once. Bounds memory; the shard does not depend on it.
    pub chunk_bytes: usize,
    /// Files that follow one another are tokenized into one shard until they come to this many bytes: thousands of small files
    /// are no thousands of shards, and a file added at the end leaves the shards before it as they are.
    pub shard_bytes: u64,
}

impl Default for ShardOptions {
    /// [`default_cache_dir`], bad lines stop, chunks of 512 KiB a thread and at least 2 MiB, shards of at least 256 MiB of files.
    fn default() -> Self {
        let chunk_bytes = CHUNK_BYTES.max(CHUNK_BYTES_A_THREAD * rayon::current_num_threads());
        Self { cache_dir: default_cache_dir(), skip_bad_lines: false, chunk_bytes, shard_bytes: SHARD_BYTES }
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
    /// The shard of the documents in `files`: the cached one, or one that is built now, from where a build that was stopped had come.
    /// `progress` hears how many bytes of the files are tokenized, also how many were before; it is not called where the shard is
    /// cached.
    ///
    /// # Errors
    /// Those of [`Documents`], of the tokenizer, and of writing to the cache directory. After one of the input nothing is left
    /// in that directory; after one of the system (a full disk) what is built so far.
    pub fn from_files(
        files: &[impl AsRef<Path>],
        tokenizer: &Tokenizer,
        options: &ShardOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut documents = Documents::open(files, options.skip_bad_lines)?;
        let key = key(files, tokenizer, options.skip_bad_lines)?;
        let dir = &options.cache_dir;
        let path = dir.join(format!("{}.tokens", key.to_hex()));
        if let Some(shard) = cached(&path, key) {
            return Ok(shard);
        }
        fs::create_dir_all(dir).map_err(|e| unusable(dir, e))?;
        sweep(dir);
        let unfinished = dir.join(format!("{UNFINISHED}{}", key.to_hex()));
        let journal = unfinished.with_extension("journal");
        // Held until the shard is in its place, so that two processes do not build the same one.
        let lock = lock(&journal).map_err(|e| unusable(dir, e))?;
        if let Some(shard) = cached(&path, key) {
            let _ = fs::remove_file(&journal);
            return Ok(shard);
        }
        let begin = || Writer::new(open(&unfinished)?, lock.try_clone()?, tokenizer, *key.as_bytes());
        let writer = begin().map_err(|e| unusable(dir, e))?;
        let place = || {
            fs::rename(&unfinished, &path)?;
            fs::remove_file(&journal)
        };
        match build(writer, &mut documents, tokenizer, options, progress) {
            Ok(_) => place().map_err(|e| unusable(dir, e))?,
            Err(e) => {
                if !matches!(e, Error::Io { .. }) {
                    let _ = fs::remove_file(&unfinished);
                    let _ = fs::remove_file(&journal);
                }
                return Err(e);
            }
        }
        Self::open(&path)
    }

    /// The shard of documents in memory, in a nameless file of the system's temporary directory. Empty documents are passed over.
    ///
    /// # Errors
    /// No document that is not empty; those of the tokenizer and of writing.
    pub fn from_documents<D: AsRef<str>>(documents: impl IntoIterator<Item = D>, tokenizer: &Tokenizer) -> Result<Self> {
        let dir = env::temp_dir();
        let begin = || Writer::new(tempfile::tempfile()?, tempfile::tempfile()?, tokenizer, [0; 32]);
        let mut writer = begin().map_err(|e| Error::io(&dir, e))?;
        let mut pieces = documents.into_iter().flat_map(|d| Piece::of(d.as_ref()).map(Ok).collect::<Vec<_>>());
        loop {
            let chunk = gather(&mut pieces, CHUNK_BYTES)?;
            if chunk.is_empty() {
                break;
            }
            writer.write(&encode(&chunk, tokenizer)?).map_err(|e| Error::io(&dir, e))?;
        }
        if writer.point().documents == 0 {
            return Err(Error::config("there is no document to make a data set of"));
        }
        let file = writer.finish(0).map_err(|e| Error::io(&dir, e))?;
        Self::of(&file, &dir)
    }
}

/// Tokenizes what of `documents` is not in the shard yet, and finishes it.
fn build(
    mut writer: Writer,
    documents: &mut Documents,
    tokenizer: &Tokenizer,
    options: &ShardOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<File> {
    let unusable = |e| unusable(&options.cache_dir, e);
    for piece in 0..writer.point().pieces {
        let piece = documents.next().transpose()?.ok_or(piece);
        piece.map_err(|n| Error::Internal(format!("the data files changed while they were read: {n} pieces are left of more")))?;
    }
    progress(documents.bytes_done());
    let mut written: Vec<Encoded> = Vec::new();
    let mut chunk = gather(documents, options.chunk_bytes)?;
    while !chunk.is_empty() {
        let done = documents.bytes_done();
        let write_and_read = || -> Result<Vec<Piece>> {
            writer.write(&written).map_err(unusable)?;
            gather(documents, options.chunk_bytes)
        };
        let (next, encoded) = rayon::join(write_and_read, || encode(&chunk, tokenizer));
        (chunk, written) = (next?, encoded?);
        progress(done);
    }
    writer.write(&written).map_err(unusable)?;
    progress(documents.bytes_done());
    writer.finish(documents.skipped_lines()).map_err(unusable)
}

/// The shard at `path`, if it is whole and has this key.
fn cached(path: &Path, key: blake3::Hash) -> Option<Shard> {
    Shard::open(path).ok().filter(|shard| shard.header.key == *key.as_bytes())
}

fn unusable(dir: &Path, e: io::Error) -> Error {
    let advice = format!("{e}; the cache of tokenized data lies here, FERROMIND_CACHE names another directory");
    Error::io(dir, io::Error::new(e.kind(), advice))
}

/// Opens a file to go on with, or makes it.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Opens `path`, making it if need be, and waits until no other process holds it. Where the file system knows no locks, that two
/// processes may build the same shard at once is borne: they write the same bytes, and what is read is checked.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = open(path)?;
        match file.lock() {
            Err(e) if e.kind() != ErrorKind::Unsupported => return Err(e),
            // Who held it may have finished and removed it.
            _ if path.exists() => return Ok(file),
            _ => {}
        }
    }
}

/// Removes what builds that nobody went on with have left in `dir`. Another process may do the same: that a file is gone already,
/// or cannot be removed, is not worth stopping for.
fn sweep(dir: &Path) {
    let abandoned = |entry: &fs::DirEntry| {
        let age = entry.metadata().ok().and_then(|m| m.modified().ok()?.elapsed().ok());
        entry.file_name().to_string_lossy().starts_with(UNFINISHED) && age.is_some_and(|age| age > ABANDONED)
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(abandoned) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The hash of all that a shard's content follows from. Of a packed file, its packed bytes count.
fn key(files: &[impl AsRef<Path>], tokenizer: &Tokenizer, skip_bad_lines: bool) -> Result<blake3::Hash> {
    let mut key = blake3::Hasher::new();
    key.update(&VERSION.to_le_bytes()).update(&[u8::from(skip_bad_lines)]).update(tokenizer.fingerprint().as_bytes());
    for path in files.iter().map(AsRef::as_ref) {
        let mut content = blake3::Hasher::new();
        File::open(path).and_then(|file| content.update_reader(file).map(drop)).map_err(|e| Error::io(path, e))?;
        key.update(&[Format::of(path)? as u8]).update(content.finalize().as_bytes());
    }
    Ok(key.finalize())
}

/// Takes about `bytes` of text from `pieces`; nothing at the end.
fn gather(pieces: &mut impl Iterator<Item = Result<Piece>>, bytes: usize) -> Result<Vec<Piece>> {
    let mut chunk = Vec::new();
    let mut gathered = 0;
    while gathered < bytes.max(1)
        && let Some(piece) = pieces.next().transpose()?
    {
        gathered += piece.text.len();
        chunk.push(piece);
    }
    Ok(chunk)
}
