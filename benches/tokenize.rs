//! From a JSON-lines file to a finished shard, against what the `tokenizers` crate needs for the same documents by itself: held in
//! memory, with nothing read, hashed or written. All cores, in turn, so that both see the same machine.
//!
//!   cargo bench --bench tokenize [-- FILE.jsonl [TOKENIZER]]
//!
//! Without a file: embedded stories. TOKENIZER: `bytes`, or a tokenizer.json or its directory; by default MiniMind's.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use ferromind::data::stories::Stories;
use ferromind::data::{Documents, ShardOptions, Shards, Tokenizer};

const ROUNDS: usize = 5;
/// About how much text the embedded stories make here.
const STORIES_BYTES: usize = 24 << 20;
const PUBLIC: &str = "tests/data/minimind-tokenizer";

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let dir = tempfile::tempdir()?;
    let file = match given.next() {
        Some(file) => PathBuf::from(file),
        None => write_stories(dir.path().join("stories.jsonl"))?,
    };
    let name = given.next().unwrap_or_else(|| PUBLIC.into());
    let bytes = dir.path().join("bytes");
    Tokenizer::bytes()?.save(&bytes)?;
    let path = if name == "bytes" { bytes } else { PathBuf::from(&name) };
    let ours = Tokenizer::load(&path)?;
    let crates = tokenizers::Tokenizer::from_file(if path.is_dir() { path.join("tokenizer.json") } else { path })?;

    let mut documents: Vec<String> = Vec::new();
    for piece in Documents::open(&[&file], true)? {
        let piece = piece?;
        match documents.last_mut() {
            Some(last) if !piece.begins => last.push_str(&piece.text),
            _ => documents.push(piece.text),
        }
    }
    let text: usize = documents.iter().map(String::len).sum();
    let mib = text as f64 / f64::from(1 << 20);
    println!("{} documents, {mib:.1} MiB of text, tokenizer {name}, {} threads", documents.len(), rayon::current_num_threads());

    let (mut against_batch, mut against_fast) = (Vec::new(), Vec::new());
    let mut shard_speed = Vec::new();
    for round in 0..=ROUNDS {
        let inputs: Vec<&str> = documents.iter().map(String::as_str).collect();
        let batch = seconds(|| crates.encode_batch(inputs.clone(), false).map(drop))?;
        let fast = seconds(|| crates.encode_batch_fast(inputs, false).map(drop))?;
        let cache = tempfile::tempdir_in(dir.path())?;
        let options = ShardOptions { cache_dir: cache.path().into(), skip_bad_lines: true, ..ShardOptions::default() };
        let shard = seconds(|| Shards::from_files(&[&file], &ours, &options, &mut |_, _| {}).map(drop))?;
        println!("encode_batch {:.2} MiB/s, encode_batch_fast {:.2}, file to shard {:.2}", mib / batch, mib / fast, mib / shard);
        // The first round warms caches.
        if round > 0 {
            against_batch.push(batch / shard);
            against_fast.push(fast / shard);
            shard_speed.push(mib / shard);
        }
    }
    println!(
        "median of {ROUNDS}: file to shard {:.2} MiB/s; {:.3} of encode_batch, {:.3} of encode_batch_fast",
        median(shard_speed),
        median(against_batch),
        median(against_fast)
    );
    Ok(())
}

fn write_stories(path: PathBuf) -> std::io::Result<PathBuf> {
    let mut out = BufWriter::new(File::create(&path)?);
    let mut written = 0;
    for story in Stories::new(1, usize::MAX).iter() {
        written += story.text.len();
        writeln!(out, "{}", serde_json::json!({ "text": story.text }))?;
        if written >= STORIES_BYTES {
            break;
        }
    }
    out.flush()?;
    Ok(path)
}

fn seconds<E>(work: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
