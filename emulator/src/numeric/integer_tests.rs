//! Against exact arithmetic in i128.

use super::*;

const EDGES: [i64; 14] =
    [0, 1, -1, 2, -2, 3, 127, 0x7fff, -0x8000, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN, 0x0123_4567_89ab_cdef];

/// Every function on every pair of edge values cut to the type, against exact arithmetic in i128.
fn check<T: Integer + TryInto<i128> + std::fmt::Debug>()
where
    T::Wide: TryInto<i128>,
{
    let exact = |a: T| a.try_into().unwrap_or(0);
    let cut = |v: i128| T::from_bits(v as u64);
    for (a, b) in EDGES.iter().flat_map(|a| EDGES.iter().map(move |b| (T::from_bits(*a as u64), T::from_bits(*b as u64)))) {
        let (x, y) = (exact(a), exact(b));
        let product = if T::BITS == 64 && !T::SIGNED { (x as u128 * y as u128) as i128 } else { x * y };
        let high = if T::SIGNED { product >> T::BITS } else { ((product as u128) >> T::BITS) as i128 };
        assert_eq!(add(a, b), cut(x + y));
        assert_eq!(sub(a, b), cut(x - y));
        assert_eq!(neg(a), cut(-x));
        assert_eq!(abs(a), cut(x.abs()));
        assert_eq!(mul_lo(a, b), cut(product));
        assert_eq!(mul_hi(a, b), cut(high), "{a:?} {b:?}");
        assert_eq!(mad_lo(a, b, a), cut(product + x));
        assert_eq!(mad_hi(a, b, a), cut(high + x));
        if T::BITS < 64 {
            assert_eq!(mul_wide(a, b).try_into().ok(), Some(product));
            assert_eq!(mad_wide(a, b, mul_wide(a, T::default())).try_into().ok(), Some(product));
        }
        assert_eq!(sad(a, b, b), cut(y + (x - y).abs()));
        assert_eq!(min(a, b), cut(x.min(y)));
        assert_eq!(max(a, b), cut(x.max(y)));
        assert_eq!(relu(a), cut(x.max(0)));
        if y == 0 {
            assert_eq!((div(a, b), rem(a, b)), (T::ONES, T::ONES));
        } else {
            assert_eq!((div(a, b), rem(a, b)), (cut(x / y), cut(x % y)));
        }
        for carry in [false, true] {
            let (u, v, c) = (i128::from(a.bits()), i128::from(b.bits()), i128::from(carry));
            let limit = 1i128 << T::BITS;
            assert_eq!(add_cc(a, b, carry), (cut(u + v + c), u + v + c >= limit));
            assert_eq!(sub_cc(a, b, carry), (cut(u - v - c), u - v - c < 0));
            let (lo, hi) = (i128::from(mul_lo(a, b).bits()), i128::from(mul_hi(a, b).bits()));
            assert_eq!(mad_lo_cc(a, b, a, carry), (cut(lo + u + c), lo + u + c >= limit));
            assert_eq!(mad_hi_cc(a, b, a, carry), (cut(hi + u + c), hi + u + c >= limit));
        }
    }
}

#[test]
fn every_type_agrees_with_exact_arithmetic() {
    check::<u16>();
    check::<i16>();
    check::<u32>();
    check::<i32>();
    check_u64_extremes();
    check::<i64>();
}

/// u64 separately: its largest product exceeds i128, so the reference is the schoolbook product of halves.
fn check_u64_extremes() {
    for (a, b) in EDGES.iter().flat_map(|a| EDGES.iter().map(move |b| (*a as u64, *b as u64))) {
        let (a1, a0, b1, b0) = (a >> 32, a & 0xffff_ffff, b >> 32, b & 0xffff_ffff);
        let middle = ((a0 * b0) >> 32) + ((a1 * b0) & 0xffff_ffff) + ((a0 * b1) & 0xffff_ffff);
        let high = a1 * b1 + ((a1 * b0) >> 32) + ((a0 * b1) >> 32) + (middle >> 32);
        assert_eq!((mul_hi(a, b), mul_lo(a, b)), (high, (middle << 32) | ((a0 * b0) & 0xffff_ffff)));
        assert_eq!(add_cc(a, b, true).1, a as u128 + b as u128 + 1 > u64::MAX.into());
        assert_eq!(sub_cc(a, b, true).1, (a as u128) < b as u128 + 1);
        assert_eq!(div(a, b), a.checked_div(b).unwrap_or(u64::MAX));
    }
}

