//! The lengths and types in which reductions are proven.

use super::{Totals, partials, reduce};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

/// Odd lengths in every type, also with infinities, and a model's in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in ElementType::ALL {
        for len in [1, 17, 4096, 40_003] {
            for infinities in [0, 3] {
                add(&mut cases, len, infinities, element, Traffic::Unmeasured);
            }
        }
    }
    add(&mut cases, 2048 * 768, 0, ElementType::BF16, Traffic::Streaming);
    cases
}

fn add(cases: &mut Vec<Case>, len: usize, infinities: usize, element: ElementType, traffic: Traffic) {
    let shape = format!("{len}, {infinities} infinite");
    cases.push(Case::new("reduce", "forward", &shape, element, move || problem(len, infinities, traffic)));
}

fn problem(len: usize, infinities: usize, traffic: Traffic) -> Problem {
    let mut x = normal(len, 1);
    (0..infinities).for_each(|i| x[i * 1009 % len] = f64::INFINITY);
    let output = |name, ty| Operand::output(name, ty, [1, 1]);
    let workspace = |name, ty| Operand::workspace(name, ty, partials(len));
    Problem {
        operands: vec![
            output("sum", Type::F32),
            output("most", Type::F32),
            output("not_finite", Type::I32),
            workspace("sums", Type::F32),
            workspace("mosts", Type::F32),
            workspace("not_finites", Type::I32),
            Operand::input("x", Type::Activation, [1, len], x),
        ],
        run: Box::new(move |on| {
            let to = Totals { sum: on.slice_mut("sum")?, most: on.slice_mut("most")?, not_finite: on.slice_mut("not_finite")? };
            let workspace =
                Totals { sum: on.slice_mut("sums")?, most: on.slice_mut("mosts")?, not_finite: on.slice_mut("not_finites")? };
            reduce(on.context(), to, workspace, on.activations("x")?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let x = host.get::<F>("x");
                let most = x.iter().map(|x| x.f64().abs()).fold(0.0, f64::max);
                let infinite = x.iter().filter(|x| !x.f64().is_finite()).count();
                let sum = x.into_iter().sum::<F>();
                vec![("sum", widened(vec![sum])), ("most", vec![most]), ("not_finite", vec![infinite as f64])]
            })
        }),
        flops: len as u64,
        traffic,
    }
}
