//! A real run that dies, or finds its disk full, at operations on its files drawn at random: what is left goes on to the same bits.
#![cfg(unix)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use common::{bits, pretrain_command, settings, text};
use ferromind::rng::Philox;
use serde_json::{Value, json};
use tempfile::TempDir;

/// More operations than the run has.
const NEVER: u64 = 1 << 40;

/// A run of four steps, saved at every other.
fn run(dir: &Path, out: &str, (fault, at): (&str, u64), resume: bool) -> Output {
    let mut settings = settings(dir, out, json!({ "max-steps": 4, "save-interval": 2, "keep": 1, "dropout": 0.1 }));
    settings.insert("from-resume".into(), Value::from(u8::from(resume)));
    pretrain_command(&settings).env(fault, at.to_string()).output().unwrap()
}

/// How many operations a whole run has: the first at which a fault changes nothing.
fn operations(dir: &Path) -> u64 {
    let (mut fails, mut passes) = (1, 512);
    while passes - fails > 1 {
        let middle = (fails + passes) / 2;
        let out = format!("probe-{middle}");
        match run(dir, &out, ("FERROMIND_FAIL_AT", middle), false).status.success() {
            true => passes = middle,
            false => fails = middle,
        }
    }
    fails
}

#[test]
fn a_fault_at_any_operation_costs_no_bit() {
    let dir = TempDir::new().unwrap();
    assert!(run(dir.path(), "whole", ("FERROMIND_STOP_AT", NEVER), false).status.success());
    let expected = bits(&dir.path().join("whole"));
    let operations = operations(dir.path());
    assert!(operations > 40, "{operations}");
    let random = Philox::new(operations);
    for i in 0..16 {
        // One in each sixteenth of the run.
        let at = 1 + (i * operations + random.below(i, operations)) / 16;
        let (fault, out) = (["FERROMIND_STOP_AT", "FERROMIND_FAIL_AT"][i as usize % 2], format!("run-{i}"));
        let failed = run(dir.path(), &out, (fault, at), false);
        match fault {
            "FERROMIND_STOP_AT" => assert_eq!(failed.status.signal(), Some(6), "operation {at}: {}", text(&failed)),
            _ => {
                assert_eq!(failed.status.code(), Some(1), "operation {at}: {}", text(&failed));
                assert!(text(&failed).contains("no storage space"), "operation {at}: {}", text(&failed));
            }
        }
        let begun = dir.path().join(&out).join("checkpoints").is_dir();
        let finished = run(dir.path(), &out, ("FERROMIND_STOP_AT", NEVER), begun);
        assert!(finished.status.success(), "operation {at}: {}", text(&finished));
        assert_eq!(bits(&dir.path().join(&out)), expected, "{fault} {at}");
    }
}
