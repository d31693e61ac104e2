//! Shared memory: variables with gaps between them, banks, and other blocks of the cluster.

use super::{Words, fill_inactive, is_contiguous, undefined_of};
use crate::check::Kind;
use crate::check::races::Access;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask, WARP, each_lane};
use crate::memory::shared::{RANK_SHIFT, SHARED_START};

/// Banks of shared memory, each 4 bytes wide.
const BANKS: usize = 32;

impl Cx<'_> {
    #[inline(always)]
    pub(super) fn load_shared<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &mut Words<W>) {
        let Some((rank, positions, contiguous)) = self.shared_place(lanes, addresses, size) else {
            return self.each_shared(lanes, addresses, size, |cx, lane| cx.load_shared(1 << lane, addresses, size, data));
        };
        let shared = &self.blocks[rank].shared;
        for (word, out) in data.words.iter_mut().enumerate().take((size as usize).div_ceil(4)) {
            for lane in 0..WARP {
                let value = shared.read(positions[lane] as usize + word * 4, size.min(4));
                out[lane] = if lanes >> lane & 1 == 1 { value } else { out[lane] };
            }
        }
        if self.checked() {
            let whole = contiguous && lanes == !0 && shared.defined.all(positions[0] as usize, size as usize * WARP);
            if !whole {
                for lane in lanes_of(lanes) {
                    data.set_undefined(
                        lane,
                        undefined_of(self.blocks[rank].shared.defined.get(positions[lane] as usize, size), size),
                    );
                }
            }
            self.check_in_flight(rank, &positions, lanes, size, Access::Read);
            self.note_shared(rank, &positions, lanes, size, Access::Read);
        }
        self.count_shared(lanes, &positions, size, contiguous);
    }

    #[inline(always)]
    pub(super) fn store_shared<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &Words<W>) {
        let Some((rank, positions, contiguous)) = self.shared_place(lanes, addresses, size) else {
            return self.each_shared(lanes, addresses, size, |cx, lane| cx.store_shared(1 << lane, addresses, size, data));
        };
        if self.checked() {
            self.check_in_flight(rank, &positions, lanes, size, Access::Write);
        }
        self.note_shared_store(rank, &positions, lanes, size, &data.words[..(size as usize).div_ceil(4)]);
        let shared = &mut self.blocks[rank].shared;
        for (word, values) in data.words.iter().enumerate().take((size as usize).div_ceil(4)) {
            for lane in lanes_of(lanes) {
                shared.write(positions[lane] as usize + word * 4, size.min(4), values[lane]);
            }
        }
        if contiguous && lanes == !0 && !data.any_undefined {
            shared.defined.fill(positions[0] as usize, size as usize * WARP);
        } else {
            for lane in lanes_of(lanes) {
                let undefined = if data.any_undefined { data.undefined[lane] } else { 0 };
                shared.defined.put(positions[lane] as usize, size, !undefined);
            }
        }
        self.count_shared(lanes, &positions, size, contiguous);
    }

    /// The block whose memory all lanes mean, and where; `None` if they mean several or something is wrong.
    #[inline(always)]
    pub(super) fn shared_place(&self, lanes: Mask, addresses: &Lanes<u64>, size: u32) -> Option<(usize, Lanes<u32>, bool)> {
        let addresses = fill_inactive(lanes, addresses);
        let rank = match addresses[0] as u32 >> RANK_SHIFT {
            0 => self.rank,
            other => other as usize - 1,
        };
        let shared = &self.blocks.get(rank)?.shared;
        let start = addresses[0] >> RANK_SHIFT << RANK_SHIFT | u64::from(SHARED_START);
        let last = (shared.bytes.len() as u64).checked_sub(u64::from(size))?;
        let positions = each_lane(|lane| addresses[lane].wrapping_sub(start));
        let mut bad = false;
        for &position in &positions {
            bad |= position > last || position & u64::from(size - 1) != 0;
        }
        if bad {
            return None;
        }
        let contiguous = is_contiguous(&positions, size);
        let valid = if contiguous && lanes == !0 {
            shared.valid.all(positions[0] as usize, size as usize * WARP)
        } else {
            lanes_of(lanes).all(|lane| shared.valid.get(positions[lane] as usize, size) == crate::memory::bits::ones(size))
        };
        valid.then(|| (rank, each_lane(|lane| positions[lane] as u32), contiguous))
    }

    #[cold]
    pub(super) fn each_shared(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, mut access: impl FnMut(&mut Self, usize)) {
        for lane in lanes_of(lanes) {
            if self.is_aligned(lane, addresses[lane], size) && self.shared_position(lane, addresses[lane], size).is_some() {
                access(self, lane);
            }
        }
    }

    /// The block and position that one lane's address means; a finding if there is none.
    pub(crate) fn shared_position(&mut self, lane: usize, address: u64, size: u32) -> Option<(usize, usize)> {
        let rank = match address >> RANK_SHIFT {
            0 => self.rank,
            other => other as usize - 1,
        };
        let position = self.blocks.get(rank).and_then(|block| block.shared.position(address as u32, size));
        if position.is_none() {
            let buffer = self.launch.shared.nearest(address as u32);
            self.report_at(Kind::OutOfBounds, lane, Some(address), buffer, || {
                format!("{size} bytes outside the block's shared memory")
            });
        }
        Some((rank, position?))
    }

    /// Counts the passes over the banks that an access takes.
    #[inline(always)]
    pub(crate) fn count_shared(&mut self, lanes: Mask, positions: &Lanes<u32>, size: u32, contiguous: bool) {
        let per_pass = (BANKS as u32 * 4 / size.max(4)) as usize;
        let (mut wavefronts, mut ideal) = (0, 0);
        if contiguous && lanes == !0 && size >= 4 {
            (wavefronts, ideal) = ((WARP / per_pass) as u64, (WARP / per_pass) as u64);
        } else {
            for first in (0..WARP).step_by(per_pass) {
                let part = lanes >> first & crate::memory::bits::ones(per_pass as u32);
                if part != 0 {
                    wavefronts += passes(part, &positions[first..first + per_pass], size);
                    ideal += 1;
                }
            }
        }
        let tally = &mut self.worker.tallies[self.pc as usize];
        tally.bytes += u64::from(lanes.count_ones() * size);
        tally.wavefronts += wavefronts;
        tally.ideal_wavefronts += ideal;
    }
}

