//! Runs one warp: the loop that everything else is called from.

use std::cmp::Reverse;

use super::block::Block;
use super::execute::{Cx, Flow, lanes_of};
use super::launch::Context;
use super::registers::{Lanes, Mask, WARP, each_lane};
use super::trace;
use super::warp::{Group, Return, State, Warp};
use crate::check::{Findings, Kind};
use crate::count::{Tally, Touched};
use crate::program::{Address, Instruction, Meeting, Program, Special, next_frame};

/// What one thread of the host keeps for itself while it runs warps.
pub(crate) struct Worker {
    pub findings: Findings,
    /// Counts by program counter.
    pub tallies: Vec<Tally>,
    /// For each allocation the sectors that were read and written.
    pub touched: Vec<Touched>,
    /// Stores, arrivals, exits: whether anything happened that others could wait for.
    pub effects: u64,
    /// Warp instructions executed.
    pub executed: u64,
    /// What `printf` wrote, with the index of the block.
    pub printed: Vec<(u32, String)>,
    /// Lines of the trace.
    pub trace: Vec<String>,
    /// The allocation that was accessed last: likely the next one too.
    pub last_allocation: usize,
}

/// Why a warp's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All its lanes have exited.
    Done,
    /// None of its groups can go on by itself.
    Blocked,
    /// It gave way while something that it asked for has not happened.
    Yielded,
    /// Its slice of instructions is used up.
    Expired,
    /// A finding after which the block cannot go on.
    Stopped,
}

/// A warp's turn; [`super::simd::run_warp`] calls it compiled for the processor.
#[inline(always)]
pub(crate) fn turn(warp: &mut Warp, blocks: &mut [Block], launch: &Context, worker: &mut Worker, slice: u32) -> Turn {
    let mut left = slice;
    loop {
        let Some(index) = choose(warp, blocks, launch, worker) else {
            return if warp.groups.is_empty() { Turn::Done } else { Turn::Blocked };
        };
        let mut group = warp.groups.swap_remove(index);
        let state = std::mem::replace(&mut group.state, State::Ready);
        // Lanes that wait further on are met there, so that the warp becomes whole again.
        let ahead = |other: &&Group| other.state != State::Waiting && other.pc >= group.pc && other.base == group.base;
        let limit = warp.groups.iter().filter(ahead).map(|other| other.pc.max(group.pc + 1)).min().unwrap_or(u32::MAX);
        warp.registers.go_to(group.base);
        let rank = warp.rank;
        let mut cx = Cx { warp, active: 0, pc: group.pc, resumed: state == State::Woken, blocks, rank, launch, worker };
        let end = run_group(&mut cx, &mut group, state == State::Met, limit, &mut left);
        if group.lanes != 0 {
            group.tired |= matches!(end, End::Gave | End::Expired);
            warp.groups.push(group);
        }
        if warp.groups.len() > 1 {
            warp.regroup();
        }
        match end {
            End::Moved => {}
            End::Gave => return Turn::Yielded,
            End::Expired => return Turn::Expired,
            End::Stopped => return Turn::Stopped,
        }
    }
}

/// Why a group stopped running.
enum End {
    /// It waits, split, met others or exited: choose again.
    Moved,
    Gave,
    Expired,
    Stopped,
}

/// The group to run next: the one deepest in calls and lowest in the program, so that lanes that took a longer way catch up with
/// those that wait where the ways join; but one that gave way only when all others have.
fn choose(warp: &mut Warp, blocks: &mut [Block], launch: &Context, worker: &mut Worker) -> Option<usize> {
    // Groups that this adds are not waiting.
    for index in 0..warp.groups.len() {
        if warp.groups[index].state == State::Meeting {
            reconsider(warp, index, blocks, launch, worker);
        }
    }
    let ready = |group: &&mut Group| !matches!(group.state, State::Waiting | State::Meeting);
    if warp.groups.iter_mut().filter(ready).all(|group| group.tired) {
        warp.groups.iter_mut().for_each(|group| group.tired = false);
    }
    let candidates = warp.groups.iter_mut().enumerate().filter(|(_, group)| ready(group) && !group.tired);
    candidates.min_by_key(|(_, group)| (Reverse(group.stack.len()), group.pc)).map(|(index, _)| index)
}

