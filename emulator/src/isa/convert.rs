//! `cvt` and `cvt.pack`.
//!
//! The operands of `cvt` may be wider registers than its types: the low bits are converted, and the result is extended. What
//! kernels use all the time, between registers of the types' own widths, is decoded to code of its own; the rest goes bit pattern
//! by bit pattern through the general conversions.

use super::lanes::{binary, ternary, unary};
use super::modifiers::Modifiers;
use crate::Result;
use crate::machine::execute::{Cx, Execute, Flow};
use crate::machine::registers::{Bank, Lanes, Reg, each_lane};
use crate::numeric::convert::{self, IntegerFormat};
use crate::numeric::exact::{Format, Rounding};
use crate::numeric::float::{Float, sat};
use crate::numeric::fp8;
use crate::numeric::half_precision::{BF16, F16, Half};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand, Type};

const CLASS: Class = Class::Convert;

/// What the bits of a type mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Integer(IntegerFormat),
    Float(Format),
}

use Meaning::{Float as F, Integer as I};

/// A type that `cvt` converts one by one: its meaning and bytes.
fn meaning(name: &str) -> Option<(Meaning, u32)> {
    let meaning = match name {
        "u8" => I(IntegerFormat::unsigned(8)),
        "s8" => I(IntegerFormat::signed(8)),
        "u16" => I(IntegerFormat::unsigned(16)),
        "s16" => I(IntegerFormat::signed(16)),
        "u32" => I(IntegerFormat::unsigned(32)),
        "s32" => I(IntegerFormat::signed(32)),
        "u64" => I(IntegerFormat::unsigned(64)),
        "s64" => I(IntegerFormat::signed(64)),
        "f16" => F(Format::F16),
        "bf16" => F(Format::BF16),
        "f32" => F(Format::F32),
        "f64" => F(Format::F64),
        _ => return None,
    };
    Some((meaning, Type::from_name(name)?.bytes()))
}

/// `.rnd`, in the two forms that a conversion can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    None,
    /// `.rn`, `.rz`, `.rm`, `.rp`: to a representable float.
    Float(Rounding),
    /// `.rni`, `.rzi`, `.rmi`, `.rpi`: to an integral value.
    Integral(Rounding),
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let mut modifiers = Modifiers::new(i);
    if modifiers.accept("pack") {
        return pack(i, cx, modifiers);
    }
    let integral = modifiers.integer_rounding().map(Round::Integral);
    let away = if modifiers.accept("rna") { Some(Round::Float(Rounding::NearestAway)) } else { None };
    let round = integral.or(away).or_else(|| modifiers.rounding().map(Round::Float)).unwrap_or(Round::None);
    let mut set = convert::Modifiers::default();
    // The ISA's own listings have `.relu` before `.satfinite` and after it.
    for _ in 0..2 {
        set.relu |= modifiers.accept("relu");
        set.satfinite |= modifiers.accept("satfinite");
    }
    set.ftz = modifiers.accept("ftz");
    set.sat = modifiers.accept("sat");
    let (to, from) = (modifiers.next(), modifiers.last());
    if let Some(decoded) = packed(i, cx, round, set, to, from) {
        return decoded;
    }
    let (Some((target, target_bytes)), Some((source, source_bytes))) = (meaning(to), meaning(from)) else {
        return Err(cx.unsupported(i));
    };
    if !permitted(target, source, round, set) {
        return Err(cx.unsupported(i));
    }
    let [d, a] = cx.operands(i)?;
    let own_width = |operand: &Operand, bytes: u32, cx: &Lowering| match cx.any_register(operand) {
        Ok((ty, bank, ..)) => ty != Type::Pred && bank == bank_of(bytes),
        Err(_) => true,
    };
    if own_width(a, source_bytes, cx)
        && own_width(d, target_bytes, cx)
        && let Some(decoded) = common(i, cx, round, set, to, from)
    {
        return decoded;
    }
    let a = any_source(cx, a, source_bytes)?;
    let d = any_dest(cx, d, target_bytes)?;
    match (target, source) {
        (I(to), I(from)) if !set.sat => Decoded::new(CLASS, Resize { d, a, to, from }),
        _ => Decoded::new(CLASS, Convert { d, a, f: general(target, source, round, set) }),
    }
}

