//! The trainer: settings, data, the optimizer step, the loop, checkpoints, metrics.

pub mod checkpoint;
pub mod corpus;
pub mod metrics;
mod options;
mod pretrain;
pub mod schedule;
mod state;
mod trainer;

pub use options::{DecayScope, Options};
pub use pretrain::{Event, Observer, Summary, pretrain};
pub use trainer::{StepReport, Trainer, flops_per_token};
