//! Every fault at every place of a subject's kernels: found, without effect, or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ptx_emulator::fault::{Fault, Operator, apply, sites};
use ptx_emulator::ptx::ast::Module;
use ptx_emulator::{Kind, Order, Program};
use rayon::prelude::*;

use super::equivalent::Equivalents;
use super::run::{Conditions, Execute, Outcome};
use super::shadow::{Reach, shadowed};

/// Seeded orders in which a fault is looked for that the natural one does not show.
const SEEDS: u64 = 12;
/// Warp instructions that an intact launch may execute.
pub const ENOUGH: u64 = 10_000_000;
/// What a fault costs beside the warp instructions that it is tried with, as so many of them: for each, and for each line of the PTX.
const OVERHEAD: (u64, u64) = (20_000, 20);

/// What became of a fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// By a checker.
    Found(Kind),
    /// By the comparison of outputs with what they should be.
    WrongResult,
    /// By the comparison of outputs with those of the intact kernel: they are near enough to what they should be.
    OtherBits,
    /// A part of an output was not written.
    NeverWritten,
    /// It cannot be executed, or does not end.
    Error,
    /// No launch gets to the place.
    Unreached,
    /// Nothing that the fault changes gets out of arithmetic in any launch (`shadow`).
    Masked,
    /// It is listed, with a reason.
    Equivalent,
    /// Nobody noticed it, and nobody knows why.
    Survived,
    /// It was left out, for there are more than time allows.
    Untried,
}

/// Kernels of one file, compiled, with what is known of their intact execution.
pub struct Subject<'a> {
    /// As the list of equivalents calls it.
    pub name: String,
    pub module: Module,
    pub program: Arc<Program>,
    kernels: BTreeSet<String>,
    executions: Vec<Intact<'a>>,
    /// Lines of its PTX.
    lines: u64,
}

/// Launches that went well.
struct Intact<'a> {
    execution: &'a dyn Execute,
    reached: BTreeSet<u32>,
    warp_instructions: u64,
}

impl<'a> Subject<'a> {
    /// Executes everything once; the error says what was wrong.
    pub fn new(
        name: &str,
        ptx: &str,
        kernels: impl IntoIterator<Item = String>,
        executions: impl IntoIterator<Item = &'a dyn Execute>,
    ) -> Result<Self, String> {
        let module = ptx_emulator::ptx::parse(ptx).map_err(|error| error.to_string())?;
        let program = Arc::new(Program::new(&module).map_err(|error| error.to_string())?);
        let intact = |execution: &'a dyn Execute| {
            let run = execution.run(&program, Conditions { order: Order::Natural, max_instructions: ENOUGH, workers: 1 });
            match run.outcome {
                Outcome::Right(_) => Ok(Intact { execution, reached: run.reached, warp_instructions: run.warp_instructions }),
                wrong => Err(format!("{wrong:?}")),
            }
        };
        let executions = executions.into_iter().map(intact).collect::<Result<_, _>>()?;
        let (name, kernels, lines) = (name.to_owned(), kernels.into_iter().collect(), ptx.lines().count() as u64);
        Ok(Self { name, module, program, kernels, executions, lines })
    }

    /// Each fault of each kernel, once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = Vec::new();
        for fault in self.kernels.iter().flat_map(|kernel| sites(&self.module, kernel)) {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        faults
    }

    /// The executions that get to a fault's place.
    fn reaching(&self, fault: &Fault) -> impl Iterator<Item = &Intact<'a>> {
        let line = fault.line;
        self.executions.iter().filter(move |intact| intact.reached.contains(&line))
    }

    /// Which of the faults to try, so that all together they take about as long as so many warp instructions. Operators come in
    /// turn, so that the rare ones are tried in full; the faults of each are spread over the text.
    pub fn sample(&self, faults: &[Fault], effort: u64) -> Vec<bool> {
        let mut operators: BTreeMap<Operator, Vec<usize>> = BTreeMap::new();
        for (index, fault) in faults.iter().enumerate() {
            operators.entry(fault.operator).or_default().push(index);
        }
        for indices in operators.values_mut() {
            // multiples of the golden ratio are spread evenly, however many are taken
            let mut spread: Vec<_> = indices.iter().enumerate().collect();
            spread.sort_by_key(|(at, _)| (*at as u32).wrapping_mul(0x9e37_79b9));
            *indices = spread.into_iter().map(|(_, &index)| index).collect();
        }
        let longest = operators.values().map(Vec::len).max().unwrap_or(0);
        let mut tried = vec![false; faults.len()];
        let mut spent = 0;
        for index in (0..longest).flat_map(|turn| operators.values().filter_map(move |indices| indices.get(turn))) {
            tried[*index] = spent < effort;
            let executed: u64 = self.reaching(&faults[*index]).map(|intact| intact.warp_instructions).sum();
            spent += if executed == 0 { 0 } else { OVERHEAD.0 + OVERHEAD.1 * self.lines + executed };
        }
        tried
    }

    /// The first of the orders in which something is wrong decides.
    fn attempt(&self, fault: &Fault, module: &Module, orders: impl IntoIterator<Item = Order>) -> Fate {
        let Ok(program) = Program::new(module).map(Arc::new) else { return Fate::Error };
        for order in orders {
            for intact in self.reaching(fault) {
                // a fault that goes on for this long does not end
                let max_instructions = 50_000 + 20 * intact.warp_instructions;
                let conditions = Conditions { order, max_instructions, workers: 1 };
                match intact.execution.run(&program, conditions).outcome {
                    Outcome::Right(_) => {}
                    Outcome::Finding(kind, _) => return Fate::Found(kind),
                    Outcome::Wrong(_) => return Fate::WrongResult,
                    Outcome::OtherBits(_) => return Fate::OtherBits,
                    Outcome::NeverWritten(_) => return Fate::NeverWritten,
                    Outcome::Error(_) => return Fate::Error,
                }
            }
        }
        Fate::Survived
    }

    /// What becomes of one fault, before the list is asked.
    pub fn judge(&self, fault: &Fault) -> Fate {
        if self.reaching(fault).next().is_none() {
            return Fate::Unreached;
        }
        let Ok(faulty) = apply(&self.module, fault) else { return Fate::Error };
        let natural = self.attempt(fault, &faulty, [Order::Natural]);
        if natural != Fate::Survived {
            return natural;
        }
        let is_masked = |reach| {
            let shadowed = shadowed(&self.module, fault, reach);
            shadowed.is_some_and(|module| self.attempt(fault, &module, [Order::Natural]) == Fate::Survived)
        };
        if is_masked(Reach::Instruction) || is_masked(Reach::Arithmetic) {
            return Fate::Masked;
        }
        self.attempt(fault, &faulty, (1..=SEEDS).map(Order::Seeded))
    }

    /// Where a fault is and what it does, nearly as an entry of the list of equivalents.
    fn in_words<'t>(&self, fault: &Fault, text: impl Fn(&str) -> Option<&'t str>) -> String {
        let Fault { operator, line: ptx, description, function, location, .. } = fault;
        let (line, source) = (location.map_or(0, |location| location.line), self.source_line(fault, text));
        format!("{} | {operator:?} | {line} \"{source}\" | {function}, PTX {ptx}: {description}", self.name)
    }

    /// The line of the source that a fault's instruction was compiled from; empty where that is not known.
    fn source_line<'t>(&self, fault: &Fault, text: impl Fn(&str) -> Option<&'t str>) -> &'t str {
        let line = fault.location.and_then(|location| {
            let text = text(self.module.files.get(&location.file)?)?;
            text.lines().nth(location.line.checked_sub(1)? as usize)
        });
        line.unwrap_or_default().trim()
    }
}

