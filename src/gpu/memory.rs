//! Device memory: buffers that free themselves, and windows of them.
//!
//! A buffer is an address, a length, a name and whoever frees it. The name appears in the emulator's findings and in errors.
//! Windows are borrowed, so none outlives its buffer. What is behind an address is written by kernels in the order of a stream and
//! is therefore not tracked by Rust's borrows: [`SliceMut`] says what a kernel's prototype says (no `const`), not that nobody else
//! looks. Two kernels that touch the same bytes are ordered by their stream, or by events.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Memory of a device. Clones share it; the last one frees it.
#[derive(Clone)]
pub struct Buffer(Arc<Allocation>);

struct Allocation {
    name: String,
    address: u64,
    bytes: usize,
    /// Dropped last of all, which frees the memory.
    _owner: Box<dyn Any + Send + Sync>,
}

impl Buffer {
    /// For implementations of [`Device`](super::Device): `owner` frees the memory when it is dropped.
    pub fn new(name: &str, address: u64, bytes: usize, owner: impl Any + Send + Sync) -> Self {
        Self(Arc::new(Allocation { name: name.to_owned(), address, bytes, _owner: Box::new(owner) }))
    }

    /// What it was called when it was allocated.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where it begins, as kernels see it.
    pub fn address(&self) -> u64 {
        self.0.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// All of it.
    pub fn all(&self) -> View<'_> {
        View { buffer: self, offset: 0, bytes: self.bytes() }
    }

    /// A window of bytes. An error if it does not lie inside.
    pub fn view(&self, range: impl RangeBounds<usize>) -> Result<View<'_>> {
        self.all().narrow(range)
    }

    /// All of it as elements, for a kernel to read. An error if the length is no multiple of the element's size.
    pub fn slice<T: Element>(&self) -> Result<Slice<'_, T>> {
        self.all().slice()
    }

    /// All of it as elements, for a kernel to write.
    pub fn slice_mut<T: Element>(&self) -> Result<SliceMut<'_, T>> {
        self.all().slice_mut()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({} bytes at {:#x})", self.name(), self.bytes(), self.address())
    }
}

/// A window of a buffer, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    buffer: &'a Buffer,
    offset: usize,
    bytes: usize,
}

impl<'a> View<'a> {
    /// The buffer that it is a window of.
    pub fn buffer(&self) -> &'a Buffer {
        self.buffer
    }

    /// Bytes from the buffer's begin.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it begins, as kernels see it.
    pub fn address(&self) -> u64 {
        self.buffer.address() + self.offset as u64
    }

    /// A window of this window, counted from its begin. An error if it does not lie inside.
    pub fn narrow(&self, range: impl RangeBounds<usize>) -> Result<View<'a>> {
        let begin = match range.start_bound() {
            Bound::Included(&begin) => begin,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.bytes,
        };
        if begin > end || end > self.bytes {
            let Self { buffer, bytes, .. } = self;
            return Err(Error::device(format!("buffer `{}`: window {begin}..{end} of {bytes} bytes", buffer.name())));
        }
        Ok(Self { buffer: self.buffer, offset: self.offset + begin, bytes: end - begin })
    }

    /// Seen as elements, for a kernel to read. An error unless length and address fit the element.
    pub fn slice<T: Element>(&self) -> Result<Slice<'a, T>> {
        let size = size_of::<T>();
        if !self.bytes.is_multiple_of(size) || !self.address().is_multiple_of(size as u64) {
            return Err(Error::device(format!(
                "buffer `{}`: {} bytes at offset {} are no {} elements",
                self.buffer.name(),
                self.bytes,
                self.offset,
                T::NAME
            )));
        }
        Ok(Slice { view: *self, element: PhantomData })
    }

    /// Seen as elements, for a kernel to write.
    pub fn slice_mut<T: Element>(&self) -> Result<SliceMut<'a, T>> {
        Ok(SliceMut { slice: self.slice()? })
    }

    /// Seen as elements of a type known at run time, for a kernel to read. An error unless length and address fit the type.
    pub fn elements(&self, element: ElementType) -> Result<ElementSlice<'a>> {
        match element {
            ElementType::F32 => self.slice::<f32>().map(drop),
            ElementType::F16 | ElementType::BF16 => self.slice::<u16>().map(drop),
        }?;
        Ok(ElementSlice { view: *self, element })
    }

    /// Seen as elements of a type known at run time, for a kernel to write.
    pub fn elements_mut(&self, element: ElementType) -> Result<ElementSliceMut<'a>> {
        Ok(ElementSliceMut { slice: self.elements(element)? })
    }
}

/// Elements that a kernel reads: what a `const T*` parameter takes.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a, T> {
    view: View<'a>,
    element: PhantomData<&'a T>,
}

impl<'a, T: Element> Slice<'a, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.view.bytes / size_of::<T>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.view.bytes == 0
    }

    /// The bytes.
    pub fn view(&self) -> View<'a> {
        self.view
    }

    /// Elements `begin..begin + len`. An error if they do not lie inside.
    pub fn narrow(&self, begin: usize, len: usize) -> Result<Self> {
        // Saturated numbers lie outside of any buffer.
        let size = size_of::<T>();
        let range = begin.saturating_mul(size)..begin.saturating_add(len).saturating_mul(size);
        Ok(Self { view: self.view.narrow(range)?, element: PhantomData })
    }
}

