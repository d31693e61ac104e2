//! The shapes and types in which RMSNorm's kernels are proven.

use super::kernel::{self, Extents, Gradients, Saved, SumAndNorm};
use super::reference;
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Outputs, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

const EPS: f64 = 1e-5;

/// Odd shapes in every type, the models' shapes in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let odd = [(1, 8), (17, 96), (513, 64), (5, 511), (3, 2048), (2, 8192), (9, 1)];
    for element in ElementType::ALL {
        for (rows, width) in odd {
            add(&mut cases, Extents { rows, width }, element, Traffic::Unmeasured);
        }
    }
    add(&mut cases, Extents { rows: 8192, width: 512 }, ElementType::BF16, Traffic::Streaming);
    add(&mut cases, Extents { rows: 4096, width: 768 }, ElementType::BF16, Traffic::Streaming);
    cases
}

fn add(cases: &mut Vec<Case>, extents: Extents, element: ElementType, traffic: Traffic) {
    let shape = format!("{}x{}", extents.rows, extents.width);
    for residual in [false, true] {
        let pass = if residual { "add forward" } else { "forward" };
        cases.push(Case::new("rmsnorm", pass, &shape, element, move || forward(extents, residual, traffic)));
        let pass = if residual { "add backward" } else { "backward" };
        cases.push(Case::new("rmsnorm", pass, &shape, element, move || backward(extents, residual, traffic)));
    }
}

fn forward(extents: Extents, residual: bool, traffic: Traffic) -> Problem {
    let Extents { rows, width } = extents;
    let (shape, n) = ([rows, width], rows * width);
    let mut operands = vec![
        Operand::output("y", Type::Activation, shape),
        Operand::output("rstd", Type::F32, [rows, 1]),
        Operand::input("x", Type::Activation, shape, normal(n, 1)),
        Operand::input("w", Type::Activation, [1, width], normal(width, 2)),
    ];
    if residual {
        operands.push(Operand::output("s", Type::Activation, shape));
        operands.push(Operand::input("r", Type::Activation, shape, normal(n, 3)));
    }
    Problem {
        operands,
        run: Box::new(move |on| {
            let (y, rstd, eps) = (on.activations_mut("y")?, on.slice_mut("rstd")?, EPS as f32);
            let (x, w) = (on.activations("x")?, on.activations("w")?);
            if !residual {
                return kernel::forward(on.context(), extents, y, rstd, x, w, eps);
            }
            let to = SumAndNorm { s: on.activations_mut("s")?, y, rstd };
            kernel::add_forward(on.context(), extents, to, [x, on.activations("r")?], w, eps)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let mut s = host.get::<F>("x");
                if residual {
                    s = s.iter().zip(host.get::<F>("r")).map(|(&x, r)| P::round(x + r)).collect();
                }
                let (mut y, mut rstd) = (s.clone(), vec![F::of(0.0); rows]);
                reference::<P>(&s, &host.get::<F>("w"), EPS, &mut y, &mut rstd);
                let mut outputs: Outputs = vec![("y", widened(y)), ("rstd", widened(rstd))];
                if residual {
                    outputs.push(("s", widened(s)));
                }
                outputs
            })
        }),
        flops: 4 * n as u64,
        traffic,
    }
}

fn backward(extents: Extents, residual: bool, traffic: Traffic) -> Problem {
    let Extents { rows, width } = extents;
    let (shape, n) = ([rows, width], rows * width);
    let (s, w) = (normal(n, 1), normal(width, 2));
    // With a part along w ⊙ s, so that mean(g ⊙ n) is not nearly zero in long rows.
    let dy = normal(n, 5).iter().enumerate().map(|(i, x)| x + w[i % width] * s[i]).collect();
    let rstd = s.chunks_exact(width).map(|s| (s.iter().map(|x| x * x).sum::<f64>() / width as f64 + EPS).sqrt().recip()).collect();
    let mut operands = vec![
        Operand::output("dx", Type::Activation, shape),
        Operand::in_out("dw", Type::F32, [1, width], normal(width, 4)),
        Operand::workspace("partial", Type::F32, extents.partials() * width),
        Operand::input("dy", Type::Activation, shape, dy),
        Operand::input("s", Type::Activation, shape, s),
        Operand::input("rstd", Type::F32, [rows, 1], rstd),
        Operand::input("w", Type::Activation, [1, width], w),
    ];
    if residual {
        operands.push(Operand::input("ds", Type::Activation, shape, normal(n, 6)));
    }
    Problem {
        operands,
        run: Box::new(move |on| {
            let (dx, dw, partial) = (on.activations_mut("dx")?, on.slice_mut("dw")?, on.slice_mut("partial")?);
            let saved = Saved { s: on.activations("s")?, rstd: on.slice("rstd")?, w: on.activations("w")? };
            let ds = residual.then(|| on.activations("ds")).transpose()?;
            let to = Gradients { dx, dw, accumulate: true, partial };
            kernel::backward(on.context(), extents, to, on.activations("dy")?, ds, saved)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let (s, dy, w, rstd) = (host.get::<F>("s"), host.get::<F>("dy"), host.get::<F>("w"), host.get::<F>("rstd"));
                let ds = if residual { host.get("ds") } else { vec![F::of(0.0); n] };
                let (mut dx, mut dw) = (Vec::with_capacity(n), host.get::<F>("dw"));
                for (row, &scale) in rstd.iter().enumerate() {
                    let at = row * width..(row + 1) * width;
                    let normal: Vec<F> = s[at.clone()].iter().map(|&s| P::round(s * scale)).collect();
                    let g: Vec<F> = dy[at.clone()].iter().zip(&w).map(|(&dy, &w)| P::round(dy * w)).collect();
                    let mean = g.iter().zip(&normal).map(|(&g, &n)| g * n).sum::<F>() / F::of(width as f64);
                    for c in 0..width {
                        dw[c] += dy[row * width + c] * normal[c];
                        dx.push(P::round(P::round(scale * (g[c] - normal[c] * mean)) + ds[row * width + c]));
                    }
                }
                vec![("dx", widened(dx)), ("dw", widened(dw))]
            })
        }),
        flops: 9 * n as u64,
        traffic,
    }
}
