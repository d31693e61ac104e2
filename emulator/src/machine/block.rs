//! A block while it runs: its shared memory and its barriers.

use std::collections::{BTreeMap, VecDeque};

use super::registers::{Mask, WARP};
use super::transfer::Transfer;
use crate::check::proxy::Proxies;
use crate::check::races::{BlockState, Release};
use crate::isa::mbarrier::Object;
use crate::isa::wgmma::Warpgroup;
use crate::memory::in_flight::InFlight;
use crate::memory::shared::Shared;

/// Barriers of a block that `bar` names by number.
pub(crate) const BARRIERS: usize = 16;

/// One of a cluster's blocks.
pub(crate) struct Block {
    /// `blockIdx`.
    pub coordinates: [u32; 3],
    /// In the order in which `blockIdx` counts, x fastest.
    pub index: u32,
    pub shared: Shared,
    /// What asynchronous operations have yet to write and read there.
    pub in_flight: InFlight,
    /// The numbered barriers, up to the highest that was used.
    pub barriers: Vec<Barrier>,
    /// The `mbarrier` objects there, by their position.
    pub mbarriers: BTreeMap<usize, Object>,
    /// Which writes by threads copies can see.
    pub proxies: Proxies,
    /// Asynchronous operations that the block's threads have asked for and that are not done.
    pub transfers: VecDeque<Transfer>,
    /// The cluster's barrier; that of rank 0 is the one in use.
    pub cluster_barrier: ClusterBarrier,
    /// What each warpgroup's products have come to, up to the last that had any.
    pub warpgroups: Vec<Warpgroup>,
    /// Lanes of each warp that exist.
    pub lanes: Vec<Mask>,
    /// Lanes of each warp that have not exited.
    pub alive: Vec<Mask>,
    /// Lanes of each warp that waited and may go on.
    pub woken: Vec<Mask>,
    /// What orders its threads, and what they accessed.
    pub races: BlockState,
}

impl Block {
    /// Whether all its threads have exited.
    pub(crate) fn has_ended(&self) -> bool {
        self.alive.iter().all(|&lanes| lanes == 0)
    }
}

/// One numbered barrier: who has arrived in its current phase.
#[derive(Debug, Default, Clone)]
pub(crate) struct Barrier {
    /// Lanes of each warp that have arrived; empty when nobody has.
    pub arrived: Vec<Mask>,
    /// Those of them that wait (`bar.sync`, not `bar.arrive`).
    pub waiting: Vec<Mask>,
    /// Threads expected, as the first arrival said; `None`: all of the block.
    pub expected: Option<u32>,
    /// Instruction of the first arrival, and its warp.
    pub first: (u32, usize),
    /// Number of lanes whose predicate held (`bar.red`).
    pub holding: u32,
    /// What the last phase that each warp waited for gave: lanes holding, lanes in all.
    pub results: Vec<(u32, u32)>,
    /// What those who came had done.
    pub release: Release,
}

impl Barrier {
    /// Whether nobody has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.arrived.is_empty()
    }

    /// Threads that have arrived: a warp counts in full as soon as all its lanes that are `alive` have.
    pub(crate) fn threads(&self, alive: &[Mask]) -> u32 {
        let whole = |(arrived, alive): (&Mask, &Mask)| *arrived != 0 && alive & !arrived == 0;
        self.arrived.iter().zip(alive).filter(|pair| whole(*pair)).count() as u32 * WARP as u32
    }

    /// Whether all have arrived that it waits for.
    pub(crate) fn is_complete(&self, alive: &[Mask]) -> bool {
        match self.expected {
            _ if self.is_idle() => false,
            Some(expected) => self.threads(alive) >= expected,
            None => self.arrived.iter().zip(alive).all(|(arrived, alive)| alive & !arrived == 0),
        }
    }
}

/// The barrier of a cluster, on which arriving and waiting are two instructions.
#[derive(Debug, Default)]
pub(crate) struct ClusterBarrier {
    /// Lanes that have arrived in the current phase, by rank and warp.
    pub arrived: Vec<Vec<Mask>>,
    /// Lanes that have arrived and not yet waited, in this phase or the last.
    pub pending: Vec<Vec<Mask>>,
    /// Lanes that wait for the current phase.
    pub waiting: Vec<Vec<Mask>>,
    /// What those who came in this phase had done, and in the last one.
    pub release: Release,
    pub completed: Release,
}