/// Passes over the banks for lanes that access one 128-byte row's worth together: the most distinct words that one bank has to
/// give. Lanes that read the same word share it.
pub(crate) fn passes(lanes: Mask, positions: &[u32], size: u32) -> u64 {
    if size == 16 && lanes == crate::memory::bits::ones(8) {
        // Eight times four banks, all of them different: the common case of `ldmatrix`.
        let banks = positions.iter().take(8).fold(0u32, |seen, position| seen | 1 << (position / 16 % 8));
        if banks == 0xff {
            return 1;
        }
    }
    let mut words = [0u32; WARP * 2];
    let mut count = 0;
    let mut seen = [u32::MAX; BANKS];
    let mut conflict = false;
    for lane in lanes_of(lanes) {
        for part in 0..size.div_ceil(4) {
            let word = positions[lane] / 4 + part;
            let slot = &mut seen[word as usize % BANKS];
            if *slot == word {
                continue;
            }
            conflict |= *slot != u32::MAX;
            *slot = word;
            if count < words.len() {
                words[count] = word;
                count += 1;
            }
        }
    }
    if !conflict {
        return 1;
    }
    let words = &mut words[..count];
    words.sort_unstable_by_key(|word| (word % BANKS as u32, *word));
    let (mut worst, mut run, mut previous) = (1, 0, u32::MAX);
    for &mut word in words {
        if word == previous {
            continue;
        }
        run = if previous != u32::MAX && previous % BANKS as u32 == word % BANKS as u32 { run + 1 } else { 1 };
        worst = worst.max(run);
        previous = word;
    }
    worst
}
