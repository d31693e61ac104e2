//! The shapes and types in which the kernels of AdamW and of the gradient's norm are proven.

use std::ops::Range;

use super::AdamW;
use super::kernel::{self, DeviceState, DeviceTiles, StepSettings, StepState, Tiles, count, value};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Outputs, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

/// Odd lengths with parts that have no gradient, in every type; one long enough to be measured.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [1, 17, 513, 9001] {
        for step in [Step::Good, Step::NotFinite] {
            cases.push(norm(n, step, Traffic::Unmeasured));
        }
        for element in ElementType::ALL {
            for step in [Step::Good, Step::NotFinite, Step::Overflow] {
                cases.push(update(n, step, element, Traffic::Unmeasured));
            }
        }
    }
    cases.push(norm(1 << 20, Step::Good, Traffic::Streaming));
    for element in [ElementType::BF16, ElementType::F32] {
        cases.push(update(1 << 18, Step::Good, element, Traffic::Streaming));
    }
    cases
}

/// What happens in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Good,
    /// A gradient is infinite: nothing is updated.
    NotFinite,
    /// A parameter is infinite: it is told.
    Overflow,
}

/// The state's numbers are of one size, so that a tolerance for all of them says something of each.
const SETTINGS: StepSettings = StepSettings { betas: [0.9, 0.95], max_norm: 2.0, growth_interval: 3 };
const RATES: [f64; 4] = [0.5, 0.75, 1.5, 1.25];

fn norm(n: usize, step: Step, traffic: Traffic) -> Case {
    let pass = match step {
        Step::Good => "norm",
        _ => "norm skipped",
    };
    Case::new("gradient_norm", pass, &n.to_string(), ElementType::F32, move || {
        let mut g: Vec<f64> = normal(n, 1).iter().map(|x| 6.0 * x / (n as f64).sqrt()).collect();
        if step == Step::NotFinite {
            g[n / 2] = f64::NEG_INFINITY;
        }
        Problem {
            operands: vec![
                Operand::in_out("state", Type::F32, [1, value::COUNT], vec![2.0, 9.0, 9.0, 9.0, 9.0, 9.0]),
                Operand::in_out("counts", Type::I32, [1, count::COUNT], vec![2.0, 6.0, 2.0, 0.0, 0.0]),
                Operand::workspace("partial", Type::F32, kernel::partials(n)),
                Operand::input("g", Type::F32, [1, n], g),
                Operand::input("rates", Type::F32, [1, RATES.len()], RATES.to_vec()),
            ],
            run: Box::new(|on| {
                let state = StepState { values: on.slice_mut("state")?, counts: on.slice_mut("counts")? };
                kernel::gradient_norm(on.context(), state, on.slice_mut("partial")?, on.slice("g")?, on.slice("rates")?, SETTINGS)
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    type F = <P as Precision>::Number;
                    let of = |x: f64| F::of(x);
                    let g = host.get::<F>("g");
                    let rows = g.chunks(4096).map(|row| row.iter().map(|&g| g * g).sum::<F>());
                    let norm = rows.sum::<F>().sqrt() / of(2.0);
                    let clip = (of(SETTINGS.max_norm) / (norm + of(1e-6))).min(of(1.0));
                    let [c1, c2] = SETTINGS.betas.map(|beta| of(1.0) - of(beta).powf(of(7.0)));
                    let good = step == Step::Good;
                    let (rate, scale) = (of(RATES[2]), of(if good { 4.0 } else { 1.0 }));
                    let state = vec![scale, norm, clip / of(2.0), rate, rate / c1, of(1.0) / c2.sqrt()];
                    let counts = if good { vec![3.0, 7.0, 0.0, 1.0, 0.0] } else { vec![3.0, 6.0, 0.0, 0.0, 0.0] };
                    vec![("state", widened(state)), ("counts", counts)]
                })
            }),
            flops: 2 * n as u64,
            traffic,
        }
    })
}

/// Where gradients are: with odd begins, without decay in the second part, and a gap before the last where there is room.
fn ranges(n: usize, gaps: bool) -> Vec<(Range<usize>, f64)> {
    if gaps && n > 16 {
        let (a, b) = (n / 3, n / 2);
        vec![(0..a, 0.1), (a..b, 0.0), (b + 3..n, 0.2)]
    } else {
        vec![(0..n, 0.1)]
    }
}

