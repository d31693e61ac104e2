//! The shapes and types in which dropout's kernel is proven.

use super::DropoutMask;
use super::kernel::{self, Mask};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::rng::Philox;
use crate::tensor::Float;
use crate::with_precision;

const KEY: u64 = 0xF_1234_5678_9ABC;
const P_DROP: f64 = 0.3;

/// Odd shapes in every type, a model's in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in ElementType::ALL {
        for (samples, len) in [(1, 1), (3, 17), (2, 4104), (5, 513)] {
            add(&mut cases, samples, len, element, Traffic::Unmeasured);
        }
    }
    add(&mut cases, 4, 256 * 512, ElementType::BF16, Traffic::Streaming);
    cases
}

fn add(cases: &mut Vec<Case>, samples: usize, len: usize, element: ElementType, traffic: Traffic) {
    cases.push(Case::new("dropout", "forward", &format!("{samples}x{len}"), element, move || problem(samples, len, traffic)));
}

fn problem(samples: usize, len: usize, traffic: Traffic) -> Problem {
    // Some samples' numbers need more than 32 bits.
    let ids: Vec<u64> = (0..samples as u64).map(|b| (b % 2 * 1000 + 7 * b) << (b % 3 * 20)).collect();
    let device_ids = ids.iter().map(|&id| id as f64).collect();
    Problem {
        operands: vec![
            Operand::output("y", Type::Activation, [samples, len]),
            Operand::input("x", Type::Activation, [samples, len], normal(samples * len, 1)),
            Operand::input("key", Type::I64, [1, 1], vec![KEY as f64]),
            Operand::input("samples", Type::I64, [1, samples], device_ids),
        ],
        run: Box::new(move |on| {
            let mask = Mask { p: P_DROP, key: on.slice("key")?, samples: on.slice("samples")? };
            kernel::dropout(on.context(), len, mask, on.activations_mut("y")?, on.activations("x")?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let mask = DropoutMask { p: P_DROP, philox: Philox::new(KEY), sample_ids: ids.clone().into() };
                let mut y = vec![F::of(0.0); samples * len];
                mask.apply(&host.get::<F>("x"), &mut y, false);
                vec![("y", widened(y.into_iter().map(P::round).collect()))]
            })
        }),
        flops: (samples * len) as u64,
        traffic,
    }
}
