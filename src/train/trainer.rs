//! One optimizer step: the gradients of a group of micro-batches, clipping, AdamW.

use std::ops::Range;
use std::sync::Arc;

use super::options::{DecayScope, Options};
use crate::data::Batch;
use crate::model::{Dropout, Forward, Model, ModelConfig};
use crate::ops::adamw::{AdamW, State, clip_factor, global_norm};
use crate::params::{Entry, Gradients};
use crate::rng::Philox;
use crate::tape::{Checks, Tape};
use crate::tensor::Recycled;
use crate::{Error, Result};

/// Keeps dropout's numbers apart from those of other purposes under the same seed.
const DROPOUT_STREAM: u64 = u64::from_le_bytes(*b"dropout ");

/// A model in training: its gradients and its optimizer's moments beside it.
pub struct Trainer {
    model: Model,
    gradients: Gradients,
    /// First and second moments, in the layout of the parameters.
    moments: [Recycled<f32>; 2],
    optimizer: AdamW,
    grad_clip: f64,
    /// By how much a step moves the corrections of routers that have them.
    router_bias_speed: f64,
    /// Neighbouring parameters that decay or do not.
    ranges: Vec<(Range<usize>, bool)>,
    dropout: Philox,
}

/// What one optimizer step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Cross-entropy in nats per counted token, over the whole group.
    pub loss: f64,
    /// Auxiliary loss, averaged over the micro-batches; `None` without experts.
    pub aux_loss: Option<f64>,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that counted in the loss.
    pub counted: usize,
    /// Tokens that passed through the model.
    pub tokens: usize,
    /// How many routed tokens each expert received, `[layers with experts][experts]`.
    pub expert_counts: Vec<Vec<usize>>,
}

impl StepReport {
    /// Share of the routed tokens that each expert received, `[layers with experts][experts]`; `None` without experts.
    pub fn expert_load(&self) -> Option<Vec<Vec<f64>>> {
        (!self.expert_counts.is_empty()).then(|| self.expert_counts.iter().map(|layer| shares(layer)).collect())
    }
}

