//! AdamW and the gradient's norm on a device: `kernels/adamw.cu`, `kernels/gradient_norm.cu`.
//!
//! A step is [`gradient_norm`], then [`update`]. What changes from step to step lies in device memory (`kernels/step_state.cuh`),
//! so that a captured step's launches stay as they are: the host reads it when it wants to know, and writes only its begin.

use std::ops::Range;

use half::bf16;

use super::AdamW;
use crate::error::{Error, Result};
use crate::gpu::kernels::adamw::{AdamwUpdate, AdamwUpdateCopy, AdamwUpdateStochastic};
use crate::gpu::kernels::gradient_norm::{GradientNormSquares, GradientNormStep};
use crate::gpu::{Context, ElementSliceMut, Slice, SliceMut};

/// Places in [`StepState::values`].
pub mod value {
    /// What the loss of the next step is multiplied by; the host sets the first.
    pub const LOSS_SCALE: usize = 0;
    /// Of the gradient, before clipping, without the loss scale.
    pub const NORM: usize = 1;
    /// What gradients are multiplied by: the clip factor over the loss scale that they were computed with.
    pub const GRAD_SCALE: usize = 2;
    /// Learning rate.
    pub const RATE: usize = 3;
    /// Learning rate over `1 − β₁ᵗ`, where t counts updates from 1.
    pub const STEP_SIZE: usize = 4;
    /// `1/√(1 − β₂ᵗ)`.
    pub const V_SCALE: usize = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// Places in [`StepState::counts`].
pub mod count {
    /// Steps so far, skipped ones too: the place in the table of learning rates.
    pub const STEPS: usize = 0;
    /// Steps that changed the weights.
    pub const UPDATES: usize = 1;
    /// Of them, those since the loss scale last changed.
    pub const STREAK: usize = 2;
    /// Whether the last step's gradient was finite.
    pub const FINITE: usize = 3;
    /// Whether an update ever made a weight infinite or NaN.
    pub const OVERFLOWED: usize = 4;
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// What changes from one step to the next.
#[derive(Debug, Clone, Copy)]
pub struct StepState<'a> {
    /// [[`value::COUNT`]]
    pub values: SliceMut<'a, f32>,
    /// [[`count::COUNT`]], all zero at the start.
    pub counts: SliceMut<'a, i32>,
}

/// What a step's state depends on beside the gradient.
#[derive(Debug, Clone, Copy)]
pub struct StepSettings {
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// What gradients are clipped to; 0 clips nothing.
    pub max_norm: f64,
    /// Good steps after which the loss scale doubles; 0 leaves it as it is.
    pub growth_interval: i32,
}

/// Sums of the workspace of [`gradient_norm`] for this many gradients: one for each block.
///
/// Enough blocks for every multiprocessor of today's devices to have eight; the number depends on nothing else, for the order of
/// the sum depends on it.
pub fn partials(gradients: usize) -> usize {
    const BLOCKS: usize = 1056;
    const GRADIENTS_OF_A_BLOCK: usize = 4096;
    gradients.div_ceil(GRADIENTS_OF_A_BLOCK).clamp(1, BLOCKS)
}

/// The norm of all gradients `[n]`, and the state of the step that follows. `rates` `[steps]`: the learning rate of every step;
/// `partial`: workspace of [`partials`].
pub fn gradient_norm(
    context: &Context,
    state: StepState<'_>,
    partial: SliceMut<'_, f32>,
    g: Slice<'_, f32>,
    rates: Slice<'_, f32>,
    settings: StepSettings,
) -> Result<()> {
    if rates.is_empty() {
        return Err(Error::device("gradient_norm: no learning rates"));
    }
    let (blocks, n) = (partials(g.len()) as i32, g.len() as i64);
    let steps = i32::try_from(rates.len()).unwrap_or(i32::MAX);
    context.launch(&[], &GradientNormSquares { partial, g, n, blocks })?;
    let StepSettings { betas: [beta1, beta2], max_norm, growth_interval } = settings;
    let (values, counts, partial) = (state.values, state.counts, partial.as_slice());
    let step = GradientNormStep { state: values, counts, partial, rates, blocks, steps, beta1, beta2, max_norm, growth_interval };
    context.launch(&[], &step)
}

/// The parts of the flat buffers that one block each updates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tiles {
    /// Begin and end of each.
    pub bounds: Vec<i64>,
    /// Weight decay of each.
    pub decays: Vec<f32>,
}

/// Elements of a tile at most: sixteen for each thread.
const TILE: usize = 4096;

impl Tiles {
    /// Of these ranges of the buffers, with the weight decay of each. What lies in none of them is left alone.
    pub fn new(ranges: &[(Range<usize>, f64)]) -> Self {
        let mut tiles = Self::default();
        for (range, decay) in ranges {
            let mut begin = range.start;
            while begin < range.end {
                // The second tile of a range begins where a vector does.
                let end = (begin / 4 * 4 + TILE).min(range.end);
                tiles.bounds.extend([begin as i64, end as i64]);
                tiles.decays.push(*decay as f32);
                begin = end;
            }
        }
        tiles
    }
}

/// [`Tiles`] on the device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTiles<'a> {
    /// [tiles, 2]
    pub bounds: Slice<'a, i64>,
    /// `[tiles]`
    pub decays: Slice<'a, f32>,
}

