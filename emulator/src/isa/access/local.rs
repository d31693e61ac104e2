//! Local memory: each thread's own bytes.

use super::{Words, undefined_of, word_of};
use crate::check::Kind;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask};

impl Cx<'_> {
    pub(super) fn load_local<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &mut Words<W>) {
        for lane in lanes_of(lanes) {
            let Some(position) = self.local_position(lane, addresses[lane], size) else { continue };
            data.set_undefined(lane, undefined_of(self.warp.local_defined.get(position, size), size));
            for (word, bytes) in self.warp.local[position..position + size as usize].chunks(4).enumerate() {
                data.words[word][lane] = word_of(bytes);
            }
        }
        self.count_local(lanes, size);
    }

    pub(super) fn store_local<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &Words<W>) {
        for lane in lanes_of(lanes) {
            let Some(position) = self.local_position(lane, addresses[lane], size) else { continue };
            let undefined = if data.any_undefined { data.undefined[lane] } else { 0 };
            self.warp.local_defined.put(position, size, !undefined);
            for (word, bytes) in self.warp.local[position..position + size as usize].chunks_mut(4).enumerate() {
                bytes.copy_from_slice(&data.words[word][lane].to_le_bytes()[..bytes.len()]);
            }
        }
        self.count_local(lanes, size);
    }

    fn count_local(&mut self, lanes: Mask, size: u32) {
        self.worker.tallies[self.pc as usize].bytes += u64::from(lanes.count_ones() * size);
    }

    /// Where a lane's local address lies among the warp's local bytes; a finding if nowhere.
    fn local_position(&mut self, lane: usize, address: u64, size: u32) -> Option<usize> {
        if !self.is_aligned(lane, address, size) {
            return None;
        }
        let end = self.warp.local_bytes as u64;
        if address < end && u64::from(size) <= end - address {
            return Some(lane * self.warp.local_stride + address as usize);
        }
        self.report_at(Kind::OutOfBounds, lane, Some(address), None, || format!("{size} bytes outside the thread's local memory"));
        None
    }
}
