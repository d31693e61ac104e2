//! What the decoders of instructions ask: operands as registers, labels, errors. What they read and write is noted on the way.

use super::lower::function_address;
use super::lowering::Lowering;
use super::scope::Symbol;
use super::{Address, Constant, Frame, Special};
use crate::machine::registers::{Bank, Lane, Pred, Reg};
use crate::ptx::ast::{self, Operand, Space, Type};
use crate::{Error, Result};

impl<'m> Lowering<'m> {
    /// What the module says of a function of the program that this kernel reaches.
    pub(crate) fn declaration(&self, function: u32) -> &'m ast::Function {
        self.functions[(function - self.first_function) as usize]
    }

    /// The addresses of all functions that this kernel can call, with their numbers in the program.
    pub(crate) fn callable(&self) -> Vec<(u64, u32)> {
        let functions = self.functions.iter().zip(self.first_function..);
        let callable = functions.filter(|(function, _)| !function.is_kernel && function.body.is_some());
        callable.filter_map(|(function, index)| Some((function_address(self.module, &function.name)?, index))).collect()
    }

    /// Offset and bytes of a variable in parameter memory that a call passes or receives; `None`: a sink.
    pub(crate) fn passed(&self, operand: &Operand) -> Result<Option<(u32, u32)>> {
        match operand {
            Operand::Sink => Ok(None),
            Operand::Name(name) => match self.symbol(name)? {
                Symbol::Memory { space: Space::Param, offset } => {
                    Ok(Some((*offset, self.param_bytes.get(offset).copied().unwrap_or(0))))
                }
                _ => Err(self.invalid(format!("`{name}` is no `.param` variable: nothing else can be passed"))),
            },
            _ => Err(self.invalid(format!("`{operand}` is no `.param` variable: nothing else can be passed"))),
        }
    }

    /// The frame as it is so far, for a function without a body.
    pub(crate) fn take_frame(&mut self) -> Frame {
        std::mem::take(&mut self.frame)
    }

    /// Bytes of local memory that the function being lowered has.
    pub(crate) fn local_bytes(&self) -> u32 {
        self.frame.local_bytes
    }

    /// Whether the function being lowered is the kernel itself.
    pub(crate) fn is_kernel(&self) -> bool {
        self.is_kernel
    }

    /// What a name stands for here.
    pub(crate) fn symbol(&self, name: &str) -> Result<&Symbol> {
        self.scopes.find(self.scope, name).ok_or_else(|| self.invalid(format!("`{name}` is not declared")))
    }

    /// A source of type `T`: a register, an immediate, a special register, or the address of a variable in its own space.
    pub(crate) fn source<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>> {
        let (index, id) = match operand {
            Operand::Integer(bits) => self.constant(T::BANK, *bits),
            Operand::Float32(bits) if T::BANK == Bank::B32 => self.constant(T::BANK, u64::from(*bits)),
            Operand::Float64(bits) if T::BANK == Bank::B64 => self.constant(T::BANK, *bits),
            Operand::Float64(bits) if T::BANK == Bank::B32 => {
                self.constant(T::BANK, u64::from((f64::from_bits(*bits) as f32).to_bits()))
            }
            Operand::Name(name) => self.named(name, 0, T::BANK)?,
            Operand::Offset { name, offset } => self.named(name, *offset, T::BANK)?,
            _ => return Err(self.invalid(format!("`{operand}` cannot be a source here"))),
        };
        self.reads.push(id);
        Ok(Reg::new(index, id))
    }

    /// A source that decides an address, a mask or a way: an undefined value in it is a finding.
    pub(crate) fn critical<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>> {
        let register = self.source(operand)?;
        self.critical.push(register.id);
        Ok(register)
    }

    pub(super) fn named(&mut self, name: &str, offset: i64, bank: Bank) -> Result<(u32, u32)> {
        if name == "WARP_SZ" {
            return Ok(self.constant(bank, 32));
        }
        let symbol = match self.scopes.find(self.scope, name) {
            Some(symbol) => symbol.clone(),
            None => {
                let Some(special) = special(name) else { return Err(self.invalid(format!("`{name}` is not declared"))) };
                if bank != Bank::B32 {
                    return Err(self.invalid(format!("`{name}` is 32 bits wide here")));
                }
                let register = self.special(special, name);
                return Ok((register.index, register.id));
            }
        };
        match symbol {
            Symbol::Register { bank: has, index, id, .. } if offset == 0 => {
                if has != bank {
                    return Err(self.invalid(format!("register `{name}` has the wrong width for this operand")));
                }
                Ok((index, id))
            }
            Symbol::Memory { space: Space::Shared, offset: at } => {
                Ok(self.constant(bank, u64::from(at).wrapping_add_signed(offset)))
            }
            Symbol::Argument { offset: at } => Ok(self.constant(bank, u64::from(at).wrapping_add_signed(offset))),
            Symbol::Memory { offset: at, .. } if bank == Bank::B64 => {
                let register = self.address_register(Address::Local { offset: i64::from(at).wrapping_add(offset) });
                Ok((register.index, register.id))
            }
            Symbol::Variable { index, .. } if bank == Bank::B64 => {
                let register = self.address_register(Address::Variable { index, offset });
                Ok((register.index, register.id))
            }
            Symbol::Function(index) if bank == Bank::B64 => {
                let address = function_address(self.module, &self.declaration(index).name);
                Ok(self.constant(bank, address.unwrap_or_default()))
            }
            _ => Err(self.invalid(format!("`{name}` cannot be a source here"))),
        }
    }

    /// A slot that always holds these bits.
    pub(crate) fn constant(&mut self, bank: Bank, bits: u64) -> (u32, u32) {
        let bits = match bank {
            Bank::Predicate => {
                if bits != 0 {
                    u64::from(u32::MAX)
                } else {
                    0
                }
            }
            Bank::B16 => bits & 0xffff,
            Bank::B32 => bits & 0xffff_ffff,
            Bank::B64 => bits,
        };
        if let Some(&slot) = self.constants.get(&(bank, bits)) {
            return slot;
        }
        let (index, id) = self.slot(bank);
        self.frame.constants.push(Constant { bank, index, id, bits });
        self.constants.insert((bank, bits), (index, id));
        (index, id)
    }

    /// A register that holds a special register's value.
    pub(crate) fn special(&mut self, special: Special, name: &str) -> Reg<u32> {
        if let Some(&register) = self.specials.get(&special) {
            return register;
        }
        let (index, id) = self.slot(Bank::B32);
        let register = Reg::new(index, id);
        self.registers[id as usize].name = name.to_string();
        self.frame.specials.push((special, register));
        self.specials.insert(special, register);
        register
    }

    /// The carry flag of `add.cc` and its kin: a predicate register that no name reaches.
    pub(crate) fn carry(&mut self) -> Pred {
        if let Some(carry) = self.carry {
            return carry;
        }
        let (index, id) = self.slot(Bank::Predicate);
        *self.carry.insert(Pred { index, id })
    }

    /// A register that holds an address known only at launch or call.
    pub(crate) fn address_register(&mut self, address: Address) -> Reg<u64> {
        if let Some(&register) = self.addresses.get(&address) {
            return register;
        }
        let (index, id) = self.slot(Bank::B64);
        let register = Reg::new(index, id);
        self.frame.addresses.push((address, register));
        self.addresses.insert(address, register);
        register
    }

    /// A register to be written, of type `T`.
    pub(crate) fn dest<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>> {
        let (_, bank, index, id) = self.any_register(operand)?;
        if bank != T::BANK {
            return Err(self.invalid(format!("register `{operand}` has the wrong width for this operand")));
        }
        self.writes.push(id);
        Ok(Reg::new(index, id))
    }

    /// A register of any type that is to be written: loads and conversions may have wider destinations than their type.
    pub(crate) fn any_dest(&mut self, operand: &Operand) -> Result<(Bank, u32, u32)> {
        let (ty, bank, index, id) = self.any_register(operand)?;
        self.writes.push(id);
        if ty == Type::B128 {
            self.writes.push(id + 1);
        }
        Ok((bank, index, id))
    }

    /// The declared type, bank, slot and definedness id of a register; notes neither a read nor a write.
    pub(crate) fn any_register(&self, operand: &Operand) -> Result<(Type, Bank, u32, u32)> {
        match operand {
            Operand::Name(name) => match self.symbol(name)? {
                Symbol::Register { ty, bank, index, id } => Ok((*ty, *bank, *index, *id)),
                _ => Err(self.invalid(format!("`{name}` is not a register"))),
            },
            _ => Err(self.invalid(format!("`{operand}` is not a register"))),
        }
    }

    /// Notes that a register is read, for operands found by [`Lowering::any_register`].
    pub(crate) fn note_read(&mut self, id: u32) {
        self.reads.push(id);
    }

    /// Notes that the instruction is an asynchronous product, which goes on using these registers.
    pub(crate) fn note_product(&mut self, registers: impl IntoIterator<Item = u32>) {
        self.products.0.insert(self.line);
        self.products.1.extend(registers);
    }

    /// Notes that a register is written.
    pub(crate) fn note_write(&mut self, id: u32) {
        self.writes.push(id);
    }

    /// Notes that a register decides an address or a way.
    pub(crate) fn note_critical(&mut self, id: u32) {
        self.reads.push(id);
        self.critical.push(id);
    }

    /// A predicate source and whether it is negated; an integer literal counts as true or false.
    pub(crate) fn pred(&mut self, operand: &Operand) -> Result<(Pred, bool)> {
        let (register, negated) = match operand {
            Operand::Name(name) => (self.find_predicate(name)?, false),
            Operand::Not(name) => (self.find_predicate(name)?, true),
            Operand::Integer(bits) => {
                let (index, id) = self.constant(Bank::Predicate, *bits);
                (Pred { index, id }, false)
            }
            _ => return Err(self.invalid(format!("`{operand}` is not a predicate"))),
        };
        self.reads.push(register.id);
        Ok((register, negated))
    }

    /// A predicate to be written.
    pub(crate) fn pred_dest(&mut self, operand: &Operand) -> Result<Pred> {
        let Operand::Name(name) = operand else { return Err(self.invalid(format!("`{operand}` is not a predicate register"))) };
        let register = self.find_predicate(name)?;
        self.writes.push(register.id);
        Ok(register)
    }

    pub(super) fn find_predicate(&self, name: &str) -> Result<Pred> {
        match self.symbol(name)? {
            Symbol::Register { bank: Bank::Predicate, index, id, .. } => Ok(Pred { index: *index, id: *id }),
            _ => Err(self.invalid(format!("`{name}` is not a predicate register"))),
        }
    }

    /// The instruction that a label stands before.
    pub(crate) fn label(&self, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Name(name) => match self.symbol(name)? {
                Symbol::Label(pc) => Ok(*pc),
                _ => Err(self.invalid(format!("`{name}` is not a label"))),
            },
            _ => Err(self.invalid(format!("`{operand}` is not a label"))),
        }
    }

    /// Whether an instruction of the kernel just ends the threads that come to it: a branch there is an exit.
    pub(crate) fn is_end(&self, pc: u32) -> bool {
        let instruction = self.flat.get((pc - self.entry) as usize).map(|(_, instruction)| instruction);
        self.is_kernel && instruction.is_none_or(|end| end.guard.is_none() && matches!(end.opcode.as_str(), "ret" | "exit"))
    }

    /// Exactly `N` operands.
    pub(crate) fn operands<'i, const N: usize>(&self, instruction: &'i ast::Instruction) -> Result<&'i [Operand; N]> {
        let given = instruction.operands.len();
        instruction
            .operands
            .as_slice()
            .try_into()
            .map_err(|_| self.invalid(format!("`{instruction}` takes {N} operands, not {given}")))
    }

    /// The components of `{a, b}`, or the operand itself.
    pub(crate) fn components<'i>(&self, operand: &'i Operand) -> &'i [Operand] {
        match operand {
            Operand::Vector(components) => components,
            single => std::slice::from_ref(single),
        }
    }

    /// An error about this instruction.
    pub(crate) fn invalid(&self, message: impl Into<String>) -> Error {
        Error::Invalid { line: self.line, message: message.into() }
    }

    /// This form of the instruction is not known.
    pub(crate) fn unsupported(&self, instruction: &ast::Instruction) -> Error {
        Error::Unsupported { line: instruction.line, instruction: instruction.to_string(), reason: None }
    }

    /// This form is known, and why it is refused.
    pub(crate) fn refused(&self, instruction: &ast::Instruction, reason: &str) -> Error {
        Error::Unsupported { line: instruction.line, instruction: instruction.to_string(), reason: Some(reason.into()) }
    }

    pub(super) fn unsupported_text(&self, line: u32, what: &str, reason: &str) -> Error {
        Error::Unsupported { line, instruction: what.into(), reason: Some(reason.into()) }
    }
}

/// Special registers that hold still, by name.
fn special(name: &str) -> Option<Special> {
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, usize::MAX),
    };
    let with_axis: Option<fn(usize) -> Special> = match base {
        "%tid" => Some(Special::Tid),
        "%ntid" => Some(Special::Ntid),
        "%ctaid" => Some(Special::Ctaid),
        "%nctaid" => Some(Special::Nctaid),
        "%clusterid" => Some(Special::Clusterid),
        "%nclusterid" => Some(Special::Nclusterid),
        "%cluster_ctaid" => Some(Special::ClusterCtaid),
        "%cluster_nctaid" => Some(Special::ClusterNctaid),
        _ => None,
    };
    if axis < 3 {
        return with_axis.map(|special| special(axis));
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NWarpId,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NSmId,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%dynamic_smem_size" => Special::DynamicSharedSize,
        "%total_smem_size" => Special::TotalSharedSize,
        "%tid.w" | "%ctaid.w" | "%ntid.w" | "%nctaid.w" => Special::Zero,
        _ => return None,
    })
}
