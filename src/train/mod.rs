//! The trainer: loop, optimizer, schedules, checkpoints, metrics.
