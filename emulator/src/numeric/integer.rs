//! Integer arithmetic: nothing overflows, everything wraps unless the instruction saturates.

/// The integer types of PTX, u8 to s64 with their wrapping primitives.
pub trait Integer: Copy + Ord + Default {
    /// Width.
    const BITS: u32;
    /// Whether shifts to the right fill with the sign.
    const SIGNED: bool;
    /// All bits set.
    const ONES: Self;
    /// Smallest value.
    const MIN: Self;
    /// Largest value.
    const MAX: Self;
    /// Twice the width.
    type Wide: Copy;
    /// `self + b` modulo `2^BITS`.
    fn wrapping_add(self, b: Self) -> Self;
    /// `self - b` modulo `2^BITS`.
    fn wrapping_sub(self, b: Self) -> Self;
    /// `self · b` modulo `2^BITS`.
    fn wrapping_mul(self, b: Self) -> Self;
    /// `self / b` towards zero; the smallest by -1 is itself. `b` is not zero.
    fn wrapping_div(self, b: Self) -> Self;
    /// What `wrapping_div` leaves. `b` is not zero.
    fn wrapping_rem(self, b: Self) -> Self;
    /// Shift to the left by `count` modulo `BITS`.
    fn wrapping_shl(self, count: u32) -> Self;
    /// Shift to the right by `count` modulo `BITS`.
    fn wrapping_shr(self, count: u32) -> Self;
    /// The whole product.
    fn widening_mul(self, b: Self) -> Self::Wide;
    /// The upper half.
    fn high(wide: Self::Wide) -> Self;
    /// Sum modulo twice the width.
    fn wide_add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// The bits, zero-extended.
    fn bits(self) -> u64;
    /// The low bits of `bits`.
    fn from_bits(bits: u64) -> Self;
}

macro_rules! integers {
    ($($type:ident, $unsigned:ident, $wide:ident;)*) => {$(
        impl Integer for $type {
            const BITS: u32 = $type::BITS;
            const SIGNED: bool = $type::MIN != 0;
            const ONES: $type = !0;
            const MIN: $type = $type::MIN;
            const MAX: $type = $type::MAX;
            type Wide = $wide;

            #[inline(always)]
            fn wrapping_add(self, b: $type) -> $type {
                $type::wrapping_add(self, b)
            }

            #[inline(always)]
            fn wrapping_sub(self, b: $type) -> $type {
                $type::wrapping_sub(self, b)
            }

            #[inline(always)]
            fn wrapping_mul(self, b: $type) -> $type {
                $type::wrapping_mul(self, b)
            }

            #[inline(always)]
            fn wrapping_div(self, b: $type) -> $type {
                $type::wrapping_div(self, b)
            }

            #[inline(always)]
            fn wrapping_rem(self, b: $type) -> $type {
                $type::wrapping_rem(self, b)
            }

            #[inline(always)]
            fn wrapping_shl(self, count: u32) -> $type {
                $type::wrapping_shl(self, count)
            }

            #[inline(always)]
            fn wrapping_shr(self, count: u32) -> $type {
                $type::wrapping_shr(self, count)
            }

            #[inline(always)]
            fn widening_mul(self, b: $type) -> $wide {
                $wide::from(self) * $wide::from(b)
            }

            #[inline(always)]
            fn high(wide: $wide) -> $type {
                (wide >> $type::BITS) as $type
            }

            #[inline(always)]
            fn wide_add(a: $wide, b: $wide) -> $wide {
                a.wrapping_add(b)
            }

            #[inline(always)]
            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }

            #[inline(always)]
            fn from_bits(bits: u64) -> $type {
                bits as $type
            }
        }
    )*};
}

integers! {
    u8, u8, u16;
    i8, u8, i16;
    u16, u16, u32;
    i16, u16, i32;
    u32, u32, u64;
    i32, u32, i64;
    u64, u64, u128;
    i64, u64, i128;
}

/// `add`.
#[inline(always)]
pub fn add<T: Integer>(a: T, b: T) -> T {
    a.wrapping_add(b)
}

