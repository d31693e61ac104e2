//! Every fault at every place of a case: found, without effect, or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ptx_emulator::fault::{Fault, Operator, apply, sites};
use ptx_emulator::ptx::ast::Module;
use ptx_emulator::{Kind, Order, Program};
use rayon::prelude::*;

use super::corpus::Case;
use super::equivalent::Equivalents;
use super::run::{Conditions, Outcome, run};
use super::shadow::{Reach, shadowed};

/// Seeded orders in which a fault is looked for that the natural one does not show.
const SEEDS: u64 = 12;
/// Warp instructions that an intact launch may execute.
pub const ENOUGH: u64 = 10_000_000;

/// What became of a fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// By a checker.
    Found(Kind),
    /// By the comparison of outputs with what they should be.
    WrongResult,
    /// A part of an output was not written.
    NeverWritten,
    /// It cannot be executed, or does not end.
    Error,
    /// No launch of the case gets to the place.
    Unreached,
    /// Nothing that the fault changes gets out of arithmetic in any launch of the case (`shadow`).
    Masked,
    /// It is listed, with a reason.
    Equivalent,
    /// Nobody noticed it, and nobody knows why.
    Survived,
}

/// A case, compiled, with what is known of its intact execution.
pub struct Subject<'a> {
    pub case: &'a Case,
    pub module: Module,
    pub program: Arc<Program>,
    reached: BTreeSet<u32>,
    budget: u64,
}

impl<'a> Subject<'a> {
    /// Runs the case once; the error says what was wrong.
    pub fn new(case: &'a Case, ptx: &str) -> Result<Self, String> {
        let module = ptx_emulator::ptx::parse(ptx).map_err(|error| error.to_string())?;
        let program = Arc::new(Program::new(&module).map_err(|error| error.to_string())?);
        let intact = run(case, &program, Conditions { order: Order::Natural, max_instructions: ENOUGH, workers: 1 });
        match intact.outcome {
            // a fault that goes on for this long does not end
            Outcome::Right(_) => {
                Ok(Self { case, module, program, reached: intact.reached, budget: 50_000 + 20 * intact.warp_instructions })
            }
            wrong => Err(format!("{wrong:?}")),
        }
    }

    /// Each fault of each kernel of the case, once.
    pub fn faults(&self) -> Vec<Fault> {
        let kernels: BTreeSet<&str> = self.case.launches.iter().map(|launch| launch.kernel).collect();
        let mut faults: Vec<Fault> = Vec::new();
        for fault in kernels.into_iter().flat_map(|kernel| sites(&self.module, kernel)) {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        faults
    }

    /// The first of the orders in which something is wrong decides.
    fn attempt(&self, module: &Module, orders: impl IntoIterator<Item = Order>) -> Fate {
        let Ok(program) = Program::new(module).map(Arc::new) else { return Fate::Error };
        for order in orders {
            let conditions = Conditions { order, max_instructions: self.budget, workers: 1 };
            match run(self.case, &program, conditions).outcome {
                Outcome::Right(_) => {}
                Outcome::Finding(kind, _) => return Fate::Found(kind),
                Outcome::Wrong(_) => return Fate::WrongResult,
                Outcome::NeverWritten(_) => return Fate::NeverWritten,
                Outcome::Error(_) => return Fate::Error,
            }
        }
        Fate::Survived
    }

    /// What becomes of one fault, before the list is asked.
    pub fn judge(&self, fault: &Fault) -> Fate {
        if !self.reached.contains(&fault.line) {
            return Fate::Unreached;
        }
        let Ok(faulty) = apply(&self.module, fault) else { return Fate::Error };
        let natural = self.attempt(&faulty, [Order::Natural]);
        if natural != Fate::Survived {
            return natural;
        }
        let is_masked = |reach| {
            let shadowed = shadowed(&self.module, fault, reach);
            shadowed.is_some_and(|module| self.attempt(&module, [Order::Natural]) == Fate::Survived)
        };
        if is_masked(Reach::Instruction) || is_masked(Reach::Arithmetic) {
            return Fate::Masked;
        }
        self.attempt(&faulty, (1..=SEEDS).map(Order::Seeded))
    }
}

/// How many faults of an operator ended how.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<Operator, Vec<Fate>>,
}

impl Table {
    /// Judges all faults of a case; those that nobody explains are returned, in words.
    pub fn add(&mut self, subject: &Subject, equivalents: &mut Equivalents) -> Vec<String> {
        let faults = subject.faults();
        let fates: Vec<Fate> = faults.par_iter().map(|fault| subject.judge(fault)).collect();
        let mut unexplained = Vec::new();
        for (fault, mut fate) in faults.iter().zip(fates) {
            if fate == Fate::Survived {
                if equivalents.explain(subject.case.name, fault) {
                    fate = Fate::Equivalent;
                } else {
                    let line = fault.location.map_or(0, |location| location.line);
                    let Fault { operator, line: ptx, description, .. } = fault;
                    unexplained.push(format!("{} | {operator:?} | {line} | PTX {ptx}: {description}", subject.case.name));
                }
            }
            self.rows.entry(fault.operator).or_default().push(fate);
        }
        unexplained
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = ["faults", "found", "result", "unwritten", "error", "unreached", "masked", "listed", "survive"];
        writeln!(f, "{:22}{}  found by", "operator", columns.map(|column| format!("{column:>10}")).concat())?;
        let mut total = vec![];
        for (operator, fates) in &self.rows {
            self.row(f, &format!("{operator:?}"), fates)?;
            total.extend(fates.iter().cloned());
        }
        self.row(f, "all", &total)
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
        let rest =
            [Fate::WrongResult, Fate::NeverWritten, Fate::Error, Fate::Unreached, Fate::Masked, Fate::Equivalent, Fate::Survived];
        let counts = [fates.len(), found].into_iter().chain(rest.map(count));
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "{name:22}{}  {}", counts.map(|count| format!("{count:10}")).collect::<String>(), kinds.join(", "))
    }
}
