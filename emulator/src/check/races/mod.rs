//! Unordered accesses: to shared memory by the threads of a block or cluster, to global memory by different blocks.
//!
//! What orders two threads of a cluster: `bar.warp.sync` with a mask that names both, a barrier, `mbarrier`, and a flag in shared
//! memory that one wrote after a fence and the other read. Shuffles and votes order nothing, and neither does the order in which
//! the lanes of a warp happen to execute. What orders two blocks is said in `global`.
//!
//! Atomic, `.volatile`, `.relaxed`, `.acquire` and `.release` accesses are strong: they do not race with each other, only with
//! plain ones. `.release` is a fence and a strong write; every strong read of shared memory counts as an acquire.
//!
//! Two writes by one instruction that store what is there already, or by two lanes at once the same, are no race.

mod clock;
mod copies;
mod global;
mod report;
mod shared;

use std::collections::HashMap;
use std::rc::Rc;

pub(crate) use clock::{Release, Timeline};
use copies::Channels;
pub(crate) use copies::Told;
pub(crate) use global::{BlockClock, Shadows};
pub(crate) use shared::Shadow;

use crate::machine::block::Block;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask, WARP};
use crate::memory::shared::Range;
use crate::ptx::ast::Instruction;

/// What an access does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// A read and write in one step, which other atomics may come between but nothing tears.
    Atomic,
    /// The lane gives the address, but every lane of the warp reads what is there (`ldmatrix`).
    ReadByWarp,
    /// The lane gives the address, but every lane of the warp writes a part (`stmatrix`).
    WriteByWarp,
}

impl Access {
    /// Whether memory is read.
    pub(crate) fn reads(self) -> bool {
        !matches!(self, Self::Write | Self::WriteByWarp)
    }

    /// Whether memory is written.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::ReadByWarp)
    }

    fn is_by_warp(self) -> bool {
        matches!(self, Self::ReadByWarp | Self::WriteByWarp)
    }
}

/// How the memory accesses of an instruction order others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Not at all.
    Weak,
    /// They may race with other strong ones. `device`: the scope goes beyond the cluster.
    Strong {
        /// They begin with a fence.
        releases: bool,
        /// What others left where they read is known at once.
        acquires: bool,
        device: bool,
    },
}

impl Strength {
    /// Of an instruction by its modifiers.
    pub(crate) fn of(instruction: &Instruction) -> Self {
        let has = |names: &[&str]| instruction.modifiers.iter().any(|modifier| names.contains(&modifier.as_str()));
        let is_strong = match instruction.opcode.as_str() {
            "ld" | "st" => has(&["volatile", "relaxed", "acquire", "release"]),
            opcode => matches!(opcode, "atom" | "red"),
        };
        if !is_strong {
            return Self::Weak;
        }
        Self::Strong {
            releases: has(&["release", "acq_rel"]),
            acquires: has(&["acquire", "acq_rel"]),
            device: !has(&["cta", "cluster"]),
        }
    }
}

/// What is kept for a block while it runs.
#[derive(Debug)]
pub(crate) struct BlockState {
    /// Of each warp.
    pub timelines: Vec<Timeline>,
    /// Of its shared memory.
    shadow: Shadow,
    /// Against other blocks.
    pub clock: BlockClock,
    /// What was left where threads wrote strongly to its shared memory after a fence, by position.
    flags: HashMap<u32, Release>,
    /// Asynchronous copies into or out of shared memory; those of rank 0 count for the cluster.
    copies: Channels,
}

impl BlockState {
    /// Of a block that begins, by its number over all launches; `lanes` are those that exist in each warp.
    pub(crate) fn new(rank: usize, number: u32, lanes: &[Mask], shared_bytes: usize) -> Self {
        let nothing = Rc::default();
        let timelines = lanes.iter().enumerate().map(|(warp, &lanes)| Timeline::new(rank * WARP + warp, lanes, &nothing)).collect();
        Self {
            timelines,
            shadow: Shadow::new(shared_bytes),
            clock: BlockClock::new(number),
            flags: HashMap::new(),
            copies: Channels::default(),
        }
    }
}

