//! What B may be stored as where A and C are f32.
#![cfg_attr(target_arch = "x86_64", allow(unsafe_code))]

#[cfg(target_arch = "x86_64")]
use super::kernel::Simd;
use super::{MatRef, Operand};
use half::bf16;

/// An element type of B, and how a vector of it becomes one of f32.
pub(super) trait Stored: Operand<f32> {
    /// The matrix itself, where it is f32: what is used where it lies, and what whole vectors are copied of, is.
    fn as_f32(b: MatRef<'_, Self>) -> Option<MatRef<'_, f32>>;
    /// # Safety
    /// The processor must have the instruction set; [`Simd::LANES`] elements must be readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    /// The first elements, as many as `mask` has; the other lanes are zero.
    ///
    /// # Safety
    /// The processor must have the instruction set; those elements must be readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_masked<S: Simd>(p: *const Self, mask: S::Mask) -> S::V;
}

impl Stored for f32 {
    fn as_f32(b: MatRef<'_, f32>) -> Option<MatRef<'_, f32>> {
        Some(b)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(p) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_masked<S: Simd>(p: *const f32, mask: S::Mask) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load_masked(p, mask) }
    }
}

impl Stored for bf16 {
    fn as_f32(_: MatRef<'_, bf16>) -> Option<MatRef<'_, f32>> {
        None
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const bf16) -> S::V {
        // SAFETY: the caller's; bf16 is its bits.
        unsafe { S::load_bf16(p.cast()) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_masked<S: Simd>(p: *const bf16, mask: S::Mask) -> S::V {
        // SAFETY: the caller's; bf16 is its bits.
        unsafe { S::load_bf16_masked(p.cast(), mask) }
    }
}
