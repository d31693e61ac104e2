//! Who accessed a place in global memory, in 8 bytes.

/// Block plus one (23 bits), its epoch (15), warp (5), instruction of the kernel (15), bytes of a granule (4), flags (2). Zero:
/// nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

const BLOCK_SHIFT: u32 = 41;
const EPOCH_SHIFT: u32 = 26;
const WARP_SHIFT: u32 = 21;
const PC_SHIFT: u32 = 6;
const BYTES_SHIFT: u32 = 2;
const BYTES: u64 = 15 << BYTES_SHIFT;
const STRONG: u64 = 1;
/// Other blocks have read it, or written it strongly, too.
const MANY: u64 = 2;
/// Numbers of blocks that can be told apart.
pub(super) const MAX_BLOCKS: u64 = (1 << 23) - 1;
pub(super) const MAX_EPOCH: u32 = (1 << 15) - 1;
const MAX_PC: u32 = (1 << 15) - 1;

impl Stamp {
    /// Of an access to all bytes of a granule.
    pub(in super::super) fn new(block: u32, epoch: u32, warp: usize, pc: u32, strong: bool) -> Self {
        let fields = [(block + 1, BLOCK_SHIFT), (epoch, EPOCH_SHIFT), (warp as u32 & 31, WARP_SHIFT), (pc.min(MAX_PC), PC_SHIFT)];
        let placed = fields.iter().fold(0, |stamp, &(field, shift)| stamp | u64::from(field) << shift);
        Self(placed | BYTES | (u64::from(strong) * STRONG))
    }

    /// The least of a block.
    #[inline(always)]
    pub(super) fn least(block: u32) -> Self {
        Self(u64::from(block + 1) << BLOCK_SHIFT)
    }

    /// As it is kept; zero if it is less than the `least` of a launch.
    #[inline(always)]
    pub(super) fn from_bits(bits: u64, least: Self) -> Self {
        Self(if bits < least.0 { 0 } else { bits })
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(super) fn is_nobody(self) -> bool {
        self.0 == 0
    }

    pub(in super::super) fn block(self) -> u32 {
        ((self.0 >> BLOCK_SHIFT) as u32).wrapping_sub(1)
    }

    pub(super) fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32 & MAX_EPOCH
    }

    pub(in super::super) fn warp(self) -> usize {
        (self.0 >> WARP_SHIFT) as usize & 31
    }

    /// Instruction of the kernel, counted from its first; `None` if that is too far.
    pub(in super::super) fn instruction(self) -> Option<u32> {
        let pc = (self.0 >> PC_SHIFT) as u32 & MAX_PC;
        (pc != MAX_PC).then_some(pc)
    }

    #[inline(always)]
    pub(in super::super) fn is_strong(self) -> bool {
        self.0 & STRONG != 0
    }

    #[inline(always)]
    pub(super) fn is_many(self) -> bool {
        self.0 & MANY != 0
    }

    /// The same, of several blocks or not.
    #[inline(always)]
    pub(super) fn with_many(self, many: bool) -> Self {
        Self(self.0 & !MANY | (u64::from(many) * MANY))
    }

    /// Whether another block than that of `own` has something to do with it.
    #[inline(always)]
    pub(super) fn is_touched_by_others(self, own: Self) -> bool {
        self.0 != 0 && (self.0 >> BLOCK_SHIFT != own.0 >> BLOCK_SHIFT || self.is_many())
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 & BYTES != 0
    }

    pub(super) fn with_bytes(self, bytes: u64) -> Self {
        Self(self.0 & !BYTES | bytes << BYTES_SHIFT & BYTES)
    }

    /// What takes the place of `old`, whose bytes it keeps if both are of one block.
    pub(super) fn merged(self, old: Self) -> Self {
        if old.is_nobody() || old.block() != self.block() {
            return self;
        }
        // Who does not come after a strong access of this epoch does not come after a plain one of it either.
        let plain = old.epoch() == self.epoch() && !old.is_strong();
        Self((self.0 | old.0 & BYTES) & !(u64::from(plain) * STRONG))
    }
}
