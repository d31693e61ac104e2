//! `cvt`: between integers, between floats, and from one to the other.
//!
//! The general functions take formats and bits (in the low end of a u64) and serve every pair of types; given constant formats
//! they are inlined. The pairs that kernels use all the time have functions of their own, which vectorise.

use super::exact::{Exact, Format, Rounding, Value};
use super::float::Float;
use super::half_precision::{F16, Half};
use super::integer::Integer;

/// An integer type, by width (at most 64) and sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntegerFormat {
    /// Width.
    pub bits: u32,
    /// Two's complement, or unsigned.
    pub signed: bool,
}

impl IntegerFormat {
    /// `.u` of this width.
    pub const fn unsigned(bits: u32) -> IntegerFormat {
        IntegerFormat { bits, signed: false }
    }

    /// `.s` of this width.
    pub const fn signed(bits: u32) -> IntegerFormat {
        IntegerFormat { bits, signed: true }
    }

    const fn min(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    const fn max(self) -> i128 {
        if self.signed { (1 << (self.bits - 1)) - 1 } else { (1 << self.bits) - 1 }
    }

    /// The low bits of a register as a number.
    #[inline(always)]
    fn decode(self, bits: u64) -> i128 {
        let low = i128::from(bits) & ((1 << self.bits) - 1);
        if low > self.max() { low - (1 << self.bits) } else { low }
    }

    /// The number's bits, extended to 64 as a wider register holds it.
    #[inline(always)]
    fn encode(self, value: i128) -> u64 {
        self.decode(value as u64) as u64
    }

    #[inline(always)]
    fn clamp(self, value: i128) -> i128 {
        value.clamp(self.min(), self.max())
    }
}

/// `cvt` between integers: cut or extended, or with `sat` clamped. The result is extended to 64 bits by the sign of `to`.
#[inline(always)]
pub fn cvt_integer(to: IntegerFormat, from: IntegerFormat, sat: bool, bits: u64) -> u64 {
    let value = from.decode(bits);
    to.encode(if sat { to.clamp(value) } else { value })
}

/// `cvt.pack.sat`: `a` and `b` (s32) clamped to `to` and packed, `b` lowest, below the low bits of `c`.
#[inline(always)]
pub fn cvt_pack(to: IntegerFormat, a: i32, b: i32, c: u32) -> u32 {
    let lane = |v: i32| to.clamp(v.into()) as u32 & ((1 << to.bits) - 1);
    let above = u64::from(c) << (2 * to.bits);
    above as u32 | lane(a) << to.bits | lane(b)
}

/// The `.ftz`, `.sat`, `.relu` and `.satfinite` of a conversion to a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Modifiers {
    /// f32 subnormals, as operand or result, become zero of the same sign.
    pub ftz: bool,
    /// The result is clamped to `[+0, 1]`, NaN to `+0`.
    pub sat: bool,
    /// A negative result becomes `+0`.
    pub relu: bool,
    /// A result beyond the largest number, infinities included, becomes that number.
    pub satfinite: bool,
}

/// `.ftz` on bits of any format: f32 alone is flushed.
#[inline(always)]
fn flush(format: Format, ftz: bool, bits: u64) -> u64 {
    if ftz && format == Format::F32 { f32::from_bits(bits as u32).ftz().bits() } else { bits }
}

/// A value rounded once to `to`, with the modifiers of the conversion.
#[inline(always)]
fn encode(to: Format, rounding: Rounding, modifiers: Modifiers, value: Value) -> u64 {
    let (bits, nan) = match value {
        Value::Finite(exact) => (exact.round(to, rounding), false),
        Value::Infinite { negative } => (to.infinity() | if negative { to.sign_bit() } else { 0 }, false),
        Value::NaN => (to.nan(), true),
    };
    let magnitude = bits & (to.sign_bit() - 1);
    let overflowed = !nan && magnitude > to.max_finite();
    // Formats without infinity never overflow: their conversions are always `.satfinite`.
    let bits = if overflowed && modifiers.satfinite { bits & to.sign_bit() | to.max_finite() } else { bits };
    let negative = !nan && bits & to.sign_bit() != 0;
    let bits = if modifiers.relu && negative { 0 } else { bits };
    let one = ((1u64 << (to.exponent_bits - 1)) - 1) << to.mantissa_bits;
    let bits = match modifiers.sat {
        true if nan || negative => 0,
        true => bits.min(one),
        false => bits,
    };
    flush(to, modifiers.ftz, bits)
}

/// `cvt` between floats. NaN becomes the canonical one of `to`, but keeps its payload from f32 to f64. The bits of
/// [`Format::TF32`] are its 19 (see [`cvt_tf32_f32`]).
#[inline(always)]
pub fn cvt_float(to: Format, from: Format, rounding: Rounding, modifiers: Modifiers, bits: u64) -> u64 {
    let value = from.decode(flush(from, modifiers.ftz, bits));
    if to == Format::F64 && from == Format::F32 && value == Value::NaN && !modifiers.sat {
        return cvt_f64_f32(f32::from_bits(bits as u32)).to_bits();
    }
    encode(to, rounding, modifiers, value)
}

/// `cvt` from an integer to a float.
#[inline(always)]
pub fn cvt_float_integer(to: Format, from: IntegerFormat, rounding: Rounding, modifiers: Modifiers, bits: u64) -> u64 {
    let value = from.decode(bits);
    encode(to, rounding, modifiers, Value::Finite(Exact::of_integer(value < 0, value.unsigned_abs() as u64)))
}

