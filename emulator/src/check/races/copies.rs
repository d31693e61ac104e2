//! Who is told of the end of an asynchronous copy: those who wait for an `mbarrier`, or the thread that put it into a bulk group.
//! To all others it stays unknown, however long ago it was done.

use std::collections::HashMap;

use crate::machine::registers::WARP;

/// Where a copy's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    /// At an object: its block's rank, and its position.
    Mbarrier { rank: usize, position: usize },
    /// In a bulk group of a thread: its warp in the cluster, its lane, and the group's number from 0.
    Group { warp: usize, lane: usize, group: u32 },
}

impl Told {
    /// All groups of a thread are one channel.
    fn channel(self) -> Self {
        match self {
            Self::Group { warp, lane, .. } => Self::Group { warp, lane, group: 0 },
            Self::Mbarrier { .. } => self,
        }
    }
}

/// The channels of a cluster in the order of their first copies, and how many copies each has seen.
#[derive(Debug, Default)]
pub(super) struct Channels {
    known: HashMap<Told, (usize, u32)>,
}

impl Channels {
    /// As many as stamps can tell apart; further ones count as the last.
    const MAX: usize = 512 * WARP;

    /// Index of the channel that copies are told of in, if there was any.
    pub(super) fn index(&self, told: Told) -> Option<usize> {
        self.known.get(&told.channel()).map(|&(index, _)| index)
    }

    /// Takes one more copy: the channel's index, and the copy's number there from 1: that of the group, or in the order in which
    /// they are done.
    pub(super) fn take(&mut self, told: Told) -> (usize, u32) {
        let new = self.known.len().min(Self::MAX - 1);
        let (index, copies) = self.known.entry(told.channel()).or_insert((new, 0));
        *copies = copies.saturating_add(1);
        match told {
            Told::Mbarrier { .. } => (*index, *copies),
            Told::Group { group, .. } => (*index, group.saturating_add(1)),
        }
    }
}
