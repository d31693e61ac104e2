//! Inference: sampling and generation; evaluation.

pub mod evaluate;
mod generate;
mod sample;
mod sequence;

pub use generate::{BatchGeneration, Generation};
pub use sample::{Sampler, Sampling};
