//! What instructions compute, one lane at a time: pure functions, compiled into the vectorised loops of `machine`.
//!
//! Semantics follow the PTX ISA 9.0, chapter 9. What occurs in every kernel (nearest-even arithmetic, integer operations,
//! `ex2`, conversions between f32 and the half formats) has no data-dependent branch and no table, so that a loop over the
//! lanes of a warp becomes vector code. What is rare (directed rounding, conversions between unusual pairs) goes through
//! [`exact`], integer arithmetic that rounds once.
//!
//! `.ftz` and `.sat` are functions on a value ([`float::Float::ftz`], [`float::sat`]): flush the operands, compute, flush and
//! then clamp the result.

pub mod approximate;
pub mod bits;
pub mod compare;
pub mod convert;
pub mod exact;
pub mod float;
pub mod fp8;
pub mod half_precision;
pub mod integer;
pub mod round;

#[cfg(test)]
mod ptxas_tests;
