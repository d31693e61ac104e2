//! `mov` in all its forms, `cvta`, `isspacep`.

use super::bits::MovePredicate;
use super::compare::untyped;
use super::lanes::{mask, unary};
use super::modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Bank, Lane, Pred, Reg, WARP, each_lane};
use crate::memory::shared::RANK_SHIFT;
use crate::memory::{GLOBAL_START, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::program::{Class, Decoded, Lowering, Special};
use crate::ptx::ast::{Instruction, Operand, Type};

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    match (i.opcode.as_str(), modifiers(i).as_slice()) {
        ("mov", [ty]) => mov(i, cx, ty),
        ("cvta", ["to", space, "u64"]) => match window(space) {
            Some(start) => unary(cx, i, Class::Integer, move |a: u64| a.wrapping_sub(start)),
            None => Err(cx.unsupported(i)),
        },
        ("cvta", [space, "u64"]) => match window(space) {
            Some(start) => unary(cx, i, Class::Integer, move |a: u64| a.wrapping_add(start)),
            None => Err(cx.unsupported(i)),
        },
        // The low halves of a generic address and of the address in its window are the same.
        ("cvta", ["to", space, "u32"]) if window(space).is_some() => unary(cx, i, Class::Integer, |a: u32| a),
        ("cvta", [_, "u32"]) => Err(cx.refused(i, "generic addresses have 64 bits")),
        ("isspacep", [space]) => isspacep(i, cx, space),
        _ => Err(cx.unsupported(i)),
    }
}

/// Where a space begins among the generic addresses.
fn window(space: &str) -> Option<u64> {
    Some(match space {
        "global" | "const" => 0,
        "shared" | "shared::cta" | "shared::cluster" => SHARED_WINDOW,
        "local" => LOCAL_WINDOW,
        "param" | "param::entry" => PARAM_WINDOW,
        _ => return None,
    })
}

fn mov(i: &Instruction, cx: &mut Lowering, ty: &str) -> Result<Decoded> {
    let [d, a] = cx.operands(i)?;
    if ty == "pred" {
        return mov_predicate(cx, d, a);
    }
    if let Operand::Name(name) = a
        && cx.symbol(name).is_err()
        && let Some((widths, counter)) = counter(name)
    {
        return match untyped(ty) {
            "b32" if widths.contains(&32) => Decoded::new(Class::Move, Read { d: cx.dest::<u32>(d)?, counter }),
            "b64" if widths.contains(&64) => Decoded::new(Class::Move, Read { d: cx.dest::<u64>(d)?, counter }),
            _ => Err(cx.unsupported(i)),
        };
    }
    match (d, a, ty) {
        (_, Operand::Vector(parts), "b16" | "b32" | "b64") => match (parts.as_slice(), ty) {
            ([a, b], "b16") => pack::<u16, u16, 2>(cx, d, [a, b]),
            ([a, b], "b32") => pack::<u32, u16, 2>(cx, d, [a, b]),
            ([a, b], "b64") => pack::<u64, u32, 2>(cx, d, [a, b]),
            ([a, b, c, e], "b32") => pack::<u32, u16, 4>(cx, d, [a, b, c, e]),
            ([a, b, c, e], "b64") => pack::<u64, u16, 4>(cx, d, [a, b, c, e]),
            _ => Err(cx.unsupported(i)),
        },
        (Operand::Vector(parts), _, "b16" | "b32" | "b64") => match (parts.as_slice(), ty) {
            ([d, e], "b16") => unpack::<u16, u16, 2>(cx, [d, e], a),
            ([d, e], "b32") => unpack::<u32, u16, 2>(cx, [d, e], a),
            ([d, e], "b64") => unpack::<u64, u32, 2>(cx, [d, e], a),
            ([d, e, f, g], "b32") => unpack::<u32, u16, 4>(cx, [d, e, f, g], a),
            ([d, e, f, g], "b64") => unpack::<u64, u16, 4>(cx, [d, e, f, g], a),
            _ => Err(cx.unsupported(i)),
        },
        (_, _, "b128") => mov_128(i, cx, d, a),
        _ => typed!(cx, i, T = untyped(ty), [b16 b32 b64] => unary(cx, i, Class::Move, |a: T| a)),
    }
}

fn mov_predicate(cx: &mut Lowering, d: &Operand, a: &Operand) -> Result<Decoded> {
    let explicit_cluster = Operand::Name("%is_explicit_cluster".into());
    if *a == explicit_cluster {
        let (a, d) = (cx.special(Special::IsExplicitCluster, "%is_explicit_cluster"), cx.pred_dest(d)?);
        return Decoded::new(Class::Move, NotZero { d, a });
    }
    let (a, d) = (cx.pred(a)?, cx.pred_dest(d)?);
    Decoded::new(Class::Move, MovePredicate { d, a })
}