/// Lets a group that waits at a `.sync` instruction go on if all whom it waits for have come or exited.
fn reconsider(warp: &mut Warp, index: usize, blocks: &mut [Block], launch: &Context, worker: &mut Worker) {
    let (pc, lanes, base) = (warp.groups[index].pc, warp.groups[index].lanes, warp.groups[index].base);
    warp.registers.go_to(base);
    let rank = warp.rank;
    let mut cx = Cx { warp, active: lanes, pc, resumed: false, blocks, rank, launch, worker };
    let Some(meeting) = launch.program.instructions[pc as usize].meeting else { return };
    let (complete, _) = gathered(&mut cx, meeting, lanes);
    if complete == 0 {
        return;
    }
    // Nobody joined, or the groups would have merged: the missing lanes have ended since this group arrived.
    if !matches!(meeting, Meeting::Barrier) {
        cx.report(Kind::MissingLanes, complete.trailing_zeros() as usize, || {
            format!("lanes {} came, but others that the mask names ended without executing this instruction", list(complete))
        });
    }
    let mut met = cx.warp.groups[index].clone();
    (met.lanes, met.state) = (complete, State::Met);
    if complete == lanes {
        cx.warp.groups[index] = met;
    } else {
        cx.warp.groups[index].lanes &= !complete;
        cx.warp.groups.push(met);
    }
}

/// Executes instructions of a group; `met`: whom the first of them waits for has come.
#[inline(always)]
fn run_group(cx: &mut Cx, group: &mut Group, mut met: bool, limit: u32, left: &mut u32) -> End {
    let instructions: &[Instruction] = &cx.launch.program.instructions;
    let checked = cx.launch.checked;
    let followed = cx.launch.launch.trace.map_or(0, |trace| {
        trace.lanes(cx.blocks[cx.rank].coordinates, cx.warp.index, &cx.launch.threads[cx.warp.index]) & group.lanes
    });
    loop {
        let pc = group.pc;
        let instruction = &instructions[pc as usize];
        let active = Program::guarded(instruction.guard, &cx.warp.registers, group.lanes);
        cx.pc = pc;
        cx.active = active;
        cx.worker.executed += 1;
        *left = left.saturating_sub(1);
        if checked && let Some(guard) = instruction.guard {
            check_guard(cx, guard.register.id, group.lanes);
        }
        if active != 0
            && let Some(meeting) = instruction.meeting
            && !cx.resumed
            && !std::mem::take(&mut met)
        {
            let (complete, missing) = gathered(cx, meeting, active);
            if missing != 0 {
                return park(cx, group, active, complete);
            }
        }
        if !cx.resumed {
            let tally = &mut cx.worker.tallies[pc as usize];
            tally.warps += 1;
            tally.threads += u64::from(active.count_ones());
        }
        let flow = if followed == 0 { step(cx, instruction) } else { followed_step(cx, instruction, group.function, followed) };
        cx.resumed = false;
        match flow {
            Flow::Next => group.pc = pc + 1,
            Flow::Branch { taken, target } => {
                let others = group.lanes & !taken;
                if taken == 0 {
                    group.pc = pc + 1;
                } else if others == 0 {
                    group.pc = target;
                } else {
                    cx.worker.tallies[pc as usize].divergences += 1;
                    split(cx.warp, group, others, pc + 1);
                    group.pc = target;
                    return End::Moved;
                }
            }
            Flow::Wait => {
                let others = group.lanes & !active;
                if others != 0 {
                    split(cx.warp, group, others, pc + 1);
                }
                group.state = State::Waiting;
                return End::Moved;
            }
            Flow::Yield => {
                group.pc = pc + 1;
                return End::Gave;
            }
            Flow::Jump { lanes, target } => {
                leave(cx, group, active, lanes);
                group.pc = target;
                return End::Moved;
            }
            Flow::Call { lanes, function } => {
                leave(cx, group, active, lanes);
                enter(cx, group, function);
                return End::Moved;
            }
            Flow::Return | Flow::Exit => {
                let others = group.lanes & !active;
                if others != 0 {
                    split(cx.warp, group, others, pc + 1);
                }
                match group.stack.pop().filter(|_| flow == Flow::Return) {
                    Some(back) => {
                        (group.pc, group.base, group.function, group.local) = (back.pc, back.base, back.function, back.local);
                        group.state = State::Woken;
                    }
                    None => exit(cx, group),
                }
                return End::Moved;
            }
            Flow::Stop => return End::Stopped,
        }
        if group.pc >= limit {
            return End::Moved;
        }
        if *left == 0 {
            return End::Expired;
        }
    }
}

/// Executes an instruction, if any lane is to.
#[inline(always)]
fn step(cx: &mut Cx, instruction: &Instruction) -> Flow {
    if cx.active == 0 {
        Flow::Next
    } else if cx.checked() {
        execute_checked(cx, instruction)
    } else {
        instruction.op.execute(cx)
    }
}

/// The same, with a line of the trace for the lanes that are followed.
#[cold]
fn followed_step(cx: &mut Cx, instruction: &Instruction, function: u32, followed: Mask) -> Flow {
    let names = &cx.launch.program.functions[function as usize].registers;
    let sources = trace::sources(cx, instruction, names, followed);
    let flow = step(cx, instruction);
    if !matches!(flow, Flow::Wait | Flow::Call { .. }) {
        trace::line(cx, instruction, names, followed, &sources);
    }
    flow
}

