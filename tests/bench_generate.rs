//! `ferromind bench generate`, and generation with bf16 weights, from the command line.

mod common;

use common::ferromind;
use serde_json::Value;

/// The last line of a bench of the smallest model.
fn bench(extra: &[&str]) -> Value {
    let flags = "bench generate --preset tiny --prompt-len 5 --new-tokens 7 --repetitions 2 --num-workers 2 --json";
    let output = ferromind(flags.split(' ')).args(extra).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_last_line_says_what_was_measured() {
    for (dtype, batch_size) in [("float32", 1), ("bfloat16", 3)] {
        let figures = bench(&["--dtype", dtype, "--batch-size", &batch_size.to_string()]);
        assert_eq!((&figures["dtype"], &figures["batch_size"]), (&dtype.into(), &batch_size.into()));
        let settings = ["prompt_len", "new_tokens", "repetitions", "threads"].map(|key| figures[key].as_u64().unwrap());
        assert_eq!(settings, [5, 7, 2, 2]);
        assert_eq!((&figures["preset"], &figures["device"]), (&"tiny".into(), &"cpu".into()));
        assert!(figures["params"].as_u64().unwrap() > 1_000_000);
        assert!(["tok_s", "prefill_tok_s"].iter().all(|key| figures[key].as_f64().unwrap() > 0.0), "{figures}");
        assert!(!cfg!(target_os = "linux") || figures["peak_mib"].as_u64().unwrap() > 0);
    }
}

#[test]
fn impossible_benches_are_named() {
    for (flags, named) in [
        ("--batch-size 0", "batch-size"),
        ("--new-tokens 0", "new-tokens"),
        ("--prompt-len 100000", "32768 positions"),
        ("--dtype float16", "bfloat16"),
        ("--preset none", "no preset"),
    ] {
        let output = ferromind("bench generate".split(' ').chain(flags.split(' '))).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(named), "{flags}: {error}");
    }
}
