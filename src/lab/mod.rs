//! The lab: checks of the engine against data that others computed, and benchmarks.

pub mod bench;
pub mod golden;
pub mod one_token;
pub mod stories;
