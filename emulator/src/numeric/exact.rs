//! Exact values and the one place where they are rounded: directed rounding and conversions between formats rest on it.

use super::float::Float;

/// The direction in which an exact result becomes a representable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// `.rn`: to the nearest, ties to even.
    Nearest,
    /// `.rna`: to the nearest, ties away from zero.
    NearestAway,
    /// `.rz`: towards zero.
    Zero,
    /// `.rm`: towards minus infinity.
    Down,
    /// `.rp`: towards plus infinity.
    Up,
}

/// What the encodings with the largest exponent stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Specials {
    /// IEEE 754: infinity and NaN.
    Ieee,
    /// Numbers, but for all ones, which is NaN; no infinity (`e4m3`).
    NanOnly,
    /// Numbers only (`e2m1`, `e2m3`, `e3m2`).
    None,
}

/// A binary floating-point format with a sign bit: `sign, exponent, mantissa` from the most significant bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// Width of the exponent field; the bias is `2^(exponent_bits - 1) - 1`.
    pub exponent_bits: u32,
    /// Width of the mantissa field, without the hidden bit.
    pub mantissa_bits: u32,
    /// What the largest exponent stands for.
    pub specials: Specials,
}

impl Format {
    /// IEEE binary64.
    pub const F64: Format = Format::new(11, 52, Specials::Ieee);
    /// IEEE binary32.
    pub const F32: Format = Format::new(8, 23, Specials::Ieee);
    /// The 19 significant bits of `.tf32`, which a register holds in its upper bits.
    pub const TF32: Format = Format::new(8, 10, Specials::Ieee);
    /// IEEE binary16.
    pub const F16: Format = Format::new(5, 10, Specials::Ieee);
    /// The upper half of binary32.
    pub const BF16: Format = Format::new(8, 7, Specials::Ieee);
    /// OCP 8-bit format, largest value 448.
    pub const E4M3: Format = Format::new(4, 3, Specials::NanOnly);
    /// OCP 8-bit format, largest value 57344.
    pub const E5M2: Format = Format::new(5, 2, Specials::Ieee);
    /// OCP 4-bit format, largest value 6.
    pub const E2M1: Format = Format::new(2, 1, Specials::None);
    /// OCP 6-bit format, largest value 7.5.
    pub const E2M3: Format = Format::new(2, 3, Specials::None);
    /// OCP 6-bit format, largest value 28.
    pub const E3M2: Format = Format::new(3, 2, Specials::None);

    const fn new(exponent_bits: u32, mantissa_bits: u32, specials: Specials) -> Format {
        Format { exponent_bits, mantissa_bits, specials }
    }

    /// The sign bit; what lies above it is no part of the value.
    pub const fn sign_bit(self) -> u64 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// Exponent of the smallest normal number.
    const fn min_exponent(self) -> i32 {
        2 - (1 << (self.exponent_bits - 1))
    }

    const fn all_exponent_ones(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.mantissa_bits
    }

    /// Encoding of the largest finite number.
    pub const fn max_finite(self) -> u64 {
        match self.specials {
            Specials::Ieee => self.all_exponent_ones() - 1,
            Specials::NanOnly => self.sign_bit() - 2,
            Specials::None => self.sign_bit() - 1,
        }
    }

    /// Encoding of what lies beyond the largest number: infinity, or the largest number where there is none.
    pub const fn infinity(self) -> u64 {
        match self.specials {
            Specials::Ieee => self.all_exponent_ones(),
            Specials::NanOnly | Specials::None => self.max_finite(),
        }
    }

    /// The NaN that instructions produce: all ones below the sign; the largest number in a format without NaN (the ISA's
    /// rule for conversions to `e2m1`, `e2m3` and `e3m2`).
    pub const fn nan(self) -> u64 {
        self.sign_bit() - 1
    }

