//! The order in which warps, blocks and clusters run, and what is said when none of them can.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::block::{BARRIERS, Barrier, Block};
use super::execute::{Cx, lanes_of};
use super::launch::{Context, Order, Report};
use super::registers::{Mask, Registers, WARP};
use super::warp::{Group, State, Warp};
use super::worker::{Turn, Worker, fill_frame, list, run_warp};
use crate::check::{Finding, Findings, Kind};
use crate::count::{Counters, Tally};
use crate::memory::in_flight::InFlight;
use crate::memory::shared::Shared;
use crate::{Error, Result};

/// Instructions that a warp runs before the others of its cluster get a turn.
const SLICE: u32 = 8192;

/// Clusters that one worker keeps alive while they wait for others: as many as a GPU could hold at once.
const RESIDENT: usize = 1024;

/// Rounds without any effect, on all workers, after which nothing is expected to happen any more.
const PATIENCE: u32 = 64;

/// Blocks that run together, and what they share.
struct Cluster {
    blocks: Vec<Block>,
    warps: Vec<Warp>,
}

/// How a cluster's round ended.
enum Round {
    Done,
    /// Something happened.
    Moved,
    /// Nothing happened; some warps spin on something that others may change.
    Spinning,
    /// Nothing happened, and nothing can.
    Stuck,
}

/// Runs all blocks of a launch.
pub(crate) fn run(context: &Context) -> Result<Report> {
    let workers = match context.launch.order {
        Order::Seeded(_) => 1,
        Order::Natural => context.launch.workers.unwrap_or_else(rayon::current_num_threads).max(1),
    };
    let clusters = context.launch.blocks() / u64::from(context.launch.cluster_blocks());
    let workers = workers.min(clusters as usize).max(1);
    let mut results: Vec<Worker> = Vec::new();
    if workers == 1 {
        results.push(work(context, 1));
    } else {
        let slots: Vec<std::sync::Mutex<Option<Worker>>> = (0..workers).map(|_| std::sync::Mutex::new(None)).collect();
        rayon::scope(|scope| {
            for slot in &slots {
                scope.spawn(|_| {
                    let worker = work(context, workers);
                    *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(worker);
                });
            }
        });
        results.extend(slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)));
    }
    let mut findings = Findings::default();
    let mut tallies = vec![Tally::default(); context.program.instructions.len()];
    let mut trace = Vec::new();
    for worker in results {
        trace.extend(worker.trace);
        findings.merge(worker.findings);
        for (total, part) in tallies.iter_mut().zip(worker.tallies) {
            *total += part;
        }
    }
    if context.exhausted.load(Acquire) {
        let limit = context.launch.max_instructions;
        return Err(Error::Launch(format!(
            "kernel `{}`: stopped after {limit} warp instructions; is there an endless loop?",
            context.kernel.name
        )));
    }
    let counters = Counters::new(context.program, &tallies, context.traffic(), |pc| context.place(pc));
    Ok(Report { findings: findings.into_sorted(), counters, trace })
}

