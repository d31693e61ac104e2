//! Missing proxy fences: what threads write to shared memory, bulk and tensor copies and `wgmma`, which go another way to it, see
//! only behind `fence.proxy.async` (ISA, "Proxies"). The `mbarrier` that counts a copy's bytes is no such case: the copy accesses it
//! "using generic-proxy", so that whatever orders threads orders its initialisation.
//!
//! A fence counts if the thread that wrote executes it afterwards, or the thread that asks for the copy or product does.

use crate::check::Kind;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask, WARP};
use crate::memory::shared::SHARED_START;

/// What is known of one block.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    /// Fences of the cluster so far; that of rank 0 counts.
    fences: u32,
    /// The number of each thread's last fence.
    last_fence: Vec<u32>,
    /// For each 4-byte word of shared memory, who wrote it last; empty until somebody does.
    words: Vec<Option<Written>>,
}

/// A write by a thread.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// The thread's block in the cluster, and its number there.
    rank: u16,
    thread: u16,
    /// Fences of the cluster by then.
    fences: u32,
    pc: u32,
}

impl Proxies {
    fn last_fence(&self, thread: usize) -> u32 {
        self.last_fence.get(thread).copied().unwrap_or(0)
    }
}

impl Cx<'_> {
    /// Notes that lanes write `size` bytes each of a block's shared memory.
    #[inline(always)]
    pub(crate) fn note_thread_writes(&mut self, rank: usize, positions: &Lanes<u32>, lanes: Mask, size: u32) {
        if self.launch.uses_async_proxy {
            self.thread_writes(rank, positions, lanes, size);
        }
    }

    #[inline(never)]
    fn thread_writes(&mut self, rank: usize, positions: &Lanes<u32>, lanes: Mask, size: u32) {
        let (fences, pc, own, first) = (self.blocks[0].proxies.fences, self.pc, self.rank as u16, self.warp.index * WARP);
        let words = self.blocks[rank].shared.bytes.len().div_ceil(4);
        let proxies = &mut self.blocks[rank].proxies;
        proxies.words.resize(words, None);
        for lane in lanes_of(lanes) {
            let (start, end) = (positions[lane] as usize / 4, (positions[lane] + size).div_ceil(4) as usize);
            let written = Written { rank: own, thread: (first + lane) as u16, fences, pc };
            proxies.words[start..end].fill(Some(written));
        }
    }

    /// A fence between the proxies by the active lanes.
    pub(crate) fn proxy_fence(&mut self) {
        let proxies = &mut self.blocks[0].proxies;
        proxies.fences = proxies.fences.saturating_add(1);
        let (number, first, active) = (proxies.fences, self.warp.index * WARP, self.active);
        let proxies = &mut self.block().proxies;
        if proxies.last_fence.len() < first + WARP {
            proxies.last_fence.resize(first + WARP, 0);
        }
        for lane in lanes_of(active) {
            proxies.last_fence[first + lane] = number;
        }
    }

    /// Looks whether a copy or product that the thread in `lane` asks for sees what threads have written to a range of a block's shared memory.
    pub(crate) fn check_proxy(&mut self, rank: usize, position: usize, bytes: usize, lane: usize) {
        let words = self.blocks[rank].proxies.words.get(position / 4..(position + bytes).div_ceil(4)).unwrap_or_default();
        let own = self.blocks[self.rank].proxies.last_fence(self.warp.index * WARP + lane);
        let unfenced = words.iter().enumerate().find_map(|(word, written)| {
            let written = (*written)?;
            let theirs = self.blocks[usize::from(written.rank)].proxies.last_fence(written.thread.into());
            (own.max(theirs) <= written.fences).then_some((word, written.pc))
        });
        let Some((word, pc)) = unfenced.filter(|_| self.checked()) else { return };
        let address = SHARED_START + (position / 4 + word) as u32 * 4;
        let (place, buffer) = (self.launch.place(pc), self.launch.shared.nearest(address));
        self.report_at(Kind::MissingProxyFence, lane, Some(u64::from(address)), buffer, || {
            format!("no fence.proxy.async lies between the write at {place}, `{}`, and this read", place.instruction)
        });
    }

    /// Notes that a copy has written a range of a block's shared memory.
    pub(crate) fn note_copy_writes(&mut self, rank: usize, position: usize, bytes: usize) {
        let words = &mut self.blocks[rank].proxies.words;
        words.get_mut(position / 4..(position + bytes).div_ceil(4)).unwrap_or_default().fill(None);
    }
}
