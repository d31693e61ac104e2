//! The shapes and types in which the kernels of rotary position embedding are proven, alone and behind a norm of each head.

use super::kernel::{self, Angles, Gradients, Heads, Rows, RowsMut, Saved};
use super::{RopeLayout, reference};
use crate::Result;
use crate::gpu::ElementType;
use crate::ops::rmsnorm;
use crate::ops::table::{Case, HostOperands, Operand, Operands, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

const EPS: f64 = 1e-6;
/// Rows of the table of angles.
const POSITIONS: usize = 512;

/// Heads, and what lies between their rows.
#[derive(Clone, Copy)]
struct Shape {
    heads: Heads,
    /// Elements between the rows of x and dy.
    gap: usize,
}

/// Odd heads in every type, the models' in bf16.
pub fn cases() -> Vec<Case> {
    use RopeLayout::{Halves, Interleaved};
    let mut cases = Vec::new();
    let odd = [
        (1, [1, 0], [2, 2], Halves, 0),
        (17, [2, 1], [11, 6], Halves, 1),
        (5, [3, 2], [10, 4], Interleaved, 2),
        (33, [2, 2], [40, 16], Interleaved, 8),
        (63, [8, 2], [64, 64], Halves, 4),
        (9, [5, 4], [256, 256], Halves, 0),
        (7, [1, 1], [96, 96], Interleaved, 3),
    ];
    for element in ElementType::ALL {
        for (rows, [q, k], [width, rotary], layout, gap) in odd {
            let shape = Shape { heads: Heads { rows, q, k, width, rotary, layout }, gap };
            add(&mut cases, shape, element, Traffic::Unmeasured);
        }
    }
    // q and k of a projection that v follows; the queries of latent attention.
    for (rows, [q, k], [width, rotary], layout, gap) in [
        (4096, [8, 2], [64, 64], Halves, 128),
        (1024, [8, 2], [96, 96], Halves, 192),
        (512, [16, 8], [128, 128], Halves, 1024),
        (512, [8, 0], [192, 64], Interleaved, 0),
    ] {
        let shape = Shape { heads: Heads { rows, q, k, width, rotary, layout }, gap };
        add(&mut cases, shape, ElementType::BF16, Traffic::Streaming);
    }
    cases
}

fn add(cases: &mut Vec<Case>, shape: Shape, element: ElementType, traffic: Traffic) {
    let Heads { rows, q, k, width, rotary, layout } = shape.heads;
    let layout = if layout == RopeLayout::Halves { "halves" } else { "pairs" };
    let name = format!("{rows}x({q}+{k})x{width} {rotary} {layout}");
    for (pass, direction) in [("forward", 1.0), ("backward", -1.0)] {
        cases.push(Case::new("rope", pass, &name, element, move || turn(shape, direction, traffic)));
    }
    cases.push(Case::new("rope", "in place", &name, element, move || in_place(shape, element, traffic)));
    cases.push(Case::new("rope", "norm forward", &name, element, move || norm_forward(shape, traffic)));
    cases.push(Case::new("rope", "norm backward", &name, element, move || norm_backward(shape, traffic)));
}

impl Shape {
    fn cols(self) -> usize {
        (self.heads.q + self.heads.k) * self.heads.width
    }

    fn pitch(self) -> usize {
        self.cols() + self.gap
    }

    fn elements(self) -> usize {
        self.heads.rows * self.cols()
    }

    fn input(self, name: &'static str, seed: u64) -> Operand {
        Operand::input(name, Type::Activation, [self.heads.rows, self.cols()], normal(self.elements(), seed)).pitched(self.pitch())
    }

    fn output(self, name: &'static str) -> Operand {
        Operand::output(name, Type::Activation, [self.heads.rows, self.cols()])
    }

    fn angles(self) -> [Operand; 2] {
        let (rows, rotary) = (self.heads.rows, self.heads.rotary);
        let turns = normal(POSITIONS * rotary / 2, 7);
        let table = turns.chunks_exact(rotary / 2).flat_map(|row| row.iter().map(|x| x.cos()).chain(row.iter().map(|x| x.sin())));
        let positions = (0..rows).map(|r| (r * 7 % POSITIONS) as f64);
        [
            Operand::input("table", Type::F32, [POSITIONS, rotary], table.collect()),
            Operand::input("positions", Type::I32, [1, rows], positions.collect()),
        ]
    }

    fn weights(self) -> [Operand; 2] {
        let width = self.heads.width;
        [("w_q", 2), ("w_k", 3)].map(|(name, seed)| Operand::input(name, Type::Activation, [1, width], normal(width, seed)))
    }

    fn rows<'a>(self, on: &'a Operands<'_>, name: &str) -> Result<Rows<'a>> {
        Ok(Rows { from: on.activations(name)?, pitch: self.pitch() })
    }

    fn rows_mut<'a>(self, on: &'a Operands<'_>, name: &str) -> Result<RowsMut<'a>> {
        Ok(RowsMut { to: on.activations_mut(name)?, pitch: self.cols() })
    }

    /// Every head of `x` turned in the plain way, forward (1) or back (−1).
    fn turned<P: Precision>(self, host: &HostOperands, x: &[P::Number], direction: f64) -> Vec<P::Number> {
        let Heads { width, rotary, layout, .. } = self.heads;
        let (table, positions) = (host.get::<P::Number>("table"), host.get::<f64>("positions"));
        let mut y = x.to_vec();
        for (row, &position) in y.chunks_exact_mut(self.cols()).zip(&positions) {
            let (cosines, sines) = table[position as usize * rotary..][..rotary].split_at(rotary / 2);
            let sines: Vec<P::Number> = sines.iter().map(|&sine| sine * P::Number::of(direction)).collect();
            for head in row.chunks_exact_mut(width) {
                let tail = head[width - rotary..].to_vec();
                reference::<P>(&tail, (cosines, &sines), layout, &mut head[width - rotary..]);
            }
        }
        y
    }
}

fn angles<'a>(on: &'a Operands<'_>) -> Result<Angles<'a>> {
    Ok(Angles { table: on.slice("table")?, positions: on.slice("positions")? })
}

fn turn(shape: Shape, direction: f64, traffic: Traffic) -> Problem {
    let mut operands = vec![shape.output("y"), shape.input("x", 1)];
    operands.extend(shape.angles());
    Problem {
        operands,
        run: Box::new(move |on| {
            let launch = if direction > 0.0 { kernel::forward } else { kernel::backward };
            launch(on.context(), shape.heads, shape.rows_mut(on, "y")?, shape.rows(on, "x")?, angles(on)?)
        }),
        reference: Box::new(
            move |arithmetic, host| with_precision!(arithmetic, P => vec![("y", widened(shape.turned::<P>(host, &host.get("x"), direction)))]),
        ),
        flops: 3 * shape.elements() as u64,
        traffic,
    }
}

fn in_place(shape: Shape, element: ElementType, traffic: Traffic) -> Problem {
    let Heads { rows, width, rotary, .. } = shape.heads;
    let values = normal(shape.elements(), 1);
    let x = Operand::in_out("x", Type::Activation, [rows, shape.cols()], values).pitched(shape.pitch());
    let mut operands = vec![x.touching((shape.elements() / width * rotary * element.bytes()) as u64)];
    operands.extend(shape.angles());
    Problem {
        operands,
        run: Box::new(move |on| {
            let x = shape.rows(on, "x")?;
            let y = RowsMut { to: on.activations_mut("x")?, pitch: x.pitch };
            kernel::forward(on.context(), shape.heads, y, x, angles(on)?)
        }),
        reference: Box::new(
            move |arithmetic, host| with_precision!(arithmetic, P => vec![("x", widened(shape.turned::<P>(host, &host.get("x"), 1.0)))]),
        ),
        flops: 3 * shape.elements() as u64,
        traffic,
    }
}

fn norm_forward(shape: Shape, traffic: Traffic) -> Problem {
    let mut operands = vec![shape.output("y"), shape.input("x", 1)];
    operands.extend(shape.weights());
    operands.extend(shape.angles());
    Problem {
        operands,
        run: Box::new(move |on| {
            let (y, x) = (shape.rows_mut(on, "y")?, shape.rows(on, "x")?);
            let weights = [on.activations("w_q")?, on.activations("w_k")?];
            kernel::norm_forward(on.context(), shape.heads, y, x, weights, angles(on)?, EPS as f32)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let (x, weights) = (host.get("x"), [host.get("w_q"), host.get("w_k")]);
                let mut u = x.clone();
                for (row, u) in x.chunks_exact(shape.cols()).zip(u.chunks_exact_mut(shape.cols())) {
                    let (x_q, x_k) = row.split_at(shape.heads.q * shape.heads.width);
                    let (u_q, u_k) = u.split_at_mut(x_q.len());
                    for ((x, u), w) in [x_q, x_k].into_iter().zip([u_q, u_k]).zip(&weights) {
                        let mut rstd = vec![Float::of(0.0); x.len() / w.len()];
                        rmsnorm::reference::<P>(x, w, EPS, u, &mut rstd);
                    }
                }
                vec![("y", widened(shape.turned::<P>(host, &u, 1.0)))]
            })
        }),
        flops: 7 * shape.elements() as u64,
        traffic,
    }
}

