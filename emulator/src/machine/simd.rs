//! Chooses at run time between instructions compiled for every processor and for AVX2 with fused multiply-add.

use super::block::Block;
use super::execute::{Cx, Execute, Flow};
use super::launch::Context;
use super::warp::Warp;
use super::worker::{Turn, Worker, turn};

/// An operation whose `execute` is compiled anew with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
struct Avx2<O>(O);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c,popcnt,lzcnt")]
fn with_avx2<O: Execute>(op: &O, cx: &mut Cx) -> Flow {
    op.execute(cx)
}

#[cfg(target_arch = "x86_64")]
impl<O: Execute> Execute for Avx2<O> {
    fn execute(&self, cx: &mut Cx) -> Flow {
        // SAFETY: `boxed` makes this type only after the processor has said that it has these features.
        unsafe { with_avx2(&self.0, cx) }
    }
}

/// The operation, compiled for what this processor has. For the vector code to arise, `O::execute` and what it calls in its
/// loops must be `#[inline(always)]`.
pub(crate) fn boxed<O: Execute + 'static>(op: O) -> Box<dyn Execute> {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx2() {
            return Box::new(Avx2(op));
        }
    }
    Box::new(op)
}

/// Whether the processor has all that the code here is compiled for.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("popcnt") && has!("lzcnt")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c,popcnt,lzcnt")]
fn turn_with_avx2(warp: &mut Warp, blocks: &mut [Block], launch: &Context, worker: &mut Worker, slice: u32) -> Turn {
    turn(warp, blocks, launch, worker, slice)
}

/// Runs a warp until it has to wait, gives way, or has executed `slice` instructions.
pub(crate) fn run_warp(warp: &mut Warp, blocks: &mut [Block], launch: &Context, worker: &mut Worker, slice: u32) -> Turn {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has just said that it has these features.
        return unsafe { turn_with_avx2(warp, blocks, launch, worker, slice) };
    }
    turn(warp, blocks, launch, worker, slice)
}