impl Trainer {
    /// Begins with zero moments.
    pub fn new(model: Model, options: &Options) -> Self {
        let len = model.params().layout().len();
        let mut ranges: Vec<(Range<usize>, bool)> = Vec::new();
        for entry in model.params().layout().entries().iter().filter(|entry| entry.trainable) {
            let decayed = options.decay_scope == DecayScope::All || entry.shape.dims().len() > 1;
            match ranges.last_mut() {
                Some((range, same)) if *same == decayed && range.end == entry.offset => range.end = entry.range().end,
                _ => ranges.push((entry.range(), decayed)),
            }
        }
        Self {
            gradients: Gradients::zeros(model.params()),
            moments: [Recycled::zeros(len), Recycled::zeros(len)],
            optimizer: options.adamw(),
            grad_clip: options.grad_clip,
            router_bias_speed: options.router_bias_speed,
            ranges,
            dropout: Philox::new(options.seed).stream(DROPOUT_STREAM),
            model,
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model and the two moments, to be written over by a checkpoint's.
    pub(super) fn state_mut(&mut self) -> (&mut Model, &mut [Recycled<f32>; 2]) {
        (&mut self.model, &mut self.moments)
    }

    /// First and second moments, in the layout of the parameters.
    pub fn moments(&self) -> [&[f32]; 2] {
        [&self.moments[0], &self.moments[1]]
    }

    /// The gradients that the last step computed, in the layout of the parameters.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Optimizer step number `step` (from 1) on a group of micro-batches at learning rate `lr`.
    ///
    /// Cross-entropy is averaged over the counted tokens of the whole group, auxiliary losses over the micro-batches. A loss or
    /// gradient that is not finite is an error that names the layer where it first appears; the weights stay as they were. An
    /// update that makes a weight overflow is an error too: such weights are not to be saved.
    pub fn step(&mut self, step: u64, group: &[Batch], lr: f64) -> Result<StepReport> {
        let report = self.compute_gradients(step, group, Checks::Off)?;
        if !(report.loss.is_finite() && report.grad_norm.is_finite() && report.aux_loss.unwrap_or(0.0).is_finite()) {
            let found = self.compute_gradients(step, group, Checks::Finite);
            let where_from = match found {
                Err(Error::NonFinite(place)) => place,
                Err(other) => return Err(other),
                Ok(_) => "only the sum of all gradients overflows".to_owned(),
            };
            let StepReport { loss, grad_norm, .. } = report;
            return Err(Error::NonFinite(format!(
                "step {step}: the loss is {loss} and the gradient's norm {grad_norm}: {where_from}. The weights are as before the step"
            )));
        }
        let scale = clip_factor(report.grad_norm, self.grad_clip);
        let params = self.model.params_mut().flat_mut::<f32>()?;
        let grads = self.gradients.flat::<f32>()?;
        let [m, v] = &mut self.moments;
        let mut finite = true;
        for (range, decayed) in &self.ranges {
            let r = range.clone();
            let state = State { params: &mut params[r.clone()], grads: &grads[r.clone()], m: &mut m[r.clone()], v: &mut v[r] };
            finite &= self.optimizer.update(state, step, lr, scale, *decayed);
        }
        if !finite {
            let params = self.model.params().flat::<f32>()?;
            let overflows = |entry: &&Entry| params[entry.range()].iter().any(|value| !value.is_finite());
            let name = self.model.params().layout().entries().iter().find(overflows).map_or("a parameter", |entry| &entry.name);
            return Err(Error::NonFinite(format!("step {step}: the update at learning rate {lr} makes {name} overflow")));
        }
        self.model.balance_routers(&report.expert_counts, self.router_bias_speed)?;
        Ok(report)
    }

    /// The gradients of a group, summed in the order of its micro-batches.
    pub fn compute_gradients(&mut self, step: u64, group: &[Batch], checks: Checks) -> Result<StepReport> {
        let counted: usize = group.iter().map(Batch::counted).sum();
        self.gradients.clear();
        let mut report = StepReport { loss: 0.0, aux_loss: None, grad_norm: 0.0, counted, tokens: 0, expert_counts: Vec::new() };
        for batch in group {
            let mut tape = Tape::recording().with_checks(checks);
            let (forward, targets) = self.forward(batch, Some(step));
            let loss = self.model.loss(&mut tape, &forward, targets, counted, 1.0 / group.len() as f64)?;
            report.loss += loss.cross_entropy;
            report.tokens += batch.input_ids.len();
            if !loss.expert_counts.is_empty() {
                *report.aux_loss.get_or_insert(0.0) += loss.aux;
                report.expert_counts.resize(loss.expert_counts.len(), Vec::new());
                for (total, layer) in report.expert_counts.iter_mut().zip(&loss.expert_counts) {
                    total.resize(layer.len(), 0);
                    total.iter_mut().zip(layer).for_each(|(total, count)| *total += count);
                }
            }
            tape.backward(&loss.total, 1.0, &mut self.gradients)?;
        }
        self.gradients.expect_all_reached()?;
        report.grad_norm = global_norm(self.gradients.flat::<f32>()?);
        Ok(report)
    }

    /// Cross-entropy in nats per counted token over batches that are not trained on; one that is not finite is an error that names
    /// the layer where it first appears.
    pub fn evaluate(&self, batches: impl Iterator<Item = Result<Batch>>) -> Result<f64> {
        let (mut sum, mut counted) = (0.0, 0);
        for batch in batches {
            let batch = batch?;
            let count = batch.counted();
            let (forward, targets) = self.forward(&batch, None);
            let loss = |tape: &mut Tape| Ok(self.model.loss(tape, &forward, targets.clone(), count, 0.0)?.cross_entropy);
            let mut mean = loss(&mut Tape::inference())?;
            if !mean.is_finite() {
                mean = loss(&mut Tape::inference().with_checks(Checks::Finite))?;
            }
            sum += mean * count as f64;
            counted += count;
        }
        Ok(if counted == 0 { 0.0 } else { sum / counted as f64 })
    }

    /// A batch as the model takes it; dropout only in a training step.
    fn forward(&self, batch: &Batch, training_step: Option<u64>) -> (Forward, Arc<[i32]>) {
        let whole_rows = batch.document_starts.iter().all(|&start| start == 0);
        let dropout = training_step.filter(|_| self.model.config().dropout > 0.0);
        let forward = Forward {
            document_starts: (!whole_rows).then(|| batch.document_starts.as_slice().into()),
            dropout: dropout
                .map(|step| Dropout { philox: self.dropout.stream(step), sample_ids: batch.sample_ids.as_slice().into() }),
            ..Forward::plain(batch.rows, batch.seq_len, batch.input_ids.as_slice())
        };
        (forward, batch.targets.as_slice().into())
    }
}

fn shares(counts: &[usize]) -> Vec<f64> {
    let total: usize = counts.iter().sum();
    counts.iter().map(|&count| count as f64 / total.max(1) as f64).collect()
}

/// Floating-point operations of a training step per token: 6 for each weight that a token is multiplied by, and attention's
/// 12·H·T/2 per layer (Chowdhery et al. 2022, arXiv 2204.02311, appendix B, with half the scores, as attention is causal).
pub fn flops_per_token(config: &ModelConfig, seq_len: usize) -> f64 {
    let h = config.hidden_size as f64;
    let (attention, scores) = config.attention_work();
    let mlp = |intermediate: usize| 3.0 * h * intermediate as f64;
    let feed_forward = |layer: usize| match config.experts_of(layer) {
        None => mlp(config.intermediate_size),
        Some(moe) => {
            let experts = (moe.router.top_k + moe.num_shared_experts) as f64;
            h * moe.num_experts as f64 + experts * mlp(moe.intermediate_size)
        }
    };
    let layers = config.num_hidden_layers;
    let weights = layers as f64 * attention + (0..layers).map(feed_forward).sum::<f64>() + h * config.vocab_size as f64;
    6.0 * weights + 6.0 * layers as f64 * scores * seq_len as f64
}
