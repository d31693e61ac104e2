//! The fault suite: correct kernels give no finding in any order, and every fault in them is found or explained: in kernels that are
//! there to try the emulator (the corpus), and in those that we ship. Also that the corpus is well formed, and that its comparisons
//! see a wrong result.
//!
//! There are more faults in our own kernels than time allows to try. `FAULTS=rmsnorm cargo test --test faults ours` tries all those
//! in `kernels/rmsnorm.cu`.

#[path = "emulator/corpus/mod.rs"]
mod corpus;
#[path = "emulator/equivalent.rs"]
mod equivalent;
#[path = "emulator/ours/mod.rs"]
mod ours;
#[path = "emulator/run.rs"]
mod run;
#[path = "emulator/shadow.rs"]
mod shadow;
#[path = "emulator/suite.rs"]
mod suite;

use std::collections::HashSet;

use corpus::{Arch, Argument, Case, Contents, Expected, Launch, Swizzle};
use equivalent::{CORPUS, Equivalents, OURS};
use ferromind::gpu::nvrtc::{Compiler, Options, Source};
use ptx_emulator::Order;
use rayon::prelude::*;
use run::{Conditions, Execute, Outcome};
use suite::{ENOUGH, Subject, Table};

/// The cases with their PTX, compiled to machine code too, for the assembler alone checks inline PTX.
fn compiled() -> Vec<(Case, String)> {
    let compiler = Compiler::new().unwrap_or_else(|error| panic!("{error}"));
    let compile = |case: Case| {
        let arch = match case.arch {
            Arch::Compute80 => "sm_80",
            Arch::Compute90a => "sm_90a",
        };
        let options = Options::new(arch.parse().expect("a target"));
        let options = case.defines.iter().fold(options, |options, (name, value)| options.define(name, value));
        let source = Source { name: case.name, text: case.source, headers: &corpus::HEADERS };
        let ptx = compiler.compile(&source, &options).unwrap_or_else(|error| panic!("{}: {error}", case.name)).ptx;
        (case, ptx)
    };
    corpus::all().into_par_iter().map(compile).collect()
}

/// A case of the corpus as a subject of faults.
fn subject<'a>(case: &'a Case, ptx: &str) -> Subject<'a> {
    let kernels = case.launches.iter().map(|launch| launch.kernel.to_owned());
    Subject::new(case.name, ptx, kernels, [case as &dyn Execute]).unwrap_or_else(|wrong| panic!("{}: {wrong}", case.name))
}

/// Outputs do not depend on the order in which blocks and warps run, to the bit.
#[test]
fn intact_kernels_are_right_and_without_findings() {
    compiled().par_iter().for_each(|(case, ptx)| {
        let subject = subject(case, ptx);
        let natural = Conditions { order: Order::Natural, max_instructions: ENOUGH, workers: 2 };
        let outcome = case.run(&subject.program, natural).outcome;
        assert!(matches!(outcome, Outcome::Right(_)), "{}: {outcome:?}", case.name);
        for seed in 1..=8 {
            let seeded = Conditions { order: Order::Seeded(seed), ..natural };
            assert_eq!(case.run(&subject.program, seeded).outcome, outcome, "{} in order {seed}", case.name);
        }
    });
}

/// Prints how many faults of each kind there are, and what became of them.
#[test]
fn every_fault_is_found_or_explained() {
    let mut equivalents = Equivalents::new(CORPUS);
    let mut table = Table::default();
    let mut unexplained = Vec::new();
    for (case, ptx) in &compiled() {
        unexplained.extend(table.add(&subject(case, ptx), u64::MAX, &mut equivalents, |_| None));
    }
    conclude(&table, &unexplained, &equivalents);
}

