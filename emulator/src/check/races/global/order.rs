//! What orders blocks: fences, and the locations where they leave what they know.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use super::stamp::{MAX_EPOCH, Stamp};

/// Epochs of other blocks, by block.
type Known = HashMap<u32, u32>;

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
    pub(in super::super) fn fence(&mut self, warp: usize) -> u32 {
        let ended = self.now;
        self.now = (self.now + 1).min(MAX_EPOCH);
        if let Some(pending) = self.pending.remove(&warp) {
            join(&mut self.known, &pending);
        }
        ended
    }

    /// Whether what another block did is known to be done.
    pub(super) fn is_before(&self, stamp: Stamp) -> bool {
        // A flag is written after the fence, and has been seen by those who know of the fence.
        let flag = u32::from(stamp.is_strong());
        self.known.get(&stamp.block()).is_some_and(|&known| stamp.epoch() <= known + flag)
    }

    /// Whether no other block has told anything.
    pub(super) fn knows_nobody(&self) -> bool {
        self.known.is_empty()
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
pub(in super::super) struct Synchronization {
    /// Of the block.
    pub warp: usize,
    /// The last epoch of the block that a fence has ended which the thread knows of; 0 if there is none.
    pub fenced: u32,
    pub reads: bool,
    pub writes: bool,
    /// What it reads of is known at once.
    pub acquires: bool,
}

/// What was left at a location, and how often that has changed.
#[derive(Debug, Default, Clone)]
struct Left {
    version: u64,
    known: Arc<Known>,
}

/// What blocks left where they wrote atomically, by allocation and granule.
#[derive(Debug, Default)]
pub(super) struct Locations {
    /// Something was left somewhere.
    any: AtomicBool,
    left: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    left: HashMap<(u32, u64), Left>,
    /// Epochs kept in all of them.
    entries: usize,
}

/// Epochs to keep at locations in all.
const MAX_ENTRIES: usize = 1 << 23;

impl Locations {
    /// A strong access takes what was left there if it reads, and leaves something if it writes; false if there is too much to keep.
    pub(super) fn synchronize(&self, key: (u32, u64), clock: &mut BlockClock, access: Synchronization) -> bool {
        let leaves = access.writes && (access.fenced != 0 || !clock.known.is_empty());
        if !(leaves || access.reads && self.any.load(Acquire)) {
            return true;
        }
        let seen = (access.warp, key.0, key.1);
        let mut kept = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if access.reads
            && let Some(left) = kept.left.get(&key)
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
            let left = kept.left.entry(key).or_default();
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
            kept.entries += added;
            self.any.store(true, Release);
        }
        kept.entries <= MAX_ENTRIES
    }
}
