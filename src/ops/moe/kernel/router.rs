//! The router and its auxiliary loss on a device: `kernels/moe_router.cu`, `kernels/moe_balance.cu`.

use super::{expect_experts, integer};
use crate::error::{Error, Result};
use crate::gpu::kernels::moe_balance::{MoeBalanceCorrect, MoeBalanceForward};
use crate::gpu::kernels::moe_router::{MoeRouterBackward, MoeRouterForward};
use crate::gpu::{Context, ElementSliceMut, Slice, SliceMut};
use crate::ops::moe::{RouterConfig, Scoring};

/// A router of N = sequences · length tokens among E experts.
#[derive(Debug, Clone, Copy)]
pub struct Router {
    /// Sequences of the batch.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// E.
    pub experts: usize,
    /// What it does; k is its `top_k`.
    pub config: RouterConfig,
}

/// What [`Router::forward`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// `[N, k]`
    pub weights: SliceMut<'a, f32>,
    /// `[N, k]`, the best first.
    pub choices: SliceMut<'a, i32>,
}

/// Workspaces between [`Router::forward`] and [`Router::balance`], which [`Router::partials`] says the size of; left alone where there
/// is no auxiliary loss.
#[derive(Debug, Clone, Copy)]
pub struct Partials<'a> {
    /// `[partials, E]`, sums of the scores.
    pub sums: SliceMut<'a, f32>,
    /// `[partials, E]`, how many chose each expert.
    pub counts: SliceMut<'a, i32>,
}

/// What [`Router::backward`] reads.
#[derive(Debug, Clone, Copy)]
pub struct RouterGradient<'a> {
    /// `[N, k]`, of the weights.
    pub d_weights: Slice<'a, f32>,
    /// `[1]`, of the auxiliary loss.
    pub d_loss: Slice<'a, f32>,
    /// `[N, E]`, as forward had them.
    pub logits: Slice<'a, f32>,
    /// `[N, k]`, as forward wrote them.
    pub choices: Slice<'a, i32>,
    /// `[balanced, E]`, as [`Router::balance`] wrote them.
    pub fractions: Slice<'a, f32>,
}

/// The most groups of experts, where not all of them are kept: the kernel has a bit for each.
const MAX_GROUPS: usize = 32;

impl Router {
    fn tokens(&self) -> usize {
        self.sequences * self.length
    }

    /// Tokens that are balanced together, and what the kernels multiply `Σ_e f_e · Σ_t p[t, e]` by.
    fn group_and_factor(&self) -> (usize, f32) {
        let sizes = [self.length, self.tokens()];
        let (group, scale) =
            self.config.aux_loss.group_and_scale(sizes, self.experts, self.config.top_k).unwrap_or((sizes[1], 0.0));
        (group, (scale / self.tokens() as f64) as f32)
    }

    /// Parts that the auxiliary loss is the sum of: each sequence's, or one for all tokens.
    pub fn balanced(&self) -> usize {
        self.tokens() / self.group_and_factor().0.max(1)
    }

    /// Blocks for each of the [`balanced`](Self::balanced) parts. They depend on the shape alone, for the order of sums depends on them.
    fn chunks(&self) -> usize {
        /// Two for each multiprocessor of today's devices.
        const BLOCKS: usize = 264;
        /// Fewer would not be worth the sums that a block leaves.
        const TOKENS_OF_A_BLOCK: usize = 64;
        const THREADS: usize = 256;
        let vectors = if self.experts.is_multiple_of(4) { self.experts / 4 } else { self.experts };
        let at_once = THREADS / vectors.next_power_of_two().min(32);
        self.group_and_factor().0.div_ceil(at_once.max(TOKENS_OF_A_BLOCK)).clamp(1, BLOCKS.div_ceil(self.balanced().max(1)))
    }

    /// Rows of the workspaces, each of E numbers.
    pub fn partials(&self) -> usize {
        self.balanced() * self.chunks()
    }

