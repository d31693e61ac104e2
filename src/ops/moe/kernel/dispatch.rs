//! Sorting the choices by expert on a device: `kernels/moe_dispatch.cu`.

use super::{expect_experts, integer};
use crate::error::{Error, Result};
use crate::gpu::kernels::moe_dispatch::{MoeDispatchCount, MoeDispatchPlace, MoeDispatchScan, MoeDispatchTiles};
use crate::gpu::{Context, Slice, SliceMut};

/// Slots, N·k of them, that chose among E experts.
#[derive(Debug, Clone, Copy)]
pub struct Dispatch {
    /// N·k.
    pub slots: usize,
    /// E.
    pub experts: usize,
    /// The most rows of one tile of the grouped products.
    pub tile_rows: usize,
}

/// What [`Dispatch::sort`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Dispatched<'a> {
    /// `[E]`, slots that chose each expert.
    pub counts: SliceMut<'a, i32>,
    /// `[E]`, to which the counts are added: the load since the last step.
    pub load: SliceMut<'a, i32>,
    /// `[E + 1]`, where the rows of each expert begin.
    pub offsets: SliceMut<'a, i32>,
    /// `[max_tiles, 4]`: expert, first row, rows, 0; by expert and then by row. Those beyond the last one have no rows.
    pub tiles: SliceMut<'a, i32>,
    /// `[1]`, how many tiles there are.
    pub tile_count: SliceMut<'a, i32>,
    /// `[slots]`, each slot's row in the order of the experts.
    pub row_of_slot: SliceMut<'a, i32>,
    /// `[slots]`, the inverse.
    pub slot_of_row: SliceMut<'a, i32>,
}

impl Dispatch {
    /// Columns of the workspace, which has a row of them for each expert.
    pub fn blocks(&self) -> usize {
        /// `BLOCK_SLOTS` of the kernels.
        const BLOCK_SLOTS: usize = 2048;
        self.slots.div_ceil(BLOCK_SLOTS)
    }

    /// More tiles there never are, whatever the load.
    pub fn max_tiles(&self) -> usize {
        self.slots / self.tile_rows.max(1) + self.experts
    }

    /// `choices` `[slots]` → their order by expert, stable, with the workspace `in_block` `[E, blocks]`.
    pub fn sort(&self, context: &Context, to: Dispatched<'_>, in_block: SliceMut<'_, i32>, choices: Slice<'_, i32>) -> Result<()> {
        expect_experts(self.experts)?;
        if self.slots == 0 || self.tile_rows == 0 {
            let Self { slots, tile_rows, .. } = self;
            return Err(Error::device(format!("dispatch: {slots} slots in tiles of at most {tile_rows} rows, there must be some")));
        }
        let slots = integer("choices", self.slots)?;
        let (experts, blocks) = (self.experts as i32, integer("blocks", self.blocks())?);
        let (tile_rows, max_tiles) = (integer("rows of a tile", self.tile_rows)?, integer("tiles", self.max_tiles())?);
        let Dispatched { counts, load, offsets, tiles, tile_count, row_of_slot, slot_of_row } = to;
        context.launch(&[], &MoeDispatchCount { in_block, choices, slots, E: experts })?;
        context.launch(&[], &MoeDispatchScan { in_block, counts, load, E: experts, blocks })?;
        let counts = counts.as_slice();
        context.launch(&[], &MoeDispatchTiles { offsets, tiles, tile_count, counts, E: experts, tile_rows, max_tiles })?;
        let (in_block, offsets) = (in_block.as_slice(), offsets.as_slice());
        context.launch(&[], &MoeDispatchPlace { row_of_slot, slot_of_row, choices, in_block, offsets, slots, E: experts })
    }
}