/// The same for the kernels that we ship, in cases of the operations' table: of a large kernel a sample of its faults.
#[test]
fn every_fault_of_ours_is_found_or_explained() {
    let chosen = std::env::var("FAULTS").ok();
    let effort = if chosen.is_some() { u64::MAX } else { ours::EFFORT };
    let mut equivalents = Equivalents::new(OURS);
    let mut table = Table::default();
    let mut unexplained = Vec::new();
    let files = ours::files(chosen.as_deref());
    for file in &files {
        let effort = effort / files.iter().filter(|other| other.name == file.name).count() as u64;
        let executions = file.replays.iter().map(|replay| replay as &dyn Execute);
        let subject = Subject::new(&file.name, &file.ptx, file.kernels(), executions);
        let subject = subject.unwrap_or_else(|wrong| panic!("{}: {wrong}", file.name));
        let survivors = table.add(&subject, effort, &mut equivalents, ours::source);
        if ours::PENDING.contains(&file.name.as_str()) {
            survivors.iter().for_each(|fault| println!("to be explained: {fault}"));
        } else {
            unexplained.extend(survivors);
        }
    }
    if let Some(chosen) = &chosen {
        equivalents.keep(chosen);
    }
    conclude(&table, &unexplained, &equivalents);
}

fn conclude(table: &Table, unexplained: &[String], equivalents: &Equivalents) {
    println!("{table}");
    assert!(unexplained.is_empty(), "faults that nobody found:\n{}", unexplained.join("\n"));
    assert_eq!(equivalents.stale(), Vec::<&str>::new(), "entries of the list that explain nothing");
}

/// The parameters of a kernel's prototype in its source; attributes and line breaks may come before the name.
fn parameters<'a>(case: &'a Case, launch: &Launch) -> Vec<&'a str> {
    let prototype =
        case.source.split(&format!(" {}(", launch.kernel)).nth(1).or(case.source.split(&format!("\n{}(", launch.kernel)).nth(1));
    let list =
        prototype.and_then(|text| text.split(')').next()).unwrap_or_else(|| panic!("{}: no kernel {}", case.name, launch.kernel));
    list.split(',').map(str::trim).collect()
}

#[test]
fn launches_fit_their_prototypes() {
    let mut names = HashSet::new();
    for case in corpus::all() {
        assert!(names.insert(case.name), "{} twice", case.name);
        assert_eq!(case.source.contains("ptx_sm90.cuh"), case.arch == Arch::Compute90a, "{}", case.name);
        for (name, _) in &case.defines {
            assert!(case.source.contains(name), "{}: no {name}", case.name);
        }
        for launch in &case.launches {
            let parameters = parameters(&case, launch);
            assert_eq!(parameters.len(), launch.arguments.len(), "{}", case.name);
            for (parameter, argument) in parameters.iter().zip(&launch.arguments) {
                let fits = match argument {
                    Argument::I32(_) => parameter.starts_with("int "),
                    Argument::U32(_) => parameter.starts_with("u32 "),
                    Argument::U64(_) => parameter.starts_with("u64 "),
                    Argument::F32(_) => parameter.starts_with("float ") && !parameter.contains('*'),
                    Argument::Buffer(name) => {
                        let read_only = matches!(case.find(name).expect(name).contents, Contents::Input(_));
                        parameter.ends_with(&format!("* {name}")) && (!read_only || parameter.starts_with("const "))
                    }
                    Argument::TensorMap(map) => parameter.ends_with(&format!("__grid_constant__ TensorMap {}_map", map.buffer)),
                };
                assert!(fits, "{}: {parameter} takes {argument:?}", case.name);
            }
        }
    }
}

