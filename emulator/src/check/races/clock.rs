//! Vector clocks of a cluster's threads (Lamport 1978, Mattern 1989).
//!
//! Time is counted per warp, in epochs that end whenever one of its lanes lets others know what it did. What a lane knows of other
//! warps is nearly always the same for all lanes of its warp, so a clock has one number per warp, and one per lane only where a
//! single lane synchronised. Lanes that know the same share one clock.

use std::rc::Rc;

use crate::machine::registers::{Mask, WARP};

/// Up to which epoch the accesses of one warp are known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Of all its lanes.
    Warp(u32),
    /// Of each lane.
    Lanes(Box<[u32; WARP]>),
}

impl Known {
    fn lane(&self, lane: usize) -> u32 {
        match self {
            Self::Warp(epoch) => *epoch,
            Self::Lanes(epochs) => epochs[lane % WARP],
        }
    }

    /// The epoch of some lanes replaced by a later one.
    fn raise_lanes(&mut self, lanes: Mask, later: u32) {
        match self {
            Self::Warp(epoch) if lanes == !0 => *epoch = (*epoch).max(later),
            _ => self.raise(|lane| if lanes >> lane & 1 == 1 { later } else { 0 }),
        }
    }

    /// Each lane's epoch replaced by a later one.
    fn raise(&mut self, later: impl Fn(usize) -> u32) {
        let epochs: [u32; WARP] = std::array::from_fn(|lane| self.lane(lane).max(later(lane)));
        let same = epochs.iter().all(|&epoch| epoch == epochs[0]);
        *self = if same { Self::Warp(epochs[0]) } else { Self::Lanes(Box::new(epochs)) };
    }
}

/// What has happened before: an epoch of each warp of the cluster, and the copies of each channel up to a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    warps: Vec<Known>,
    copies: Vec<u32>,
    /// The last epoch of the block that a fence of the device's scope has ended; of a cluster's blocks the latest.
    device_fenced: u32,
}

impl Clock {
    /// Whether an access of a lane, or of no lane in particular (`None`), happened before.
    #[inline(always)]
    pub(crate) fn covers(&self, warp: usize, lane: Option<usize>, epoch: u32) -> bool {
        match (self.warps.get(warp), lane) {
            (None, _) => false,
            (Some(Known::Warp(known)), _) => epoch <= *known,
            (Some(Known::Lanes(known)), Some(lane)) => epoch <= known[lane % WARP],
            (Some(Known::Lanes(known)), None) => known.iter().all(|&known| epoch <= known),
        }
    }

    /// Whether an asynchronous copy happened before.
    pub(crate) fn covers_copy(&self, channel: usize, number: u32) -> bool {
        self.copies.get(channel).is_some_and(|&known| number <= known)
    }

    /// Whether anything of the warps in a range is known.
    pub(crate) fn knows_any(&self, warps: std::ops::Range<usize>) -> bool {
        self.warps.iter().take(warps.end).skip(warps.start).any(|known| *known != Known::Warp(0))
    }

    /// Knows from now on all that `other` knows.
    pub(crate) fn join(&mut self, other: &Self) {
        if self.copies.len() < other.copies.len() {
            self.copies.resize(other.copies.len(), 0);
        }
        self.copies.iter_mut().zip(&other.copies).for_each(|(known, &other)| *known = (*known).max(other));
        self.device_fenced = self.device_fenced.max(other.device_fenced);
        if self.warps.len() < other.warps.len() {
            self.warps.resize(other.warps.len(), Known::Warp(0));
        }
        for (known, other) in self.warps.iter_mut().zip(&other.warps) {
            match (&mut *known, other) {
                (Known::Warp(epoch), Known::Warp(other)) => *epoch = (*epoch).max(*other),
                _ => known.raise(|lane| other.lane(lane)),
            }
        }
    }

    /// Knows from now on what some lanes of a warp did up to an epoch.
    fn raise(&mut self, warp: usize, lanes: Mask, epoch: u32) {
        self.known(warp).raise_lanes(lanes, epoch);
    }

    fn known(&mut self, warp: usize) -> &mut Known {
        if self.warps.len() <= warp {
            self.warps.resize(warp + 1, Known::Warp(0));
        }
        &mut self.warps[warp]
    }

    /// Knows from now on of a channel's asynchronous copies up to a number.
    pub(crate) fn raise_copies(&mut self, channel: usize, number: u32) {
        if self.copies.len() <= channel {
            self.copies.resize(channel + 1, 0);
        }
        self.copies[channel] = self.copies[channel].max(number);
    }
}

/// What threads that arrive somewhere leave for those who come after: an `mbarrier`, a barrier, a flag in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Release {
    clock: Clock,
    /// The clock joined last: warps that come from the same barrier share theirs.
    joined: Option<Rc<Clock>>,
}

impl Release {
    fn join(&mut self, clock: &Rc<Clock>) {
        if !self.joined.as_ref().is_some_and(|joined| Rc::ptr_eq(joined, clock)) {
            self.clock.join(clock);
            self.joined = Some(Rc::clone(clock));
        }
    }

    /// Adds what another release holds.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.clock.join(&other.clock);
        self.joined = None;
    }

    /// What has been left here.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What has been left here, for many to share.
    pub(crate) fn into_shared(self) -> Rc<Clock> {
        Rc::new(self.clock)
    }

    /// The same, to be added to.
    pub(crate) fn clock_mut(&mut self) -> &mut Clock {
        self.joined = None;
        &mut self.clock
    }
}

