//! Loops compiled once per instruction set, chosen at run time: one binary runs everywhere, and fast.

use std::iter::Sum;
use std::ops::AddAssign;

use num_traits::Float;

/// The widest instruction set that this processor has and that the loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of the target has.
    Baseline,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Asks the processor (the answer is cached by the standard library).
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Partial sums of a reduction: the compiler never reorders float additions, and one sum would not vectorise.
const LANES: usize = 16;

/// Σ f(a, b) over two slices of one length; for the body of a [`vectorized!`] function.
#[inline(always)]
pub(crate) fn reduce<F: Float + AddAssign + Sum>(a: &[F], b: &[F], f: impl Fn(F, F) -> F) -> F {
    let mut lanes = [F::zero(); LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: F = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for l in 0..LANES {
            lanes[l] += f(a[l], b[l]);
        }
    }
    lanes.iter().copied().sum::<F>() + tail
}

/// Defines functions over a float type whose loops the compiler vectorises anew for each instruction set.
///
/// The body is written as plain Rust. Helpers that it calls in a loop must be `#[inline(always)]`, or they keep the baseline's
/// instructions. Reductions keep several partial sums, as [`reduce`] does.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<$F:ident: $bound:path>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$meta])*
        $vis fn $name<$F: $bound>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$F: $bound>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512<$F: $bound>($($arg: $ty),*) $(-> $ret)? {
                body::<$F>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2<$F: $bound>($($arg: $ty),*) $(-> $ret)? {
                body::<$F>($($arg),*)
            }

            match $crate::cpu::simd::level() {
                // SAFETY: the processor was asked and has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx512 => unsafe { avx512::<$F>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx2 => unsafe { avx2::<$F>($($arg),*) },
                $crate::cpu::simd::Level::Baseline => body::<$F>($($arg),*),
            }
        }
    )+};
}
pub(crate) use vectorized;