    fn defines(&self, corrected: bool) -> Result<[(&'static str, i64); 8]> {
        let RouterConfig { top_k, scoring, weights, aux_loss, groups, top_groups, .. } = self.config;
        expect_experts(self.experts)?;
        self.config.check(self.experts)?;
        integer("tokens", self.tokens())?;
        let limited = top_groups < groups;
        if limited && groups > MAX_GROUPS {
            return Err(Error::device(format!(
                "router: {groups} groups of experts (n_group), the kernel takes at most {MAX_GROUPS}"
            )));
        }
        Ok([
            ("EXPERTS", self.experts as i64),
            ("TOP_K", top_k as i64),
            ("GROUPS", if limited { groups as i64 } else { 1 }),
            ("TOP_GROUPS", if limited { top_groups as i64 } else { 1 }),
            ("SIGMOID", i64::from(scoring == Scoring::Sigmoid)),
            ("NORMALISED", i64::from(weights.normalises(top_k))),
            ("CORRECTED", i64::from(corrected)),
            ("AUX", i64::from(aux_loss.factor() != 0.0)),
        ])
    }

    /// `logits` `[N, E]`, and a `correction` `[E]` of the choice where there is one → the choices and their weights.
    pub fn forward(
        &self,
        context: &Context,
        to: Chosen<'_>,
        partials: Partials<'_>,
        logits: Slice<'_, f32>,
        correction: Option<Slice<'_, f32>>,
    ) -> Result<()> {
        let call = MoeRouterForward {
            weights: to.weights,
            choices: to.choices,
            partial_sum: partials.sums,
            partial_count: partials.counts,
            logits,
            correction: correction.unwrap_or(logits), // not read where there is none
            sequences: integer("sequences", self.balanced())?,
            chunks: integer("blocks", self.chunks())?,
            T: integer("tokens", self.group_and_factor().0)?,
            scale: self.config.scale as f32,
        };
        context.launch(&self.defines(correction.is_some())?, &call)
    }

    /// What [`forward`](Self::forward) left → the parts of the auxiliary loss `loss` `[balanced]`, whose sum it is, and the shares that
    /// the experts got, `fractions` `[balanced, E]`, which backward takes.
    pub fn balance(
        &self,
        context: &Context,
        loss: SliceMut<'_, f32>,
        fractions: SliceMut<'_, f32>,
        partials: Partials<'_>,
    ) -> Result<()> {
        let (group, factor) = self.group_and_factor();
        let call = MoeBalanceForward {
            loss,
            fractions,
            partial_sum: partials.sums.as_slice(),
            partial_count: partials.counts.as_slice(),
            sequences: integer("sequences", self.balanced())?,
            chunks: integer("blocks", self.chunks())?,
            T: integer("tokens", group)?,
            factor,
        };
        let [experts, top_k, ..] = self.defines(false)?;
        context.launch(&[experts, top_k], &call)
    }

    /// The gradient of the logits, `[N, E]`. Where there is no auxiliary loss its gradient and the fractions are not read.
    pub fn backward(&self, context: &Context, d_logits: ElementSliceMut<'_>, from: RouterGradient<'_>) -> Result<()> {
        let RouterGradient { d_weights, d_loss, logits, choices, fractions } = from;
        let (group, factor) = self.group_and_factor();
        let call = MoeRouterBackward {
            d_logits,
            d_weights,
            d_loss,
            logits,
            choices,
            fractions,
            sequences: integer("sequences", self.balanced())?,
            chunks: integer("blocks", self.chunks())?,
            T: integer("tokens", group)?,
            scale: self.config.scale as f32,
            factor,
        };
        context.launch(&self.defines(false)?, &call)
    }
}

/// One step of balancing without a loss, as [`balanced_correction`](crate::ops::moe::balanced_correction): `correction` `[E]` by the
/// `load` `[E]`, unless `finite` `[1]` is 0.
pub fn correct(
    context: &Context,
    experts: usize,
    correction: SliceMut<'_, f32>,
    load: Slice<'_, i32>,
    finite: Slice<'_, i32>,
    speed: f32,
) -> Result<()> {
    expect_experts(experts)?;
    context.launch(&[("EXPERTS", experts as i64)], &MoeBalanceCorrect { correction, load, finite, speed })
}
