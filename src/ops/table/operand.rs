//! What a case's kernels read and write, on the host and on the device.

use std::collections::BTreeMap;

use half::{bf16, f16};

use crate::gpu::{self, Context, Element, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut};
use crate::tensor::Float;
use crate::{Error, Result};

/// The type of an operand's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// The case's type of activations and weights.
    Activation,
    /// 32-bit float, whatever the case's type.
    F32,
    /// Signed 32-bit integer; outputs must be equal.
    I32,
    /// Unsigned 32-bit integer; outputs must be equal.
    U32,
    /// Signed 64-bit integer up to 2^53 in magnitude; outputs must be equal.
    I64,
}

/// What the kernels do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read, and left as it is.
    Input,
    /// Written in full, never read before.
    Output,
    /// Read and written.
    InOut,
    /// For the kernels' own use: undefined before, nothing is expected after.
    Workspace,
}

/// A matrix of `rows` × `cols` elements, whose rows lie `pitch` elements apart.
#[derive(Debug, Clone)]
pub struct Operand {
    pub(crate) name: &'static str,
    pub(crate) ty: Type,
    pub(crate) role: Role,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) pitch: usize,
    /// Row by row without gaps; empty for outputs and workspaces.
    pub(crate) values: Vec<f64>,
    touched: Option<u64>,
}

impl Operand {
    fn new(name: &'static str, ty: Type, role: Role, [rows, cols]: [usize; 2], values: Vec<f64>) -> Self {
        Self { name, ty, role, rows, cols, pitch: cols, values, touched: None }
    }

    /// Read only. `values`: rows · cols, rounded to the type.
    pub fn input(name: &'static str, ty: Type, shape: [usize; 2], values: Vec<f64>) -> Self {
        Self::new(name, ty, Role::Input, shape, values)
    }

    /// Written in full.
    pub fn output(name: &'static str, ty: Type, shape: [usize; 2]) -> Self {
        Self::new(name, ty, Role::Output, shape, Vec::new())
    }

    /// Read and written.
    pub fn in_out(name: &'static str, ty: Type, shape: [usize; 2], values: Vec<f64>) -> Self {
        Self::new(name, ty, Role::InOut, shape, values)
    }

    /// Memory between kernels.
    pub fn workspace(name: &'static str, ty: Type, len: usize) -> Self {
        Self::new(name, ty, Role::Workspace, [1, len], Vec::new())
    }

    /// With rows this many elements apart. What lies between them must be neither used nor changed.
    pub fn pitched(self, pitch: usize) -> Self {
        Self { pitch, ..self }
    }

    /// Of which a gather or a mask leaves only so many bytes to be read or written.
    pub fn touching(self, bytes: u64) -> Self {
        Self { touched: Some(bytes), ..self }
    }

    pub(crate) fn element_bytes(&self, element: ElementType) -> usize {
        match self.ty {
            Type::Activation => element.bytes(),
            Type::F32 | Type::I32 | Type::U32 => 4,
            Type::I64 => 8,
        }
    }

    /// Bytes that must be moved for it: once if it is read or written, twice if both.
    pub fn traffic(&self, element: ElementType) -> u64 {
        let bytes = self.touched.unwrap_or((self.rows * self.cols * self.element_bytes(element)) as u64);
        match self.role {
            Role::Input | Role::Output => bytes,
            Role::InOut => 2 * bytes,
            Role::Workspace => 0,
        }
    }

    /// Elements of memory, gaps between rows included.
    pub(crate) fn extent(&self) -> usize {
        if self.rows == 0 { 0 } else { (self.rows - 1) * self.pitch + self.cols }
    }

    /// The bytes on the device before the launch: values in their places, every other byte 0xff, which makes a NaN of any float.
    pub(crate) fn encode(&self, element: ElementType) -> Vec<u8> {
        let size = self.element_bytes(element);
        let mut bytes = vec![0xff; self.extent() * size];
        for (row, values) in self.values.chunks_exact(self.cols.max(1)).enumerate() {
            for (col, &value) in values.iter().enumerate() {
                let at = (row * self.pitch + col) * size;
                self.encode_one(value, element, &mut bytes[at..at + size]);
            }
        }
        bytes
    }

