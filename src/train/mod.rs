//! The trainer: settings, data, the optimizer step, the loop, checkpoints, metrics.

pub mod checkpoint;
pub mod corpus;
mod first_model;
pub mod metrics;
mod observer;
mod options;
mod pretrain;
pub mod schedule;
mod state;
mod trainer;

pub use observer::{Event, Observer, Summary};
pub use options::{DecayScope, Options};
pub use pretrain::pretrain;
pub use state::read_options;
pub use trainer::{StepReport, Trainer, flops_per_token};