struct NotZero {
    d: Pred,
    a: Reg<u32>,
}

impl Execute for NotZero {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = *cx.get(self.a);
        cx.set_predicate(self.d, mask(|lane| a[lane] != 0));
        Flow::Next
    }
}

/// A special register's value at this moment.
type Counter = fn(&Cx) -> u64;

/// Special registers that change while a warp runs, or can be read as 64 bits, with the widths that they are read in. Time is the
/// number of warp instructions that this core of the host has executed: a clock that always advances.
fn counter(name: &str) -> Option<(&'static [u32], Counter)> {
    Some(match name {
        "%clock" | "%globaltimer_lo" => (&[32], |cx| cx.worker.executed),
        "%clock_hi" | "%globaltimer_hi" => (&[32], |cx| cx.worker.executed >> 32),
        "%clock64" | "%globaltimer" => (&[64], |cx| cx.worker.executed),
        "%gridid" => (&[32, 64], |_| 0),
        "%current_graph_exec" => (&[64], |_| 0),
        _ if name.strip_prefix("%envreg").is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number < 32)) => {
            (&[32], |_| 0)
        }
        _ => return None,
    })
}

struct Read<D> {
    d: Reg<D>,
    counter: Counter,
}

impl<D: Lane> Execute for Read<D> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let value = D::from_bits((self.counter)(cx) & (!0 >> (64 - 8 * size_of::<D>())));
        cx.set(self.d, &[value; WARP]);
        Flow::Next
    }
}

/// `mov d, {a, b};`: the first part in the lowest bits. Parts of 8 bits lie in 16-bit registers.
struct Pack<W, P, const N: usize> {
    d: Reg<W>,
    parts: [Reg<P>; N],
}

/// Bits of one of `N` parts of `W`, and a mask of them.
const fn part<W, const N: usize>() -> (u32, u64) {
    let bits = 8 * size_of::<W>() as u32 / N as u32;
    (bits, u64::MAX >> (64 - bits))
}

impl<W: Lane, P: Lane, const N: usize> Execute for Pack<W, P, N> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (bits, ones) = part::<W, N>();
        let mut value = [0u64; WARP];
        for (position, register) in self.parts.iter().enumerate() {
            let lanes = cx.get(*register);
            for lane in 0..WARP {
                value[lane] |= (lanes[lane].to_bits() & ones) << (position as u32 * bits);
            }
        }
        cx.set(self.d, &value.map(W::from_bits));
        Flow::Next
    }
}

fn pack<W: Lane, P: Lane, const N: usize>(cx: &mut Lowering, d: &Operand, parts: [&Operand; N]) -> Result<Decoded> {
    let parts = sources(cx, parts)?;
    let d = cx.dest(d)?;
    Decoded::new(Class::Move, Pack::<W, P, N> { d, parts })
}

fn sources<P: Lane, const N: usize>(cx: &mut Lowering, operands: [&Operand; N]) -> Result<[Reg<P>; N]> {
    let mut registers = [Reg::new(0, 0); N];
    for (register, operand) in registers.iter_mut().zip(operands) {
        *register = cx.source(operand)?;
    }
    Ok(registers)
}

/// `mov {d, e}, a;`
struct Unpack<W, P, const N: usize> {
    parts: [Option<Reg<P>>; N],
    a: Reg<W>,
}

impl<W: Lane, P: Lane, const N: usize> Execute for Unpack<W, P, N> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let (bits, ones) = part::<W, N>();
        let a = *cx.get(self.a);
        for (position, register) in self.parts.iter().enumerate() {
            if let Some(register) = *register {
                let part = |lane: usize| P::from_bits(a[lane].to_bits() >> (position as u32 * bits) & ones);
                cx.set(register, &each_lane(part));
            }
        }
        Flow::Next
    }
}

fn unpack<W: Lane, P: Lane, const N: usize>(cx: &mut Lowering, parts: [&Operand; N], a: &Operand) -> Result<Decoded> {
    let a = cx.source(a)?;
    let parts = dests(cx, parts)?;
    Decoded::new(Class::Move, Unpack::<W, P, N> { parts, a })
}

fn dests<P: Lane, const N: usize>(cx: &mut Lowering, operands: [&Operand; N]) -> Result<[Option<Reg<P>>; N]> {
    let mut registers = [None; N];
    for (register, operand) in registers.iter_mut().zip(operands) {
        if *operand != Operand::Sink {
            *register = Some(cx.dest(operand)?);
        }
    }
    Ok(registers)
}