    /// What an encoding stands for.
    #[inline(always)]
    pub fn decode(self, bits: u64) -> Value {
        let magnitude = bits & (self.sign_bit() - 1);
        if self.specials == Specials::Ieee && magnitude == self.all_exponent_ones() {
            Value::Infinite { negative: bits & self.sign_bit() != 0 }
        } else if self.specials != Specials::None && magnitude > self.max_finite() {
            Value::NaN
        } else {
            Value::Finite(self.decode_finite(bits))
        }
    }

    #[inline(always)]
    fn decode_finite(self, bits: u64) -> Exact {
        let magnitude = bits & (self.sign_bit() - 1);
        let field = (magnitude >> self.mantissa_bits) as i32;
        let fraction = u128::from(magnitude & ((1 << self.mantissa_bits) - 1));
        Exact {
            negative: bits & self.sign_bit() != 0,
            mantissa: fraction | u128::from(field != 0) << self.mantissa_bits,
            exponent: self.min_exponent() - self.mantissa_bits as i32 + (field - 1).max(0),
        }
    }
}

/// A decoded number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Zero (of either sign) or a finite number.
    Finite(Exact),
    /// An infinity.
    Infinite {
        /// Its sign.
        negative: bool,
    },
    /// Any NaN.
    NaN,
}

/// `±mantissa · 2^exponent`. After an inexact step the lowest mantissa bit is *sticky*: one if anything was lost below it,
/// which leaves every later rounding to at least two bits fewer as it would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// The sign, also of zero.
    pub negative: bool,
    /// The magnitude in units of `2^exponent`.
    pub mantissa: u128,
    /// The weight of the lowest mantissa bit.
    pub exponent: i32,
}

impl Exact {
    /// The value of a float that is finite.
    #[inline(always)]
    pub fn of<F: Float>(value: F) -> Exact {
        F::FORMAT.decode_finite(value.bits())
    }

    /// The value of an integer given by sign and magnitude.
    #[inline(always)]
    pub fn of_integer(negative: bool, magnitude: u64) -> Exact {
        Exact { negative, mantissa: u128::from(magnitude), exponent: 0 }
    }

    /// The encoding in `format` after one rounding; overflow gives infinity or the largest number as the direction asks.
    #[inline(always)]
    pub fn round(self, format: Format, rounding: Rounding) -> u64 {
        let sign = if self.negative { format.sign_bit() } else { 0 };
        if self.mantissa == 0 {
            return sign;
        }
        let leading = self.exponent + 127 - self.mantissa.leading_zeros() as i32;
        let quantum = leading.max(format.min_exponent()) - format.mantissa_bits as i32;
        let (kept, dropped, half) = split(self.mantissa, quantum - self.exponent);
        let up = self.rounds_up(rounding, kept, dropped, half);
        // The hidden bit adds one to the exponent field, and so does the carry out of a mantissa of all ones.
        let field = i128::from(quantum - (format.min_exponent() - format.mantissa_bits as i32));
        let magnitude = (field << format.mantissa_bits) as u128 + kept + u128::from(up);
        if magnitude <= u128::from(format.max_finite()) {
            return sign | magnitude as u64;
        }
        let to_infinity = match rounding {
            Rounding::Nearest | Rounding::NearestAway => true,
            Rounding::Zero => false,
            Rounding::Down => self.negative,
            Rounding::Up => !self.negative,
        };
        sign | if to_infinity { format.infinity() } else { format.max_finite() }
    }

    /// The nearest integer in the direction of `rounding`; beyond 2^126 the largest i128 of the sign.
    #[inline(always)]
    pub fn round_to_integer(self, rounding: Rounding) -> i128 {
        let bits = 128 - self.mantissa.leading_zeros() as i32;
        if self.mantissa != 0 && bits + self.exponent > 126 {
            return if self.negative { i128::MIN } else { i128::MAX };
        }
        let exponent = if self.mantissa == 0 { 0 } else { self.exponent };
        let (kept, dropped, half) = split(self.mantissa, -exponent);
        let magnitude = (kept + u128::from(self.rounds_up(rounding, kept, dropped, half))) as i128;
        if self.negative { -magnitude } else { magnitude }
    }

