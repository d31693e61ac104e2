//! The order in which warps, blocks and clusters run, and what is said when none of them can.

use std::collections::{BTreeMap, VecDeque};

use super::block::{Block, ClusterBarrier};
use super::execute::Cx;
use super::launch::{Context, Order, Report};
use super::progress::Wake;
use super::registers::{Base, Mask, Registers, WARP};
use super::simd::run_warp;
use super::stuck::explain;
use super::warp::{Group, State, Warp};
use super::worker::{Turn, Worker, fill_frame};
use crate::check::Findings;
use crate::check::proxy::Proxies;
use crate::check::races::BlockState;
use crate::count::{Counters, Tally, Touched};
use crate::memory::in_flight::InFlight;
use crate::memory::shared::Shared;
use crate::{Error, Result};

/// Instructions that a warp runs before the others of its cluster get a turn: few, because its neighbours often access neighbouring
/// lines of memory, and it far ones from one iteration of a loop to the next.
const SLICE: u32 = 512;

/// Instructions after which it is looked whether a warp goes round in circles.
const STRETCH: u32 = 8192;

/// Clusters whose order is drawn at most: a list of all of a grid could be longer than memory.
const SHUFFLED: usize = 1 << 20;

/// Clusters that one worker keeps alive while they wait for others: as many as a GPU could hold at once.
const RESIDENT: usize = 1024;

/// Rounds after which a cluster that has not ended lets others run, one of them new: it may wait for them in a way that looks like
/// work.
const PATIENCE: usize = 1024;

/// Rounds after which an asynchronous operation happens even while the cluster's warps are busy.
const OVERDUE: u32 = 64;

/// Blocks that run together, and what they share.
struct Cluster {
    blocks: Vec<Block>,
    warps: Vec<Warp>,
    /// The epoch in which nothing will happen here.
    spinning: Option<u64>,
}

/// How a cluster's round ended.
enum Round {
    Done,
    /// Something happened that others could wait for.
    Moved,
    /// Nothing that others could see, but its warps are not known to go round in circles.
    Computing,
    /// Some warps spin on something that others may change, and nothing will happen before that.
    Spinning,
    /// Nothing happened, and nothing can.
    Stuck,
}

/// How many times a worker comes for clusters at least: the last ones may take longer than others.
const SHARES: usize = 4;
/// Clusters that a worker takes at once at most. Neighbours work on neighbouring memory: taken one by one, what each worker writes
/// is fetched ahead of need into the cache of the other, which made launches bound by memory a fifth slower on two cores.
const LARGEST_SHARE: usize = 16;

/// Workers that the launch asks for.
fn workers(context: &Context) -> usize {
    match context.launch.order {
        Order::Seeded(_) => 1,
        Order::Natural => context.launch.workers.unwrap_or_else(rayon::current_num_threads).max(1),
    }
}

/// Runs all blocks of a launch.
pub(crate) fn run(context: &Context) -> Result<Report> {
    let clusters = context.launch.blocks() / u64::from(context.launch.cluster_blocks());
    let workers = workers(context).min(clusters as usize).max(1);
    let mut results: Vec<Worker> = Vec::new();
    if workers == 1 {
        results.push(work(context));
    } else {
        let slots: Vec<std::sync::Mutex<Option<Worker>>> = (0..workers).map(|_| std::sync::Mutex::new(None)).collect();
        rayon::scope(|scope| {
            for slot in &slots {
                scope.spawn(|_| {
                    let worker = work(context);
                    *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(worker);
                });
            }
        });
        results.extend(slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)));
    }
    let mut findings = Findings::default();
    let mut tallies = vec![Tally::default(); context.program.instructions.len()];
    let mut touched = untouched(context);
    let (mut printed, mut trace) = (Vec::new(), Vec::new());
    for worker in results {
        trace.extend(worker.trace);
        findings.merge(worker.findings);
        printed.extend(worker.printed);
        for (total, part) in tallies.iter_mut().zip(worker.tallies) {
            *total += part;
        }
        touched.iter_mut().zip(worker.touched).for_each(|(all, part)| all.merge(part));
    }
    // Each block was run by one worker: its own lines are in the order of time.
    printed.sort_by_key(|(block, _)| *block);
    let printed = printed.into_iter().map(|(_, text)| text).collect();
    if context.progress.exhausted() {
        let limit = context.launch.max_instructions;
        return Err(Error::Launch(format!(
            "kernel `{}`: stopped after {limit} warp instructions; is there an endless loop?",
            context.kernel.name
        )));
    }
    let counters = Counters::new(context.program, &tallies, context.traffic(&touched), |pc| context.place(pc));
    Ok(Report { findings: findings.into_sorted(), counters, printed, trace })
}