/// Takes clusters from the launch until none are left.
fn work(context: &Context, workers: usize) -> Worker {
    let mut worker = Worker {
        findings: Findings::default(),
        tallies: vec![Tally::default(); context.program.instructions.len()],
        effects: 0,
        executed: 0,
        last_allocation: 0,
        trace: Vec::new(),
    };
    let mut random = match context.launch.order {
        Order::Seeded(seed) => Some(Random::new(seed)),
        Order::Natural => None,
    };
    let clusters = (context.launch.blocks() / u64::from(context.launch.cluster_blocks())) as usize;
    let mut order: Vec<u32> = Vec::new();
    if let Some(random) = &mut random {
        order = (0..clusters as u32).collect();
        random.shuffle(&mut order);
    }
    let mut spare: Vec<Registers> = Vec::new();
    let mut live: VecDeque<Cluster> = VecDeque::new();
    let (mut idle_rounds, mut seen_effects) = (0, 0);
    let mut stalled = false;
    loop {
        let may_start = live.is_empty() || (live.len() < RESIDENT && idle_rounds > 0);
        if may_start {
            let next = context.next_cluster.fetch_add(1, Relaxed);
            if next < clusters {
                let index = order.get(next).map_or(next, |&index| index as usize);
                live.push_front(start(context, index, &mut spare));
                idle_rounds = 0;
            }
        }
        let Some(mut cluster) = live.pop_front() else { break };
        let (effects, executed) = (worker.effects, worker.executed);
        let round = run_round(&mut cluster, context, &mut worker, random.as_mut());
        context.effects.fetch_add(worker.effects - effects, Relaxed);
        let total = context.executed.fetch_add(worker.executed - executed, Relaxed) + (worker.executed - executed);
        if total > context.launch.max_instructions {
            context.exhausted.store(true, Relaxed);
        }
        if context.exhausted.load(Relaxed) {
            break;
        }
        let moved = match round {
            Round::Done => {
                spare.extend(cluster.warps.into_iter().map(|warp| warp.registers));
                true
            }
            Round::Moved => {
                live.push_front(cluster);
                true
            }
            Round::Spinning => {
                live.push_back(cluster);
                false
            }
            Round::Stuck => {
                explain(&mut cluster, context, &mut worker);
                true
            }
        };
        if moved {
            idle_rounds = 0;
            if std::mem::take(&mut stalled) {
                context.stalled.fetch_sub(1, AcqRel);
            }
            continue;
        }
        idle_rounds += 1;
        let now = context.effects.load(Relaxed);
        if now != seen_effects {
            (seen_effects, idle_rounds) = (now, 1);
        }
        if idle_rounds as usize > live.len() && context.next_cluster.load(Relaxed) >= clusters {
            if !std::mem::replace(&mut stalled, true) {
                context.stalled.fetch_add(1, AcqRel);
            }
            if context.stalled.load(Acquire) == workers && idle_rounds > PATIENCE * (live.len() as u32 + 1) {
                for mut cluster in live.drain(..) {
                    explain(&mut cluster, context, &mut worker);
                }
            }
            std::thread::yield_now();
        }
    }
    // A worker with nothing left to run can no longer help anybody.
    if !stalled {
        context.stalled.fetch_add(1, AcqRel);
    }
    worker
}

/// Makes a cluster's blocks and warps ready to run.
fn start(context: &Context, index: usize, spare: &mut Vec<Registers>) -> Cluster {
    let (launch, kernel) = (context.launch, context.kernel);
    let (grid, extent) = (launch.grid, launch.cluster);
    let per_axis: [u32; 3] = std::array::from_fn(|axis| grid[axis] / extent[axis]);
    let index = index as u32;
    let origin = [index % per_axis[0], index / per_axis[0] % per_axis[1], index / per_axis[0] / per_axis[1]];
    let threads = launch.threads();
    let warps_per_block = threads.div_ceil(WARP as u32) as usize;
    let mut cluster = Cluster { blocks: Vec::new(), warps: Vec::new() };
    for rank in 0..launch.cluster_blocks() {
        let within = [rank % extent[0], rank / extent[0] % extent[1], rank / extent[0] / extent[1]];
        let coordinates: [u32; 3] = std::array::from_fn(|axis| origin[axis] * extent[axis] + within[axis]);
        let mut alive = vec![!0 as Mask; warps_per_block];
        if threads % WARP as u32 != 0
            && let Some(last) = alive.last_mut()
        {
            *last = (1 << (threads % WARP as u32)) - 1;
        }
        let block = Block {
            coordinates,
            index: coordinates[0] + grid[0] * (coordinates[1] + grid[1] * coordinates[2]),
            shared: Shared::new(&context.shared),
            in_flight: InFlight::default(),
            barriers: std::array::from_fn(|_| Barrier::default()),
            woken: vec![0; alive.len()],
            alive,
        };
        for (index, &lanes) in block.alive.iter().enumerate() {
            let mut registers = spare.pop().unwrap_or_default();
            let function = &context.program.functions[kernel.function];
            registers.reset(&function.frame);
            let base = registers.base();
            let group = Group {
                pc: function.entry,
                lanes,
                state: State::Ready,
                stack: Vec::new(),
                base,
                function: kernel.function as u32,
                local: 0,
                turns: 0,
            };
            let mut warp = Warp::new(index, rank as usize, registers, group);
            fill_frame(&mut warp, &block, context, kernel.function as u32, 0, lanes);
            cluster.warps.push(warp);
        }
        cluster.blocks.push(block);
    }
    cluster
}