    /// Whether the magnitude `kept`, of which `dropped` is cut (`half` being one half), is to grow by one.
    #[inline(always)]
    fn rounds_up(self, rounding: Rounding, kept: u128, dropped: u128, half: u128) -> bool {
        match rounding {
            Rounding::Nearest => dropped > half || (dropped == half && kept & 1 == 1),
            Rounding::NearestAway => dropped >= half,
            Rounding::Zero => false,
            Rounding::Down => dropped != 0 && self.negative,
            Rounding::Up => dropped != 0 && !self.negative,
        }
    }

    /// Exact product; the mantissas of both factors have at most 64 bits.
    #[inline(always)]
    pub fn product(self, other: Exact) -> Exact {
        Exact {
            negative: self.negative != other.negative,
            mantissa: self.mantissa * other.mantissa,
            exponent: self.exponent + other.exponent,
        }
    }

    /// Sum, exact but for a sticky bit at least 18 bits below the leading bit of mantissas of up to 107 bits. An exact zero
    /// takes the common sign of the terms, else the sign that `rounding` gives to `x - x`.
    #[inline(always)]
    pub fn sum(self, other: Exact, rounding: Rounding) -> Exact {
        let zero_sign = if self.negative == other.negative { self.negative } else { rounding == Rounding::Down };
        if self.mantissa == 0 && other.mantissa == 0 {
            return Exact { negative: zero_sign, ..self };
        }
        if self.mantissa == 0 {
            return other;
        }
        if other.mantissa == 0 {
            return self;
        }
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        // Two bits of headroom above; what the shift to the left can't bridge, a sticky shift to the right does.
        let left = (high.exponent - low.exponent).min(high.mantissa.leading_zeros() as i32 - 2).max(0);
        let exponent = high.exponent - left;
        let a = high.mantissa << left;
        let (kept, dropped, _) = split(low.mantissa, exponent - low.exponent);
        let b = kept | u128::from(dropped != 0);
        let (negative, mantissa) = if high.negative == low.negative {
            (high.negative, a + b)
        } else if a >= b {
            (high.negative, a - b)
        } else {
            (low.negative, b - a)
        };
        Exact { negative: if mantissa == 0 { zero_sign } else { negative }, mantissa, exponent }
    }

    /// Quotient with a sticky bit, of mantissas of at most 64 bits; the divisor is not zero.
    #[inline(always)]
    pub fn quotient(self, divisor: Exact) -> Exact {
        let shift = self.mantissa.leading_zeros().min(127) as i32 - 1;
        let dividend = self.mantissa << shift.max(0);
        let quotient = dividend / divisor.mantissa.max(1);
        let remainder = dividend % divisor.mantissa.max(1);
        Exact {
            negative: self.negative != divisor.negative,
            mantissa: quotient | u128::from(remainder != 0),
            exponent: self.exponent - divisor.exponent - shift.max(0),
        }
    }

    /// Square root with a sticky bit, of a mantissa of at most 64 bits; the sign is kept.
    #[inline(always)]
    pub fn square_root(self) -> Exact {
        let free = self.mantissa.leading_zeros().min(127) as i32 - 1;
        let shift = free.max(0) - ((self.exponent - free.max(0)) & 1);
        let shift = shift.max(0);
        let radicand = self.mantissa << shift;
        let root = radicand.isqrt();
        Exact {
            negative: self.negative,
            mantissa: root | u128::from(root * root != radicand),
            exponent: (self.exponent - shift) / 2,
        }
    }
}

/// `mantissa / 2^shift` as integer part, remainder, and the remainder that is one half.
#[inline(always)]
fn split(mantissa: u128, shift: i32) -> (u128, u128, u128) {
    match shift {
        ..=0 => (mantissa << -shift, 0, 1),
        1..=126 => (mantissa >> shift, mantissa & ((1 << shift) - 1), 1 << (shift - 1)),
        _ => (0, u128::from(mantissa != 0), 1 << 126),
    }
}
