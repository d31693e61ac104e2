//! Storage on the CPU, recycled: a training step asks for the same sizes again and again, and fresh pages cost a fault each.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use half::bf16;

use super::DType;
use crate::cpu::memory::Memory;

/// The elements of one allocation.
#[derive(Debug)]
pub enum Buffer {
    /// 32-bit floats.
    F32(Recycled<f32>),
    /// 64-bit floats.
    F64(Recycled<f64>),
    /// The upper halves of 32-bit floats.
    BF16(Recycled<bf16>),
    /// 32-bit integers.
    I32(Recycled<i32>),
}

impl Buffer {
    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::BF16(_) => DType::BF16,
            Self::I32(_) => DType::I32,
        }
    }

    /// `len` zeros.
    pub fn zeros(dtype: DType, len: usize) -> Self {
        match dtype {
            DType::F32 => Self::F32(Recycled::zeros(len)),
            DType::F64 => Self::F64(Recycled::zeros(len)),
            DType::BF16 => Self::BF16(Recycled::zeros(len)),
            DType::I32 => Self::I32(Recycled::zeros(len)),
        }
    }
}

/// A vector whose memory goes to a free list when it is dropped, and comes from there when one of its length is wanted.
///
/// Where a length is not on the list, free memory of its type goes back to the system until used and free together do not exceed
/// the most that was ever in use.
#[derive(Debug)]
pub struct Recycled<E: Recyclable>(Memory<E>);

/// Shorter vectors, in bytes, are left to the allocator.
const SMALLEST: usize = 32 * 1024;

/// Bytes in use, free, and the most that were ever in use.
struct Books {
    used: usize,
    free: usize,
    peak: usize,
}

static BOOKS: Mutex<Books> = Mutex::new(Books { used: 0, free: 0, peak: 0 });

/// The free vectors of one type by their length.
type FreeList<E> = Mutex<BTreeMap<usize, Vec<Memory<E>>>>;

/// A type that has a free list.
pub trait Recyclable: bytemuck::Pod + Send {
    /// The value of fresh memory.
    const ZERO: Self;
    /// What debug builds put into recycled memory, so that an output that was never written is seen.
    const POISON: Self;
    #[doc(hidden)]
    fn free_list() -> &'static FreeList<Self>;
}

macro_rules! recyclable {
    ($type:ty, $zero:expr, $poison:expr) => {
        impl Recyclable for $type {
            const ZERO: Self = $zero;
            const POISON: Self = $poison;
            fn free_list() -> &'static FreeList<Self> {
                static LIST: FreeList<$type> = Mutex::new(BTreeMap::new());
                &LIST
            }
        }
    };
}
recyclable!(f32, 0.0, f32::NAN);
recyclable!(f64, 0.0, f64::NAN);
recyclable!(bf16, bf16::ZERO, bf16::NAN);
recyclable!(i32, 0, i32::MIN);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Recyclable> Recycled<E> {
    /// `len` elements whose content means nothing: the caller writes every one.
    pub fn stale(len: usize) -> Self {
        let (mut data, _) = Self::take(len);
        if cfg!(debug_assertions) {
            data.fill(E::POISON);
        }
        Self(data)
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let (mut data, recycled) = Self::take(len);
        if recycled {
            data.fill(E::ZERO);
        }
        Self(data)
    }

    /// Memory of `len` elements, and whether it was used before (fresh memory is zero, its pages untouched).
    fn take(len: usize) -> (Memory<E>, bool) {
        let bytes = len * size_of::<E>();
        if bytes < SMALLEST {
            return (Memory::zeros(len), false);
        }
        let reused = {
            let mut books = lock(&BOOKS);
            books.used += bytes;
            books.peak = books.peak.max(books.used);
            let reused = lock(E::free_list()).get_mut(&len).and_then(Vec::pop);
            if reused.is_some() {
                books.free -= bytes;
            } else {
                Self::shrink(&mut books);
            }
            reused
        };
        match reused {
            Some(data) => (data, true),
            None => (Memory::zeros(len), false),
        }
    }

    /// Gives the longest free vectors of this type back to the system until all fits under the peak.
    fn shrink(books: &mut Books) {
        let mut list = lock(E::free_list());
        while books.used + books.free > books.peak {
            let Some(mut longest) = list.last_entry() else { return };
            match longest.get_mut().pop() {
                Some(data) => books.free -= size_of_val(&*data),
                None => drop(longest.remove()),
            }
        }
    }
}

impl<E: Recyclable> From<Vec<E>> for Recycled<E> {
    fn from(data: Vec<E>) -> Self {
        let bytes = data.len() * size_of::<E>();
        if bytes >= SMALLEST {
            let mut books = lock(&BOOKS);
            books.used += bytes;
            books.peak = books.peak.max(books.used);
        }
        Self(Memory::from(data))
    }
}

impl<E: Recyclable> Drop for Recycled<E> {
    fn drop(&mut self) {
        let bytes = size_of_val(&*self.0);
        if bytes < SMALLEST {
            return;
        }
        let data = std::mem::take(&mut self.0);
        let mut books = lock(&BOOKS);
        books.used -= bytes;
        books.free += bytes;
        lock(E::free_list()).entry(bytes / size_of::<E>()).or_default().push(data);
    }
}

impl<E: Recyclable> Deref for Recycled<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.0
    }
}

impl<E: Recyclable> DerefMut for Recycled<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_and_zeroed_where_promised() {
        let len = 123_457; // a length that no other test uses
        let mut first = Recycled::<f32>::stale(len);
        first.fill(3.0);
        let address = first.as_ptr();
        drop(first);
        let second = Recycled::<f32>::zeros(len);
        assert_eq!(second.as_ptr(), address);
        assert!(second.iter().all(|&x| x == 0.0));
    }
}