/// Executes an instruction and keeps account of which registers hold defined values.
#[inline(always)]
fn execute_checked(cx: &mut Cx, instruction: &Instruction) -> Flow {
    let active = cx.active;
    let mut undefined = 0;
    for &id in &instruction.reads {
        undefined |= cx.warp.registers.undefined(id);
    }
    undefined &= active;
    if undefined != 0 {
        check_critical(cx, instruction);
    }
    if !instruction.watched.is_empty() {
        cx.access_watched(&instruction.watched);
    }
    if instruction.own_taint {
        return instruction.op.execute(cx);
    }
    let flow = instruction.op.execute(cx);
    for &id in &instruction.writes {
        cx.warp.registers.set_undefined(id, active, undefined);
    }
    flow
}

#[cold]
fn check_critical(cx: &mut Cx, instruction: &Instruction) {
    for &id in &instruction.critical {
        let lanes = cx.warp.registers.undefined(id) & cx.active;
        if let Some(lane) = lanes_of(lanes).next() {
            cx.report(Kind::Uninitialized, lane, || "an address or a decision depends on a value that was never written".into());
        }
    }
}

#[inline(always)]
fn check_guard(cx: &mut Cx, id: u32, lanes: Mask) {
    let undefined = cx.warp.registers.undefined(id) & lanes;
    if undefined != 0 {
        let lane = undefined.trailing_zeros() as usize;
        cx.report(Kind::Uninitialized, lane, || "the predicate depends on a value that was never written".into());
        cx.warp.registers.set_undefined(id, undefined, 0);
    }
}

/// Which of the lanes that have come can go on, and which lanes they still miss.
fn gathered(cx: &mut Cx, meeting: Meeting, come: Mask) -> (Mask, Mask) {
    let alive = cx.blocks[cx.rank].alive[cx.warp.index];
    match meeting {
        Meeting::Warp | Meeting::Barrier => {
            let missing = alive & !come;
            (if missing == 0 { come } else { 0 }, missing)
        }
        Meeting::Members(register) => {
            let members = *cx.get(register);
            let first = members[come.trailing_zeros() as usize % WARP];
            if come & !first == 0 && lanes_of(come).all(|lane| members[lane] == first) {
                let missing = first & alive & !come;
                return (if missing == 0 { come } else { 0 }, missing);
            }
            let (mut complete, mut missing) = (0, 0);
            for lane in lanes_of(come) {
                let absent = members[lane] & alive & !come;
                missing |= absent;
                if absent == 0 {
                    complete |= 1 << lane;
                }
                if members[lane] >> lane & 1 == 0 {
                    cx.report(Kind::MissingLanes, lane, || {
                        format!("lane {lane} executes this, but its mask {:#010x} does not name it", members[lane])
                    });
                }
                if let Some(other) = lanes_of(members[lane] & come).find(|&other| members[other] != members[lane]) {
                    cx.report(Kind::MissingLanes, lane, || {
                        format!(
                            "lane {lane} comes with the mask {:#010x}, lane {other} in it with {:#010x}",
                            members[lane], members[other]
                        )
                    });
                }
            }
            (complete, missing)
        }
    }
}

/// Leaves the lanes that miss others waiting at the instruction; those that are complete go on by themselves.
fn park(cx: &mut Cx, group: &mut Group, active: Mask, complete: Mask) -> End {
    let passing = group.lanes & !active;
    if passing != 0 {
        split(cx.warp, group, passing, group.pc + 1);
    }
    if complete != 0 {
        let mut ahead = group.clone();
        ahead.lanes = complete;
        ahead.state = State::Met;
        cx.warp.groups.push(ahead);
        group.lanes &= !complete;
    }
    group.state = State::Meeting;
    End::Moved
}

/// Sends some lanes of a group elsewhere.
fn split(warp: &mut Warp, group: &mut Group, lanes: Mask, pc: u32) {
    let mut other = group.clone();
    other.lanes = lanes;
    other.pc = pc;
    other.state = State::Ready;
    warp.groups.push(other);
    group.lanes &= !lanes;
}

fn exit(cx: &mut Cx, group: &mut Group) {
    let (rank, warp) = (cx.rank, cx.warp.index);
    cx.blocks[rank].alive[warp] &= !group.lanes;
    cx.blocks[rank].races.timelines[warp].end(group.lanes);
    group.lanes = 0;
    cx.worker.effects += 1;
    lanes_left(cx);
}

/// Looks again at the barriers of a block and its cluster that has lost lanes: nobody waits for those that have ended.
fn lanes_left(cx: &mut Cx) {
    for id in 0..cx.block().barriers.len() {
        cx.complete_barrier(cx.rank, id);
    }
    cx.complete_cluster_barrier();
    crate::isa::wgmma::wake(cx.block());
}

