use super::super::Documents;
use super::*;
use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::{fs, io::Write};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    compress_to_vec(text, CompressionLevel::Fastest)
}

/// A frame that readers pass over.
fn skippable(length: u32) -> Vec<u8> {
    [&[0x5A, 0x2A, 0x4D, 0x18], &length.to_le_bytes()[..], &vec![7; length as usize]].concat()
}

/// The documents in a file of that name, or the message.
fn read(name: &str, content: &[u8]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    let documents = Documents::open(&[path], false).map_err(|e| e.to_string())?;
    documents.map(|piece| piece.map(|piece| piece.text).map_err(|e| e.to_string())).collect()
}

fn lines(range: std::ops::Range<usize>) -> (Vec<u8>, Vec<String>) {
    let texts: Vec<String> = range.map(|i| format!("document {i} {}", "word ".repeat(i % 9))).collect();
    let lines: String = texts.iter().map(|text| serde_json::json!({"text": text}).to_string() + "\n").collect();
    (lines.into_bytes(), texts)
}

#[test]
fn members_and_frames_follow_one_another() {
    let (first, mut texts) = lines(0..300);
    let (second, more) = lines(300..5000);
    texts.extend(more);
    // The cut between two members lies within a line.
    let whole = [&first[..], &second].concat();
    let (a, b) = whole.split_at(first.len() + 7);
    for name in ["x.jsonl.gz", "x.jsonl", "x.gz", "x"] {
        assert!(read(name, &[gzip(a), gzip(b""), gzip(b)].concat()).unwrap() == texts, "{name}");
    }
    let frames = [zstd(a), skippable(1000), zstd(b""), zstd(b), skippable(0)].concat();
    for name in ["x.jsonl.zst", "x.jsonl", "x.zst", "x"] {
        assert!(read(name, &frames).unwrap() == texts, "{name}");
    }
    assert!(read("x.jsonl.ZST", &[skippable(3), frames].concat()).unwrap() == texts);
    let text = "\u{FEFF}plain \u{e9}\r\ntext";
    assert_eq!(read("x.txt.gz", &gzip(text.as_bytes())).unwrap(), ["plain \u{e9}\ntext"]);
    assert_eq!(read("x.zst", &zstd(text.as_bytes())).unwrap(), ["plain \u{e9}\ntext"]);
}

/// Files of the public tools: two `gzip -9` in one file, `pzstd -19`, `zstd --long --ultra -22`, of the documents in `plain.jsonl`.
#[test]
fn files_of_the_public_tools_are_read() {
    let documents = |name: &str| -> Vec<String> {
        Documents::open(&[Path::new("tests/data/packed").join(name)], false).unwrap().map(|piece| piece.unwrap().text).collect()
    };
    let expected = documents("plain.jsonl");
    assert_eq!(expected.len(), 40);
    for name in ["two-members.jsonl.gz", "pzstd.jsonl.zst", "ultra.jsonl.zst"] {
        assert!(documents(name) == expected, "{name}");
    }
}

#[test]
fn a_truncated_file_is_an_error_with_its_name() {
    let (text, texts) = lines(0..400);
    for (name, packed) in [("x.jsonl.gz", gzip(&text)), ("x.jsonl.zst", zstd(&text))] {
        assert!(read(name, &packed).unwrap() == texts);
        let lengths = (5..40).chain((40..packed.len()).step_by(97)).chain(packed.len() - 9..packed.len());
        for length in lengths {
            let message = read(name, &packed[..length]).unwrap_err();
            assert!(message.contains(name) && message.contains("truncated"), "{length} of {}: {message}", packed.len());
        }
    }
    let partial = [zstd(&text), skippable(100)[..50].to_vec()].concat();
    assert!(read("x.jsonl.zst", &partial).unwrap_err().contains("truncated"));
}

#[test]
fn a_damaged_file_is_an_error_with_its_name() {
    let (text, _) = lines(0..400);
    for (name, packed) in [("x.jsonl.gz", gzip(&text)), ("x.jsonl.zst", zstd(&text))] {
        let checksum = packed.len() - if name.ends_with("gz") { 8 } else { 4 };
        for at in [checksum, checksum + 2].into_iter().chain((30..checksum).step_by(211)) {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            let message = read(name, &damaged).unwrap_err();
            assert!(message.contains(name), "{at}: {message}");
        }
        let message = read(name, &[packed, b"what does not belong here".to_vec()].concat()).unwrap_err();
        assert!(message.contains("damaged"), "{message}");
    }
    for name in ["x.jsonl.gz", "x.zst"] {
        let message = read(name, b"{\"text\": \"not packed\"}").unwrap_err();
        assert!(message.contains(name) && message.contains("does not begin"), "{message}");
    }
    let message = read("x.jsonl.gz", &gzip(b"{\"text\": \"a\"}\nbad\n")).unwrap_err();
    assert!(message.contains("x.jsonl.gz:2: "), "{message}");
    assert!(read("x.jsonl.gz", &gzip(b"")).unwrap_err().contains("no document found"));
}

#[test]
fn progress_counts_the_bytes_of_the_file() {
    let (text, _) = lines(0..30_000);
    let dir = tempfile::tempdir().unwrap();
    for (name, packed) in [("x.jsonl.gz", gzip(&text)), ("x.jsonl.zst", zstd(&text)), ("x.jsonl", text.clone())] {
        let path = dir.path().join(name);
        fs::write(&path, &packed).unwrap();
        let mut documents = Documents::open(&[path], false).unwrap();
        assert_eq!((documents.bytes_done(), documents.bytes_total()), (0, packed.len() as u64));
        assert_eq!(documents.by_ref().count(), 30_000);
        assert_eq!(documents.bytes_done(), packed.len() as u64, "{name}");
    }
}