/// For each allocation no sectors.
fn untouched(context: &Context) -> Vec<Touched> {
    (0..context.memory.len()).map(|index| Touched::new(context.memory.get(index).bytes)).collect()
}

/// Takes clusters from the launch until none are left.
fn work(context: &Context) -> Worker {
    let mut worker = Worker {
        findings: Findings::default(),
        tallies: vec![Tally::default(); context.program.instructions.len()],
        touched: untouched(context),
        effects: 0,
        executed: 0,
        printed: Vec::new(),
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
        // Those beyond come in their natural order.
        order = (0..clusters.min(SHUFFLED) as u32).collect();
        random.shuffle(&mut order);
    }
    let share = (clusters / (workers(context) * SHARES)).clamp(1, LARGEST_SHARE);
    let mut taken = 0..0;
    let mut spare: Vec<Vec<Warp>> = Vec::new();
    let mut live: VecDeque<Cluster> = VecDeque::new();
    // Since a cluster began or ended.
    let mut rounds = 0;
    context.progress.enter();
    loop {
        let epoch = context.progress.epoch();
        let mut ready = live.iter().enumerate().filter(|(_, cluster)| cluster.spinning != Some(epoch)).map(|(index, _)| index);
        let (ready, hasty) = match &mut random {
            None => (ready.next(), false),
            // blocks run among each other, not only where one waits for another
            Some(random) => {
                let ready: Vec<usize> = ready.collect();
                ((!ready.is_empty()).then(|| ready[random.below(ready.len())]), random.next() % 8 == 0)
            }
        };
        if (ready.is_none() || hasty || rounds > PATIENCE * live.len()) && live.len() < RESIDENT {
            if taken.is_empty() {
                taken = context.progress.take(share);
            }
            if let Some(next) = taken.next().filter(|&next| next < clusters) {
                let index = order.get(next).map_or(next, |&index| index as usize);
                live.push_front(start(context, index, &mut spare));
                rounds = 0;
                continue;
            }
        }
        let Some(mut cluster) = ready.and_then(|ready| live.remove(ready)) else {
            if live.is_empty() {
                break;
            }
            match context.progress.sleep(epoch) {
                Wake::Moved => continue,
                Wake::Exhausted => break,
                Wake::Dead => {
                    live.iter().for_each(|cluster| explain(&cluster.blocks, &cluster.warps, context, &mut worker));
                    break;
                }
            }
        };
        let (effects, executed) = (worker.effects, worker.executed);
        let round = run_round(&mut cluster, context, &mut worker, random.as_mut(), epoch);
        context.progress.moved(worker.effects - effects);
        if !context.progress.count(worker.executed - executed, context.launch.max_instructions) {
            break;
        }
        rounds += 1;
        match round {
            Round::Done => {
                spare.push(cluster.warps);
                rounds = 0;
            }
            Round::Moved if rounds % PATIENCE != 0 => live.push_front(cluster),
            Round::Moved | Round::Computing => live.push_back(cluster),
            Round::Spinning => {
                cluster.spinning = Some(epoch);
                live.push_back(cluster);
            }
            Round::Stuck => explain(&cluster.blocks, &cluster.warps, context, &mut worker),
        }
    }
    context.progress.leave();
    worker
}

