//! The examples run, and their last lines say that they did what they promise. `cargo test` builds them first.

use std::process::Command;

/// What an example prints.
fn output(name: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let example = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        example.exists(),
        "{} is missing: `cargo build --examples` makes it, and so does a `cargo test` of everything",
        example.display()
    );
    let output = Command::new(example).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_model_learns_a_verse_by_heart() {
    let output = output("01_train_a_model");
    let losses: Vec<f64> = output.lines().filter_map(|line| line.split("loss ").nth(1)?.parse().ok()).collect();
    assert!(losses.len() == 10 && losses[9] < 0.1 && losses[9] < losses[0], "{losses:?}");
    assert_eq!(output.lines().last(), Some("215 of 215 characters are right"));
}

#[test]
fn an_op_of_ones_own_is_checked() {
    assert_eq!(output("02_your_own_op").lines().last(), Some("soft_cap passes, forgetful is caught"));
}
