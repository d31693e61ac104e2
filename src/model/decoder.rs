//! The decoder: embedding, blocks of attention and feed-forward, each before a residual addition, a final norm, the head.
//!
//! `h ← h + Attention(norm₁(h))`, `h ← h + FeedForward(norm₂(h))`; each addition is fused with the norm that follows it.

use std::sync::Arc;

use super::cache::Cache;
use super::config::ModelConfig;
use super::weights::{Experts, FeedForward, Init, Mlp, Weights, initialise};
use crate::ops::cross_entropy::cross_entropy;
use crate::ops::dropout::{DropoutMask, dropout};
use crate::ops::embedding::embedding;
use crate::ops::gated::gated;
use crate::ops::linear::linear;
use crate::ops::moe::{self, Routed, Routing, moe};
use crate::ops::rmsnorm::{add_rmsnorm, rmsnorm};
use crate::ops::rope::{Frequencies, RopeScaling, RopeTable};
use crate::ops::{add::add, weighted_sum::weighted_sum};
use crate::params::{Layout, Params};
use crate::rng::Philox;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// A decoder: its configuration and its parameters.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    weights: Weights,
    params: Params,
    rope: RopeTable,
}

/// What one pass is about. Vectors over tokens are `[B, T]`, row by row.
#[derive(Debug, Clone)]
pub struct Forward {
    /// B.
    pub rows: usize,
    /// T.
    pub seq_len: usize,
    /// Token ids.
    pub ids: Arc<[i32]>,
    /// The index in its row of the first token of each position's document: attention looks back no further.
    pub document_starts: Option<Arc<[i32]>>,
    /// 1 for a real token, 0 for padding, which is not attended.
    pub attention_mask: Option<Arc<[i32]>>,
    /// Dropout, in training.
    pub dropout: Option<Dropout>,
}

impl Forward {
    /// Rows of whole sequences, without masks or dropout.
    pub fn plain(rows: usize, seq_len: usize, ids: impl Into<Arc<[i32]>>) -> Self {
        Self { rows, seq_len, ids: ids.into(), document_starts: None, attention_mask: None, dropout: None }
    }
}

/// The random choices of dropout in one pass.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Keyed by the run's seed and the step.
    pub philox: Philox,
    /// The global index of each row's sample, `[B]`.
    pub sample_ids: Arc<[u64]>,
}

/// The places of one layer at which dropout happens, in the order of the numbers of their streams.
const SITES_PER_LAYER: u64 = 3;

impl Dropout {
    pub(super) fn mask(&self, p: f64, site: u64) -> DropoutMask {
        DropoutMask { p, philox: self.philox.stream(site), sample_ids: self.sample_ids.clone() }
    }
}

/// What a pass computes.
pub struct Output {
    /// After the final norm, `[B, T, H]`.
    pub hidden: Var,
    /// The auxiliary loss of each layer that has experts, a scalar.
    pub aux_losses: Vec<Var>,
    /// The experts that each token chose, of each layer that has them.
    pub routings: Vec<Arc<Routing>>,
}

/// The loss of a pass and its parts.
pub struct Loss {
    /// What is differentiated.
    pub total: Var,
    /// The sum of the counted tokens' losses over the denominator.
    pub cross_entropy: f64,
    /// The auxiliary losses of all layers, as they are added.
    pub aux: f64,
    /// How many tokens each expert got, of each layer that has experts.
    pub expert_counts: Vec<Vec<usize>>,
}

impl Model {
    /// A model with given parameters, which must lie as [`Model::layout`] says.
    pub fn new(config: ModelConfig, params: Params) -> Result<Self> {
        config.validate()?;
        let (weights, layout) = Weights::layout(&config);
        if layout.len() != params.layout().len() {
            return Err(Error::Internal("parameters of another layout than the model's".into()));
        }
        let frequencies =
            Frequencies::new(config.rotary_dim(), config.rope_theta, config.max_position_embeddings, config.rope_scaling)?;
        let rope = RopeTable::new(frequencies, config.max_position_embeddings);
        Ok(Self { config, weights, params, rope })
    }

    /// A model with random parameters, which depend on nothing but the configuration and the seed; `std` is the deviation of
    /// [`Init::Normal`].
    pub fn random(config: ModelConfig, init: Init, std: f64, seed: u64) -> Result<Self> {
        let params = initialise(Self::layout(&config)?, init, std, seed)?;
        Self::new(config, params)
    }

    /// The names, shapes and places of the parameters of a configuration.
    pub fn layout(config: &ModelConfig) -> Result<Layout> {
        config.validate()?;
        Ok(Weights::layout(config).1)
    }

