//! **ferromind**: a from-scratch tensor engine that pretrains, runs and takes apart small language models.
//!
//! The layers, each of which knows only those below it: `train`, `infer`, `lab`; `data`, `io`; `model`; `ops`; `tape` and
//! `params`; `tensor`; `cpu`, `gpu`.
#![warn(missing_docs)]

pub mod cpu;
pub mod data;
pub mod error;
pub mod gpu;
pub mod infer;
pub mod io;
pub mod lab;
pub mod model;
pub mod ops;
pub mod params;
pub mod rng;
pub mod tape;
pub mod tensor;
pub mod train;

pub use error::{Error, Result};