/// The two 64-bit halves of a `.b128` register, lower first.
fn halves(cx: &mut Lowering, operand: &Operand, written: bool) -> Result<[Reg<u64>; 2]> {
    let (ty, _, index, id) = cx.any_register(operand)?;
    if ty != Type::B128 {
        return Err(cx.invalid(format!("register `{operand}` has the wrong width for this operand")));
    }
    for id in [id, id + 1] {
        if written { cx.note_write(id) } else { cx.note_read(id) }
    }
    Ok([Reg::new(index, id), Reg::new(index + 1, id + 1)])
}

/// Two operations, one after the other: a `.b128` is two registers.
struct Both<A, B>(A, B);

impl<A: Execute, B: Execute> Execute for Both<A, B> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        self.0.execute(cx);
        self.1.execute(cx)
    }
}

fn mov_128(i: &Instruction, cx: &mut Lowering, d: &Operand, a: &Operand) -> Result<Decoded> {
    match (d, a) {
        (_, Operand::Vector(parts)) => match parts.as_slice() {
            [a, b] => {
                let ([a, b], [d, e]) = (sources(cx, [a, b])?, halves(cx, d, true)?);
                Decoded::new(Class::Move, Both(Pack::<u64, u64, 1> { d, parts: [a] }, Pack::<u64, u64, 1> { d: e, parts: [b] }))
            }
            [a, b, c, e] => {
                let ([a, b, c, e], [low, high]) = (sources(cx, [a, b, c, e])?, halves(cx, d, true)?);
                let low = Pack::<u64, u32, 2> { d: low, parts: [a, b] };
                Decoded::new(Class::Move, Both(low, Pack::<u64, u32, 2> { d: high, parts: [c, e] }))
            }
            _ => Err(cx.unsupported(i)),
        },
        (Operand::Vector(parts), _) => match parts.as_slice() {
            [d, e] => {
                let ([a, b], [d, e]) = (halves(cx, a, false)?, dests(cx, [d, e])?);
                Decoded::new(Class::Move, Both(Unpack::<u64, u64, 1> { parts: [d], a }, Unpack::<u64, u64, 1> { parts: [e], a: b }))
            }
            [d, e, f, g] => {
                let ([a, b], [d, e, f, g]) = (halves(cx, a, false)?, dests(cx, [d, e, f, g])?);
                let low = Unpack::<u64, u32, 2> { parts: [d, e], a };
                Decoded::new(Class::Move, Both(low, Unpack::<u64, u32, 2> { parts: [f, g], a: b }))
            }
            _ => Err(cx.unsupported(i)),
        },
        _ => {
            let ([a, b], [d, e]) = (halves(cx, a, false)?, halves(cx, d, true)?);
            Decoded::new(Class::Move, Both(Pack::<u64, u64, 1> { d, parts: [a] }, Pack::<u64, u64, 1> { d: e, parts: [b] }))
        }
    }
}

/// `isspacep.space p, a;`
struct IsSpace {
    p: Pred,
    a: Reg<u64>,
    holds: fn(&Cx, u64) -> bool,
}

impl Execute for IsSpace {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = *cx.get(self.a);
        let truth = mask(|lane| (self.holds)(cx, a[lane]));
        cx.set_predicate(self.p, truth);
        Flow::Next
    }
}

fn within(address: u64, window: u64) -> bool {
    address.wrapping_sub(window) < WINDOW_BYTES
}

fn is_const(cx: &Cx, address: u64) -> bool {
    let variables = cx.launch.program.variables.iter().zip(cx.launch.variables);
    variables.filter(|(variable, _)| variable.constant).any(|(variable, start)| address.wrapping_sub(*start) < variable.bytes)
}

fn isspacep(i: &Instruction, cx: &mut Lowering, space: &str) -> Result<Decoded> {
    let holds: fn(&Cx, u64) -> bool = match space {
        "const" => is_const,
        "global" => |cx, address| address >= GLOBAL_START && !is_const(cx, address),
        "local" => |_, address| within(address, LOCAL_WINDOW),
        "param" | "param::entry" => |_, address| within(address, PARAM_WINDOW),
        "shared::cluster" => |_, address| within(address, SHARED_WINDOW),
        "shared" | "shared::cta" => |cx, address| {
            let rank = (address.wrapping_sub(SHARED_WINDOW) >> RANK_SHIFT) as usize;
            within(address, SHARED_WINDOW) && (rank == 0 || rank == cx.rank + 1)
        },
        _ => return Err(cx.unsupported(i)),
    };
    let [p, a] = cx.operands(i)?;
    if let Ok((_, Bank::B32, ..)) = cx.any_register(a) {
        return Err(cx.refused(i, "generic addresses have 64 bits"));
    }
    let (a, p) = (cx.source(a)?, cx.pred_dest(p)?);
    Decoded::new(Class::Move, IsSpace { p, a, holds })
}