#[test]
fn launches_are_small_and_legal() {
    for case in corpus::all() {
        for launch in &case.launches {
            let blocks: u32 = launch.grid.iter().product();
            let threads: u32 = launch.block.iter().product();
            assert!((1..=8).contains(&blocks) && (32..=256).contains(&threads) && launch.shared <= 227 << 10, "{}", case.name);
            assert!(launch.grid.iter().zip(launch.cluster).all(|(blocks, cluster)| blocks % cluster == 0), "{}", case.name);
            let sm90 = launch.cluster != [1; 3] || launch.dependent;
            // What blocks or launches have to do with each other shows with several blocks only.
            assert!(!(sm90 || launch.cooperative) || blocks > 1, "{}", case.name);
            assert!(!sm90 || case.arch == Arch::Compute90a, "{}", case.name);
            for argument in &launch.arguments {
                let Argument::TensorMap(map) = argument else { continue };
                let size = map.element.size();
                let (pitch, rows) = (map.strides[0] as usize, map.dims[1] as usize);
                assert_eq!(case.find(map.buffer).expect(map.buffer).len(), pitch * rows, "{}", case.name);
                assert!(pitch.is_multiple_of(16) && map.dims[0] as usize * size <= pitch, "{}", case.name);
                assert_eq!((map.dims.len(), map.strides.len(), map.tile.len()), (2, 1, 2), "{}", case.name);
                let inner = map.tile[0] as usize * size;
                assert!(inner.is_multiple_of(16) && (map.swizzle == Swizzle::None || inner <= 128), "{}", case.name);
            }
        }
    }
}

#[test]
fn everything_written_is_expected() {
    for case in corpus::all() {
        assert!(!case.expected.is_empty(), "{}", case.name);
        for expected in &case.expected {
            let buffer = case.find(expected.buffer).expect(expected.buffer);
            assert_eq!(buffer.len(), expected.len(), "{} {}", case.name, expected.buffer);
            let written = matches!(buffer.contents, Contents::Output(_) | Contents::InOut(_));
            assert!(written, "{}: {} is not written", case.name, expected.buffer);
            if let Some((values, bounds)) = &expected.near {
                assert!(values.iter().chain(bounds).all(|x| x.is_finite()), "{} {}", case.name, expected.buffer);
            }
        }
        for buffer in &case.buffers {
            let expected = case.expected.iter().any(|expected| expected.buffer == buffer.name);
            let output = matches!(buffer.contents, Contents::Output(_));
            assert!(expected || !output, "{}: nobody looks at {}", case.name, buffer.name);
        }
    }
}

/// Planted faults: an element poisoned, a buffer cut short, two neighbours exchanged.
#[test]
fn comparisons_see_wrong_results() {
    for case in corpus::all() {
        for expected in &case.expected {
            let what = format!("{} {}", case.name, expected.buffer);
            let right = expected.bytes.clone();
            let size = expected.element.size();
            assert_eq!(expected.check(&right), Ok(()), "{what}");
            assert!(expected.check(&right[..right.len() - 1]).is_err(), "{what}: cut");
            for at in [0, right.len() / size / 2 * size, right.len() - size] {
                let mut poisoned = right.clone();
                poisoned[at..at + size].fill(0xff);
                assert!(expected.check(&poisoned).is_err(), "{what}: poisoned at {at}");
            }
            swap_is_seen(expected, &what);
        }
    }
}

/// An exchange of neighbours is seen wherever their results lie further apart than rounding explains, and most do.
fn swap_is_seen(expected: &Expected, what: &str) {
    let size = expected.element.size();
    let pairs = (expected.len() / size).saturating_sub(1);
    let mut distinct = 0;
    for first in 0..pairs {
        let mut swapped = expected.bytes.clone();
        let (a, b) = swapped[first * size..][..2 * size].split_at_mut(size);
        a.swap_with_slice(b);
        let apart = match &expected.near {
            None => swapped != expected.bytes,
            Some((values, bounds)) => (values[first] - values[first + 1]).abs() > bounds[first] + bounds[first + 1],
        };
        if apart {
            distinct += 1;
            assert!(expected.check(&swapped).is_err(), "{what}: elements {first} and the next");
        }
    }
    let state = ["semaphore", "count", "kept"].contains(&expected.buffer);
    assert!(state || 2 * distinct >= pairs, "{what}: {distinct} of {pairs} pairs differ");
}