impl Cx<'_> {
    /// Notes an access of the lanes in `mask` to `size` bytes each of a block's shared memory, at byte positions from its start;
    /// all lie inside. Of a plain store use [`Cx::note_shared_store`].
    #[inline(always)]
    pub(crate) fn note_shared(&mut self, rank: usize, positions: &Lanes<u32>, mask: Mask, size: u32, access: Access) {
        self.shared_access(rank, positions, mask, size, access, &[]);
    }

    /// Notes a store before it is done: lanes that write the same are no race.
    #[inline(always)]
    pub(crate) fn note_shared_store(&mut self, rank: usize, positions: &Lanes<u32>, mask: Mask, size: u32, words: &[Lanes<u32>]) {
        self.shared_access(rank, positions, mask, size, Access::Write, words);
    }

    #[inline(always)]
    fn shared_access(&mut self, rank: usize, positions: &Lanes<u32>, mask: Mask, size: u32, access: Access, words: &[Lanes<u32>]) {
        if !self.checked() || mask == 0 {
            return;
        }
        let strength = self.strength();
        let strong = access == Access::Atomic || strength != Strength::Weak;
        if let Strength::Strong { releases: true, device, .. } = strength {
            self.fence(device);
        }
        // Taken out while the clocks of another block, or the same, are looked at.
        let mut shadow = std::mem::take(&mut self.blocks[rank].races.shadow);
        let timeline = &self.blocks[self.rank].races.timelines[self.warp.index];
        let mut conflicts = Vec::new();
        let mut left = mask;
        while left != 0 {
            let (part, clock) = timeline.part(left.trailing_zeros() as usize);
            let accessor = shared::Accessor {
                clock,
                epoch: timeline.now,
                warp: timeline.warp,
                pc: self.pc,
                write: access.writes(),
                strong,
                whole: access.is_by_warp(),
                copy: false,
            };
            shadow.note(positions, left & part, size, &accessor, &mut |conflict| conflicts.push(conflict));
            left &= !part;
        }
        self.blocks[rank].races.shadow = shadow;
        if !conflicts.is_empty() {
            self.report_shared(rank, positions, mask, size, access, words, &conflicts);
        }
        if strong {
            self.synchronize_shared(rank, positions, mask, access);
        }
    }

    /// Knows what was left at flags in shared memory, and leaves there what the lanes did before their last fence.
    #[cold]
    fn synchronize_shared(&mut self, rank: usize, positions: &Lanes<u32>, mask: Mask, access: Access) {
        let mut flags = std::mem::take(&mut self.blocks[rank].races.flags);
        let timeline = self.timeline();
        for lane in lanes_of(mask) {
            if access.reads()
                && let Some(left) = flags.get(&positions[lane])
            {
                timeline.acquire(1 << lane, left);
            }
            if access.writes() && timeline.has_fenced() {
                timeline.release_fenced(1 << lane, flags.entry(positions[lane]).or_default());
            }
        }
        self.blocks[rank].races.flags = flags;
    }

    /// Notes an access of the lanes in `mask` to `size` bytes each of an allocation, at byte offsets from its start; all lie
    /// inside. Of a plain store use [`Cx::note_global_store`].
    #[inline(always)]
    pub(crate) fn note_global(&mut self, allocation: usize, offsets: &Lanes<u64>, mask: Mask, size: u32, access: Access) {
        self.global_access(allocation, offsets, mask, size, access, &[]);
    }

    /// Notes a store before it is done: blocks that write the same are no race.
    #[inline(always)]
    pub(crate) fn note_global_store(
        &mut self,
        allocation: usize,
        offsets: &Lanes<u64>,
        mask: Mask,
        size: u32,
        words: &[Lanes<u32>],
    ) {
        self.global_access(allocation, offsets, mask, size, Access::Write, words);
    }

    #[inline(always)]
    fn global_access(
        &mut self,
        allocation: usize,
        offsets: &Lanes<u64>,
        mask: Mask,
        size: u32,
        access: Access,
        words: &[Lanes<u32>],
    ) {
        let shadows = self.launch.races;
        if !self.checked() || mask == 0 || !shadows.is_on() {
            return;
        }
        let strength = self.strength();
        let strong = access == Access::Atomic || strength != Strength::Weak;
        if let Strength::Strong { releases: true, device, .. } = strength {
            self.fence(device);
        }
        let clock = &self.blocks[self.rank].races.clock;
        let accessor = global::Accessor {
            clock,
            stamp: global::Stamp::new(clock.block, clock.now, self.warp.index, self.pc - self.launch.entry(), strong),
            write: access.writes(),
            split: shadows.split(),
        };
        let mut conflicts = Vec::new();
        let bytes = self.launch.memory.get(allocation).bytes;
        shadows.note(allocation, bytes, offsets, mask, size, &accessor, &mut |conflict| conflicts.push(conflict));
        if !conflicts.is_empty() {
            self.report_global(allocation, offsets, size, access, words, &conflicts);
        }
        if strong {
            let acquires = matches!(strength, Strength::Strong { acquires: true, device: true, .. });
            let warp = self.warp.index;
            let BlockState { timelines, clock, .. } = &mut self.blocks[self.rank].races;
            for lane in lanes_of(mask) {
                let fenced = timelines[warp].device_fenced(lane);
                let access = global::Synchronization { warp, fenced, reads: access.reads(), writes: access.writes(), acquires };
                shadows.synchronize(allocation, offsets[lane], clock, access);
            }
        }
    }

    /// A fence of the active lanes; `device`: its scope goes beyond the cluster. An operation with `.release` begins with one.
    pub(crate) fn fence(&mut self, device: bool) {
        if !self.checked() {
            return;
        }
        let active = self.active;
        self.timeline().fence(active);
        if device {
            let warp = self.warp.index;
            let ended = self.block().races.clock.fence(warp);
            self.timeline().fence_device(ended);
        }
    }

    /// Some lanes leave all that they have done and know for those who acquire it.
    pub(crate) fn release(&mut self, lanes: Mask, into: &mut Release) {
        if self.checked() {
            self.timeline().release(lanes, into);
        }
    }

    /// Some lanes know from now on what was left.
    pub(crate) fn acquire(&mut self, lanes: Mask, from: &Release) {
        if self.checked() {
            self.timeline().acquire(lanes, from);
        }
    }

    /// Lanes of the warp wait for each other.
    pub(crate) fn meet(&mut self, lanes: Mask) {
        if self.checked() {
            let mut release = Release::default();
            self.timeline().release(lanes, &mut release);
            self.timeline().meet(lanes, &release.into_shared());
        }
    }

    /// Notes that an asynchronous copy reads or writes bytes of a block's shared memory. `issued` is what the thread that asked
    /// for it left then ([`Cx::release`]); those who acquire `done` come after it.
    pub(crate) fn note_copy(&mut self, issued: &Release, told: Told, range: Range, write: bool, done: &mut Release) {
        let Range { rank, position, bytes } = range;
        if !self.checked() || bytes == 0 {
            return;
        }
        let (channel, number) = self.blocks[0].races.copies.take(told);
        let accessor = shared::Accessor {
            clock: issued.clock(),
            epoch: number,
            warp: channel / WARP,
            pc: self.pc,
            write,
            strong: false,
            whole: false,
            copy: true,
        };
        let mut conflicts = Vec::new();
        let shadow = &mut self.blocks[rank].races.shadow;
        let (start, bytes) = (position as u32, bytes as u32);
        shadow.note_range(start, bytes, channel % WARP, &accessor, &mut |conflict| conflicts.push(conflict));
        if !conflicts.is_empty() {
            let access = if write { Access::Write } else { Access::Read };
            self.report_copy(rank, access, &conflicts);
        }
        done.merge(issued);
        done.clock_mut().raise_copies(channel, number);
    }

    /// The thread in `lane` knows from now on that its first `groups` bulk groups are done.
    pub(crate) fn acquire_groups(&mut self, lane: usize, groups: u32) {
        let told = Told::Group { warp: self.rank * WARP + self.warp.index, lane, group: 0 };
        let Some(channel) = self.blocks[0].races.copies.index(told) else { return };
        let mut done = Release::default();
        done.clock_mut().raise_copies(channel, groups);
        self.acquire(1 << lane, &done);
    }

    fn timeline(&mut self) -> &mut Timeline {
        let index = self.warp.index;
        &mut self.block().races.timelines[index]
    }

    /// How the instruction's accesses order others.
    #[inline(always)]
    fn strength(&self) -> Strength {
        self.launch.program.instructions[self.pc as usize].strength
    }
}

/// Whether a block has synchronised with another of its cluster.
fn has_met(blocks: &[Block], rank: usize, warp: usize, lane: usize, other: usize) -> bool {
    let timeline = &blocks[rank].races.timelines[warp];
    timeline.part(lane).1.knows_any(other * WARP..(other + 1) * WARP)
}
