//! What `atom`, `red` and `cp.reduce.async.bulk` do to a value in memory.

use half::{bf16, f16};

/// The new value from what was there and the operands; of `cas` the first operand is compared and the second stored. All lie in
/// the low bits.
pub(crate) type Combine = fn(u64, u64, u64) -> u64;

/// One operation on one type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reduction {
    pub combine: Combine,
    /// Bytes of the value.
    pub size: u32,
}

macro_rules! integer {
    ($f:expr, $signed:ty, $bits:ty) => {
        |old, b, _| {
            let f: fn($signed, $signed) -> $signed = $f;
            f(old as $signed, b as $signed) as $bits as u64
        }
    };
}

/// The reduction of a PTX operation and type; none if PTX has no such.
pub(crate) fn reduction(operation: &str, ty: &str) -> Option<Reduction> {
    let (size, combine): (u32, Combine) = match (operation, ty) {
        ("add", "u32" | "s32") => (4, integer!(u32::wrapping_add, u32, u32)),
        ("add", "u64" | "s64") => (8, |old, b, _| old.wrapping_add(b)),
        ("add", "f32") => (4, |old, b, _| u64::from(canonical(single(old) + single(b)).to_bits())),
        ("add", "f64") => (8, |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits()),
        ("and", "b32" | "b64") => (bytes(ty), |old, b, _| old & b),
        ("or", "b32" | "b64") => (bytes(ty), |old, b, _| old | b),
        ("xor", "b32" | "b64") => (bytes(ty), |old, b, _| old ^ b),
        ("exch", "b32" | "b64") => (bytes(ty), |_, b, _| b),
        ("cas", "b16" | "b32" | "b64") => (bytes(ty), |old, b, c| if old == b { c } else { old }),
        ("inc", "u32") => (4, |old, b, _| if old >= b { 0 } else { old + 1 }),
        ("dec", "u32") => (4, |old, b, _| if old == 0 || old > b { b } else { old - 1 }),
        ("min", "u32") => (4, integer!(u32::min, u32, u32)),
        ("max", "u32") => (4, integer!(u32::max, u32, u32)),
        ("min", "s32") => (4, integer!(i32::min, i32, u32)),
        ("max", "s32") => (4, integer!(i32::max, i32, u32)),
        ("min", "u64") => (8, |old, b, _| old.min(b)),
        ("max", "u64") => (8, |old, b, _| old.max(b)),
        ("min", "s64") => (8, integer!(i64::min, i64, u64)),
        ("max", "s64") => (8, integer!(i64::max, i64, u64)),
        ("add", "f16") => (2, |old, b, _| u64::from(f16_of(old, b, |a, b| a + b))),
        ("min", "f16") => (2, |old, b, _| u64::from(f16_of(old, b, minimum))),
        ("max", "f16") => (2, |old, b, _| u64::from(f16_of(old, b, maximum))),
        ("add", "bf16") => (2, |old, b, _| u64::from(bf16_of(old, b, |a, b| a + b))),
        ("min", "bf16") => (2, |old, b, _| u64::from(bf16_of(old, b, minimum))),
        ("max", "bf16") => (2, |old, b, _| u64::from(bf16_of(old, b, maximum))),
        ("add", "f16x2") => (4, |old, b, _| pair(old, b, |a, b| f16_of(a, b, |a, b| a + b))),
        ("min", "f16x2") => (4, |old, b, _| pair(old, b, |a, b| f16_of(a, b, minimum))),
        ("max", "f16x2") => (4, |old, b, _| pair(old, b, |a, b| f16_of(a, b, maximum))),
        ("add", "bf16x2") => (4, |old, b, _| pair(old, b, |a, b| bf16_of(a, b, |a, b| a + b))),
        ("min", "bf16x2") => (4, |old, b, _| pair(old, b, |a, b| bf16_of(a, b, minimum))),
        ("max", "bf16x2") => (4, |old, b, _| pair(old, b, |a, b| bf16_of(a, b, maximum))),
        _ => return None,
    };
    Some(Reduction { combine, size })
}

/// `add.f32` as global memory does it: subnormal operands and results become zeros of their sign (ISA, `atom`).
pub(crate) fn add_f32_flushed(old: u64, b: u64, _: u64) -> u64 {
    let flush = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    u64::from(canonical(flush(flush(single(old)) + flush(single(b)))).to_bits())
}

fn bytes(ty: &str) -> u32 {
    match ty {
        "b16" => 2,
        "b32" => 4,
        _ => 8,
    }
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// The one NaN that GPUs compute.
fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fff_ffff) } else { x }
}

/// Sums of two 11- or 8-bit significands, rounded to f32's 24 bits and then to theirs, are rounded right (Figueroa 1995).
fn f16_of(a: u64, b: u64, f: fn(f32, f32) -> f32) -> u16 {
    let result = f(f16::from_bits(a as u16).to_f32(), f16::from_bits(b as u16).to_f32());
    if result.is_nan() { 0x7fff } else { f16::from_f32(result).to_bits() }
}

fn bf16_of(a: u64, b: u64, f: fn(f32, f32) -> f32) -> u16 {
    let result = f(bf16::from_bits(a as u16).to_f32(), bf16::from_bits(b as u16).to_f32());
    if result.is_nan() { 0x7fff } else { bf16::from_f32(result).to_bits() }
}

fn pair(old: u64, b: u64, f: fn(u64, u64) -> u16) -> u64 {
    u64::from(f(old, b)) | u64::from(f(old >> 16, b >> 16)) << 16
}

/// A number wins over NaN, and −0 is less than +0.
fn minimum(a: f32, b: f32) -> f32 {
    match a.partial_cmp(&b) {
        Some(std::cmp::Ordering::Less) => a,
        Some(std::cmp::Ordering::Greater) => b,
        Some(std::cmp::Ordering::Equal) => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        None => {
            if a.is_nan() {
                b
            } else {
                a
            }
        }
    }
}

fn maximum(a: f32, b: f32) -> f32 {
    -minimum(-a, -b)
}
