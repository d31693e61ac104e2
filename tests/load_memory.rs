//! Loading a model takes the memory of its parameters, whatever lies in its files: the test runs itself as a process of its own, which
//! loads and says what it held at most.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use ferromind::io::{config_to_json, load_model_as};
use ferromind::model::{Model, ModelConfig};
use ferromind::tensor::DType;
use serde_json::{Map, Value, json};

const CHILD: &str = "FERROMIND_LOAD_MEMORY";
const HELD: &str = "FERROMIND_LOAD_MEMORY_HELD";

/// What may be held beside the parameters: pieces on their way, and what the allocator and the threads keep.
const BESIDE: u64 = 24 << 20;

/// A line of `/proc/self/status` that counts KiB, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() << 10
}

/// A model directory whose tensors of `dtype` are holes in files of about 32 MiB: zeros that take no disk, and memory as any file.
fn write_model(dir: &Path, config: &ModelConfig, dtype: &str, size: usize) {
    fs::write(dir.join("config.json"), config_to_json(config).to_string()).unwrap();
    let layout = Model::layout(config).unwrap();
    let mut map = Map::new();
    let mut entries = layout.entries();
    for file in 0.. {
        let name = format!("part-{file}.safetensors");
        let (mut header, mut end, mut taken) = (Map::new(), 0, 0);
        for entry in entries {
            if end >= 32 << 20 {
                break;
            }
            let from = end;
            (end, taken) = (end + size * entry.shape.elements(), taken + 1);
            header.insert(entry.name.clone(), json!({ "dtype": dtype, "shape": entry.shape.dims(), "data_offsets": [from, end] }));
            map.insert(entry.name.clone(), name.clone().into());
        }
        let header = Value::Object(header).to_string();
        let mut out = File::create(dir.join(name)).unwrap();
        out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        out.write_all(header.as_bytes()).unwrap();
        out.set_len((8 + header.len() + end) as u64).unwrap();
        entries = &entries[taken..];
        if entries.is_empty() {
            break;
        }
    }
    fs::write(dir.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
}

#[test]
fn the_peak_is_that_of_the_parameters() {
    if let Ok(dir) = std::env::var(CHILD) {
        let before = status("VmHWM:");
        let dtype = if std::env::var(HELD).unwrap() == "bf16" { DType::BF16 } else { DType::F32 };
        let model = load_model_as(dir, dtype).unwrap();
        let parameters = (dtype.size() * model.params().layout().len()) as u64;
        println!("held {before} {} {parameters}", status("VmHWM:"));
        return;
    }
    let config = ModelConfig { tie_word_embeddings: false, ..ModelConfig::minimind2(512, 8, 16_000) };
    for (dtype, size, held) in [("F32", 4, "f32"), ("BF16", 2, "f32"), ("F16", 2, "f32"), ("F32", 4, "bf16"), ("BF16", 2, "bf16")] {
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &config, dtype, size);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_peak_is_that_of_the_parameters", "--nocapture"])
            .env(CHILD, dir.path())
            .env(HELD, held)
            .env("RAYON_NUM_THREADS", "2") // each has a piece on its way
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{dtype}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let figures = said.lines().find_map(|line| line.split_once("held ")).unwrap().1;
        let figures: Vec<u64> = figures.split(' ').map(|figure| figure.parse().unwrap()).collect();
        let [before, peak, parameters] = figures[..] else { panic!("{said}") };
        assert!(parameters > 64 << 20, "a model that is large beside {BESIDE}: {parameters}");
        assert!(
            peak - before >= parameters / 2,
            "{dtype} as {held}: from {before} to {peak} for {parameters}: that is no load at all"
        );
        assert!(
            peak <= before + parameters + BESIDE,
            "{dtype} as {held}: from {before} to {peak} for {parameters} bytes of parameters"
        );
    }
}
