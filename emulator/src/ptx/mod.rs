//! PTX as text and as a syntax tree.
//!
//! Source: NVIDIA, "Parallel Thread Execution ISA", version 9.0.

pub mod ast;
mod lexer;
mod parser;
mod print;

pub use parser::parse;
