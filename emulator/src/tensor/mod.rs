//! The layouts of the matrix units and of the tensor memory accelerator, and the matrix product itself. Pure functions.
//!
//! A warp's register is `[u32; 32]`, indexed by lane. Section numbers are those of the PTX ISA 9.x manual.
//!
//! * [`fragment`]: which lane and register hold which element of A, B, C and D;
//! * [`element`]: the types of the elements and their values;
//! * [`mma`]: `mma.sync`, `wmma.mma`, and one warp's share of `wgmma.mma_async`;
//! * [`matrix8x8`]: `ldmatrix`, `stmatrix`, `movmatrix`;
//! * [`swizzle`], [`descriptor`], [`wgmma`]: operands of `wgmma` in shared memory;
//! * [`tensor_map`]: what `cp.async.bulk.tensor` moves between which addresses.

pub mod descriptor;
pub mod element;
pub mod fragment;
pub mod matrix8x8;
pub mod mma;
mod simd;
pub mod swizzle;
pub mod tensor_map;
pub mod wgmma;

/// One 32-bit register of a whole warp, indexed by lane.
pub type Register = [u32; 32];
