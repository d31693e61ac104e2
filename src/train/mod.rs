//! The trainer: loop, optimizer, schedules, checkpoints, metrics.

pub mod checkpoint;
pub mod metrics;
pub mod schedule;