/// Makes a cluster's blocks and warps ready to run; takes over the warps of one that has ended, if there is one.
fn start(context: &Context, index: usize, spare: &mut Vec<Vec<Warp>>) -> Cluster {
    let (launch, kernel) = (context.launch, context.kernel);
    let (grid, extent) = (launch.grid, launch.cluster);
    let per_axis: [u32; 3] = std::array::from_fn(|axis| grid[axis] / extent[axis]);
    let index = index as u32;
    let origin = [index % per_axis[0], index / per_axis[0] % per_axis[1], index / per_axis[0] / per_axis[1]];
    let threads = launch.threads();
    let warps_per_block = threads.div_ceil(WARP as u32) as usize;
    let blocks = launch.cluster_blocks() as usize;
    let warps = spare.pop().unwrap_or_else(|| Vec::with_capacity(blocks * warps_per_block));
    let mut cluster = Cluster { blocks: Vec::with_capacity(blocks), warps, spinning: None };
    for rank in 0..launch.cluster_blocks() {
        let within = [rank % extent[0], rank / extent[0] % extent[1], rank / extent[0] / extent[1]];
        let coordinates: [u32; 3] = std::array::from_fn(|axis| origin[axis] * extent[axis] + within[axis]);
        let mut alive = vec![!0 as Mask; warps_per_block];
        if threads % WARP as u32 != 0
            && let Some(last) = alive.last_mut()
        {
            *last = (1 << (threads % WARP as u32)) - 1;
        }
        let index = coordinates[0] + grid[0] * (coordinates[1] + grid[1] * coordinates[2]);
        let shared = Shared::new(&context.shared);
        let block = Block {
            coordinates,
            index,
            races: BlockState::new(rank as usize, context.races.number(index), &alive, shared.bytes.len()),
            shared,
            in_flight: InFlight::default(),
            mbarriers: BTreeMap::new(),
            proxies: Proxies::default(),
            transfers: VecDeque::new(),
            barriers: Vec::new(),
            cluster_barrier: ClusterBarrier::default(),
            warpgroups: Vec::new(),
            lanes: alive.clone(),
            woken: vec![0; alive.len()],
            alive,
        };
        for (index, &lanes) in block.alive.iter().enumerate() {
            let function = &context.program.functions[kernel.function];
            let group = Group {
                pc: function.entry,
                lanes,
                state: State::Ready,
                stack: Vec::new(),
                base: Base::default(),
                function: kernel.function as u32,
                local: 0,
                tired: false,
            };
            let place = rank as usize * warps_per_block + index;
            if let Some(warp) = cluster.warps.get_mut(place) {
                warp.restart(index, rank as usize, group);
                warp.registers.reuse(&function.frame);
            } else {
                let mut registers = Registers::default();
                registers.reset(&function.frame);
                cluster.warps.push(Warp::new(index, rank as usize, registers, group));
            }
            let warp = &mut cluster.warps[place];
            warp.open_local(0, function.frame.local_bytes, lanes);
            fill_frame(warp, &block, context, kernel.function as u32, 0, lanes);
        }
        cluster.blocks.push(block);
    }
    cluster
}

