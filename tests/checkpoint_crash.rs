//! Stops a process at every operation of a save, or fills its disk there, and looks at what is left.
//!
//! The process is this very test binary, run again with its job in the environment: see [`child`].
#![cfg(unix)]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs, io};

use ferromind::train::checkpoint::{Store, replace_root_file};
use ferromind::train::metrics::{MetricsLog, Record, read_records};
use tempfile::TempDir;

const DIR: &str = "CRASH_TEST_DIR";
const JOB: &str = "CRASH_TEST_JOB";
const KEEP: usize = 2;

/// Content of more than one write, of a size and bytes of its own for each step and version.
fn weights(step: u64, version: u8) -> Vec<u8> {
    (0..2_500_000 + step as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ step as u8 ^ version).collect()
}

fn in_pieces(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(100_000).try_for_each(|piece| out.write_all(piece))
}

fn save(store: &mut Store, step: u64, version: u8) -> ferromind::Result<()> {
    let weights = weights(step, version);
    store.save(step, &[("weights", &|out| in_pieces(out, &weights)), ("state", &|out| out.write_all(&[step as u8, version]))])
}

/// Step and version of the newest checkpoint, compared bit for bit.
fn latest(store: &Store) -> (u64, u8) {
    let latest = store.latest().unwrap();
    assert!(latest.rejected.is_empty(), "a crash leaves nothing that has to be refused: {:?}", latest.rejected);
    let checkpoint = latest.checkpoint.expect("a checkpoint was there before");
    let state = checkpoint.read("state").unwrap();
    let (step, version) = (u64::from(state[0]), state[1]);
    assert_eq!(checkpoint.step(), step);
    assert!(checkpoint.read("weights").unwrap() == weights(step, version));
    (step, version)
}

/// The job of the process under test. Not a test in itself: it returns at once where no job is given.
#[test]
fn child() {
    let (Ok(dir), Ok(job)) = (env::var(DIR), env::var(JOB)) else { return };
    let (dir, _named) = (Path::new(&dir), fail::FailScenario::setup());
    let done = match job.as_str() {
        "next" => save(&mut Store::open(dir, KEEP).unwrap(), 3, 0),
        "again" => save(&mut Store::open(dir, KEEP).unwrap(), 2, 1),
        "root" => replace_root_file(dir, "config.json", &|out| in_pieces(out, &weights(9, 1))).map(|_| ()),
        "metrics" => MetricsLog::resume(dir, 2).and_then(|mut log| log.append(&record(3, 30.0))),
        other => panic!("no such job: {other}"),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(3);
    }
}

fn run_child(dir: &Path, job: &str, (variable, value): (&str, &str)) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture"]).env(DIR, dir).env(JOB, job).env(variable, value);
    command.output().unwrap()
}

/// Runs `job` on a fresh directory of `prepare` with a fault at its first operation, its second, … until it comes through, and lets
/// `check` look at each directory after its fault. Returns the number of operations.
fn at_every_operation(job: &str, fault: &str, prepare: impl Fn(&Path), check: impl Fn(&Path, u64, &Output)) -> u64 {
    for k in 1..1000 {
        let dir = TempDir::new().unwrap();
        prepare(dir.path());
        let output = run_child(dir.path(), job, (fault, &k.to_string()));
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return k - 1;
        }
        match fault {
            "FERROMIND_STOP_AT" => assert_eq!(output.status.signal(), Some(6), "operation {k}: {stderr}"),
            _ => assert_eq!(output.status.code(), Some(3), "operation {k}: {stderr}"),
        }
        check(dir.path(), k, &output);
    }
    panic!("{job} never came through");
}

