//! Reverse-mode differentiation: a flat list of the operations that were done, walked backwards.
//!
//! An operation is a struct that implements [`Op`]: `forward` and a required `backward`, so that no gradient can be dropped in
//! silence. What is not differentiable (sampling, top-k by itself) is an ordinary function, which the tape does not take.

mod gradcheck;
mod sink;

use std::any::Any;

pub use gradcheck::{GradientCheck, check_gradients};
pub use sink::Sink;

use crate::params::{Gradients, Param, Params};
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};

/// A differentiable operation.
pub trait Op: 'static {
    /// What `backward` needs of the forward pass, besides what the struct itself holds.
    type Saved: 'static;

    /// The name in messages.
    fn name(&self) -> &'static str;

    /// Computes the outputs, and what backward will need.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Self::Saved)>;

    /// Adds to the gradient of each input that `sink` asks for, given the gradient of each output (`None`: nothing depends on it).
    fn backward(&self, saved: Self::Saved, output_grads: &[Option<Tensor>], sink: &mut Sink) -> Result<()>;
}

/// A value on the tape, or a constant.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    source: Source,
}

/// Where a value comes from, that is, where its gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// No gradient is wanted.
    Constant,
    /// A slot of the tape: output of an operation, or an input whose gradient is asked for.
    Slot(usize),
    /// A range of the flat parameter buffer.
    Param { offset: usize, len: usize },
}

impl Var {
    /// A value that no gradient flows to.
    pub fn constant(value: Tensor) -> Self {
        Self { value, source: Source::Constant }
    }

    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Its extents.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }

    /// The same value under another shape; its gradient comes back under its own.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        Ok(Self { value: self.value.reshape(shape)?, source: self.source })
    }
}

impl From<Tensor> for Var {
    fn from(value: Tensor) -> Self {
        Self::constant(value)
    }
}

/// An operation without its type.
trait AnyOp {
    fn name(&self) -> &'static str;
    fn backward(&self, saved: Box<dyn Any>, output_grads: &[Option<Tensor>], sink: &mut Sink) -> Result<()>;
}

impl<O: Op> AnyOp for O {
    fn name(&self) -> &'static str {
        Op::name(self)
    }

    fn backward(&self, saved: Box<dyn Any>, output_grads: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let saved = saved
            .downcast::<O::Saved>()
            .map_err(|_| Error::Internal(format!("{}: saved values of another type", Op::name(self))))?;
        Op::backward(self, *saved, output_grads, sink)
    }
}

/// One operation that was done.
struct Node {
    op: Box<dyn AnyOp>,
    saved: Box<dyn Any>,
    inputs: Vec<(Source, usize)>,
    first_output: usize,
    outputs: usize,
    /// Where in the model; kept only under [`Checks::Finite`].
    place: String,
}

/// What to do when a value is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checks {
    /// Trust the operations.
    #[default]
    Off,
    /// Look at every output and every gradient: slow, names the operation and the place where it first happens.
    Finite,
}

/// The record of a forward pass.
///
/// Made by [`Tape::recording`] for training, or by [`Tape::inference`], which computes the same values and keeps nothing.
pub struct Tape {
    nodes: Option<Vec<Node>>,
    /// The shape of each slot's value, which its gradient takes.
    slots: Vec<Shape>,
    checks: Checks,
    place: String,
}

impl Tape {
    /// A tape that records.
    pub fn recording() -> Self {
        Self { nodes: Some(Vec::new()), slots: Vec::new(), checks: Checks::Off, place: String::new() }
    }

    /// A tape that records nothing: for generation and evaluation.
    pub fn inference() -> Self {
        Self { nodes: None, ..Self::recording() }
    }

    /// The same tape, with checks after each operation.
    pub fn with_checks(self, checks: Checks) -> Self {
        Self { checks, ..self }
    }

    /// Says which part of the model is being computed (`layers.3.self_attn`), for messages.
    pub fn enter(&mut self, place: impl Into<String>) {
        self.place = place.into();
    }

    /// Whether a backward pass can follow.
    pub fn is_recording(&self) -> bool {
        self.nodes.is_some()
    }

    /// A parameter.
    pub fn param(&self, params: &Params, param: &Param) -> Var {
        let source = Source::Param { offset: param.offset(), len: param.shape().elements() };
        Var { value: params.tensor(param), source }
    }

    /// An input whose gradient is asked for: [`Backward::input`] returns it.
    pub fn input(&mut self, value: Tensor) -> Var {
        self.slots.push(value.shape().clone());
        Var { value, source: Source::Slot(self.slots.len() - 1) }
    }

