//! The lab: checks of the engine against data that others computed, kernels on the emulator, and benchmarks.

pub mod bench;
pub mod bench_generate;
pub mod check;
pub mod emulate;
pub mod estimate;
pub mod golden;
pub mod long_context;
pub mod one_token;
pub mod stories;
