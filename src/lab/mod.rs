//! The lab: checks of the engine against data that others computed, kernels on the emulator, and benchmarks.

pub mod bench;
pub mod bench_generate;
pub mod bench_kernels;
pub mod check;
pub mod emulate;
pub mod estimate;
pub mod golden;
pub mod ladder;
pub mod long_context;
pub mod one_token;
mod session;
pub mod stories;
