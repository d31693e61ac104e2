//! Whatever a user types or feeds: an error that says what, where and what to do, an exit status, and never a panic.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{Watcher, ferromind, pretrain_command, settings, text};
use ferromind::io::{WeightsFile, load_model, write_weights};
use ferromind::train::metrics::read_records;
use ferromind::train::pretrain;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The command fails, and says all of `phrases`.
fn assert_fails(command: &mut Command, phrases: &[&str]) {
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{command:?}: {:?}: {said}", output.status);
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    for phrase in phrases {
        assert!(said.contains(phrase), "{command:?} does not say `{phrase}` but: {said}");
    }
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

fn trained(dir: &Path, out: &str) -> PathBuf {
    pretrain(&[settings(dir, out, json!({ "max-steps": 2 }))], &mut Watcher::default()).unwrap().run_dir
}

/// Sets the first element of a parameter of the model in `dir`.
fn set_weight(dir: &Path, name: &str, value: f32) {
    let model = load_model(dir).unwrap();
    let mut values = model.params().flat::<f32>().unwrap().to_vec();
    values[model.params().layout().find(name).unwrap().offset] = value;
    let mut file = fs::File::create(dir.join("model.safetensors")).unwrap();
    write_weights(&mut file, model.params().layout(), &values).unwrap();
}

fn assert_finite(weights: &Path) {
    let file = WeightsFile::open(weights).unwrap();
    for name in file.names() {
        assert!(file.f32(&name).unwrap().1.iter().all(|value| value.is_finite()), "{name} in {}", weights.display());
    }
}

#[test]
fn a_loss_that_is_not_finite_names_step_layer_and_checkpoint() {
    let dir = TempDir::new().unwrap();
    // A step of 1e19: the gradients of the next one overflow.
    let changes = json!({ "learning-rate": 1e19, "warmup-steps": 0, "save-interval": 1 });
    let error = pretrain(&[settings(dir.path(), "leap", changes)], &mut Watcher::default()).unwrap_err().to_string();
    let checkpoint = dir.path().join("leap/checkpoints/step-1");
    let phrases = ["step 2", "model.layers.", "the last good checkpoint is", checkpoint.to_str().unwrap()];
    assert!(phrases.iter().all(|phrase| error.contains(phrase)), "{error}");
    assert_finite(&checkpoint.join("model.safetensors"));
    assert_finite(&dir.path().join("leap/model.safetensors"));

    // Weights that came with a damage.
    let weights = trained(dir.path(), "damaged");
    for (name, place) in [
        ("model.embed_tokens.weight", "model.embed_tokens"),
        ("model.layers.1.self_attn.o_proj.weight", "model.layers.1.self_attn"),
        ("model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp"),
    ] {
        let sound = fs::read(weights.join("model.safetensors")).unwrap();
        set_weight(&weights, name, f32::INFINITY);
        let out = format!("on-{name}");
        let on_damaged = settings(dir.path(), &out, json!({ "from-weight": weights }));
        assert_fails(&mut pretrain_command(&on_damaged), &["step 1", place, "no checkpoint was saved yet"]);
        assert!(!dir.path().join(out).join("model.safetensors").exists());
        fs::write(weights.join("model.safetensors"), sound).unwrap();
    }
}

#[test]
fn weights_that_overflow_are_never_saved() {
    let dir = TempDir::new().unwrap();
    // The loss before the only step is finite, what the step makes of the weights is not.
    let changes = json!({ "learning-rate": 1e41, "warmup-steps": 0, "max-steps": 1 });
    let error = pretrain(&[settings(dir.path(), "run", changes)], &mut Watcher::default()).unwrap_err().to_string();
    assert!(error.contains("step 1") && error.contains("overflow") && error.contains("no checkpoint was saved yet"), "{error}");
    assert!(!dir.path().join("run/model.safetensors").exists());

    // The weights are finite, what the validation makes of them is not.
    let changes = json!({ "learning-rate": 1e19, "warmup-steps": 0, "max-steps": 1 });
    let error = pretrain(&[settings(dir.path(), "other", changes)], &mut Watcher::default()).unwrap_err().to_string();
    assert!(error.contains("validation after step 1") && error.contains("model.layers.0"), "{error}");
}

#[test]
fn bad_data_is_named_by_file_and_line() {
    let dir = TempDir::new().unwrap();
    let good = "{\"text\": \"a line that is long enough to be worth a sample\"}\n".repeat(8);
    let fails = |name: &str, content: &[u8], changes: Value, phrases: &[&str]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let mut settings = settings(dir.path(), "run", json!({ "data-path": [path] }));
        settings.extend(changes.as_object().unwrap().clone());
        let shown = path.display().to_string();
        assert_fails(&mut pretrain_command(&settings), &[&[shown.as_str()], phrases].concat());
        assert!(!dir.path().join("run").exists(), "no run was begun");
    };
    let missing_field = format!("{good}{{\"content\": \"x\"}}\n{good}");
    let not_text = [good.as_bytes(), b"{\"text\": \"\xff\"}\n"].concat();
    fails("empty.jsonl", b"", json!({}), &["the file is empty"]);
    fails("blank.txt", b"\n \n", json!({}), &["no document found"]);
    fails("fields.jsonl", missing_field.as_bytes(), json!({}), &["fields.jsonl:9:", "missing field `text`"]);
    fails("bytes.jsonl", &not_text, json!({}), &["bytes.jsonl:9:", "not valid UTF-8"]);
    fails("bytes.txt", b"good\nb\xffd\n", json!({}), &["bytes.txt:2:", "not valid UTF-8"]);
    fails("array.json", b"[1, 2]", json!({}), &["one JSON object a line"]);

    let missing = settings(dir.path(), "run", json!({ "data-path": [dir.path().join("none.txt")] }));
    assert_fails(&mut pretrain_command(&missing), &["none.txt", "No such file"]);
    let too_large = settings(dir.path(), "run", json!({ "batch-size": 4096 }));
    assert_fails(&mut pretrain_command(&too_large), &["a batch of 4096 samples is larger than the data set"]);

    let path = dir.path().join("some-bad.jsonl");
    fs::write(&path, format!("{good}no JSON\n{{\"content\": \"x\"}}\n{good}")).unwrap();
    let changes = json!({ "data-path": [path], "skip-bad-lines": true, "max-steps": 1, "warmup-steps": 0 });
    for out in ["first", "cached"] {
        let output = succeeds(&mut pretrain_command(&settings(dir.path(), out, changes.clone())));
        assert!(text(&output).contains("2 bad lines of the data were passed over"), "{}", text(&output));
    }
}

