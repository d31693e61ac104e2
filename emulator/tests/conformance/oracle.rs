//! What the formulas of the tests share: numbers as exact values, and rounding by search instead of by bits.

use super::Ty;
use std::cmp::Ordering;

/// An integer operand as a number.
pub fn number(ty: Ty, bits: u64) -> i128 {
    match ty {
        Ty::S16 => i128::from(bits as i16),
        Ty::S32 => i128::from(bits as i32),
        Ty::S64 => i128::from(bits as i64),
        _ => i128::from(bits),
    }
}

/// The low bits of a number.
pub fn wrap(ty: Ty, value: i128) -> u64 {
    value as u64 & (u64::MAX >> (64 - ty.bits()))
}

/// The smallest and largest number of a type.
pub fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bits();
    match ty {
        Ty::S16 | Ty::S32 | Ty::S64 => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        _ => (0, (1 << bits) - 1),
    }
}

pub fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Bits of an f32 result, with the one NaN that instructions give.
pub fn bits_of(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { u64::from(value.to_bits()) }
}

/// Flushes a subnormal f32.
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// `.sat`
pub fn saturate(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 { 0.0 } else { value.min(1.0) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

pub const ROUNDINGS: [(&str, Round); 4] = [("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)];

/// An exact value: a double plus what it lacks, which is less than half of its last place.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    pub near: f64,
    pub rest: f64,
}

impl Exact {
    /// `a + b` (Knuth's two-sum).
    pub fn sum(a: f64, b: f64) -> Self {
        let near = a + b;
        let part = near - a;
        let rest = (a - (near - part)) + (b - part);
        Self { near, rest: if rest.is_finite() { rest } else { 0.0 } }
    }

    /// `a · b`, of magnitudes whose last places do not underflow.
    pub fn product(a: f64, b: f64) -> Self {
        let near = a * b;
        let rest = a.mul_add(b, -near);
        Self { near, rest: if rest.is_finite() { rest } else { 0.0 } }
    }

    /// `a / b`, likewise.
    pub fn quotient(a: f64, b: f64) -> Self {
        let near = a / b;
        let rest = (-near).mul_add(b, a) / b;
        Self { near, rest: if rest.is_finite() { rest } else { 0.0 } }
    }

    /// Square root, likewise.
    pub fn root(a: f64) -> Self {
        let near = a.sqrt();
        let rest = (-near).mul_add(near, a) / (2.0 * near);
        Self { near, rest: if rest.is_finite() { rest } else { 0.0 } }
    }

    /// Compared with a double.
    pub fn compare(self, other: f64) -> Ordering {
        match self.near.partial_cmp(&other) {
            Some(Ordering::Equal) => self.rest.partial_cmp(&0.0).unwrap_or(Ordering::Equal),
            Some(order) => order,
            None => Ordering::Equal,
        }
    }

    /// Rounded to f32 in a direction, not zero and not NaN.
    pub fn to_f32(self, round: Round) -> f32 {
        let mut below = self.near as f32;
        while self.compare(f64::from(below)) == Ordering::Less {
            below = below.next_down();
        }
        while below.is_finite() && self.compare(f64::from(below.next_up())) != Ordering::Less {
            below = below.next_up();
        }
        let above = if self.compare(f64::from(below)) == Ordering::Equal { below } else { below.next_up() };
        let negative = self.near < 0.0;
        let round = match round {
            Round::Zero if negative => Round::Up,
            Round::Zero => Round::Down,
            round => round,
        };
        match round {
            Round::Down => below,
            Round::Up => above,
            _ if above.is_infinite() || below.is_infinite() => self.near as f32,
            _ => {
                let middle = (f64::from(below) + f64::from(above)) / 2.0;
                match self.compare(middle) {
                    Ordering::Less => below,
                    Ordering::Greater => above,
                    Ordering::Equal if below.to_bits() & 1 == 0 => below,
                    Ordering::Equal => above,
                }
            }
        }
    }

    /// Rounded to f64 in a direction, not zero and finite.
    pub fn to_f64(self, round: Round) -> f64 {
        let up = match round {
            Round::Nearest => return self.near,
            Round::Zero => self.near < 0.0,
            Round::Down => false,
            Round::Up => true,
        };
        match (up, self.compare(self.near)) {
            (true, Ordering::Greater) => self.near.next_up(),
            (false, Ordering::Less) => self.near.next_down(),
            _ => self.near,
        }
    }
}

/// A half format, by the value of each encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfFormat {
    F16,
    BF16,
}

impl HalfFormat {
    pub fn infinity(self) -> u16 {
        if self == HalfFormat::F16 { 0x7c00 } else { 0x7f80 }
    }

    pub fn value(self, bits: u64) -> f64 {
        match self {
            HalfFormat::F16 => half::f16::from_bits(bits as u16).to_f64(),
            HalfFormat::BF16 => half::bf16::from_bits(bits as u16).to_f64(),
        }
    }

    /// What the step behind the largest number would be.
    fn magnitude(self, bits: u16) -> f64 {
        match (bits == self.infinity(), self) {
            (true, HalfFormat::F16) => 65536.0,
            (true, HalfFormat::BF16) => 2f64.powi(128),
            _ => self.value(u64::from(bits)),
        }
    }

    /// Nearest even, by bisection among all encodings.
    pub fn nearest(self, exact: Exact) -> u64 {
        if exact.near.is_nan() {
            return 0x7fff;
        }
        let sign = if exact.near.is_sign_negative() { 0x8000 } else { 0 };
        let size = if sign == 0 { exact } else { Exact { near: -exact.near, rest: -exact.rest } };
        let (mut below, mut beyond) = (0u16, self.infinity());
        if size.compare(self.magnitude(beyond)) != Ordering::Less {
            return u64::from(sign | self.infinity());
        }
        while beyond - below > 1 {
            let middle = below + (beyond - below) / 2;
            if size.compare(self.magnitude(middle)) == Ordering::Less { beyond = middle } else { below = middle }
        }
        let middle = (self.magnitude(below) + self.magnitude(beyond)) / 2.0;
        let up = match size.compare(middle) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => below & 1 == 1,
        };
        u64::from(sign | if up { beyond } else { below })
    }
}