/// How faults ended, by their operators and by their subjects.
#[derive(Default)]
pub struct Table {
    operators: BTreeMap<Operator, Vec<Fate>>,
    subjects: BTreeMap<String, Vec<Fate>>,
}

impl Table {
    /// Judges as many faults of a subject as so many warp instructions allow; those that nobody explains are returned, in words.
    /// `text` gives a file of the source.
    pub fn add<'t>(
        &mut self,
        subject: &Subject,
        effort: u64,
        equivalents: &mut Equivalents,
        text: impl Fn(&str) -> Option<&'t str>,
    ) -> Vec<String> {
        let faults = subject.faults();
        let tried = subject.sample(&faults, effort);
        let judge = |(fault, tried)| if tried { subject.judge(fault) } else { Fate::Untried };
        let fates: Vec<Fate> = faults.par_iter().zip(tried).map(judge).collect();
        let mut unexplained = Vec::new();
        for (fault, mut fate) in faults.iter().zip(fates) {
            if fate == Fate::OtherBits {
                println!("other bits, but near enough: {}", subject.in_words(fault, &text));
            }
            // an entry may be there for a fault that is not tried
            if matches!(fate, Fate::Survived | Fate::Untried) {
                let is_explained = equivalents.explain(&subject.name, fault, subject.source_line(fault, &text));
                if fate == Fate::Survived && is_explained {
                    fate = Fate::Equivalent;
                } else if fate == Fate::Survived {
                    unexplained.push(subject.in_words(fault, &text));
                }
            }
            self.operators.entry(fault.operator).or_default().push(fate.clone());
            self.subjects.entry(subject.name.clone()).or_default().push(fate);
        }
        unexplained
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns =
            ["faults", "untried", "found", "result", "bits", "unwritten", "error", "unreached", "masked", "listed", "survive"];
        let header = columns.map(|column| format!("{column:>10}")).concat();
        writeln!(f, "{:22}{header}  found by", "operator")?;
        for (operator, fates) in &self.operators {
            self.row(f, &format!("{operator:?}"), fates)?;
        }
        writeln!(f, "{:22}{header}  found by", "subject")?;
        for (subject, fates) in &self.subjects {
            self.row(f, subject, fates)?;
        }
        self.row(f, "all", &self.subjects.values().flatten().cloned().collect::<Vec<_>>())
    }
}

impl Table {
    fn row(&self, f: &mut std::fmt::Formatter<'_>, name: &str, fates: &[Fate]) -> std::fmt::Result {
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        for fate in fates {
            if let Fate::Found(kind) = fate {
                *kinds.entry(*kind).or_default() += 1;
            }
        }
        let count = |wanted: Fate| fates.iter().filter(|fate| **fate == wanted).count();
        let found = kinds.values().sum();
        let rest = [
            Fate::WrongResult,
            Fate::OtherBits,
            Fate::NeverWritten,
            Fate::Error,
            Fate::Unreached,
            Fate::Masked,
            Fate::Equivalent,
            Fate::Survived,
        ];
        let counts = [fates.len(), count(Fate::Untried), found].into_iter().chain(rest.map(count));
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "{name:22}{}  {}", counts.map(|count| format!("{count:10}")).collect::<String>(), kinds.join(", "))
    }
}