/// Parts from a group the lanes that do not go where `lanes` go: inactive ones pass, active ones are still to execute the instruction.
fn leave(cx: &mut Cx, group: &mut Group, active: Mask, lanes: Mask) {
    for (others, pc) in [(group.lanes & !active, group.pc + 1), (active & !lanes, group.pc)] {
        if others != 0 {
            split(cx.warp, group, others, pc);
        }
    }
}

/// Enters a device function, whose local memory the call has made ready.
fn enter(cx: &mut Cx, group: &mut Group, function: u32) {
    let functions = &cx.launch.program.functions;
    let caller = &functions[group.function as usize].frame;
    let callee = &functions[function as usize];
    group.stack.push(Return { pc: group.pc, base: group.base, function: group.function, local: group.local });
    cx.warp.registers.go_to(group.base);
    cx.warp.registers.enter(caller, &callee.frame, group.lanes);
    group.base = cx.warp.registers.base();
    group.local = next_frame(group.local, caller.local_bytes);
    group.function = function;
    group.pc = callee.entry;
    fill_frame(cx.warp, &cx.blocks[cx.rank], cx.launch, function, group.local, group.lanes);
}

/// Gives a new frame its special registers and addresses.
pub(crate) fn fill_frame(warp: &mut Warp, block: &Block, launch: &Context, function: u32, local: u32, lanes: Mask) {
    let frame = &launch.program.functions[function as usize].frame;
    for &(special, register) in &frame.specials {
        let values = special_values(special, launch, block, warp.index, warp.rank);
        warp.registers.define(register, lanes, |lane| values[lane]);
    }
    for &(address, register) in &frame.addresses {
        let value = match address {
            Address::Variable { index, offset } => launch.variables[index].wrapping_add_signed(offset),
            Address::Local { offset } => u64::from(local).wrapping_add_signed(offset),
        };
        warp.registers.define(register, lanes, |_| value);
    }
}

fn special_values(special: Special, launch: &Context, block: &Block, warp: usize, rank: usize) -> Lanes<u32> {
    let (grid, cluster) = (launch.launch.grid, launch.launch.cluster);
    let rank = rank as u32;
    let in_cluster = [rank % cluster[0], rank / cluster[0] % cluster[1], rank / cluster[0] / cluster[1]];
    let dynamic = launch.launch.shared_bytes;
    let value = match special {
        Special::Tid(axis) => return launch.threads[warp][axis],
        Special::LaneId => return each_lane(|lane| lane as u32),
        Special::LanemaskEq => return each_lane(|lane| 1 << lane),
        Special::LanemaskLe => return each_lane(|lane| !0 >> (31 - lane)),
        Special::LanemaskLt => return each_lane(|lane| (1 << lane) - 1),
        Special::LanemaskGe => return each_lane(|lane| !0 << lane),
        Special::LanemaskGt => return each_lane(|lane| !0 << lane & !(1 << lane)),
        Special::Ntid(axis) => launch.launch.block[axis],
        Special::Ctaid(axis) => block.coordinates[axis],
        Special::Nctaid(axis) => grid[axis],
        Special::WarpId => warp as u32,
        Special::NWarpId => launch.launch.threads().div_ceil(WARP as u32),
        // Blocks are dealt to multiprocessors in turn.
        Special::SmId => block.index % MULTIPROCESSORS,
        Special::NSmId => MULTIPROCESSORS,
        Special::Clusterid(axis) => block.coordinates[axis] / cluster[axis],
        Special::Nclusterid(axis) => grid[axis] / cluster[axis],
        Special::ClusterCtaid(axis) => in_cluster[axis],
        Special::ClusterNctaid(axis) => cluster[axis],
        Special::ClusterCtarank => rank,
        Special::ClusterNctarank => launch.launch.cluster_blocks(),
        Special::IsExplicitCluster => u32::from(launch.launch.cluster_blocks() > 1),
        Special::DynamicSharedSize => dynamic,
        Special::TotalSharedSize => launch.kernel.shared_bytes + dynamic,
        Special::Zero => 0,
    };
    [value; WARP]
}

/// Multiprocessors that the emulated device says it has: those of an H100 or H200.
const MULTIPROCESSORS: u32 = 132;

/// Lane numbers for a message: `0-15, 20`.
pub(crate) fn list(lanes: Mask) -> String {
    let mut parts = Vec::new();
    let mut lane = 0;
    while lane < WARP as u32 {
        if lanes >> lane & 1 == 0 {
            lane += 1;
            continue;
        }
        let run = (lanes >> lane).trailing_ones();
        parts.push(if run == 1 { lane.to_string() } else { format!("{lane}-{}", lane + run - 1) });
        lane += run;
    }
    parts.join(", ")
}
