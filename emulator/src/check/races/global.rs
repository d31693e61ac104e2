//! Races in global memory between the blocks of a launch.
//!
//! For each granule of 4 bytes the last write and the last read, each with its block and that block's epoch: 16 bytes. A block's
//! epoch ends at each of its fences of the device's scope. Who writes a location atomically or otherwise strongly leaves there what
//! the block did before the last fence that the writer executed or knows of through a barrier. Who reads a location so knows what
//! was left there after the next fence of the device's scope by its warp, or at once if the read is an acquire of that scope.
//!
//! A fence counts for all that the block did before it, and what one warp knows all of its block know: this can hide a race and
//! never makes one up. So does the choice to keep one reader and one writer only, and that blocks of a cluster are held to be
//! ordered as soon as they have synchronised at all.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::isa::access::is_contiguous;
use crate::machine::execute::lanes_of;
use crate::machine::registers::{Lanes, Mask, WARP};
use crate::memory::device::zeroed;

/// Who accessed a granule: block plus one (23 bits), its epoch (15), warp (5), instruction of the kernel (15), bytes (4), flags (2).
/// Zero: nobody. Blocks are counted over all launches, so that what an earlier launch left stands for nobody and need not be
/// cleared.
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
/// Blocks that can be told apart. Launches of more are not checked.
pub(crate) const MAX_BLOCKS: u64 = (1 << 23) - 1;
const MAX_EPOCH: u32 = (1 << 15) - 1;
const MAX_PC: u32 = (1 << 15) - 1;

impl Stamp {
    pub(super) fn new(block: u32, epoch: u32, warp: usize, pc: u32, strong: bool) -> Self {
        let fields = [(block + 1, BLOCK_SHIFT), (epoch, EPOCH_SHIFT), (warp as u32 & 31, WARP_SHIFT), (pc.min(MAX_PC), PC_SHIFT)];
        let placed = fields.iter().fold(0, |stamp, &(field, shift)| stamp | u64::from(field) << shift);
        Self(placed | BYTES | (u64::from(strong) * STRONG))
    }

    pub(super) fn block(self) -> u32 {
        ((self.0 >> BLOCK_SHIFT) as u32).wrapping_sub(1)
    }

    fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32 & MAX_EPOCH
    }

    pub(super) fn warp(self) -> usize {
        (self.0 >> WARP_SHIFT) as usize & 31
    }

    /// Instruction of the kernel, counted from its first; `None` if that is too far.
    pub(super) fn instruction(self) -> Option<u32> {
        let pc = (self.0 >> PC_SHIFT) as u32 & MAX_PC;
        (pc != MAX_PC).then_some(pc)
    }

    pub(super) fn is_strong(self) -> bool {
        self.0 & STRONG != 0
    }

    fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 & BYTES != 0
    }

    fn with_bytes(self, bytes: u64) -> Self {
        Self(self.0 & !BYTES | bytes << BYTES_SHIFT & BYTES)
    }
}

/// Epochs of other blocks, by block.
pub(crate) type Known = HashMap<u32, u32>;

/// The time of one block.
#[derive(Debug)]
pub(crate) struct BlockClock {
    /// Number of the block over all launches.
    pub block: u32,
    /// The epoch of what is done now.
    pub now: u32,
    known: Known,
    /// What each warp has read of and has not fenced since.
    pending: HashMap<usize, Known>,
    /// Versions of the locations that each warp read last, so that one who polls need not join the same again.
    seen: HashMap<(usize, u32, u64), u64>,
}

impl BlockClock {
    /// Of a block that begins.
    pub(crate) fn new(block: u32) -> Self {
        Self { block, now: 1, known: Known::new(), pending: HashMap::new(), seen: HashMap::new() }
    }

    /// A fence of the device's scope by a warp of the block; the epoch that it ends.
    pub(super) fn fence(&mut self, warp: usize) -> u32 {
        let ended = self.now;
        self.now = (self.now + 1).min(MAX_EPOCH);
        if let Some(pending) = self.pending.remove(&warp) {
            join(&mut self.known, &pending);
        }
        ended
    }

