//! **ferromind**: a from-scratch tensor engine that pretrains, runs and takes apart small language models.
//!
//! The layers, each of which knows only those above it in this list: [`error`], [`rng`]; [`data`]; [`train`].
#![warn(missing_docs)]

pub mod cpu;
pub mod data;
pub mod error;
pub mod rng;
pub mod train;

pub use error::{Error, Result};
