//! A warp: its registers and the groups of lanes that are at one place of the program.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::progress::Cycle;
use super::registers::{Base, Mask, Registers, WARP};
use crate::check::products::Products;
use crate::isa::bulk_group::BulkGroups;
use crate::isa::cp_async::Copies;
use crate::memory::bits::Bits;

/// Lanes of a warp that share a program counter and a call stack.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub pc: u32,
    pub lanes: Mask,
    pub state: State,
    /// Where the calls return to, the outermost first.
    pub stack: Vec<Return>,
    /// Frame of the current function.
    pub base: Base,
    /// Function that is being executed.
    pub function: u32,
    /// Byte offset of the current frame in each lane's local memory.
    pub local: u32,
    /// It gave way, and others go first until all have.
    pub tired: bool,
}

/// One call that has not returned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Return {
    pub pc: u32,
    pub base: Base,
    pub function: u32,
    pub local: u32,
}

/// Whether a group can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Ready,
    /// The instruction at `pc` was executed and waits; something else will set `Woken`.
    Waiting,
    /// The instruction at `pc` is to be executed again, told that it was woken.
    Woken,
    /// Arrived at a `.sync` instruction and waits for other lanes of its own warp.
    Meeting,
    /// All whom it waited for at a `.sync` instruction have come, or have ended.
    Met,
}

/// One warp of a block.
pub(crate) struct Warp {
    /// In its block.
    pub index: usize,
    /// Rank of its block in the cluster.
    pub rank: usize,
    pub registers: Registers,
    pub groups: Vec<Group>,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    /// Bytes from one lane's local memory to the next's.
    pub local_stride: usize,
    /// Bytes of a lane's local memory that any frame has held so far.
    pub local_bytes: usize,
    /// Defined bytes of `local`.
    pub local_defined: Bits,
    /// What `cp.async` has yet to write.
    pub copies: Copies,
    /// What the threads' bulk groups hold.
    pub bulk: BulkGroups,
    /// What its asynchronous products use.
    pub products: Products,
    /// Whether it goes round in circles.
    pub cycle: Cycle,
    /// Instructions until that is looked at next.
    pub stretch: u32,
}

impl Warp {
    /// A warp whose lanes are all in one group.
    pub(crate) fn new(index: usize, rank: usize, registers: Registers, group: Group) -> Self {
        Self {
            index,
            rank,
            registers,
            copies: Copies::default(),
            bulk: BulkGroups::default(),
            groups: vec![group],
            local: Vec::new(),
            local_stride: 0,
            local_bytes: 0,
            local_defined: Bits::default(),
            cycle: Cycle::default(),
            stretch: 0,
            products: Products::default(),
        }
    }

    /// Becomes another warp of a launch of the same kernel, which keeps the room of this one.
    pub(crate) fn restart(&mut self, index: usize, rank: usize, group: Group) {
        (self.index, self.rank) = (index, rank);
        self.groups.clear();
        self.groups.push(group);
        self.copies = Copies::default();
        self.bulk = BulkGroups::default();
        self.products = Products::default();
        self.cycle = Cycle::default();
        self.stretch = 0;
    }

    /// Everything that decides what the warp does next, as long as nobody else does anything: two equal hashes are taken for equal
    /// states.
    pub(crate) fn state(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        let mut groups: Vec<&Group> = self.groups.iter().collect();
        groups.sort_by_key(|group| group.lanes);
        for group in groups {
            (group.pc, group.lanes, group.state, group.tired, group.function, &group.stack).hash(&mut hash);
        }
        self.registers.hash(&mut hash);
        self.local.hash(&mut hash);
        hash.finish()
    }

    /// Room for a frame of local memory of which nothing is defined for `lanes`.
    pub(crate) fn open_local(&mut self, offset: u32, bytes: u32, lanes: Mask) {
        let end = offset as usize + bytes as usize;
        self.local_bytes = self.local_bytes.max(end);
        if end > self.local_stride {
            self.grow_local(end.max(2 * self.local_stride));
        }
        self.forget_local(offset as usize, bytes as usize, lanes);
    }

    /// Copies bytes between two frames of some lanes' local memory, with what is known of them; both lie inside.
    pub(crate) fn copy_local(&mut self, lanes: Mask, from: usize, to: usize, bytes: usize) {
        for lane in (0..WARP).filter(|lane| lanes >> lane & 1 == 1) {
            let start = lane * self.local_stride;
            self.local.copy_within(start + from..start + from + bytes, start + to);
            for at in (0..bytes).step_by(32) {
                let count = (bytes - at).min(32) as u32;
                let defined = self.local_defined.get(start + from + at, count);
                self.local_defined.put(start + to + at, count, defined);
            }
        }
    }

    /// Makes each lane's local memory at least `stride` bytes; what is there stays.
    fn grow_local(&mut self, stride: usize) {
        let stride = stride.next_multiple_of(64);
        let (mut bytes, mut defined) = (vec![0; stride * WARP], Bits::new(stride * WARP));
        for lane in 0..WARP {
            let (from, to) = (lane * self.local_stride, lane * stride);
            bytes[to..to + self.local_stride].copy_from_slice(&self.local[from..from + self.local_stride]);
            for at in (0..self.local_stride).step_by(32) {
                defined.put(to + at, 32, self.local_defined.get(from + at, 32));
            }
        }
        (self.local, self.local_defined, self.local_stride) = (bytes, defined, stride);
    }

    /// Makes a range of some lanes' local memory undefined again.
    fn forget_local(&mut self, offset: usize, bytes: usize, lanes: Mask) {
        for lane in (0..WARP).filter(|lane| lanes >> lane & 1 == 1) {
            for at in (0..bytes).step_by(32) {
                self.local_defined.put(lane * self.local_stride + offset + at, (bytes - at).min(32) as u32, 0);
            }
        }
    }

    /// Merges groups that have met: same place, same calls, both ready.
    pub(crate) fn regroup(&mut self) {
        let mut at = 0;
        while at < self.groups.len() {
            let (kept, rest) = self.groups.split_at_mut(at + 1);
            let group = &mut kept[at];
            let mut merged = Vec::new();
            for (offset, other) in rest.iter().enumerate() {
                let joinable = |state: State| matches!(state, State::Ready | State::Meeting);
                if other.pc == group.pc
                    && joinable(other.state)
                    && joinable(group.state)
                    && other.base == group.base
                    && other.stack == group.stack
                {
                    group.lanes |= other.lanes;
                    group.state = State::Ready;
                    group.tired &= other.tired;
                    merged.push(at + 1 + offset);
                }
            }
            for index in merged.into_iter().rev() {
                self.groups.swap_remove(index);
            }
            at += 1;
        }
    }
}