    fn is_before(&self, stamp: Stamp) -> bool {
        // A flag is written after the fence, and has been seen by those who know of the fence.
        let flag = u32::from(stamp.is_strong());
        self.known.get(&stamp.block()).is_some_and(|&known| stamp.epoch() <= known + flag)
    }
}

fn join(known: &mut Known, other: &Known) {
    for (&block, &epoch) in other {
        let known = known.entry(block).or_insert(0);
        *known = (*known).max(epoch);
    }
}

/// A strong access, as far as it orders others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Synchronization {
    /// Of the block.
    pub warp: usize,
    /// The last epoch of the block that a fence has ended which the thread knows of; 0 if there is none.
    pub fenced: u32,
    pub reads: bool,
    pub writes: bool,
    /// What it reads of is known at once.
    pub acquires: bool,
}

/// An access that nothing orders after an earlier one of another block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conflict {
    pub lane: usize,
    /// First byte of the granule in its allocation.
    pub offset: u64,
    pub other: Stamp,
    /// The earlier access was a write.
    pub wrote: bool,
}

/// For each granule of an allocation its last write and its last read. Pages of a list that nothing is noted in cost no memory, and
/// little time to look at: most buffers are only read or only written.
#[derive(Debug)]
struct Shadow {
    writes: Box<[AtomicU64]>,
    reads: Box<[AtomicU64]>,
}

impl Shadow {
    /// Of `bytes` bytes; without memory for it no races are seen.
    fn new(bytes: u64) -> Self {
        let stamps = || zeroed(bytes.div_ceil(4) as usize).unwrap_or_default();
        Self { writes: stamps(), reads: stamps() }
    }

    /// The stamps of the granules that bytes `start..end` touch.
    #[inline(always)]
    fn granules(&self, start: u64, end: u64) -> (&[AtomicU64], &[AtomicU64]) {
        let range = start as usize / 4..end.div_ceil(4) as usize;
        (self.writes.get(range.clone()).unwrap_or_default(), self.reads.get(range).unwrap_or_default())
    }
}

/// What was left at a location, and how often that has changed.
#[derive(Debug, Default, Clone)]
struct Left {
    version: u64,
    known: Arc<Known>,
}

/// What blocks left where they wrote atomically.
#[derive(Debug, Default)]
struct Locations {
    left: HashMap<(u32, u64), Left>,
    /// Epochs kept in all of them.
    entries: usize,
}

/// Epochs to keep at locations in all; when there are more, no further races are looked for.
const MAX_ENTRIES: usize = 1 << 23;

/// The shadow of a device's global memory.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    allocations: Vec<OnceLock<Shadow>>,
    /// The blocks of this launch, counted over all launches.
    blocks: Range<u32>,
    locations: Mutex<Locations>,
    /// Something was left somewhere.
    ordered: AtomicBool,
    /// Races are no longer looked for.
    lost: AtomicBool,
}

/// Who accesses, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accessor<'a> {
    pub clock: &'a BlockClock,
    pub stamp: Stamp,
    pub write: bool,
    /// Stamps less than this are of earlier launches.
    pub since: u64,
}

impl Accessor<'_> {
    /// Who last accessed something in this launch.
    #[inline(always)]
    fn last(&self, stamp: &AtomicU64) -> Stamp {
        let stamp = stamp.load(Relaxed);
        Stamp(if stamp < self.since { 0 } else { stamp })
    }

    /// Whether an access may follow an earlier one.
    fn may_follow(&self, other: Stamp) -> bool {
        let block = other.block();
        other.0 == 0
            || block == self.clock.block
            || other.is_strong() && self.stamp.is_strong()
            || !other.overlaps(self.stamp)
            || self.clock.is_before(other)
    }
}

