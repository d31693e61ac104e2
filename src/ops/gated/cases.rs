//! The shapes and types in which the kernels of gated activations are proven.

use super::kernel::{self, Extents};
use super::{Activation, backward_row, reference_activation};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::with_precision;

/// Rows, and what lies between them.
#[derive(Clone, Copy)]
struct Shape {
    extents: Extents,
    /// Elements between the rows of x.
    gap: usize,
}

/// Odd shapes in every type, a model's in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let activations = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu];
    for element in ElementType::ALL {
        for activation in activations {
            for (rows, cols, gap) in [(1, 1, 0), (17, 33, 3), (9, 513, 0), (5, 264, 8)] {
                add(&mut cases, Shape { extents: Extents { rows, cols }, gap }, activation, element, Traffic::Unmeasured);
            }
        }
    }
    for activation in activations {
        let shape = Shape { extents: Extents { rows: 256, cols: 1408 }, gap: 0 };
        add(&mut cases, shape, activation, ElementType::BF16, Traffic::Streaming);
    }
    cases
}

fn add(cases: &mut Vec<Case>, shape: Shape, activation: Activation, element: ElementType, traffic: Traffic) {
    let name = format!("{}x{} {}", shape.extents.rows, shape.extents.cols, activation.name());
    cases.push(Case::new("gated", "forward", &name, element, move || forward(shape, activation, traffic)));
    cases.push(Case::new("gated", "backward", &name, element, move || backward(shape, activation, traffic)));
    cases.push(Case::new("gated", "backward in place", &name, element, move || in_place(shape, activation, traffic)));
}

impl Shape {
    fn elements(self) -> usize {
        self.extents.rows * self.extents.cols
    }

    fn pitch(self) -> usize {
        2 * self.extents.cols + self.gap
    }

    fn x(self) -> Vec<f64> {
        normal(2 * self.elements(), 1).into_iter().map(|x| 2.0 * x).collect()
    }

    fn dy(self) -> Operand {
        Operand::input("dy", Type::Activation, [self.extents.rows, self.extents.cols], normal(self.elements(), 2))
    }

    /// The gradient of x, which finite differences confirm on the CPU, in the plain way.
    fn gradient<P: Precision>(self, activation: Activation, x: &[P::Number], dy: &[P::Number]) -> Vec<P::Number> {
        let cols = self.extents.cols;
        let mut dx = x.to_vec();
        for ((x, dy), dx) in x.chunks_exact(2 * cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(2 * cols)) {
            let ((gate, up), (dgate, dup)) = (x.split_at(cols), dx.split_at_mut(cols));
            backward_row(activation, gate, up, dy, dgate, dup);
        }
        dx.into_iter().map(P::round).collect()
    }
}

fn forward(shape: Shape, activation: Activation, traffic: Traffic) -> Problem {
    let (Extents { rows, cols }, pitch) = (shape.extents, shape.pitch());
    Problem {
        operands: vec![
            Operand::output("y", Type::Activation, [rows, cols]),
            Operand::input("x", Type::Activation, [rows, 2 * cols], shape.x()).pitched(pitch),
        ],
        run: Box::new(move |on| {
            kernel::forward(on.context(), shape.extents, activation, on.activations_mut("y")?, (on.activations("x")?, pitch))
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let x = host.get::<<P as Precision>::Number>("x");
                let gated = x.chunks_exact(2 * cols).flat_map(|row| {
                    let (gate, up) = row.split_at(cols);
                    gate.iter().zip(up).map(|(&g, &u)| P::round(P::round(reference_activation(g, activation)) * u))
                });
                vec![("y", widened(gated.collect()))]
            })
        }),
        flops: 6 * shape.elements() as u64,
        traffic,
    }
}

fn backward(shape: Shape, activation: Activation, traffic: Traffic) -> Problem {
    let (Extents { rows, cols }, pitch) = (shape.extents, shape.pitch());
    Problem {
        operands: vec![
            Operand::output("dx", Type::Activation, [rows, 2 * cols]),
            shape.dy(),
            Operand::input("x", Type::Activation, [rows, 2 * cols], shape.x()).pitched(pitch),
        ],
        run: Box::new(move |on| {
            let (dx, x) = ((on.activations_mut("dx")?, 2 * cols), (on.activations("x")?, pitch));
            kernel::backward(on.context(), shape.extents, activation, dx, on.activations("dy")?, x)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                vec![("dx", widened(shape.gradient::<P>(activation, &host.get("x"), &host.get("dy"))))]
            })
        }),
        flops: 12 * shape.elements() as u64,
        traffic,
    }
}

fn in_place(shape: Shape, activation: Activation, traffic: Traffic) -> Problem {
    let (Extents { rows, cols }, pitch) = (shape.extents, shape.pitch());
    Problem {
        operands: vec![Operand::in_out("x", Type::Activation, [rows, 2 * cols], shape.x()).pitched(pitch), shape.dy()],
        run: Box::new(move |on| {
            let (dx, x) = ((on.activations_mut("x")?, pitch), (on.activations("x")?, pitch));
            kernel::backward(on.context(), shape.extents, activation, dx, on.activations("dy")?, x)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                vec![("x", widened(shape.gradient::<P>(activation, &host.get("x"), &host.get("dy"))))]
            })
        }),
        flops: 12 * shape.elements() as u64,
        traffic,
    }
}