    /// Does an operation with one output.
    pub fn apply<O: Op>(&mut self, op: O, inputs: &[&Var]) -> Result<Var> {
        let name = op.name();
        match <[Var; 1]>::try_from(self.apply_many(op, inputs)?) {
            Ok([output]) => Ok(output),
            Err(outputs) => Err(Error::Internal(format!("{name} has {} outputs, not one", outputs.len()))),
        }
    }

    /// Does an operation with any number of outputs.
    pub fn apply_many<O: Op>(&mut self, op: O, inputs: &[&Var]) -> Result<Vec<Var>> {
        let values: Vec<&Tensor> = inputs.iter().map(|var| &var.value).collect();
        let (outputs, saved) = op.forward(&values)?;
        if self.checks == Checks::Finite {
            for output in &outputs {
                expect_finite(output, || format!("the output of {} in {}", op.name(), self.place))?;
            }
        }
        let Some(nodes) = &mut self.nodes else {
            return Ok(outputs.into_iter().map(Var::constant).collect());
        };
        let first_output = self.slots.len();
        self.slots.extend(outputs.iter().map(|output| output.shape().clone()));
        nodes.push(Node {
            op: Box::new(op),
            saved: Box::new(saved),
            inputs: inputs.iter().map(|var| (var.source, var.value.shape().elements())).collect(),
            first_output,
            outputs: outputs.len(),
            place: if self.checks == Checks::Finite { self.place.clone() } else { String::new() },
        });
        let numbered = outputs.into_iter().enumerate();
        Ok(numbered.map(|(i, value)| Var { value, source: Source::Slot(first_output + i) }).collect())
    }

    /// Walks back from `root`, a scalar whose own gradient is `seed`, and adds every parameter's gradient to `gradients`.
    ///
    /// What an operation saved is freed as soon as its backward is done.
    pub fn backward(self, root: &Var, seed: f64, gradients: &mut Gradients) -> Result<Backward> {
        let checks = self.checks;
        let nodes = self.nodes.ok_or_else(|| Error::Internal("backward on a tape that does not record".into()))?;
        let mut slots: Vec<Option<Tensor>> = vec![None; self.slots.len()];
        if root.value.shape().elements() != 1 {
            let got = root.value.shape().to_string();
            return Err(Error::Shape { op: "backward", argument: "root", expected: "one element".into(), got });
        }
        if let Source::Slot(slot) = root.source {
            slots[slot] = Some(filled(root.value.dtype(), seed, &root.value)?);
        }
        for node in nodes.into_iter().rev() {
            let outputs = node.first_output..node.first_output + node.outputs;
            let shaped = |slot: usize, slots: &mut Vec<Option<Tensor>>| {
                slots[slot].take().map(|grad| grad.reshape(&self.slots[slot])).transpose()
            };
            let output_grads: Vec<_> = outputs.map(|slot| shaped(slot, &mut slots)).collect::<Result<_>>()?;
            if output_grads.iter().all(Option::is_none) {
                continue;
            }
            let name = node.op.name();
            let mut sink = Sink::new(name, &node.inputs, &mut slots, gradients);
            node.op.backward(node.saved, &output_grads, &mut sink)?;
            if checks == Checks::Finite {
                let what = || format!("a gradient computed by the backward of {name} in {}", node.place);
                for (source, _) in &node.inputs {
                    match *source {
                        Source::Slot(slot) => slots[slot].iter().try_for_each(|grad| expect_finite(grad, what))?,
                        Source::Param { offset, len } => gradients.expect_finite(offset, len, what)?,
                        Source::Constant => {}
                    }
                }
            }
        }
        let shaped = slots.into_iter().zip(&self.slots).map(|(grad, shape)| grad.map(|grad| grad.reshape(shape)).transpose());
        Ok(Backward { slots: shaped.collect::<Result<_>>()? })
    }
}

fn filled(dtype: DType, value: f64, like: &Tensor) -> Result<Tensor> {
    crate::with_float!("backward", dtype, F => Ok(Tensor::build::<F>(like.shape(), |data| data.fill(crate::tensor::Float::of(value)))))
}

fn expect_finite(tensor: &Tensor, what: impl Fn() -> String) -> Result<()> {
    if tensor.dtype() == DType::I32 {
        return Ok(());
    }
    match tensor.to_f64()?.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::NonFinite(format!("{} is not finite (element {at} of {})", what(), tensor.shape()))),
        None => Ok(()),
    }
}

/// What a backward pass leaves besides the parameters' gradients.
pub struct Backward {
    slots: Vec<Option<Tensor>>,
}

impl Backward {
    /// The gradient of an input made by [`Tape::input`]; `None` where nothing depends on it.
    pub fn input(&self, var: &Var) -> Option<&Tensor> {
        match var.source {
            Source::Slot(slot) => self.slots.get(slot)?.as_ref(),
            _ => None,
        }
    }
}
