//! The settings of a pretraining run: one struct for the command line, TOML files and the run's own record.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schedule::{Decay, LearningRate, Schedule};
use crate::model::{AttentionConfig, Family, Init, ModelConfig, MoeConfig, Preset};
use crate::ops::adamw::AdamW;
use crate::ops::moe::{RouterConfig, WeightRule};
use crate::{Error, Result};

/// Which parameters weight decay applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayScope {
    /// Every one, as the published trainers do.
    All,
    /// Matrices only: norms keep their scale.
    Matrices,
}

/// Everything that decides a run. Made by [`Options::resolve`]; the names are those of the flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Options {
    /// The model, and the recipe that the other settings default to.
    pub preset: Preset,
    /// Text and JSON-lines files; none: the embedded stories.
    pub data_path: Vec<PathBuf>,
    /// `bytes`, or a `tokenizer.json` or its directory; none: that of `from-weight`, else bytes, or for the
    /// stories a vocabulary trained on them.
    pub tokenizer: Option<String>,
    /// The run directory.
    pub out_dir: PathBuf,
    /// The run's name, in its report.
    pub save_weight: String,
    /// Whether to go on with the run in `out-dir`.
    pub from_resume: u8,
    /// `none`, or a model directory whose weights the run begins with.
    pub from_weight: String,
    /// Width of the residual stream; none: the preset's, as the following five.
    pub hidden_size: Option<usize>,
    /// Blocks.
    pub num_hidden_layers: Option<usize>,
    /// Query heads.
    pub num_attention_heads: Option<usize>,
    /// Key and value heads.
    pub num_key_value_heads: Option<usize>,
    /// Width inside the feed-forward network.
    pub intermediate_size: Option<usize>,
    /// 1 puts experts into every layer, 0 takes them away.
    pub use_moe: Option<u8>,
    /// How the chosen experts are weighted; none: as published.
    pub expert_weights: Option<WeightRule>,
    /// By how much each step moves the corrections that balance the experts without a loss, where the router has them (DeepSeek-V3).
    pub router_bias_speed: f64,
    /// Base of the rotary frequencies; none: the preset's.
    pub rope_theta: Option<f64>,
    /// Positions that the model has; none: the preset's.
    pub max_position_embeddings: Option<usize>,
    /// Probability of dropout.
    pub dropout: f64,
    /// How the parameters begin.
    pub init: Init,
    /// Deviation of the first values under `normal`.
    pub init_std: f64,
    /// Passes over the training data.
    pub epochs: u64,
    /// Optimizer steps at most; none: as many as the epochs have.
    pub max_steps: Option<u64>,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an optimizer step.
    pub accumulation_steps: u64,
    /// Tokens of a row.
    pub max_seq_len: usize,
    /// One document a row, padded, instead of documents packed side by side.
    pub no_packing: bool,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Shape of the learning rate over the run.
    pub schedule: Schedule,
    /// Optimizer steps of linear warm-up; in a short run, half of the run at most.
    pub warmup_steps: u64,
    /// Optimizer steps of the final decay of `wsd`.
    pub decay_steps: u64,
    /// How `wsd` decays.
    pub decay_shape: Decay,
    /// Last learning rate over the highest, of `cosine` and `wsd`.
    pub min_lr_ratio: f64,
    /// AdamW's first β.
    pub beta1: f64,
    /// AdamW's second β.
    pub beta2: f64,
    /// AdamW's ε.
    pub adam_eps: f64,
    /// AdamW's decay.
    pub weight_decay: f64,
    /// Which parameters decay.
    pub decay_scope: DecayScope,
    /// Largest global norm of the gradient; 0: no clipping.
    pub grad_clip: f64,
    /// Share of the data that is held out for validation; 0: none.
    pub val_fraction: f64,
    /// Optimizer steps between validations; 0: only at the end.
    pub val_interval: u64,
    /// Batches of a validation at most; 0: all.
    pub val_batches: u64,
    /// Decides every random number.
    pub seed: u64,
    /// `cpu`, or `auto`.
    pub device: String,
    /// `float32`.
    pub dtype: String,
    /// Whether bad lines are counted and passed over.
    pub skip_bad_lines: bool,
    /// Where tokenized data is kept; none: the user's cache.
    pub cache_dir: Option<PathBuf>,
    /// Threads; 0: one for each core.
    pub num_workers: usize,
    /// Optimizer steps between lines of metrics.
    pub log_interval: u64,
    /// Optimizer steps between checkpoints; 0: only at the end.
    pub save_interval: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
}

