//! Rows to the experts and back.

use std::sync::Arc;

use super::{Sizes, gradients, numbers};
use crate::gpu::ElementType;
use crate::ops::moe::kernel::{Rows, Weighed};
use crate::ops::moe::{Routing, combine, permute};
use crate::ops::table::{Case, HostOperands, Operand, Outputs, Precision, Problem, Traffic, Type, normal, widened};
use crate::tape::Tape;
use crate::tensor::{Float, Tensor};
use crate::{Result, with_precision};

/// Rows of so many elements.
#[derive(Debug, Clone, Copy)]
struct Extents {
    sizes: Sizes,
    width: usize,
    /// Elements between two rows of x.
    gap: usize,
    /// Whether sums are added to what is there.
    accumulate: bool,
}

impl Extents {
    fn rows(self) -> Rows {
        Rows { tokens: self.sizes.tokens, top_k: self.sizes.top_k, width: self.width }
    }

    fn routing(self) -> Result<Arc<Routing>> {
        self.sizes.routing(|expert| 0.3 * expert as f64).map(Arc::new)
    }

    fn tokens(self) -> [usize; 2] {
        [self.sizes.tokens, self.width]
    }

    fn slots(self) -> [usize; 2] {
        [self.sizes.slots(), self.width]
    }

    fn weights(self) -> [usize; 2] {
        [self.sizes.tokens, self.sizes.top_k]
    }

    fn row_of_slot(self) -> Operand {
        let rows = self.routing().map(|routing| numbers(routing.row_of_slot())).unwrap_or_default();
        Operand::input("row_of_slot", Type::I32, self.weights(), rows)
    }

    /// A sum over experts: written, or added to.
    fn sum(self, name: &'static str) -> Operand {
        let [tokens, width] = self.tokens();
        match self.accumulate {
            true => Operand::in_out(name, Type::Activation, self.tokens(), normal(tokens * width, 4)),
            false => Operand::output(name, Type::Activation, self.tokens()),
        }
    }
}

/// Odd shapes in every type, a model's in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in ElementType::ALL {
        for (tokens, experts, top_k, width, gap, accumulate) in [
            (1, 1, 1, 1, 0, false),
            (17, 8, 2, 96, 32, true),
            (513, 4, 2, 64, 0, false),
            (33, 4, 1, 511, 2, true),
            (9, 4, 3, 2056, 8, false),
            (20, 16, 8, 520, 1, true),
        ] {
            let sizes = Sizes { tokens, experts, top_k };
            add(&mut cases, Extents { sizes, width, gap, accumulate }, element, Traffic::Unmeasured);
        }
    }
    let tuned = [(8192, 4, 1, 512, true), (4096, 8, 2, 512, false), (2048, 8, 2, 768, false), (512, 64, 8, 2048, false)];
    for (tokens, experts, top_k, width, accumulate) in tuned {
        let sizes = Sizes { tokens, experts, top_k };
        add(&mut cases, Extents { sizes, width, gap: 0, accumulate }, ElementType::BF16, Traffic::Streaming);
    }
    cases
}

fn add(cases: &mut Vec<Case>, of: Extents, element: ElementType, traffic: Traffic) {
    let Sizes { tokens, experts, top_k } = of.sizes;
    let adding = if of.accumulate { ", adding" } else { "" };
    let shape = format!("{tokens}x{}, {top_k} of {experts}{adding}", of.width);
    cases.push(Case::new("moe_permute", "forward", &shape, element, move || permute_forward(of, traffic)));
    cases.push(Case::new("moe_permute", "backward", &shape, element, move || permute_backward(of, traffic)));
    cases.push(Case::new("moe_combine", "forward", &shape, element, move || combine_forward(of, traffic)));
    cases.push(Case::new("moe_combine", "backward", &shape, element, move || combine_backward(of, false, traffic)));
    cases.push(Case::new("moe_combine", "backward in place", &shape, element, move || combine_backward(of, true, traffic)));
}

fn permute_forward(of: Extents, traffic: Traffic) -> Problem {
    let pitch = of.width + of.gap;
    let x = normal(of.sizes.tokens * of.width, 1);
    Problem {
        operands: vec![
            Operand::output("y", Type::Activation, of.slots()),
            Operand::input("x", Type::Activation, of.tokens(), x).pitched(pitch),
            of.row_of_slot(),
        ],
        run: Box::new(move |on| {
            of.rows().permute(on.context(), on.activations_mut("y")?, on.activations("x")?, pitch, on.slice("row_of_slot")?)
        }),
        reference: Box::new(move |arithmetic, host| with_precision!(arithmetic, P => of.permuted::<P>(host)).unwrap_or_default()),
        flops: 0,
        traffic,
    }
}

fn permute_backward(of: Extents, traffic: Traffic) -> Problem {
    let n = of.sizes.slots() * of.width;
    Problem {
        operands: vec![of.sum("dx"), Operand::input("dy", Type::Activation, of.slots(), normal(n, 2)), of.row_of_slot()],
        run: Box::new(move |on| {
            let (dx, dy) = (on.activations_mut("dx")?, on.activations("dy")?);
            of.rows().permute_backward(on.context(), dx, of.accumulate, dy, on.slice("row_of_slot")?)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => of.gradient_of_permuted::<P>(host)).unwrap_or_default()
        }),
        flops: n as u64,
        traffic,
    }
}

