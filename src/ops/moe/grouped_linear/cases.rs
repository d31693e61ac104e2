//! The shapes, loads and types in which the kernels of the experts' linear maps are proven.

use super::kernel::{self, Extents, Tiles, max_tiles, tile_rows};
use crate::Result;
use crate::gpu::ElementType;
use crate::ops::linear::cases::{SHARED, product, sum, swiglu, swiglu_gradient};
use crate::ops::linear::kernel::Gated;
use crate::ops::linear::tiling::Tiling;
use crate::ops::linear::{reference, transposed};
use crate::ops::table::{Case, HostOperands, Operand, Operands, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

/// How many rows each expert has, and the weights' size.
#[derive(Clone, Copy)]
struct Shape {
    counts: &'static [usize],
    n: usize,
    k: usize,
    element: ElementType,
    measured: bool,
}

type Pass = (&'static str, fn(Shape) -> Problem);

const PASSES: [Pass; 6] = [
    ("forward", forward),
    ("swiglu forward", swiglu_forward),
    ("backward input", backward_input),
    ("swiglu backward", swiglu_backward),
    ("backward weight", |shape| backward_weight(shape, false)),
    ("add backward weight", |shape| backward_weight(shape, true)),
];

/// Uneven, empty and overfull experts in every type; a model's shape in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |counts: &'static [usize], [n, k]: [usize; 2], element, measured| {
        for (pass, problem) in PASSES {
            let shape = Shape { counts, n, k, element, measured };
            let rows = counts.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
            cases.push(Case::new("grouped_linear", pass, &format!("({rows})x{n}x{k}"), element, move || problem(shape)));
        }
    };
    for element in ElementType::ALL {
        add(&[3, 0, 130, 17], [40, 72], element, false);
        add(&[0, 0, 5], [13, 7], element, false);
    }
    add(&[700, 1, 323], [136, 200], ElementType::BF16, false);
    add(&[0, 790, 3], [33, 17], ElementType::BF16, false);
    add(&[512, 384, 0, 1152], [1408, 512], ElementType::BF16, true);
    cases
}

impl Shape {
    fn extents(self) -> Extents {
        Extents { rows: self.counts.iter().sum(), experts: self.counts.len(), n: self.n, k: self.k }
    }

    fn tile_rows(self) -> usize {
        tile_rows(self.extents().rows, self.counts.len())
    }

    /// Where each expert's rows begin, and where the last one's end.
    fn offsets(self) -> Vec<usize> {
        let mut offsets = vec![0];
        offsets.extend(self.counts.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        }));
        offsets
    }

    /// The list of tiles as the device would make it.
    fn tiles(self) -> Operand {
        let rows = self.tile_rows();
        let mut list = Vec::new();
        for (expert, range) in self.offsets().windows(2).enumerate() {
            for first in (range[0]..range[1]).step_by(rows) {
                list.extend([expert, first, rows.min(range[1] - first), 0].map(|x| x as f64));
            }
        }
        let tiles = max_tiles(self.extents().rows, self.counts.len(), rows);
        list.resize(tiles * 4, 0.0);
        Operand::input("tiles", Type::I32, [tiles, 4], list)
    }

    fn on<'a>(self, on: &'a Operands<'_>) -> Result<Tiles<'a>> {
        Ok(Tiles { list: on.slice("tiles")?, rows: self.tile_rows() })
    }

    fn normal(self, name: &'static str, [rows, cols]: [usize; 2], seed: u64) -> Operand {
        Operand::input(name, Type::Activation, [rows, cols], normal(rows * cols, seed))
    }

    /// `product(rows of x, rows of w)` for each expert, one after the other, where x has `width` columns and a weight `size` elements.
    fn each<P: Precision>(
        self,
        [x, w]: [&[P::Number]; 2],
        [width, size]: [usize; 2],
        product: impl Fn(&[P::Number], &[P::Number]) -> Vec<P::Number>,
    ) -> Vec<P::Number> {
        let ranges = self.offsets().windows(2).map(|range| range[0] * width..range[1] * width).collect::<Vec<_>>();
        ranges.into_iter().zip(w.chunks_exact(size)).flat_map(|(rows, w)| product(&x[rows], w)).collect()
    }

    fn flops(self) -> u64 {
        let Extents { rows, n, k, .. } = self.extents();
        2 * (rows * n * k) as u64
    }

    /// Sectors that the tiles of each expert's C ask for, `columns` wide, the sum going over `depth`, and `others` bytes once.
    fn traffic(self, columns: usize, depth: usize, others: usize) -> Traffic {
        let Extents { rows, experts, .. } = self.extents();
        let tiles = max_tiles(rows, experts, self.tile_rows());
        let tiling = Tiling::of_height(self.tile_rows(), [tiles, columns], self.element, true, SHARED);
        let Ok(tiling) = tiling else { return Traffic::Unmeasured };
        let operands = |&rows: &usize| rows * columns.div_ceil(tiling.columns) + columns * rows.div_ceil(tiling.rows);
        self.sectors(self.counts.iter().map(operands).sum::<usize>() * depth * self.element.bytes() + others)
    }

    fn sectors(self, bytes: usize) -> Traffic {
        if self.measured { Traffic::Tiled { sectors: bytes as u64 / 32 } } else { Traffic::Unmeasured }
    }
}