#[test]
fn bad_settings_are_named() {
    let dir = TempDir::new().unwrap();
    let fails = |changes: Value, phrases: &[&str]| {
        assert_fails(&mut pretrain_command(&settings(dir.path(), "run", changes)), phrases);
        assert!(!dir.path().join("run").exists(), "no run was begun");
    };
    fails(json!({ "preset": "huge" }), &["no preset is called `huge`", "minimind2-26m"]);
    fails(json!({ "schedule": "linear" }), &["schedule", "`linear`", "cosine"]);
    fails(json!({ "expert-weights": "none" }), &["expert-weights", "softmax"]);
    fails(json!({ "batchsize": 4 }), &["--batchsize", "--batch-size"]);
    fails(json!({ "batch-size": "many" }), &["--batch-size", "many"]);
    fails(json!({ "batch-size": 0 }), &["batch-size must be at least 1"]);
    fails(json!({ "learning-rate": "nan" }), &["learning-rate"]);
    fails(json!({ "learning-rate": "-0.001" }), &["the learning rate is -0.001"]);
    fails(json!({ "dropout": 1.0 }), &["dropout is 1"]);
    fails(json!({ "schedule": "wsd", "decay-steps": 13 }), &["decay (26)", "24 micro-batches"]);
    for dtype in ["bfloat16", "float16"] {
        fails(json!({ "dtype": dtype }), &[dtype, "not supported on the CPU", "float32"]);
    }
    fails(json!({ "dtype": "int8" }), &["`int8`", "float32"]);
    fails(json!({ "device": "cuda" }), &["`cuda`", "cpu"]);
    fails(json!({ "num-attention-heads": 5 }), &["num-attention-heads 5 must divide hidden-size 32"]);
    fails(json!({ "num-attention-heads": 0 }), &["num-attention-heads 0"]);
    fails(json!({ "num-key-value-heads": 3 }), &["num_key_value_heads 3"]);
    fails(json!({ "num-attention-heads": 32, "num-key-value-heads": 32 }), &["head_dim 1 must be even"]);
    fails(json!({ "hidden-size": 0 }), &["hidden_size"]);
    fails(json!({ "hidden-size": u64::MAX }), &["hidden-size is 18446744073709551615"]);
    fails(json!({ "num-hidden-layers": 1u64 << 60 }), &["num_hidden_layers 1152921504606846976"]);
    fails(json!({ "max-seq-len": 1u64 << 40 }), &["samples of 1099511627776 tokens"]);
    fails(
        json!({ "max-seq-len": 40000, "batch-size": 1, "val-fraction": 0, "warmup-steps": 0 }),
        &["max-seq-len is 40000", "32768 positions"],
    );
    fails(json!({ "epochs": u64::MAX }), &["epochs"]);
    fails(json!({ "tokenizer": "no-such-dir" }), &["no-such-dir"]);
    fails(json!({ "from-weight": "no-such-run" }), &["no-such-run", "is not a directory"]);

    let toml = |content: &str, phrases: &[&str]| {
        let path = dir.path().join("settings.toml");
        fs::write(&path, content).unwrap();
        let config = path.to_str().unwrap();
        let command = &mut pretrain_command(&settings(dir.path(), "run", json!({ "config": config })));
        assert_fails(command, phrases);
    };
    toml("batchsize = 4", &["there is no setting called `batchsize`"]);
    toml("seed = \"one\"", &["seed is \"one\""]);
    toml("num-workers = 100000", &["num-workers is 100000", "at most 1024"]);
    toml("seed = ", &["settings.toml"]);
}