/// Whether the ISA has the conversion with these modifiers.
fn permitted(to: Meaning, from: Meaning, round: Round, set: convert::Modifiers) -> bool {
    let f32_involved = to == F(Format::F32) || from == F(Format::F32);
    let narrowing = |to: Format, from: Format| to.mantissa_bits < from.mantissa_bits || to.exponent_bits < from.exponent_bits;
    let to_half = matches!(to, F(Format::F16 | Format::BF16)) && from == F(Format::F32);
    let rounding = match (to, from, round) {
        (I(_), I(_), Round::None) => true,
        (I(_), F(_), Round::Integral(_)) => true,
        (F(_), I(_), Round::Float(rounding)) => rounding != Rounding::NearestAway,
        // Exact, but the ISA lets it be written.
        (F(Format::F32), F(Format::BF16), Round::Float(rounding)) => rounding != Rounding::NearestAway,
        (F(to), F(from), Round::Float(rounding)) => narrowing(to, from) && rounding != Rounding::NearestAway,
        (F(to), F(from), Round::Integral(_)) => to == from,
        (F(to), F(from), Round::None) => !narrowing(to, from),
        _ => false,
    };
    rounding
        && (!set.ftz || f32_involved)
        && (!set.sat || to != F(Format::BF16))
        && (!(set.relu || set.satfinite) || to_half && !set.sat)
}

/// The bank of registers of so many bytes.
fn bank_of(bytes: u32) -> Bank {
    match bytes {
        8 => Bank::B64,
        4 => Bank::B32,
        _ => Bank::B16,
    }
}

/// The conversions that kernels are full of, on registers of the types' own widths.
#[allow(clippy::unnecessary_cast)] // of the pairs of types some are equal
fn common(
    i: &Instruction,
    cx: &mut Lowering,
    round: Round,
    set: convert::Modifiers,
    to: &str,
    from: &str,
) -> Option<Result<Decoded>> {
    const RN: Round = Round::Float(Rounding::Nearest);
    let convert::Modifiers { ftz, sat: saturated, relu, satfinite } = set;
    if relu || satfinite {
        return None;
    }
    let flush = move |a: f32| if ftz { a.ftz() } else { a };
    macro_rules! integers_to_float {
        ($function:ident) => {
            typed!(T = from, [u16 s16 u32 s32 u64 s64] => unary(cx, i, CLASS, convert::$function::<T>), return None)
        };
    }
    Some(match (to, from, round) {
        ("f32", "f32", Round::None) if saturated => unary(cx, i, CLASS, move |a: f32| sat(flush(a))),
        _ if saturated => return None,
        ("f32", "f16", _) if !ftz => unary(cx, i, CLASS, convert::cvt_f32_f16),
        ("f32", "bf16", Round::None) if !ftz => unary(cx, i, CLASS, BF16::widen),
        ("f16", "f32", RN) if !ftz => unary(cx, i, CLASS, F16::narrow),
        ("bf16", "f32", RN) if !ftz => unary(cx, i, CLASS, BF16::narrow),
        ("f64", "f32", _) => unary(cx, i, CLASS, move |a: f32| convert::cvt_f64_f32(flush(a))),
        ("f32", "f64", RN) => unary(cx, i, CLASS, move |a: f64| flush(convert::cvt_rn_f32_f64(a))),
        ("f32", "f32", Round::Integral(Rounding::Nearest)) => {
            unary(cx, i, CLASS, move |a: f32| convert::cvt_integral_f32(Rounding::Nearest, flush(a)))
        }
        ("f32", "f32", Round::Integral(rounding)) => {
            unary(cx, i, CLASS, move |a: f32| convert::cvt_integral_f32(rounding, flush(a)))
        }
        ("f32", _, RN) if from.starts_with(['u', 's']) => integers_to_float!(cvt_rn_f32),
        ("f64", _, RN) if from.starts_with(['u', 's']) => integers_to_float!(cvt_rn_f64),
        (_, "f32", Round::Integral(Rounding::Zero)) => typed!(T = to, [u16 s16 u32 s32 u64 s64] => {
            unary(cx, i, CLASS, move |a: f32| convert::cvt_integer_f32::<T>(Rounding::Zero, flush(a)))
        }, return None),
        (_, "f32", Round::Integral(rounding)) => typed!(T = to, [u16 s16 u32 s32 u64 s64] => {
            unary(cx, i, CLASS, move |a: f32| convert::cvt_integer_f32::<T>(rounding, flush(a)))
        }, return None),
        (_, _, Round::None) => typed!(T = from, [u16 s16 u32 s32 u64 s64] => match to {
            "u16" | "s16" => unary(cx, i, CLASS, |a: T| a as u16),
            "u32" | "s32" => unary(cx, i, CLASS, |a: T| a as u32),
            "u64" | "s64" => unary(cx, i, CLASS, |a: T| a as u64),
            _ => return None,
        }, return None),
        _ => return None,
    })
}