fn combine_forward(of: Extents, traffic: Traffic) -> Problem {
    let n = of.sizes.slots() * of.width;
    Problem {
        operands: vec![
            of.sum("y"),
            Operand::input("z", Type::Activation, of.slots(), normal(n, 2)),
            Operand::input("weights", Type::F32, of.weights(), normal(of.sizes.slots(), 3)),
            of.row_of_slot(),
        ],
        run: Box::new(move |on| {
            let by = Weighed { weights: on.slice("weights")?, row_of_slot: on.slice("row_of_slot")? };
            of.rows().combine(on.context(), on.activations_mut("y")?, of.accumulate, on.activations("z")?, by)
        }),
        reference: Box::new(move |arithmetic, host| with_precision!(arithmetic, P => of.combined::<P>(host)).unwrap_or_default()),
        flops: 2 * n as u64,
        traffic,
    }
}

fn combine_backward(of: Extents, in_place: bool, traffic: Traffic) -> Problem {
    let n = of.sizes.slots() * of.width;
    let dz = if in_place { "z" } else { "dz" };
    let mut operands = vec![
        Operand::output("d_weights", Type::F32, of.weights()),
        Operand::input("dy", Type::Activation, of.tokens(), normal(of.sizes.tokens * of.width, 5)),
        Operand::input("weights", Type::F32, of.weights(), normal(of.sizes.slots(), 3)),
        of.row_of_slot(),
    ];
    let z = normal(n, 2);
    match in_place {
        true => operands.push(Operand::in_out("z", Type::Activation, of.slots(), z)),
        false => {
            operands.push(Operand::input("z", Type::Activation, of.slots(), z));
            operands.push(Operand::output("dz", Type::Activation, of.slots()));
        }
    }
    Problem {
        operands,
        run: Box::new(move |on| {
            let by = Weighed { weights: on.slice("weights")?, row_of_slot: on.slice("row_of_slot")? };
            let to = (on.activations_mut(dz)?, on.slice_mut("d_weights")?);
            of.rows().combine_backward(on.context(), to, on.activations("dy")?, on.activations("z")?, by)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => of.gradients_of_combined::<P>(host, dz)).unwrap_or_default()
        }),
        flops: 3 * n as u64,
        traffic,
    }
}

/// The operations' results.
impl Extents {
    fn input<P: Precision>(self, host: &HostOperands, name: &str, shape: [usize; 2]) -> Result<Tensor> {
        Tensor::new(shape, host.get::<P::Number>(name))
    }

    /// What becomes of a sum over experts when it is stored: rounded, and then added to what was there.
    fn stored<P: Precision>(self, host: &HostOperands, name: &'static str, sum: &Tensor) -> Result<Outputs> {
        let mut sum: Vec<P::Number> = sum.data()?.iter().map(|&x| P::round(x)).collect();
        if self.accumulate {
            sum.iter_mut().zip(host.get::<P::Number>(name)).for_each(|(sum, old)| *sum = P::round(*sum + old));
        }
        Ok(vec![(name, widened(sum))])
    }

    fn permuted<P: Precision>(self, host: &HostOperands) -> Result<Outputs> {
        let x = self.input::<P>(host, "x", self.tokens())?;
        let y = permute(&mut Tape::inference(), &x.into(), &self.routing()?)?;
        Ok(vec![("y", y.value().to_f64()?)])
    }

    fn gradient_of_permuted<P: Precision>(self, host: &HostOperands) -> Result<Outputs> {
        let dy = self.input::<P>(host, "dy", self.slots())?;
        let (mut tape, routing) = (Tape::recording(), self.routing()?);
        let x = tape.input(Tensor::build::<P::Number>(self.tokens(), |x| x.fill(P::Number::of(0.0))));
        let y = permute(&mut tape, &x, &routing)?;
        let dx = gradients(tape, &y, &dy, &[&x])?;
        self.stored::<P>(host, "dx", &dx[0])
    }

    fn combined<P: Precision>(self, host: &HostOperands) -> Result<Outputs> {
        let (z, weights) = (self.input::<P>(host, "z", self.slots())?, self.input::<P>(host, "weights", self.weights())?);
        let y = combine(&mut Tape::inference(), &z.into(), &weights.into(), &self.routing()?)?;
        self.stored::<P>(host, "y", y.value())
    }

    fn gradients_of_combined<P: Precision>(self, host: &HostOperands, name: &'static str) -> Result<Outputs> {
        let dy = self.input::<P>(host, "dy", self.tokens())?;
        let (mut tape, routing) = (Tape::recording(), self.routing()?);
        let z = tape.input(self.input::<P>(host, "z", self.slots())?);
        let weights = tape.input(self.input::<P>(host, "weights", self.weights())?);
        let y = combine(&mut tape, &z, &weights, &routing)?;
        let gradients = gradients(tape, &y, &dy, &[&z, &weights])?;
        let dz = gradients[0].data()?.iter().map(|&x| P::round(x)).collect();
        Ok(vec![(name, widened(dz)), ("d_weights", gradients[1].to_f64()?)])
    }
}
