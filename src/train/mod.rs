//! The trainer: loop, optimizer, schedules, checkpoints, metrics.

pub mod schedule;
