//! The kernels that we ship, in small cases of the operations' table, as subjects of faults.
//!
//! Whatever the table holds is taken up: of each pass of each operation, in two types, the smallest case that is not too small.

pub mod record;
pub mod replay;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ferromind::gpu::nvrtc::Compiler;
use ferromind::gpu::{Context, ElementType, kernels};
use ferromind::lab::check::{self, Expected};
use ferromind::ops::table::{self, Case, Traffic};
use rayon::prelude::*;
use record::Recorder;
use replay::{Recorded, Replay};

use crate::run::{Conditions, Execute, Outcome};
use crate::suite::ENOUGH;
use ptx_emulator::Order;

/// Warp instructions that the faults of one file may take together, in all ways that it is compiled.
pub const EFFORT: u64 = 12_000_000;
/// The types in which a pass is looked at, and the least product of a shape's numbers: of smaller ones loops and tails are no part.
const CHOICE: [(ElementType, u64); 2] = [(ElementType::F32, 13_000), (ElementType::BF16, 30_000)];

/// Files whose survivors nobody has gone through yet: they are printed, and fail nothing.
pub const PENDING: [&str; 15] = [
    "adamw",
    "attention_backward",
    "attention_forward",
    "decode_attention",
    "decode_latent",
    "embedding",
    "gradient_norm",
    "grouped_matmul",
    "head_norm_rope",
    "matmul",
    "matmul_swiglu",
    "moe_combine",
    "moe_dispatch",
    "moe_router",
    "reduce",
];

/// A file compiled in one way, with all that launches its kernels.
pub struct File {
    /// `rmsnorm`
    pub name: String,
    pub ptx: String,
    pub replays: Vec<Replay>,
}

impl File {
    /// The kernels that are launched.
    pub fn kernels(&self) -> BTreeSet<String> {
        self.replays.iter().flat_map(|replay| replay.case.recording.kernels(replay.file)).map(str::to_owned).collect()
    }
}

/// The files that the chosen cases launch kernels of, or one of them by its name.
pub fn files(name: Option<&str>) -> Vec<File> {
    let compiler = Arc::new(Compiler::new().unwrap_or_else(|error| panic!("{error}")));
    let cases = table::all();
    let recorded: Vec<Arc<Recorded>> = chosen(&cases).par_iter().map(|case| Arc::new(recorded(case, &compiler))).collect();
    let mut files: Vec<File> = Vec::new();
    for case in recorded {
        for (index, file) in case.recording.files.iter().enumerate() {
            let stem = Path::new(&file.name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(&file.name);
            if case.recording.kernels(index).next().is_none() || name.is_some_and(|name| name != stem) {
                continue;
            }
            let replay = Replay { case: case.clone(), file: index };
            match files.iter_mut().find(|known| known.ptx == file.ptx) {
                Some(known) => known.replays.push(replay),
                None => files.push(File { name: stem.to_owned(), ptx: file.ptx.clone(), replays: vec![replay] }),
            }
        }
    }
    files
}

/// The text of a file that PTX speaks of.
pub fn source(file: &str) -> Option<&'static str> {
    let sources = kernels::SOURCES.iter().map(|source| (source.name, source.text));
    let mut texts = sources.chain(kernels::HEADERS.iter().copied());
    texts.find(|(name, _)| Path::new(file).ends_with(name)).map(|(_, text)| text)
}

/// For each pass in each type the smallest case that is large enough, or else the largest, of those with the fewest extents of one:
/// in these a whole dimension would go untried.
fn chosen(cases: &[Case]) -> Vec<&Case> {
    let passes: BTreeSet<_> = cases.iter().map(|case| (case.op, case.pass)).collect();
    let mut chosen: Vec<&Case> = Vec::new();
    for (op, pass) in passes {
        for (element, least) in CHOICE {
            let of_pass = cases.iter().filter(|case| (case.op, case.pass, case.element) == (op, pass, element));
            let mut by_size: Vec<&Case> = of_pass.collect();
            by_size.sort_by_key(|case| (ones(case), size(case)));
            // Cases for the counters are large: whether a case is one of them is asked last.
            let unmeasured = |case: &&&Case| (case.problem)().traffic == Traffic::Unmeasured;
            let large_enough = by_size.iter().filter(|case| size(case) >= least).find(unmeasured);
            let case = large_enough.or_else(|| {
                let fewest = by_size.first().map(|case| ones(case));
                by_size.iter().rev().filter(|case| Some(ones(case)) == fewest).find(unmeasured)
            });
            chosen.extend(case.filter(|case| !chosen.iter().any(|other| std::ptr::eq(**case, *other))));
        }
    }
    chosen
}

/// The numbers in its shape.
fn extents(case: &Case) -> impl Iterator<Item = u64> {
    case.shape.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

fn ones(case: &Case) -> usize {
    extents(case).filter(|&extent| extent == 1).count()
}

/// Their product.
fn size(case: &Case) -> u64 {
    extents(case).filter(|&extent| extent > 0).fold(1, u64::saturating_mul)
}

/// What a case's code asks of a device, and what comes of it.
fn recorded(case: &Case, compiler: &Arc<Compiler>) -> Recorded {
    let name = format!("{} {} {} {}", case.op, case.pass, case.shape, case.element);
    let problem = (case.problem)();
    let recorder = Arc::new(Recorder::new());
    let context = Context::with(recorder.clone(), compiler.clone()).and_then(|context| {
        check::run(&context, &problem, case.element)?;
        Ok(())
    });
    context.unwrap_or_else(|error| panic!("{name}: {error}"));
    let recorded =
        Recorded { name, recording: recorder.take(), expected: Expected::new(&problem, case.element), intact: Vec::new() };
    let file = recorded.recording.files.first().unwrap_or_else(|| panic!("{}: no kernels", recorded.name)).program.clone();
    let replay = Replay { case: Arc::new(recorded), file: 0 };
    let intact = replay.run(&file, Conditions { order: Order::Natural, max_instructions: ENOUGH, workers: 1 }).outcome;
    let Outcome::Right(intact) = intact else { panic!("{}: {intact:?}", replay.case.name) };
    let recorded = Arc::into_inner(replay.case).unwrap_or_else(|| unreachable!("nobody else has the case"));
    Recorded { intact, ..recorded }
}