/// `sub`.
#[inline(always)]
pub fn sub<T: Integer>(a: T, b: T) -> T {
    a.wrapping_sub(b)
}

/// `add.sat.s32`.
#[inline(always)]
pub fn add_sat(a: i32, b: i32) -> i32 {
    a.saturating_add(b)
}

/// `sub.sat.s32`.
#[inline(always)]
pub fn sub_sat(a: i32, b: i32) -> i32 {
    a.saturating_sub(b)
}

/// `neg`; the smallest number is its own negative.
#[inline(always)]
pub fn neg<T: Integer>(a: T) -> T {
    T::default().wrapping_sub(a)
}

/// `abs`; the smallest number is its own magnitude.
#[inline(always)]
pub fn abs<T: Integer>(a: T) -> T {
    if a < T::default() { neg(a) } else { a }
}

/// `mul.lo`.
#[inline(always)]
pub fn mul_lo<T: Integer>(a: T, b: T) -> T {
    a.wrapping_mul(b)
}

/// `mul.hi`.
#[inline(always)]
pub fn mul_hi<T: Integer>(a: T, b: T) -> T {
    T::high(a.widening_mul(b))
}

/// `mul.wide`, defined for 16 and 32 bits.
#[inline(always)]
pub fn mul_wide<T: Integer>(a: T, b: T) -> T::Wide {
    a.widening_mul(b)
}

/// `mad.lo`.
#[inline(always)]
pub fn mad_lo<T: Integer>(a: T, b: T, c: T) -> T {
    mul_lo(a, b).wrapping_add(c)
}

/// `mad.hi`.
#[inline(always)]
pub fn mad_hi<T: Integer>(a: T, b: T, c: T) -> T {
    mul_hi(a, b).wrapping_add(c)
}

/// `mad.hi.sat.s32`.
#[inline(always)]
pub fn mad_hi_sat(a: i32, b: i32, c: i32) -> i32 {
    mul_hi(a, b).saturating_add(c)
}

/// `mad.wide`, defined for 16 and 32 bits.
#[inline(always)]
pub fn mad_wide<T: Integer>(a: T, b: T, c: T::Wide) -> T::Wide {
    T::wide_add(a.widening_mul(b), c)
}

/// An integer of 24 bits as the low bits of a register hold it: sign-extended for `s32`, cut for `u32`.
#[inline(always)]
fn low_24<T: Integer>(a: T) -> T {
    a.wrapping_shl(8).wrapping_shr(8)
}

/// `mul24.lo` on u32 or s32: bits 0 to 31 of the product of the operands' low 24 bits.
#[inline(always)]
pub fn mul24_lo<T: Integer>(a: T, b: T) -> T {
    mul_lo(low_24(a), low_24(b))
}

/// `mul24.hi` on u32 or s32: bits 16 to 47 of the product of the operands' low 24 bits.
#[inline(always)]
pub fn mul24_hi<T: Integer>(a: T, b: T) -> T {
    // A factor 2^16 moves bits 16..48 of the product to bits 32..64: 2^8 on each side.
    mul_hi(a.wrapping_shl(8), b.wrapping_shl(8))
}

/// `mad24.lo`.
#[inline(always)]
pub fn mad24_lo<T: Integer>(a: T, b: T, c: T) -> T {
    mul24_lo(a, b).wrapping_add(c)
}

/// `mad24.hi`.
#[inline(always)]
pub fn mad24_hi<T: Integer>(a: T, b: T, c: T) -> T {
    mul24_hi(a, b).wrapping_add(c)
}

/// `mad24.hi.sat.s32`.
#[inline(always)]
pub fn mad24_hi_sat(a: i32, b: i32, c: i32) -> i32 {
    mul24_hi(a, b).saturating_add(c)
}

/// `sad`: `c + |a - b|`.
#[inline(always)]
pub fn sad<T: Integer>(a: T, b: T, c: T) -> T {
    c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
}