/// `cvt` from a float to an integer: rounded (`.rni` is [`Rounding::Nearest`], and so on), then clamped to the type. NaN gives
/// zero, but the smallest signed number's bits where `from` is f64 or `to` has 64 bits. The result is extended to 64 bits.
#[inline(always)]
pub fn cvt_integer_float(to: IntegerFormat, from: Format, rounding: Rounding, ftz: bool, bits: u64) -> u64 {
    let value = match from.decode(flush(from, ftz, bits)) {
        Value::Finite(exact) => exact.round_to_integer(rounding),
        Value::Infinite { negative: true } => i128::MIN,
        Value::Infinite { negative: false } => i128::MAX,
        Value::NaN if from == Format::F64 || to.bits == 64 => return to.encode(1 << (to.bits - 1)),
        Value::NaN => 0,
    };
    to.encode(to.clamp(value))
}

/// `cvt.rni` and its kin between equal float types: to an integral value of the same sign (so `-0.4` gives `-0`).
#[inline(always)]
pub fn cvt_integral(format: Format, rounding: Rounding, modifiers: Modifiers, bits: u64) -> u64 {
    let value = match format.decode(flush(format, modifiers.ftz, bits)) {
        // From 2^64 on every number of every format is integral.
        Value::Finite(exact) if exact.exponent < 0 => {
            let magnitude = exact.round_to_integer(rounding).unsigned_abs();
            Value::Finite(Exact { mantissa: magnitude, exponent: 0, ..exact })
        }
        value => value,
    };
    encode(format, Rounding::Zero, modifiers, value)
}

/// Casts of the host: exact or to the nearest towards floats; towards zero and clamping, NaN to 0, towards integers.
pub trait Cast: Integer {
    /// To f32, to the nearest.
    fn to_f32(self) -> f32;
    /// To f64, to the nearest.
    fn to_f64(self) -> f64;
    /// From f32.
    fn from_f32(value: f32) -> Self;
    /// From f64.
    fn from_f64(value: f64) -> Self;
}

macro_rules! casts {
    ($($type:ident)*) => {$(
        impl Cast for $type {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn from_f32(value: f32) -> $type {
                value as $type
            }

            #[inline(always)]
            fn from_f64(value: f64) -> $type {
                value as $type
            }
        }
    )*};
}

casts!(u8 i8 u16 i16 u32 i32 u64 i64);

/// `cvt.rn.f32` from an integer.
#[inline(always)]
pub fn cvt_rn_f32<T: Cast>(a: T) -> f32 {
    a.to_f32()
}

/// `cvt.rn.f64` from an integer.
#[inline(always)]
pub fn cvt_rn_f64<T: Cast>(a: T) -> f64 {
    a.to_f64()
}

/// `cvt.rni`, `.rzi`, `.rmi`, `.rpi` from f32 to f32.
#[inline(always)]
pub fn cvt_integral_f32(rounding: Rounding, a: f32) -> f32 {
    let integral = match rounding {
        Rounding::Nearest => a.round_ties_even(),
        Rounding::NearestAway => a.round(),
        Rounding::Zero => a.trunc(),
        Rounding::Down => a.floor(),
        Rounding::Up => a.ceil(),
    };
    integral.settle(&[a])
}

/// `cvt.rni`, `.rzi`, `.rmi`, `.rpi` from f32 to an integer.
#[inline(always)]
pub fn cvt_integer_f32<T: Cast>(rounding: Rounding, a: f32) -> T {
    let result = T::from_f32(cvt_integral_f32(rounding, a));
    let nan = if T::BITS == 64 { T::from_bits(1 << 63) } else { T::default() };
    if a.is_nan() { nan } else { result }
}

/// `cvt.f32.f16`; NaN becomes the canonical one.
#[inline(always)]
pub fn cvt_f32_f16(a: u16) -> f32 {
    F16::widen(a).settle(&[])
}

/// `cvt.rn.f32.f64`; NaN becomes the canonical one.
#[inline(always)]
pub fn cvt_rn_f32_f64(a: f64) -> f32 {
    (a as f32).settle(&[])
}

/// `cvt.f64.f32`, exact; a NaN keeps its payload and becomes quiet.
#[inline(always)]
pub fn cvt_f64_f32(a: f32) -> f64 {
    let payload = u64::from(a.to_bits() & 0x007f_ffff) << 29;
    let sign = u64::from(a.to_bits() & 0x8000_0000) << 32;
    if a.is_nan() { f64::from_bits(sign | 0x7ff8_0000_0000_0000 | payload) } else { f64::from(a) }
}

/// `cvt.rna.tf32.f32`: to 10 mantissa bits, ties away from zero; the 13 bits below are zero. NaN gives `0x7fffffff`.
#[inline(always)]
pub fn cvt_rna_tf32_f32(a: f32) -> u32 {
    let rounded = a.to_bits().wrapping_add(0x1000) & !0x1fff;
    if a.is_nan() {
        0x7fff_ffff
    } else if a.finite() {
        rounded
    } else {
        a.to_bits()
    }
}

/// `cvt` to `.tf32` with any rounding and `.relu` or `.satfinite`: as an f32 whose 13 lowest bits are zero. NaN gives
/// `0x7fffffff`.
#[inline(always)]
pub fn cvt_tf32_f32(rounding: Rounding, modifiers: Modifiers, a: f32) -> u32 {
    if a.is_nan() {
        return 0x7fff_ffff;
    }
    (cvt_float(Format::TF32, Format::F32, rounding, modifiers, a.bits()) << 13) as u32
}

/// `.f16x2` and `.bf16x2` from two f32, each converted by `narrow` (say [`Half::narrow`]): `a` in the upper half.
#[inline(always)]
pub fn cvt_x2_f32(narrow: impl Fn(f32) -> u16, a: f32, b: f32) -> u32 {
    u32::from(narrow(a)) << 16 | u32::from(narrow(b))
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