/// The time of one warp: its epoch, and what its lanes know of everybody.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    /// Number of the warp in its cluster: rank of the block times 32 plus number in the block.
    pub warp: usize,
    /// The epoch of what is done now.
    pub now: u32,
    /// The last epoch of each lane that a fence has ended.
    fenced: Known,
    /// The last epoch of the block that a fence of the device's scope by this warp has ended.
    device_fenced: u32,
    /// Lanes of the warp that have not ended.
    lanes: Mask,
    /// What the lanes know, those that know the same together.
    parts: Vec<(Mask, Rc<Clock>)>,
}

impl Timeline {
    /// Of a warp that begins, all of whose lanes know the same: nothing.
    pub(crate) fn new(warp: usize, lanes: Mask, known: &Rc<Clock>) -> Self {
        Self { warp, now: 1, fenced: Known::Warp(0), device_fenced: 0, lanes, parts: vec![(!0, Rc::clone(known))] }
    }

    /// Some lanes have ended.
    pub(crate) fn end(&mut self, lanes: Mask) {
        self.lanes &= !lanes;
    }

    /// The lanes that know the same as a given one, and what.
    #[inline(always)]
    pub(crate) fn part(&self, lane: usize) -> (Mask, &Rc<Clock>) {
        let part = self.parts.iter().find(|(lanes, _)| lanes >> lane & 1 == 1).unwrap_or(&self.parts[0]);
        (part.0, &part.1)
    }

    /// Ends the epoch.
    fn advance(&mut self) {
        // After four billion epochs no more races are seen.
        self.now = self.now.saturating_add(1);
    }

    /// Leaves all that some lanes have done and know.
    pub(crate) fn release(&mut self, lanes: Mask, into: &mut Release) {
        self.leave_known(lanes, into);
        into.clock.raise(self.warp, self.all_or(lanes), self.now);
        self.advance();
    }

    /// Leaves what some lanes did before their last fence, and what they know; nothing for those that never executed one.
    pub(crate) fn release_fenced(&mut self, lanes: Mask, into: &mut Release) {
        let fenced = (0..WARP).filter(|&lane| self.fenced.lane(lane) > 0).fold(0, |mask: Mask, lane| mask | 1 << lane);
        let lanes = lanes & fenced;
        if lanes != 0 {
            self.leave_known(lanes, into);
            into.clock.known(self.warp).raise(|lane| if lanes >> lane & 1 == 1 { self.fenced.lane(lane) } else { 0 });
        }
    }

    fn leave_known(&self, lanes: Mask, into: &mut Release) {
        for (part, clock) in &self.parts {
            if part & lanes != 0 {
                into.join(clock);
            }
        }
        into.clock.device_fenced = into.clock.device_fenced.max(self.device_fenced);
    }

    /// All lanes in place of all that there are: nobody waits for lanes that have ended or never existed.
    fn all_or(&self, lanes: Mask) -> Mask {
        if lanes & self.lanes == self.lanes { !0 } else { lanes }
    }

    /// A fence by some lanes: what flags that they write from now on will tell.
    pub(crate) fn fence(&mut self, lanes: Mask) {
        self.fenced.raise_lanes(self.all_or(lanes), self.now);
        self.advance();
    }

    /// A fence of the device's scope, which ends an epoch of the block.
    pub(super) fn fence_device(&mut self, ended: u32) {
        self.device_fenced = ended;
    }

    /// The last epoch of the block that a fence has ended which a lane knows of; 0 if there is none.
    pub(super) fn device_fenced(&self, lane: usize) -> u32 {
        self.part(lane).1.device_fenced.max(self.device_fenced)
    }

    /// Whether a fence was ever executed.
    pub(crate) fn has_fenced(&self) -> bool {
        self.fenced != Known::Warp(0)
    }

    /// Some lanes know from now on what was left.
    pub(crate) fn acquire(&mut self, lanes: Mask, from: &Release) {
        let mut parts = Vec::with_capacity(self.parts.len() + 1);
        for (part, clock) in self.parts.drain(..) {
            let (taking, others) = (part & lanes, part & !lanes);
            if others != 0 {
                parts.push((others, Rc::clone(&clock)));
            }
            if taking != 0 {
                let mut joined = (*clock).clone();
                joined.join(&from.clock);
                let clock = if joined == *clock { clock } else { Rc::new(joined) };
                parts.push((taking, clock));
            }
        }
        self.parts = parts;
        self.gather();
    }

    /// Lanes that left what they knew at a barrier, which has completed, know exactly what was left there.
    pub(crate) fn meet(&mut self, lanes: Mask, clock: &Rc<Clock>) {
        let lanes = self.all_or(lanes);
        self.parts.retain_mut(|(part, _)| {
            *part &= !lanes;
            *part != 0
        });
        self.parts.push((lanes, Rc::clone(clock)));
        self.gather();
    }

    /// Puts lanes together that know the same.
    fn gather(&mut self) {
        let mut at = 0;
        while at < self.parts.len() {
            let (lanes, clock) = self.parts[at].clone();
            let same = |other: &Rc<Clock>| Rc::ptr_eq(other, &clock) || **other == *clock;
            let mut more = 0;
            for (part, other) in &mut self.parts[at + 1..] {
                if same(other) {
                    more |= std::mem::take(part);
                }
            }
            self.parts[at].0 = lanes | more;
            self.parts.retain(|(part, _)| *part != 0);
            at += 1;
        }
    }
}
