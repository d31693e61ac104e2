//! The kernels on AVX-512: 14 × 32 tiles, 28 of the 32 registers accumulate.
#![allow(unsafe_code)]

use super::isa::isa;
use super::kernel::{self, Dots, Isa, RawTile, Simd, Tile, TileFn};
use super::pack::{self, Pack};
use super::stored::Stored;
use std::arch::x86_64::*;

isa! {
    /// Proof that the processor has AVX-512 F, BW and VL.
    Avx512, "avx512f,avx512bw,avx512vl", has_avx512(), rows: 1 2 3 4 5 6 7 8 9 10 11 12 13 14
}

fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

// SAFETY, for each block: the trait's contract, that the processor has AVX-512 F, BW and VL and that the pointers are good.
impl Simd for Avx512 {
    type V = __m512;
    type Mask = __mmask16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __mmask16 {
        ((1u32 << lanes) - 1) as __mmask16
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const f32, mask: __mmask16) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, p) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_bf16_masked(p: *const u16, mask: __mmask16) -> __m512 {
        unsafe {
            let half = _mm256_maskz_loadu_epi16(mask, p.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }
    #[inline(always)]
    unsafe fn store_masked(p: *mut f32, mask: __mmask16, v: __m512) {
        unsafe { _mm512_mask_storeu_ps(p, mask, v) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    unsafe fn transpose<B: Stored>(src: *const B, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        unsafe {
            let r: [__m512; 16] = std::array::from_fn(|i| B::load::<Self>(src.add(i * src_stride)));
            // Pairs of rows, then fours: `fours[4g + q]` holds in its 128-bit part l rows 4g..4g+4 of column 4l + q.
            let mut pairs = r;
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut fours = [_mm512_setzero_pd(); 16];
            for g in 0..4 {
                let [a, b, c, d]: [__m512d; 4] = std::array::from_fn(|i| _mm512_castps_pd(pairs[4 * g + i]));
                fours[4 * g] = _mm512_unpacklo_pd(a, c);
                fours[4 * g + 1] = _mm512_unpackhi_pd(a, c);
                fours[4 * g + 2] = _mm512_unpacklo_pd(b, d);
                fours[4 * g + 3] = _mm512_unpackhi_pd(b, d);
            }
            for q in 0..4 {
                let [a, b, c, d]: [__m512; 4] = std::array::from_fn(|g| _mm512_castpd_ps(fours[4 * g + q]));
                let (even_ab, odd_ab) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even_cd, odd_cd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                _mm512_storeu_ps(dst.add(q * dst_stride), _mm512_shuffle_f32x4::<0x88>(even_ab, even_cd));
                _mm512_storeu_ps(dst.add((4 + q) * dst_stride), _mm512_shuffle_f32x4::<0x88>(odd_ab, odd_cd));
                _mm512_storeu_ps(dst.add((8 + q) * dst_stride), _mm512_shuffle_f32x4::<0xdd>(even_ab, even_cd));
                _mm512_storeu_ps(dst.add((12 + q) * dst_stride), _mm512_shuffle_f32x4::<0xdd>(odd_ab, odd_cd));
            }
        }
    }
}
