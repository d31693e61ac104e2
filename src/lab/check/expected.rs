//! What a case's outputs should be, and how far off they may be.

use crate::gpu::ElementType;
use crate::ops::table::tolerance::Distance;
use crate::ops::table::{Arithmetic, HostOperands, Operand, Outputs, Problem, Role};

/// The exact values of a case's outputs, with the plain program's as the yardstick.
pub struct Expected {
    outputs: Vec<Output>,
    element: ElementType,
}

struct Output {
    operand: Operand,
    exact: Vec<f64>,
    plain: Vec<f64>,
}

impl Expected {
    /// Computes them from the problem's inputs. An output that the reference does not give is not expected either.
    pub fn new(problem: &Problem, element: ElementType) -> Self {
        let host = host_operands(problem, element);
        let exact = (problem.reference)(Arithmetic::Exact, &host);
        let plain = (problem.reference)(Arithmetic::Plain(element), &host);
        let find = |of: &Outputs, name: &str| of.iter().find(|(other, _)| *other == name).map(|(_, values)| values.clone());
        let written = problem.operands.iter().filter(|operand| matches!(operand.role, Role::Output | Role::InOut));
        let outputs = written.filter_map(|operand| {
            let (exact, plain) = (find(&exact, operand.name)?, find(&plain, operand.name)?);
            Some(Output { operand: operand.clone(), exact, plain })
        });
        Self { outputs: outputs.collect(), element }
    }

    /// How far off an output's bytes are, and everything that is wrong with them, in words; `None` if no such output is expected.
    pub fn judge(&self, name: &str, bytes: &[u8]) -> Option<(Distance, Vec<String>)> {
        let Output { operand, exact, plain } = self.outputs.iter().find(|output| output.operand.name == name)?;
        let mut failures = Vec::new();
        if !operand.gaps_are_untouched(bytes, self.element) {
            failures.push(format!("`{name}`: memory between its rows was written"));
        }
        let result = operand.decode(bytes, self.element);
        let distance = Distance::of(&result, exact, plain, operand.ty, self.element);
        if !distance.pass() {
            let at = result.iter().zip(exact).position(|(x, y)| x.is_nan() || (x - y).abs() >= distance.max);
            let values = at.map(|at| format!(": element {at} is {:e}, exactly {:e}", result[at], exact[at])).unwrap_or_default();
            let Distance { max, max_allowed, rms, rms_allowed } = distance;
            failures.push(format!(
                "`{name}` is off by {max:.2e} (allowed {max_allowed:.2e}), in the mean {rms:.2e} (allowed {rms_allowed:.2e}){values}"
            ));
        }
        Some((distance, failures))
    }
}

/// Inputs as the device has them: rounded to their types.
fn host_operands(problem: &Problem, element: ElementType) -> HostOperands {
    let read = problem.operands.iter().filter(|operand| matches!(operand.role, Role::Input | Role::InOut));
    HostOperands(read.map(|operand| (operand.name, operand.decode(&operand.encode(element), element))).collect())
}
