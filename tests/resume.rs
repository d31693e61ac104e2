//! A run that was stopped, by the observer, by Ctrl-C, by `kill -9`, ends in the same bits as one that was not.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Bits, Watcher, bits, newest_checkpoint, pretrain_command, settings, text};
use ferromind::data::Tokenizer;
use ferromind::rng::Philox;
use ferromind::train::pretrain;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Dropout and experts on: the run that has the most to get wrong.
fn moe() -> Value {
    json!({ "use-moe": 1, "intermediate-size": 24, "dropout": 0.1 })
}

fn run(settings: &Map<String, Value>, watcher: &mut Watcher) -> ferromind::Result<PathBuf> {
    pretrain(std::slice::from_ref(settings), watcher).map(|summary| summary.run_dir)
}

fn resumed(settings: &Map<String, Value>, changes: Value) -> Map<String, Value> {
    let mut settings = settings.clone();
    settings.insert("from-resume".into(), json!(1));
    settings.extend(changes.as_object().unwrap().clone());
    settings
}

/// The bits of a run that nothing stops.
fn uninterrupted(dir: &Path, changes: Value) -> Bits {
    bits(&run(&settings(dir, "uninterrupted", changes), &mut Watcher::default()).unwrap())
}

/// A run of 12 steps, saved every third, that was stopped after its seventh: checkpoints 3, 6 and 7 are left.
fn stopped_after_seven(dir: &Path, changes: Value) -> Map<String, Value> {
    let settings = settings(dir, "run", changes);
    let mut watcher = Watcher::stopping_after(7);
    run(&settings, &mut watcher).unwrap();
    assert_eq!(watcher.saved, [3, 6, 7]);
    settings
}

