//! Tensors: a shape, an element type, and a window into shared storage.

mod buffer;
mod dtype;
mod shape;

use std::borrow::Cow;
use std::sync::Arc;

use half::bf16;

pub use buffer::{Buffer, Recyclable, Recycled};
pub use dtype::{DType, Element, Float};
pub use shape::Shape;

use crate::cpu::gemm::Operand;
use crate::{Error, Result};

/// An n-dimensional array `[.., C]`: rows of C adjacent elements, `pitch` elements apart.
///
/// Rows lie side by side (`pitch == C`: contiguous), or with a gap, where the tensor is a range of the columns of a wider one.
/// Cloning shares the storage; nothing writes to storage that is shared.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    offset: usize,
    shape: Shape,
    pitch: usize,
}

impl Tensor {
    /// A contiguous tensor that owns `data`, whose length must be the number of elements of `shape`.
    pub fn new<E: Element>(shape: impl Into<Shape>, data: Vec<E>) -> Result<Self> {
        Self::from_buffer(shape, E::into_buffer(data.into()))
    }

    /// A contiguous tensor over a whole buffer.
    pub fn from_buffer(shape: impl Into<Shape>, buffer: Buffer) -> Result<Self> {
        let shape = shape.into();
        let len = match &buffer {
            Buffer::F32(data) => data.len(),
            Buffer::F64(data) => data.len(),
            Buffer::BF16(data) => data.len(),
            Buffer::I32(data) => data.len(),
        };
        if shape.elements() != len {
            return Err(Error::Shape {
                op: "tensor",
                argument: "data",
                expected: format!("{} elements for {shape}", shape.elements()),
                got: format!("{len} elements"),
            });
        }
        Ok(Self::window(Arc::new(buffer), 0, shape))
    }

    /// A contiguous window of shared storage that begins at element `offset`. The caller vouches that it lies inside.
    pub(crate) fn window(buffer: Arc<Buffer>, offset: usize, shape: Shape) -> Self {
        let pitch = shape.cols();
        Self { buffer, offset, shape, pitch }
    }

