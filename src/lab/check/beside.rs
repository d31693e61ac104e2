//! The same inputs on two machines: how many bits of the outputs differ.
//!
//! Approximate instructions (`ex2.approx`, `rsqrt.approx`) and the order in which tensor cores add are not specified to the bit, so
//! differences are told, not judged: each machine's result is judged by itself, against the exact one.

use serde::Serialize;

use super::{Outcome, Session};
use crate::ops::table::{Case, Role};
use crate::{Error, Result};

/// How two machines' results of a case differ.
#[derive(Debug, Clone, Serialize)]
pub struct Beside {
    /// The operation.
    pub op: &'static str,
    /// Forward, backward.
    pub pass: &'static str,
    /// Extents.
    pub shape: String,
    /// Type of activations and weights.
    pub element: String,
    /// Of each output.
    pub outputs: Vec<Difference>,
}

/// How two results of one output differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its operand's name.
    pub name: &'static str,
    /// Its elements.
    pub elements: usize,
    /// Of them, those that are not equal to the bit.
    pub different: usize,
    /// Largest absolute difference.
    pub max: f64,
    /// Largest magnitude, for comparison.
    pub scale: f64,
}

impl Beside {
    /// Runs a case on both.
    ///
    /// # Errors
    /// What either says.
    pub fn of(case: &Case, first: &Session, second: &Session) -> Result<Self> {
        let problem = (case.problem)();
        let results = [first.bench()?.run(&problem, case.element)?, second.bench()?.run(&problem, case.element)?];
        let written = problem.operands.iter().filter(|operand| matches!(operand.role, Role::Output | Role::InOut));
        let outputs = written.map(|operand| {
            let name = operand.name;
            let missing = || Error::Internal(format!("no output `{name}`"));
            let bytes = [results[0].get(name).ok_or_else(missing)?, results[1].get(name).ok_or_else(missing)?];
            let [a, b] = bytes.map(|bytes| operand.decode(bytes, case.element));
            let pairs = || a.iter().zip(&b).filter(|(a, b)| a.to_bits() != b.to_bits());
            Ok(Difference {
                name,
                elements: a.len(),
                different: pairs().count(),
                max: pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max),
                scale: a.iter().map(|a| a.abs()).filter(|a| a.is_finite()).fold(0.0, f64::max),
            })
        });
        Ok(Self {
            op: case.op,
            pass: case.pass,
            shape: case.shape.clone(),
            element: case.element.to_string(),
            outputs: outputs.collect::<Result<_>>()?,
        })
    }

    /// The outputs that differ.
    pub fn differing(&self) -> impl Iterator<Item = &Difference> {
        self.outputs.iter().filter(|output| output.different > 0)
    }
}

/// Compares every case that both machines can run; what a case fails of stands in its outcome.
pub fn compare(cases: &[&Case], outcomes: &[Outcome], first: &Session, second: &Session) -> Result<Vec<Beside>> {
    cases
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.failures.is_empty())
        .map(|(case, _)| Beside::of(case, first, second))
        .collect()
}
