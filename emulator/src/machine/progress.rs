//! Whether a launch still moves: what its workers tell each other.
//!
//! The epoch counts everything that another block could wait for: stores, arrivals, exits. A worker whose blocks have all been
//! proven to change nothing until the epoch changes sleeps here; when all workers sleep in one epoch, nothing will ever change it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Shared by the workers of a launch, and written all the time: in cache lines of its own, so that what lies beside it in the
/// launch stays in every worker's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    /// Clusters that workers have taken.
    taken: AtomicUsize,
    epoch: AtomicU64,
    executed: AtomicU64,
    exhausted: AtomicBool,
    /// Workers that sleep, or are about to.
    sleepers: AtomicUsize,
    workers: Mutex<Workers>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Workers {
    /// That have begun and not ended; one that has not begun has taken no blocks.
    running: usize,
    /// Of those, how many sleep in `epoch`.
    asleep: usize,
    /// The last one that anybody slept in.
    epoch: u64,
    /// All slept at once.
    dead: bool,
}

/// Why a sleeping worker was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Something happened: blocks that waited may go on.
    Moved,
    /// Nothing can happen any more.
    Dead,
    /// The launch has executed all the instructions that it may.
    Exhausted,
}

impl Progress {
    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker begins; to be called before it takes blocks.
    pub(crate) fn enter(&self) {
        self.workers().running += 1;
    }

    /// A worker ends: it holds no blocks, and none are left to take.
    pub(crate) fn leave(&self) {
        let mut workers = self.workers();
        workers.running -= 1;
        self.settle(&mut workers);
    }

    /// The next `count` clusters to start, in the launch's order.
    pub(crate) fn take(&self, count: usize) -> Range<usize> {
        let first = self.taken.fetch_add(count, Relaxed);
        first..first + count
    }

    /// The current epoch; whatever was done in earlier ones can be seen.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Tells of `effects` that others could wait for.
    pub(crate) fn moved(&self, effects: u64) {
        if effects == 0 {
            return;
        }
        // Who falls asleep says so before it looks at the epoch: one of the two sees the other.
        self.epoch.fetch_add(effects, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            let _workers = self.workers();
            self.changed.notify_all();
        }
    }

    /// Counts warp instructions; false if that is more than `limit` in all.
    pub(crate) fn count(&self, instructions: u64, limit: u64) -> bool {
        let total = self.executed.fetch_add(instructions, Relaxed).saturating_add(instructions);
        if total > limit && !self.exhausted.swap(true, AcqRel) {
            let _workers = self.workers();
            self.changed.notify_all();
        }
        !self.exhausted()
    }

    /// Whether the launch was stopped for its number of instructions.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted.load(Acquire)
    }

    /// Sleeps until something happens. The caller's blocks do nothing but wait as long as the epoch is `epoch`, and none are left to
    /// take.
    pub(crate) fn sleep(&self, epoch: u64) -> Wake {
        self.sleepers.fetch_add(1, SeqCst);
        let mut workers = self.workers();
        if self.epoch.load(SeqCst) == epoch {
            workers.asleep = if workers.epoch == epoch { workers.asleep + 1 } else { 1 };
            workers.epoch = epoch;
            self.settle(&mut workers);
        }
        let wake = loop {
            if self.exhausted() {
                break Wake::Exhausted;
            }
            if workers.dead {
                break Wake::Dead;
            }
            if self.epoch() != epoch {
                break Wake::Moved;
            }
            workers = self.changed.wait(workers).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, SeqCst);
        wake
    }

    fn settle(&self, workers: &mut Workers) {
        if workers.running > 0 && workers.asleep == workers.running && workers.epoch == self.epoch() {
            workers.dead = true;
            self.changed.notify_all();
        }
    }
}

/// Looks for a state that comes again (R. P. Brent 1980): a warp that returns to one while nothing else happened will do so for ever.
#[derive(Debug, Default)]
pub(crate) struct Cycle {
    epoch: u64,
    saved: u64,
    steps: u64,
    /// States noted in this epoch.
    notes: u32,
    /// Steps after which another state is saved; 0 while none is.
    power: u64,
    proven: bool,
}

impl Cycle {
    /// How many times a turn should be halved: short turns tell soon whether a warp spins, long ones cost little if it computes.
    pub(crate) fn hurry(&self, epoch: u64) -> u32 {
        // A warp that span before something happened is likely to spin on.
        if self.epoch == epoch || self.proven { 5u32.saturating_sub(self.notes) } else { 0 }
    }

    /// Takes note of a state in an epoch; whether it is known to come again and again as long as the epoch lasts.
    pub(crate) fn note(&mut self, epoch: u64, state: impl FnOnce() -> u64) -> bool {
        if self.epoch != epoch {
            *self = Self { epoch, notes: u32::from(!self.proven), ..Self::default() };
        } else if !self.proven {
            let state = state();
            self.proven = self.power > 0 && state == self.saved;
            self.notes = if self.proven { 0 } else { self.notes.saturating_add(1) };
            if self.steps == self.power {
                (self.saved, self.steps, self.power) = (state, 0, (2 * self.power).max(1));
            }
            self.steps += 1;
        }
        self.proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_of_any_length_are_found() {
        for (lead, period) in [(0, 1), (0, 7), (5, 3), (100, 64), (1000, 257)] {
            let mut cycle = Cycle::default();
            let states = (0u64..).map(|step| if step < lead { step } else { lead + (step - lead) % period });
            let found = states.take(20_000).position(|state| cycle.note(1, || state));
            assert!(found.is_some_and(|step| step as u64 >= lead + period), "{lead} {period}: {found:?}");
        }
        let mut cycle = Cycle::default();
        assert!((0..20_000).all(|state| !cycle.note(1, || state)), "a state that never comes again");
        let mut cycle = Cycle::default();
        assert!((0..20_000).all(|step| !cycle.note(step, || 0)), "something happens all the time");
    }

    #[test]
    fn sleepers_wake_when_something_happens_and_die_together() {
        let progress = Progress::default();
        progress.enter();
        progress.enter();
        let wakes = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let first = progress.sleep(0);
                let second = progress.sleep(progress.epoch());
                progress.leave();
                (first, second)
            });
            progress.moved(3);
            let wake = progress.sleep(3);
            progress.leave();
            (other.join(), wake)
        });
        assert_eq!((wakes.0.ok(), wakes.1), (Some((Wake::Moved, Wake::Dead)), Wake::Dead));
    }

    #[test]
    fn one_who_leaves_does_not_keep_others_waiting() {
        let progress = Progress::default();
        progress.enter();
        progress.enter();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| progress.sleep(0));
            progress.leave();
            assert_eq!(sleeper.join().ok(), Some(Wake::Dead));
        });
        let progress = Progress::default();
        progress.enter();
        progress.enter();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| progress.sleep(0));
            assert!(!progress.count(11, 10));
            assert_eq!(sleeper.join().ok(), Some(Wake::Exhausted));
        });
    }
}