#[test]
fn a_directory_that_holds_something_is_not_written_over() {
    let dir = TempDir::new().unwrap();
    let run = trained(dir.path(), "run");
    let again = settings(dir.path(), "run", json!({}));
    assert_fails(&mut pretrain_command(&again), &["holds a run already", "--from-resume 1", "--out-dir"]);
    let wider = settings(dir.path(), "wider", json!({ "from-weight": "run", "hidden-size": 64 }));
    assert_fails(&mut pretrain_command(&wider), &["hidden-size is 64", "is 32"]);
    // A model from elsewhere has no checkpoints.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    let before = fs::read(run.join("model.safetensors")).unwrap();
    assert_fails(&mut pretrain_command(&again), &["holds a model.safetensors", "--out-dir"]);
    assert!(fs::read(run.join("model.safetensors")).unwrap() == before);
}

#[test]
fn few_steps_need_no_flag_for_the_warm_up() {
    let dir = TempDir::new().unwrap();
    let mut short = settings(dir.path(), "run", json!({ "max-steps": 4, "schedule": "cosine" }));
    short.remove("warmup-steps");
    succeeds(&mut pretrain_command(&short));
    let records = read_records(&dir.path().join("run/metrics.jsonl")).unwrap();
    let rates: Vec<f64> = records.iter().filter_map(|record| record.lr).collect();
    assert!(rates[0] < rates[1] && rates[1] > rates[2] && rates[2] > rates[3], "half of it warms up: {rates:?}");
}

fn generate(model: &Path, flags: &[&str]) -> Command {
    let mut command = ferromind(["generate", "--model"]);
    command.arg(model).args(flags);
    command
}