/// Gives every warp of a cluster a turn.
fn run_round(cluster: &mut Cluster, context: &Context, worker: &mut Worker, mut random: Option<&mut Random>) -> Round {
    let effects = worker.effects;
    let mut order: Vec<u32> = (0..cluster.warps.len() as u32).collect();
    if let Some(random) = &mut random {
        random.shuffle(&mut order);
    }
    let (mut done, mut spinning) = (true, false);
    for index in order {
        let slice = random.as_mut().map_or(SLICE, |random| 1 + (random.next() % 192) as u32);
        let warp = &mut cluster.warps[index as usize];
        match run_warp(warp, &mut cluster.blocks, context, worker, slice) {
            Turn::Done => continue,
            Turn::Stopped => return Round::Done,
            Turn::Yielded | Turn::Expired => spinning = true,
            Turn::Blocked => {}
        }
        done = false;
        wake(cluster);
    }
    if done {
        Round::Done
    } else if worker.effects != effects {
        Round::Moved
    } else if spinning {
        Round::Spinning
    } else {
        Round::Stuck
    }
}

/// Passes on to each warp which of its lanes were woken by others.
fn wake(cluster: &mut Cluster) {
    let Cluster { blocks, warps } = cluster;
    for warp in warps {
        let woken = std::mem::take(&mut blocks[warp.rank].woken[warp.index]);
        if woken != 0 {
            for group in warp.groups.iter_mut().filter(|group| group.state == State::Waiting && group.lanes & woken != 0) {
                group.state = State::Woken;
            }
        }
    }
}

/// Looks again at the barriers of a block whose warp has lost lanes: nobody waits for those that have ended.
pub(crate) fn lanes_left(cx: &mut Cx, rank: usize, _warp: usize) {
    for id in 0..BARRIERS {
        cx.blocks[rank].complete_barrier(id);
    }
}

/// Says why a cluster is stuck: who waits where.
fn explain(cluster: &mut Cluster, context: &Context, worker: &mut Worker) {
    let mut waits: Vec<(u32, [u32; 3], usize, Mask)> = Vec::new();
    for warp in &cluster.warps {
        for group in &warp.groups {
            waits.push((group.pc, cluster.blocks[warp.rank].coordinates, warp.index, group.lanes));
        }
    }
    waits.sort_by_key(|(pc, block, warp, _)| (*pc, *block, *warp));
    let Some(&(pc, block, warp, lanes)) = waits.first() else { return };
    let mut message = String::from("nothing can go on");
    for &(pc, [x, y, z], warp, lanes) in waits.iter().take(16) {
        let place = context.place(pc);
        message +=
            &format!("\n    block ({x}, {y}, {z}) warp {warp} lanes {} wait at {place}: `{}`", list(lanes), place.instruction);
    }
    if waits.len() > 16 {
        message += &format!("\n    and {} more", waits.len() - 16);
    }
    let lane = lanes_of(lanes).next().unwrap_or(0);
    worker.findings.report(Kind::Deadlock, pc, || Finding {
        kind: Kind::Deadlock,
        message,
        kernel: context.kernel.name.clone(),
        place: Some(context.place(pc)),
        block,
        thread: context.thread(warp, lane),
        address: None,
        buffer: None,
        count: 1,
    });
}

/// SplitMix64 (Steele, Lea and Flood 2014): enough to draw an order.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = (self.next() % (last as u64 + 1)) as usize;
            items.swap(last, other);
        }
    }
}