fn norm_backward(shape: Shape, traffic: Traffic) -> Problem {
    let Heads { q, k, width, .. } = shape.heads;
    let mut operands = vec![
        shape.output("dx"),
        Operand::in_out("dw_q", Type::F32, [1, width], normal(width, 4)),
        Operand::in_out("dw_k", Type::F32, [1, width], normal(width, 5)),
        Operand::workspace("partial", Type::F32, shape.heads.partials() * 2 * width),
        shape.input("dy", 6),
        shape.input("x", 1),
    ];
    operands.extend(shape.weights());
    operands.extend(shape.angles());
    Problem {
        operands,
        run: Box::new(move |on| {
            let dw = [on.slice_mut("dw_q")?, on.slice_mut("dw_k")?];
            let to = Gradients { dx: shape.rows_mut(on, "dx")?, dw, accumulate: true, partial: on.slice_mut("partial")? };
            let w = [on.activations("w_q")?, on.activations("w_k")?];
            let saved = Saved { x: shape.rows(on, "x")?, w, angles: angles(on)?, eps: EPS as f32 };
            kernel::norm_backward(on.context(), shape.heads, to, shape.rows(on, "dy")?, saved)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let (x, weights) = (host.get::<F>("x"), [host.get::<F>("w_q"), host.get("w_k")]);
                let mut dw = [host.get::<F>("dw_q"), host.get("dw_k")];
                let du = shape.turned::<P>(host, &host.get("dy"), -1.0);
                let mut dx = Vec::with_capacity(x.len());
                for (i, (x, du)) in x.chunks_exact(width).zip(du.chunks_exact(width)).enumerate() {
                    let side = usize::from(i % (q + k) >= q);
                    let squares = x.iter().map(|&x| x * x).sum::<F>() / F::of(width as f64);
                    let rstd = F::of(1.0) / num_traits::Float::sqrt(squares + F::of(EPS));
                    let normal: Vec<F> = x.iter().map(|&x| P::round(x * rstd)).collect();
                    let g: Vec<F> = du.iter().zip(&weights[side]).map(|(&du, &w)| P::round(du * w)).collect();
                    let mean = g.iter().zip(&normal).map(|(&g, &n)| g * n).sum::<F>() / F::of(width as f64);
                    for c in 0..width {
                        dw[side][c] += du[c] * normal[c];
                        dx.push(P::round(rstd * (g[c] - normal[c] * mean)));
                    }
                }
                let [dw_q, dw_k] = dw;
                vec![("dx", widened(dx)), ("dw_q", widened(dw_q)), ("dw_k", widened(dw_k))]
            })
        }),
        flops: 14 * shape.elements() as u64,
        traffic,
    }
}
