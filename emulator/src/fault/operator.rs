//! The kinds of mistake, with their names, classes and descriptions.

use super::site::{Replacement, Site};
use super::{control, data, index, mbarrier, synchronization, warp};
use std::fmt;

/// A group of operators, for tables of counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Barriers, fences, waits and commits of asynchronous groups.
    Synchronization,
    /// Barriers in shared memory: phases, counts, arrivals.
    Mbarrier,
    /// Addresses: offsets, strides, alignment.
    Index,
    /// Guards, bounds and loops.
    Control,
    /// Masks and lanes of instructions that a warp executes together.
    Warp,
    /// Values: order of operands and fragments, stores, initial values, atomicity.
    Data,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Class::Synchronization => "synchronization",
            Class::Mbarrier => "mbarrier",
            Class::Index => "index",
            Class::Control => "control",
            Class::Warp => "warp",
            Class::Data => "data",
        })
    }
}

/// One kind of mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// A barrier of a block, warp or cluster is left out; of a reducing one the thread's own value remains.
    DropBarrier,
    /// A barrier counts other threads, or a named one gets another number than its partner.
    ChangeBarrier,
    /// A wait for asynchronous copies, matrix products, an mbarrier or the grid before is left out.
    DropWait,
    /// A wait leaves one more group pending.
    WeakenWait,
    /// A group is not committed.
    DropCommit,
    /// A fence is left out.
    DropFence,
    /// A fence has the next narrower scope, or no longer joins the asynchronous proxy.
    WeakenFence,
    /// A wait is for the other phase, or a phase starts with the other parity.
    WrongPhase,
    /// An mbarrier expects 16 bytes more or fewer.
    WrongTransactionBytes,
    /// An mbarrier is initialised or arrived at with a count that is off by one.
    WrongArrivalCount,
    /// An arrival at an mbarrier, or its expected bytes, is left out.
    DropArrive,
    /// An address is off by one access, or a constant in it by one element.
    ShiftIndex,
    /// A constant factor in an address is doubled or halved; row and column change places.
    SwapStride,
    /// An index that all threads share no longer moves a shared address: all stages of a pipeline are one.
    MergeStages,
    /// A vector access, matrix row or asynchronous copy starts one element off its alignment.
    MisalignAccess,
    /// A comparison with a bound is off by one.
    BoundsOffByOne,
    /// A loop makes one trip more or one fewer.
    LoopBound,
    /// A guard is the opposite.
    NegateGuard,
    /// A guard is left out; a guarded branch is never taken or always.
    DropGuard,
    /// A membership mask lacks a lane, or is full where it was partial.
    WrongMask,
    /// A shuffle reaches a wrong lane, or each lane only itself.
    WrongShuffle,
    /// Two components of a vector access or matrix load change places.
    SwapComponents,
    /// Two registers of a matrix operand, or its two descriptors, change places.
    SwapFragments,
    /// The operands of a subtraction, division, remainder or ordered comparison change places.
    SwapOperands,
    /// An atomic update becomes a load, an operation and a store; a reduction a plain store.
    SplitAtomic,
    /// A store or an asynchronous copy is left out.
    DropStore,
    /// A register that starts at zero starts with nothing.
    DropInitial,
}

impl Operator {
    /// All of them, in the order in which [`super::sites`] tries them.
    pub const ALL: [Operator; 27] = {
        let mut all = [Operator::DropBarrier; 27];
        let mut i = 0;
        while i < all.len() {
            all[i] = Self::TABLE[i].0;
            i += 1;
        }
        all
    };

