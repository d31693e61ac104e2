//! The kernels on AVX2 with FMA: 6 × 16 tiles, 12 of the 16 registers accumulate.
#![allow(unsafe_code)]

use super::isa::isa;
use super::kernel::{self, Dots, Isa, RawTile, Simd, Tile, TileFn};
use super::pack::{self, Pack};
use super::stored::Stored;
use std::arch::x86_64::*;

isa! {
    /// Proof that the processor has AVX2 and FMA.
    Avx2, "avx2,fma", (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")), rows: 1 2 3 4 5 6
}

// SAFETY, for each block: the trait's contract, that the processor has AVX2 and FMA and that the pointers are good.
impl Simd for Avx2 {
    type V = __m256;
    type Mask = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __m256i {
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const f32, mask: __m256i) -> __m256 {
        unsafe { _mm256_maskload_ps(p, mask) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_bf16_masked(p: *const u16, mask: __m256i) -> __m256 {
        // There is no masked load of 16 bits.
        unsafe {
            let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(mask)).count_ones() as usize;
            if lanes == Self::LANES {
                return Self::load_bf16(p);
            }
            let mut first = [0; Self::LANES];
            std::ptr::copy_nonoverlapping(p, first.as_mut_ptr(), lanes);
            Self::load_bf16(first.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_masked(p: *mut f32, mask: __m256i, v: __m256) {
        unsafe { _mm256_maskstore_ps(p, mask, v) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn transpose<B: Stored>(src: *const B, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        unsafe {
            let r: [__m256; 8] = std::array::from_fn(|i| B::load::<Self>(src.add(i * src_stride)));
            // Pairs of rows, then fours: `fours[4g + q]` holds in its 128-bit part l rows 4g..4g+4 of column 4l + q.
            let mut pairs = r;
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut fours = [_mm256_setzero_pd(); 8];
            for g in 0..2 {
                let [a, b, c, d]: [__m256d; 4] = std::array::from_fn(|i| _mm256_castps_pd(pairs[4 * g + i]));
                fours[4 * g] = _mm256_unpacklo_pd(a, c);
                fours[4 * g + 1] = _mm256_unpackhi_pd(a, c);
                fours[4 * g + 2] = _mm256_unpacklo_pd(b, d);
                fours[4 * g + 3] = _mm256_unpackhi_pd(b, d);
            }
            for q in 0..4 {
                let (a, b) = (_mm256_castpd_ps(fours[q]), _mm256_castpd_ps(fours[4 + q]));
                _mm256_storeu_ps(dst.add(q * dst_stride), _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(dst.add((4 + q) * dst_stride), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}
