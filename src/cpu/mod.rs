//! The CPU's loops: matrix products.

pub mod gemm;
