//! What is said when a cluster's threads wait for each other and none can go on.

use super::block::Block;
use super::execute::lanes_of;
use super::launch::Context;
use super::registers::{Mask, WARP};
use super::warp::{Group, State, Warp};
use super::worker::{Worker, list};
use crate::check::Kind;
use crate::program::Meeting;

/// Threads to name in a message, at most.
const LISTED: usize = 16;

/// Says why a cluster is stuck: lanes that a warp needs in one place and that are in others; if there are none, or some thread asks
/// again and again for something, who waits where for what.
pub(crate) fn explain(blocks: &[Block], warps: &[Warp], context: &Context, worker: &mut Worker) {
    let mut apart = false;
    for warp in warps {
        for group in warp.groups.iter().filter(|group| group.state == State::Meeting) {
            apart |= tell_apart(&blocks[warp.rank], warp, group, context, worker);
        }
    }
    for block in blocks {
        apart |= tell_mismatch(block, context, worker);
    }
    let asking = warps.iter().flat_map(|warp| &warp.groups).any(|group| group.state == State::Ready);
    if !apart || asking {
        tell_deadlock(blocks, warps, context, worker);
    }
}

/// Tells of a group that waits for lanes of its warp which went elsewhere; whether that is a mistake by itself and not because those
/// lanes wait for something else.
fn tell_apart(block: &Block, warp: &Warp, group: &Group, context: &Context, worker: &mut Worker) -> bool {
    let Some(meeting) = context.program.instructions[group.pc as usize].meeting else { return false };
    let missing = missing(meeting, block, warp, group);
    let others: Vec<&Group> = warp.groups.iter().filter(|other| other.lanes & missing != 0).collect();
    let at_barrier = matches!(meeting, Meeting::Barrier);
    if !at_barrier && others.iter().all(|other| other.state != State::Meeting) {
        return false;
    }
    let kind = if at_barrier { Kind::DivergentBarrier } else { Kind::MissingLanes };
    let elsewhere: Vec<String> =
        others.iter().map(|other| format!("lanes {} are at {}", list(other.lanes), at(context, other.pc))).collect();
    let message = format!(
        "lanes {} of warp {} came without lanes {}: {}",
        list(group.lanes),
        warp.index,
        list(missing),
        elsewhere.join(", ")
    );
    let lane = group.lanes.trailing_zeros() as usize % WARP;
    worker.findings.report(kind, group.pc, || context.finding(kind, message, group.pc, block, warp.index, lane));
    true
}

/// The lanes that a group waits for.
fn missing(meeting: Meeting, block: &Block, warp: &Warp, group: &Group) -> Mask {
    let alive = block.alive[warp.index] & !group.lanes;
    match meeting {
        Meeting::Warp | Meeting::Barrier => alive,
        Meeting::Members(register) => {
            let members = warp.registers.get_in(group.base, register);
            lanes_of(group.lanes).fold(0, |missing, lane| missing | members[lane]) & alive
        }
    }
}

/// Tells of threads of one block that wait for all of the block at different barriers; whether there are any.
fn tell_mismatch(block: &Block, context: &Context, worker: &mut Worker) -> bool {
    let whole = |(_, barrier): &(usize, &super::block::Barrier)| !barrier.is_idle() && barrier.expected.is_none();
    let waiting: Vec<_> = block.barriers.iter().enumerate().filter(whole).collect();
    let [(first, one), rest @ ..] = waiting.as_slice() else { return false };
    for (id, barrier) in rest {
        let (pc, warp) = barrier.first;
        let kind = Kind::MismatchedBarrier;
        let message = format!(
            "warp {warp} waits for the whole block at barrier {id}, warp {} at barrier {first} at {}",
            one.first.1,
            at(context, one.first.0)
        );
        worker.findings.report(kind, pc, || context.finding(kind, message, pc, block, warp, 0));
    }
    !rest.is_empty()
}

fn tell_deadlock(blocks: &[Block], warps: &[Warp], context: &Context, worker: &mut Worker) {
    let mut waits: Vec<(&Warp, &Group)> =
        warps.iter().flat_map(|warp| warp.groups.iter().map(move |group| (warp, group))).collect();
    waits.sort_by_key(|(warp, group)| (group.pc, blocks[warp.rank].index, warp.index));
    let Some(&(first, group)) = waits.first() else { return };
    let mut message = String::from("nothing can go on");
    for &(warp, group) in waits.iter().take(LISTED) {
        let block = &blocks[warp.rank];
        let [x, y, z] = block.coordinates;
        message += &format!(
            "\n    block ({x}, {y}, {z}) warp {} lanes {} {} at {}",
            warp.index,
            list(group.lanes),
            what_for(blocks, warp, group, context),
            at(context, group.pc)
        );
    }
    if waits.len() > LISTED {
        message += &format!("\n    and {} more", waits.len() - LISTED);
    }
    let lane = group.lanes.trailing_zeros() as usize % WARP;
    let (block, kind) = (&blocks[first.rank], Kind::Deadlock);
    worker.findings.report(kind, group.pc, || context.finding(kind, message, group.pc, block, first.index, lane));
}

/// What a group waits for: `wait for lanes 4-7`.
fn what_for(blocks: &[Block], warp: &Warp, group: &Group, context: &Context) -> String {
    let block = &blocks[warp.rank];
    match group.state {
        State::Meeting => match context.program.instructions[group.pc as usize].meeting {
            Some(meeting) => format!("wait for lanes {}", list(missing(meeting, block, warp, group))),
            None => "wait".into(),
        },
        State::Waiting => {
            let waits = |lanes: Option<&Mask>| lanes.is_some_and(|lanes| lanes & group.lanes != 0);
            for (id, barrier) in block.barriers.iter().enumerate() {
                if waits(barrier.waiting.get(warp.index)) {
                    let everyone = (block.alive.len() * WARP) as u32;
                    let (came, expected) = (barrier.threads(&block.alive), barrier.expected.unwrap_or(everyone));
                    return format!("wait for barrier {id}, to which {came} of {expected} threads have come,");
                }
            }
            if waits(blocks[0].cluster_barrier.waiting.get(warp.rank).and_then(|warps| warps.get(warp.index))) {
                return "wait for the cluster's barrier".into();
            }
            "wait".into()
        }
        _ => "ask again and again".into(),
    }
}

fn at(context: &Context, pc: u32) -> String {
    let place = context.place(pc);
    format!("{place}: `{}`", place.instruction)
}
