//! Races in shared memory: for each granule of a block's shared memory the last write and the reads since, each with its thread
//! and epoch, held against the vector clock of the thread that comes next (FastTrack: Flanagan and Freund 2009).
//!
//! A granule is as large as the first access, up to 16 bytes, until a thread accesses fewer; then all of the block's granules
//! become that small, so that neighbours written by different threads are no race.

use super::clock::Clock;
use crate::machine::execute::lanes_of;
use crate::machine::registers::{Lanes, Mask, WARP};

/// Who accessed a granule: epoch (24 bits), warp in the cluster (9), lane (5), program counter (22), flags (4). Zero: nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp(u64);

const EPOCH_SHIFT: u32 = 40;
const WARP_SHIFT: u32 = 31;
const LANE_SHIFT: u32 = 26;
const PC_SHIFT: u32 = 4;
const LANE: u64 = 31 << LANE_SHIFT;
/// An atomic, volatile or otherwise strong access.
const STRONG: u64 = 1;
/// All lanes of the warp.
const WHOLE: u64 = 2;
/// Several readers: the rest is an index into the list of them.
const MANY: u64 = 4;
/// An asynchronous copy; the epoch is its number, warp and lane are its channel.
const COPY: u64 = 8;
const MAX_EPOCH: u32 = (1 << 24) - 1;
const MAX_PC: u32 = (1 << 22) - 1;
/// Granules of 16 bytes: the largest access of one thread, but for vectors of 32.
const MAX_SHIFT: u32 = 4;

impl Stamp {
    fn new(epoch: u32, warp: usize, lane: usize, pc: u32, flags: u64) -> Self {
        let (epoch, pc) = (u64::from(epoch.min(MAX_EPOCH)), u64::from(pc.min(MAX_PC)));
        let warp = (warp as u64 & 511) << WARP_SHIFT;
        Self(epoch << EPOCH_SHIFT | warp | (lane as u64) << LANE_SHIFT | pc << PC_SHIFT | flags)
    }

    /// Stands for several readers.
    fn of_list(index: usize) -> Self {
        Self((index as u64) << PC_SHIFT | MANY)
    }

    /// Index of the list of readers that it stands for.
    fn list(self) -> usize {
        (self.0 >> PC_SHIFT) as usize
    }

    fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32
    }

    pub(super) fn warp(self) -> usize {
        (self.0 >> WARP_SHIFT) as usize & 511
    }

    pub(super) fn lane(self) -> usize {
        (self.0 >> LANE_SHIFT) as usize & 31
    }

    pub(super) fn pc(self) -> u32 {
        (self.0 >> PC_SHIFT) as u32 & MAX_PC
    }

    pub(super) fn is_copy(self) -> bool {
        self.0 & COPY != 0
    }

    /// Where a copy's end is told.
    fn channel(self) -> usize {
        self.warp() * WARP + self.lane()
    }

    pub(super) fn is_whole(self) -> bool {
        self.0 & WHOLE != 0
    }

    fn is_strong(self) -> bool {
        self.0 & STRONG != 0
    }

    /// Whether what it tells of happened before anything that a thread with this clock does.
    #[inline(always)]
    fn before(self, clock: &Clock) -> bool {
        if self.is_copy() {
            return clock.covers_copy(self.channel(), self.epoch());
        }
        let lane = if self.is_whole() { None } else { Some(self.lane()) };
        // A flag is written after the fence, and has been seen by those who know of the fence.
        clock.covers(self.warp(), lane, self.epoch() - u32::from(self.is_strong()))
    }

    /// The same, whichever the lane was.
    #[inline(always)]
    fn before_in_any_lane(self, clock: &Clock) -> bool {
        if self.is_copy() { clock.covers_copy(self.channel(), self.epoch()) } else { clock.covers(self.warp(), None, self.epoch()) }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    write: Stamp,
    read: Stamp,
}

