//! `ferromind data`: builds that are killed go on to the same bytes, what is tokenized beforehand is found, and what is shown is so.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use ferromind::data::stories::Stories;
use flate2::{Compression, write::GzEncoder};

const TOKENIZER: &str = "tests/data/minimind-tokenizer";

fn ferromind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferromind"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    ferromind(arguments).output().unwrap()
}

/// Standard output of a command that must succeed.
fn said(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// JSON lines of stories, about as many bytes.
fn lines(seed: u64, bytes: usize) -> String {
    let mut lines = String::new();
    for story in Stories::new(seed, usize::MAX).iter() {
        lines += &format!("{}\n", serde_json::json!({"text": story.text}));
        if lines.len() > bytes {
            break;
        }
    }
    lines
}

/// Kills the process whenever it has written another chunk, until it comes to its end; across a plain and a packed file.
#[test]
fn a_killed_build_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.jsonl"), lines(1, 6 << 20)).unwrap();
    let mut packed = GzEncoder::new(fs::File::create(dir.path().join("b.jsonl.gz")).unwrap(), Compression::fast());
    packed.write_all(lines(2, 6 << 20).as_bytes()).unwrap();
    packed.finish().unwrap();
    let pattern = dir.path().join("*.jsonl*");
    let arguments = |cache: &str| {
        let cache = dir.path().join(cache);
        let given = ["data", "tokenize", "--data-path", pattern.to_str().unwrap(), "--tokenizer", TOKENIZER, "--cache-dir"];
        (given.iter().map(|s| s.to_string()).chain([cache.to_str().unwrap().to_owned()]).collect::<Vec<_>>(), cache)
    };
    let (uninterrupted, cache) = arguments("whole");
    said(&uninterrupted.iter().map(String::as_str).collect::<Vec<_>>());
    let whole = fs::read(&files(&cache)[0]).unwrap();
    assert_eq!(files(&cache).len(), 1);

    let (killed, cache) = arguments("killed");
    let journal = || files(&cache).into_iter().find(|file| file.extension().is_some_and(|e| e == "journal"));
    let written = || journal().and_then(|file| fs::metadata(file).ok()).map_or(0, |file| file.len());
    let mut kills = 0;
    loop {
        let before = written();
        let mut child =
            ferromind(&killed.iter().map(String::as_str).collect::<Vec<_>>()).stdout(std::process::Stdio::null()).spawn().unwrap();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if written() > before {
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 3, "{kills} kills");
    let left = files(&cache);
    assert!(left.len() == 1 && fs::read(&left[0]).unwrap() == whole, "{left:?}");
}

#[test]
fn pretrain_finds_what_was_tokenized() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/a.jsonl"), lines(1, 60_000)).unwrap();
    fs::write(dir.path().join("data/b.txt"), "plain text ".repeat(500)).unwrap();
    let source = ["--data-path", &path("data"), "--cache-dir", &path("cache")].map(str::to_owned);
    let source: Vec<&str> = source.iter().map(String::as_str).collect();
    let text = said(&[&["data", "tokenize"], &source[..]].concat());
    assert!(text.contains("in 1 shard of"), "{text}");
    let cached = files(Path::new(&path("cache")));
    let written = fs::metadata(&cached[0]).unwrap().modified().unwrap();
    let small = ["--hidden-size", "16", "--num-attention-heads", "2", "--num-key-value-heads", "2", "--num-hidden-layers", "1"];
    let short =
        ["--max-seq-len", "32", "--max-steps", "1", "--val-batches", "1", "--val-fraction", "0.001", "--out-dir", &path("run")]
            .map(str::to_owned);
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    said(&[&["pretrain"], &source[..], &small, &short].concat());
    assert!(files(Path::new(&path("cache"))) == cached && fs::metadata(&cached[0]).unwrap().modified().unwrap() == written);
}

#[test]
fn inspect_shows_figures_rows_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // With bos and eos 12, 22 and 102 tokens.
    let texts = ["a".repeat(10), "b".repeat(20), "c".repeat(100)].map(|text| serde_json::json!({"text": text}).to_string());
    fs::write(dir.path().join("x.jsonl"), texts.join("\n")).unwrap();
    let arguments = [
        "data",
        "inspect",
        "--data-path",
        &path("x.jsonl"),
        "--cache-dir",
        &path("cache"),
        "--max-seq-len",
        "40",
        "--picture",
        &path("x.svg"),
    ]
    .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = said(&arguments);
    // 136 tokens make 4 rows of 40 with 24 padding; one a row, 3 rows lose 62 of the last document and pad 28 and 18.
    for (name, packed, padded) in [
        ("rows", "4", "3"),
        ("positions", "160", "120"),
        ("padding", "24", "46"),
        ("targets that count", "133", "71"),
        ("documents not whole in one row", "1", "1"),
        ("tokens left out", "0", "62"),
    ] {
        let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")) && !line.contains("of 40")).unwrap();
        let numbers: Vec<&str> = line.trim_start_matches(name).split_whitespace().collect();
        assert_eq!(numbers, [packed, padded], "{text}");
    }
    assert!(text.contains("3 documents, 136 tokens") && text.contains("median 22"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("row ")).count(), 3);
    assert!(text.contains("|im_start|>│a│a│"), "{text}");
    assert!(fs::read_to_string(path("x.svg")).unwrap().contains("<svg "));
    assert_eq!(said(&arguments), text);
    let other = said(&[&arguments[..], &["--seed", "1", "--samples", "4", "--no-packing"]].concat());
    assert_eq!(other.lines().filter(|line| line.starts_with("row ")).count(), 3);
}

#[test]
fn errors_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cache = dir.path().join("cache").to_str().unwrap().to_owned();
    let error = |path: &str, more: &[&str]| {
        let output = run(&[&["data", "tokenize", "--data-path", path, "--cache-dir", &cache], more].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let bad = error(&write("bad.jsonl", b"{\"text\": \"a\"}\nnonsense\n"), &[]);
    assert!(bad.contains("bad.jsonl:2: "), "{bad}");
    let whole = fs::read("tests/data/packed/ultra.jsonl.zst").unwrap();
    let cut = error(&write("cut.jsonl.zst", &whole[..whole.len() - 20]), &[]);
    assert!(cut.contains("cut.jsonl.zst") && cut.contains("truncated"), "{cut}");
    let none = error(dir.path().join("*.none").to_str().unwrap(), &[]);
    assert!(none.contains("*.none") && none.contains("no file matches"), "{none}");

    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(format!("{TOKENIZER}/tokenizer.json")).unwrap()).unwrap();
    json["model"]["dropout"] = 0.1.into();
    let tokenizer = write("tokenizer.json", json.to_string().as_bytes());
    let dropout = error(&write("good.txt", b"text"), &["--tokenizer", &tokenizer]);
    assert!(dropout.contains("tokenizer.json") && dropout.contains("dropout 0.1"), "{dropout}");
    json["model"]["dropout"] = 0.0.into();
    fs::write(&tokenizer, json.to_string()).unwrap();
    said(&[
        "data",
        "tokenize",
        "--data-path",
        dir.path().join("good.txt").to_str().unwrap(),
        "--cache-dir",
        &cache,
        "--tokenizer",
        &tokenizer,
    ]);
}
