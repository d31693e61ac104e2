//! Files that others read and write: weights, configurations, model directories.

mod config;
mod export;
mod float_type;
mod gguf;
mod load;
mod mmap;
mod needless;
mod safetensors;
mod save;
mod weights;

pub use config::{config_to_json, generation_config_to_json, read_config};
pub use export::export_model;
pub use float_type::{FloatType, Weight};
pub use gguf::{GgmlType, export_gguf};
pub use load::{load_model, load_model_as, read_model_config};
pub use mmap::Mmap;
pub use safetensors::WeightsFile;
pub use save::{parse_size, save_weights, write_weights};
pub use weights::Weights;
