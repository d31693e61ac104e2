//! Types, numbers and contents of what is passed to a kernel.

pub mod init;
pub mod npy;

use std::fmt;

use ptx_emulator::numeric::convert::{Modifiers, cvt_float};
use ptx_emulator::numeric::exact::{Format, Rounding};

/// The type of a scalar argument, or of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    BF16,
    F32,
    F64,
    E4M3,
    E5M2,
}

/// A number before it has a type, and of a type before it is shown. Two are equal if they are the same number.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// Any integer of up to 64 bits.
    Integer(i128),
    /// Any other number.
    Float(f64),
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            // Beyond 2^127 there is no integer; `as` then gives the largest, which no 64-bit integer is.
            (Self::Integer(a), Self::Float(b)) | (Self::Float(b), Self::Integer(a)) => b.fract() == 0.0 && b as i128 == a,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
        }
    }
}

impl Scalar {
    /// All of them, with their names.
    const ALL: [(Self, &'static str); 14] = [
        (Self::I8, "i8"),
        (Self::U8, "u8"),
        (Self::I16, "i16"),
        (Self::U16, "u16"),
        (Self::I32, "i32"),
        (Self::U32, "u32"),
        (Self::I64, "i64"),
        (Self::U64, "u64"),
        (Self::F16, "f16"),
        (Self::BF16, "bf16"),
        (Self::F32, "f32"),
        (Self::F64, "f64"),
        (Self::E4M3, "e4m3"),
        (Self::E5M2, "e5m2"),
    ];

    /// The type of this name.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|entry| entry.1 == name).map(|entry| entry.0);
        found.ok_or_else(|| format!("unknown type `{name}`: expected {}", Self::ALL.map(|entry| entry.1).join(", ")))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or("", |entry| entry.1)
    }

    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::E4M3 | Self::E5M2 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Its format, if it is a floating-point type.
    pub fn format(self) -> Option<Format> {
        Some(match self {
            Self::F16 => Format::F16,
            Self::BF16 => Format::BF16,
            Self::F32 => Format::F32,
            Self::F64 => Format::F64,
            Self::E4M3 => Format::E4M3,
            Self::E5M2 => Format::E5M2,
            _ => return None,
        })
    }

