//! The shapes and types in which products of a few rows are proven.

use super::kernel::{self, Extents, HeadMatrices, HeadRows, Norm};
use super::{products, swiglu};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

const EPS: f64 = 1e-5;

/// What comes with a product.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Forward,
    Residual,
    Norm,
    NormFloat,
    NormSwiglu,
}

impl Form {
    const ALL: [(Self, &str); 5] = [
        (Self::Forward, "forward"),
        (Self::Residual, "residual"),
        (Self::Norm, "norm"),
        (Self::NormFloat, "norm float"),
        (Self::NormSwiglu, "norm swiglu"),
    ];

    fn has_norm(self) -> bool {
        matches!(self, Self::Norm | Self::NormFloat | Self::NormSwiglu)
    }
}

/// Odd shapes in every type; the models' in bf16, for one row and for eight.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in ElementType::ALL {
        for (form, pass) in Form::ALL {
            for (batch, n, k, x_pitch) in [(1, 1, 1, 1), (3, 17, 96, 96), (1, 64, 511, 520), (11, 24, 136, 144), (8, 9, 2056, 2056)]
            {
                // The norm of a single column is 1, which a plain program stores without an error, by luck.
                if form != Form::NormFloat || k > 1 {
                    cases.push(product(form, pass, Extents { batch, n, k, x_pitch }, element, Traffic::Unmeasured));
                }
            }
        }
        for [batch, heads, n, k] in [[3, 2, 40, 24], [1, 3, 17, 13], [9, 2, 65, 128]] {
            cases.push(of_heads(false, [batch, heads, n, k], element, Traffic::Unmeasured));
            cases.push(of_heads(true, [batch, heads, n, k], element, Traffic::Unmeasured));
        }
    }
    let row = |n, k| Extents { batch: 1, n, k, x_pitch: k };
    let bf16 = ElementType::BF16;
    cases.push(product(Form::NormSwiglu, "norm swiglu", row(1408, 512), bf16, Traffic::Streaming));
    cases.push(product(Form::Residual, "residual", row(512, 1408), bf16, Traffic::Streaming));
    cases.push(product(Form::NormFloat, "norm float", row(6400, 512), bf16, Traffic::Streaming));
    cases.push(of_heads(false, [1, 16, 128, 512], bf16, Traffic::Streaming));
    cases.push(of_heads(true, [1, 16, 512, 128], bf16, Traffic::Streaming));
    // Every block of eight columns reads all of x and of the norm's weight, from the second-level cache.
    let sectors = 96 * ((512 + 512 + 8 * 512) * 2 / 32 + 1);
    cases.push(product(Form::Norm, "norm", row(768, 512), bf16, Traffic::Tiled { sectors }));
    let sectors = 176 * ((8 * 512 + 512 + 16 * 512) * 2 / 32 + 8);
    cases.push(product(Form::NormSwiglu, "norm swiglu", Extents { batch: 8, ..row(1408, 512) }, bf16, Traffic::Tiled { sectors }));
    cases
}

