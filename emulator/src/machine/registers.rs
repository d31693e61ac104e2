//! A warp's registers: one array of 32 lanes for each register of each frame of its call stack.

use std::hash::Hasher;
use std::marker::PhantomData;

use bytemuck::Pod;

use crate::program::Frame;

/// Lanes of a warp.
pub const WARP: usize = 32;

/// A set of a warp's lanes, lane 0 in bit 0.
pub type Mask = u32;

/// One value per lane.
pub(crate) type Lanes<T> = [T; WARP];

/// A value for each lane, as a loop: `std::array::from_fn` and `map` of 32 elements are not inlined.
#[inline(always)]
pub(crate) fn each_lane<T: Copy + Default>(value: impl Fn(usize) -> T) -> Lanes<T> {
    let mut lanes = [T::default(); WARP];
    for (lane, slot) in lanes.iter_mut().enumerate() {
        *slot = value(lane);
    }
    lanes
}

/// A type that an instruction can see a register as: its width picks the bank.
pub(crate) trait Lane: Pod + Default + Send + Sync + PartialEq + std::fmt::Debug {
    /// The bank's own type.
    const BANK: Bank;
    /// The lanes of register `index` of the current frame.
    fn lanes(registers: &Registers, index: u32) -> &Lanes<Self>;
    /// The same, to be written.
    fn lanes_mut(registers: &mut Registers, index: u32) -> &mut Lanes<Self>;
    /// From the low bits of an immediate.
    fn from_bits(bits: u64) -> Self;
    /// As the low bits of a word.
    fn to_bits(self) -> u64;
}

/// Where a register is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bank {
    Predicate,
    B16,
    B32,
    B64,
}

macro_rules! lane {
    ($($ty:ty: $bits:ty, $bank:ident, $field:ident, $base:ident;)+) => {$(
        impl Lane for $ty {
            const BANK: Bank = Bank::$bank;
            #[inline(always)]
            fn lanes(registers: &Registers, index: u32) -> &Lanes<Self> {
                bytemuck::cast_ref(&registers.$field[registers.base.$base + index as usize])
            }
            #[inline(always)]
            fn lanes_mut(registers: &mut Registers, index: u32) -> &mut Lanes<Self> {
                bytemuck::cast_mut(&mut registers.$field[registers.base.$base + index as usize])
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bytemuck::cast(bits as $bits)
            }
            #[inline(always)]
            fn to_bits(self) -> u64 {
                u64::from(bytemuck::cast::<Self, $bits>(self))
            }
        }
    )+};
}

lane! {
    u16: u16, B16, b16, b16;
    i16: u16, B16, b16, b16;
    u32: u32, B32, b32, b32;
    i32: u32, B32, b32, b32;
    f32: u32, B32, b32, b32;
    u64: u64, B64, b64, b64;
    i64: u64, B64, b64, b64;
    f64: u64, B64, b64, b64;
}

/// A register of the current frame, seen as `T`. Immediates and special registers have slots of their own, filled when the frame
/// is entered, so that every source is a register.
pub(crate) struct Reg<T> {
    pub(crate) index: u32,
    /// Place among the frame's definedness masks.
    pub(crate) id: u32,
    ty: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Reg<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}", self.index)
    }
}

impl<T> Clone for Reg<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Reg<T> {}

impl<T> Reg<T> {
    pub(crate) fn new(index: u32, id: u32) -> Self {
        Self { index, id, ty: PhantomData }
    }
}

/// A predicate register: one bit per lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pred {
    pub(crate) index: u32,
    pub(crate) id: u32,
}

/// First register of the current frame in each bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Base {
    predicates: usize,
    b16: usize,
    b32: usize,
    b64: usize,
    undefined: usize,
}

/// All registers of a warp.
#[derive(Default)]
pub(crate) struct Registers {
    predicates: Vec<Mask>,
    b16: Vec<Lanes<u16>>,
    b32: Vec<Lanes<u32>>,
    b64: Vec<Lanes<u64>>,
    /// For each register of each frame the lanes that hold no defined value.
    undefined: Vec<Mask>,
    base: Base,
}

impl Registers {
    /// Empties all frames and enters the first.
    pub(crate) fn reset(&mut self, frame: &Frame) {
        self.base = Base::default();
        self.grow(frame);
        self.forget(frame, !0);
    }

    /// Enters the first frame again, in a launch of the same kernel: its constants are still there.
    pub(crate) fn reuse(&mut self, frame: &Frame) {
        self.base = Base::default();
        self.undefined.fill(!0);
        for constant in &frame.constants {
            self.undefined[constant.id as usize] = 0;
        }
    }

    /// The current frame, to come back to.
    pub(crate) fn base(&self) -> Base {
        self.base
    }

    /// Goes to a frame that `base` or `enter` gave.
    pub(crate) fn go_to(&mut self, base: Base) {
        self.base = base;
    }

    /// Enters a frame above the current one, which is `caller`'s, for the `lanes` that make the call: nothing in it is defined
    /// for them.
    pub(crate) fn enter(&mut self, caller: &Frame, callee: &Frame, lanes: Mask) {
        self.base.predicates += caller.counts.predicates as usize;
        self.base.b16 += caller.counts.b16 as usize;
        self.base.b32 += caller.counts.b32 as usize;
        self.base.b64 += caller.counts.b64 as usize;
        self.base.undefined += caller.counts.total() as usize;
        self.grow(callee);
        self.forget(callee, lanes);
    }

