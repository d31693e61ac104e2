//! The lengths and types in which the addition's kernels are proven.

use super::kernel;
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

const SCALE: f64 = 0.375;

/// Odd lengths in every type, a model's in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in ElementType::ALL {
        for len in [1, 17, 4096, 8195] {
            add(&mut cases, len, element, Traffic::Unmeasured);
        }
    }
    add(&mut cases, 512 * 768, ElementType::BF16, Traffic::Streaming);
    cases
}

fn add(cases: &mut Vec<Case>, len: usize, element: ElementType, traffic: Traffic) {
    for (pass, scale) in [("forward", None), ("scaled", Some(SCALE))] {
        cases.push(Case::new("add", pass, &len.to_string(), element, move || problem(len, scale, traffic)));
    }
}

fn problem(len: usize, scale: Option<f64>, traffic: Traffic) -> Problem {
    Problem {
        operands: vec![
            Operand::output("y", Type::Activation, [1, len]),
            Operand::input("a", Type::Activation, [1, len], normal(len, 1)),
            Operand::input("b", Type::Activation, [1, len], normal(len, 2)),
        ],
        run: Box::new(move |on| {
            let (y, a, b) = (on.activations_mut("y")?, on.activations("a")?, on.activations("b")?);
            match scale {
                None => kernel::add(on.context(), y, a, b),
                Some(scale) => kernel::add_scaled(on.context(), y, a, b, scale as f32),
            }
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let (a, b, scale) = (host.get::<F>("a"), host.get::<F>("b"), F::of(scale.unwrap_or(1.0)));
                vec![("y", widened(a.iter().zip(&b).map(|(&a, &b)| P::round(a + scale * b)).collect()))]
            })
        }),
        flops: 2 * len as u64,
        traffic,
    }
}
