//! From text to batches of token ids: [`Documents`] streams text out of files, a [`Tokenizer`] turns it into ids once, a
//! [`Shard`] keeps them in a memory-mapped file, [`Shards`] make one stream of several, a [`Dataset`] views the stream as samples, a
//! [`Loader`] deals them out as [`Batch`]es.

mod batch;
mod bpe;
pub mod documents;
pub mod files;
pub mod inspect;
pub mod loader;
pub mod packing;
pub mod permutation;
pub mod shard;
pub mod shards;
pub mod tokenizer;

pub mod stories;
pub use batch::Batch;
pub use documents::{Documents, Format, Piece};
pub use loader::{Dataset, Loader};
pub use packing::View;
pub use permutation::Permutation;
pub use shard::{Shard, ShardOptions, default_cache_dir};
pub use shards::Shards;
pub use tokenizer::{DecodeStream, Tokenizer};
