//! Language models as plain functions over the operations.

mod config;
mod decoder;
mod weights;

pub use config::{Family, ModelConfig, MoeConfig, Preset};
pub use decoder::{Cache, Dropout, Forward, Loss, Model, Output};
pub use weights::Init;
