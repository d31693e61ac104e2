//! The sort by expert.

use super::{Sizes, numbers};
use crate::gpu::ElementType;
use crate::ops::moe::kernel::{Dispatch, Dispatched};
use crate::ops::table::{Case, HostOperands, Operand, Outputs, Problem, Traffic, Type};

/// How the tokens are spread over the experts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    Even,
    /// All to the first k but for what they cannot take.
    Overfull,
    /// None to every second expert, as long as others are left.
    Starved,
}

/// Odd sizes and loads, and a step's worth of tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, experts, top_k, tile_rows, load) in [
        (1, 1, 1, 16, Load::Even),
        (17, 4, 3, 7, Load::Overfull),
        (511, 8, 2, 64, Load::Starved),
        (513, 5, 1, 128, Load::Overfull),
        (1500, 8, 2, 64, Load::Even),
        (700, 256, 8, 16, Load::Starved),
    ] {
        add(&mut cases, Sizes { tokens, experts, top_k }, tile_rows, load, false);
    }
    add(&mut cases, Sizes { tokens: 32768, experts: 8, top_k: 2 }, 128, Load::Even, true);
    // More blocks than the scan has threads.
    add(&mut cases, Sizes { tokens: 270_000, experts: 4, top_k: 2 }, 128, Load::Even, true);
    cases
}

fn add(cases: &mut Vec<Case>, sizes: Sizes, tile_rows: usize, load: Load, measured: bool) {
    let Sizes { tokens, experts, top_k } = sizes;
    let shape = format!("{tokens}x{top_k} of {experts}, tiles {tile_rows}, {load:?}").to_lowercase();
    cases.push(Case::new("moe_dispatch", "sort", &shape, ElementType::F32, move || sort(sizes, tile_rows, load, measured)));
}

fn choices(sizes: Sizes, load: Load) -> Vec<u32> {
    let routing = sizes.routing(|expert| match load {
        Load::Even => 0.0,
        Load::Overfull => -50.0 * expert as f64,
        Load::Starved => -50.0 * (expert % 2) as f64,
    });
    routing.map(|routing| routing.choices().to_vec()).unwrap_or_default()
}

fn sort(sizes: Sizes, tile_rows: usize, load: Load, measured: bool) -> Problem {
    let (slots, experts) = (sizes.slots(), sizes.experts);
    let dispatch = Dispatch { slots, experts, tile_rows };
    let choices = choices(sizes, load);
    let traffic = if measured { Traffic::Tiled { sectors: sectors(dispatch, &choices) } } else { Traffic::Unmeasured };
    Problem {
        operands: vec![
            Operand::output("counts", Type::I32, [1, experts]),
            Operand::in_out("load", Type::I32, [1, experts], (0..experts).map(|e| 1000.0 - e as f64).collect()),
            Operand::output("offsets", Type::I32, [1, experts + 1]),
            Operand::output("tiles", Type::I32, [dispatch.max_tiles(), 4]),
            Operand::output("tile_count", Type::I32, [1, 1]),
            Operand::output("row_of_slot", Type::I32, [1, slots]),
            Operand::output("slot_of_row", Type::I32, [1, slots]),
            Operand::workspace("in_block", Type::I32, experts * dispatch.blocks()),
            Operand::input("choices", Type::I32, [1, slots], numbers(&choices)),
        ],
        run: Box::new(move |on| {
            let to = Dispatched {
                counts: on.slice_mut("counts")?,
                load: on.slice_mut("load")?,
                offsets: on.slice_mut("offsets")?,
                tiles: on.slice_mut("tiles")?,
                tile_count: on.slice_mut("tile_count")?,
                row_of_slot: on.slice_mut("row_of_slot")?,
                slot_of_row: on.slice_mut("slot_of_row")?,
            };
            dispatch.sort(on.context(), to, on.slice_mut("in_block")?, on.slice("choices")?)
        }),
        reference: Box::new(move |_, host| reference(dispatch, host)),
        flops: 0,
        traffic,
    }
}

/// Expert by expert, the slots that chose it in their order.
fn rows_by_expert(choices: &[u32], experts: usize) -> Vec<Vec<usize>> {
    (0..experts).map(|e| (0..choices.len()).filter(|&slot| choices[slot] as usize == e).collect()).collect()
}

fn reference(dispatch: Dispatch, host: &HostOperands) -> Outputs {
    let choices: Vec<u32> = host.get::<f64>("choices").iter().map(|&e| e as u32).collect();
    let by_expert = rows_by_expert(&choices, dispatch.experts);
    let (mut offsets, mut tiles, mut slot_of_row) = (vec![0.0], Vec::new(), Vec::new());
    for (expert, slots) in by_expert.iter().enumerate() {
        for tile in slots.chunks(dispatch.tile_rows) {
            tiles.extend([expert as f64, slot_of_row.len() as f64, tile.len() as f64, 0.0]);
            slot_of_row.extend(tile.iter().map(|&slot| slot as f64));
        }
        offsets.push(slot_of_row.len() as f64);
    }
    let mut row_of_slot = vec![0.0; dispatch.slots];
    slot_of_row.iter().enumerate().for_each(|(row, &slot)| row_of_slot[slot as usize] = row as f64);
    let tile_count = (tiles.len() / 4) as f64;
    tiles.resize(dispatch.max_tiles() * 4, 0.0);
    let counts: Vec<f64> = by_expert.iter().map(|slots| slots.len() as f64).collect();
    let load = host.get::<f64>("load").iter().zip(&counts).map(|(load, count)| load + count).collect();
    vec![
        ("counts", counts),
        ("load", load),
        ("offsets", offsets),
        ("tiles", tiles),
        ("tile_count", vec![tile_count]),
        ("row_of_slot", row_of_slot),
        ("slot_of_row", slot_of_row),
    ]
}

/// Sectors that the kernels ask for: the choices twice, the rows of slots once, the slots of rows where each warp's 32 slots lie,
/// the table of counts as its columns are written and read, the list of tiles.
fn sectors(dispatch: Dispatch, choices: &[u32]) -> u64 {
    const IN_SECTOR: usize = 8;
    let mut row_of_slot = vec![0; choices.len()];
    rows_by_expert(choices, dispatch.experts).concat().iter().enumerate().for_each(|(row, &slot)| row_of_slot[slot] = row);
    let scattered: usize = row_of_slot
        .chunks(32)
        .map(|rows| {
            let mut sectors: Vec<usize> = rows.iter().map(|row| row / IN_SECTOR).collect();
            sectors.sort_unstable();
            sectors.dedup();
            sectors.len()
        })
        .sum();
    let columns = 2 * dispatch.experts * dispatch.blocks();
    (3 * dispatch.slots.div_ceil(IN_SECTOR) + scattered + columns + dispatch.max_tiles() / 2) as u64
}