    /// Makes room for a frame and fills its constants, which are the same for every lane and every call.
    fn grow(&mut self, frame: &Frame) {
        let (counts, base) = (&frame.counts, self.base);
        let reach = |length: usize, base: usize, count: u32| length.max(base + count as usize);
        self.predicates.resize(reach(self.predicates.len(), base.predicates, counts.predicates), 0);
        self.b16.resize(reach(self.b16.len(), base.b16, counts.b16), [0; WARP]);
        self.b32.resize(reach(self.b32.len(), base.b32, counts.b32), [0; WARP]);
        self.b64.resize(reach(self.b64.len(), base.b64, counts.b64), [0; WARP]);
        self.undefined.resize(reach(self.undefined.len(), base.undefined, counts.total()), !0);
    }

    /// Feeds all that the registers hold into a hash.
    pub(crate) fn hash(&self, state: &mut impl Hasher) {
        state.write(bytemuck::cast_slice(&self.predicates));
        state.write(bytemuck::cast_slice(&self.b16));
        state.write(bytemuck::cast_slice(&self.b32));
        state.write(bytemuck::cast_slice(&self.b64));
        state.write(bytemuck::cast_slice(&self.undefined));
    }

    /// Marks the variables of a frame undefined for `lanes`, and its constants defined.
    fn forget(&mut self, frame: &Frame, lanes: Mask) {
        let start = self.base.undefined;
        for mask in &mut self.undefined[start..start + frame.counts.total() as usize] {
            *mask |= lanes;
        }
        for constant in &frame.constants {
            // Other lanes of the warp may be in another function whose frame lies in the same place.
            let (index, bits) = (constant.index as usize, constant.bits);
            match constant.bank {
                Bank::Predicate => {
                    let slot = &mut self.predicates[self.base.predicates + index];
                    *slot = *slot & !lanes | bits as Mask & lanes;
                }
                Bank::B16 => fill(&mut self.b16[self.base.b16 + index], lanes, bits as u16),
                Bank::B32 => fill(&mut self.b32[self.base.b32 + index], lanes, bits as u32),
                Bank::B64 => fill(&mut self.b64[self.base.b64 + index], lanes, bits),
            }
            self.undefined[start + constant.id as usize] &= !lanes;
        }
    }

    /// One lane of a register of any bank, as bits.
    pub(crate) fn bits(&self, bank: Bank, index: u32, lane: usize) -> u64 {
        let index = index as usize;
        match bank {
            Bank::Predicate => u64::from(self.predicates[self.base.predicates + index] >> lane & 1),
            Bank::B16 => u64::from(self.b16[self.base.b16 + index][lane]),
            Bank::B32 => u64::from(self.b32[self.base.b32 + index][lane]),
            Bank::B64 => self.b64[self.base.b64 + index][lane],
        }
    }

    /// The lanes of a register.
    #[inline(always)]
    pub(crate) fn get<T: Lane>(&self, register: Reg<T>) -> &Lanes<T> {
        T::lanes(self, register.index)
    }

    /// The lanes of a register of a frame that is not the current one.
    pub(crate) fn get_in(&self, base: Base, register: Reg<u32>) -> &Lanes<u32> {
        &self.b32[base.b32 + register.index as usize]
    }

    /// The lanes of a register, to be written.
    #[inline(always)]
    pub(crate) fn get_mut<T: Lane>(&mut self, register: Reg<T>) -> &mut Lanes<T> {
        T::lanes_mut(self, register.index)
    }

    /// The lanes where a predicate holds.
    #[inline(always)]
    pub(crate) fn predicate(&self, register: Pred) -> Mask {
        self.predicates[self.base.predicates + register.index as usize]
    }

    /// Sets a predicate in the `active` lanes.
    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, register: Pred, active: Mask, value: Mask) {
        let slot = &mut self.predicates[self.base.predicates + register.index as usize];
        *slot = *slot & !active | value & active;
    }

    /// Gives a register of the current frame a value for `lanes`, defined from now on.
    pub(crate) fn define<T: Lane>(&mut self, register: Reg<T>, lanes: Mask, value: impl Fn(usize) -> T) {
        let slots = self.get_mut(register);
        for (lane, slot) in slots.iter_mut().enumerate() {
            *slot = if lanes >> lane & 1 == 1 { value(lane) } else { *slot };
        }
        self.set_undefined(register.id, lanes, 0);
    }

    /// Place of a register of the current frame, by its definedness id, among those of all frames.
    #[inline(always)]
    pub(crate) fn place(&self, id: u32) -> usize {
        self.base.undefined + id as usize
    }

    /// Lanes of a register that hold no defined value.
    #[inline(always)]
    pub(crate) fn undefined(&self, id: u32) -> Mask {
        self.undefined[self.base.undefined + id as usize]
    }

    /// Says of the `active` lanes of a register which are undefined from now on.
    #[inline(always)]
    pub(crate) fn set_undefined(&mut self, id: u32, active: Mask, undefined: Mask) {
        let slot = &mut self.undefined[self.base.undefined + id as usize];
        *slot = *slot & !active | undefined & active;
    }
}

/// Gives some lanes of a register a value.
fn fill<T: Copy>(register: &mut Lanes<T>, lanes: Mask, value: T) {
    for (lane, slot) in register.iter_mut().enumerate() {
        if lanes >> lane & 1 == 1 {
            *slot = value;
        }
    }
}