/// Checkpoints 1 and 2, so that saving 3 drops 1.
fn two_checkpoints(dir: &Path) {
    let mut store = Store::open(dir, KEEP).unwrap();
    save(&mut store, 1, 0).unwrap();
    save(&mut store, 2, 0).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The whole of what a resumed run needs: the old state or the new one, no litter once the store is open, and a next save.
fn assert_whole(dir: &Path, new: (u64, u8)) {
    let mut store = Store::open(dir, KEEP).unwrap();
    let found = latest(&store);
    assert!(found == (2, 0) || found == new, "{found:?}");
    let steps = store.steps().unwrap();
    steps.iter().for_each(|&step| drop(store.load(step).unwrap()));
    let visible: Vec<String> = steps.iter().map(|step| format!("step-{step}")).collect();
    assert_eq!(names(&dir.join("checkpoints")), [vec![".lock".to_string()], visible].concat());
    for step in [3, 4] {
        save(&mut store, step, 7).unwrap();
        assert_eq!(latest(&store), (step, 7));
    }
}

#[test]
fn a_save_that_is_stopped_leaves_the_old_checkpoint_or_the_new() {
    // A directory, files of 3, 1 and 1 writes (each with its creation and sync), their directory synced, renamed, that synced; then
    // the oldest renamed, synced, removed; or the replaced one renamed before and removed after.
    let stop = |job, new| at_every_operation(job, "FERROMIND_STOP_AT", two_checkpoints, |dir, _, _| assert_whole(dir, new));
    assert!(stop("next", (3, 0)) >= 18);
    assert!(stop("again", (2, 1)) >= 17);
}

#[test]
fn a_full_disk_is_told_and_leaves_no_litter() {
    for (job, new) in [("next", (3, 0)), ("again", (2, 1))] {
        at_every_operation(job, "FERROMIND_FAIL_AT", two_checkpoints, |dir, k, output| {
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(message.contains("no storage space") && message.contains("checkpoints"), "operation {k}: {message}");
            let left = names(&dir.join("checkpoints"));
            assert!(left.iter().all(|name| name == ".lock" || !name.starts_with('.')), "operation {k}: {left:?}");
            assert_whole(dir, new);
        });
    }
}

#[test]
fn a_named_failpoint_fails_by_its_name() {
    for name in ["create_dir", "create", "write", "sync", "rename", "sync_dir", "remove_dir"] {
        let dir = TempDir::new().unwrap();
        two_checkpoints(dir.path());
        let output = run_child(dir.path(), "next", ("FAILPOINTS", &format!("durable::{name}=return")));
        assert_eq!(output.status.code(), Some(3), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_whole(dir.path(), (3, 0));
    }
}

#[test]
fn a_root_file_is_the_old_or_the_new_never_torn() {
    for fault in ["FERROMIND_STOP_AT", "FERROMIND_FAIL_AT"] {
        let prepare = |dir: &Path| fs::write(dir.join("config.json"), weights(9, 0)).unwrap();
        let operations = at_every_operation("root", fault, prepare, |dir, k, _| {
            let content = fs::read(dir.join("config.json")).unwrap();
            assert!(content == weights(9, 0) || content == weights(9, 1), "operation {k}");
            let left = names(dir).len();
            assert!(left == 1 || fault == "FERROMIND_STOP_AT" && left == 2, "operation {k}");
            Store::open(dir, KEEP).unwrap();
            assert_eq!(names(dir), ["checkpoints", "config.json"], "operation {k}");
        });
        assert!(operations >= 7, "{operations}"); // create, 3 writes, sync, rename, sync of the directory
    }
}

fn record(step: u64, loss: f64) -> Record {
    Record { step, loss: Some(loss), ..Record::default() }
}

#[test]
fn metrics_keep_every_whole_line_up_to_the_resumed_step() {
    let prepare = |dir: &Path| {
        let mut log = MetricsLog::create(dir).unwrap();
        (1..=5).for_each(|step| log.append(&record(step, step as f64)).unwrap());
    };
    for fault in ["FERROMIND_STOP_AT", "FERROMIND_FAIL_AT"] {
        let operations = at_every_operation("metrics", fault, prepare, |dir, k, _| {
            MetricsLog::resume(dir, 2).unwrap();
            let steps: Vec<u64> = read_records(&dir.join("metrics.jsonl")).unwrap().iter().map(|line| line.step).collect();
            assert_eq!(steps, [1, 2], "operation {k}");
        });
        assert!(operations >= 6, "{operations}"); // a rewrite and the line of step 3
    }
}