/// The readers of one granule that are not ordered among each other: for each warp the latest epoch, and the lanes.
#[derive(Debug, Clone, Copy)]
struct Reader {
    stamp: Stamp,
    lanes: Mask,
}

/// Who accesses, and how.
pub(super) struct Accessor<'a> {
    pub clock: &'a Clock,
    pub epoch: u32,
    /// In the cluster; of a copy the channel is warp and lane.
    pub warp: usize,
    pub pc: u32,
    pub write: bool,
    pub strong: bool,
    /// Every lane of the warp takes part in each lane's access, as with `ldmatrix`.
    pub whole: bool,
    pub copy: bool,
}

impl Accessor<'_> {
    fn flags(&self) -> u64 {
        (u64::from(self.strong) * STRONG) | (u64::from(self.whole) * WHOLE) | (u64::from(self.copy) * COPY)
    }

    fn stamp(&self, lane: usize) -> Stamp {
        Stamp::new(self.epoch, self.warp, lane, self.pc, self.flags())
    }

    /// Whether an earlier access is by the same thread.
    #[inline(always)]
    fn is_same(&self, stamp: Stamp, lane: usize) -> bool {
        stamp.warp() == self.warp && stamp.lane() == lane && stamp.0 & (WHOLE | COPY) == 0 && !self.whole && !self.copy
    }

    /// Whether an access of this lane may follow an earlier one.
    #[inline(always)]
    fn may_follow(&self, stamp: Stamp, lane: usize) -> bool {
        stamp.0 == 0 || stamp.is_strong() && self.strong || self.is_same(stamp, lane) || stamp.before(self.clock)
    }
}

/// An access that nothing orders after an earlier one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conflict {
    pub lane: usize,
    /// First byte of the granule.
    pub position: u32,
    pub other: Stamp,
    /// The earlier access was a write.
    pub wrote: bool,
}

/// What happened to a block's shared memory.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    /// One per granule; empty until the first access.
    records: Vec<Record>,
    /// Bytes of a granule, as a power of two.
    shift: u32,
    bytes: usize,
    /// Readers of the granules that have several, and which of the lists are not in use: those are empty.
    readers: Vec<Vec<Reader>>,
    free: Vec<usize>,
}

impl Shadow {
    /// Of `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Makes granules no larger than an access.
    #[inline(always)]
    fn fit(&mut self, size: u32) {
        if self.records.is_empty() {
            self.shift = size.trailing_zeros().min(MAX_SHIFT);
            self.records = vec![Record::default(); self.bytes.div_ceil(1 << self.shift)];
        } else if size < 1 << self.shift {
            self.split(size.trailing_zeros());
        }
    }

    #[cold]
    fn split(&mut self, shift: u32) {
        let parts = 1 << (self.shift - shift);
        let old = std::mem::take(&mut self.records);
        self.records = Vec::with_capacity(old.len() * parts);
        for record in old {
            for part in 0..parts {
                let mut record = record;
                if part > 0 && record.read.0 & MANY != 0 {
                    let readers = self.readers[record.read.list()].clone();
                    let list = self.new_list();
                    self.readers[list] = readers;
                    record.read = Stamp::of_list(list);
                }
                self.records.push(record);
            }
        }
        self.shift = shift;
    }

    /// Notes the accesses of a warp's lanes to `size` bytes each, all inside.
    #[inline(always)]
    pub(super) fn note(
        &mut self,
        positions: &Lanes<u32>,
        mask: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        self.fit(size);
        if mask == !0 {
            let (mut apart, mut spread) = (0, 0);
            for lane in 0..WARP {
                apart |= positions[lane] ^ positions[0].wrapping_add(lane as u32 * size);
                spread |= positions[lane] ^ positions[0];
            }
            if apart == 0 && self.note_run(positions[0], size, accessor) {
                return;
            }
            if spread == 0 && !accessor.write && !accessor.copy {
                let whole = Accessor { whole: true, ..*accessor };
                return self.note_each(positions, 1, size, &whole, conflict);
            }
        }
        self.note_each(positions, mask, size, accessor, conflict);
    }

