//! A block while it runs: its shared memory and its barriers.

use super::registers::{Mask, WARP};
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
    pub barriers: [Barrier; BARRIERS],
    /// Lanes of each warp that have not exited.
    pub alive: Vec<Mask>,
    /// Lanes of each warp that waited and may go on.
    pub woken: Vec<Mask>,
}

impl Block {
    /// Starts the next phase of a barrier if all that it waits for have arrived, and wakes those who wait; whether it did.
    pub(crate) fn complete_barrier(&mut self, id: usize) -> bool {
        let (barrier, alive) = (&mut self.barriers[id], &self.alive);
        if barrier.arrived.is_empty() {
            return false;
        }
        let everyone = alive.iter().filter(|&&lanes| lanes != 0).count() as u32 * WARP as u32;
        if barrier.threads(alive) < barrier.expected.unwrap_or(everyone) {
            return false;
        }
        let arrived: u32 = barrier.arrived.iter().map(|lanes| lanes.count_ones()).sum();
        for (woken, waiting) in self.woken.iter_mut().zip(&barrier.waiting) {
            *woken |= waiting;
        }
        *barrier = Barrier { result: (barrier.holding, arrived), phase: barrier.phase + 1, ..Barrier::default() };
        true
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
    /// Instruction of the first arrival.
    pub pc: u32,
    /// Number of lanes whose predicate held (`bar.red`).
    pub holding: u32,
    /// What the last completed phase gave: lanes holding, lanes in all.
    pub result: (u32, u32),
    /// Completed phases.
    pub phase: u64,
}

impl Barrier {
    /// Threads that have arrived: a warp counts in full as soon as all its lanes that are `alive` have.
    pub(crate) fn threads(&self, alive: &[Mask]) -> u32 {
        let whole = |(arrived, alive): (&Mask, &Mask)| *arrived != 0 && arrived & alive == *alive;
        self.arrived.iter().zip(alive).filter(|pair| whole(*pair)).count() as u32 * WARP as u32
    }
}
