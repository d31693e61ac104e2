//! A build that was stopped goes on to the same bytes, whatever of it reached the disk.

use super::*;

const CHUNK: usize = 150;

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// A corpus, its finished shard, and the cache directory as it was after each chunk.
struct Stopped {
    dir: tempfile::TempDir,
    path: PathBuf,
    options: ShardOptions,
    tokenizer: Tokenizer,
    whole: Vec<u8>,
    /// As many as there were calls of `progress`, the first before the first chunk.
    snapshots: Vec<PathBuf>,
}

impl Stopped {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = corpus(dir.path());
        let cache = dir.path().join("cache");
        let tokenizer = Tokenizer::load("tests/data/minimind-tokenizer").unwrap();
        let options = ShardOptions { chunk_bytes: CHUNK, ..options(&cache) };
        let mut snapshots = Vec::new();
        let mut snapshot = |_| {
            let to = dir.path().join(format!("snapshot-{}", snapshots.len()));
            copy_dir(&cache, &to);
            snapshots.push(to);
        };
        Shard::from_files(&[&path], &tokenizer, &options, &mut snapshot).unwrap();
        let whole = fs::read(&files(&cache)[0]).unwrap();
        Self { path, options, tokenizer, whole, snapshots, dir }
    }

    /// Builds on in `cache`; how far the input was when it began, and in how many steps it ended. The bytes must be the whole's.
    fn go_on(&self, cache: &Path) -> (u64, usize) {
        let options = ShardOptions { cache_dir: cache.into(), ..self.options.clone() };
        let (shard, calls) = build(&self.path, &self.tokenizer, &options);
        assert_eq!(shard.documents(), 21);
        let left = files(cache);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(fs::read(&left[0]).unwrap() == self.whole);
        (calls[0], calls.len())
    }

    /// The unfinished shard and the journal of a snapshot.
    fn unfinished(snapshot: &Path) -> (PathBuf, PathBuf) {
        let mut files = files(snapshot);
        files.sort();
        let [shard, journal] = files.try_into().unwrap();
        assert!(journal.extension().is_some_and(|e| e == "journal"));
        (shard, journal)
    }

    fn copy(&self, snapshot: &Path, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy_dir(snapshot, &to);
        to
    }
}

#[test]
fn goes_on_after_each_chunk() {
    let stopped = Stopped::new();
    let calls = stopped.snapshots.len();
    assert!(calls > 5, "{calls}");
    let mut begun = Vec::new();
    for (n, snapshot) in stopped.snapshots.iter().enumerate() {
        let (first, steps) = stopped.go_on(snapshot);
        begun.push(first);
        // When the n-th chunk is tokenized, the one before it is written.
        let done = n.saturating_sub(1).min(calls - 2);
        assert!(steps <= calls - done, "{n}: {steps} steps");
    }
    assert!(begun[0] == 0 && begun.is_sorted() && begun[calls - 1] == fs::metadata(&stopped.path).unwrap().len());
}

/// What a power cut may leave: any part of either file, or wrong bytes in it.
#[test]
fn never_trusts_what_does_not_fit() {
    let stopped = Stopped::new();
    let snapshot = &stopped.snapshots[stopped.snapshots.len() - 2];
    let (shard, journal) = Stopped::unfinished(snapshot);
    let philox = crate::rng::Philox::new(7);
    for (case, path) in [&shard, &journal].into_iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        for i in 0..24 {
            let cache = stopped.copy(snapshot, &format!("damaged-{case}-{i}"));
            let at = philox.below(100 * case as u64 + i, bytes.len() as u64) as usize;
            let mut damaged = bytes.clone();
            match i % 3 {
                0 => damaged.truncate(at),
                1 => damaged[at] ^= 1 << (i % 8),
                _ => damaged[at..].fill(0),
            }
            fs::write(cache.join(path.file_name().unwrap()), damaged).unwrap();
            stopped.go_on(&cache);
        }
        let cache = stopped.copy(snapshot, &format!("missing-{case}"));
        fs::remove_file(cache.join(path.file_name().unwrap())).unwrap();
        assert_eq!(stopped.go_on(&cache).0, 0);
    }
}

#[test]
fn goes_on_from_the_very_end() {
    let stopped = Stopped::new();
    let cache = stopped.snapshots.last().unwrap();
    let (shard, _) = Stopped::unfinished(cache);
    // All is written and only the renaming is missing.
    fs::write(shard, &stopped.whole).unwrap();
    assert_eq!(stopped.go_on(cache).1, 2);
}

#[test]
fn the_journal_of_another_shard_does_not_count() {
    let (stopped, other) = (Stopped::new(), Stopped::new());
    let bytes = fs::read_to_string(&other.path).unwrap().replacen("document 0", "document O", 1);
    fs::write(&other.path, bytes).unwrap();
    let (ours, _) = Stopped::unfinished(&stopped.snapshots[4]);
    let options = ShardOptions { cache_dir: other.dir.path().join("own"), ..other.options.clone() };
    build(&other.path, &other.tokenizer, &options);
    let key = files(&options.cache_dir)[0].file_stem().unwrap().to_str().unwrap().to_owned();
    let cache = stopped.copy(&stopped.snapshots[4], "renamed");
    for file in files(&cache) {
        let name = file.file_name().unwrap().to_str().unwrap().replace(&ours.file_name().unwrap().to_str().unwrap()[10..], &key);
        fs::rename(&file, cache.join(name)).unwrap();
    }
    let (_, calls) = build(&other.path, &other.tokenizer, &ShardOptions { cache_dir: cache.clone(), ..options.clone() });
    assert_eq!(calls[0], 0);
    assert!(fs::read(&files(&cache)[0]).unwrap() == fs::read(&files(&options.cache_dir)[0]).unwrap());
}

#[test]
fn two_builds_at_once_make_one_shard() {
    let stopped = Stopped::new();
    let cache = stopped.copy(&stopped.snapshots[2], "shared");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let options = ShardOptions { cache_dir: cache.clone(), ..stopped.options.clone() };
                let (shard, calls) = build(&stopped.path, &stopped.tokenizer, &options);
                assert_eq!(shard.documents(), 21);
                calls.len()
            });
        }
    });
    assert!(fs::read(&files(&cache)[0]).unwrap() == stopped.whole && files(&cache).len() == 1);
}
