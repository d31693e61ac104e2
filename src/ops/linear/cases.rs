//! The shapes and types in which the kernels of linear maps are proven.

use super::kernel::{self, Extents, Gated, Rows, WeightGradient};
use super::tiling::Tiling;
use super::{reference, transposed};
use crate::Result;
use crate::gpu::device::Limits;
use crate::gpu::{ElementSlice, ElementSliceMut, ElementType};
use crate::ops::table::{Case, Operand, Operands, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

/// Shared memory of a block on the device that the emulator is, where counters are read.
pub(crate) const SHARED: u32 = Limits::of_capability(9, 0).shared_per_block;

/// One product.
#[derive(Clone, Copy)]
struct Shape {
    extents: Extents,
    spacing: Spacing,
    element: ElementType,
    /// Whether the counters are held to what the tiling says.
    measured: bool,
}

/// How far apart the rows lie of matrices that may be slices of wider ones, given their columns.
type Spacing = (&'static str, fn(usize) -> usize);

const PACKED: Spacing = ("", |cols| cols);
const SPACED: Spacing = (" spaced", |cols| cols + 8);
/// So that rows do not begin at multiples of 16 bytes.
const ODD: Spacing = (" odd", |cols| cols + 1);
/// So that they do, whatever the width.
const PADDED: Spacing = (" padded", |cols| cols.next_multiple_of(8));

type Pass = (&'static str, fn(Shape) -> Problem);

const FORWARD: Pass = ("forward", |shape| forward(shape, false));
const ADD_FORWARD: Pass = ("add forward", |shape| forward(shape, true));
const FORWARD_TO_FLOAT: Pass = ("forward to float", forward_to_float);
const SWIGLU_FORWARD: Pass = ("swiglu forward", swiglu_forward);
const BACKWARD_INPUT: Pass = ("backward input", |shape| backward_input(shape, false));
const ADD_BACKWARD_INPUT: Pass = ("add backward input", |shape| backward_input(shape, true));
const SWIGLU_BACKWARD: Pass = ("swiglu backward", swiglu_backward);
const BACKWARD_WEIGHT: Pass = ("backward weight", |shape| backward_weight(shape, false));
const ADD_BACKWARD_WEIGHT: Pass = ("add backward weight", |shape| backward_weight(shape, true));
const FORWARDS: [Pass; 4] = [FORWARD, ADD_FORWARD, FORWARD_TO_FLOAT, SWIGLU_FORWARD];
const INPUT_GRADIENTS: [Pass; 3] = [BACKWARD_INPUT, ADD_BACKWARD_INPUT, SWIGLU_BACKWARD];
const WEIGHT_GRADIENTS: [Pass; 2] = [BACKWARD_WEIGHT, ADD_BACKWARD_WEIGHT];

/// Odd shapes in every type, with all tiles; a model's shapes in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |passes: &[Pass], [m, n, k]: [usize; 3], spacing: Spacing, element, measured| {
        for &(pass, problem) in passes {
            let shape = Shape { extents: Extents { m, n, k }, spacing, element, measured };
            cases.push(Case::new("linear", pass, &format!("{m}x{n}x{k}{}", spacing.0), element, move || problem(shape)));
        }
    };
    let all = [&FORWARDS[..], &INPUT_GRADIENTS, &WEIGHT_GRADIENTS].concat();
    for element in ElementType::ALL {
        add(&all, [17, 40, 72], SPACED, element, false);
        add(&all, [67, 33, 71], ODD, element, false);
        // Several blocks share a tile.
        add(&WEIGHT_GRADIENTS, [1100, 24, 40], SPACED, element, false);
    }
    for element in [ElementType::F32, ElementType::BF16] {
        for shape in [[1, 8, 8], [1, 1, 1], [130, 24, 200]] {
            add(&all, shape, PACKED, element, false);
        }
        // A vocabulary is seldom a multiple of anything.
        add(&[FORWARD, FORWARD_TO_FLOAT, BACKWARD_INPUT, BACKWARD_WEIGHT], [50, 69, 40], PADDED, element, false);
    }
    // Larger tiles, of 64 x 128, 128 x 128 and 128 x 256.
    for ([m, wide, narrow], spacing) in [([1000, 1000, 24], PACKED), ([1030, 1096, 40], SPACED), ([2177, 1096, 24], PACKED)] {
        add(&FORWARDS, [m, wide, narrow], spacing, ElementType::BF16, false);
        add(&INPUT_GRADIENTS, [m, narrow, wide], spacing, ElementType::BF16, false);
    }
    add(&[FORWARD], [1030, 1096, 40], PACKED, ElementType::F32, false);
    add(&[BACKWARD_INPUT], [1030, 40, 1096], PACKED, ElementType::F32, false);
    for (shape, spacing) in [([40, 72, 136], PACKED), ([40, 136, 152], SPACED), ([40, 1096, 1032], PACKED)] {
        add(&WEIGHT_GRADIENTS, shape, spacing, ElementType::BF16, false);
    }
    // The ladder's: a naive kernel is done with it in seconds.
    add(&[FORWARD], [512, 512, 256], PACKED, ElementType::BF16, true);
    add(&[FORWARD], [4096, 768, 512], PACKED, ElementType::BF16, true);
    add(&[ADD_FORWARD], [4096, 512, 1408], PACKED, ElementType::BF16, true);
    add(&[BACKWARD_INPUT], [4096, 768, 512], PACKED, ElementType::BF16, true);
    add(&[SWIGLU_FORWARD], [2048, 1408, 512], PACKED, ElementType::BF16, true);
    add(&[SWIGLU_BACKWARD], [2048, 512, 1408], PACKED, ElementType::BF16, true);
    add(&WEIGHT_GRADIENTS, [8192, 768, 512], PACKED, ElementType::BF16, true);
    cases
}

impl Shape {
    fn normal(self, name: &'static str, [rows, cols]: [usize; 2], seed: u64) -> Operand {
        Operand::input(name, Type::Activation, [rows, cols], normal(rows * cols, seed))
    }

    fn spaced(self, operand: Operand, cols: usize) -> Operand {
        operand.pitched((self.spacing.1)(cols))
    }

    fn rows<'a>(self, on: &'a Operands<'_>, name: &str, cols: usize) -> Result<Rows<ElementSlice<'a>>> {
        Ok(Rows { at: on.activations(name)?, pitch: (self.spacing.1)(cols) })
    }

    fn rows_mut<'a>(self, on: &'a Operands<'_>, name: &str, cols: usize) -> Result<Rows<ElementSliceMut<'a>>> {
        Ok(Rows { at: on.activations_mut(name)?, pitch: (self.spacing.1)(cols) })
    }

    fn flops(self) -> u64 {
        let Extents { m, n, k } = self.extents;
        2 * (m * n * k) as u64
    }

    /// Sectors that the tiles of C [`rows`, `cols`] = A·B ask for, the sum going over `depth`: A once for every column of tiles, B
    /// once for every row of them, and `others` bytes once.
    fn traffic(self, tiling: Tiling, [rows, cols, depth]: [usize; 3], others: usize) -> Traffic {
        let operands = rows * cols.div_ceil(tiling.columns) + cols * rows.div_ceil(tiling.rows);
        let bytes = operands * depth * self.element.bytes() + others;
        if self.measured { Traffic::Tiled { sectors: bytes as u64 / 32 } } else { Traffic::Unmeasured }
    }

    fn tiled(self, [rows, cols, depth]: [usize; 3], others: usize) -> Traffic {
        self.traffic(Tiling::new([rows, cols], self.element, true, SHARED), [rows, cols, depth], others)
    }
}

/// `a` [.., K] times the transpose of `b` [N, K], every element as it is stored.
pub(crate) fn product<P: Precision>(a: &[P::Number], b: &[P::Number], k: usize) -> Vec<P::Number> {
    let mut y = vec![P::Number::of(0.0); a.len() / k * (b.len() / k)];
    reference(a, b, k, &mut y);
    y.iter().map(|&y| P::round(y)).collect()
}

/// Element by element, as they are stored.
pub(crate) fn sum<F: Float>(a: &[F], b: &[F], round: impl Fn(F) -> F) -> Vec<F> {
    a.iter().zip(b).map(|(&a, &b)| round(a + b)).collect()
}

fn forward(shape: Shape, residual: bool) -> Problem {
    let Extents { m, n, k } = shape.extents;
    let mut operands = vec![
        shape.spaced(Operand::output("y", Type::Activation, [m, n]), n),
        shape.spaced(shape.normal("x", [m, k], 1), k),
        shape.normal("w", [n, k], 2),
    ];
    if residual {
        operands.push(shape.spaced(shape.normal("residual", [m, n], 3), n));
    }
    Problem {
        operands,
        run: Box::new(move |on| {
            let residual = residual.then(|| shape.rows(on, "residual", n)).transpose()?;
            let (y, x) = (shape.rows_mut(on, "y", n)?, shape.rows(on, "x", k)?);
            kernel::forward(on.context(), shape.extents, y, x, on.activations("w")?, residual)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let mut y = product::<P>(&host.get("x"), &host.get("w"), k);
                if residual {
                    y = sum(&y, &host.get("residual"), P::round);
                }
                vec![("y", widened(y))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.tiled([m, n, k], m * n * shape.element.bytes() * if residual { 2 } else { 1 }),
    }
}

fn forward_to_float(shape: Shape) -> Problem {
    let Extents { m, n, k } = shape.extents;
    Problem {
        operands: vec![
            shape.spaced(Operand::in_out("y", Type::F32, [m, n], normal(m * n, 3)), n),
            shape.spaced(shape.normal("x", [m, k], 1), k),
            shape.normal("w", [n, k], 2),
        ],
        run: Box::new(move |on| {
            let y = Rows { at: on.slice_mut("y")?, pitch: (shape.spacing.1)(n) };
            let residual = Rows { at: y.at.as_slice(), pitch: y.pitch };
            kernel::forward_to_float(on.context(), shape.extents, y, shape.rows(on, "x", k)?, on.activations("w")?, Some(residual))
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                // What is kept in float is not rounded.
                let mut y = vec![F::of(0.0); m * n];
                reference::<F>(&host.get("x"), &host.get("w"), k, &mut y);
                vec![("y", widened(sum(&y, &host.get("y"), |y| y)))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.tiled([m, n, k], 2 * m * n * 4),
    }
}

fn sigmoid<F: Float>(g: F) -> F {
    F::of(1.0) / (F::of(1.0) + (-g).exp())
}

/// Of rows g ‖ u, each of `width` elements: `g·σ(g)·u`.
pub(crate) fn swiglu<P: Precision>(gate_up: &[P::Number], width: usize) -> Vec<P::Number> {
    let pairs = gate_up.chunks_exact(2 * width).flat_map(|row| row[..width].iter().zip(&row[width..]));
    pairs.map(|(&g, &u)| P::round(P::round(g * sigmoid(g)) * u)).collect()
}

/// The gradients of g and u given that of `g·σ(g)·u`: with `p = σ(g)`, `dg = dh·u·(p + g·p·(1 − p))` and `du = dh·g·p`.
pub(crate) fn swiglu_gradient<P: Precision>(dh: &[P::Number], gate_up: &[P::Number], width: usize) -> Vec<P::Number> {
    let one = P::Number::of(1.0);
    let mut gradient = gate_up.to_vec();
    for (row, dh) in gradient.chunks_exact_mut(2 * width).zip(dh.chunks_exact(width)) {
        let (gates, ups) = row.split_at_mut(width);
        for ((g, u), &dh) in gates.iter_mut().zip(ups).zip(dh) {
            let p = sigmoid(*g);
            let (dg, du) = (dh * *u * (p + *g * p * (one - p)), dh * P::round(*g * p));
            (*g, *u) = (P::round(dg), P::round(du));
        }
    }
    gradient
}

fn swiglu_forward(shape: Shape) -> Problem {
    let Extents { m, n, k } = shape.extents;
    Problem {
        operands: vec![
            Operand::output("h", Type::Activation, [m, n]),
            Operand::output("gate_up", Type::Activation, [m, 2 * n]),
            shape.spaced(shape.normal("x", [m, k], 1), k),
            shape.normal("w", [2 * n, k], 2),
        ],
        run: Box::new(move |on| {
            let to = Gated { h: on.activations_mut("h")?, gate_up: on.activations_mut("gate_up")? };
            kernel::swiglu_forward(on.context(), shape.extents, to, shape.rows(on, "x", k)?, on.activations("w")?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let gate_up = product::<P>(&host.get("x"), &host.get("w"), k);
                vec![("h", widened(swiglu::<P>(&gate_up, n))), ("gate_up", widened(gate_up))]
            })
        }),
        flops: 2 * shape.flops(),
        traffic: shape.tiled([m, 2 * n, k], 3 * m * n * shape.element.bytes()),
    }
}

fn backward_input(shape: Shape, residual: bool) -> Problem {
    let Extents { m, n, k } = shape.extents;
    // A sum: added to where it is stored.
    let dx = if residual {
        Operand::in_out("dx", Type::Activation, [m, k], normal(m * k, 3))
    } else {
        Operand::output("dx", Type::Activation, [m, k])
    };
    Problem {
        operands: vec![shape.spaced(dx, k), shape.spaced(shape.normal("dy", [m, n], 1), n), shape.normal("w", [n, k], 2)],
        run: Box::new(move |on| {
            let (dx, dy) = (shape.rows_mut(on, "dx", k)?, shape.rows(on, "dy", n)?);
            let residual = residual.then(|| Rows { at: dx.at.as_slice(), pitch: dx.pitch });
            kernel::backward_input(on.context(), shape.extents, dx, dy, on.activations("w")?, residual)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let mut dx = product::<P>(&host.get("dy"), &transposed(&host.get("w"), k), n);
                if residual {
                    dx = sum(&dx, &host.get("dx"), P::round);
                }
                vec![("dx", widened(dx))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.tiled([m, k, n], m * k * shape.element.bytes() * if residual { 2 } else { 1 }),
    }
}

fn swiglu_backward(shape: Shape) -> Problem {
    let Extents { m, n, k } = shape.extents;
    Problem {
        operands: vec![
            Operand::output("d_gate_up", Type::Activation, [m, 2 * k]),
            shape.spaced(shape.normal("dy", [m, n], 1), n),
            shape.normal("w", [n, k], 2),
            shape.normal("gate_up", [m, 2 * k], 3),
        ],
        run: Box::new(move |on| {
            let (dy, w, gate_up) = (shape.rows(on, "dy", n)?, on.activations("w")?, on.activations("gate_up")?);
            kernel::swiglu_backward(on.context(), shape.extents, on.activations_mut("d_gate_up")?, dy, w, gate_up)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let dh = product::<P>(&host.get("dy"), &transposed(&host.get("w"), k), n);
                vec![("d_gate_up", widened(swiglu_gradient::<P>(&dh, &host.get("gate_up"), k)))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.tiled([m, k, n], 4 * m * k * shape.element.bytes()),
    }
}

fn backward_weight(shape: Shape, accumulate: bool) -> Problem {
    let Extents { m, n, k } = shape.extents;
    let dw = if accumulate {
        Operand::in_out("dw", Type::F32, [n, k], normal(n * k, 3))
    } else {
        Operand::output("dw", Type::F32, [n, k])
    };
    let tiling = Tiling::shared([n, k], shape.element, true, SHARED);
    let splits = tiling.splits([n, k], m);
    // A gradient moves once or, to be added to, twice; a partial sum is written and read.
    let stored = n * k * 4 * (if accumulate { 2 } else { 1 } + if splits > 1 { 2 * splits } else { 0 });
    Problem {
        operands: vec![
            dw,
            Operand::workspace("partial", Type::F32, kernel::partials(shape.extents, shape.element)),
            shape.spaced(shape.normal("dy", [m, n], 1), n),
            shape.spaced(shape.normal("x", [m, k], 2), k),
        ],
        run: Box::new(move |on| {
            let to = WeightGradient { dw: on.slice_mut("dw")?, accumulate, partial: on.slice_mut("partial")? };
            kernel::backward_weight(on.context(), shape.extents, to, shape.rows(on, "dy", n)?, shape.rows(on, "x", k)?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                // The gradient is kept in float: nothing is rounded.
                let mut dw = vec![F::of(0.0); n * k];
                reference(&transposed::<F>(&host.get("dy"), n), &transposed(&host.get("x"), k), m, &mut dw);
                if accumulate {
                    dw = sum(&dw, &host.get("dw"), |dw| dw);
                }
                vec![("dw", widened(dw))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.traffic(tiling, [n, k, m], stored),
    }
}
