//! Global memory: bounds, sectors, and bytes that other cores may touch at the same time.

use super::{Words, fill_inactive, is_contiguous, undefined_of};
use crate::check::Kind;
use crate::check::races::Access;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask, WARP, each_lane};
use crate::memory::device::Allocation;

/// Bytes of a sector, the unit in which global memory is moved.
pub(crate) const SECTOR: u64 = 32;

/// Where a warp's accesses lie: one allocation, and the offset of each lane.
struct Place<'a> {
    index: usize,
    allocation: &'a Allocation,
    offsets: Lanes<u64>,
    contiguous: bool,
}

impl<'a> Cx<'a> {
    #[inline(always)]
    pub(super) fn load_global<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &mut Words<W>) {
        let Some(place) = self.place(lanes, addresses, size) else {
            return self
                .each_global(lanes, addresses, size, |cx, lane, addresses| cx.load_global(1 << lane, addresses, size, data));
        };
        let Place { index, allocation, offsets, contiguous } = place;
        let step = size.min(4);
        for (word, out) in data.words.iter_mut().enumerate().take((size as usize).div_ceil(4)) {
            let at = word as u64 * 4;
            if contiguous && lanes == !0 && size == 4 {
                allocation.load_warp(offsets[0], out);
            } else if lanes == !0 && step == 4 {
                for lane in 0..WARP {
                    out[lane] = allocation.load(offsets[lane] + at, 4) as u32;
                }
            } else {
                for lane in lanes_of(lanes) {
                    out[lane] = allocation.load(offsets[lane] + at, step) as u32;
                }
            }
        }
        self.count_global(index, lanes, &offsets, size, contiguous, Access::Read);
        if self.checked() {
            if !(allocation.is_all_defined()
                || contiguous && lanes == !0 && allocation.is_defined(offsets[0], u64::from(size) * WARP as u64))
            {
                for lane in lanes_of(lanes) {
                    data.set_undefined(lane, undefined_of(allocation.defined(offsets[lane], size), size));
                }
            }
            self.note_global(index, &offsets, lanes, size, Access::Read);
        }
    }

    #[inline(always)]
    pub(super) fn store_global<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &Words<W>) {
        let Some(place) = self.place(lanes, addresses, size) else {
            return self
                .each_global(lanes, addresses, size, |cx, lane, addresses| cx.store_global(1 << lane, addresses, size, data));
        };
        let Place { index, allocation, offsets, contiguous } = place;
        if self.launch.program.is_constant(self.launch.variables, allocation.address) {
            let lane = lanes.trailing_zeros() as usize;
            let buffer = Some((allocation.name.clone(), offsets[lane] as i64));
            return self
                .report_at(Kind::ReadOnly, lane, Some(addresses[lane]), buffer, || "constant memory cannot be written".into());
        }
        self.note_global_store(index, &offsets, lanes, size, &data.words[..(size as usize).div_ceil(4)]);
        let step = size.min(4);
        for (word, values) in data.words.iter().enumerate().take((size as usize).div_ceil(4)) {
            let at = word as u64 * 4;
            if contiguous && lanes == !0 && size == 4 {
                allocation.store_warp(offsets[0], values);
            } else if lanes == !0 && step == 4 {
                for lane in 0..WARP {
                    allocation.store(offsets[lane] + at, 4, u64::from(values[lane]));
                }
            } else {
                for lane in lanes_of(lanes) {
                    allocation.store(offsets[lane] + at, step, u64::from(values[lane]));
                }
            }
        }
        self.count_global(index, lanes, &offsets, size, contiguous, Access::Write);
        if contiguous && lanes == !0 && !data.any_undefined {
            allocation.define(offsets[0], u64::from(size) * WARP as u64, true);
        } else {
            for lane in lanes_of(lanes) {
                let undefined = if data.any_undefined { data.undefined[lane] } else { 0 };
                allocation.set_defined(offsets[lane], size, !undefined);
            }
        }
    }

    /// The allocation that all lanes' accesses lie in, aligned; `None` if they lie in several or something is wrong.
    #[inline(always)]
    fn place(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32) -> Option<Place<'a>> {
        let memory = self.launch.memory;
        let addresses = fill_inactive(lanes, addresses);
        let size = u64::from(size);
        let mut index = self.worker.last_allocation;
        if !memory.try_get(index).is_some_and(|allocation| allocation.holds(addresses[0], size)) {
            index = memory.find(addresses[0]).filter(|&index| memory.get(index).holds(addresses[0], size))?;
            self.worker.last_allocation = index;
        }
        let allocation = memory.get(index);
        let (start, last) = (allocation.address, allocation.bytes - size);
        let offsets = each_lane(|lane| addresses[lane].wrapping_sub(start));
        let contiguous = is_contiguous(&offsets, size as u32);
        let is_bad = |offset: u64| offset > last || offset & (size - 1) != 0;
        let bad = if contiguous {
            is_bad(offsets[0]) || is_bad(offsets[0] + size * (WARP as u64 - 1))
        } else {
            offsets.iter().fold(false, |bad, &offset| bad | is_bad(offset))
        };
        if bad {
            return None;
        }
        Some(Place { index, allocation, offsets, contiguous })
    }

    /// One lane at a time, where they lie in several allocations; what is wrong becomes a finding.
    #[cold]
    fn each_global(
        &mut self,
        lanes: Mask,
        addresses: &Lanes<u64>,
        size: u32,
        mut access: impl FnMut(&mut Self, usize, &Lanes<u64>),
    ) {
        for lane in lanes_of(lanes) {
            if self.is_aligned(lane, addresses[lane], size) && self.global_position(lane, addresses[lane], size).is_some() {
                access(self, lane, addresses);
            }
        }
    }

    /// The allocation and offset of one lane's access; a finding if there is none.
    pub(crate) fn global_position(&mut self, lane: usize, address: u64, size: u32) -> Option<(usize, u64)> {
        let memory = self.launch.memory;
        let index = memory.find(address);
        if let Some(index) = index.filter(|&index| memory.get(index).holds(address, u64::from(size))) {
            return Some((index, address - memory.get(index).address));
        }
        let nearest = index.map(|index| memory.get(index));
        let (kind, message) = match nearest {
            Some(allocation) if allocation.freed && address - allocation.address < allocation.bytes => {
                (Kind::UseAfterFree, format!("{size} bytes in `{}`, which was freed", allocation.name))
            }
            _ if address < 4096 => (Kind::OutOfBounds, format!("{size} bytes at a null pointer")),
            _ => (Kind::OutOfBounds, format!("{size} bytes outside every buffer")),
        };
        let buffer = nearest.map(|allocation| (allocation.name.clone(), address.wrapping_sub(allocation.address) as i64));
        self.report_at(kind, lane, Some(address), buffer, || message);
        None
    }

    /// Counts the sectors that a warp's access requests, and which of them the launch touches at all.
    #[inline(always)]
    pub(crate) fn count_global(
        &mut self,
        index: usize,
        lanes: Mask,
        offsets: &Lanes<u64>,
        size: u32,
        contiguous: bool,
        access: Access,
    ) {
        let lanes_active = u64::from(lanes.count_ones());
        let tally = &mut self.worker.tallies[self.pc as usize];
        tally.bytes += lanes_active * u64::from(size);
        let touched = &mut self.worker.touched[index];
        if contiguous && lanes == !0 {
            let (first, last) = (offsets[0] / SECTOR, (offsets[WARP - 1] + u64::from(size) - 1) / SECTOR);
            tally.sectors += last - first + 1;
            touched.mark(first, last, access);
            return;
        }
        let mut sectors = [u64::MAX; WARP];
        let mut count = 0;
        let mut previous = u64::MAX;
        let mut sorted = true;
        for lane in lanes_of(lanes) {
            // An aligned access of at most 32 bytes lies in one sector.
            let sector = offsets[lane] / SECTOR;
            if sector != previous {
                sorted &= count == 0 || sector > previous;
                sectors[count] = sector;
                count += 1;
                previous = sector;
            }
        }
        let sectors = &mut sectors[..count];
        if !sorted {
            sectors.sort_unstable();
        }
        let mut distinct = 0;
        let mut previous = u64::MAX;
        for &mut sector in sectors {
            if sector != previous {
                distinct += 1;
                touched.mark(sector, sector, access);
                previous = sector;
            }
        }
        tally.sectors += distinct;
    }
}
