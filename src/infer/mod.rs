//! Inference: sampling and generation; evaluation.

pub mod evaluate;
mod generate;
mod sample;

pub use generate::Generation;
pub use sample::{Sampler, Sampling};