fn product(form: Form, pass: &'static str, extents: Extents, element: ElementType, traffic: Traffic) -> Case {
    let Extents { batch, n, k, x_pitch } = extents;
    Case::new("gemv", pass, &format!("{batch}x{n}x{k}"), element, move || {
        let rows = if form == Form::NormSwiglu { 2 * n } else { n };
        let weights = normal(rows * k, 2).iter().map(|w| w / (k as f64).sqrt()).collect();
        let ty = if form == Form::NormFloat { Type::F32 } else { Type::Activation };
        let mut operands = vec![
            Operand::output("y", ty, [batch, n]),
            Operand::input("x", Type::Activation, [batch, k], normal(batch * k, 1)).pitched(x_pitch),
            Operand::input("w", Type::Activation, [rows, k], weights),
        ];
        match form {
            Form::Forward => {}
            Form::Residual => operands.push(Operand::input("residual", Type::Activation, [batch, n], normal(batch * n, 3))),
            _ => operands.push(Operand::input("scale", Type::Activation, [1, k], normal(k, 4))),
        }
        Problem {
            operands,
            run: Box::new(move |on| {
                let (context, x, w) = (on.context(), on.activations("x")?, on.activations("w")?);
                let norm = || Ok::<_, crate::Error>(Norm { scale: on.activations("scale")?, eps: EPS as f32 });
                match form {
                    Form::Forward => kernel::forward(context, extents, on.activations_mut("y")?, x, w),
                    Form::Residual => {
                        kernel::residual(context, extents, on.activations_mut("y")?, x, w, on.activations("residual")?)
                    }
                    Form::Norm => kernel::norm(context, extents, on.activations_mut("y")?, x, w, norm()?),
                    Form::NormFloat => kernel::norm_float(context, extents, on.slice_mut("y")?, x, w, norm()?),
                    Form::NormSwiglu => kernel::norm_swiglu(context, extents, on.activations_mut("y")?, x, w, norm()?),
                }
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    type F = <P as Precision>::Number;
                    let (mut x, w) = (host.get::<F>("x"), host.get::<F>("w"));
                    if form.has_norm() {
                        let scale = host.get::<F>("scale");
                        for row in x.chunks_exact_mut(k) {
                            let mean = row.iter().map(|&x| x * x).sum::<F>() / F::of(k as f64);
                            let rstd = (mean + F::of(EPS)).sqrt().recip();
                            row.iter_mut().zip(&scale).for_each(|(x, &w)| *x = P::round(*x * rstd * w));
                        }
                    }
                    let sums = products::<P>(&x, &w, k);
                    let y: Vec<F> = match form {
                        Form::Forward | Form::Norm => sums.into_iter().map(P::round).collect(),
                        Form::NormFloat => sums,
                        Form::Residual => {
                            let residual = host.get::<F>("residual");
                            sums.iter().zip(residual).map(|(&y, r)| P::round(P::round(y) + r)).collect()
                        }
                        Form::NormSwiglu => {
                            let rows = sums.chunks_exact(2 * n).map(|row| row.split_at(n));
                            rows.flat_map(|(gate, up)| gate.iter().zip(up).map(|(&g, &u)| swiglu::<P>(g, u))).collect()
                        }
                    };
                    vec![("y", widened(y))]
                })
            }),
            flops: 2 * (batch * rows * k) as u64,
            traffic,
        }
    })
}

fn of_heads(transposed: bool, [batch, heads, n, k]: [usize; 4], element: ElementType, traffic: Traffic) -> Case {
    let pass = if transposed { "heads transposed" } else { "heads" };
    Case::new("gemv", pass, &format!("{batch}x{heads}x{n}x{k}"), element, move || {
        let shape = if transposed { [k, n] } else { [n, k] };
        // Something of another use lies between the heads' matrices, and between the parts of a row of x.
        let (stride, part) = (n * k + 16 * shape[1], if transposed { k + 16 } else { k });
        let weights = normal(heads * n * k, 2).iter().map(|w| w / (k as f64).sqrt()).collect();
        Problem {
            operands: vec![
                Operand::output("y", Type::Activation, [batch, heads * n]),
                Operand::input("x", Type::Activation, [batch * heads, k], normal(batch * heads * k, 1)).pitched(part),
                Operand::input("w", Type::Activation, [heads, n * k], weights).pitched(stride),
            ],
            run: Box::new(move |on| {
                let (y, x) = (on.activations_mut("y")?, on.activations("x")?);
                let matrices = HeadMatrices { w: on.activations("w")?, heads, stride };
                if transposed {
                    let rows = HeadRows { x, pitch: heads * part, stride: part };
                    kernel::heads_transposed(on.context(), [batch, n, k], y, rows, matrices)
                } else {
                    kernel::heads(on.context(), [batch, n, k], y, x, matrices)
                }
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    type F = <P as Precision>::Number;
                    let (x, w) = (host.get::<F>("x"), host.get::<F>("w"));
                    let mut y = Vec::with_capacity(batch * heads * n);
                    for (row, x) in x.chunks_exact(k).enumerate() {
                        let w = &w[row % heads * n * k..][..n * k];
                        for column in 0..n {
                            let weight = |i: usize| if transposed { w[i * n + column] } else { w[column * k + i] };
                            y.push(P::round((0..k).map(|i| x[i] * weight(i)).sum::<F>()));
                        }
                    }
                    vec![("y", widened(y))]
                })
            }),
            flops: 2 * (batch * heads * n * k) as u64,
            traffic,
        }
    })
}