#[test]
fn generate_is_repeatable_and_names_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let run = trained(dir.path(), "run");
    let greedy = || succeeds(&mut generate(&run, &["--prompt", "the", "--temperature", "0", "--max-new-tokens", "40"])).stdout;
    let text = greedy();
    assert!(text.starts_with(b"the") && text.len() > 3);
    assert_eq!(text, greedy());
    let sampled = |seed: &str| succeeds(&mut generate(&run, &["--seed", seed, "--max-new-tokens", "40"])).stdout;
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
    let narrow = || succeeds(&mut generate(&run, &["--prompt", "the", "--dtype", "bfloat16", "--max-new-tokens", "40"])).stdout;
    assert!(narrow().starts_with(b"the") && narrow() == narrow());

    assert_fails(&mut generate(&dir.path().join("none"), &[]), &["none is not a directory", "model.safetensors"]);
    assert_fails(&mut generate(dir.path(), &[]), &["model.safetensors"]);
    assert_fails(&mut generate(&run, &["--temperature", "-1"]), &["temperature"]);
    assert_fails(&mut generate(&run, &["--top-p", "0"]), &["top-p is 0"]);
    let tokenizer = fs::read(run.join("tokenizer.json")).unwrap();
    let empty = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": {}, "unk_token": "" } });
    fs::write(run.join("tokenizer.json"), empty.to_string()).unwrap();
    assert_fails(&mut generate(&run, &[]), &["token"]);
    assert_fails(&mut generate(&run, &["--prompt", "the"]), &["token"]);
    fs::write(run.join("tokenizer.json"), "{").unwrap();
    assert_fails(&mut generate(&run, &[]), &["tokenizer.json"]);
    fs::write(run.join("tokenizer.json"), tokenizer).unwrap();
    set_weight(&run, "model.norm.weight", f32::NAN);
    assert_fails(&mut generate(&run, &[]), &["not finite"]);
    let weights = fs::read(run.join("model.safetensors")).unwrap();
    for len in [0, 7, 100, weights.len() - 1] {
        fs::write(run.join("model.safetensors"), &weights[..len]).unwrap();
        assert_fails(&mut generate(&run, &[]), &["model.safetensors"]);
    }
    fs::write(run.join("model.safetensors"), weights).unwrap();
    fs::remove_file(run.join("config.json")).unwrap();
    assert_fails(&mut generate(&run, &[]), &["config.json"]);
}

/// Starts `command` with nobody at the other end of its output.
fn unheard(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let dir = TempDir::new().unwrap();
    let output = unheard(&mut pretrain_command(&settings(dir.path(), "run", json!({ "max-steps": 2 }))));
    assert!(output.status.success() && !text(&output).contains("panicked"), "{}", text(&output));
    let run = dir.path().join("run");
    assert!(run.join("report.html").exists(), "the run came to its end");
    let output = unheard(&mut generate(&run, &["--max-new-tokens", "400"]));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/minimind2");
    let output = unheard(ferromind(["lab", "golden"]).arg(golden));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

#[test]
fn lab_golden_tells_by_its_status_and_its_last_line() {
    let dir = TempDir::new().unwrap();
    let sound = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/minimind2");
    for name in ["config.json", "model.safetensors", "golden.safetensors"] {
        fs::copy(sound.join(name), dir.path().join(name)).unwrap();
    }
    let last_line = |output: &Output| -> Value {
        serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
    };
    let golden = |flags: &[&str]| ferromind(["lab", "golden"]).arg(&sound).arg(dir.path()).args(flags).output().unwrap();
    let output = golden(&[]);
    assert_eq!((output.status.code(), &last_line(&output)["pass"]), (Some(0), &json!(true)));
    set_weight(dir.path(), "model.norm.weight", 3.0);
    for flags in [&[][..], &["--json"], &["--dtype", "float64"]] {
        let (output, case) = (golden(flags), |i: usize, line: &Value| line["cases"][i]["pass"].clone());
        let line = last_line(&output);
        assert_eq!((output.status.code(), case(0, &line), case(1, &line)), (Some(1), json!(true), json!(false)));
    }
    fs::remove_file(dir.path().join("golden.safetensors")).unwrap();
    let output = golden(&[]);
    let line = last_line(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(line["cases"][1]["error"].as_str().unwrap().contains("golden.safetensors"));
}