/// `div`, towards zero. By zero, which the ISA leaves to the machine, all bits are set, as the code that ptxas emits for
/// sm_90 does it; the smallest number by -1 is itself.
#[inline(always)]
pub fn div<T: Integer>(a: T, b: T) -> T {
    if b == T::default() { T::ONES } else { a.wrapping_div(b) }
}

/// `rem`, with the sign of `a`. By zero all bits are set, as for [`div`].
#[inline(always)]
pub fn rem<T: Integer>(a: T, b: T) -> T {
    if b == T::default() { T::ONES } else { a.wrapping_rem(b) }
}

/// `min`.
#[inline(always)]
pub fn min<T: Integer>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

/// `max`.
#[inline(always)]
pub fn max<T: Integer>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

/// `.relu` on the result of `min` or `max` (s32 and s16x2): negative becomes zero.
#[inline(always)]
pub fn relu<T: Integer>(a: T) -> T {
    max(a, T::default())
}

/// `add.cc` (`carry` false) and `addc`: the sum and the carry out. 32 or 64 bits, unsigned (signed ones give the same bits).
#[inline(always)]
pub fn add_cc<T: Integer>(a: T, b: T, carry: bool) -> (T, bool) {
    let partial = a.wrapping_add(b);
    let sum = partial.wrapping_add(T::from_bits(u64::from(carry)));
    (sum, partial.bits() < a.bits() || sum.bits() < partial.bits())
}

/// `sub.cc` (`borrow` false) and `subc`: `a - (b + borrow)` and the borrow out.
#[inline(always)]
pub fn sub_cc<T: Integer>(a: T, b: T, borrow: bool) -> (T, bool) {
    let partial = a.wrapping_sub(b);
    let difference = partial.wrapping_sub(T::from_bits(u64::from(borrow)));
    (difference, a.bits() < b.bits() || partial.bits() < u64::from(borrow))
}

/// `mad.lo.cc` (`carry` false) and `madc.lo`: the sum and the carry out of the addition.
#[inline(always)]
pub fn mad_lo_cc<T: Integer>(a: T, b: T, c: T, carry: bool) -> (T, bool) {
    add_cc(mul_lo(a, b), c, carry)
}

/// `mad.hi.cc` (`carry` false) and `madc.hi`: the sum and the carry out of the addition.
#[inline(always)]
pub fn mad_hi_cc<T: Integer>(a: T, b: T, c: T, carry: bool) -> (T, bool) {
    add_cc(mul_hi(a, b), c, carry)
}

/// `.u16x2` and `.s16x2`: the operation on each half, lower half first.
#[inline(always)]
pub fn x2<T: Integer>(operation: impl Fn(T, T) -> T, a: u32, b: u32) -> u32 {
    let half = |shift: u32| operation(T::from_bits(u64::from(a >> shift)), T::from_bits(u64::from(b >> shift))).bits() as u32;
    half(0) | half(16) << 16
}

/// Byte `index` of `a`, extended.
#[inline(always)]
fn byte(signed: bool, a: u32, index: u32) -> i32 {
    let byte = (a >> (8 * index)) as u8;
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// `dp4a`: `c` plus the four products of bytes; `signed` of `a` and of `b`. Wraps.
#[inline(always)]
pub fn dp4a(signed: (bool, bool), a: u32, b: u32, c: u32) -> u32 {
    let products = (0..4).map(|i| byte(signed.0, a, i) * byte(signed.1, b, i));
    products.fold(c, |sum, product| sum.wrapping_add(product as u32))
}

/// `dp2a`: `c` plus the products of the two 16-bit halves of `a` and two bytes of `b`: the upper ones with `high` (`.hi`).
#[inline(always)]
pub fn dp2a(signed: (bool, bool), high: bool, a: u32, b: u32, c: u32) -> u32 {
    let word = |i: u32| if signed.0 { i32::from((a >> (16 * i)) as i16) } else { i32::from((a >> (16 * i)) as u16) };
    let products = (0..2).map(|i| word(i) * byte(signed.1, b, i + if high { 2 } else { 0 }));
    products.fold(c, |sum, product| sum.wrapping_add(product as u32))
}

#[cfg(test)]
#[path = "integer_tests.rs"]
mod tests;