fn assert_root_is_newest(run_dir: &Path) {
    let root = fs::read(run_dir.join("model.safetensors")).unwrap();
    assert!(root == fs::read(newest_checkpoint(run_dir).join("model.safetensors")).unwrap());
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    for (changes, stops) in [(json!({ "dropout": 0.1 }), vec![1, 5, 5]), (moe(), vec![7])] {
        let dir = TempDir::new().unwrap();
        let expected = uninterrupted(dir.path(), changes.clone());
        let settings = settings(dir.path(), "run", changes);
        let run_dir = dir.path().join("run");
        for (i, steps) in stops.into_iter().enumerate() {
            let settings = if i == 0 { settings.clone() } else { resumed(&settings, json!({})) };
            run(&settings, &mut Watcher::stopping_after(steps)).unwrap();
            assert_root_is_newest(&run_dir);
            assert_ne!(bits(&run_dir), expected);
        }
        run(&resumed(&settings, json!({})), &mut Watcher::default()).unwrap();
        assert_eq!(bits(&run_dir), expected);
        assert_root_is_newest(&run_dir);
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let dir = TempDir::new().unwrap();
    let of_threads = |threads: usize| {
        let settings = settings(dir.path(), &format!("threads-{threads}"), moe());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        bits(&pool.install(|| run(&settings, &mut Watcher::default())).unwrap())
    };
    let expected = of_threads(1);
    assert_eq!(of_threads(2), expected);
    assert_eq!(of_threads(3), expected);
}

/// What happens to the newest checkpoint, with the word that the refusal must hold.
type Damage = (&'static str, fn(&Path));

#[test]
fn a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used() {
    let damages: [Damage; 3] = [
        ("truncated", |dir| {
            let path = dir.join("adam_v.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("altered", |dir| {
            let path = dir.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("format", |dir| fs::write(dir.join("manifest.json"), r#"{ "format": "another program's", "version": 1 }"#).unwrap()),
    ];
    let dir = TempDir::new().unwrap();
    let expected = uninterrupted(dir.path(), json!({}));
    for (word, damage) in damages {
        let settings = stopped_after_seven(dir.path(), json!({}));
        let run_dir = dir.path().join("run");
        damage(&newest_checkpoint(&run_dir));
        let mut watcher = Watcher::default();
        run(&resumed(&settings, json!({})), &mut watcher).unwrap();
        assert_eq!(watcher.steps, 6, "it goes on after step 6");
        assert_eq!(watcher.rejected.len(), 1);
        assert!(watcher.rejected[0].starts_with("step-7: ") && watcher.rejected[0].contains(word), "{:?}", watcher.rejected);
        assert_eq!(bits(&run_dir), expected, "{word}");
        fs::remove_dir_all(run_dir).unwrap();
    }
}

#[test]
fn the_root_is_brought_up_to_the_checkpoint() {
    let dir = TempDir::new().unwrap();
    let settings = settings(dir.path(), "run", json!({}));
    let run_dir = run(&settings, &mut Watcher::default()).unwrap();
    let expected = bits(&run_dir);
    // As a stop between the last checkpoint's rename and the root's leaves it.
    fs::copy(run_dir.join("checkpoints/step-9/model.safetensors"), run_dir.join("model.safetensors")).unwrap();
    let mut watcher = Watcher::default();
    run(&resumed(&settings, json!({})), &mut watcher).unwrap();
    assert_eq!(watcher.steps, 0);
    assert_eq!(bits(&run_dir), expected);
}

#[test]
fn a_run_that_was_stopped_before_its_first_checkpoint_begins_anew() {
    let dir = TempDir::new().unwrap();
    let expected = uninterrupted(dir.path(), json!({}));
    let settings = stopped_after_seven(dir.path(), json!({}));
    let run_dir = dir.path().join("run");
    for checkpoint in [3, 6, 7] {
        fs::remove_dir_all(run_dir.join(format!("checkpoints/step-{checkpoint}"))).unwrap();
    }
    // Nothing but what the run itself wrote down says what it is.
    let bare = json!({ "out-dir": run_dir, "from-resume": 1 }).as_object().unwrap().clone();
    run(&bare, &mut Watcher::default()).unwrap();
    assert_eq!(bits(&run_dir), expected);
    let error = run(&settings, &mut Watcher::default()).unwrap_err().to_string();
    assert!(error.contains("holds a run already") && error.contains("--from-resume 1"), "{error}");
}

#[test]
fn what_would_change_the_bits_is_refused_by_its_name() {
    let dir = TempDir::new().unwrap();
    let settings = stopped_after_seven(dir.path(), json!({}));
    let run_dir = dir.path().join("run");
    let refused = |changes: Value| run(&resumed(&settings, changes), &mut Watcher::default()).unwrap_err().to_string();
    for (name, value) in [("learning-rate", json!(0.5)), ("seed", json!(1)), ("max-steps", json!(20)), ("batch-size", json!(2))] {
        let message = refused(json!({ name: value }));
        assert!(message.contains(&format!("the run began with {name}")), "{message}");
    }
    // As many documents and bytes, one letter another.
    let corpus = dir.path().join("corpus.jsonl");
    let original = fs::read_to_string(&corpus).unwrap();
    fs::write(&corpus, original.replacen("cat", "cot", 1)).unwrap();
    let message = refused(json!({}));
    assert!(message.contains("other data"), "{message}");
    // The same data elsewhere are the same data; and no refusal has cost a checkpoint.
    let moved = dir.path().join("moved.jsonl");
    fs::write(&moved, original).unwrap();
    fs::remove_file(&corpus).unwrap();
    let mut watcher = Watcher::default();
    run(&resumed(&settings, json!({ "data-path": [moved], "keep": 1, "save-interval": 5 })), &mut watcher).unwrap();
    assert_eq!((watcher.steps, watcher.saved), (5, vec![10, 12]));
    assert_eq!(fs::read_dir(run_dir.join("checkpoints")).unwrap().count(), 2, "the lock and one checkpoint");
    let empty = dir.path().join("empty");
    let nothing = resumed(&settings, json!({ "out-dir": empty }));
    assert!(run(&nothing, &mut Watcher::default()).unwrap_err().to_string().contains("there is no run to resume"));
}

#[test]
fn a_run_on_other_weights_goes_on_without_them() {
    let dir = TempDir::new().unwrap();
    let first = run(&settings(dir.path(), "first", json!({ "max-steps": 2 })), &mut Watcher::default()).unwrap();
    let changes = json!({ "from-weight": first, "dropout": 0.1 });
    let expected = uninterrupted(dir.path(), changes.clone());
    let by_name = settings(dir.path(), "no-dropout", json!({ "from-weight": "first" }));
    assert_ne!(bits(&run(&by_name, &mut Watcher::default()).unwrap()), expected, "dropout is that of the run, not of the weights");
    let settings = stopped_after_seven(dir.path(), changes);
    fs::remove_dir_all(first).unwrap();
    let run_dir = run(&resumed(&settings, json!({})), &mut Watcher::default()).unwrap();
    assert_eq!(bits(&run_dir), expected);
}

#[test]
fn weights_bring_their_tokenizer() {
    let dir = TempDir::new().unwrap();
    let known = Tokenizer::train([Ok("the cat sees a small bird and sings ".repeat(20))], 280).unwrap();
    known.save(dir.path().join("known")).unwrap();
    let first = settings(dir.path(), "first", json!({ "max-steps": 2, "tokenizer": dir.path().join("known") }));
    let first = run(&first, &mut Watcher::default()).unwrap();
    let mut second = settings(dir.path(), "second", json!({ "max-steps": 2, "from-weight": first }));
    second.remove("tokenizer");
    let run_dir = run(&second, &mut Watcher::default()).unwrap();
    assert_eq!(Tokenizer::load(&run_dir).unwrap().fingerprint(), known.fingerprint());
    // They may be gone when the run is resumed.
    fs::remove_dir_all(&first).unwrap();
    run(&resumed(&second, json!({})), &mut Watcher::default()).unwrap();
    // Without one, bytes would be a guess.
    fs::remove_file(run_dir.join("tokenizer.json")).unwrap();
    let mut third = settings(dir.path(), "third", json!({ "max-steps": 2, "from-weight": run_dir }));
    third.remove("tokenizer");
    let message = run(&third, &mut Watcher::default()).unwrap_err().to_string();
    assert!(message.contains("holds no tokenizer.json"), "{message}");
    // Another one is the user's choice, even where the model may write what it has no text for.
    third.insert("tokenizer".into(), json!("bytes"));
    run(&third, &mut Watcher::default()).unwrap();
}

#[test]
fn a_run_at_its_end_says_again_how_it_ended() {
    let dir = TempDir::new().unwrap();
    let settings = settings(dir.path(), "run", json!({}));
    let ended = pretrain(std::slice::from_ref(&settings), &mut Watcher::default()).unwrap();
    let again = pretrain(&[resumed(&settings, json!({ "keep": 1 }))], &mut Watcher::default()).unwrap();
    assert_eq!((again.loss, again.val_loss), (ended.loss, ended.val_loss));
    assert!(again.loss.is_some() && again.val_loss.is_some());
}

/// Starts the program and kills it after a while, again and again, each time going on, until it comes to its end.
#[test]
fn kill_9_at_random_moments_leaves_the_same_bits() {
    let dir = TempDir::new().unwrap();
    let changes = json!({ "save-interval": 1, "epochs": 20, "max-steps": 60, "dropout": 0.1 });
    let expected = uninterrupted(dir.path(), changes.clone());
    let settings = settings(dir.path(), "run", changes);
    let (run_dir, random, mut kills) = (dir.path().join("run"), Philox::new(11), 0);
    loop {
        // Killed early enough, it has not even made its directory.
        let begun = run_dir.join("checkpoints").is_dir();
        let settings = if begun { resumed(&settings, json!({})) } else { settings.clone() };
        // The more often it was killed, the longer it may run.
        let patience = Duration::from_millis(100 + random.below(kills, 400 * (kills + 1)));
        let mut child = pretrain_command(&settings).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(patience);
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        match output.status.signal() {
            Some(9) => kills += 1,
            _ => break assert!(output.status.success(), "after {kills} kills: {}", text(&output)),
        }
    }
    assert!(kills > 2, "it was hardly killed");
    assert_eq!(bits(&run_dir), expected, "after {kills} kills");
}

#[test]
fn ctrl_c_saves_and_tells_how_to_go_on() {
    let dir = TempDir::new().unwrap();
    let changes = json!({ "save-interval": 0, "epochs": 200, "max-steps": 2000 });
    let settings = settings(dir.path(), "run", changes);
    let mut child = pretrain_command(&settings).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // A line after the first step: it is at work.
    assert!(lines.by_ref().any(|line| line.unwrap().starts_with("step 1:")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let run_dir = dir.path().join("run");
    let hint = format!("ferromind pretrain --out-dir {} --from-resume 1", run_dir.display());
    assert!(rest.iter().any(|line| line.starts_with("Stopped and saved after step") && line.ends_with(&hint)), "{rest:?}");
    assert_root_is_newest(&run_dir);
    assert!(run_dir.join("report.html").exists());
}
