//! The flags that let a model read beyond the length that it was trained at.

use std::path::Path;

use clap::{Args, ValueEnum};
use ferromind::model::Model;
use ferromind::ops::rope::{RopeScaling, Yarn, YarnForm};
use ferromind::train::read_options;
use ferromind::{Error, Result};

/// By how much the context grows where it is not said.
const FACTOR: f64 = 4.0;

/// How rotary frequencies are changed.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Kind {
    /// Position interpolation: every frequency is divided by the factor
    Linear,
    /// YaRN: fast frequencies are kept, slow ones divided
    Yarn,
}

#[derive(Args)]
#[command(next_help_heading = "Beyond the trained length")]
pub struct RopeFlags {
    /// Rotary frequencies for texts longer than those of training
    #[arg(long, value_name = "KIND")]
    pub rope_scaling: Option<Kind>,
    /// By how much the context grows [default: 4]
    #[arg(long, value_name = "FACTOR")]
    rope_factor: Option<f64>,
    /// The length that the model was trained at [default: max-seq-len of the run, else the model's positions]
    #[arg(long, value_name = "N")]
    original_max_position_embeddings: Option<usize>,
}

/// From which length to which.
#[derive(Clone, Copy)]
pub struct Stretch {
    pub factor: f64,
    pub original: usize,
}

impl RopeFlags {
    /// The model in `dir` as the flags want to read it.
    pub fn apply(&self, model: Model, dir: &Path) -> Result<Model> {
        match (self.rope_scaling, self.rope_factor, self.original_max_position_embeddings) {
            (Some(kind), ..) => self.stretch(&model, dir)?.apply(model, kind),
            (None, None, None) => Ok(model),
            (None, Some(_), _) => Err(Error::config("--rope-factor says nothing without --rope-scaling")),
            (None, None, Some(_)) => Err(Error::config("--original-max-position-embeddings says nothing without --rope-scaling")),
        }
    }

    /// How far the model in `dir` is to be stretched.
    pub fn stretch(&self, model: &Model, dir: &Path) -> Result<Stretch> {
        let config = model.config();
        if config.rope_scaling != RopeScaling::Default {
            let message = "has a rotary scaling of its own; --rope-scaling is for models that have none";
            return Err(Error::config(format!("the model in {} {message}", dir.display())));
        }
        let factor = self.rope_factor.unwrap_or(FACTOR);
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(Error::config(format!("--rope-factor is {factor}; it must be at least 1")));
        }
        let original = match self.original_max_position_embeddings {
            Some(0) => return Err(Error::config("--original-max-position-embeddings is 0; it must be at least 1")),
            Some(length) => length,
            None => read_options(dir)?.map_or(config.max_position_embeddings, |options| options.max_seq_len),
        };
        Ok(Stretch { factor, original })
    }
}

impl Stretch {
    /// The positions that are reached.
    pub fn positions(self) -> usize {
        (self.original as f64 * self.factor) as usize
    }

    /// The model with the frequencies of `kind`, for as many positions.
    pub fn apply(self, model: Model, kind: Kind) -> Result<Model> {
        let Self { factor, original } = self;
        let scaling = match kind {
            Kind::Linear => RopeScaling::Linear { factor },
            Kind::Yarn => RopeScaling::Yarn(Yarn::new(YarnForm::Public, factor, original)),
        };
        model.with_rope_scaling(scaling, self.positions())
    }

    /// The model with its own frequencies, for at least as many positions.
    pub fn unscaled(self, model: Model) -> Result<Model> {
        let positions = self.positions().max(model.config().max_position_embeddings);
        model.with_rope_scaling(RopeScaling::Default, positions)
    }
}
