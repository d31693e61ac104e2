//! Parameters in one flat buffer, their gradients in another of the same layout.
//!
//! One optimizer pass, one norm, one write to disk. Neighbours (q, k and v; gate and up; all experts) are registered together,
//! so that one matrix product serves them; their public names are windows of the same memory.

use std::sync::Arc;

use half::bf16;
use rayon::prelude::*;

use crate::tensor::{Buffer, DType, Element, Recycled, Shape, Tensor};
use crate::{Error, Result};

/// One named parameter.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The public name, as in a weights file.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// Its first element in the flat buffer.
    pub offset: usize,
    /// Whether it has a gradient. What a model only carries along (a router's correction) has none.
    pub trainable: bool,
}

impl Entry {
    /// Its elements in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.elements()
    }
}

/// A window of the flat buffer that the model computes with: one parameter, or several neighbours as one.
#[derive(Debug, Clone)]
pub struct Param {
    offset: usize,
    shape: Shape,
}

impl Param {
    /// Its first element in the flat buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Its extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The same elements under another shape of as many elements.
    pub(crate) fn reshaped(self, shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), ..self }
    }
}

/// Collects names and shapes, in the order in which they lie in the buffer.
#[derive(Debug, Default, Clone)]
pub struct Layout {
    entries: Vec<Entry>,
    aliases: Vec<Entry>,
    len: usize,
}

impl Layout {
    /// Adds one parameter.
    pub fn add(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> Param {
        self.push(name.into(), shape.into(), true)
    }

    /// Adds values that are saved and loaded with the parameters, and that no gradient reaches.
    pub fn add_buffer(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> Param {
        self.push(name.into(), shape.into(), false)
    }

    fn push(&mut self, name: String, shape: Shape, trainable: bool) -> Param {
        let offset = self.len;
        self.len += shape.elements();
        self.entries.push(Entry { name, shape: shape.clone(), offset, trainable });
        Param { offset, shape }
    }

    /// Adds neighbours that are used as one matrix: `parts` are names and row counts, all of `cols` columns.
    pub fn add_fused(&mut self, parts: &[(String, usize)], cols: usize) -> Param {
        let offset = self.len;
        let rows = parts.iter().map(|(name, rows)| {
            self.add(name, [*rows, cols]);
            rows
        });
        let rows = rows.sum();
        Param { offset, shape: [rows, cols].into() }
    }

    /// Gives a parameter, or neighbours together, another name under which some files hold them as one tensor.
    pub(crate) fn add_alias(&mut self, name: impl Into<String>, param: &Param) {
        self.aliases.push(Entry { name: name.into(), shape: param.shape.clone(), offset: param.offset, trainable: true });
    }

    /// The parameters as a file holds them: under another name, neighbours together, where `contains` has that name, else one by
    /// one under their own.
    pub fn as_stored(&self, contains: impl Fn(&str) -> bool) -> Vec<&Entry> {
        let aliases: Vec<_> = self.aliases.iter().filter(|entry| contains(&entry.name)).collect();
        let covered = |entry: &Entry| aliases.iter().any(|alias| alias.range().contains(&entry.offset));
        let mut stored: Vec<_> = self.entries.iter().filter(|entry| !covered(entry)).collect();
        stored.extend(&aliases);
        stored.sort_by_key(|entry| entry.offset);
        stored
    }

    /// Elements so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parameters in the order of the buffer.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The parameter of a public name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Named parameters and their values.
#[derive(Debug)]
pub struct Params {
    layout: Layout,
    values: Arc<Buffer>,
}

impl Params {
    /// All zero.
    pub fn zeros(layout: Layout, dtype: DType) -> Self {
        let values = Arc::new(Buffer::zeros(dtype, layout.len()));
        Self { layout, values }
    }

    /// Names, shapes, places.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        self.values.dtype()
    }

    /// The values of a window, shared, not copied.
    pub fn tensor(&self, param: &Param) -> Tensor {
        Tensor::window(self.values.clone(), param.offset, param.shape.clone())
    }

    /// The values under a public name, shared.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let entry = self.layout.find(name)?;
        Some(Tensor::window(self.values.clone(), entry.offset, entry.shape.clone()))
    }

    /// All values in the order of the layout.
    pub fn flat<E: Element>(&self) -> Result<&[E]> {
        E::slice(&self.values).ok_or_else(|| wrong_dtype(E::DTYPE, self.values.dtype()))
    }

    /// All values, to write. An error while any tensor (a tape that was not walked back) still shares them.
    pub fn flat_mut<E: Element>(&mut self) -> Result<&mut [E]> {
        let dtype = self.values.dtype();
        let buffer = Arc::get_mut(&mut self.values)
            .ok_or_else(|| Error::Internal("parameters are written while a tensor still shares them".into()))?;
        E::slice_mut(buffer).ok_or_else(|| wrong_dtype(E::DTYPE, dtype))
    }

    /// The same values in f64, for checks.
    pub fn to_f64(&self) -> Result<Self> {
        let values: Vec<f64> = self.flat::<f32>()?.iter().map(|&x| f64::from(x)).collect();
        Ok(Self { layout: self.layout.clone(), values: Arc::new(Buffer::F64(values.into())) })
    }

    /// The same values rounded to bf16, to nearest, ties to even: for inference.
    pub fn to_bf16(&self) -> Result<Self> {
        let values = self.flat::<f32>()?;
        let mut rounded = Recycled::stale(values.len());
        rounded.par_iter_mut().zip(values).with_min_len(CLEARED).for_each(|(rounded, &x)| *rounded = bf16::from_f32(x));
        Ok(Self { layout: self.layout.clone(), values: Arc::new(Buffer::BF16(rounded)) })
    }
}

/// Elements that one parallel task sets to zero, or rounds.
const CLEARED: usize = 1 << 18;

/// The gradients of all parameters, in the same layout.
#[derive(Debug)]
pub struct Gradients {
    buffer: Buffer,
    entries: Vec<Entry>,
    reached: Vec<bool>,
}

impl Gradients {
    /// Zeros for every parameter.
    pub fn zeros(params: &Params) -> Self {
        let entries = params.layout.entries.clone();
        Self { buffer: Buffer::zeros(params.dtype(), params.layout.len()), reached: vec![false; entries.len()], entries }
    }

