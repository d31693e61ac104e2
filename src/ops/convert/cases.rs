//! The lengths and types in which conversions are proven.

use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::with_precision;

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
    for (pass, from, to) in [("to float", Type::Activation, Type::F32), ("from float", Type::F32, Type::Activation)] {
        cases.push(Case::new("convert", pass, &len.to_string(), element, move || problem(len, from, to, traffic)));
    }
}

fn problem(len: usize, from: Type, to: Type, traffic: Traffic) -> Problem {
    Problem {
        operands: vec![Operand::output("y", to, [1, len]), Operand::input("x", from, [1, len], normal(len, 1))],
        run: Box::new(move |on| match to {
            Type::F32 => super::to_float(on.context(), on.slice_mut("y")?, on.activations("x")?),
            _ => super::from_float(on.context(), on.activations_mut("y")?, on.slice("x")?),
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                vec![("y", widened(host.get::<<P as Precision>::Number>("x").into_iter().map(P::round).collect()))]
            })
        }),
        flops: 0,
        traffic,
    }
}
