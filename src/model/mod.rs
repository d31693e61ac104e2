//! Language models as plain functions over the operations.

mod attention;
mod cache;
mod config;
mod decoder;
mod weights;

pub use cache::Cache;
pub(crate) use config::DEEPSEEK_LATENT_EPS;
pub use config::{AttentionConfig, Family, GqaConfig, MlaConfig, ModelConfig, MoeConfig, Preset, RotaryKey};
pub use decoder::{Dropout, Forward, Loss, Model, Output};
pub use weights::Init;
