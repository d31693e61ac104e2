mod resume;

use super::*;
use crate::data::{ShardOptions, Tokenizer};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Twenty short documents, one of several pieces, one line that is bad.
fn corpus(dir: &Path) -> (PathBuf, Vec<String>) {
    let mut documents: Vec<String> = (0..20).map(|i| format!("document {i}, \u{e9}\n{}", "word ".repeat(i))).collect();
    documents.push("a longer line\nof text ".repeat(8000));
    let mut lines: Vec<String> = documents.iter().map(|text| serde_json::json!({"text": text}).to_string()).collect();
    lines.insert(3, "bad".into());
    let path = dir.join("corpus.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    (path, documents)
}

fn options(cache_dir: &Path) -> ShardOptions {
    ShardOptions { cache_dir: cache_dir.into(), skip_bad_lines: true, chunk_bytes: 1 << 20, shard_bytes: 0 }
}

fn build(path: &Path, tokenizer: &Tokenizer, options: &ShardOptions) -> (Shard, Vec<u64>) {
    let mut calls = Vec::new();
    let shard = Shard::from_files(&[path], tokenizer, options, &mut |done| calls.push(done)).unwrap();
    (shard, calls)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn expected(documents: &[String], tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let wrap = |ids: Vec<u32>| [tokenizer.bos_id().into_iter().collect(), ids, tokenizer.eos_id().into_iter().collect()].concat();
    documents.iter().map(|text| wrap(tokenizer.encode(text).unwrap())).collect()
}

#[test]
fn holds_each_document_between_bos_and_eos() {
    let dir = tempfile::tempdir().unwrap();
    let (path, documents) = corpus(dir.path());
    let tokenizer = Tokenizer::load("tests/data/minimind-tokenizer").unwrap();
    let (shard, calls) = build(&path, &tokenizer, &options(&dir.path().join("cache")));
    let expected = expected(&documents, &tokenizer);
    assert_eq!(shard.documents(), 21);
    assert_eq!(shard.tokens(), expected.iter().map(|d| d.len() as u64).sum::<u64>());
    assert_eq!(shard.skipped_lines(), 1);
    assert_eq!((shard.vocab_size(), shard.bos_id(), shard.eos_id(), shard.pad_id()), (6400, Some(1), Some(2), Some(0)));
    for (i, document) in expected.iter().enumerate() {
        let range = shard.document(i as u64);
        assert_eq!(&shard.read(range.clone()).collect::<Vec<_>>(), document);
        assert_eq!(shard.document_at(range.start), i as u64);
        assert_eq!(shard.document_at(range.end - 1), i as u64);
    }
    assert_eq!(shard.document_at(shard.tokens()), 21);
    assert!(shard.document(21).is_empty() && shard.document(u64::MAX).is_empty());
    assert_eq!(shard.read(shard.tokens() - 1..u64::MAX).collect::<Vec<_>>(), [2]);
    let total = fs::metadata(&path).unwrap().len();
    assert!(calls.is_sorted() && calls.last() == Some(&total));

    let memory = Shard::from_documents(&documents, &tokenizer).unwrap();
    assert!(memory.read(0..u64::MAX).eq(shard.read(0..u64::MAX)) && memory.ends() == shard.ends());
    let none = Shard::from_documents(["", ""], &tokenizer).unwrap_err().to_string();
    assert!(none.contains("no document"), "{none}");
}

#[test]
fn a_large_vocabulary_takes_four_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string("tests/data/minimind-tokenizer/tokenizer.json").unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    (6400..70_000).for_each(|id| drop(vocab.insert(format!("unused{id}"), id.into())));
    vocab.insert("w".into(), 69_999.into());
    vocab.remove("unused69999");
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let documents = ["w".to_string(), "www, w".to_string()];
    let shard = Shard::from_documents(&documents, &tokenizer).unwrap();
    assert!(shard.read(0..u64::MAX).eq(expected(&documents, &tokenizer).concat()));
    assert!(shard.read(0..u64::MAX).any(|id| id == 69_999));
}

#[test]
fn bytes_depend_on_neither_threads_nor_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = corpus(dir.path());
    let tokenizer = Tokenizer::bytes().unwrap();
    let mut seen = Vec::new();
    for (threads, chunk_bytes) in [(1, 1 << 20), (2, 1 << 20), (1, 1), (2, 1000), (2, 70_000)] {
        let cache = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = ShardOptions { chunk_bytes, ..options(cache.path()) };
        pool.install(|| build(&path, &tokenizer, &options));
        let files = files(cache.path());
        assert_eq!(files.len(), 1);
        seen.push((files[0].file_name().unwrap().to_owned(), fs::read(&files[0]).unwrap()));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_shard_is_cached_by_all_that_it_follows_from() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = corpus(dir.path());
    let cache = dir.path().join("cache");
    let (bytes, options) = (Tokenizer::bytes().unwrap(), options(&cache));
    assert!(!build(&path, &bytes, &options).1.is_empty());
    assert!(build(&path, &bytes, &options).1.is_empty());

    let elsewhere = dir.path().join("moved.jsonl");
    fs::rename(&path, &elsewhere).unwrap();
    let (shard, calls) = build(&elsewhere, &bytes, &options);
    assert!(calls.is_empty() && shard.skipped_lines() == 1);

    let as_text = dir.path().join("corpus.txt");
    fs::copy(&elsewhere, &as_text).unwrap();
    assert!(!build(&as_text, &bytes, &options).1.is_empty());
    let public = Tokenizer::load("tests/data/minimind-tokenizer").unwrap();
    assert!(!build(&elsewhere, &public, &options).1.is_empty());
    let strict = ShardOptions { skip_bad_lines: false, ..options };
    assert!(!build(&as_text, &bytes, &strict).1.is_empty());
    fs::write(&elsewhere, fs::read_to_string(&elsewhere).unwrap().replacen("document 0", "document O", 1)).unwrap();
    assert!(!build(&elsewhere, &bytes, &ShardOptions { skip_bad_lines: true, ..strict }).1.is_empty());
    assert_eq!(files(&cache).len(), 5);
}

#[test]
fn a_failed_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = corpus(dir.path());
    let cache = dir.path().join("cache");
    let options = ShardOptions { skip_bad_lines: false, chunk_bytes: 1, ..options(&cache) };
    let error = Shard::from_files(&[&path], &Tokenizer::bytes().unwrap(), &options, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("corpus.jsonl:4: "), "{error}");
    assert!(files(&cache).is_empty());

    let blocked = ShardOptions { cache_dir: path.join("below-a-file"), ..options };
    let error = Shard::from_files(&[&path], &Tokenizer::bytes().unwrap(), &blocked, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("FERROMIND_CACHE"), "{error}");
}