/// The conversions with more than one value in a register, and those to `.tf32`.
fn packed(
    i: &Instruction,
    cx: &mut Lowering,
    round: Round,
    set: convert::Modifiers,
    to: &str,
    from: &str,
) -> Option<Result<Decoded>> {
    const NONE: convert::Modifiers = convert::Modifiers { ftz: false, sat: false, relu: false, satfinite: false };
    const RN: Round = Round::Float(Rounding::Nearest);
    const RZ: Round = Round::Float(Rounding::Zero);
    if set.ftz || set.sat {
        return None;
    }
    let (relu, satfinite) = (set.relu, set.satfinite);
    let plain = set == NONE;
    let small = |name: &str| {
        Some(match name {
            "e4m3x2" => Format::E4M3,
            "e5m2x2" => Format::E5M2,
            "e2m1x2" => Format::E2M1,
            "e2m3x2" => Format::E2M3,
            "e3m2x2" => Format::E3M2,
            _ => return None,
        })
    };
    Some(match (to, from, round) {
        ("tf32", "f32", Round::Float(Rounding::NearestAway)) if plain => unary(cx, i, CLASS, convert::cvt_rna_tf32_f32),
        ("tf32", "f32", Round::Float(Rounding::NearestAway)) if relu => return None,
        ("tf32", "f32", Round::Float(rounding @ (Rounding::NearestAway | Rounding::Nearest | Rounding::Zero))) => {
            unary(cx, i, CLASS, move |a: f32| convert::cvt_tf32_f32(rounding, set, a))
        }
        ("f16x2", "f32", RN) if plain => binary(cx, i, CLASS, |a, b| convert::cvt_x2_f32(F16::narrow, a, b)),
        ("bf16x2", "f32", RN) if plain => binary(cx, i, CLASS, |a, b| convert::cvt_x2_f32(BF16::narrow, a, b)),
        ("f16x2" | "bf16x2", "f32", Round::Float(rounding @ (Rounding::Nearest | Rounding::Zero))) => {
            let format = if to == "f16x2" { Format::F16 } else { Format::BF16 };
            let narrow = move |a: f32| convert::cvt_float(format, Format::F32, rounding, set, a.bits()) as u16;
            binary(cx, i, CLASS, move |a, b| convert::cvt_x2_f32(narrow, a, b))
        }
        (_, "f32", RN) if satfinite && small(to).is_some() => {
            let format = small(to)?;
            binary(cx, i, CLASS, move |a, b| fp8::cvt_x2_f32(format, relu, a, b))
        }
        ("e4m3x2" | "e5m2x2", "f16x2", RN) if satfinite => {
            let format = small(to)?;
            unary(cx, i, CLASS, move |a| fp8::cvt_x2_f16x2(format, relu, a))
        }
        ("f16x2", _, RN) if !satfinite && small(from).is_some() => {
            let format = small(from)?;
            unary(cx, i, CLASS, move |a| fp8::cvt_f16x2_x2(format, relu, a))
        }
        ("ue8m0x2", "f32", RZ | Round::Float(Rounding::Up)) if !relu => {
            binary(cx, i, CLASS, move |a, b| fp8::cvt_ue8m0x2_f32(round != RZ, satfinite, a, b))
        }
        ("ue8m0x2", "bf16x2", RZ | Round::Float(Rounding::Up)) if !relu => {
            unary(cx, i, CLASS, move |a| fp8::cvt_ue8m0x2_bf16x2(round != RZ, satfinite, a))
        }
        ("bf16x2", "ue8m0x2", RN) if plain => unary(cx, i, CLASS, fp8::cvt_bf16x2_ue8m0x2),
        _ => return None,
    })
}

/// `cvt.pack.sat.u16.s32 d, a, b;` and `cvt.pack.sat.u8.s32.b32 d, a, b, c;`
fn pack(i: &Instruction, cx: &mut Lowering, mut modifiers: Modifiers) -> Result<Decoded> {
    if !modifiers.accept("sat") {
        return Err(cx.unsupported(i));
    }
    let alone = [("u16", IntegerFormat::unsigned(16)), ("s16", IntegerFormat::signed(16))];
    let above = [
        ("u8", IntegerFormat::unsigned(8)),
        ("s8", IntegerFormat::signed(8)),
        ("u4", IntegerFormat::unsigned(4)),
        ("s4", IntegerFormat::signed(4)),
        ("u2", IntegerFormat::unsigned(2)),
        ("s2", IntegerFormat::signed(2)),
    ];
    if let Some(to) = modifiers.find(&alone) {
        if modifiers.last() == "s32" {
            return binary(cx, i, CLASS, move |a, b| convert::cvt_pack(to, a, b, 0));
        }
    } else if let Some(to) = modifiers.find(&above)
        && modifiers.accept("s32")
        && modifiers.last() == "b32"
    {
        return ternary(cx, i, CLASS, move |a, b, c| convert::cvt_pack(to, a, b, c));
    }
    Err(cx.unsupported(i))
}

/// Bits to bits.
type Function = Box<dyn Fn(u64) -> u64 + Send + Sync>;