fn forward(shape: Shape) -> Problem {
    let extents @ Extents { rows, experts, n, k } = shape.extents();
    Problem {
        operands: vec![
            Operand::output("y", Type::Activation, [rows, n]),
            shape.normal("x", [rows, k], 1),
            shape.normal("w", [experts * n, k], 2),
            shape.tiles(),
        ],
        run: Box::new(move |on| {
            let (y, x, w) = (on.activations_mut("y")?, on.activations("x")?, on.activations("w")?);
            kernel::forward(on.context(), extents, y, x, w, shape.on(on)?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let y = shape.each::<P>([&host.get("x"), &host.get("w")], [k, n * k], |x, w| product::<P>(x, w, k));
                vec![("y", widened(y))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.traffic(n, k, rows * n * shape.element.bytes()),
    }
}

fn swiglu_forward(shape: Shape) -> Problem {
    let extents @ Extents { rows, experts, n, k } = shape.extents();
    Problem {
        operands: vec![
            Operand::output("h", Type::Activation, [rows, n]),
            Operand::output("gate_up", Type::Activation, [rows, 2 * n]),
            shape.normal("x", [rows, k], 1),
            shape.normal("w", [experts * 2 * n, k], 2),
            shape.tiles(),
        ],
        run: Box::new(move |on| {
            let to = Gated { h: on.activations_mut("h")?, gate_up: on.activations_mut("gate_up")? };
            kernel::swiglu_forward(on.context(), extents, to, on.activations("x")?, on.activations("w")?, shape.on(on)?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let gate_up = shape.each::<P>([&host.get("x"), &host.get("w")], [k, 2 * n * k], |x, w| product::<P>(x, w, k));
                vec![("h", widened(swiglu::<P>(&gate_up, n))), ("gate_up", widened(gate_up))]
            })
        }),
        flops: 2 * shape.flops(),
        traffic: shape.traffic(2 * n, k, 3 * rows * n * shape.element.bytes()),
    }
}

fn backward_input(shape: Shape) -> Problem {
    let extents @ Extents { rows, experts, n, k } = shape.extents();
    Problem {
        operands: vec![
            Operand::output("dx", Type::Activation, [rows, k]),
            shape.normal("dy", [rows, n], 1),
            shape.normal("w", [experts * n, k], 2),
            shape.tiles(),
        ],
        run: Box::new(move |on| {
            let (dx, dy, w) = (on.activations_mut("dx")?, on.activations("dy")?, on.activations("w")?);
            kernel::backward_input(on.context(), extents, dx, dy, w, shape.on(on)?)
        }),
        reference: Box::new(
            move |arithmetic, host| with_precision!(arithmetic, P => vec![("dx", widened(input_gradient::<P>(shape, host)))]),
        ),
        flops: shape.flops(),
        traffic: shape.traffic(k, n, rows * k * shape.element.bytes()),
    }
}

fn input_gradient<P: Precision>(shape: Shape, host: &HostOperands) -> Vec<P::Number> {
    let Shape { n, k, .. } = shape;
    shape.each::<P>([&host.get("dy"), &host.get("w")], [n, n * k], |dy, w| product::<P>(dy, &transposed(w, k), n))
}

fn swiglu_backward(shape: Shape) -> Problem {
    let extents @ Extents { rows, experts, n, k } = shape.extents();
    Problem {
        operands: vec![
            Operand::output("d_gate_up", Type::Activation, [rows, 2 * k]),
            shape.normal("dy", [rows, n], 1),
            shape.normal("w", [experts * n, k], 2),
            shape.normal("gate_up", [rows, 2 * k], 3),
            shape.tiles(),
        ],
        run: Box::new(move |on| {
            let (to, dy, w) = (on.activations_mut("d_gate_up")?, on.activations("dy")?, on.activations("w")?);
            kernel::swiglu_backward(on.context(), extents, to, dy, w, on.activations("gate_up")?, shape.on(on)?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let dh = input_gradient::<P>(shape, host);
                vec![("d_gate_up", widened(swiglu_gradient::<P>(&dh, &host.get("gate_up"), k)))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.traffic(k, n, 4 * rows * k * shape.element.bytes()),
    }
}

fn backward_weight(shape: Shape, accumulate: bool) -> Problem {
    let extents @ Extents { rows, experts, n, k } = shape.extents();
    let dw = match accumulate {
        true => Operand::in_out("dw", Type::F32, [experts * n, k], normal(experts * n * k, 3)),
        false => Operand::output("dw", Type::F32, [experts * n, k]),
    };
    let offsets = shape.offsets().into_iter().map(|offset| offset as f64).collect();
    // Where an expert has no rows there is nothing to add.
    let stored = if accumulate { 2 * shape.counts.iter().filter(|&&count| count > 0).count() } else { experts } * n * k * 4;
    let tiling = Tiling::shared([n, k], shape.element, true, SHARED);
    let operands = (n * k.div_ceil(tiling.columns) + k * n.div_ceil(tiling.rows)) * rows * shape.element.bytes();
    Problem {
        operands: vec![
            dw,
            shape.normal("dy", [rows, n], 1),
            shape.normal("x", [rows, k], 2),
            Operand::input("offsets", Type::I32, [1, experts + 1], offsets),
        ],
        run: Box::new(move |on| {
            let (dy, x) = (on.activations("dy")?, on.activations("x")?);
            kernel::backward_weight(on.context(), extents, on.slice_mut("dw")?, accumulate, dy, x, on.slice("offsets")?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let (dy, x) = (host.get::<F>("dy"), host.get::<F>("x"));
                let mut dw = vec![F::of(0.0); experts * n * k];
                for (range, dw) in shape.offsets().windows(2).zip(dw.chunks_exact_mut(n * k)) {
                    let (dy, x) = (&dy[range[0] * n..range[1] * n], &x[range[0] * k..range[1] * k]);
                    // The gradient is kept in float: nothing is rounded.
                    if !dy.is_empty() {
                        reference(&transposed(dy, n), &transposed(x, k), range[1] - range[0], dw);
                    }
                }
                if accumulate {
                    dw = sum(&dw, &host.get("dw"), |dw| dw);
                }
                vec![("dw", widened(dw))]
            })
        }),
        flops: shape.flops(),
        traffic: shape.sectors(operands + stored),
    }
}
