//! `ld` and `st`.

use super::address::{AddressOperand, Target, Words};
use super::modifiers;
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Bank, Mask, Reg, WARP};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand, Type};

/// One register that a load fills or a store empties: a part of the bytes that a lane moves.
#[derive(Debug, Clone, Copy)]
struct Element {
    bank: Bank,
    index: u32,
    id: u32,
    /// First byte.
    at: u32,
}

struct Load<const W: usize> {
    target: Target,
    address: AddressOperand,
    elements: Box<[Element]>,
    /// Bytes of one element.
    size: u32,
    signed: bool,
    /// Bytes of all.
    bytes: u32,
}

struct Store<const W: usize> {
    target: Target,
    address: AddressOperand,
    elements: Box<[Element]>,
    size: u32,
    bytes: u32,
}

impl<const W: usize> Execute for Load<W> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let addresses = self.address.addresses(cx);
        let data: Words<W> = cx.load(self.target, &addresses, self.bytes);
        for element in &self.elements {
            let word = (element.at / 4) as usize;
            let shift = element.at % 4 * 8;
            let value = |lane: usize| -> u64 {
                let low = u64::from(data.words[word][lane] >> shift);
                let bits = if self.size == 8 { low | u64::from(data.words[(word + 1).min(W - 1)][lane]) << 32 } else { low };
                let unused = 64 - self.size * 8;
                if self.signed { ((bits << unused) as i64 >> unused) as u64 } else { bits << unused >> unused }
            };
            match element.bank {
                Bank::B16 => write(cx, Reg::<u16>::new(element.index, element.id), |lane| value(lane) as u16),
                Bank::B32 => write(cx, Reg::<u32>::new(element.index, element.id), |lane| value(lane) as u32),
                _ => write(cx, Reg::<u64>::new(element.index, element.id), value),
            }
            let bytes = crate::memory::bits::ones(self.size) << element.at;
            let undefined = (0..WARP).fold(0, |mask: Mask, lane| mask | u32::from(data.undefined[lane] & bytes != 0) << lane);
            cx.set_undefined(element.id, undefined);
        }
        Flow::Next
    }
}

#[inline(always)]
fn write<T: crate::machine::registers::Lane>(cx: &mut Cx, register: Reg<T>, value: impl Fn(usize) -> T) {
    let lanes = std::array::from_fn(value);
    cx.set(register, &lanes);
}

impl<const W: usize> Execute for Store<W> {
    #[inline(always)]
    fn execute(&self, cx: &mut Cx) -> Flow {
        let addresses = self.address.addresses(cx);
        let mut data = Words::<W>::zero();
        for element in &self.elements {
            let word = (element.at / 4) as usize;
            let shift = element.at % 4 * 8;
            let mask = if self.size >= 4 { !0 } else { crate::memory::bits::ones(self.size * 8) };
            for lane in 0..WARP {
                let bits = match element.bank {
                    Bank::B16 => u64::from(cx.get(Reg::<u16>::new(element.index, element.id))[lane]),
                    Bank::B32 => u64::from(cx.get(Reg::<u32>::new(element.index, element.id))[lane]),
                    _ => cx.get(Reg::<u64>::new(element.index, element.id))[lane],
                };
                data.words[word][lane] |= (bits as u32 & mask) << shift;
                if self.size == 8 {
                    data.words[(word + 1).min(W - 1)][lane] = (bits >> 32) as u32;
                }
            }
            let undefined = if cx.checked() { cx.undefined(element.id) & cx.active } else { 0 };
            for lane in lanes_of(undefined) {
                data.undefined[lane] |= crate::memory::bits::ones(self.size) << element.at;
                if matches!(self.target, Target::Global | Target::Generic) {
                    cx.report(Kind::Uninitialized, lane, || {
                        "a value that was never computed from anything written is stored".into()
                    });
                }
            }
        }
        cx.store(self.target, &addresses, self.bytes, &data);
        Flow::Next
    }
}

pub(super) fn decode(i: &Instruction, cx: &mut Lowering) -> Result<Decoded> {
    let (mut target, mut class, mut lanes, mut ty) = (Target::Generic, Class::Global, 1, None);
    for modifier in modifiers(i) {
        match modifier {
            "global" | "const" => target = Target::Global,
            "shared" | "shared::cta" | "shared::cluster" => (target, class) = (Target::Shared, Class::Shared),
            "local" => (target, class) = (Target::Local, Class::Local),
            "param" | "param::entry" | "param::func" => (target, class) = (Target::Argument, Class::Constant),
            "v2" => lanes = 2,
            "v4" => lanes = 4,
            "v8" => lanes = 8,
            "nc" | "volatile" | "weak" | "relaxed" | "cta" | "cluster" | "gpu" | "sys" | "ca" | "cg" | "cs" | "lu" | "cv"
            | "wb" | "wt" => {}
            other => ty = Some(Type::from_name(other).ok_or_else(|| cx.unsupported(i))?),
        }
    }
    let ty = ty.ok_or_else(|| cx.unsupported(i))?;
    let [first, second] = cx.operands(i)?;
    let loading = i.opcode != "st";
    let (register, address) = if loading { (first, second) } else { (second, first) };
    let (address, target) = AddressOperand::new(cx, address, target)?;
    let registers: &[Operand] = cx.components(register);
    if registers.len() != lanes {
        return Err(cx.unsupported(i));
    }
    let size = ty.bytes();
    let mut elements = Vec::new();
    for (number, operand) in registers.iter().enumerate() {
        let at = number as u32 * size;
        if loading {
            if *operand == Operand::Sink {
                continue;
            }
            let (bank, index, id) = cx.any_dest(operand)?;
            elements.push(Element { bank, index, id, at });
        } else {
            let bank = match size {
                8 => Bank::B64,
                4 => Bank::B32,
                _ => Bank::B16,
            };
            let element = match operand {
                Operand::Name(_) if cx.any_register(operand).is_ok() => {
                    let (_, bank, index, id) = cx.any_register(operand)?;
                    cx.note_read(id);
                    Element { bank, index, id, at }
                }
                Operand::Integer(bits) => {
                    let (index, id) = cx.constant(bank, *bits);
                    Element { bank, index, id, at }
                }
                _ if size == 8 => {
                    let register = cx.source::<u64>(operand)?;
                    Element { bank, index: register.index, id: register.id, at }
                }
                _ => {
                    let register = cx.source::<u32>(operand)?;
                    Element { bank: Bank::B32, index: register.index, id: register.id, at }
                }
            };
            elements.push(element);
        }
    }
    let (elements, bytes) = (elements.into_boxed_slice(), size * lanes as u32);
    let signed = matches!(ty, Type::S8 | Type::S16 | Type::S32 | Type::S64);
    macro_rules! sized {
        ($words:literal) => {
            if loading {
                Decoded::new(class, Load::<$words> { target, address, elements, size, signed, bytes })
            } else {
                Decoded::new(class, Store::<$words> { target, address, elements, size, bytes })
            }
        };
    }
    let decoded = match bytes {
        1..=4 => sized!(1),
        8 => sized!(2),
        16 => sized!(4),
        32 => sized!(8),
        _ => return Err(cx.unsupported(i)),
    }?;
    Ok(decoded.with_own_taint())
}
