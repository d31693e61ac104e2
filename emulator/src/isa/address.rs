//! Address operands: `[register+offset]`, `[variable+offset]`, `[number]`.

use crate::Result;
use crate::machine::execute::Cx;
use crate::machine::registers::{Bank, Lanes, Reg, WARP, each_lane};
use crate::program::{Address, Lowering, Symbol};
use crate::ptx::ast::{Operand, Space};

/// Where an access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Decided by each lane's address.
    Generic,
    Global,
    Shared,
    Local,
    /// A kernel's packed arguments.
    Argument,
}

/// `[register + offset]`
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressOperand {
    base: Base,
    offset: i64,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    Wide(Reg<u64>),
    Narrow(Reg<u32>),
    None,
}

impl AddressOperand {
    /// Takes an address operand apart. A variable named in it can say more about the space than the instruction does: inside
    /// device functions parameters lie in local memory.
    pub(crate) fn new(cx: &mut Lowering, operand: &Operand, target: Target) -> Result<(Self, Target)> {
        let Operand::Address { base, offset } = operand else {
            return Err(cx.invalid(format!("`{operand}` is not an address")));
        };
        let Some(name) = base else { return Ok((Self { base: Base::None, offset: *offset }, target)) };
        let at = |fixed: u32| offset.wrapping_add(i64::from(fixed));
        match cx.symbol(name)?.clone() {
            Symbol::Register { bank: Bank::B64, index, id, .. } => {
                cx.note_critical(id);
                Ok((Self { base: Base::Wide(Reg::new(index, id)), offset: *offset }, target))
            }
            Symbol::Register { bank: Bank::B32, index, id, .. } => {
                cx.note_critical(id);
                Ok((Self { base: Base::Narrow(Reg::new(index, id)), offset: *offset }, target))
            }
            Symbol::Memory { space: Space::Shared, offset: fixed } => {
                Ok((Self { base: Base::None, offset: at(fixed) }, Target::Shared))
            }
            Symbol::Memory { offset: fixed, .. } => {
                let base = cx.address_register(Address::Local { offset: at(fixed) });
                Ok((Self { base: Base::Wide(base), offset: 0 }, Target::Local))
            }
            Symbol::Argument { offset: fixed } => Ok((Self { base: Base::None, offset: at(fixed) }, Target::Argument)),
            Symbol::Variable { index, .. } => {
                let base = cx.address_register(Address::Variable { index, offset: *offset });
                Ok((Self { base: Base::Wide(base), offset: 0 }, Target::Global))
            }
            _ => Err(cx.invalid(format!("`{name}` is not an address"))),
        }
    }

    /// The address, if it is the same always.
    pub(crate) fn fixed(&self) -> Option<u64> {
        matches!(self.base, Base::None).then_some(self.offset as u64)
    }

    /// Each lane's address.
    #[inline(always)]
    pub(crate) fn addresses(&self, cx: &Cx) -> Lanes<u64> {
        let offset = self.offset as u64;
        match self.base {
            Base::Wide(register) => {
                let base = cx.get(register);
                each_lane(|lane| base[lane].wrapping_add(offset))
            }
            Base::Narrow(register) => {
                let base = cx.get(register);
                each_lane(|lane| u64::from(base[lane].wrapping_add(offset as u32)))
            }
            Base::None => [offset; WARP],
        }
    }
}