    /// For a tape without parameters.
    pub fn none() -> Self {
        Self { buffer: Buffer::zeros(DType::F32, 0), entries: Vec::new(), reached: Vec::new() }
    }

    /// All gradients in the order of the layout.
    pub fn flat<E: Element>(&self) -> Result<&[E]> {
        E::slice(&self.buffer).ok_or_else(|| wrong_dtype(E::DTYPE, self.buffer.dtype()))
    }

    /// All gradients, to write.
    pub fn flat_mut<E: Element>(&mut self) -> Result<&mut [E]> {
        let dtype = self.buffer.dtype();
        E::slice_mut(&mut self.buffer).ok_or_else(|| wrong_dtype(E::DTYPE, dtype))
    }

    /// Sets all to zero, and forgets which were reached.
    pub fn clear(&mut self) {
        match &mut self.buffer {
            Buffer::F32(data) => data.par_chunks_mut(CLEARED).for_each(|data| data.fill(0.0)),
            Buffer::F64(data) => data.par_chunks_mut(CLEARED).for_each(|data| data.fill(0.0)),
            Buffer::BF16(data) => data.fill(bf16::ZERO),
            Buffer::I32(data) => data.fill(0),
        }
        self.reached.fill(false);
    }

    /// Whether the range belongs to these parameters.
    pub(crate) fn is_trainable(&self, offset: usize, len: usize) -> bool {
        self.entries.last().is_some_and(|last| offset + len <= last.range().end)
    }

    /// A range to accumulate into; its parameters count as reached.
    pub(crate) fn range_mut<E: Element>(&mut self, offset: usize, len: usize) -> Result<&mut [E]> {
        let first = self.entries.partition_point(|entry| entry.range().end <= offset);
        for (entry, reached) in self.entries.iter().zip(&mut self.reached).skip(first) {
            if entry.offset >= offset + len {
                break;
            }
            *reached = true;
        }
        Ok(&mut self.flat_mut::<E>()?[offset..offset + len])
    }

    /// An error about `what` where the range, if it belongs to these parameters, holds a value that is not finite.
    pub(crate) fn expect_finite(&self, offset: usize, len: usize, what: impl Fn() -> String) -> Result<()> {
        let range = if self.is_trainable(offset, len) { offset..offset + len } else { 0..0 };
        let finite = match &self.buffer {
            Buffer::F32(data) => data[range].iter().all(|x| x.is_finite()),
            Buffer::F64(data) => data[range].iter().all(|x| x.is_finite()),
            Buffer::BF16(data) => data[range].iter().all(|x| x.is_finite()),
            Buffer::I32(_) => true,
        };
        let name = || self.entries.iter().find(|entry| entry.range().contains(&offset)).map_or("", |entry| &entry.name);
        if finite { Ok(()) } else { Err(Error::NonFinite(format!("{}, for {}, is not finite", what(), name()))) }
    }

    /// An error that names a parameter that no backward pass has reached since the last [`Gradients::clear`].
    pub fn expect_all_reached(&self) -> Result<()> {
        match self.entries.iter().zip(&self.reached).find(|(entry, reached)| entry.trainable && !**reached) {
            Some((entry, _)) => Err(Error::Internal(format!("no gradient reached the parameter {}", entry.name))),
            None => Ok(()),
        }
    }
}

fn wrong_dtype(expected: DType, got: DType) -> Error {
    Error::DType { op: "params", argument: "values", expected: expected.to_string(), got: got.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_stored_one_by_one_or_together() {
        let mut layout = Layout::default();
        layout.add("first", [2]);
        let pair = layout.add_fused(&[("a".into(), 1), ("b".into(), 2)], 4);
        layout.add("last", [2]);
        layout.add_alias("ab", &pair);
        let stored = |fused: bool| layout.as_stored(|_| fused).iter().map(|e| (e.name.clone(), e.range())).collect::<Vec<_>>();
        assert_eq!(stored(false), [("first".into(), 0..2), ("a".into(), 2..6), ("b".into(), 6..14), ("last".into(), 14..16)]);
        assert_eq!(stored(true), [("first".into(), 0..2), ("ab".into(), 2..14), ("last".into(), 14..16)]);
    }
}
