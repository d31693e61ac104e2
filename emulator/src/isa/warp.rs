//! What the lanes of a warp tell each other: `shfl`, `vote`, `activemask`, `match`, `redux`, `elect`.
//!
//! All of them but `activemask` first wait for the lanes that their membermask names (PTX ISA, "Parallel Synchronization and
//! Communication Instructions"); lanes that come together may bring several masks, each of which stands for itself.

use super::lanes::holds;
use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Lane, Lanes, Mask, Pred, Reg, WARP};
use crate::program::{Class, Decoded, Lowering, Meeting};
use crate::ptx::ast::{Instruction, Operand};

/// Where `shfl` takes the value from.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Up,
    Down,
    Butterfly,
    Index,
}

impl Mode {
    /// The source lane of a lane, if it lies within the lane's segment; `b` and `c` are the operands of those names.
    fn source(self, lane: u32, b: u32, c: u32) -> Option<usize> {
        let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
        let first = lane & segment;
        let last = first | clamp & !segment;
        // For `.up` the clamp gives the segment's first lane.
        let (source, inside) = match self {
            Self::Up => (lane.wrapping_sub(b), lane >= b && lane - b >= last),
            Self::Down => (lane + b, lane + b <= last),
            Self::Butterfly => (lane ^ b, lane ^ b <= last),
            Self::Index => (first | b & !segment, first | b & !segment <= last),
        };
        inside.then_some(source as usize % WARP)
    }
}

struct Shuffle {
    mode: Mode,
    d: Option<Reg<u32>>,
    p: Option<Pred>,
    a: Reg<u32>,
    b: Reg<u32>,
    c: Reg<u32>,
    members: Reg<u32>,
}

impl Execute for Shuffle {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, b, c, members) = (*cx.get(self.a), *cx.get(self.b), *cx.get(self.c), *cx.get(self.members));
        let (mut value, mut inside, mut undefined) = (a, 0, 0);
        let unknown = if cx.checked() { cx.undefined(self.a.id) } else { 0 };
        for lane in lanes_of(cx.active) {
            let mut source = lane;
            if let Some(other) = self.mode.source(lane as u32, b[lane], c[lane]) {
                inside |= 1 << lane;
                if (cx.active & members[lane]) >> other & 1 == 1 {
                    source = other;
                } else {
                    cx.report(Kind::MissingLanes, lane, || {
                        format!("lane {lane} reads the value of lane {other}, which does not take part")
                    });
                }
            }
            value[lane] = a[source];
            undefined |= (unknown >> source & 1) << lane;
        }
        if let Some(d) = self.d {
            cx.set(d, &value);
            cx.set_undefined(d.id, undefined);
        }
        if let Some(p) = self.p {
            cx.set_predicate(p, inside);
            cx.set_undefined(p.id, 0);
        }
        Flow::Next
    }
}

/// Calls `f` with each set of active lanes that brought the same membermask.
#[inline(always)]
fn each_meeting(cx: &mut Cx, members: Reg<u32>, mut f: impl FnMut(&mut Cx, Mask)) {
    let (members, mut left) = (*cx.get(members), cx.active);
    while left != 0 {
        let mask = members[left.trailing_zeros() as usize];
        let together = lanes_of(left).filter(|&lane| members[lane] == mask).fold(0, |lanes, lane| lanes | 1 << lane);
        // A lane that its own mask does not name was reported; it takes part as if it were named.
        f(cx, together);
        left &= !together;
    }
}

/// What `vote` makes of a predicate.
#[derive(Debug, Clone, Copy)]
enum Vote {
    All,
    Any,
    Uniform,
}

struct VotePredicate {
    vote: Vote,
    d: Pred,
    a: (Pred, bool),
    members: Reg<u32>,
}

impl Execute for VotePredicate {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (a, mut result, mut undefined) = (holds(cx, self.a), 0, 0);
        each_meeting(cx, self.members, |cx, lanes| {
            let yes = match self.vote {
                Vote::All => a & lanes == lanes,
                Vote::Any => a & lanes != 0,
                Vote::Uniform => a & lanes == lanes || a & lanes == 0,
            };
            result |= if yes { lanes } else { 0 };
            undefined |= spread(cx, self.a.0.id, lanes);
        });
        cx.set_predicate(self.d, result);
        cx.set_undefined(self.d.id, undefined);
        Flow::Next
    }
}

