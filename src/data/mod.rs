//! From text to batches of token ids.

mod batch;
pub mod stories;
pub use batch::Batch;
