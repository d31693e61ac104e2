//! `ferromind eval` against what the public transformers library computes for the same models and texts, frozen by
//! `scripts/check_eval.py --freeze tests/data/eval`; and what it says of input that cannot be scored.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{ferromind, text};
use serde_json::Value;
use tempfile::TempDir;

/// The largest difference from the library's numbers, relative where they are larger than 1: rounding gives about 1e-6.
const BOUND: f64 = 2e-5;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eval")
}

/// The last line of `ferromind eval` with these arguments.
fn eval(model: &str, arguments: &[&str]) -> Value {
    let (data, model) = (data(), data().join(model));
    let mut command = ferromind(["eval", "--model", model.to_str().unwrap(), "--tokenizer", data.to_str().unwrap()]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().last().unwrap()).unwrap()
}

fn assert_near(what: &str, computed: &Value, expected: &Value) {
    let (a, b) = (computed.as_f64().unwrap_or(f64::NAN), expected.as_f64().unwrap());
    assert!((a - b).abs() <= BOUND * b.abs().max(1.0), "{what}: {a}, expected {b}");
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(data().join("expected.json")).unwrap()).unwrap()
}

fn path(name: &str) -> String {
    data().join(name).to_str().unwrap().to_owned()
}

#[test]
fn text_is_scored_as_the_public_library_does() {
    for (model, cases) in expected().as_object().unwrap() {
        for (case, file) in [("text", "text.jsonl"), ("text_no_eos", "text.jsonl"), ("long", "long.txt")] {
            let (expected, file) = (&cases[case], path(file));
            let [max_seq_len, stride] = ["max_seq_len", "stride"].map(|name| expected[name].to_string());
            let mut arguments = vec!["--data", &file, "--max-seq-len", &max_seq_len, "--stride", &stride];
            arguments.extend((expected["eos"] == false).then_some("--no-eos"));
            let computed = eval(model, &arguments);
            for name in ["tokens", "documents", "bytes", "eos", "stride", "max_seq_len"] {
                assert_eq!(computed[name], expected[name], "{model}: {case}: {name}");
            }
            for name in ["loss", "perplexity", "bits_per_byte"] {
                assert_near(&format!("{model}: {case}: {name}"), &computed[name], &expected[name]);
            }
        }
    }
}

#[test]
fn every_ending_is_scored_as_the_public_library_does() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("samples.jsonl");
    for (model, cases) in expected().as_object().unwrap() {
        let expected = &cases["choices"];
        let computed = eval(model, &["--multiple-choice", &path("choices.jsonl"), "--log-samples", log.to_str().unwrap()]);
        assert_eq!(computed["questions"], expected["questions"]);
        for name in ["acc", "acc_stderr", "acc_norm", "acc_norm_stderr"] {
            assert_near(&format!("{model}: {name}"), &computed[name], &expected[name]);
        }
        let samples = fs::read_to_string(&log).unwrap();
        let rows = expected["log_likelihoods"].as_array().unwrap();
        assert_eq!(samples.lines().count(), rows.len());
        for (sample, row) in samples.lines().zip(rows) {
            let sample: Value = serde_json::from_str(sample).unwrap();
            for (i, ending) in row.as_array().unwrap().iter().enumerate() {
                assert_near(&format!("{model}: line {}, ending {i}", sample["line"]), &sample["log_likelihoods"][i], ending);
            }
        }
    }
}

#[test]
fn the_limit_takes_the_first_ones() {
    let first = eval("llama", &["--data", &path("text.jsonl"), "--limit", "3"]);
    assert_eq!(first["documents"], 3);
    let first = eval("llama", &["--multiple-choice", &path("choices.jsonl"), "--limit", "5", "--json"]);
    assert_eq!((&first["questions"], &first["endings"]), (&5.into(), &20.into()));
}

/// `ferromind eval` on the Llama fails, and says all of `phrases`.
fn assert_fails(arguments: &[&str], phrases: &[&str]) {
    let output = ferromind(["eval", "--model", &path("llama")]).args(arguments).output().unwrap();
    let said = text(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    for phrase in phrases {
        assert!(said.contains(phrase), "{arguments:?} does not say `{phrase}` but: {said}");
    }
}

#[test]
fn what_cannot_be_scored_is_named() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let tokenizer = data().to_str().unwrap().to_owned();
    let good = path("text.jsonl");
    assert_fails(&["--data", &good], &["llama holds no tokenizer.json", "--tokenizer"]);
    assert_fails(&[], &["--data", "--multiple-choice"]);
    assert_fails(&["--data", &good, "--multiple-choice", &good], &["cannot be used with"]);
    assert_fails(&["--multiple-choice", &good, "--stride", "4"], &["--stride", "cannot be used with"]);
    assert_fails(&["--data", &good, "--log-samples", "log.jsonl"], &["--log-samples", "cannot be used with"]);
    let fails = |arguments: &[&str], phrases: &[&str]| assert_fails(&[&["--tokenizer", &tokenizer], arguments].concat(), phrases);
    fails(&["--data", &file("empty.txt", "")], &["empty.txt", "empty"]);
    fails(&["--data", &file("blank.jsonl", "\n{\"text\": \"\"}\n")], &["blank.jsonl", "no document"]);
    fails(&["--data", &file("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n")], &["bad.jsonl:2:", "text"]);
    fails(&["--data", &dir.path().join("none.txt").to_string_lossy()], &["none.txt"]);
    fails(&["--data", &good, "--limit", "0"], &["limit"]);
    fails(&["--data", &good, "--max-seq-len", "257"], &["max-seq-len is 257", "256"]);
    fails(&["--data", &good, "--max-seq-len", "16", "--stride", "16"], &["stride is 16", "15"]);
    fails(&["--multiple-choice", &file("empty.jsonl", "")], &["empty.jsonl", "no question"]);
    fails(&["--multiple-choice", &good], &["text.jsonl:1:", "missing field `ctx`"]);
    let label = file("label.jsonl", "{\"ctx\": \"A\", \"endings\": [\"b\", \"c\"], \"label\": 2}");
    fails(&["--multiple-choice", &label], &["label.jsonl:1:", "0..=1"]);
    let before = fs::read(&label).unwrap();
    fails(&["--multiple-choice", &label, "--log-samples", &label], &["--log-samples"]);
    assert_eq!(fs::read(&label).unwrap(), before);
    let bad = file("skip.jsonl", "{\"text\": \"a fox\"}\nno\n");
    let figures = eval("llama", &["--data", &bad, "--skip-bad-lines"]);
    assert_eq!((&figures["documents"], &figures["skipped_lines"]), (&1.into(), &1.into()));
}

#[test]
fn a_tokenizer_of_another_model_is_named_with_file_and_document() {
    let dir = TempDir::new().unwrap();
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/minimind-tokenizer");
    let other = other.to_str().unwrap();
    let file = dir.path().join("large.jsonl");
    fs::write(&file, "{\"text\": \"a\"}\n{\"text\": \"international organisations\"}\n").unwrap();
    assert_fails(
        &["--tokenizer", other, "--data", file.to_str().unwrap()],
        &["large.jsonl: document 2: token id", "outside the vocabulary of 400 entries", "not the model's"],
    );
    assert_fails(
        &["--tokenizer", other, "--multiple-choice", &path("choices.jsonl")],
        &["choices.jsonl:1: token id", "not the model's"],
    );
}
