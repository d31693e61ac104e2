use super::*;
use crate::data::{Dataset, Loader, View};
use std::{fs, sync::Arc};

/// Files of one to four documents each.
fn write_files(dir: &Path, count: usize) -> Vec<PathBuf> {
    let file = |i: usize| {
        let path = dir.join(format!("{i:02}.jsonl"));
        let words = |j| (0..4 * i * j).map(|k| format!("{i}.{j}.{k} ")).collect::<String>();
        let line = |j| serde_json::json!({"text": format!("file {i}, document {j}: {}", words(j))}).to_string();
        fs::write(&path, (0..1 + i % 4).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        path
    };
    (0..count).map(file).collect()
}

fn options(cache: &Path, shard_bytes: u64) -> ShardOptions {
    ShardOptions { cache_dir: cache.into(), shard_bytes, ..ShardOptions::default() }
}

fn shards(paths: &[impl AsRef<Path>], options: &ShardOptions) -> (Shards, Vec<(u64, u64)>) {
    let mut calls = Vec::new();
    let tokenizer = Tokenizer::bytes().unwrap();
    let shards = Shards::from_files(paths, &tokenizer, options, &mut |done, total| calls.push((done, total))).unwrap();
    (shards, calls)
}

#[test]
fn one_stream_however_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), 9);
    let cache = dir.path().join("cache");
    let (whole, calls) = shards(&files, &options(&cache, u64::MAX));
    let total = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(calls.iter().all(|call| call.1 == total) && calls.is_sorted() && calls.last() == Some(&(total, total)));
    let stream: Vec<u32> = whole.read(0..u64::MAX).collect();
    assert_eq!(whole.count(), 1);
    for (least, count) in [(0, 9), (1, 9), (200, 5)] {
        let (cut, calls) = shards(&files, &options(&cache, least));
        assert!(calls.is_sorted());
        assert!(if least == 200 { cut.count() < 9 && cut.count() > 1 } else { cut.count() == count }, "{}", cut.count());
        assert_eq!((cut.tokens(), cut.documents()), (whole.tokens(), whole.documents()));
        assert!(cut.bytes() > 0 && cut.skipped_lines() == 0 && cut.bos_id() == Some(1) && cut.vocab_size() == 259);
        for index in 0..whole.documents() + 2 {
            assert_eq!(cut.document(index), whole.document(index), "{index}");
        }
        for start in 0..=whole.tokens() {
            assert_eq!(cut.document_at(start), whole.document_at(start), "{start}");
            let end = (start + start % 97).min(whole.tokens());
            assert!(cut.read(start..end).eq(stream[start as usize..end as usize].iter().copied()), "{start}");
        }
        assert_eq!(cut.read(whole.tokens()..u64::MAX).count(), 0);
    }
}

/// An epoch of the loader over many shards deals out the samples that one shard has, each once, in the same order.
#[test]
fn the_shuffle_is_over_the_whole_set() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), 12);
    let epoch = |shard_bytes| {
        let shards = Arc::new(shards(&files, &options(&dir.path().join("cache"), shard_bytes)).0);
        let stream: Vec<i32> = shards.read(0..shards.tokens()).map(|id| id as i32).collect();
        let loader = Loader::new(Dataset::new(shards, View::Packed, 16, 259).unwrap(), 4, 5).unwrap();
        let batches: Vec<_> = (0..loader.batches_per_epoch()).map(|i| loader.batch(i).unwrap()).collect();
        let dealt: Vec<i32> = batches.iter().flat_map(|batch| batch.input_ids.iter().copied()).collect();
        let mut expected = stream;
        expected.resize(dealt.len(), 0);
        let sorted = |rows: &[i32]| {
            let mut rows: Vec<Vec<i32>> = rows.chunks(16).map(<[_]>::to_vec).collect();
            rows.sort_unstable();
            rows
        };
        assert!(sorted(&dealt) == sorted(&expected));
        // Neighbours in the epoch come from all over the set, not from one shard after the other.
        let rows = loader.dataset().len();
        let order: Vec<u64> = (0..rows).map(|place| loader.order(0).at(place)).collect();
        let jumps = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > rows / 6).count() as u64;
        assert!(jumps > rows / 2, "{jumps} of {rows}");
        batches
    };
    assert!(epoch(u64::MAX) == epoch(0));
}

#[test]
fn a_file_more_leaves_the_others_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), 5);
    let cache = dir.path().join("cache");
    let options = options(&cache, 0);
    let bytes = |range: std::ops::Range<usize>| -> u64 { files[range].iter().map(|file| fs::metadata(file).unwrap().len()).sum() };
    shards(&files[..4], &options);
    let (set, calls) = shards(&files, &options);
    assert_eq!((set.count(), calls[0].0), (5, bytes(0..4)));
    assert!(shards(&files, &options).1.is_empty());
    let reversed: Vec<_> = files.iter().rev().collect();
    let (backwards, calls) = shards(&reversed, &options);
    assert!(calls.is_empty() && backwards.content() != set.content() && backwards.tokens() == set.tokens());
}

#[test]
fn shards_of_other_tokenizers_do_not_mix() {
    let bytes = Shard::from_documents(["a"], &Tokenizer::bytes().unwrap()).unwrap();
    let public = Shard::from_documents(["a"], &Tokenizer::load("tests/data/minimind-tokenizer").unwrap()).unwrap();
    assert!(Shards::of(vec![bytes, public]).unwrap_err().to_string().contains("the same tokenizer"));
    assert!(Shards::of(vec![]).is_err());
}

#[test]
fn what_is_missing_is_said_before_anything_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = write_files(dir.path(), 3);
    files.push(dir.path().join("missing.txt"));
    let cache = dir.path().join("cache");
    let tokenizer = Tokenizer::bytes().unwrap();
    let error = Shards::from_files(&files, &tokenizer, &options(&cache, 0), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("missing.txt") && !cache.exists(), "{error}");
}