struct Ballot {
    d: Reg<u32>,
    a: (Pred, bool),
    members: Reg<u32>,
}

impl Execute for Ballot {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = holds(cx, self.a);
        reduce(cx, self.d, self.a.0.id, self.members, |lanes| a & lanes)
    }
}

/// All lanes that meet, if the value of one of them is undefined.
fn spread(cx: &Cx, id: u32, lanes: Mask) -> Mask {
    if cx.checked() && cx.undefined(id) & lanes != 0 { lanes } else { 0 }
}

/// Gives the lanes of each meeting one result, which depends on a register of all of them.
#[inline(always)]
fn reduce(cx: &mut Cx, d: Reg<u32>, source: u32, members: Reg<u32>, f: impl Fn(Mask) -> u32) -> Flow {
    let (mut value, mut undefined): (Lanes<u32>, Mask) = ([0; WARP], 0);
    each_meeting(cx, members, |cx, lanes| {
        let result = f(lanes);
        lanes_of(lanes).for_each(|lane| value[lane] = result);
        undefined |= spread(cx, source, lanes);
    });
    cx.set(d, &value);
    cx.set_undefined(d.id, undefined);
    Flow::Next
}

struct Reduce<G, F> {
    d: Reg<u32>,
    a: Reg<u32>,
    members: Reg<u32>,
    /// What is reduced instead of the value itself.
    prepare: G,
    f: F,
}

impl<G: Fn(u32) -> u32 + Send + Sync, F: Fn(u32, u32) -> u32 + Send + Sync> Execute for Reduce<G, F> {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = cx.get(self.a).map(&self.prepare);
        reduce(cx, self.d, self.a.id, self.members, |lanes| lanes_of(lanes).map(|lane| a[lane]).reduce(&self.f).unwrap_or_default())
    }
}

struct MatchAny<T> {
    d: Reg<u32>,
    a: Reg<T>,
    members: Reg<u32>,
}

impl<T: Lane> Execute for MatchAny<T> {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = *cx.get(self.a);
        let (mut value, mut undefined): (Lanes<u32>, Mask) = ([0; WARP], 0);
        each_meeting(cx, self.members, |cx, lanes| {
            for lane in lanes_of(lanes) {
                value[lane] = same(&a, lanes, lane);
            }
            undefined |= spread(cx, self.a.id, lanes);
        });
        cx.set(self.d, &value);
        cx.set_undefined(self.d.id, undefined);
        Flow::Next
    }
}

struct MatchAll<T> {
    d: Option<Reg<u32>>,
    p: Option<Pred>,
    a: Reg<T>,
    members: Reg<u32>,
}

impl<T: Lane> Execute for MatchAll<T> {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = *cx.get(self.a);
        let (mut value, mut all, mut undefined): (Lanes<u32>, Mask, Mask) = ([0; WARP], 0, 0);
        each_meeting(cx, self.members, |cx, lanes| {
            if same(&a, lanes, lanes.trailing_zeros() as usize) == lanes {
                all |= lanes;
                lanes_of(lanes).for_each(|lane| value[lane] = lanes);
            }
            undefined |= spread(cx, self.a.id, lanes);
        });
        if let Some(d) = self.d {
            cx.set(d, &value);
            cx.set_undefined(d.id, undefined);
        }
        if let Some(p) = self.p {
            cx.set_predicate(p, all);
            cx.set_undefined(p.id, undefined);
        }
        Flow::Next
    }
}

/// The lanes whose value is that of `lane`.
fn same<T: Lane>(a: &Lanes<T>, lanes: Mask, lane: usize) -> Mask {
    // Bits, for two NaN are the same here.
    lanes_of(lanes).filter(|&other| a[other].to_bits() == a[lane].to_bits()).fold(0, |mask, other| mask | 1 << other)
}