const ADAMW: AdamW = AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
const GRAD_SCALE: f64 = 0.5;
const RATE: f64 = 0.01;
const STEP_SIZE: f64 = 0.02;
const V_SCALE: f64 = 3.0;

fn update(n: usize, step: Step, element: ElementType, traffic: Traffic) -> Case {
    let pass = match step {
        Step::Good => "update",
        Step::NotFinite => "update skipped",
        Step::Overflow => "update overflow",
    };
    Case::new("adamw", pass, &n.to_string(), element, move || {
        let gaps = traffic == Traffic::Unmeasured;
        let ranges = ranges(n, gaps);
        let tiles = Tiles::new(&ranges);
        let copied = element != ElementType::F32;
        let mut p = normal(n, 1);
        if step == Step::Overflow {
            p[n - 1] = f64::INFINITY;
        }
        let finite = if step == Step::NotFinite { 0.0 } else { 1.0 };
        let v = normal(n, 3).iter().map(|x| x * x).collect();
        let mut operands = vec![
            Operand::in_out("p", Type::F32, [1, n], p),
            Operand::in_out("m", Type::F32, [1, n], normal(n, 2)),
            Operand::in_out("v", Type::F32, [1, n], v),
            Operand::in_out("counts", Type::I32, [1, count::COUNT], vec![7.0, 6.0, 2.0, finite, 0.0]),
            Operand::input("g", Type::F32, [1, n], normal(n, 4)),
            Operand::in_out("state", Type::F32, [1, value::COUNT], vec![1.0, 1.0, GRAD_SCALE, RATE, STEP_SIZE, V_SCALE]),
            Operand::input("bounds", Type::I64, [tiles.decays.len(), 2], tiles.bounds.iter().map(|&x| x as f64).collect()),
            Operand::input("decays", Type::F32, [1, tiles.decays.len()], tiles.decays.iter().map(|&x| f64::from(x)).collect()),
        ];
        if copied {
            operands.push(match gaps {
                true => Operand::in_out("copy", Type::Activation, [1, n], normal(n, 5)),
                false => Operand::output("copy", Type::Activation, [1, n]),
            });
        }
        Problem {
            operands,
            run: Box::new(move |on| {
                let copy = copied.then(|| on.activations_mut("copy")).transpose()?;
                let (params, grads, m, v) = (on.slice_mut("p")?, on.slice("g")?, on.slice_mut("m")?, on.slice_mut("v")?);
                let state = StepState { values: on.slice_mut("state")?, counts: on.slice_mut("counts")? };
                let tiles = DeviceTiles { bounds: on.slice("bounds")?, decays: on.slice("decays")? };
                kernel::update(on.context(), DeviceState { params, grads, m, v, copy }, state, tiles, &ADAMW)
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    type F = <P as Precision>::Number;
                    let of = |x: f64| F::of(x);
                    let [mut p, mut m, mut v, g] = ["p", "m", "v", "g"].map(|name| host.get::<F>(name));
                    let mut copy = if copied && gaps { host.get::<F>("copy") } else { p.clone() };
                    let ([b1, b2], one) = (ADAMW.betas.map(of), of(1.0));
                    for (range, decay) in if step == Step::NotFinite { &[][..] } else { &ranges } {
                        for i in range.clone() {
                            let g = g[i] * of(GRAD_SCALE);
                            m[i] = b1 * m[i] + (one - b1) * g;
                            v[i] = b2 * v[i] + (one - b2) * g * g;
                            let step = of(STEP_SIZE) * m[i] / (v[i].sqrt() * of(V_SCALE) + of(ADAMW.eps));
                            p[i] = p[i] * (one - of(RATE) * of(*decay)) - step;
                            copy[i] = P::round(p[i]);
                        }
                    }
                    let overflowed = if step == Step::Overflow { 1.0 } else { 0.0 };
                    let mut outputs: Outputs = vec![("p", widened(p)), ("m", widened(m)), ("v", widened(v))];
                    outputs.push(("state", host.get("state")));
                    outputs.push(("counts", vec![7.0, 6.0, 2.0, finite, overflowed]));
                    if copied {
                        outputs.push(("copy", widened(copy)));
                    }
                    outputs
                })
            }),
            flops: 14 * n as u64,
            traffic,
        }
    })
}
