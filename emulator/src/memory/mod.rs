//! Memory as a kernel sees it: one generic address space with windows for each state space, every byte known to be written or not.

pub(crate) mod bits;
pub mod device;
pub(crate) mod in_flight;
pub(crate) mod shared;

/// Generic addresses of shared memory: this plus the 32-bit shared address.
pub(crate) const SHARED_WINDOW: u64 = 0x1_0000_0000;
/// Generic addresses of local memory.
pub(crate) const LOCAL_WINDOW: u64 = 0x2_0000_0000;
/// Generic addresses of a kernel's parameters.
pub(crate) const PARAM_WINDOW: u64 = 0x3_0000_0000;
/// Bytes of each window.
pub(crate) const WINDOW_BYTES: u64 = 0x1_0000_0000;
/// First address of global memory.
pub(crate) const GLOBAL_START: u64 = 0x100_0000_0000;
