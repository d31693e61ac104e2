//! Rows of 16 bytes of shared memory, as the matrix units move them.

use super::undefined_of;
use crate::check::races::Access;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask, WARP};
use crate::memory::shared::Shared;
use crate::tensor::matrix8x8::Row;

/// Bytes of a row.
const ROW: u32 = 16;

/// One row for each lane that points to one.
pub(crate) struct Rows {
    pub rows: [Row; WARP],
    /// Undefined bytes of each row, the first in bit 0; means nothing unless `any_undefined`.
    pub undefined: Lanes<u32>,
    pub any_undefined: bool,
}

impl Rows {
    #[inline(always)]
    pub(crate) fn zero() -> Self {
        Self { rows: [[0; 4]; WARP], undefined: [0; WARP], any_undefined: false }
    }
}

impl Cx<'_> {
    /// Reads the row at the shared address that each of `lanes` gives; rows of other lanes stay as they are.
    #[inline(always)]
    pub(crate) fn load_rows(&mut self, lanes: Mask, addresses: &Lanes<u64>, rows: &mut Rows) {
        if lanes == 0 {
            return;
        }
        let Some((rank, positions, contiguous)) = self.shared_place(lanes, addresses, ROW) else {
            return self.each_shared(lanes, addresses, ROW, |cx, lane| cx.load_rows(1 << lane, addresses, rows));
        };
        let shared = &self.blocks[rank].shared;
        for lane in lanes_of(lanes) {
            rows.rows[lane] = shared.row(positions[lane] as usize);
        }
        if self.checked() {
            for lane in lanes_of(lanes) {
                let undefined = undefined_of(self.blocks[rank].shared.defined.get(positions[lane] as usize, ROW), ROW);
                rows.undefined[lane] = undefined;
                rows.any_undefined |= undefined != 0;
            }
            self.note_shared(rank, &positions, lanes, ROW, Access::ReadByWarp);
            self.check_in_flight(rank, &positions, lanes, ROW, Access::Read);
        }
        self.count_shared(lanes, &positions, ROW, contiguous);
    }

    /// Writes the row of each of `lanes` to the shared address that it gives.
    #[inline(always)]
    pub(crate) fn store_rows(&mut self, lanes: Mask, addresses: &Lanes<u64>, rows: &Rows) {
        if lanes == 0 {
            return;
        }
        let Some((rank, positions, contiguous)) = self.shared_place(lanes, addresses, ROW) else {
            return self.each_shared(lanes, addresses, ROW, |cx, lane| cx.store_rows(1 << lane, addresses, rows));
        };
        if self.checked() {
            self.check_in_flight(rank, &positions, lanes, ROW, Access::Write);
            self.note_thread_writes(rank, &positions, lanes, ROW);
            self.note_shared(rank, &positions, lanes, ROW, Access::WriteByWarp);
        }
        let shared = &mut self.blocks[rank].shared;
        for lane in lanes_of(lanes) {
            let at = positions[lane] as usize;
            shared.bytes[at..at + ROW as usize].copy_from_slice(bytemuck::bytes_of(&rows.rows[lane].map(u32::to_le)));
            let undefined = if rows.any_undefined { rows.undefined[lane] } else { 0 };
            shared.defined.put(at, ROW, !undefined);
        }
        self.count_shared(lanes, &positions, ROW, contiguous);
    }
}

impl Shared {
    /// The 16 bytes at a position where they exist.
    #[inline(always)]
    pub(crate) fn row(&self, position: usize) -> Row {
        let words = self.bytes[position..position + ROW as usize].as_chunks::<4>().0;
        std::array::from_fn(|word| u32::from_le_bytes(words[word]))
    }
}