    /// Zeros.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self::window(Arc::new(Buffer::zeros(dtype, shape.elements())), 0, shape)
    }

    /// A contiguous tensor whose elements `fill` writes, every one: it is handed memory of arbitrary content.
    pub fn build<E: Element>(shape: impl Into<Shape>, fill: impl FnOnce(&mut [E])) -> Self {
        let shape = shape.into();
        let mut data = Recycled::<E>::stale(shape.elements());
        fill(&mut data);
        Self::window(Arc::new(E::into_buffer(data)), 0, shape)
    }

    /// A tensor without dimensions.
    pub fn scalar<E: Element>(value: E) -> Self {
        Self::window(Arc::new(E::into_buffer(vec![value].into())), 0, Shape::default())
    }

    /// Its extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.buffer.dtype()
    }

    /// Elements between the beginnings of two rows.
    pub fn pitch(&self) -> usize {
        self.pitch
    }

    /// Whether the rows lie side by side.
    pub fn is_contiguous(&self) -> bool {
        self.pitch == self.shape.cols() || self.shape.rows() <= 1
    }

    /// The elements of a contiguous tensor.
    pub fn data<E: Element>(&self) -> Result<&[E]> {
        if !self.is_contiguous() {
            return Err(Error::Internal(format!(
                "contiguous access to a tensor of rows {} apart, shape {}",
                self.pitch, self.shape
            )));
        }
        Ok(&self.pitched::<E>()?[..self.shape.elements()])
    }

    /// The elements from the first to the last, gaps between rows included: row r begins at `r · pitch()`.
    pub fn pitched<E: Element>(&self) -> Result<&[E]> {
        let data = E::slice(&self.buffer).ok_or_else(|| Error::DType {
            op: "tensor",
            argument: "data",
            expected: E::DTYPE.to_string(),
            got: self.dtype().to_string(),
        })?;
        let (rows, cols) = (self.shape.rows(), self.shape.cols());
        let len = if rows == 0 { 0 } else { (rows - 1) * self.pitch + cols };
        Ok(&data[self.offset..self.offset + len])
    }

    /// The elements of a contiguous tensor, to write; `None` where the storage is shared or holds another type.
    pub fn data_mut<E: Element>(&mut self) -> Option<&mut [E]> {
        let range = self.offset..self.offset + self.shape.elements();
        if !self.is_contiguous() {
            return None;
        }
        E::slice_mut(Arc::get_mut(&mut self.buffer)?).map(|data| &mut data[range])
    }

    /// The only element of a tensor that has one, as f64.
    pub fn item(&self) -> Result<f64> {
        crate::with_float!("item", self.dtype(), F => match self.data::<F>()? {
            [x] => Ok(x.f64()),
            _ => Err(Error::Shape { op: "item", argument: "x", expected: "one element".into(), got: self.shape.to_string() }),
        })
    }

    /// All elements as f64, row by row.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        if self.dtype() == DType::BF16 {
            return self.rows_as(bf16::to_f64);
        }
        crate::with_float!("to_f64", self.dtype(), F => self.rows_as(F::f64))
    }

    /// All elements, row by row, each through `f`.
    fn rows_as<E: Element, T>(&self, f: impl Fn(E) -> T) -> Result<Vec<T>> {
        let (data, cols) = (self.pitched::<E>()?, self.shape.cols());
        Ok((0..self.shape.rows()).flat_map(|r| data[r * self.pitch..][..cols].iter().map(|&x| f(x))).collect())
    }

    /// The elements of a contiguous tensor in a float type: where they lie, or, of bf16, a copy that is exact.
    pub fn widened<F: Float>(&self) -> Result<Cow<'_, [F]>> {
        match self.dtype() {
            DType::BF16 => Ok(self.data::<bf16>()?.iter().map(|&x| F::of(f64::from(Operand::<f32>::widen(x)))).collect()),
            _ => Ok(self.data::<F>()?.into()),
        }
    }

    /// The same elements under another shape. A tensor with gaps keeps its innermost extent.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let fits = shape.elements() == self.shape.elements() && (self.is_contiguous() || shape.cols() == self.shape.cols());
        if !fits {
            return Err(Error::Shape { op: "reshape", argument: "x", expected: shape.to_string(), got: self.shape.to_string() });
        }
        let pitch = if self.is_contiguous() { shape.cols() } else { self.pitch };
        Ok(Self { buffer: self.buffer.clone(), offset: self.offset, shape, pitch })
    }

    /// Rows `start .. start + rows`, those of all outer extents counted together, without copying: `[rows, C]`.
    pub fn row_range(&self, start: usize, rows: usize) -> Result<Self> {
        let (all, cols) = (self.shape.rows(), self.shape.cols());
        if start + rows > all {
            return Err(Error::Shape {
                op: "row_range",
                argument: "x",
                expected: format!("at least {} rows", start + rows),
                got: self.shape.to_string(),
            });
        }
        let offset = if rows == 0 { self.offset } else { self.offset + start * self.pitch };
        Ok(Self { buffer: self.buffer.clone(), offset, shape: [rows, cols].into(), pitch: self.pitch })
    }

    /// Columns `start .. start + cols` of every row, without copying.
    pub fn columns(&self, start: usize, cols: usize) -> Result<Self> {
        if start + cols > self.shape.cols() {
            return Err(Error::Shape {
                op: "columns",
                argument: "x",
                expected: format!("at least {} columns", start + cols),
                got: self.shape.to_string(),
            });
        }
        Ok(Self { buffer: self.buffer.clone(), offset: self.offset + start, shape: self.shape.with_cols(cols), pitch: self.pitch })
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {})", self.dtype(), self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iota() -> Tensor {
        Tensor::new([3, 4], (0..12).map(|x| x as f32).collect()).unwrap()
    }

    #[test]
    fn columns_are_a_window() {
        let x = iota().columns(1, 2).unwrap();
        assert_eq!(x.to_f64().unwrap(), [1., 2., 5., 6., 9., 10.]);
        assert_eq!(x.pitched::<f32>().unwrap().len(), 10);
        assert!(x.data::<f32>().is_err());
        assert!(x.reshape([6]).is_err());
        assert_eq!(x.reshape([1, 3, 2]).unwrap().to_f64().unwrap(), x.to_f64().unwrap());
        assert!(iota().columns(3, 2).is_err());
        assert_eq!(x.row_range(1, 2).unwrap().to_f64().unwrap(), [5., 6., 9., 10.]);
        assert!(x.row_range(1, 3).is_err());
    }

    #[test]
    fn shared_storage_is_not_written() {
        let mut x = iota();
        let y = x.clone();
        assert!(x.data_mut::<f32>().is_none());
        drop(y);
        x.data_mut::<f32>().unwrap()[0] = 5.0;
        assert_eq!(x.data::<f32>().unwrap()[0], 5.0);
        assert!(x.data_mut::<f64>().is_none());
    }

    #[test]
    fn bf16_is_widened_exactly() {
        let values = [1.5f32, -0.25, 3e38, f32::MIN_POSITIVE, 0.0, -1e-40].map(bf16::from_f32);
        let x = Tensor::new([2, 3], values.to_vec()).unwrap();
        assert_eq!((x.dtype().to_string(), x.dtype().size()), ("bf16".into(), 2));
        assert_eq!(*x.widened::<f32>().unwrap(), values.map(bf16::to_f32));
        assert_eq!(x.columns(1, 2).unwrap().to_f64().unwrap(), [1, 2, 4, 5].map(|i| values[i].to_f64()));
        assert!(x.data::<f32>().unwrap_err().to_string().contains("bf16"));
    }

    #[test]
    fn wrong_shapes_and_types_are_errors() {
        assert!(Tensor::new([2, 2], vec![0.0f32; 3]).unwrap_err().to_string().contains("4 elements"));
        assert!(iota().data::<f64>().unwrap_err().to_string().contains("f32"));
        assert!(iota().item().is_err());
        assert_eq!(Tensor::scalar(2.5f64).item().unwrap(), 2.5);
    }
}
