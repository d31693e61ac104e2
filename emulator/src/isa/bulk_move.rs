//! What bulk and tensor copies have in common: runs of bytes moved later, as a whole, and how their end is told.

use super::bulk_group::Operation;
use super::reduction::Combine;
use crate::check::Kind;
use crate::check::races::{Access, Release, Told};
use crate::isa::access::SECTOR;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, WARP};
use crate::machine::transfer::Land;
use crate::memory::bits::ones;
use crate::memory::in_flight::Use;
use crate::memory::shared::Range;

/// Where a run of bytes lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In an allocation, from an offset.
    Global { allocation: usize, offset: u64 },
    /// In the shared memory of the source's or the destination's block, from a position.
    Shared(usize),
    /// Nowhere: outside of a tensor, where loads find these 8 bytes again and again.
    Outside([u8; 8]),
}

/// One run of contiguous bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub from: End,
    pub to: End,
    pub length: u32,
}

/// What tells that an operation is done.
pub(super) enum Completion {
    /// The bytes are counted at an `mbarrier` of each destination block, at this position.
    Mbarrier(usize),
    /// In a bulk group of the thread.
    Group(Operation),
}

/// How values are combined in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reduce {
    pub combine: Combine,
    pub size: u32,
}

/// A bulk or tensor copy or reduction.
pub(super) struct Move {
    pub runs: Vec<Run>,
    /// Shared memory that is read.
    pub source: Option<Range>,
    /// Shared memory that is written, block by block; the runs' shared destinations lie in each.
    pub destinations: Vec<Range>,
    pub reduce: Option<Reduce>,
    pub completion: Completion,
    /// Bytes that the `mbarrier` of each destination block counts.
    pub bytes: u32,
}

impl Move {
    /// Leaves it to be done later, for the thread in `lane`.
    pub(super) fn begin(self, cx: &mut Cx, lane: usize) {
        cx.worker.effects += 1;
        if let Some(Range { rank, position, bytes }) = self.source {
            cx.begin_in_flight(rank, position, bytes, Use::Reads, lane);
            cx.check_proxy(rank, position, bytes, lane);
        }
        for &Range { rank, position, bytes } in &self.destinations {
            cx.begin_in_flight(rank, position, bytes, Use::Writes, lane);
        }
        cx.begin_transfer(1 << lane, Box::new(self));
    }
}

impl Land for Move {
    fn land(&mut self, cx: &mut Cx, issued: &Release) {
        let lane = lanes_of(cx.active).next().unwrap_or(0);
        self.check_blocks(cx, lane);
        let warp = cx.rank * WARP + cx.warp.index;
        let told = |rank: usize| match self.completion {
            Completion::Mbarrier(position) => Told::Mbarrier { rank, position },
            Completion::Group(Operation { group, .. }) => Told::Group { warp, lane, group },
        };
        let mut read = Release::default();
        if let Some(source) = self.source {
            cx.end_in_flight(source.rank, source.position, source.bytes, Use::Reads);
            let told = told(self.destinations.first().unwrap_or(&source).rank);
            cx.note_copy(issued, told, source, false, &mut read);
        }
        let mut written = Vec::with_capacity(self.destinations.len());
        for &destination in &self.destinations {
            let Range { rank, position, bytes } = destination;
            cx.end_in_flight(rank, position, bytes, Use::Writes);
            // Each block's mbarrier tells of what came to this block.
            let mut done = read.clone();
            cx.note_copy(issued, told(rank), destination, true, &mut done);
            cx.note_copy_writes(rank, position, bytes);
            written.push((rank, done));
        }
        let mut accesses = Accesses::default();
        for run in &self.runs {
            self.run(cx, lane, run, &mut accesses);
        }
        accesses.flush(cx);
        match self.completion {
            Completion::Mbarrier(position) => {
                for (rank, done) in written {
                    cx.leave_copy_at_mbarrier(rank, position, &done);
                    cx.complete_bytes(rank, position, lane, self.bytes);
                }
            }
            Completion::Group(operation) => cx.end_in_group(operation),
        }
    }
}

impl Move {
    /// Shared memory must live as long as somebody copies from or to it.
    fn check_blocks(&self, cx: &mut Cx, lane: usize) {
        if self.source.is_some_and(|source| cx.blocks[source.rank].has_ended()) {
            cx.report(Kind::OperandInFlight, lane, || "the block ended before its shared memory was read".into());
        }
        for range in &self.destinations {
            if !cx.blocks[range.rank].has_ended() {
                continue;
            }
            if range.rank == cx.rank {
                cx.report(Kind::NotWaitedFor, lane, || "the block ended before the copy had written its shared memory".into());
            } else {
                let rank = range.rank;
                cx.report(Kind::UseAfterFree, lane, || {
                    format!("writes to shared memory of block {rank} of the cluster, which has ended")
                });
            }
        }
    }