struct Elect {
    d: Option<Reg<u32>>,
    p: Option<Pred>,
    members: Reg<u32>,
}

impl Execute for Elect {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (mut value, mut leaders): (Lanes<u32>, Mask) = ([0; WARP], 0);
        each_meeting(cx, self.members, |_, lanes| {
            // The ISA leaves open which lane it is, as long as it is always the same.
            let leader = lanes.trailing_zeros();
            leaders |= 1 << leader;
            lanes_of(lanes).for_each(|lane| value[lane] = leader);
        });
        if let Some(d) = self.d {
            cx.set(d, &value);
        }
        if let Some(p) = self.p {
            cx.set_predicate(p, leaders);
        }
        Flow::Next
    }
}

struct ActiveMask {
    d: Reg<u32>,
}

impl Execute for ActiveMask {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let value = [cx.active; WARP];
        cx.set(self.d, &value);
        Flow::Next
    }
}

/// The destinations `d`, `d|p`, `_|p` or `d|_`.
fn destinations(cx: &mut Lowering, operand: &Operand) -> Result<(Option<Reg<u32>>, Option<Pred>)> {
    let (d, p) = match operand {
        Operand::Pair(d, p) => (d.as_ref(), p.as_ref()),
        single => (single, &Operand::Sink),
    };
    let d = if *d == Operand::Sink { None } else { Some(cx.dest(d)?) };
    let p = if *p == Operand::Sink { None } else { Some(cx.pred_dest(p)?) };
    Ok((d, p))
}

/// An operation that meets the lanes of its membermask and knows which of its results are undefined.
fn meeting(op: impl Execute + 'static, members: Reg<u32>) -> Result<Decoded> {
    Ok(Decoded::new(Class::Warp, op)?.with_own_taint().meeting(Meeting::Members(members)))
}

fn shuffle(cx: &mut Lowering, i: &Instruction, mode: Mode) -> Result<Decoded> {
    let [d, a, b, c, members] = cx.operands(i)?;
    let (a, b, c, members) = (cx.source(a)?, cx.critical(b)?, cx.critical(c)?, cx.critical(members)?);
    let (d, p) = destinations(cx, d)?;
    meeting(Shuffle { mode, d, p, a, b, c, members }, members)
}

fn vote(cx: &mut Lowering, i: &Instruction, vote: Vote) -> Result<Decoded> {
    let [d, a, members] = cx.operands(i)?;
    let (a, members, d) = (cx.pred(a)?, cx.critical(members)?, cx.pred_dest(d)?);
    meeting(VotePredicate { vote, d, a, members }, members)
}