/// Any permitted conversion.
fn general(to: Meaning, from: Meaning, round: Round, set: convert::Modifiers) -> Function {
    let (Round::Float(rounding) | Round::Integral(rounding)) = round else {
        return match (to, from) {
            (I(to), I(from)) => Box::new(move |bits| convert::cvt_integer(to, from, set.sat, bits)),
            (F(to), F(from)) => Box::new(move |bits| convert::cvt_float(to, from, Rounding::Nearest, set, bits)),
            // Conversions between integers and floats always round.
            (I(_), F(_)) | (F(_), I(_)) => Box::new(|bits| bits),
        };
    };
    match (to, from) {
        (I(to), I(from)) => Box::new(move |bits| convert::cvt_integer(to, from, set.sat, bits)),
        (I(to), F(from)) => Box::new(move |bits| convert::cvt_integer_float(to, from, rounding, set.ftz, bits)),
        (F(to), I(from)) => Box::new(move |bits| convert::cvt_float_integer(to, from, rounding, set, bits)),
        (F(to), F(from)) if to == from => Box::new(move |bits| convert::cvt_integral(to, rounding, set, bits)),
        (F(to), F(from)) => Box::new(move |bits| convert::cvt_float(to, from, rounding, set, bits)),
    }
}

/// Lanes of a narrower register.
#[inline(always)]
fn wide<T: Copy + Into<u64>>(lanes: &Lanes<T>) -> Lanes<u64> {
    each_lane(|lane| lanes[lane].into())
}

/// A register of any width.
#[derive(Debug, Clone, Copy)]
struct Any {
    bank: Bank,
    index: u32,
    id: u32,
}

impl Any {
    #[inline(always)]
    fn read(self, cx: &Cx) -> Lanes<u64> {
        match self.bank {
            Bank::B16 => wide(cx.get(Reg::<u16>::new(self.index, self.id))),
            Bank::B32 => wide(cx.get(Reg::<u32>::new(self.index, self.id))),
            _ => *cx.get(Reg::<u64>::new(self.index, self.id)),
        }
    }

    #[inline(always)]
    fn write(self, cx: &mut Cx, value: &Lanes<u64>) {
        match self.bank {
            Bank::B16 => cx.set(Reg::<u16>::new(self.index, self.id), &each_lane(|lane| value[lane] as u16)),
            Bank::B32 => cx.set(Reg::<u32>::new(self.index, self.id), &each_lane(|lane| value[lane] as u32)),
            _ => cx.set(Reg::<u64>::new(self.index, self.id), value),
        }
    }
}

/// Refuses a register that cannot hold `bytes` bytes.
fn wide_enough(cx: &Lowering, operand: &Operand, ty: Type, bytes: u32) -> Result<()> {
    if ty == Type::Pred || ty == Type::B128 || ty.bytes() < bytes {
        return Err(cx.invalid(format!("register `{operand}` has the wrong width for this operand")));
    }
    Ok(())
}

fn any_source(cx: &mut Lowering, operand: &Operand, bytes: u32) -> Result<Any> {
    if let Ok((ty, bank, index, id)) = cx.any_register(operand) {
        wide_enough(cx, operand, ty, bytes)?;
        cx.note_read(id);
        return Ok(Any { bank, index, id });
    }
    let bank = bank_of(bytes);
    let (index, id) = match bank {
        Bank::B64 => cx.source::<u64>(operand).map(|register| (register.index, register.id)),
        Bank::B32 => cx.source::<u32>(operand).map(|register| (register.index, register.id)),
        _ => cx.source::<u16>(operand).map(|register| (register.index, register.id)),
    }?;
    Ok(Any { bank, index, id })
}

fn any_dest(cx: &mut Lowering, operand: &Operand, bytes: u32) -> Result<Any> {
    let (ty, ..) = cx.any_register(operand)?;
    wide_enough(cx, operand, ty, bytes)?;
    let (bank, index, id) = cx.any_dest(operand)?;
    Ok(Any { bank, index, id })
}

/// A conversion of whatever kind.
struct Convert {
    d: Any,
    a: Any,
    f: Function,
}

impl Execute for Convert {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let mut value = self.a.read(cx);
        for lane in crate::machine::execute::lanes_of(cx.active) {
            value[lane] = (self.f)(value[lane]);
        }
        self.d.write(cx, &value);
        Flow::Next
    }
}

/// A conversion between integers: cut to the narrower type, then extended.
struct Resize {
    d: Any,
    a: Any,
    to: IntegerFormat,
    from: IntegerFormat,
}

impl Execute for Resize {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let a = self.a.read(cx);
        let value = each_lane(|lane| convert::cvt_integer(self.to, self.from, false, a[lane]));
        self.d.write(cx, &value);
        Flow::Next
    }
}
