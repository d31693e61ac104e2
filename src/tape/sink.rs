//! Where an operation's backward leaves the gradients of its inputs.

use super::Source;
use crate::params::Gradients;
use crate::tensor::{Float, Tensor};
use crate::{Error, Result};

/// The gradients of one operation's inputs, to be added to.
///
/// A parameter's gradient is a range of the flat gradient buffer, and is accumulated there; any other is a tensor of its own.
pub struct Sink<'a> {
    op: &'static str,
    inputs: &'a [(Source, usize)],
    slots: &'a mut [Option<Tensor>],
    gradients: &'a mut Gradients,
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        op: &'static str,
        inputs: &'a [(Source, usize)],
        slots: &'a mut [Option<Tensor>],
        gradients: &'a mut Gradients,
    ) -> Self {
        Self { op, inputs, slots, gradients }
    }

    /// Whether anyone wants the gradient of input `i`: if not, it need not be computed.
    pub fn wants(&self, i: usize) -> bool {
        match self.inputs[i].0 {
            Source::Constant => false,
            Source::Slot(_) => true,
            Source::Param { offset, len } => self.gradients.is_trainable(offset, len),
        }
    }

    /// Adds to the gradient of input `i` in place: `write(destination, accumulate)` either adds to the destination
    /// (`accumulate`) or overwrites all of it. The destination has the input's elements in row-major order, without gaps.
    pub fn write<F: Float>(&mut self, i: usize, write: impl FnOnce(&mut [F], bool)) -> Result<()> {
        let (source, len) = self.inputs[i];
        match source {
            Source::Constant => Ok(()),
            Source::Param { offset, len } => {
                if self.gradients.is_trainable(offset, len) {
                    write(self.gradients.range_mut::<F>(offset, len)?, true);
                }
                Ok(())
            }
            Source::Slot(slot) => {
                if let Some(existing) = &mut self.slots[slot] {
                    if let Some(data) = existing.data_mut::<F>() {
                        write(data, true);
                        return Ok(());
                    }
                    let shared = existing.data::<F>()?;
                    let copy = Tensor::build::<F>(existing.shape(), |data| {
                        data.copy_from_slice(shared);
                        write(data, true);
                    });
                    *existing = copy;
                } else {
                    self.slots[slot] = Some(Tensor::build::<F>([len], |data| write(data, false)));
                }
                Ok(())
            }
        }
    }

    /// Adds a whole tensor to the gradient of input `i`. The first one is taken as it is, without a copy.
    pub fn add(&mut self, i: usize, gradient: Tensor) -> Result<()> {
        let (source, len) = self.inputs[i];
        if gradient.shape().elements() != len {
            return Err(Error::Internal(format!(
                "{}: gradient of input {i} has shape {}, the input {len} elements",
                self.op,
                gradient.shape()
            )));
        }
        if let Source::Slot(slot) = source
            && self.slots[slot].is_none()
            && gradient.is_contiguous()
        {
            self.slots[slot] = Some(gradient);
            return Ok(());
        }
        crate::with_float!(self.op, gradient.dtype(), F => {
            let (data, cols, pitch) = (gradient.pitched::<F>()?, gradient.shape().cols(), gradient.pitch());
            self.write::<F>(i, |destination, accumulate| {
                for (r, row) in destination.chunks_exact_mut(cols.max(1)).enumerate() {
                    let source = &data[r * pitch..][..cols];
                    if accumulate {
                        crate::ops::add::accumulate(row, source);
                    } else {
                        row.copy_from_slice(source);
                    }
                }
            })
        })
    }
}
