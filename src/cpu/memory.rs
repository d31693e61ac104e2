//! Memory of the CPU, on huge pages where it is large.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Elements of plain data.
#[derive(Debug)]
pub enum Memory<E> {
    /// From the allocator.
    Heap(Vec<E>),
    /// Pages of their own, huge ones where the system has them: a step walks over hundreds of MiB, and each miss of the address
    /// cache costs it.
    Pages(MmapMut),
}

/// Bytes from which memory gets pages of its own: those of a huge one.
const PAGES: usize = 2 << 20;

impl<E: bytemuck::Pod> Memory<E> {
    /// `len` zeros, their pages untouched.
    pub fn zeros(len: usize) -> Self {
        let bytes = len * size_of::<E>();
        match (bytes >= PAGES).then(|| MmapMut::map_anon(bytes)) {
            Some(Ok(pages)) => {
                #[cfg(target_os = "linux")]
                let _ = pages.advise(memmap2::Advice::HugePage); // a system without them ignores or refuses the wish
                Self::Pages(pages)
            }
            _ => Self::Heap(vec![E::zeroed(); len]),
        }
    }

    /// At least `len` zeros, on pages of their own however few they are: for a buffer that is used again and again.
    pub fn paged(len: usize) -> Self {
        Self::zeros(len.next_multiple_of(PAGES / size_of::<E>()))
    }
}

impl<E> From<Vec<E>> for Memory<E> {
    fn from(data: Vec<E>) -> Self {
        Self::Heap(data)
    }
}

impl<E> Default for Memory<E> {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl<E: bytemuck::Pod> Deref for Memory<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        match self {
            Self::Heap(data) => data,
            Self::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl<E: bytemuck::Pod> DerefMut for Memory<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        match self {
            Self::Heap(data) => data,
            Self::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}