impl Shadows {
    /// Makes ready for a launch over this many allocations.
    pub(crate) fn begin(&mut self, allocations: usize, blocks: u64) {
        self.allocations.resize_with(allocations, OnceLock::new);
        let first = u64::from(self.blocks.end);
        if first + blocks <= MAX_BLOCKS {
            self.blocks = self.blocks.end..(first + blocks) as u32;
        } else {
            self.allocations.iter_mut().for_each(|shadow| *shadow = OnceLock::new());
            self.blocks = 0..blocks.min(MAX_BLOCKS) as u32;
        }
        self.locations = Mutex::default();
        self.ordered = AtomicBool::new(false);
        self.lost = AtomicBool::new(blocks <= 1 || blocks > MAX_BLOCKS);
    }

    /// Forgets an allocation that was freed.
    pub(crate) fn free(&mut self, index: usize) {
        if let Some(shadow) = self.allocations.get_mut(index) {
            *shadow = OnceLock::new();
        }
    }

    /// Number of a block of this launch over all launches, by its index in the grid.
    pub(crate) fn number(&self, index: u32) -> u32 {
        self.blocks.start + index
    }

    /// Index in the grid of a block of this launch.
    pub(super) fn index(&self, number: u32) -> u32 {
        number.wrapping_sub(self.blocks.start)
    }

    /// The least stamp of this launch.
    #[inline(always)]
    pub(super) fn since(&self) -> u64 {
        u64::from(self.blocks.start + 1) << BLOCK_SHIFT
    }

