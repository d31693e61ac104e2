//! Every case of every operation's kernels on the emulator: what `ferromind lab check` runs, and the table of counters that
//! `kernels/README.md` shows.

use std::sync::OnceLock;

use ferromind::gpu::{DeviceKind, Replacement};
use ferromind::lab::check::beside::Beside;
use ferromind::lab::check::{Outcome, Session, check, table as markdown};
use ferromind::ops::table::{self, Case};

fn outcomes() -> &'static [Outcome] {
    static OUTCOMES: OnceLock<Vec<Outcome>> = OnceLock::new();
    OUTCOMES.get_or_init(|| {
        let table = table::all();
        let cases: Vec<&Case> = table.iter().collect();
        check(&cases, &Session::new(DeviceKind::Emulator, None).unwrap(), |_| ())
    })
}

#[test]
fn every_case_passes() {
    let failed: Vec<String> = outcomes()
        .iter()
        .filter(|outcome| !outcome.pass())
        .map(|o| {
            format!("{} {} {} {}: {}", o.op, o.pass, o.shape, o.element, [&o.failures[..], &o.waste[..]].concat().join("\n  "))
        })
        .collect();
    assert!(failed.is_empty(), "{} cases fail\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_readme_shows_these_counters() {
    let readme = include_str!("../kernels/README.md");
    let expected = markdown::replaced(readme, &markdown::markdown(outcomes())).expect("marks");
    assert!(readme == expected, "run `ferromind lab check --write-table kernels/README.md`");
}

/// Runs the smallest cases of an operation with kernels that are ours but for one replaced piece of text.
fn with_fault(op: &str, only: &str, file: &str, from: &str, to: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{file} has no `{from}`");
    let replacement = Replacement::new("mine.cu", text.replace(from, to)).unwrap();
    let session = Session::new(DeviceKind::Emulator, Some(replacement)).unwrap();
    let table = table::all();
    let cases: Vec<&Case> = table.iter().filter(|case| case.op == op && format!("{} {}", case.pass, case.shape) == only).collect();
    assert!(!cases.is_empty());
    check(&cases, &session, |_| ()).into_iter().flat_map(|outcome| outcome.failures).collect()
}

/// Each thing that a case is examined for is seen to fail.
#[test]
fn planted_faults_are_found() {
    let rmsnorm = |only: &str, from: &str, to: &str| with_fault("rmsnorm", only, "kernels/rmsnorm.cu", from, to);
    let cases = [
        // A result that is slightly off.
        ("forward 17x96", "+ eps);", "+ 1.05f * eps + 1e-3f);", "`y` is off by"),
        // A race.
        ("forward 5x511", "        __syncthreads();  // every warp's sum is there\n", "", "race"),
        // Memory that is not the kernel's.
        ("backward 17x96", "if (inside) {\n            load_row(input", "if (true) {\n            load_row(input", "out of bounds"),
        // A register budget.
        ("forward 17x96", "block THREADS, registers 128", "block THREADS, registers 8", "its budget is 8"),
        // A register budget that is none.
        ("forward 17x96", "block THREADS, registers 128", "block THREADS, registers PLENTY", "`PLENTY` is neither"),
        // An input that is written.
        (
            "forward 17x96",
            "if (lane == 0) rstd[row] = scale;",
            "if (lane == 0) { rstd[row] = scale; const_cast<element*>(x)[begin] = from_float<element>(1.0f); }",
            "`x` is an input",
        ),
    ];
    for (only, from, to, words) in cases {
        let failures = rmsnorm(only, from, to);
        assert!(failures.iter().any(|failure| failure.contains(words)), "{words}: {failures:#?}");
    }
}

/// A file that has some kernels of one of ours, and its name too: each kernel is taken from where it is.
#[test]
fn a_replacement_may_have_the_name_of_ours() {
    let name = "kernels/rmsnorm.cu";
    let text = std::fs::read_to_string(name).unwrap();
    let (begin, end) = (text.find("// launch: grid P").unwrap(), text.find("constexpr int LANES").unwrap());
    let replacement = Replacement::new(name, format!("{}{}", &text[..begin], &text[end..])).unwrap();
    assert!(replacement.kernels().all(|kernel| kernel != "rmsnorm_backward"));
    let session = Session::new(DeviceKind::Emulator, Some(replacement)).unwrap();
    let table = table::all();
    let is_meant = |case: &&Case| (case.op, case.pass, case.shape.as_str()) == ("rmsnorm", "backward", "17x96");
    let outcomes = check(&table.iter().filter(is_meant).collect::<Vec<_>>(), &session, |_| ());
    assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.replaced && outcome.pass()), "{outcomes:#?}");
}

/// Two machines are compared to the bit: the same kernels give the same bits, another rounding shows.
#[test]
fn differences_between_machines_are_told() {
    let table = table::all();
    let case = table.iter().find(|case| (case.op, case.pass, case.shape.as_str()) == ("rmsnorm", "forward", "17x96")).unwrap();
    let ours = Session::new(DeviceKind::Emulator, None).unwrap();
    assert_eq!(Beside::of(case, &ours, &ours).unwrap().differing().count(), 0);
    let text = std::fs::read_to_string("kernels/rmsnorm.cu").unwrap();
    let other = text.replace("a[i] = b[i] * (a[i] * scale)", "a[i] = (b[i] * scale) * a[i]");
    assert_ne!(text, other);
    let other = ours.replacing(Some(Replacement::new("other.cu", other).unwrap()));
    let beside = Beside::of(case, &ours, &other).unwrap();
    let [y] = beside.differing().collect::<Vec<_>>()[..] else { panic!("{beside:?}") };
    assert!(y.name == "y" && y.different < y.elements && 0.0 < y.max && y.max < 1e-6 * y.scale, "{y:?}");
}
