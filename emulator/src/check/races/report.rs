//! How a race is told: both parties, the variable, and what would have ordered them.

use super::{Access, global, has_met, shared};
use crate::check::Kind;
use crate::machine::execute::Cx;
use crate::machine::registers::{Lanes, Mask, WARP};
use crate::memory::shared::{RANK_SHIFT, SHARED_START};

impl Cx<'_> {
    /// Tells of the first race of an instruction in shared memory.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn report_shared(
        &mut self,
        rank: usize,
        positions: &Lanes<u32>,
        mask: Mask,
        size: u32,
        access: Access,
        words: &[Lanes<u32>],
        conflicts: &[shared::Conflict],
    ) {
        let own = self.rank * WARP + self.warp.index;
        for conflict in conflicts {
            let (lane, other) = (conflict.lane, conflict.other);
            // Lanes are noted in their order: an earlier lane of this access at the same place belongs to the same store.
            let at_once = conflict.wrote
                && access == Access::Write
                && !other.is_copy()
                && other.warp() == own
                && other.pc() == self.pc
                && other.lane() < lane
                && mask >> other.lane() & 1 == 1
                && positions[other.lane()] == positions[lane];
            if at_once {
                if words.iter().all(|word| word[lane] == word[other.lane()]) {
                    continue;
                }
                self.tell_shared(rank, conflict, || {
                    format!("lanes {} and {lane} store different values to one address in the same instruction", other.lane())
                });
                continue;
            }
            let same_again = || {
                let start = positions[lane] as usize;
                let memory = &self.blocks[rank].shared;
                let stored = |word: usize| memory.read(start + word * 4, size.min(4));
                !words.is_empty() && (0..(size as usize).div_ceil(4)).all(|word| stored(word) == low(words[word][lane], size))
            };
            if conflict.wrote && other.pc() == self.pc && same_again() {
                continue;
            }
            let message = self.describe_shared(conflict, name(access));
            self.tell_shared(rank, conflict, || message);
        }
    }

    /// Tells of a race of an asynchronous copy.
    #[cold]
    pub(super) fn report_copy(&mut self, rank: usize, access: Access, conflicts: &[shared::Conflict]) {
        for conflict in conflicts {
            let message = self.describe_shared(conflict, if access.writes() { "asynchronous write" } else { "asynchronous read" });
            let lane = self.active.trailing_zeros().min(31) as usize;
            self.tell_shared(rank, &shared::Conflict { lane, ..*conflict }, || message);
        }
    }

    fn describe_shared(&self, conflict: &shared::Conflict, what: &str) -> String {
        let other = conflict.other;
        let place = self.launch.place(other.pc());
        let did = if conflict.wrote { "write" } else { "read" };
        if other.is_copy() {
            return format!(
                "this {what} is not ordered after the {did} of the asynchronous copy `{}` at {place}",
                place.instruction
            );
        }
        let (block, warp) = (other.warp() / WARP, other.warp() % WARP);
        let [x, y, z] = self.launch.thread(warp, other.lane());
        let who = if other.is_whole() { format!("warp {warp}") } else { format!("thread ({x}, {y}, {z})") };
        let of = match self.blocks.get(block) {
            Some(block) if self.blocks.len() > 1 => format!(" of block {:?}", block.coordinates),
            _ => String::new(),
        };
        let missing = if other.warp() == self.rank * WARP + self.warp.index { "__syncwarp or barrier" } else { "barrier" };
        format!(
            "this {what} is not ordered after the {did} by {who}{of} at {place}: `{}` (PTX line {}); no {missing} lies between them",
            place.instruction, place.ptx_line
        )
    }

    fn tell_shared(&mut self, rank: usize, conflict: &shared::Conflict, message: impl FnOnce() -> String) {
        let address = conflict.position + SHARED_START;
        let buffer = self.launch.shared.nearest(address);
        let window = if rank == self.rank { 0 } else { (rank as u32 + 1) << RANK_SHIFT };
        self.report_at(Kind::SharedRace, conflict.lane, Some(u64::from(window | address)), buffer, message);
    }

    /// Tells of races between blocks.
    #[cold]
    pub(super) fn report_global(
        &mut self,
        allocation: usize,
        offsets: &Lanes<u64>,
        size: u32,
        access: Access,
        words: &[Lanes<u32>],
        conflicts: &[global::Conflict],
    ) {
        let memory = self.launch.memory.get(allocation);
        for conflict in conflicts {
            let (lane, other) = (conflict.lane, conflict.other);
            let index = self.launch.races.index(other.block());
            let friend = self.blocks.iter().position(|block| block.index == index);
            if friend.is_some_and(|friend| friend != self.rank && has_met(self.blocks, self.rank, self.warp.index, lane, friend)) {
                continue;
            }
            let pc = other.instruction().map(|instruction| instruction + self.launch.entry());
            let same_again = || {
                let stored = |word: usize| memory.load(offsets[lane] + word as u64 * 4, size.min(4)) as u32;
                !words.is_empty() && (0..(size as usize).div_ceil(4)).all(|word| stored(word) == low(words[word][lane], size))
            };
            if conflict.wrote && pc == Some(self.pc) && same_again() {
                continue;
            }
            let what = name(access);
            let did = match (conflict.wrote, other.is_strong()) {
                (true, true) => "atomic write",
                (true, false) => "write",
                (false, _) => "read",
            };
            let [x, y, z] = self.launch.coordinates(index);
            let who = if friend == Some(self.rank) {
                "another block".into()
            } else {
                format!("block ({x}, {y}, {z}), warp {}", other.warp())
            };
            let place = pc.map(|pc| self.launch.place(pc));
            let at = place.map(|place| format!(" at {place}: `{}` (PTX line {})", place.instruction, place.ptx_line));
            let address = memory.address + conflict.offset;
            let buffer = Some((memory.name.clone(), conflict.offset as i64));
            self.report_at(Kind::GlobalRace, lane, Some(address), buffer, || {
                format!(
                    "this {what} and the {did} by {who}{} are not ordered: no fence and atomic lie between them",
                    at.unwrap_or_default()
                )
            });
        }
    }
}

fn name(access: Access) -> &'static str {
    match access {
        Access::Read | Access::ReadByWarp => "read",
        Access::Write | Access::WriteByWarp => "write",
        Access::Atomic => "atomic",
    }
}

/// The part of a word that a store of `size` bytes moves.
fn low(word: u32, size: u32) -> u32 {
    if size >= 4 { word } else { word & ((1 << (size * 8)) - 1) }
}