/// The widest residual stream: the other sizes follow from it, and must not overflow.
const WIDEST: usize = 1 << 20;

/// Settings that may differ when a run is resumed: none of them changes a bit of what it computes.
/// Of the data, what they hold is compared, not where they lie.
const FREE_ON_RESUME: [&str; 11] = [
    "out-dir",
    "from-resume",
    "save-weight",
    "data-path",
    "cache-dir",
    "num-workers",
    "log-interval",
    "save-interval",
    "keep",
    "val-interval",
    "val-batches",
];

impl Options {
    /// The defaults of a preset: the published recipe, or for `tiny` one that takes a minute on a laptop.
    pub fn recipe(preset: Preset) -> Self {
        let published = Self {
            preset,
            data_path: Vec::new(),
            tokenizer: None,
            out_dir: PathBuf::from("out/pretrain"),
            save_weight: "pretrain".into(),
            from_resume: 0,
            from_weight: "none".into(),
            hidden_size: None,
            num_hidden_layers: None,
            num_attention_heads: None,
            num_key_value_heads: None,
            intermediate_size: None,
            use_moe: None,
            expert_weights: None,
            router_bias_speed: 1e-3,
            rope_theta: None,
            max_position_embeddings: None,
            dropout: 0.0,
            init: Init::Normal,
            init_std: 0.02,
            epochs: 1,
            max_steps: None,
            batch_size: 32,
            accumulation_steps: 8,
            max_seq_len: 512,
            no_packing: false,
            learning_rate: 5e-4,
            schedule: Schedule::MiniMind,
            warmup_steps: 0,
            decay_steps: 0,
            decay_shape: Decay::default(),
            min_lr_ratio: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            adam_eps: 1e-8,
            weight_decay: 0.01,
            decay_scope: DecayScope::All,
            grad_clip: 1.0,
            val_fraction: 0.01,
            val_interval: 100,
            val_batches: 16,
            seed: 42,
            device: "auto".into(),
            dtype: "float32".into(),
            skip_bad_lines: false,
            cache_dir: None,
            num_workers: 0,
            log_interval: 10,
            save_interval: 100,
            keep: 2,
        };
        match preset {
            Preset::Tiny => Self {
                init_std: 0.14,
                epochs: 4,
                max_steps: Some(1200),
                batch_size: 1,
                accumulation_steps: 1,
                max_seq_len: 1024,
                learning_rate: 4e-3,
                schedule: Schedule::Cosine,
                warmup_steps: 50,
                min_lr_ratio: 0.02,
                beta2: 0.98,
                weight_decay: 0.1,
                decay_scope: DecayScope::Matrices,
                val_fraction: 0.02,
                val_interval: 200,
                save_interval: 500,
                ..published
            },
            Preset::MiniMind3 | Preset::MiniMind3Moe => Self { max_seq_len: 340, ..published },
            Preset::MiniMind2 | Preset::MiniMind2Moe | Preset::Mla | Preset::MlaMoe | Preset::MlaNotes => published,
        }
    }

    /// The preset's recipe with `settings` laid over it, in order: a later one wins. Names are those of the flags.
    pub fn resolve(settings: &[Map<String, Value>]) -> Result<Self> {
        let preset = match settings.iter().rev().find_map(|layer| layer.get("preset")) {
            Some(Value::String(name)) => name.parse()?,
            Some(other) => return Err(Error::config(format!("preset is {other}, expected a name"))),
            None => Preset::Tiny,
        };
        let recipe = serde_json::to_value(Self::recipe(preset)).map_err(|e| Error::Internal(e.to_string()))?;
        let options = overlay(recipe, settings)?;
        options.validate()?;
        Ok(options)
    }

