//! Language models as plain functions over the operations.

mod cache;
mod config;
mod decoder;
mod weights;

pub use cache::Cache;
pub use config::{Family, ModelConfig, MoeConfig, Preset};
pub use decoder::{Dropout, Forward, Loss, Model, Output};
pub use weights::Init;