#[test]
fn saturation() {
    assert_eq!((add_sat(i32::MAX, 1), add_sat(i32::MIN, -1), add_sat(2, 3)), (i32::MAX, i32::MIN, 5));
    assert_eq!((sub_sat(i32::MIN, 1), sub_sat(i32::MAX, -1)), (i32::MIN, i32::MAX));
    assert_eq!(mad_hi_sat(i32::MIN, i32::MIN, i32::MAX), i32::MAX);
    assert_eq!(mad24_hi_sat(0x7f_ffff, 0x7f_ffff, i32::MAX), i32::MAX);
}

#[test]
fn factors_of_24_bits_ignore_the_upper_byte() {
    for a in [0u32, 1, 0xff80_0000, 0x007f_ffff, 0x12ff_ffff, 0xabcd_ef01] {
        for b in [3u32, 0x0080_0000, 0x00ff_ffff, 0x5500_0001] {
            let unsigned = u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff);
            assert_eq!((mul24_lo(a, b), mul24_hi(a, b)), (unsigned as u32, (unsigned >> 16) as u32));
            let extend = |v: u32| (i64::from(v & 0xff_ffff) ^ 0x80_0000) - 0x80_0000;
            let signed = extend(a) * extend(b);
            assert_eq!(mul24_lo(a as i32, b as i32), signed as i32);
            assert_eq!(mul24_hi(a as i32, b as i32), (signed >> 16) as i32);
            assert_eq!(mad24_lo(a, b, 7), (unsigned as u32).wrapping_add(7));
            assert_eq!(mad24_hi(a, b, 7), ((unsigned >> 16) as u32).wrapping_add(7));
        }
    }
}

#[test]
fn halves_do_not_carry_into_each_other() {
    assert_eq!(x2::<u16>(add, 0x0001_ffff, 0x0001_0001), 0x0002_0000);
    assert_eq!(x2::<i16>(max, 0x8000_0001, 0x0001_8000), 0x0001_0001);
    assert_eq!(x2::<u16>(max, 0x8000_0001, 0x0001_8000), 0x8000_8000);
    assert_eq!(x2::<i16>(|a, b| relu(min(a, b)), 0xffff_0005, 0x0003_0007), 0x0000_0005);
}

#[test]
fn dot_products_of_bytes() {
    // 0x80 is -128 or 128, 0xff is -1 or 255.
    assert_eq!(dp4a((true, true), 0x80ff_0102, 0x8003_0405, 10), 10 + 16384 - 3 + 4 + 10);
    assert_eq!(dp4a((false, false), 0x80ff_0102, 0x8003_0405, 10), 10 + 16384 + 765 + 4 + 10);
    assert_eq!(dp4a((false, true), 0x80ff_0102, 0x8003_0405, 10) as i32, 10 - 16384 + 765 + 4 + 10);
    assert_eq!(dp4a((false, false), u32::MAX, u32::MAX, u32::MAX), 4 * 255 * 255 - 1);
    assert_eq!(dp2a((true, true), false, 0x8000_0002, 0x7fff_ff03, 1) as i32, 1 + 6 + 32768);
    assert_eq!(dp2a((true, false), true, 0x8000_0002, 0x7fff_ff03, 1) as i32, 1 + 2 * 255 - 32768 * 127);
    assert_eq!(dp2a((false, true), false, 0x8000_0002, 0x7fff_ff03, 1) as i32, 1 + 6 - 32768);
}