    /// The settings of a run that is resumed: its own, with `settings` laid over them, of which none may change what it computes.
    pub fn resolve_resumed(saved: &Self, settings: &[Map<String, Value>]) -> Result<Self> {
        let base = serde_json::to_value(saved).map_err(|e| Error::Internal(e.to_string()))?;
        let options = overlay(base.clone(), settings)?;
        options.validate()?;
        let resumed = serde_json::to_value(&options).map_err(|e| Error::Internal(e.to_string()))?;
        let changed = base
            .as_object()
            .into_iter()
            .flatten()
            .find(|(name, value)| !FREE_ON_RESUME.contains(&name.as_str()) && resumed.get(name.as_str()) != Some(value));
        match changed {
            Some((name, value)) => Err(Error::config(format!(
                "the run began with {name} {value}, and cannot go on to the same bits with {}; leave the flag out, or begin a new run",
                resumed[name.as_str()]
            ))),
            None => Ok(options),
        }
    }

    /// An error that names the first setting that cannot be.
    pub fn validate(&self) -> Result<()> {
        match self.device.as_str() {
            "cpu" | "auto" => {}
            other => return Err(Error::config(format!("device `{other}` is not supported yet; there are cpu and auto"))),
        }
        match self.dtype.as_str() {
            "float32" => {}
            "bfloat16" | "float16" => {
                return Err(Error::config(format!("dtype {} is not supported on the CPU; use float32", self.dtype)));
            }
            other => return Err(Error::config(format!("dtype `{other}` is unknown; there are float32, bfloat16, float16"))),
        }
        let switches = [("from-resume", Some(self.from_resume)), ("use-moe", self.use_moe)];
        if let Some((name, Some(value))) = switches.into_iter().find(|(_, value)| value.is_some_and(|value| value > 1)) {
            return Err(Error::config(format!("{name} is {value}; it must be 0 or 1")));
        }
        let positive = [
            ("epochs", self.epochs),
            ("batch-size", self.batch_size as u64),
            ("accumulation-steps", self.accumulation_steps),
            ("max-seq-len", self.max_seq_len as u64),
            ("log-interval", self.log_interval),
            ("keep", self.keep as u64),
            ("max-steps", self.max_steps.unwrap_or(1)),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(format!("{name} must be at least 1")));
        }
        let ranges = [
            ("dropout", self.dropout, 0.0..1.0),
            ("router-bias-speed", self.router_bias_speed, 0.0..1.0),
            ("init-std", self.init_std, f64::MIN_POSITIVE..10.0),
            ("val-fraction", self.val_fraction, 0.0..1.0),
            ("beta1", self.beta1, 0.0..1.0),
            ("beta2", self.beta2, 0.0..1.0),
            ("adam-eps", self.adam_eps, f64::MIN_POSITIVE..1.0),
            ("weight-decay", self.weight_decay, 0.0..f64::INFINITY),
            ("grad-clip", self.grad_clip, 0.0..f64::INFINITY),
        ];
        if let Some((name, value, range)) = ranges.iter().find(|(_, value, range)| !range.contains(value)) {
            return Err(Error::config(format!("{name} is {value}; it must lie in [{}, {})", range.start, range.end)));
        }
        if let Some(theta) = self.rope_theta.filter(|theta| !(theta.is_finite() && *theta > 1.0)) {
            return Err(Error::config(format!("rope-theta is {theta}; it must be greater than 1")));
        }
        let given =
            [("rope-theta", self.rope_theta.is_some()), ("max-position-embeddings", self.max_position_embeddings.is_some())];
        match given.into_iter().find(|(_, given)| *given && self.from_weight != "none") {
            Some((name, _)) => Err(Error::config(format!("{name} is that of the weights in {}; leave it out", self.from_weight))),
            None => Ok(()),
        }
    }

    /// The model for a vocabulary of this size.
    pub fn model(&self, vocab_size: usize) -> Result<ModelConfig> {
        let mut config = self.preset.config(vocab_size);
        if let Some(hidden_size) = self.hidden_size {
            if hidden_size > WIDEST {
                return Err(Error::config(format!("hidden-size is {hidden_size}; it must be at most {WIDEST}")));
            }
            let layers = config.num_hidden_layers;
            let preset = config;
            config = match preset.family {
                Family::Llama | Family::Mixtral => ModelConfig::minimind2(hidden_size, layers, vocab_size),
                Family::Qwen3 => ModelConfig::minimind3(hidden_size, layers, vocab_size),
                Family::DeepSeekV3 => ModelConfig::deepseek_v3(hidden_size, layers, vocab_size),
                Family::NotesMla => ModelConfig::notes_mla(hidden_size, layers, vocab_size),
            };
            config.num_attention_heads = preset.num_attention_heads;
            if let (AttentionConfig::Gqa(gqa), Some(has)) = (&mut config.attention, preset.gqa()) {
                gqa.num_key_value_heads = has.num_key_value_heads;
            }
            config = if preset.moe.is_some() { config.with_experts() } else { config };
        }
        config.num_hidden_layers = self.num_hidden_layers.unwrap_or(config.num_hidden_layers);
        config.num_attention_heads = self.num_attention_heads.unwrap_or(config.num_attention_heads);
        if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let (heads, width) = (config.num_attention_heads, config.hidden_size);
            return Err(Error::config(format!("num-attention-heads {heads} must divide hidden-size {width}")));
        }
        match &mut config.attention {
            AttentionConfig::Gqa(gqa) => {
                gqa.num_key_value_heads = self.num_key_value_heads.unwrap_or(gqa.num_key_value_heads);
                gqa.head_dim = config.hidden_size / config.num_attention_heads;
            }
            AttentionConfig::Mla(_) if self.num_key_value_heads.is_some() => {
                return Err(Error::config("num-key-value-heads is set, but latent attention (mla) has none"));
            }
            AttentionConfig::Mla(_) => {}
        }
        config.intermediate_size = self.intermediate_size.unwrap_or(config.intermediate_size);
        config.rope_theta = self.rope_theta.unwrap_or(config.rope_theta);
        config.max_position_embeddings = self.max_position_embeddings.unwrap_or(config.max_position_embeddings);
        config.dropout = self.dropout;
        config = match self.use_moe {
            Some(1) if config.moe.is_none() => config.with_experts(),
            Some(0) => ModelConfig { moe: None, ..config },
            _ => config,
        };
        config.moe = config.moe.map(|moe| MoeConfig {
            intermediate_size: self.intermediate_size.unwrap_or(moe.intermediate_size),
            router: RouterConfig { weights: self.expert_weights.unwrap_or(moe.router.weights), ..moe.router },
            ..moe
        });
        config.validate()?;
        Ok(config)
    }

    /// The learning rate over a run of this many micro-batches.
    pub fn learning_rate(&self, micro_batches: u64) -> Result<LearningRate> {
        let in_micro_batches = |steps: u64| steps.saturating_mul(self.accumulation_steps);
        let rate = LearningRate {
            schedule: self.schedule,
            peak: self.learning_rate,
            total: micro_batches,
            warmup: in_micro_batches(self.warmup_steps).min(micro_batches / 2),
            decay: in_micro_batches(self.decay_steps),
            decay_shape: self.decay_shape,
            min_ratio: self.min_lr_ratio,
        };
        rate.validate()?;
        Ok(rate)
    }

    /// The optimizer.
    pub fn adamw(&self) -> AdamW {
        AdamW { betas: [self.beta1, self.beta2], eps: self.adam_eps, weight_decay: self.weight_decay }
    }
}

/// `base` with each layer's values in place of its own.
fn overlay(mut base: Value, layers: &[Map<String, Value>]) -> Result<Options> {
    for (name, value) in layers.iter().flatten() {
        match base.get_mut(name) {
            Some(Value::Array(paths)) if value.is_string() => *paths = vec![value.clone()],
            Some(slot) => *slot = value.clone(),
            None => {
                let hyphens = name.replace('_', "-");
                let hint = if base.get(&hyphens).is_some() { format!("; did you mean `{hyphens}`?") } else { String::new() };
                return Err(Error::config(format!("there is no setting called `{name}`{hint}")));
            }
        }
        // One at a time, so that the message can name it. JSON writes a number that is not finite as null.
        serde_json::from_value::<Options>(base.clone()).map_err(|e| Error::config(format!("{name} is {value}: {e}")))?;
    }
    serde_json::from_value(base).map_err(|e| Error::config(format!("settings: {e}")))
}
