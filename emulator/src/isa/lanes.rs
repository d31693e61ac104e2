//! Operations that do the same in each lane, whatever the other lanes do. All lanes are computed, whether they are active or not:
//! one loop, with no condition in it.

use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Lane, Pred, Reg, WARP, each_lane};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::Instruction;

/// `d = f(a)`
struct Map1<D, A, F> {
    d: Reg<D>,
    a: Reg<A>,
    f: F,
}

/// `d = f(a, b)`
struct Map2<D, A, B, F> {
    d: Reg<D>,
    a: Reg<A>,
    b: Reg<B>,
    f: F,
}

/// `d = f(a, b, c)`
struct Map3<D, A, B, C, F> {
    d: Reg<D>,
    a: Reg<A>,
    b: Reg<B>,
    c: Reg<C>,
    f: F,
}

/// `d = f(a, b, c, e)`
struct Map4<D, A, B, C, E, F> {
    d: Reg<D>,
    a: Reg<A>,
    b: Reg<B>,
    c: Reg<C>,
    e: Reg<E>,
    f: F,
}

impl<D: Lane, A: Lane, F: Fn(A) -> D + Send + Sync> Execute for Map1<D, A, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = cx.get(self.a);
        let value = each_lane(|lane| (self.f)(a[lane]));
        cx.set(self.d, &value);
        Flow::Next
    }
}

impl<D: Lane, A: Lane, B: Lane, F: Fn(A, B) -> D + Send + Sync> Execute for Map2<D, A, B, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b) = (cx.get(self.a), cx.get(self.b));
        let value = each_lane(|lane| (self.f)(a[lane], b[lane]));
        cx.set(self.d, &value);
        Flow::Next
    }
}

impl<D: Lane, A: Lane, B: Lane, C: Lane, F: Fn(A, B, C) -> D + Send + Sync> Execute for Map3<D, A, B, C, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b, c) = (cx.get(self.a), cx.get(self.b), cx.get(self.c));
        let value = each_lane(|lane| (self.f)(a[lane], b[lane], c[lane]));
        cx.set(self.d, &value);
        Flow::Next
    }
}

impl<D: Lane, A: Lane, B: Lane, C: Lane, E: Lane, F: Fn(A, B, C, E) -> D + Send + Sync> Execute for Map4<D, A, B, C, E, F> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b, c, e) = (cx.get(self.a), cx.get(self.b), cx.get(self.c), cx.get(self.e));
        let value = each_lane(|lane| (self.f)(a[lane], b[lane], c[lane], e[lane]));
        cx.set(self.d, &value);
        Flow::Next
    }
}

/// Decodes `op d, a;` as `d = f(a)`.
pub(super) fn unary<D: Lane, A: Lane>(
    lowering: &mut Lowering,
    instruction: &Instruction,
    class: Class,
    f: impl Fn(A) -> D + Send + Sync + 'static,
) -> Result<Decoded> {
    let [d, a] = lowering.operands(instruction)?;
    let (a, d) = (lowering.source(a)?, lowering.dest(d)?);
    Decoded::new(class, Map1 { d, a, f })
}

/// Decodes `op d, a, b;` as `d = f(a, b)`.
pub(super) fn binary<D: Lane, A: Lane, B: Lane>(
    lowering: &mut Lowering,
    instruction: &Instruction,
    class: Class,
    f: impl Fn(A, B) -> D + Send + Sync + 'static,
) -> Result<Decoded> {
    let [d, a, b] = lowering.operands(instruction)?;
    let (a, b, d) = (lowering.source(a)?, lowering.source(b)?, lowering.dest(d)?);
    Decoded::new(class, Map2 { d, a, b, f })
}

/// Decodes `op d, a, b, c;` as `d = f(a, b, c)`.
pub(super) fn ternary<D: Lane, A: Lane, B: Lane, C: Lane>(
    lowering: &mut Lowering,
    instruction: &Instruction,
    class: Class,
    f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
) -> Result<Decoded> {
    let [d, a, b, c] = lowering.operands(instruction)?;
    let (a, b, c, d) = (lowering.source(a)?, lowering.source(b)?, lowering.source(c)?, lowering.dest(d)?);
    Decoded::new(class, Map3 { d, a, b, c, f })
}

/// Decodes `op d, a, b, c, e;` as `d = f(a, b, c, e)`.
pub(super) fn quaternary<D: Lane, A: Lane, B: Lane, C: Lane, E: Lane>(
    lowering: &mut Lowering,
    instruction: &Instruction,
    class: Class,
    f: impl Fn(A, B, C, E) -> D + Send + Sync + 'static,
) -> Result<Decoded> {
    let [d, a, b, c, e] = lowering.operands(instruction)?;
    let (a, b, c, e) = (lowering.source(a)?, lowering.source(b)?, lowering.source(c)?, lowering.source(e)?);
    let d = lowering.dest(d)?;
    Decoded::new(class, Map4 { d, a, b, c, e, f })
}

/// The lanes where a condition holds, as a mask.
#[inline(always)]
pub(super) fn mask(condition: impl Fn(usize) -> bool) -> u32 {
    let mut mask = 0;
    for lane in 0..WARP {
        mask |= u32::from(condition(lane)) << lane;
    }
    mask
}

/// A predicate, negated if asked, as a mask of lanes.
#[inline(always)]
pub(super) fn holds(cx: &Cx, (register, negated): (Pred, bool)) -> u32 {
    let value = cx.predicate(register);
    if negated { !value } else { value }
}