/// Elements that a kernel writes: what a `T*` parameter takes.
#[derive(Debug, Clone, Copy)]
pub struct SliceMut<'a, T> {
    slice: Slice<'a, T>,
}

impl<'a, T: Element> SliceMut<'a, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slice.is_empty()
    }

    /// The bytes.
    pub fn view(&self) -> View<'a> {
        self.slice.view
    }

    /// The same elements, to read.
    pub fn as_slice(&self) -> Slice<'a, T> {
        self.slice
    }

    /// Elements `begin..begin + len`. An error if they do not lie inside.
    pub fn narrow(&self, begin: usize, len: usize) -> Result<Self> {
        Ok(Self { slice: self.slice.narrow(begin, len)? })
    }
}

/// The types that activations and weights have on a device: what `element` stands for in a kernel's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    /// 32-bit float, for checking.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
}

impl ElementType {
    /// All, the most precise first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// What kernels call it.
    pub const fn cuda_name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::F16 => "half",
            Self::BF16 => "bf16",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

/// Elements of a type known at run time, which a kernel reads: what a `const element*` parameter takes.
#[derive(Debug, Clone, Copy)]
pub struct ElementSlice<'a> {
    view: View<'a>,
    element: ElementType,
}

impl<'a> ElementSlice<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.view.bytes / self.element.bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.view.bytes == 0
    }

    /// Their type.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The bytes.
    pub fn view(&self) -> View<'a> {
        self.view
    }

    /// From element `begin` on. An error if it lies outside.
    pub fn skip(&self, begin: usize) -> Result<Self> {
        Ok(Self { view: self.view.narrow(begin.saturating_mul(self.element.bytes())..)?, element: self.element })
    }
}

/// Elements of a type known at run time, which a kernel writes: what an `element*` parameter takes.
#[derive(Debug, Clone, Copy)]
pub struct ElementSliceMut<'a> {
    slice: ElementSlice<'a>,
}

impl<'a> ElementSliceMut<'a> {
    /// The same elements, to read.
    pub fn as_slice(&self) -> ElementSlice<'a> {
        self.slice
    }

    /// From element `begin` on. An error if it lies outside.
    pub fn skip(&self, begin: usize) -> Result<Self> {
        Ok(Self { slice: self.slice.skip(begin)? })
    }
}

/// A type that device memory can hold: the Rust type of a pointer's target in a kernel's prototype.
pub trait Element: bytemuck::Pod {
    /// What CUDA calls it.
    const NAME: &'static str;
}

macro_rules! elements {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl Element for $type { const NAME: &'static str = $name; })*
    };
}

elements! {
    f32 => "float", f64 => "double", half::f16 => "half", half::bf16 => "bf16",
    i8 => "signed char", u8 => "unsigned char", i16 => "short", u16 => "unsigned short",
    i32 => "int", u32 => "unsigned", i64 => "long long", u64 => "unsigned long long",
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn buffer(address: u64, bytes: usize) -> Buffer {
        Buffer::new("x", address, bytes, ())
    }

    #[test]
    fn the_last_clone_frees() {
        struct Owner(Arc<AtomicUsize>);
        impl Drop for Owner {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let freed = Arc::new(AtomicUsize::new(0));
        let first = Buffer::new("x", 256, 64, Owner(freed.clone()));
        let second = first.clone();
        drop(first);
        assert_eq!(freed.load(Ordering::SeqCst), 0);
        drop(second);
        assert_eq!(freed.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn windows_of_windows() {
        let buffer = buffer(0x1000, 64);
        let view = buffer.view(16..48).unwrap().narrow(4..=11).unwrap();
        assert_eq!((view.address(), view.offset(), view.bytes()), (0x1014, 20, 8));
        let slice = buffer.slice_mut::<f32>().unwrap().narrow(3, 5).unwrap().as_slice();
        assert_eq!((slice.len(), slice.view().address()), (5, 0x100c));
        assert!(buffer.slice::<f64>().unwrap().narrow(8, 0).unwrap().is_empty());
    }

    #[test]
    fn what_lies_outside_or_does_not_fit_is_refused() {
        let buffer = buffer(0x1000, 64);
        for (begin, end) in [(0, 65), (65, 65), (9, 8), (0, usize::MAX), (usize::MAX, usize::MAX)] {
            let message = buffer.view(begin..end).unwrap_err().to_string();
            assert!(message.contains("`x`") && message.contains("64"), "{message}");
        }
        assert!(buffer.view(..=usize::MAX).is_err());
        for (begin, len) in [(0, 17), (16, 1), (usize::MAX, 1), (1, usize::MAX)] {
            assert!(buffer.slice::<f32>().unwrap().narrow(begin, len).is_err());
        }
        assert!(buffer.view(..62).unwrap().slice::<f32>().is_err());
        let message = buffer.view(2..6).unwrap().slice::<f32>().unwrap_err().to_string();
        assert!(message.contains("float"), "{message}");
    }
}
