//! `ferromind lab check`: every case of the operations' tables on a device, against the reference.
//!
//! A case passes if all outputs are within their [tolerance](crate::ops::table::tolerance), inputs and the gaps between rows are
//! untouched, the emulator's checkers found nothing, the bits are the same in every order of blocks and warps, and the counters say
//! what the table demands.

pub mod beside;
pub mod counters;
mod expected;
pub mod table;

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::Result;
use crate::gpu::context::Budget;
use crate::gpu::emulator::Settings;
use crate::gpu::{Arch, ElementType};
use crate::lab::session::Bench;
pub use crate::lab::session::{Machine, OutputBytes, Session, run};
use crate::ops::table::tolerance::Distance;
use crate::ops::table::{Case, Problem, Role, Traffic};
use counters::Counted;
pub use expected::Expected;
use ptx_emulator::Order;

/// Orders of blocks and warps beside the natural one.
const ORDERS: u64 = 8;
/// Times that a case runs on a GPU, which has orders of its own.
const REPEATS: u64 = 3;

/// What came of a case.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The operation.
    pub op: &'static str,
    /// Forward, backward.
    pub pass: &'static str,
    /// Extents.
    pub shape: String,
    /// Type of activations and weights.
    pub element: String,
    /// What is demanded of its memory traffic.
    pub traffic: Traffic,
    /// How far off each output is.
    pub outputs: Vec<Output>,
    /// What the kernels executed and moved; empty on a GPU.
    pub counted: Option<Counted>,
    /// Registers of a thread by kernel, for all kernels of the files that were needed.
    pub registers: BTreeMap<String, u32>,
    /// Whether a kernel of the user's file was launched.
    pub replaced: bool,
    /// Everything that is wrong.
    pub failures: Vec<String>,
    /// What the kernels move or do beyond what the table allows, though their results may be right.
    pub waste: Vec<String>,
}

/// How far off an output is.
#[derive(Debug, Clone, Serialize)]
pub struct Output {
    /// Its operand's name.
    pub name: &'static str,
    /// From the exact result.
    #[serde(flatten)]
    pub distance: Distance,
}

impl Outcome {
    /// Whether nothing is wrong and nothing wasted.
    pub fn pass(&self) -> bool {
        self.failures.is_empty() && self.waste.is_empty()
    }

    /// The output that uses up most of what is allowed.
    pub fn worst(&self) -> Option<&Output> {
        self.outputs.iter().max_by(|a, b| a.distance.share().total_cmp(&b.distance.share()))
    }
}

/// Runs cases: on the emulator side by side, on a GPU one after the other. `done` is told of each as it ends.
pub fn check(cases: &[&Case], session: &Session, done: impl Fn(&Outcome) + Sync) -> Vec<Outcome> {
    let run = |case: &&Case| {
        let outcome = check_case(case, session);
        done(&outcome);
        outcome
    };
    match session.machine() {
        Machine::Emulator => cases.par_iter().map(run).collect(),
        Machine::Cuda(_) => cases.iter().map(run).collect(),
    }
}

/// Runs one case. What could not be run at all is a failure too.
pub fn check_case(case: &Case, session: &Session) -> Outcome {
    let mut outcome = Outcome {
        op: case.op,
        pass: case.pass,
        shape: case.shape.clone(),
        element: case.element.to_string(),
        traffic: Traffic::Unmeasured,
        outputs: Vec::new(),
        counted: None,
        registers: BTreeMap::new(),
        replaced: false,
        failures: Vec::new(),
        waste: Vec::new(),
    };
    if let Err(error) = examine(case, session, &mut outcome) {
        outcome.failures.push(error.to_string());
    }
    outcome
}

fn examine(case: &Case, session: &Session, outcome: &mut Outcome) -> Result<()> {
    let problem = (case.problem)();
    outcome.traffic = problem.traffic;
    let bench = session.bench()?;
    let measured = problem.traffic != Traffic::Unmeasured;
    bench.set(Settings { log: true, ..Settings::default() });
    let outputs = bench.run(&problem, case.element);
    outcome.replaced = bench.used_replacement();
    let outputs = match outputs {
        Ok(outputs) => outputs,
        Err(error) => {
            outcome.failures.extend(bench.findings());
            // A finding's text is the error's too.
            if outcome.failures.is_empty() {
                outcome.failures.push(error.to_string());
            }
            return Ok(());
        }
    };
    outcome.failures.extend(bench.findings());
    outcome.failures.extend(outputs.failures.iter().cloned());
    outcome.registers = budgets(&bench, measured, &mut outcome.failures)?;
    if let Some(launches) = bench.launches() {
        let counted = Counted::new(&launches, &problem, case.element);
        outcome.waste = counted.waste(problem.traffic);
        outcome.counted = Some(counted);
    }
    compare(&problem, &outputs, case.element, outcome);
    let again = match session.machine() {
        Machine::Emulator if measured => 0,
        Machine::Emulator => ORDERS,
        Machine::Cuda(_) => REPEATS - 1,
    };
    for seed in 1..=again {
        bench.set(Settings { order: Order::Seeded(seed), ..Settings::default() });
        let other = bench.run(&problem, case.element)?;
        let findings = bench.findings();
        if !findings.is_empty() {
            outcome.failures.extend(findings.into_iter().map(|finding| format!("order {seed}: {finding}")));
            break;
        }
        if let Some(name) = outputs.first_difference(&other) {
            outcome.failures.push(format!("`{name}` has other bits in order {seed} of blocks and warps"));
            break;
        }
    }
    Ok(())
}

/// No kernel spills or exceeds its budget: on the device's own target, and for a measured case on those that we also ship for.
/// The registers on the device's own target by kernel.
fn budgets(bench: &Bench, measured: bool, failures: &mut Vec<String>) -> Result<BTreeMap<String, u32>> {
    let own = bench.arch();
    let others = [Arch::of_capability(8, 0), Arch::of_capability(9, 0), Arch::of_capability(10, 0)];
    let mut registers = BTreeMap::new();
    for arch in std::iter::once(own).chain(others.into_iter().filter(|&arch| measured && arch != own)) {
        let budgets = bench.budgets(arch)?;
        failures.extend(budgets.iter().filter_map(Budget::excess));
        if arch == own {
            registers = budgets.into_iter().map(|budget| (budget.resources.kernel, budget.resources.registers)).collect();
        }
    }
    Ok(registers)
}

/// Every output against the exact reference, with the plain program as the yardstick.
fn compare(problem: &Problem, outputs: &OutputBytes, element: ElementType, outcome: &mut Outcome) {
    let expected = Expected::new(problem, element);
    for operand in problem.operands.iter().filter(|operand| matches!(operand.role, Role::Output | Role::InOut)) {
        let name = operand.name;
        match outputs.get(name).and_then(|bytes| expected.judge(name, bytes)) {
            Some((distance, failures)) => {
                outcome.failures.extend(failures);
                outcome.outputs.push(Output { name, distance });
            }
            None => outcome.failures.push(format!("`{name}`: the reference does not give it")),
        }
    }
}