    fn is_signed(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    /// Smallest and largest integer; of a floating-point type those that a `f64` can tell apart.
    fn range(self) -> (i128, i128) {
        let bits = 8 * self.size() as u32;
        if self.is_signed() { (-1 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
    }

    /// The bits of a number in this type: floats are rounded to nearest even. `None` if an integer type does not hold it.
    pub fn encode(self, number: Number) -> Option<u64> {
        match (self.format(), number) {
            (None, Number::Integer(value)) => {
                let (smallest, largest) = self.range();
                (smallest..=largest).contains(&value).then_some(value as u64)
            }
            (None, Number::Float(value)) => {
                // `as` saturates, and what it saturates to is out of every type's range.
                (value.fract() == 0.0).then(|| self.encode(Number::Integer(value as i128)))?
            }
            (Some(format), Number::Integer(value)) => Some(float_bits(format, value as f64)),
            (Some(format), Number::Float(value)) => Some(float_bits(format, value)),
        }
    }

    /// The number that these bits are.
    pub fn decode(self, bits: u64) -> Number {
        match self {
            Self::F32 => Number::Float(f64::from(f32::from_bits(bits as u32))),
            Self::F64 => Number::Float(f64::from_bits(bits)),
            _ => match self.format() {
                Some(format) => {
                    let wide = cvt_float(Format::F64, format, Rounding::Nearest, Modifiers::default(), bits);
                    Number::Float(f64::from_bits(wide))
                }
                None => {
                    let unused = 64 - 8 * self.size() as u32;
                    let wide = bits << unused;
                    let value = if self.is_signed() { i128::from(wide as i64 >> unused) } else { i128::from(wide >> unused) };
                    Number::Integer(value)
                }
            },
        }
    }

    /// The bits of a number as a person writes it.
    ///
    /// # Errors
    /// A sentence that says what the type accepts.
    pub fn parse(self, text: &str) -> Result<u64, String> {
        self.number(text).and_then(|number| self.encode(number)).ok_or_else(|| {
            let expected = match self.format() {
                Some(_) => "a number, inf or nan".to_owned(),
                None => {
                    let (smallest, largest) = self.range();
                    format!("an integer from {smallest} to {largest}, decimal or 0x…")
                }
            };
            format!("`{text}` is no {}: expected {expected}", self.name())
        })
    }

    fn number(self, text: &str) -> Option<Number> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            let plain = hex.bytes().all(|b| b.is_ascii_hexdigit());
            let magnitude = plain.then(|| u64::from_str_radix(hex, 16).ok())??;
            let magnitude = i128::from(magnitude);
            return Some(Number::Integer(if digits.len() < text.len() { -magnitude } else { magnitude }));
        }
        match self.format() {
            Some(_) => text.parse().ok().map(Number::Float),
            None => text.parse().ok().map(Number::Integer),
        }
    }
}

/// Rounded once, to nearest even. What is too large for a format without infinity becomes its largest number, as `cvt` has it.
fn float_bits(format: Format, value: f64) -> u64 {
    match format {
        Format::F64 => value.to_bits(),
        Format::F32 => u64::from((value as f32).to_bits()),
        _ => {
            let modifiers = Modifiers { satfinite: format == Format::E4M3 && !value.is_nan(), ..Modifiers::default() };
            cvt_float(format, Format::F64, Rounding::Nearest, modifiers, value.to_bits())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_value_in_types_that_hold_them() {
        for (scalar, _) in Scalar::ALL {
            for value in [0, 1, 2, 7, 100] {
                // 100 needs more digits than the formats of 8 bits have; 96 does not.
                let value = if scalar.size() == 1 && value == 100 { 96 } else { value };
                let bits = scalar.encode(Number::Integer(value)).unwrap();
                assert_eq!(scalar.decode(bits), Number::Integer(value), "{scalar:?}");
            }
        }
        assert_eq!(Scalar::I16.decode(0xffff), Number::Integer(-1));
        assert_eq!(Scalar::U16.decode(0xffff), Number::Integer(65535));
        assert_eq!(Scalar::BF16.encode(Number::Float(1.0)), Some(0x3f80));
        assert_eq!(Scalar::F16.encode(Number::Float(-2.0)), Some(0xc000));
        // Halfway between two neighbours plus a trace that only a single rounding sees.
        assert_eq!(Scalar::BF16.encode(Number::Float(1.0 + 2f64.powi(-8) + 2f64.powi(-40))), Some(0x3f81));
        assert_eq!(Scalar::E4M3.encode(Number::Float(1e9)), Some(0x7e));
        assert_eq!(Scalar::E4M3.encode(Number::Float(f64::NAN)), Some(0x7f));
        assert_eq!(Scalar::E5M2.encode(Number::Float(f64::INFINITY)), Some(0x7c));
    }

    #[test]
    fn equality_is_that_of_the_numbers() {
        assert_eq!(Number::Integer(1 << 60), Number::Float(2f64.powi(60)));
        assert_ne!(Number::Integer((1 << 60) + 1), Number::Float(2f64.powi(60)));
        assert_ne!(Number::Integer(0), Number::Float(0.5));
        assert_ne!(Number::Integer(i128::from(u64::MAX)), Number::Float(f64::INFINITY));
        assert_eq!(Number::Float(f64::NAN), Number::Float(f64::NAN));
    }

    #[test]
    fn literals_and_what_is_none() {
        for (scalar, text, bits) in [
            (Scalar::I32, "-1", 0xffff_ffff_ffff_ffff),
            (Scalar::U64, "18446744073709551615", u64::MAX),
            (Scalar::U64, "0xFFFFFFFFFFFFFFFF", u64::MAX),
            (Scalar::I8, "-0x80", (-128i64) as u64),
            (Scalar::F32, "0.5", 0x3f00_0000),
            (Scalar::F32, "1e3", 0x447a_0000),
            (Scalar::F64, "-inf", f64::NEG_INFINITY.to_bits()),
            (Scalar::BF16, "0x10", 0x4180),
        ] {
            assert_eq!(scalar.parse(text), Ok(bits), "{scalar:?} {text}");
        }
        for (scalar, text) in [
            (Scalar::U8, "256"),
            (Scalar::U8, "-1"),
            (Scalar::I8, "128"),
            (Scalar::I32, "1.5"),
            (Scalar::I32, ""),
            (Scalar::I32, "0x"),
            (Scalar::I32, "0x+1"),
            (Scalar::I64, "9223372036854775808"),
            (Scalar::U64, "99999999999999999999999999999999999999999999"),
            (Scalar::F32, "half"),
            (Scalar::F32, ""),
        ] {
            let message = scalar.parse(text).unwrap_err();
            assert!(message.contains(scalar.name()), "{message}");
        }
        assert!(Scalar::from_name("f33").unwrap_err().contains("bf16"));
    }
}
