//! Inference: sampling and generation; evaluation.

mod defaults;
pub mod evaluate;
mod generate;
mod sample;
mod sequence;

pub use defaults::Defaults;
pub use generate::{BatchGeneration, Generation};
pub use sample::{Sampler, Sampling};