#[test]
fn a_damaged_shard_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = corpus(dir.path());
    let cache = dir.path().join("cache");
    let (tokenizer, options) = (Tokenizer::bytes().unwrap(), options(&cache));
    build(&path, &tokenizer, &options);
    let file = files(&cache).remove(0);
    let whole = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut damaged: Vec<Vec<u8>> = (0..Header::BYTES).step_by(3).map(flipped).collect();
    damaged.extend([flipped(Header::BYTES), flipped(whole.len() / 2), flipped(whole.len() - 1)]);
    damaged.extend([vec![], whole[..100].to_vec(), whole[..whole.len() - 8].to_vec(), [&whole[..], &[0; 8]].concat()]);
    for bytes in damaged {
        fs::write(&file, bytes).unwrap();
        assert!(Shard::open(&file).is_err());
    }
    assert!(!build(&path, &tokenizer, &options).1.is_empty());
    assert!(fs::read(&file).unwrap() == whole);

    // A whole shard of another key under this name is not taken either.
    let mut other = Header::decode(&whole).unwrap();
    other.key[0] ^= 1;
    fs::write(&file, [&other.encode()[..], &whole[Header::BYTES..]].concat()).unwrap();
    assert!(Shard::open(&file).is_ok());
    assert!(!build(&path, &tokenizer, &options).1.is_empty());
}

#[test]
fn numbers_that_no_file_has_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tokens");
    let base = Header {
        width: 2,
        tokens: 0,
        documents: 0,
        skipped_lines: 0,
        vocab_size: 0,
        bos: None,
        eos: None,
        pad: None,
        key: [0; 32],
        content: blake3::hash(&[]).into(),
    };
    for (header, fits) in [
        (base.clone(), true),
        (Header { tokens: u64::MAX, ..base.clone() }, false),
        (Header { documents: 1 << 61, ..base.clone() }, false),
        (Header { width: 8, ..base.clone() }, false),
    ] {
        fs::write(&path, header.encode()).unwrap();
        assert_eq!(Shard::open(&path).is_ok(), fits, "{header:?}");
    }
}

#[test]
fn the_cache_lies_where_the_environment_says() {
    let dir = |set: &[(&str, &str)], home: Option<&str>| {
        let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value));
        build::cache_dir(variable, home.map(PathBuf::from))
    };
    let (ours, xdg) = (("FERROMIND_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"));
    assert_eq!(dir(&[ours, xdg], Some("/h")), Path::new("/a"));
    assert_eq!(dir(&[("FERROMIND_CACHE", ""), xdg], Some("/h")), Path::new("/b/ferromind"));
    assert_eq!(dir(&[("XDG_CACHE_HOME", "")], Some("/h")), Path::new("/h/.cache/ferromind"));
    assert_eq!(dir(&[], None), std::env::temp_dir().join("ferromind"));
}

#[test]
fn what_nobody_went_on_with_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = corpus(dir.path());
    let cache = dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    for (name, days) in [(".building-old", 8), (".building-new", 6), ("other", 8)] {
        let file = fs::File::create(cache.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(24 * 3600 * days)).unwrap();
    }
    build(&path, &Tokenizer::bytes().unwrap(), &options(&cache));
    let exists = [".building-old", ".building-new", "other"].map(|name| cache.join(name).exists());
    assert_eq!(exists, [false, true, true]);
}
