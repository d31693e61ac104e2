//! A warp: its registers and the groups of lanes that are at one place of the program.

use super::registers::{Base, Mask, Registers};

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
    /// Raised each time that the group gave way; the group that gave way least often goes first.
    pub turns: u64,
}

/// One call that has not returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Return {
    pub pc: u32,
    pub base: Base,
    pub function: u32,
    pub local: u32,
}

/// Whether a group can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// The instruction at `pc` was executed and waits; something else will set `Woken`.
    Waiting,
    /// The instruction at `pc` is to be executed again, told that it was woken.
    Woken,
    /// Arrived at a `.sync` instruction and waits for other lanes of its own warp.
    Meeting,
}

/// One warp of a block.
pub(crate) struct Warp {
    /// In its block.
    pub index: usize,
    /// Rank of its block in the cluster.
    pub rank: usize,
    pub registers: Registers,
    pub groups: Vec<Group>,
    /// Lanes that exist: a block's last warp can have fewer than 32.
    pub lanes: Mask,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    /// Local memory per lane, in bytes.
    pub local_stride: usize,
    /// Defined bytes of `local`, one bit each.
    pub local_defined: Vec<u64>,
}

impl Warp {
    /// Lanes that have not exited.
    pub(crate) fn alive(&self) -> Mask {
        self.groups.iter().fold(0, |lanes, group| lanes | group.lanes)
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
                if other.pc == group.pc && joinable(other.state) && joinable(group.state) && other.base == group.base && other.stack == group.stack {
                    group.lanes |= other.lanes;
                    group.state = State::Ready;
                    group.turns = group.turns.min(other.turns);
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
