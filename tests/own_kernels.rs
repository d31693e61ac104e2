//! `lab check --kernel` and `lab bench`: what a person reads whose kernel is not what it should be.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const RIGHT: &str = include_str!("../learn/kernels/rmsnorm_3_right.cu");

/// Exit status, standard output and standard error.
fn lab(arguments: &[&str]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_ferromind")).arg("lab").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (run.status.code(), text(&run.stdout), text(&run.stderr))
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_clear_words() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("mine.cu");
    let path = path.to_str().unwrap();
    let swapped = "const element* x,  // [R, WIDTH]\n                                           const element* w,  // [WIDTH]\n";
    assert!(RIGHT.contains(swapped));
    let launch = "// launch: grid R, block THREADS\n";
    assert!(RIGHT.contains(launch));
    // The mistake, and what is said of it: on standard error where nothing was run, else in the case's lines.
    for (from, to, phrases) in [
        (
            swapped,
            "const element* x,  // [R, WIDTH]\n const float* w,\n",
            &[
                "mine.cu:11: `rmsnorm_forward` has other parameters than ours",
                "yours: void rmsnorm_forward(element* y, float* rstd",
                "ours:  void",
            ][..],
        ),
        (
            " rmsnorm_forward(",
            " rmsnorm_fwd(",
            &["mine.cu:11: none of our kernels is called `rmsnorm_fwd`", ": there are rmsnorm_forward, rmsnorm_backward"],
        ),
        ("extern \"C\" __global__", "__device__", &["mine.cu: no kernel (`extern \"C\" __global__ void name(…)`)"]),
        ("extern \"C\" ", "", &["mine.cu:11: a kernel must be declared `extern \"C\" __global__ void name(…)`"]),
        (launch, "", &["mine.cu:10: `rmsnorm_forward`: no comment `// launch: grid …, block …` above it"]),
        ("grid R,", "grid rows,", &["mine.cu:11: kernel `rmsnorm_forward`: `rows` is neither an integer parameter"]),
        ("block THREADS", "blocks THREADS", &["mine.cu:11: launch: `blocks` where grid, block, shared or registers was expected"]),
        ("float mine = 0.0f;", "float mine = 0.0f", &["mine.cu(20): error: expected a \";\""]),
        ("block THREADS", "block 2048", &["kernel `rmsnorm_forward`", "2048"]),
        ("squares / WIDTH", "squares / (WIDTH + 1)", &["`y` is off by", "`rstd` is off by"]),
        ("y[c] = ", "y[c + 1] = ", &["out of bounds", "mine.cu:24"]),
        ("scratch);", "scratch); if (squares > 0.0f) asm(\"trap;\");", &["trap"]),
    ] {
        assert!(RIGHT.contains(from), "{from}");
        fs::write(path, RIGHT.replacen(from, to, 1)).unwrap();
        for (command, only) in [("check", "17x96 f32"), ("bench", "rmsnorm forward 4096x768")] {
            // A benchmark does not look at results.
            if command == "bench" && phrases[0].contains("is off by") {
                continue;
            }
            let (status, out, err) = lab(&[command, "--op", "rmsnorm", "--only", only, "--kernel", path]);
            let said = format!("{out}{err}");
            assert_eq!(status, Some(1), "{command}, {to}: {said}");
            assert!(!said.contains("panicked"), "{said}");
            phrases.iter().for_each(|phrase| assert!(said.contains(phrase), "{command}, {to}: no `{phrase}` in\n{said}"));
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let right = "learn/kernels/rmsnorm_3_right.cu";
    for (arguments, phrase) in [
        (&["check", "--kernel", "nowhere.cu"][..], "nowhere.cu"),
        (&["check", "--op", "rmsnrom"], "no operation `rmsnrom`: there are "),
        (&["check", "--only", "17x97"], "no case has `17x97` in its line"),
        (
            &["check", "--op", "rmsnorm", "--only", "backward 17x96", "--kernel", right],
            "launches a kernel of this file, which has rmsnorm_forward",
        ),
        (
            &["bench", "--op", "rmsnorm", "--only", "backward 8192", "--kernel", right],
            "launches a kernel of this file, which has rmsnorm_forward",
        ),
        (&["bench", "--only", "17x96"], "none of these cases is measured"),
        (&["bench", "--ladder", "--only", "backward"], "no ladder here"),
        (&["bench", "--ladder", "--kernel", right], "cannot be used with"),
        (&["bench", "--device", "cpu"], "kernels do not run on the device cpu"),
    ] {
        let (status, out, err) = lab(arguments);
        assert!(status.is_some_and(|status| status > 0) && out.is_empty(), "{arguments:?}: {out}");
        assert!(err.contains(phrase) && !err.contains("panicked"), "{arguments:?}: {err}");
    }
}

#[test]
fn a_compilers_log_is_shown_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("mine.cu");
    fs::write(&path, RIGHT.replace("float mine", "flaot mine")).unwrap();
    let (_, out, _) = lab(&["check", "--op", "rmsnorm", "--only", "17x96", "--kernel", path.to_str().unwrap()]);
    let before_json = &out[..out.find("\n{").unwrap()];
    assert_eq!(before_json.matches("flaot").count(), before_json.split("f16").next().unwrap().matches("flaot").count(), "{out}");
}

#[test]
fn the_last_line_is_json() {
    let bench = |arguments: &[&str]| -> Value {
        let (status, out, err) = lab(&[&["bench", "--op", "rmsnorm", "--only", "forward 4096x768"], arguments].concat());
        assert_eq!(status, Some(0), "{err}");
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    };
    let ours = bench(&["--json"]);
    assert_eq!((&ours["modelled"], &ours["copy_bandwidth"], &ours["failed"]), (&Value::Bool(true), &Value::Null, &0.into()));
    let both = bench(&["--kernel", "learn/kernels/rmsnorm_3_right.cu"]);
    let kernels = both["cases"][0]["kernels"].as_array().unwrap();
    assert_eq!(kernels[0]["timing"], ours["cases"][0]["kernels"][0]["timing"]);
    let seconds = |of: &Value| of["timing"]["seconds"]["median"].as_f64().unwrap();
    assert_eq!(kernels[1]["speedup"].as_f64().unwrap(), seconds(&kernels[0]) / seconds(&kernels[1]));
    // What is moved per second is the operands' bytes: x and y, w, rstd.
    let bytes = (2 * 4096 * 768 + 768) * 2 + 4096 * 4;
    assert_eq!(kernels[0]["bytes_per_second"].as_f64().unwrap(), f64::from(bytes) / seconds(&kernels[0]));
}
