//! Executes CUDA kernels with no GPU: the PTX that NVIDIA's compiler emits is parsed, decoded and run warp by warp, with every
//! access checked and counted.
//!
//! The layers, each of which knows only those above it in this list, but for `isa` and `machine`, which are two sides of one thing:
//! `numeric` (what an instruction computes, lane by lane), `tensor` (fragment layouts, swizzles, descriptors of the matrix units),
//! `ptx` (text to syntax tree), `memory`, `program` (syntax tree to decoded instructions), `isa` (each instruction's decoder and
//! code), `machine` (warps, blocks, clusters, the scheduler), with `check` and `count` watching, and `device`, the host's side.
//! `fault` plants mistakes into syntax trees, to test what finds them.
#![warn(missing_docs)]

pub mod check;
pub mod count;
pub mod device;
pub mod error;
pub mod fault;
mod isa;
mod machine;
mod memory;
pub mod numeric;
pub mod program;
pub mod ptx;
pub mod tensor;

pub use check::{Finding, Kind, Place};
pub use count::Counters;
pub use device::{Device, Module};
pub use error::{Error, Result};
pub use machine::launch::{Launch, Order, Report};
pub use machine::trace::{Followed, Trace};
pub use program::{Kernel, Parameter, Program};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
