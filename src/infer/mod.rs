//! Inference: sampling and generation.

mod generate;
mod sample;

pub use generate::Generation;
pub use sample::{Sampler, Sampling};
