//! The types of matrix elements, and their values as f32.
//!
//! Every value of every type here is an f32, exactly; so are the products of two f16, bf16, fp8, tf32 or integers (but for
//! bf16 and tf32 products outside f32's range), and sums of up to 64 products of integers.

use half::f16;

use super::Register;

/// Type of the elements of A or B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum Multiplicand {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    S4,
    U4,
}

/// Type of the elements of C or D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum Accumulator {
    F32,
    F16,
    S32,
}

impl Multiplicand {
    /// The type that PTX writes as `.name` (given without its dot).
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "e4m3" => Self::E4m3,
            "e5m2" => Self::E5m2,
            "s8" => Self::S8,
            "u8" => Self::U8,
            "s4" => Self::S4,
            "u4" => Self::U4,
            _ => return None,
        })
    }

    /// Bits that an element takes in a register or in shared memory (a tf32 takes 32).
    pub const fn bits(self) -> usize {
        match self {
            Self::Tf32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::E4m3 | Self::E5m2 | Self::S8 | Self::U8 => 8,
            Self::S4 | Self::U4 => 4,
        }
    }

    /// Elements in a 32-bit register.
    pub const fn per_register(self) -> usize {
        32 / self.bits()
    }

    /// Whether the elements are integers.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::S8 | Self::U8 | Self::S4 | Self::U4)
    }

    /// The elements of a register, row-major: 8 rows (of A, or columns of B) of `W` = 4·[`per_register`](Self::per_register).
    #[inline(always)]
    pub(super) fn block<const W: usize>(self, register: &Register) -> [[f32; W]; 8] {
        let mut block = [[0.0; W]; 8];
        let values = block.as_flattened_mut();
        match self {
            Self::Tf32 => each(values, register, tf32),
            Self::F16 => each(values, bytemuck::cast_ref::<_, [u16; 64]>(register), f16_bits),
            Self::Bf16 => each(values, bytemuck::cast_ref::<_, [u16; 64]>(register), |x| f32::from_bits(u32::from(x) << 16)),
            Self::E4m3 => each(values, bytemuck::cast_ref::<_, [u8; 128]>(register), e4m3),
            Self::E5m2 => each(values, bytemuck::cast_ref::<_, [u8; 128]>(register), |x| f16_bits(u16::from(x) << 8)),
            Self::S8 => each(values, bytemuck::cast_ref::<_, [i8; 128]>(register), f32::from),
            Self::U8 => each(values, bytemuck::cast_ref::<_, [u8; 128]>(register), f32::from),
            Self::S4 => each(values, &nibbles(register), |x| f32::from((x << 4) as i8 >> 4)),
            Self::U4 => each(values, &nibbles(register), f32::from),
        }
        block
    }
}

impl Accumulator {
    /// The type that PTX writes as `.name` (given without its dot).
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "s32" => Self::S32,
            _ => return None,
        })
    }

    /// Elements in a 32-bit register.
    pub const fn per_register(self) -> usize {
        if matches!(self, Self::F16) { 2 } else { 1 }
    }
}

#[inline(always)]
fn each<T: Copy>(values: &mut [f32], parts: &[T], value: impl Fn(T) -> f32) {
    for (v, &part) in values.iter_mut().zip(parts) {
        *v = value(part);
    }
}

#[inline(always)]
fn nibbles(register: &Register) -> [u8; 256] {
    let bytes: &[u8; 128] = bytemuck::cast_ref(register);
    std::array::from_fn(|i| bytes[i / 2] >> (4 * (i % 2)) & 15)
}

/// tf32 is an f32 of which the unit reads the upper 19 bits.
#[inline(always)]
fn tf32(x: u32) -> f32 {
    f32::from_bits(x & 0xffff_e000)
}

/// f16 without a branch, so that loops vectorise; subnormals through a subtraction, which needs no slow subnormal f32.
#[inline(always)]
fn f16_bits(x: u16) -> f32 {
    let x = u32::from(x);
    let magnitude = (x & 0x7fff) << 13;
    let subnormal = f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23);
    let finite = if magnitude < 1 << 23 { subnormal.to_bits() } else { magnitude + (112 << 23) };
    let bits = if magnitude >= 31 << 23 { magnitude + (224 << 23) } else { finite };
    f32::from_bits(bits | (x & 0x8000) << 16)
}

/// e4m3: exponent bias 7, no infinities, one NaN (all ones) per sign.
#[inline(always)]
fn e4m3(x: u8) -> f32 {
    let x = u32::from(x);
    let magnitude = (x & 0x7f) << 20;
    let subnormal = f32::from_bits(magnitude + (121 << 23)) - f32::from_bits(121 << 23);
    let finite = if magnitude < 1 << 23 { subnormal.to_bits() } else { magnitude + (120 << 23) };
    let bits = if magnitude == 0x7f << 20 { 0x7fc0_0000 } else { finite };
    f32::from_bits(bits | (x & 0x80) << 24)
}

/// Two f16 in a register, as f32.
#[inline(always)]
pub(super) fn unpack_f16x2(x: u32) -> [f32; 2] {
    [f16_bits(x as u16), f16_bits((x >> 16) as u16)]
}

/// Two f32 rounded to nearest even and packed, the first in the lower half; a NaN becomes 0x7fff.
#[inline(always)]
pub(super) fn pack_f16x2(x: [f32; 2]) -> u32 {
    let [low, high] = x.map(|x| if x.is_nan() { 0x7fff } else { u32::from(f16::from_f32_const(x).to_bits()) });
    low | high << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_has_its_value() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_bits(bits), f16::from_bits(bits).to_f32());
            assert!(ours == theirs && ours.is_sign_negative() == theirs.is_sign_negative() || ours.is_nan() && theirs.is_nan());
        }
    }

    #[test]
    fn every_fp8_has_the_value_of_the_ocp_formula() {
        let formula = |bits: u8, mantissa_bits: i32, bias: i32| {
            let (sign, exponent) = (if bits >> 7 == 1 { -1.0 } else { 1.0 }, i32::from(bits & 0x7f) >> mantissa_bits);
            let fraction = f64::from(i32::from(bits) & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
            let magnitude =
                if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) };
            sign * magnitude
        };
        for bits in 0..=u8::MAX {
            let value = f64::from(e4m3(bits));
            if bits & 0x7f == 0x7f {
                assert!(value.is_nan())
            } else {
                assert_eq!(value, formula(bits, 3, 7), "e4m3 {bits:#x}")
            }

            let value = f64::from(f16_bits(u16::from(bits) << 8));
            match bits & 0x7f {
                0x7c => assert_eq!(value, if bits >> 7 == 1 { f64::NEG_INFINITY } else { f64::INFINITY }),
                0x7d.. => assert!(value.is_nan()),
                _ => assert_eq!(value, formula(bits, 2, 15), "e5m2 {bits:#x}"),
            }
        }
    }

    #[test]
    fn tf32_ignores_the_low_13_bits() {
        assert_eq!(tf32(1.0f32.to_bits() | 0x1fff), 1.0);
        assert_eq!(tf32(1.0f32.to_bits() | 0x2000), 1.0 + 2f32.powi(-10));
    }

    #[test]
    fn nibbles_are_signed_or_not() {
        let register = [0xf8_76_10_9a; 32];
        assert_eq!(Multiplicand::S4.block::<32>(&register)[3][..8], [-6.0, -7.0, 0.0, 1.0, 6.0, 7.0, -8.0, -1.0]);
        assert_eq!(Multiplicand::U4.block::<32>(&register)[7][24..], [10.0, 9.0, 0.0, 1.0, 6.0, 7.0, 8.0, 15.0]);
    }
}
