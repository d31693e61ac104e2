//! Loops compiled once per instruction set, chosen at run time: the only place of `tensor` with `unsafe`.

/// The widest instruction set that this processor has and that the loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// What every processor of the target has.
    Baseline,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Asks the processor (the answer is cached by the standard library).
#[inline]
pub(super) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            return Level::Avx512;
        }
        if has!("avx2") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Defines functions whose loops the compiler vectorises anew for each instruction set.
///
/// Helpers that the body calls in a loop must be `#[inline(always)]`, or they keep the baseline's instructions. Results are the
/// same bits for every instruction set as long as the body keeps to separate multiplications and additions, which the compiler
/// never fuses.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)+) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
            fn avx512($($arg: $ty),*) {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $ty),*) {
                body($($arg),*)
            }

            match $crate::tensor::simd::level() {
                // SAFETY: the processor was asked and has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::tensor::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::tensor::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                $crate::tensor::simd::Level::Baseline => body($($arg),*),
            }
        }
    )+};
}
pub(super) use vectorized;