    /// Notes accesses of all lanes side by side where all granules were last accessed alike; whether they were.
    #[inline(always)]
    fn note_run(&mut self, start: u32, size: u32, accessor: &Accessor) -> bool {
        let per_lane = (size >> self.shift).trailing_zeros();
        let first = (start >> self.shift) as usize;
        let Some(records) = self.records.get_mut(first..first + (WARP << per_lane)) else { return false };
        let (write, read) = (records[0].write.0, records[0].read.0);
        let (mut writes_differ, mut reads_differ, mut writes_foreign, mut reads_foreign) = (0, 0, 0, 0);
        for (index, record) in records.iter().enumerate() {
            let lane = ((index >> per_lane) as u64) << LANE_SHIFT;
            writes_differ |= record.write.0 ^ write;
            reads_differ |= record.read.0 ^ read;
            writes_foreign |= (record.write.0 ^ lane) & LANE;
            reads_foreign |= (record.read.0 ^ lane) & LANE;
        }
        let alike = |differ: u64, foreign: u64, stamp: Stamp| {
            if differ & !LANE != 0 || stamp.0 & MANY != 0 || stamp.is_copy() && differ != 0 {
                return false;
            }
            stamp.0 == 0 && differ == 0
                || stamp.before_in_any_lane(accessor.clock)
                || foreign == 0 && accessor.is_same(stamp, 0)
                || accessor.write && accessor.strong && stamp.is_strong()
        };
        // A reader may take the place of another only if it comes after it.
        if !alike(writes_differ, writes_foreign, Stamp(write)) || !alike(reads_differ, reads_foreign, Stamp(read)) {
            return false;
        }
        let stamp = accessor.stamp(0).0;
        for (index, record) in records.iter_mut().enumerate() {
            let stamp = Stamp(stamp | ((index >> per_lane) as u64) << LANE_SHIFT);
            if accessor.write {
                *record = Record { write: stamp, read: Stamp(0) };
            } else {
                record.read = stamp;
            }
        }
        true
    }

    fn note_each(
        &mut self,
        positions: &Lanes<u32>,
        mask: Mask,
        size: u32,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        for lane in lanes_of(mask) {
            let start = positions[lane] >> self.shift;
            for granule in start..start + (size >> self.shift) {
                if accessor.write {
                    self.write(granule as usize, lane, accessor, conflict);
                } else {
                    self.read(granule as usize, lane, accessor, conflict);
                }
            }
        }
    }

    /// Notes accesses to a range of bytes by an asynchronous copy.
    pub(super) fn note_range(
        &mut self,
        start: u32,
        bytes: u32,
        lane: usize,
        accessor: &Accessor,
        conflict: &mut impl FnMut(Conflict),
    ) {
        self.fit(1 << (start | bytes).trailing_zeros().min(MAX_SHIFT));
        for granule in start >> self.shift..(start + bytes) >> self.shift {
            if accessor.write {
                self.write(granule as usize, lane, accessor, conflict);
            } else {
                self.read(granule as usize, lane, accessor, conflict);
            }
        }
    }

    fn read(&mut self, granule: usize, lane: usize, accessor: &Accessor, conflict: &mut impl FnMut(Conflict)) {
        let Some(&Record { write, read }) = self.records.get(granule) else { return };
        if !accessor.may_follow(write, lane) {
            conflict(Conflict { lane, position: (granule as u32) << self.shift, other: write, wrote: true });
        }
        let stamp = accessor.stamp(lane);
        let reader = Reader { stamp, lanes: if accessor.whole { !0 } else { 1 << lane } };
        if read.0 & MANY != 0 {
            reader.join(&mut self.readers[read.list()], accessor);
        } else if read.0 == 0 || accessor.is_same(read, lane) || read.before(accessor.clock) || reader.includes(read) {
            self.records[granule].read = stamp;
        } else if !(read.is_whole() && reader.is_with(read)) {
            let list = self.new_list();
            let readers = &mut self.readers[list];
            readers.push(Reader { stamp: read, lanes: if read.is_whole() { !0 } else { 1 << read.lane() } });
            reader.join(readers, accessor);
            self.records[granule].read = Stamp::of_list(list);
        }
    }

