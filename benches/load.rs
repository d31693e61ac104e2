//! How long loading a model directory takes beside reading its files: `cargo bench --bench load [MIB]` (1024 by default). Ours, `std::fs::read` and
//! `cat > /dev/null` take turns on the same files, which lie in the page cache, so that a busy machine slows all; medians.
//!
//! `fs::read` makes what a loader makes, a copy in memory; `cat` alone moves the bytes through a small buffer.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use ferromind::io::{FloatType, config_to_json, load_model, save_weights};
use ferromind::model::{Init, Model, ModelConfig};

const ROUNDS: usize = 9;

fn main() {
    let mib = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(1024);
    for (float, max_shard_size) in
        [(FloatType::F32, None), (FloatType::F32, Some(200_000_000)), (FloatType::BF16, None), (FloatType::F16, None)]
    {
        measure(mib << 20, float, max_shard_size);
    }
}

/// A model whose weights take about `bytes` bytes.
fn config(bytes: usize, float: FloatType) -> ModelConfig {
    let of = |layers| ModelConfig::minimind2(1024, layers, 6400);
    let [one, two] = [1, 2].map(|layers| Model::layout(&of(layers)).expect("a layout").len());
    of(((bytes / float.size()).saturating_sub(one) / (two - one) + 1).max(1))
}

fn measure(bytes: usize, float: FloatType, max_shard_size: Option<u64>) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(bytes, float);
    {
        let model = Model::random(config.clone(), Init::Normal, 0.02, 1).expect("a model");
        let values = model.params().flat::<f32>().expect("f32");
        save_weights(dir.path(), model.params().layout(), values, float, max_shard_size).expect("written");
    }
    fs::write(dir.path().join("config.json"), config_to_json(&config).to_string()).expect("written");
    let files: Vec<_> = fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    let files: Vec<_> = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    let size: u64 = files.iter().map(|path| fs::metadata(path).expect("a file").len()).sum();

    let mut times = [const { Vec::new() }; 3];
    for _ in 0..=ROUNDS {
        times[0].push(timed(|| drop(load_model(dir.path()).expect("a model"))));
        times[1].push(timed(|| files.iter().for_each(|path| drop(fs::read(path).expect("bytes")))));
        times[2].push(timed(|| cat(&files)));
    }
    let [ours, read, cat] = times.map(|mut times| {
        times.remove(0); // fills the page cache, starts the threads
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!(
        "{float}, {} file(s), {} MiB: load {ours:.3} s, fs::read {read:.3} s (ratio {:.2}), cat {cat:.3} s (ratio {:.2})",
        files.len(),
        size >> 20,
        ours / read,
        ours / cat
    );
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn cat(files: &[impl AsRef<Path>]) {
    let paths = files.iter().map(|path| path.as_ref());
    let status = Command::new("cat").args(paths).stdout(Stdio::null()).status().expect("cat");
    assert!(status.success());
}
