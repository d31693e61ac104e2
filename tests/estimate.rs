//! Memory on paper against memory in fact.
#![cfg(target_os = "linux")] // where a process can ask for its peak

use ferromind::lab::estimate::estimate;
use ferromind::model::Preset;
use serde_json::Value;

mod common;

/// The peak of a process that trains, in bytes.
fn measured(preset: &str, batch_size: usize, seq_len: usize) -> f64 {
    let [batch_size, seq_len] = [batch_size, seq_len].map(|size| size.to_string());
    let arguments =
        ["bench", "train", "--json", "--steps", "1", "--preset", preset, "--batch-size", &batch_size, "--seq-len", &seq_len];
    let output = common::ferromind(arguments).output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    line["peak_mib"].as_f64().unwrap() * (1 << 20) as f64
}

#[test]
fn training_takes_what_is_estimated() {
    let runs = [
        ("minimind2-26m", 2, 256),
        ("minimind2-26m", 1, 32),
        ("tiny", 2, 512),
        ("minimind2-moe", 1, 128),
        ("mla-moe", 2, 200),
        ("mla-notes", 2, 256),
    ];
    for (preset, batch_size, seq_len) in runs {
        let config = preset.parse::<Preset>().unwrap().config(6400);
        let estimated = estimate(&config, batch_size, seq_len).unwrap().training;
        let ratio = measured(preset, batch_size, seq_len) / estimated;
        assert!((0.9..1.1).contains(&ratio), "{preset}, {batch_size} rows of {seq_len}: {ratio:.3} of the estimate");
    }
}
