//! The public implementations' numbers: loss, logits, every gradient and greedy tokens, by name.

use std::path::{Path, PathBuf};

use ferromind::lab::golden::compare;
use ferromind::tensor::DType;

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn case(name: &str) -> PathBuf {
    cases().into_iter().find(|dir| dir.ends_with(name)).unwrap()
}

#[test]
fn every_case_passes() {
    let cases = cases();
    assert_eq!(cases.len(), 20);
    for case in cases {
        for dtype in [DType::F32, DType::F64] {
            let failed: Vec<_> = compare(&case, dtype).unwrap().into_iter().filter(|c| !c.pass).collect();
            assert!(failed.is_empty(), "{} in {dtype}: {failed:#?}", case.display());
        }
    }
}

/// A copy of a case with one bit of `file` at byte `at` from its end changed.
fn damaged(file: &str, at: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(case("minimind2")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - at;
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
    dir
}

#[test]
fn a_changed_weight_or_golden_value_is_seen() {
    for file in ["model.safetensors", "golden.safetensors"] {
        let dir = damaged(file, 2); // the largest bits of the last value's fraction
        let seen = compare(dir.path(), DType::F32).map_or(true, |comparisons| comparisons.iter().any(|c| !c.pass));
        assert!(seen, "{file}");
    }
}

#[test]
fn a_missing_gradient_is_a_failure() {
    let dir = damaged("config.json", 1);
    let path = dir.path().join("config.json");
    std::fs::copy(case("minimind2").join("config.json"), path).unwrap();
    let golden = dir.path().join("golden.safetensors");
    let bytes = std::fs::read(&golden).unwrap();
    let text = b"grad.model.norm.weight";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let mut renamed = bytes;
    renamed[at + 5] = b'M';
    std::fs::write(golden, renamed).unwrap();
    let comparisons = compare(dir.path(), DType::F32).unwrap();
    let missing: Vec<_> = comparisons.iter().filter(|c| c.missing.is_some()).map(|c| c.name.as_str()).collect();
    assert_eq!(missing, ["grad.model.norm.weight", "grad.Model.norm.weight"]);
    assert!(comparisons.iter().filter(|c| c.missing.is_some()).all(|c| !c.pass));
}

#[test]
fn a_head_that_is_not_the_embedding_contradicts_a_tied_configuration() {
    use safetensors::tensor::{Dtype, TensorView};
    let dir = damaged("config.json", 1);
    std::fs::copy(case("minimind2").join("config.json"), dir.path().join("config.json")).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let embedding = tensors.tensor("model.embed_tokens.weight").unwrap();
    for (flip, fits) in [(0, true), (1, false)] {
        let mut head = embedding.data().to_vec();
        head[0] ^= flip;
        let head = TensorView::new(Dtype::F32, embedding.shape().to_vec(), &head).unwrap();
        let all = tensors.tensors().into_iter().chain([("lm_head.weight".to_owned(), head)]);
        safetensors::serialize_to_file(all, None, &path).unwrap();
        let loaded = ferromind::io::load_model(dir.path());
        assert_eq!(loaded.is_ok(), fits);
        assert!(fits || loaded.unwrap_err().to_string().contains("`lm_head.weight` differs"));
    }
}

/// The experts of a file put together as newer libraries hold them: gate over up `[E, 2I, H]`, and down `[E, H, I]`.
fn fuse_experts(path: &Path) {
    use safetensors::tensor::{Dtype, TensorView};
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut out: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in tensors.tensors() {
        // Mixtral's files call the module, and the parts of an expert, by names of their own.
        let held = name.replace("block_sparse_moe", "mlp");
        let Some((before, expert)) = name.split_once(".experts.") else {
            out.push((held, view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            continue;
        };
        let (fused, parts) = match expert {
            "0.gate_proj.weight" => ("gate_up_proj", &["gate_proj", "up_proj"][..]),
            "0.down_proj.weight" => ("down_proj", &["down_proj"][..]),
            "0.w1.weight" => ("gate_up_proj", &["w1", "w3"][..]),
            "0.w2.weight" => ("down_proj", &["w2"][..]),
            _ => continue,
        };
        let mut data = Vec::new();
        for e in 0..4 {
            for part in parts {
                data.extend(tensors.tensor(&format!("{before}.experts.{e}.{part}.weight")).unwrap().data());
            }
        }
        let shape = vec![4, parts.len() * view.shape()[0], view.shape()[1]];
        let before = held.split_once(".experts.").unwrap().0;
        out.push((format!("{before}.experts.{fused}"), view.dtype(), shape, data));
    }
    let views = out.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn fused_experts_are_the_same_model() {
    for name in ["minimind2-moe", "minimind3-moe", "qwen3-moe", "mixtral", "deepseek-v3"] {
        let case = case(name);
        for fused in [&["model"][..], &["golden"], &["model", "golden"]] {
            let dir = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(&case).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
            fused.iter().for_each(|file| fuse_experts(&dir.path().join(format!("{file}.safetensors"))));
            let comparisons = compare(dir.path(), DType::F32).unwrap();
            assert!(comparisons.iter().all(|c| c.pass), "{name}, {fused:?}: {comparisons:#?}");
            let one_by_one = comparisons.iter().any(|c| c.name.contains("experts.3."));
            assert_eq!(one_by_one, !fused.contains(&"golden"));
        }
    }
}