    /// Whether races are looked for.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        !self.lost.load(Relaxed)
    }

    /// Notes the accesses of a warp's lanes to `size` bytes each of an allocation, all inside.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn note(
        &self,
        allocation: usize,
        bytes: u64,
        offsets: &Lanes<u64>,
        mask: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        let Some(shadow) = self.allocations.get(allocation) else { return };
        let shadow = shadow.get_or_init(|| Shadow::new(bytes));
        let size = u64::from(size);
        let mut left = mask;
        while left != 0 {
            // Lanes whose bytes follow each other are noted together.
            let first = left.trailing_zeros() as usize;
            let (start, mut end, mut lanes) = (offsets[first], offsets[first] + size, 1 << first);
            if mask == !0 && is_contiguous(offsets, size as u32) {
                (end, lanes) = (start + size * WARP as u64, !0);
            } else {
                for lane in lanes_of(left & !lanes) {
                    if offsets[lane] == end {
                        end += size;
                    } else if accessor.write || offsets[lane] + size != end {
                        break;
                    }
                    lanes |= 1 << lane;
                }
            }
            left &= !lanes;
            if (start | end) % 4 == 0 && run(shadow.granules(start, end), accessor) {
                continue;
            }
            for lane in lanes_of(lanes) {
                let (start, end) = (offsets[lane], offsets[lane] + size);
                let within = if size >= 4 { 15 } else { ((1 << size) - 1) << (start & 3) };
                let accessor = Accessor { stamp: accessor.stamp.with_bytes(within), ..*accessor };
                let (writes, reads) = shadow.granules(start, end);
                for (granule, stamps) in writes.iter().zip(reads).enumerate() {
                    let offset = start / 4 * 4 + granule as u64 * 4;
                    one(stamps, &accessor, &mut |other, wrote| conflict(Conflict { lane, offset, other, wrote }));
                }
            }
        }
    }

    /// A strong access to a location takes what was left there if it reads, and leaves something if it writes.
    pub(super) fn synchronize(&self, allocation: usize, offset: u64, clock: &mut BlockClock, access: Synchronization) {
        let leaves = access.writes && (access.fenced != 0 || !clock.known.is_empty());
        if !(leaves || access.reads && self.ordered.load(Acquire)) {
            return;
        }
        let key = (allocation as u32, offset / 4);
        let seen = (access.warp, key.0, key.1);
        let mut locations = self.lock();
        if access.reads
            && let Some(left) = locations.left.get(&key)
            && clock.seen.insert(seen, left.version) != Some(left.version)
        {
            let pending = clock.pending.entry(access.warp).or_default();
            join(pending, &left.known);
            pending.remove(&clock.block);
        }
        if access.acquires
            && let Some(pending) = clock.pending.remove(&access.warp)
        {
            join(&mut clock.known, &pending);
        }
        if leaves {
            let left = locations.left.entry(key).or_default();
            let before = left.known.len();
            let known = Arc::make_mut(&mut left.known);
            let mut changed = false;
            let own = (&clock.block, &access.fenced);
            for (&block, &epoch) in clock.known.iter().chain([own]) {
                let slot = known.entry(block).or_insert(0);
                changed |= *slot < epoch;
                *slot = (*slot).max(epoch);
            }
            let added = known.len() - before;
            if changed {
                left.version += 1;
                // The writer itself has nothing to learn from what it left.
                clock.seen.insert(seen, left.version);
            }
            locations.entries += added;
            if locations.entries > MAX_ENTRIES {
                self.lost.store(true, Relaxed);
            }
            self.ordered.store(true, Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locations> {
        self.locations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes accesses to whole granules side by side if only this block has touched them; whether that is so.
#[inline(always)]
fn run((writes, reads): (&[AtomicU64], &[AtomicU64]), accessor: &Accessor) -> bool {
    if accessor.write && accessor.stamp.is_strong() {
        // What a plain write of the block's leaves must stay.
        return false;
    }
    let own = accessor.stamp.0 >> BLOCK_SHIFT;
    let is_foreign = |stamp: Stamp| stamp.0 != 0 && stamp.0 >> BLOCK_SHIFT != own;
    let is_touched_by_others = |stamp: Stamp| is_foreign(stamp) || stamp.0 & MANY != 0;
    let (mut foreign, mut foreign_reads) = (false, false);
    for write in writes {
        foreign |= is_touched_by_others(accessor.last(write));
    }
    for read in reads {
        foreign_reads |= is_touched_by_others(accessor.last(read));
    }
    if foreign || accessor.write && foreign_reads {
        return false;
    }
    if accessor.write {
        writes.iter().for_each(|write| write.store(accessor.stamp.0, Relaxed));
    } else if foreign_reads {
        for read in reads {
            let many = if is_touched_by_others(accessor.last(read)) { MANY } else { 0 };
            read.store(accessor.stamp.0 | many, Relaxed);
        }
    } else {
        reads.iter().for_each(|read| read.store(accessor.stamp.0, Relaxed));
    }
    true
}

/// Notes an access to some bytes of one granule.
fn one((write, read): (&AtomicU64, &AtomicU64), accessor: &Accessor, conflict: &mut impl FnMut(Stamp, bool)) {
    let (last_write, last_read) = (accessor.last(write), accessor.last(read));
    let own = accessor.clock.block;
    let strong = accessor.stamp.is_strong();
    // Under an access of the block's own lie others that nothing has ordered.
    let hides = |last: Stamp| {
        let many = last.0 & MANY != 0 && last.block() == own && accessor.clock.known.is_empty();
        many && !strong && last.overlaps(accessor.stamp)
    };
    if !accessor.may_follow(last_write) || hides(last_write) {
        conflict(last_write, true);
    }
    if accessor.write {
        if !accessor.may_follow(last_read) || hides(last_read) {
            conflict(last_read, false);
        }
        let others = last_write.0 != 0 && last_write.block() != own && !accessor.clock.is_before(last_write);
        let many = if others { MANY } else { last_write.0 & MANY };
        write.store(merged(last_write, accessor.stamp, own) | if strong { many } else { 0 }, Relaxed);
    } else {
        let others = last_read.0 != 0 && last_read.block() != own && last_read.overlaps(accessor.stamp);
        let many = if others { MANY } else { last_read.0 & MANY };
        read.store(merged(last_read, accessor.stamp, own) | many, Relaxed);
    }
}

/// The new stamp, which keeps the bytes of the old one if both are of one block.
fn merged(old: Stamp, new: Stamp, own: u32) -> u64 {
    if old.0 == 0 || old.block() != own {
        return new.0;
    }
    // Who does not come after a strong access of this epoch does not come after a plain one of it either.
    let plain = old.epoch() == new.epoch() && !old.is_strong();
    (new.0 | old.0 & BYTES) & !(u64::from(plain) * STRONG)
}