/// Gives every warp of a cluster a turn, in an epoch that what it does itself goes on from.
fn run_round(cluster: &mut Cluster, context: &Context, worker: &mut Worker, mut random: Option<&mut Random>, epoch: u64) -> Round {
    let effects = worker.effects;
    let mut order: Vec<u32> = (0..cluster.warps.len() as u32).collect();
    if let Some(random) = &mut random {
        random.shuffle(&mut order);
    }
    let (mut done, mut computing, mut spinning) = (true, false, false);
    for index in order {
        let warp = &mut cluster.warps[index as usize];
        let now = epoch.wrapping_add(worker.effects - effects);
        if warp.stretch == 0 {
            warp.stretch = STRETCH >> warp.cycle.hurry(now);
        }
        let slice = random.as_mut().map_or(SLICE.min(warp.stretch), |random| 1 + (random.next() % 192) as u32);
        let turn = run_warp(warp, &mut cluster.blocks, context, worker, slice);
        // What it did last may have woken others.
        wake(cluster);
        match turn {
            Turn::Done => continue,
            Turn::Stopped => return Round::Done,
            Turn::Yielded | Turn::Expired => {
                let warp = &mut cluster.warps[index as usize];
                let now = epoch.wrapping_add(worker.effects - effects);
                warp.stretch = if turn == Turn::Yielded || random.is_some() { 0 } else { warp.stretch - slice };
                let mut cycle = std::mem::take(&mut warp.cycle);
                if warp.stretch == 0 && cycle.note(now, || warp.state()) {
                    spinning = true;
                } else {
                    computing = true;
                }
                warp.cycle = cycle;
            }
            Turn::Blocked => {}
        }
        done = false;
        if let Some(random) = &mut random
            && cluster.blocks.iter().any(|block| !block.transfers.is_empty())
            && random.next() % 4 == 0
        {
            land_one(cluster, context, worker, Some(random));
        }
    }
    if done {
        while land_one(cluster, context, worker, None) {}
    } else if is_any_overdue(cluster) || worker.effects == effects {
        land_one(cluster, context, worker, random);
    }
    if done {
        Round::Done
    } else if worker.effects != effects {
        Round::Moved
    } else if computing {
        Round::Computing
    } else if spinning {
        Round::Spinning
    } else {
        Round::Stuck
    }
}

/// Makes the oldest of the asynchronous operations that have been asked for happen, or any; false if there is none.
fn land_one(cluster: &mut Cluster, context: &Context, worker: &mut Worker, random: Option<&mut Random>) -> bool {
    let Cluster { blocks, warps, .. } = cluster;
    let ages = blocks.iter().enumerate().filter_map(|(rank, block)| Some((rank, block.transfers.front()?.age)));
    let chosen = match random {
        None => ages.max_by_key(|&(rank, age)| (age, std::cmp::Reverse(rank))).map(|(rank, _)| (rank, 0)),
        Some(random) => {
            let ranks: Vec<usize> = ages.map(|(rank, _)| rank).collect();
            (!ranks.is_empty()).then(|| {
                let rank = ranks[random.below(ranks.len())];
                (rank, random.below(blocks[rank].transfers.len()))
            })
        }
    };
    let Some((rank, mut transfer)) = chosen.and_then(|(rank, index)| Some((rank, blocks[rank].transfers.remove(index)?))) else {
        return false;
    };
    let warp = &mut warps[rank * blocks[rank].alive.len() + transfer.warp];
    let mut cx = Cx { warp, active: transfer.lanes, pc: transfer.pc, resumed: false, blocks, rank, launch: context, worker };
    transfer.operation.land(&mut cx, &transfer.issued);
    worker.effects += 1;
    wake(cluster);
    true
}

/// Whether an asynchronous operation has waited so long that something else may be waiting for it while it keeps busy. Everyone
/// gets older by a round.
fn is_any_overdue(cluster: &mut Cluster) -> bool {
    let mut overdue = false;
    for transfer in cluster.blocks.iter_mut().flat_map(|block| &mut block.transfers) {
        transfer.age += 1;
        overdue |= transfer.age > OVERDUE;
    }
    overdue
}

/// Passes on to each warp which of its lanes were woken by others.
fn wake(cluster: &mut Cluster) {
    let Cluster { blocks, warps, .. } = cluster;
    for warp in warps {
        let woken = std::mem::take(&mut blocks[warp.rank].woken[warp.index]);
        if woken != 0 {
            for group in warp.groups.iter_mut().filter(|group| group.state == State::Waiting && group.lanes & woken != 0) {
                group.state = State::Woken;
            }
        }
    }
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

    /// A number less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}
