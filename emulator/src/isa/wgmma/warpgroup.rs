//! When the products of a warpgroup are complete.
//!
//! A product is one operation of four warps: hardware starts it when the last of them has come, so that a warp whose
//! `wgmma.wait_group` has passed knows that the other three have read their operands too. Pipelines rely on it: one thread of a
//! warpgroup hands a stage back for all four warps.

use std::collections::BTreeMap;

use crate::check::races::Release;
use crate::machine::block::Block;
use crate::machine::execute::Cx;
use crate::machine::registers::Mask;
use crate::memory::in_flight::Use;

/// Warps of a warpgroup.
pub(super) const WARPS: usize = 4;

/// What four warps have committed and wait for.
#[derive(Default)]
pub(crate) struct Warpgroup {
    warps: [Warp; WARPS],
    /// What the warps had done when they committed a group, by its number.
    left: BTreeMap<u64, Release>,
    /// Bytes of shared memory that products read: group, position, count.
    reading: Vec<(u64, u32, u32)>,
}

#[derive(Default)]
struct Warp {
    /// Groups committed so far: the number of the group that products join now.
    committed: u64,
    /// Groups below this number are waited for.
    complete: u64,
    /// The same when a wait has last passed.
    passed: u64,
    /// Lanes that wait for the other warps.
    waiting: Mask,
}

impl Warpgroup {
    /// Whether all warps of which `alive` says that they still run have committed the groups below `group`.
    fn has_committed(&self, group: u64, alive: &[Mask]) -> bool {
        self.warps.iter().zip(alive).all(|(warp, &alive)| alive == 0 || warp.committed >= group)
    }
}

/// Wakes those of a block's warps that wait for what the others have committed by now.
pub(crate) fn wake(block: &mut Block) {
    let warps = block.alive.chunks(WARPS).zip(block.woken.chunks_mut(WARPS));
    for (group, (alive, woken)) in block.warpgroups.iter_mut().zip(warps) {
        for (index, woken) in woken.iter_mut().enumerate() {
            if group.warps[index].waiting != 0 && group.has_committed(group.warps[index].complete, alive) {
                *woken |= std::mem::take(&mut group.warps[index].waiting);
            }
        }
    }
}

impl Cx<'_> {
    /// The warp's warpgroup, and the warp's place in it.
    fn warpgroup(&mut self) -> (&mut Warpgroup, usize) {
        let (group, place) = (self.warp.index / WARPS, self.warp.index % WARPS);
        let groups = &mut self.block().warpgroups;
        if groups.len() <= group {
            groups.resize_with(group + 1, Warpgroup::default);
        }
        (&mut groups[group], place)
    }

    /// `wgmma.commit_group`
    pub(super) fn commit_group(&mut self) {
        self.worker.effects += 1;
        let mut release = Release::default();
        self.release(self.active, &mut release);
        let checked = self.checked();
        let (group, place) = self.warpgroup();
        let warp = &mut group.warps[place];
        if checked {
            group.left.entry(warp.committed).or_default().merge(&release);
        }
        warp.committed += 1;
        wake(self.block());
    }

    /// `wgmma.wait_group`: whether all but the last `pending` groups are complete. If not, the warp is woken when they are.
    pub(super) fn groups_are_complete(&mut self, pending: u64) -> bool {
        let (active, resumed) = (self.active, self.resumed);
        let first = self.warp.index / WARPS * WARPS;
        let alive: Vec<Mask> = self.block().alive.iter().skip(first).take(WARPS).copied().collect();
        let (group, place) = self.warpgroup();
        let warp = &mut group.warps[place];
        warp.complete = warp.complete.max(warp.committed.saturating_sub(pending));
        let complete = warp.complete;
        if !resumed && !group.has_committed(complete, &alive) {
            group.warps[place].waiting = active;
            return false;
        }
        if self.checked() {
            self.come_after_products(complete);
        }
        true
    }

    /// What the four warps did for groups below `complete` is done, and the active lanes know it.
    fn come_after_products(&mut self, complete: u64) {
        let (group, _) = self.warpgroup();
        let done: Vec<(u64, u32, u32)> = group.reading.extract_if(.., |(group, ..)| *group < complete).collect();
        let left = std::mem::take(&mut group.left);
        for (_, position, bytes) in done {
            self.end_in_flight(self.rank, position as usize, bytes as usize, Use::Reads);
        }
        for release in left.range(..complete).map(|(_, release)| release) {
            self.acquire(self.active, release);
        }
        let first = self.warp.index / WARPS * WARPS;
        let running: Vec<bool> = self.block().alive.iter().skip(first).take(WARPS).map(|&lanes| lanes != 0).collect();
        let (group, place) = self.warpgroup();
        group.warps[place].passed = complete;
        // Nobody will wait again for groups that all have waited for.
        let over = group.warps.iter().zip(running).filter(|(_, running)| *running).map(|(warp, _)| warp.passed).min();
        group.left = left;
        group.left.retain(|&number, _| Some(number) >= over);
    }

    /// A product reads bytes of the block's shared memory until its group has been waited for.
    pub(super) fn begin_product_read(&mut self, position: u32, bytes: u32) {
        let lane = self.active.trailing_zeros() as usize;
        self.begin_in_flight(self.rank, position as usize, bytes as usize, Use::Reads, lane);
        let (group, place) = self.warpgroup();
        let number = group.warps[place].committed;
        group.reading.push((number, position, bytes));
    }
}