    fn write(&mut self, granule: usize, lane: usize, accessor: &Accessor, conflict: &mut impl FnMut(Conflict)) {
        let Some(&Record { write, read }) = self.records.get(granule) else { return };
        let position = (granule as u32) << self.shift;
        if !accessor.may_follow(write, lane) {
            conflict(Conflict { lane, position, other: write, wrote: true });
        }
        if read.0 & MANY != 0 {
            let readers = &mut self.readers[read.list()];
            if let Some(other) = readers.iter().find_map(|reader| reader.unordered(accessor, lane)) {
                conflict(Conflict { lane, position, other, wrote: false });
            }
            readers.clear();
            self.free.push(read.list());
        } else if !accessor.may_follow(read, lane) {
            conflict(Conflict { lane, position, other: read, wrote: false });
        }
        let mut stamp = accessor.stamp(lane);
        if accessor.is_same(write, lane) && write.epoch() == stamp.epoch() && !write.is_strong() {
            // Whoever does not come after this one does not come after the thread's plain write either.
            stamp.0 &= !STRONG;
        }
        self.records[granule] = Record { write: stamp, read: Stamp(0) };
    }

    /// Index of an empty list of readers.
    fn new_list(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.readers.push(Vec::new());
            self.readers.len() - 1
        })
    }
}

impl Reader {
    /// Whether a stamp is of the same warp and epoch, or the same copy.
    fn is_with(&self, stamp: Stamp) -> bool {
        let any = if stamp.is_copy() { 0 } else { LANE | WHOLE };
        (self.stamp.0 ^ stamp.0) & !(any | u64::from(MAX_PC) << PC_SHIFT) == 0
    }

    /// Whether an earlier read was by the same lanes, so that whoever comes after this one comes after that one.
    fn includes(&self, stamp: Stamp) -> bool {
        self.lanes == !0 && self.stamp.warp() == stamp.warp() && !stamp.is_copy() && !self.stamp.is_copy()
    }

    /// Takes its place among the readers, and that of those who came before it.
    fn join(self, readers: &mut Vec<Self>, accessor: &Accessor) {
        readers.retain_mut(|reader| {
            let by_threads = !reader.stamp.is_copy() && !self.stamp.is_copy();
            if by_threads && reader.stamp.warp() == self.stamp.warp() && !self.is_with(reader.stamp) {
                reader.lanes &= !self.lanes;
            }
            reader.lanes != 0 && (!reader.is_before(accessor.clock) || self.is_with(reader.stamp))
        });
        match readers.iter_mut().find(|reader| self.is_with(reader.stamp)) {
            Some(reader) => reader.lanes |= self.lanes,
            None => readers.push(self),
        }
    }

    fn is_before(&self, clock: &Clock) -> bool {
        if self.stamp.before_in_any_lane(clock) {
            return true;
        }
        let mut lanes = lanes_of(self.lanes);
        !self.stamp.is_copy() && lanes.all(|lane| clock.covers(self.stamp.warp(), Some(lane), self.stamp.epoch()))
    }

    /// One of these reads that a write must not follow.
    fn unordered(&self, accessor: &Accessor, lane: usize) -> Option<Stamp> {
        if self.stamp.before_in_any_lane(accessor.clock) {
            return None;
        }
        let of = |lane: usize| Stamp(self.stamp.0 & !(LANE | WHOLE) | (lane as u64) << LANE_SHIFT);
        lanes_of(self.lanes).map(of).find(|&stamp| !accessor.may_follow(stamp, lane))
    }
}