    /// The same model in f64, for checks.
    pub fn to_f64(&self) -> Result<Self> {
        Self::new(self.config.clone(), self.params.to_f64()?)
    }

    /// The same model with its parameters rounded to bf16, for inference.
    pub fn to_bf16(&self) -> Result<Self> {
        Self::new(self.config.clone(), self.params.to_bf16()?)
    }

    /// The same model with another probability of dropout.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.config.dropout = dropout;
        self
    }

    /// The same weights with other rotary angles, for up to `max_position_embeddings` positions: how a model is read beyond the length
    /// that it was trained at.
    ///
    /// # Errors
    /// A setting of the scaling that has no meaning; no positions.
    pub fn with_rope_scaling(self, rope_scaling: RopeScaling, max_position_embeddings: usize) -> Result<Self> {
        Self::new(ModelConfig { rope_scaling, max_position_embeddings, ..self.config }, self.params)
    }

    /// Its configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its rotary angles.
    pub(super) fn rope(&self) -> &RopeTable {
        &self.rope
    }

    /// Its parameters, to write.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// An empty cache for a sequence of up to `capacity` tokens.
    pub fn cache(&self, capacity: usize) -> Cache {
        Cache::new(self.config.num_hidden_layers, capacity, self.config.cache_widths())
    }

    /// All blocks and the final norm.
    pub fn hidden(&self, tape: &mut Tape, forward: &Forward) -> Result<Output> {
        self.run(tape, forward, &mut [])
    }

    /// As [`Model::hidden`] for the next T tokens of one sequence (B = 1), whose earlier tokens are in `cache`; extends it.
    pub fn hidden_cached(&self, tape: &mut Tape, ids: &[i32], cache: &mut Cache) -> Result<Output> {
        self.hidden_batch(tape, ids, &mut [cache])
    }

    /// The same for several sequences at once, each with its cache: `ids` `[B, T]` are the next T tokens of each.
    pub fn hidden_batch(&self, tape: &mut Tape, ids: &[i32], caches: &mut [&mut Cache]) -> Result<Output> {
        let rows = caches.len().max(1);
        self.run(tape, &Forward::plain(rows, ids.len() / rows, ids), caches)
    }

    /// `[.., H]` → `[.., V]`.
    pub fn logits(&self, tape: &mut Tape, hidden: &Var) -> Result<Var> {
        linear(tape, hidden, &tape.param(&self.params, &self.weights.head))
    }

    /// Next-token cross-entropy against `targets` `[B, T]` (shifted already), summed over the counted ones and divided by
    /// `denominator`, plus the auxiliary losses times `aux_weight`.
    pub fn loss(
        &self,
        tape: &mut Tape,
        forward: &Forward,
        targets: Arc<[i32]>,
        denominator: usize,
        aux_weight: f64,
    ) -> Result<Loss> {
        let output = self.hidden(tape, forward)?;
        tape.enter("lm_head");
        let head = tape.param(&self.params, &self.weights.head);
        let cross_entropy = cross_entropy(tape, &output.hidden, &head, targets, denominator)?;
        let parts: Vec<(&Var, f64)> =
            std::iter::once((&cross_entropy, 1.0)).chain(output.aux_losses.iter().map(|aux| (aux, aux_weight))).collect();
        let total = weighted_sum(tape, &parts)?;
        let aux = output.aux_losses.iter().map(|aux| Ok(aux.value().item()? * aux_weight)).sum::<Result<f64>>()?;
        let expert_counts = output.routings.iter().map(|routing| routing.counts()).collect();
        Ok(Loss { cross_entropy: cross_entropy.value().item()?, total, aux, expert_counts })
    }

    fn run(&self, tape: &mut Tape, forward: &Forward, caches: &mut [&mut Cache]) -> Result<Output> {
        if forward.ids.len() != forward.rows * forward.seq_len || forward.ids.is_empty() {
            return Err(Error::Shape {
                op: "decoder",
                argument: "ids",
                expected: format!("[{}, {}], not empty", forward.rows, forward.seq_len),
                got: format!("{} ids", forward.ids.len()),
            });
        }
        let config = &self.config;
        tape.enter("model.embed_tokens");
        let table = tape.param(&self.params, &self.weights.embedding);
        let embedded = embedding(tape, &table, forward.ids.clone())?;
        let embedded = embedded.reshape([forward.rows, forward.seq_len, config.hidden_size])?;
        let mut h = self.drop(tape, embedded, forward, 0)?;
        let mut norms = self.weights.layers.iter().map(|layer| &layer.input_norm).chain([&self.weights.final_norm]);
        let mut next_norm = |tape: &Tape| norms.next().map(|norm| tape.param(&self.params, norm));
        let eps = config.rms_norm_eps;
        let Some(first_norm) = next_norm(tape) else { return Err(Error::Internal("a decoder without norms".into())) };
        let mut y = rmsnorm(tape, &h, &first_norm, eps)?;
        let (mut aux_losses, mut routings) = (Vec::new(), Vec::new());
        for (l, layer) in self.weights.layers.iter().enumerate() {
            let site = SITES_PER_LAYER * l as u64 + 1;
            tape.enter(format!("model.layers.{l}.self_attn"));
            let mut of_layer: Vec<_> = caches.iter_mut().map(|cache| cache.layer(l)).collect();
            let attended = self.attention(tape, &layer.attention, &y, forward, site, &mut of_layer)?;
            let attended = self.drop(tape, attended, forward, site + 1)?;
            let norm = tape.param(&self.params, &layer.post_attention_norm);
            (h, y) = add_rmsnorm(tape, &h, &attended, &norm, eps)?;
            tape.enter(format!("model.layers.{l}.mlp"));
            let fed = match &layer.feed_forward {
                FeedForward::Dense(mlp) => self.mlp(tape, mlp, &y)?,
                FeedForward::Experts(experts) => {
                    let (fed, routed) = self.experts(tape, experts, &y)?;
                    aux_losses.push(routed.aux_loss);
                    routings.push(routed.routing);
                    fed
                }
            };
            let fed = self.drop(tape, fed, forward, site + 2)?;
            let Some(norm) = next_norm(tape) else { return Err(Error::Internal("fewer norms than layers".into())) };
            (h, y) = add_rmsnorm(tape, &h, &fed, &norm, eps)?;
        }
        Ok(Output { hidden: y, aux_losses, routings })
    }

    /// One step of balancing without a loss: the corrections of the routers that have them move by `speed`, after `counts`, how many
    /// tokens each expert got, of each layer that has experts. See [`moe::balanced_correction`].
    pub fn balance_routers(&mut self, counts: &[Vec<usize>], speed: f64) -> Result<()> {
        let values = self.params.flat_mut::<f32>()?;
        let experts = self.weights.layers.iter().filter_map(|layer| match &layer.feed_forward {
            FeedForward::Experts(experts) => Some(experts),
            FeedForward::Dense(_) => None,
        });
        for (correction, counts) in experts.zip(counts).filter_map(|(experts, counts)| Some((experts.correction.as_ref()?, counts)))
        {
            moe::balanced_correction(&mut values[correction.offset()..][..counts.len()], counts, speed);
        }
        Ok(())
    }

    /// Dropout at a site, where there is any.
    fn drop(&self, tape: &mut Tape, x: Var, forward: &Forward, site: u64) -> Result<Var> {
        match &forward.dropout {
            Some(random) if self.config.dropout > 0.0 => dropout(tape, &x, &random.mask(self.config.dropout, site)),
            _ => Ok(x),
        }
    }

    /// `down(act(gate(x)) ⊙ up(x))`.
    fn mlp(&self, tape: &mut Tape, mlp: &Mlp, x: &Var) -> Result<Var> {
        let gate_up = linear(tape, x, &tape.param(&self.params, &mlp.gate_up))?;
        let inner = gated(tape, &gate_up, self.config.hidden_act)?;
        linear(tape, &inner, &tape.param(&self.params, &mlp.down))
    }

    /// `Σ_k w_k · expert_{e_k}(x) + Σ shared(x)`, and how the tokens were routed.
    fn experts(&self, tape: &mut Tape, experts: &Experts, x: &Var) -> Result<(Var, Routed)> {
        let Some(config) = &self.config.moe else { return Err(Error::Internal("experts without a configuration".into())) };
        let weights = moe::Experts {
            router: tape.param(&self.params, &experts.router),
            correction: experts.correction.as_ref().map(|correction| self.params.tensor(correction)),
            gate_up: tape.param(&self.params, &experts.gate_up),
            down: tape.param(&self.params, &experts.down),
        };
        let (mut y, routed) = moe(tape, x, &weights, self.config.hidden_act, &config.router)?;
        for shared in &experts.shared {
            let fed = self.mlp(tape, shared, x)?;
            y = add(tape, &y, &fed)?;
        }
        Ok((y, routed))
    }
}