    fn run(&self, cx: &mut Cx, lane: usize, run: &Run, accesses: &mut Accesses) {
        let mut at = 0;
        while at < run.length {
            let count = (run.length - at).min(CHUNK as u32) as usize;
            let mut bytes = [0; CHUNK];
            let bytes = &mut bytes[..count];
            let defined = match run.from {
                End::Global { allocation, offset } => {
                    let (memory, offset) = (cx.launch.memory.get(allocation), offset + u64::from(at));
                    memory.read(offset, bytes);
                    accesses.add(cx, allocation, offset, count as u32, Access::Read);
                    if memory.is_all_defined() { ones(count as u32) } else { memory.defined(offset, count as u32) }
                }
                End::Shared(position) => {
                    let position = position + at as usize;
                    let shared = &cx.blocks[self.source.map_or(cx.rank, |source| source.rank)].shared;
                    bytes.copy_from_slice(&shared.bytes[position..position + count]);
                    shared.defined.get(position, count as u32)
                }
                End::Outside(fill) => {
                    bytes.iter_mut().zip(fill.iter().cycle()).for_each(|(byte, fill)| *byte = *fill);
                    ones(count as u32)
                }
            };
            match run.to {
                End::Global { allocation, offset } => {
                    let offset = offset + u64::from(at);
                    let access = if self.reduce.is_some() { Access::Atomic } else { Access::Write };
                    accesses.add(cx, allocation, offset, count as u32, access);
                    self.write_global(cx, lane, allocation, offset, bytes, defined);
                }
                End::Shared(position) => {
                    for range in &self.destinations {
                        self.write_shared(cx, range.rank, position + at as usize, bytes, defined);
                    }
                }
                End::Outside(_) => {}
            }
            at += count as u32;
        }
        cx.worker.tallies[cx.pc as usize].bytes += u64::from(run.length);
    }

    fn write_global(&self, cx: &mut Cx, lane: usize, allocation: usize, offset: u64, bytes: &[u8], defined: u32) {
        let memory = cx.launch.memory.get(allocation);
        let mut complaint = None;
        if defined != ones(bytes.len() as u32) {
            complaint = Some("the shared memory that is copied was never written");
        }
        match self.reduce {
            None => memory.write(offset, bytes),
            Some(Reduce { combine, size }) => {
                if !(memory.is_all_defined() || memory.is_defined(offset, bytes.len() as u64)) {
                    complaint = Some("the reduction combines its operand with memory that was never written");
                }
                for (value, at) in bytes.chunks_exact(size as usize).zip((offset..).step_by(size as usize)) {
                    let operand = word(value);
                    memory.update(at, size, |old| combine(old, operand, 0));
                }
                memory.define(offset, bytes.len() as u64, true);
            }
        }
        if let Some(complaint) = complaint.filter(|_| cx.checked()) {
            let buffer = Some((memory.name.clone(), offset as i64));
            cx.report_at(Kind::Uninitialized, lane, Some(memory.address + offset), buffer, || complaint.into());
        }
    }

    fn write_shared(&self, cx: &mut Cx, rank: usize, position: usize, bytes: &[u8], mut defined: u32) {
        let shared = &mut cx.blocks[rank].shared;
        match self.reduce {
            None => shared.bytes[position..position + bytes.len()].copy_from_slice(bytes),
            Some(Reduce { combine, size }) => {
                defined &= shared.defined.get(position, bytes.len() as u32);
                for (value, at) in bytes.chunks_exact(size as usize).zip((position..).step_by(size as usize)) {
                    let old = shared.read_wide(at, size);
                    shared.write_wide(at, size, combine(old, word(value), 0));
                }
            }
        }
        shared.defined.put(position, bytes.len() as u32, defined);
    }
}

/// Bytes moved at a time.
const CHUNK: usize = 32;

/// Up to 8 bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Accesses to global memory, counted at once and noted a warp's worth at a time.
struct Accesses {
    allocation: usize,
    size: u32,
    access: Access,
    offsets: Lanes<u64>,
    count: usize,
    last_sector: u64,
}

impl Default for Accesses {
    fn default() -> Self {
        Self { allocation: 0, size: 0, access: Access::Read, offsets: [0; WARP], count: 0, last_sector: u64::MAX }
    }
}