    fn encode_one(&self, x: f64, element: ElementType, to: &mut [u8]) {
        match (self.ty, element) {
            (Type::Activation, ElementType::F16) => to.copy_from_slice(&f16::from_f64(x).to_ne_bytes()),
            (Type::Activation, ElementType::BF16) => to.copy_from_slice(&bf16::from_f64(x).to_ne_bytes()),
            (Type::Activation | Type::F32, _) => to.copy_from_slice(&(x as f32).to_ne_bytes()),
            (Type::I32, _) => to.copy_from_slice(&(x as i32).to_ne_bytes()),
            (Type::U32, _) => to.copy_from_slice(&(x as u32).to_ne_bytes()),
            (Type::I64, _) => to.copy_from_slice(&(x as i64).to_ne_bytes()),
        }
    }

    /// The values in these bytes, row by row without gaps.
    pub(crate) fn decode(&self, bytes: &[u8], element: ElementType) -> Vec<f64> {
        let size = self.element_bytes(element);
        let two = |at: usize| [bytes[at], bytes[at + 1]];
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let value = |at: usize| match (self.ty, element) {
            (Type::Activation, ElementType::F16) => f16::from_ne_bytes(two(at)).to_f64(),
            (Type::Activation, ElementType::BF16) => bf16::from_ne_bytes(two(at)).to_f64(),
            (Type::Activation | Type::F32, _) => f64::from(f32::from_ne_bytes(four(at))),
            (Type::I32, _) => f64::from(i32::from_ne_bytes(four(at))),
            (Type::U32, _) => f64::from(u32::from_ne_bytes(four(at))),
            (Type::I64, _) => i64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i])) as f64,
        };
        (0..self.rows)
            .flat_map(|row| (0..self.cols).map(move |col| (row, col)))
            .map(|(r, c)| value((r * self.pitch + c) * size))
            .collect()
    }

    /// Whether every byte between the rows is as it was.
    pub(crate) fn gaps_are_untouched(&self, bytes: &[u8], element: ElementType) -> bool {
        let size = self.element_bytes(element);
        let (row, gap) = (self.cols * size, self.pitch * size);
        row == gap || bytes.chunks(gap.max(1)).all(|line| line.get(row..).unwrap_or_default().iter().all(|&byte| byte == 0xff))
    }
}

/// The values of a case's inputs, as the device has them, by name.
#[derive(Debug, Default)]
pub struct HostOperands(pub(crate) BTreeMap<&'static str, Vec<f64>>);

impl HostOperands {
    /// An input's values, row by row without gaps.
    ///
    /// # Panics
    /// If the case has no operand of this name with values: a mistake in the table.
    pub fn get<F: Float>(&self, name: &str) -> Vec<F> {
        let values = self.0.get(name).unwrap_or_else(|| panic!("no input `{name}`"));
        values.iter().map(|&x| F::of(x)).collect()
    }
}

/// A case's operands on the device, by name.
pub struct Operands<'a> {
    pub(crate) context: &'a Context,
    pub(crate) element: ElementType,
    pub(crate) buffers: BTreeMap<&'static str, gpu::Buffer>,
}

impl Operands<'_> {
    /// What launches.
    pub fn context(&self) -> &Context {
        self.context
    }

    fn buffer(&self, name: &str) -> Result<&gpu::Buffer> {
        self.buffers.get(name).ok_or_else(|| Error::Internal(format!("no operand `{name}`")))
    }

    /// Activations to read.
    pub fn activations(&self, name: &str) -> Result<ElementSlice<'_>> {
        self.buffer(name)?.all().elements(self.element)
    }

    /// Activations to write.
    pub fn activations_mut(&self, name: &str) -> Result<ElementSliceMut<'_>> {
        self.buffer(name)?.all().elements_mut(self.element)
    }

    /// Elements of a fixed type to read.
    pub fn slice<T: Element>(&self, name: &str) -> Result<Slice<'_, T>> {
        self.buffer(name)?.slice()
    }

    /// Elements of a fixed type to write.
    pub fn slice_mut<T: Element>(&self, name: &str) -> Result<SliceMut<'_, T>> {
        self.buffer(name)?.slice_mut()
    }
}