fn redux(cx: &mut Lowering, i: &Instruction, f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> Result<Decoded> {
    prepared_redux(cx, i, |a| a, f)
}

fn prepared_redux(
    cx: &mut Lowering,
    i: &Instruction,
    prepare: impl Fn(u32) -> u32 + Send + Sync + 'static,
    f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static,
) -> Result<Decoded> {
    let [d, a, members] = cx.operands(i)?;
    let (a, members, d) = (cx.source(a)?, cx.critical(members)?, cx.dest(d)?);
    meeting(Reduce { d, a, members, prepare, f }, members)
}

/// The extremes of f32: +0 is larger than -0; a NaN is passed over unless `propagate`; a result that is NaN is the canonical one.
fn redux_f32(cx: &mut Lowering, i: &Instruction, largest: bool, absolute: bool, propagate: bool) -> Result<Decoded> {
    const NAN: u32 = 0x7fff_ffff;
    let prepare = move |bits: u32| match f32::from_bits(bits) {
        value if value.is_nan() => NAN,
        value if absolute => value.abs().to_bits(),
        value => value.to_bits(),
    };
    prepared_redux(cx, i, prepare, move |a, b| match (a == NAN, b == NAN) {
        (false, false) => {
            let larger = f32::from_bits(a).total_cmp(&f32::from_bits(b)).is_ge();
            if larger == largest { a } else { b }
        }
        _ if propagate => NAN,
        (true, _) => b,
        (false, true) => a,
    })
}

fn match_any<T: Lane>(cx: &mut Lowering, i: &Instruction) -> Result<Decoded> {
    let [d, a, members] = cx.operands(i)?;
    let (a, members, d) = (cx.source::<T>(a)?, cx.critical(members)?, cx.dest(d)?);
    meeting(MatchAny { d, a, members }, members)
}

fn match_all<T: Lane>(cx: &mut Lowering, i: &Instruction) -> Result<Decoded> {
    let [d, a, members] = cx.operands(i)?;
    let (a, members) = (cx.source::<T>(a)?, cx.critical(members)?);
    let (d, p) = destinations(cx, d)?;
    meeting(MatchAll { d, p, a, members }, members)
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let modifiers = modifiers(i);
    match (i.opcode.as_str(), modifiers.as_slice()) {
        ("shfl", ["sync", "up", "b32"]) => shuffle(cx, i, Mode::Up),
        ("shfl", ["sync", "down", "b32"]) => shuffle(cx, i, Mode::Down),
        ("shfl", ["sync", "bfly", "b32"]) => shuffle(cx, i, Mode::Butterfly),
        ("shfl", ["sync", "idx", "b32"]) => shuffle(cx, i, Mode::Index),
        ("vote", ["sync", "all", "pred"]) => vote(cx, i, Vote::All),
        ("vote", ["sync", "any", "pred"]) => vote(cx, i, Vote::Any),
        ("vote", ["sync", "uni", "pred"]) => vote(cx, i, Vote::Uniform),
        ("vote", ["sync", "ballot", "b32"]) => {
            let [d, a, members] = cx.operands(i)?;
            let (a, members, d) = (cx.pred(a)?, cx.critical(members)?, cx.dest(d)?);
            meeting(Ballot { d, a, members }, members)
        }
        ("shfl" | "vote", ["up" | "down" | "bfly" | "idx" | "all" | "any" | "uni" | "ballot", _]) => {
            Err(cx.refused(i, "without `.sync` it does not exist from sm_70 on"))
        }
        ("activemask", ["b32"]) => {
            let [d] = cx.operands(i)?;
            let d = cx.dest(d)?;
            Decoded::new(Class::Warp, ActiveMask { d })
        }
        ("match", ["any", "sync", "b32"]) => match_any::<u32>(cx, i),
        ("match", ["any", "sync", "b64"]) => match_any::<u64>(cx, i),
        ("match", ["all", "sync", "b32"]) => match_all::<u32>(cx, i),
        ("match", ["all", "sync", "b64"]) => match_all::<u64>(cx, i),
        ("redux", ["sync", "add", "u32" | "s32"]) => redux(cx, i, u32::wrapping_add),
        ("redux", ["sync", "min", "u32"]) => redux(cx, i, u32::min),
        ("redux", ["sync", "max", "u32"]) => redux(cx, i, u32::max),
        ("redux", ["sync", "min", "s32"]) => redux(cx, i, |a, b| (a as i32).min(b as i32) as u32),
        ("redux", ["sync", "max", "s32"]) => redux(cx, i, |a, b| (a as i32).max(b as i32) as u32),
        ("redux", ["sync", "and", "b32"]) => redux(cx, i, |a, b| a & b),
        ("redux", ["sync", "or", "b32"]) => redux(cx, i, |a, b| a | b),
        ("redux", ["sync", "xor", "b32"]) => redux(cx, i, |a, b| a ^ b),
        ("redux", ["sync", extreme @ ("min" | "max"), options @ .., "f32"]) => {
            let (absolute, propagate) = match options {
                [] => (false, false),
                ["abs"] => (true, false),
                ["NaN"] => (false, true),
                ["abs", "NaN"] => (true, true),
                _ => return Err(cx.unsupported(i)),
            };
            redux_f32(cx, i, *extreme == "max", absolute, propagate)
        }
        ("elect", ["sync"]) => {
            let [d, members] = cx.operands(i)?;
            let members = cx.critical(members)?;
            let (d, p) = destinations(cx, d)?;
            Ok(Decoded::new(Class::Warp, Elect { d, p, members })?.meeting(Meeting::Members(members)))
        }
        _ => Err(cx.unsupported(i)),
    }
}
