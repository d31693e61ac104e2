//! Files as the machine sees them.

mod mmap;
pub use mmap::Mmap;
