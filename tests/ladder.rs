//! The ladders: every rung is right wherever the shipped kernel is, and improves what it says by as much as it says.

use std::path::Path;

use ferromind::gpu::{DeviceKind, ElementType};
use ferromind::lab::bench_kernels::{Timing, time};
use ferromind::lab::check::{Session, check};
use ferromind::lab::ladder::{LADDERS, Ladder, Rung};
use ferromind::ops::table::{self, Case};

/// Larger cases would take a naive kernel minutes, in as many orders as `check` runs.
fn is_small(case: &Case) -> bool {
    (case.problem)().flops <= if case.element == ElementType::BF16 { 1 << 22 } else { 1 << 20 }
}

fn session(rung: &Rung) -> Session {
    Session::new(DeviceKind::Emulator, rung.replacement().unwrap()).unwrap()
}

/// Rungs that stand in for the shipped kernel.
fn replacements(ladder: &Ladder) -> impl Iterator<Item = &Rung> {
    ladder.rungs.iter().filter(|rung| rung.replacement().unwrap().is_some())
}

#[test]
fn every_rung_is_right() {
    let table = table::all();
    for ladder in LADDERS {
        for rung in replacements(ladder) {
            let has = |case: &&Case| ladder.climbs(case) && rung.elements.contains(&case.element);
            let cases: Vec<&Case> = table.iter().filter(has).filter(|case| is_small(case)).collect();
            let outcomes = check(&cases, &session(rung), |_| ());
            assert!(outcomes.len() >= 4, "{}: only {} cases", rung.source.name, outcomes.len());
            for outcome in outcomes {
                let case = format!("{} in {} {}", rung.source.name, outcome.shape, outcome.element);
                assert!(outcome.replaced && outcome.failures.is_empty(), "{case}: {:#?}", outcome.failures);
            }
        }
    }
}

#[test]
fn every_rung_improves_what_it_says() {
    let table = table::all();
    for ladder in LADDERS {
        let case = table.iter().find(|case| ladder.compares(case)).expect("the case that is compared");
        let timings: Vec<Timing> =
            ladder.rungs.iter().map(|rung| time(case, &session(rung), None).unwrap().expect("it is measured")).collect();
        assert!(ladder.rungs[0].improves.is_none(), "the first rung has none before it");
        for (rung, pair) in ladder.rungs[1..].iter().zip(timings.windows(2)) {
            let (counter, factor) = rung.improves.expect("what the rung improves");
            let [before, after] = [&pair[0], &pair[1]].map(|timing| counter.of(timing.counted.as_ref().unwrap()) as f64);
            assert!(before >= factor * after, "{}: {counter} from {before} to {after}, not {factor} times", rung.source.name);
            // Neither does it say much less than it does.
            assert!(before <= 1.5 * factor * after, "{}: {counter} from {before} to {after}, {factor} times", rung.source.name);
        }
    }
}

#[test]
fn every_file_is_a_rung_and_says_what_it_improves() {
    assert_eq!(std::fs::read_dir("kernels/ladder").unwrap().count(), LADDERS.len());
    for ladder in LADDERS {
        let names: Vec<&str> = replacements(ladder).map(|rung| rung.source.name).collect();
        let folder = Path::new(names[0]).parent().unwrap();
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path().display().to_string());
        let mut files: Vec<String> = files.filter(|file| file.ends_with(".cu")).collect();
        files.sort();
        assert_eq!(files, names);
        assert!((4..=6).contains(&ladder.rungs.len()));
        assert_eq!(names.len() + 1, ladder.rungs.len(), "the last rung is the shipped file");
        for rung in replacements(ladder) {
            let Some((counter, factor)) = rung.improves else { continue };
            let head: String = rung.source.text.lines().map_while(|line| line.strip_prefix("//")).collect();
            let says = format!("{factor} times fewer {counter}");
            assert!(head.contains(&says), "{}: its head does not say `{says}`", rung.source.name);
        }
    }
}