impl Accesses {
    fn add(&mut self, cx: &mut Cx, allocation: usize, offset: u64, size: u32, access: Access) {
        for sector in offset / SECTOR..=(offset + u64::from(size) - 1) / SECTOR {
            if sector != self.last_sector || allocation != self.allocation {
                cx.worker.touched[allocation].mark(sector, sector, access);
                cx.worker.tallies[cx.pc as usize].sectors += 1;
            }
            self.last_sector = sector;
        }
        if self.count == WARP || (allocation, size) != (self.allocation, self.size) {
            self.flush(cx);
        }
        (self.allocation, self.size, self.access) = (allocation, size, access);
        self.offsets[self.count] = offset;
        self.count += 1;
    }

    fn flush(&mut self, cx: &mut Cx) {
        let count = std::mem::take(&mut self.count);
        if count > 0 && cx.checked() {
            cx.note_global(self.allocation, &self.offsets, ones(count as u32), self.size, self.access);
        }
    }
}

impl Cx<'_> {
    /// The block and the position of a range of shared memory, aligned as asked; a finding if it is none.
    pub(super) fn shared_range(&mut self, lane: usize, address: u64, bytes: u32, align: u32) -> Option<Range> {
        if !self.is_aligned_to(lane, address, align) {
            return None;
        }
        let (rank, position) = self.shared_position(lane, address, 1)?;
        let last = address + u64::from(bytes.max(1)) - 1;
        let end = self.shared_position(lane, last, 1)?;
        let valid =
            end == (rank, position + bytes.max(1) as usize - 1) && self.blocks[rank].shared.valid.all(position, bytes as usize);
        if !valid {
            let buffer = self.launch.shared.nearest(last as u32);
            self.report_at(Kind::OutOfBounds, lane, Some(address), buffer, || {
                format!("{bytes} bytes leave the variable that they begin in")
            });
            return None;
        }
        Some(Range { rank, position, bytes: bytes as usize })
    }

    /// Whether an address is a multiple of `align`; a finding if not.
    pub(super) fn is_aligned_to(&mut self, lane: usize, address: u64, align: u32) -> bool {
        if address.is_multiple_of(u64::from(align)) {
            return true;
        }
        self.report_at(Kind::Misaligned, lane, Some(address), None, || {
            format!("an address that is no multiple of {align}, as this copy needs")
        });
        false
    }

    /// The allocation and offset of a range of global memory, to be written or not; a finding if there is none.
    pub(super) fn global_range(&mut self, lane: usize, address: u64, bytes: u32, write: bool) -> Option<End> {
        let last = self.worker.last_allocation;
        let cached = self.launch.memory.try_get(last).filter(|memory| memory.holds(address, u64::from(bytes)));
        let (allocation, offset) = match cached {
            Some(memory) => (last, address - memory.address),
            None => self.global_position(lane, address, bytes)?,
        };
        self.worker.last_allocation = allocation;
        let memory = self.launch.memory.get(allocation);
        if write && self.launch.program.is_constant(self.launch.variables, memory.address) {
            let buffer = Some((memory.name.clone(), offset as i64));
            self.report_at(Kind::ReadOnly, lane, Some(address), buffer, || "constant memory cannot be written".into());
            return None;
        }
        Some(End::Global { allocation, offset })
    }

    /// The position of the `mbarrier` that counts a copy's bytes in each of the destination blocks; it lies in one of them.
    pub(super) fn counting_mbarrier(&mut self, lane: usize, address: u64, destination: usize, counting: &[usize]) -> Option<usize> {
        let (rank, position) = self.mbarrier_position(super::address::Target::Shared, lane, address)?;
        if rank != destination {
            self.report_at(Kind::InvalidOperation, lane, Some(address), None, || {
                "the mbarrier lies in another block than the destination of the copy".into()
            });
            return None;
        }
        // What the thread that asks for the copy comes after, the copy does too.
        for &rank in counting {
            self.note_mbarrier(rank, position, 1 << lane, Access::Atomic);
        }
        self.mbarrier(rank, position, lane).map(|_| position)
    }

    /// The ranks in a mask of destination blocks; a finding if one does not exist.
    pub(super) fn multicast_ranks(&mut self, lane: usize, mask: u16) -> Vec<usize> {
        let blocks = self.blocks.len();
        if mask == 0 || u32::from(mask) >> blocks != 0 {
            self.report(Kind::InvalidOperation, lane, || {
                format!("the mask {mask:#06x} of destination blocks in a cluster of {blocks}")
            });
        }
        (0..blocks).filter(|rank| mask >> rank & 1 == 1).collect()
    }
}