/// The equally long flat buffers of an update.
#[derive(Debug, Clone, Copy)]
pub struct DeviceState<'a> {
    /// Parameters.
    pub params: SliceMut<'a, f32>,
    /// Their gradients.
    pub grads: Slice<'a, f32>,
    /// First moments.
    pub m: SliceMut<'a, f32>,
    /// Second moments.
    pub v: SliceMut<'a, f32>,
    /// Where the updated parameters are left rounded.
    pub copy: WorkingCopy<'a>,
}

/// What the model computes with.
#[derive(Debug, Clone, Copy)]
pub enum WorkingCopy<'a> {
    /// The parameters themselves.
    None,
    /// A copy, rounded to nearest.
    Nearest(ElementSliceMut<'a>),
    /// A copy, rounded up or down at random so that the mean is right.
    Stochastic {
        /// The copy.
        copy: SliceMut<'a, bf16>,
        /// The key of the random numbers, [`Philox`](crate::rng::Philox)'s as one number: element i of step t takes word `i % 4` of
        /// the block at `[i / 4, (i / 4) >> 32, t, 0]`, t being the count of steps.
        random: u64,
    },
}

impl WorkingCopy<'_> {
    fn len(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Nearest(copy) => Some(copy.as_slice().len()),
            Self::Stochastic { copy, .. } => Some(copy.len()),
        }
    }
}

/// An update of all parameters as the last [`gradient_norm`] left the state; of `settings`, the tiles' decay stands for its own.
pub fn update(
    context: &Context,
    buffers: DeviceState<'_>,
    state: StepState<'_>,
    tiles: DeviceTiles<'_>,
    settings: &AdamW,
) -> Result<()> {
    let DeviceState { params: p, grads: g, m, v, copy } = buffers;
    let lengths = [g.len(), m.len(), v.len(), copy.len().unwrap_or(p.len())];
    if lengths.iter().any(|&len| len != p.len()) || tiles.bounds.len() != 2 * tiles.decays.len() {
        return Err(Error::device(format!("adamw: {} parameters, other buffers of {lengths:?}", p.len())));
    }
    let count = tiles.decays.len();
    if count == 0 {
        return Ok(());
    }
    let tiles_count = i32::try_from(count).map_err(|_| Error::device(format!("adamw: {count} tiles are too many")))?;
    let ([beta1, beta2], eps) = (settings.betas.map(|beta| beta as f32), settings.eps as f32);
    let (counts, state, DeviceTiles { bounds, decays }) = (state.counts, state.values.as_slice(), tiles);
    match copy {
        WorkingCopy::Nearest(copy) => {
            let call = AdamwUpdateCopy { p, m, v, copy, counts, g, state, bounds, decays, tiles: tiles_count, beta1, beta2, eps };
            context.launch(&[], &call)
        }
        WorkingCopy::Stochastic { copy, random } => {
            let call = AdamwUpdateStochastic {
                p,
                m,
                v,
                copy,
                counts,
                g,
                state,
                bounds,
                decays,
                random,
                tiles: tiles_count,
                beta1,
                beta2,
                eps,
            };
            context.launch(&[], &call)
        }
        WorkingCopy::None => {
            let call = AdamwUpdate { p, m, v, counts, g, state, bounds, decays, tiles: tiles_count, beta1, beta2, eps };
            context.launch(&[], &call)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_each_range_once_and_begin_at_vectors() {
        let ranges = [(3..10_001, 0.1), (10_001..10_003, 0.0), (10_010..20_000, 0.2)];
        let tiles = Tiles::new(&ranges);
        let mut covered = vec![None; 20_000];
        for (bounds, &decay) in tiles.bounds.chunks_exact(2).zip(&tiles.decays) {
            let (begin, end) = (bounds[0] as usize, bounds[1] as usize);
            assert!(begin < end && end - begin <= TILE);
            assert!(begin % 4 == 0 || ranges.iter().any(|(range, _)| range.start == begin));
            for place in &mut covered[begin..end] {
                assert_eq!(place.replace(decay), None);
            }
        }
        for (i, place) in covered.iter().enumerate() {
            let expected = ranges.iter().find(|(range, _)| range.contains(&i)).map(|&(_, decay)| decay as f32);
            assert_eq!(*place, expected, "{i}");
        }
    }

    #[test]
    fn places_are_those_of_the_kernels() {
        let header = include_str!("../../../kernels/step_state.cuh");
        let names = |of: &str| -> Vec<String> {
            let body = header.split(of).nth(1).unwrap().split(['{', '}']).nth(1).unwrap();
            body.lines()
                .filter_map(|line| line.split(['/', ',']).next())
                .map(|name| name.trim().to_owned())
                .filter(|n| !n.is_empty())
                .collect()
        };
        let places = |of: Vec<String>, expected: &[(&str, usize)]| {
            for (name, place) in expected {
                assert_eq!(of.iter().position(|other| other == name), Some(*place), "{name} in {of:?}");
            }
        };
        use {count as c, value as v};
        let values = [("LOSS_SCALE", v::LOSS_SCALE), ("NORM", v::NORM), ("GRAD_SCALE", v::GRAD_SCALE), ("RATE", v::RATE)];
        places(names("enum StateFloat"), &values);
        places(names("enum StateFloat"), &[("STEP_SIZE", v::STEP_SIZE), ("V_SCALE", v::V_SCALE), ("STATE_FLOATS", v::COUNT)]);
        let counts = [("STEPS", c::STEPS), ("UPDATES", c::UPDATES), ("STREAK", c::STREAK), ("FINITE", c::FINITE)];
        places(names("enum StateCount"), &counts);
        places(names("enum StateCount"), &[("OVERFLOWED", c::OVERFLOWED), ("STATE_COUNTS", c::COUNT)]);
    }
}