    /// Classes and descriptions, in the order of the variants.
    const TABLE: [(Operator, Class, &'static str); 27] = [
        (Operator::DropBarrier, Class::Synchronization, "a barrier is left out"),
        (Operator::ChangeBarrier, Class::Synchronization, "a barrier has another number or thread count"),
        (Operator::DropWait, Class::Synchronization, "a wait for asynchronous work is left out"),
        (Operator::WeakenWait, Class::Synchronization, "a wait leaves one more group pending"),
        (Operator::DropCommit, Class::Synchronization, "a group is not committed"),
        (Operator::DropFence, Class::Synchronization, "a fence is left out"),
        (Operator::WeakenFence, Class::Synchronization, "a fence has a narrower scope or no proxy"),
        (Operator::WrongPhase, Class::Mbarrier, "a wait or a phase has the other parity"),
        (Operator::WrongTransactionBytes, Class::Mbarrier, "16 bytes more or fewer are expected"),
        (Operator::WrongArrivalCount, Class::Mbarrier, "an arrival count is off by one"),
        (Operator::DropArrive, Class::Mbarrier, "an arrival is left out"),
        (Operator::ShiftIndex, Class::Index, "an address is off by one element"),
        (Operator::SwapStride, Class::Index, "a stride is doubled, halved or exchanged"),
        (Operator::MergeStages, Class::Index, "the stages of a pipeline share their memory"),
        (Operator::MisalignAccess, Class::Index, "a wide access starts off its alignment"),
        (Operator::BoundsOffByOne, Class::Control, "a comparison with a bound is off by one"),
        (Operator::LoopBound, Class::Control, "a loop makes one trip more or fewer"),
        (Operator::NegateGuard, Class::Control, "a guard is the opposite"),
        (Operator::DropGuard, Class::Control, "a guard or a guarded branch is left out"),
        (Operator::WrongMask, Class::Warp, "a membership mask lacks a lane or is full"),
        (Operator::WrongShuffle, Class::Warp, "a shuffle reaches a wrong lane"),
        (Operator::SwapComponents, Class::Data, "two components of a vector change places"),
        (Operator::SwapFragments, Class::Data, "two registers or descriptors of a matrix change places"),
        (Operator::SwapOperands, Class::Data, "the operands of sub, div, rem or setp change places"),
        (Operator::SplitAtomic, Class::Data, "an atomic update is no longer one"),
        (Operator::DropStore, Class::Data, "a store or an asynchronous copy is left out"),
        (Operator::DropInitial, Class::Data, "a register starts with nothing instead of zero"),
    ];

    /// Its group.
    pub fn class(self) -> Class {
        self.row().1
    }

    /// One line: what is wrong afterwards.
    pub fn description(self) -> &'static str {
        self.row().2
    }

    /// The table has the order of the variants.
    fn row(self) -> &'static (Operator, Class, &'static str) {
        &Self::TABLE[self as usize]
    }

    /// What can stand in the place of this instruction: nothing, one or two replacements, none equal to what is there.
    pub(super) fn mutants(self, site: &Site) -> Vec<Replacement> {
        let mut mutants = match self {
            Operator::DropBarrier => synchronization::drop_barrier(site),
            Operator::ChangeBarrier => synchronization::change_barrier(site),
            Operator::DropWait => synchronization::drop_wait(site),
            Operator::WeakenWait => synchronization::weaken_wait(site),
            Operator::DropCommit => synchronization::drop_commit(site),
            Operator::DropFence => synchronization::drop_fence(site),
            Operator::WeakenFence => synchronization::weaken_fence(site),
            Operator::WrongPhase => mbarrier::wrong_phase(site),
            Operator::WrongTransactionBytes => mbarrier::wrong_transaction_bytes(site),
            Operator::WrongArrivalCount => mbarrier::wrong_arrival_count(site),
            Operator::DropArrive => mbarrier::drop_arrive(site),
            Operator::ShiftIndex => index::shift_index(site),
            Operator::SwapStride => index::swap_stride(site),
            Operator::MergeStages => index::merge_stages(site),
            Operator::MisalignAccess => index::misalign_access(site),
            Operator::BoundsOffByOne => control::bounds_off_by_one(site),
            Operator::LoopBound => control::loop_bound(site),
            Operator::NegateGuard => control::negate_guard(site),
            Operator::DropGuard => control::drop_guard(site),
            Operator::WrongMask => warp::wrong_mask(site),
            Operator::WrongShuffle => warp::wrong_shuffle(site),
            Operator::SwapComponents => data::swap_components(site),
            Operator::SwapFragments => data::swap_fragments(site),
            Operator::SwapOperands => data::swap_operands(site),
            Operator::SplitAtomic => data::split_atomic(site),
            Operator::DropStore => data::drop_store(site),
            Operator::DropInitial => data::drop_initial(site),
        };
        mutants.retain(|replacement| !site.is_unchanged(replacement));
        mutants
    }
}
