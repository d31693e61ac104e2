//! The machine: registers, warps, blocks and clusters, and the order in which they run.

pub(crate) mod block;
pub(crate) mod execute;
pub(crate) mod launch;
pub(crate) mod progress;
pub(crate) mod registers;
pub(crate) mod scheduler;
pub(crate) mod simd;
pub(crate) mod stuck;
pub(crate) mod trace;
pub(crate) mod warp;
pub(crate) mod worker;
