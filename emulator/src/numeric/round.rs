//! `add`, `sub`, `mul`, `fma`, `div`, `rcp` and `sqrt` on f32 and f64 in every rounding direction.
//!
//! Nearest even is the host's own arithmetic and stays trivial. The directed modes round an exact result once, which is right for
//! subnormals, overflow and signed zeros alike. `.ftz` and `.sat` are applied around these by the caller
//! ([`Float::ftz`], [`super::float::sat`]); a result is flushed after it is rounded.
//!
//! Pass the direction as a constant: the functions are inlined, and `Nearest` then leaves a single host instruction.

use super::exact::{Exact, Rounding};
use super::float::Float;

/// `add`: `a + b`. The exact zero `x - x` is `-0` when rounding down.
#[inline(always)]
pub fn add<F: Float>(rounding: Rounding, a: F, b: F) -> F {
    if rounding == Rounding::Nearest || !(a.finite() && b.finite()) {
        return (a + b).settle(&[a, b]);
    }
    F::from_bits(Exact::of(a).sum(Exact::of(b), rounding).round(F::FORMAT, rounding))
}

/// `sub`: `a - b`.
#[inline(always)]
pub fn sub<F: Float>(rounding: Rounding, a: F, b: F) -> F {
    if rounding == Rounding::Nearest || !(a.finite() && b.finite()) {
        return (a - b).settle(&[a, b]);
    }
    add(rounding, a, -b)
}

/// `mul`: `a · b`.
#[inline(always)]
pub fn mul<F: Float>(rounding: Rounding, a: F, b: F) -> F {
    if rounding == Rounding::Nearest || !(a.finite() && b.finite()) {
        return (a * b).settle(&[a, b]);
    }
    F::from_bits(Exact::of(a).product(Exact::of(b)).round(F::FORMAT, rounding))
}

/// `fma` (and `mad` on floats): `a · b + c`, rounded once.
#[inline(always)]
pub fn fma<F: Float>(rounding: Rounding, a: F, b: F, c: F) -> F {
    if rounding == Rounding::Nearest || !(a.finite() && b.finite() && c.finite()) {
        return a.fused(b, c).settle(&[a, b, c]);
    }
    a.fused_towards(b, c, rounding)
}

/// The same of finite values by exact integers, in any direction.
#[inline(always)]
pub(super) fn fma_of_integers<F: Float>(rounding: Rounding, a: F, b: F, c: F) -> F {
    F::from_bits(Exact::of(a).product(Exact::of(b)).sum(Exact::of(c), rounding).round(F::FORMAT, rounding))
}

/// `div.rnd`: `a / b`.
#[inline(always)]
pub fn div<F: Float>(rounding: Rounding, a: F, b: F) -> F {
    if rounding == Rounding::Nearest || !(a.finite() && b.finite()) || b == F::ZERO {
        return (a / b).settle(&[a, b]);
    }
    F::from_bits(Exact::of(a).quotient(Exact::of(b)).round(F::FORMAT, rounding))
}

/// `rcp.rnd`: `1 / a`.
#[inline(always)]
pub fn rcp<F: Float>(rounding: Rounding, a: F) -> F {
    div(rounding, F::ONE, a)
}

/// `sqrt.rnd`; NaN of negative numbers, `-0` of `-0`.
#[inline(always)]
pub fn sqrt<F: Float>(rounding: Rounding, a: F) -> F {
    if rounding == Rounding::Nearest || !a.finite() || a < F::ZERO {
        return a.root().settle(&[a]);
    }
    F::from_bits(Exact::of(a).square_root().round(F::FORMAT, rounding))
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
