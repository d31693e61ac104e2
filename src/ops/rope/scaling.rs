//! How rotary frequencies are changed to reach beyond the length that a model was trained at.
//!
//! | scaling | `θ_i = 1/p_i`, `p_i = base^(2i/D)`, becomes |
//! |---|---|
//! | linear | `θ_i / s` (Chen et al. 2023, arXiv 2306.15595) |
//! | llama3 | `θ_i / s` for wavelengths `λ_i = 2π/θ_i` above `L0/low`, `θ_i` below `L0/high`, between them a mixture linear in `L0/λ_i` |
//! | yarn | `(1−r_i)·θ_i + r_i·θ_i/s`, `r_i` a ramp over the pairs (Peng et al. 2023, arXiv 2309.00071) |
//!
//! All of it in f32, in the order in which the public code computes it, so that trained models keep their angles.

use std::f64::consts::TAU;

use crate::{Error, Result};

/// How the frequencies are changed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// All of them are divided.
    Linear {
        /// The divisor, s.
        factor: f64,
    },
    /// Llama 3.1's: the slow ones are divided.
    Llama3(Llama3),
    /// YaRN: the slow ones are divided, and cosines and sines multiplied.
    Yarn(Yarn),
}

/// The settings of Llama 3.1's scaling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3 {
    /// By how much slow frequencies are divided, s.
    pub factor: f64,
    /// Turns over L0 up to which a pair counts as slow.
    pub low_freq_factor: f64,
    /// Turns over L0 from which a pair counts as fast; greater than `low_freq_factor`.
    pub high_freq_factor: f64,
    /// The length that the model was trained at, L0 (where a `config.json` has none: its `max_position_embeddings`).
    pub original_max_position_embeddings: usize,
}

/// Which of the published computations of YaRN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YarnForm {
    /// That of public models with `rope_type: yarn` (Llama, Qwen, DeepSeek): always applied, whatever the length of the table.
    Public,
    /// MiniMind's: the ramp ends at the last pair, and a table of L0 positions or fewer is left as it is.
    MiniMind,
    /// MiniMind's earlier one, which walks from `beta_slow` to `beta_fast` over the pairs instead of keeping the fast ones. Told from
    /// the other by a `rope_scaling` without `attention_factor`.
    MiniMindLinearBeta,
}

/// The settings of YaRN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// Whose computation.
    pub form: YarnForm,
    /// By how much the context grows, s (where a public `config.json` has null: `max_position_embeddings / L0`).
    pub factor: f64,
    /// The length that the model was trained at, L0 (where a public `config.json` has none: its `max_position_embeddings`).
    pub original_max_position_embeddings: usize,
    /// Turns over L0 from which a pair counts as fast.
    pub beta_fast: f64,
    /// Turns over L0 up to which a pair counts as slow.
    pub beta_slow: f64,
    /// Whether the ramp begins and ends at whole pairs. The public form alone has the choice.
    pub truncate: bool,
    /// Multiplies cosines and sines, whether or not the frequencies are scaled; see [`Yarn::attention_factor`] where there is none.
    pub attention_factor: Option<f64>,
    /// DeepSeek's factor of `ln s` for cosines and sines.
    pub mscale: Option<f64>,
    /// DeepSeek's factor of `ln s` for the softmax; see [`Yarn::softmax_factor`].
    pub mscale_all_dim: Option<f64>,
}

impl RopeScaling {
    /// The frequencies made of `powers` `p_i = base^(2i/D)`, for a table of `max_positions` positions, and the factor of cosines and
    /// sines.
    ///
    /// An error where a setting has no meaning.
    pub(super) fn apply(self, powers: &[f32], base: f64, max_positions: usize) -> Result<(Vec<f32>, f64)> {
        let plain = powers.iter().map(|p| 1.0 / p);
        Ok(match self {
            Self::Default => (plain.collect(), 1.0),
            Self::Linear { factor } => {
                expect_positive(&[("factor", factor)])?;
                (plain.map(|theta| theta / factor as f32).collect(), 1.0)
            }
            Self::Llama3(llama3) => {
                llama3.check()?;
                (plain.map(|theta| llama3.scale(theta)).collect(), 1.0)
            }
            Self::Yarn(yarn) => {
                yarn.check()?;
                let scaled = max_positions > yarn.original_max_position_embeddings;
                let frequencies = match yarn.form {
                    YarnForm::Public => yarn.public(powers, base),
                    YarnForm::MiniMind if scaled => yarn.minimind(powers, base),
                    YarnForm::MiniMindLinearBeta if scaled => yarn.linear_beta(powers),
                    YarnForm::MiniMind | YarnForm::MiniMindLinearBeta => plain.collect(),
                };
                (frequencies, yarn.attention_factor())
            }
        })
    }
}

/// An error that names the first setting that is not a positive number.
fn expect_positive(settings: &[(&str, f64)]) -> Result<()> {
    match settings.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
        Some((name, value)) => Err(Error::config(format!("rope_scaling: `{name}` must be positive, got {value}"))),
        None => Ok(()),
    }
}

impl Llama3 {
    fn scale(&self, theta: f32) -> f32 {
        let (low, high, length) = (self.low_freq_factor, self.high_freq_factor, self.original_max_position_embeddings as f64);
        let factor = self.factor as f32;
        let wavelength = 1.0 / theta * TAU as f32;
        if wavelength > (length / low) as f32 {
            theta / factor
        } else if wavelength < (length / high) as f32 {
            theta
        } else {
            let smooth = (1.0 / wavelength * length as f32 - low as f32) / (high - low) as f32;
            (1.0 - smooth) * theta / factor + smooth * theta
        }
    }

    fn check(&self) -> Result<()> {
        let Self { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length } = *self;
        expect_positive(&[
            ("factor", factor),
            ("low_freq_factor", low),
            ("high_freq_factor", high),
            ("original_max_position_embeddings", length as f64),
        ])?;
        if high <= low {
            return Err(Error::config(format!(
                "rope_scaling: `high_freq_factor` must be greater than `low_freq_factor`, got {high} and {low}"
            )));
        }
        Ok(())
    }
}

/// `0.1·m·ln s + 1`, and 1 where the context does not grow.
fn mscale(factor: f64, m: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
}

impl Yarn {
    /// The paper's settings for a context that grows from `original_max_position_embeddings` by `factor`: `beta_fast` 32, `beta_slow`
    /// 1, whole pairs, no factor of its own for cosines and sines.
    pub const fn new(form: YarnForm, factor: f64, original_max_position_embeddings: usize) -> Self {
        Self {
            form,
            factor,
            original_max_position_embeddings,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
        }
    }

    /// What multiplies cosines and sines: the setting where there is one. Else MiniMind's forms have 1; the public form has
    /// `(0.1·mscale·ln s + 1) / (0.1·mscale_all_dim·ln s + 1)` where both are given and not 0, else `0.1·ln s + 1`.
    pub fn attention_factor(&self) -> f64 {
        match (self.attention_factor, self.form, self.mscale, self.mscale_all_dim) {
            (Some(factor), ..) => factor,
            (None, YarnForm::Public, Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
                mscale(self.factor, m) / mscale(self.factor, all)
            }
            (None, YarnForm::Public, ..) => mscale(self.factor, 1.0),
            (None, ..) => 1.0,
        }
    }

    /// What multiplies DeepSeek-V3's scale of the softmax, `1/√D`, besides: `(0.1·mscale_all_dim·ln s + 1)²`; 1 without
    /// `mscale_all_dim`. Other models with the same settings do not have it.
    pub fn softmax_factor(&self) -> f64 {
        self.mscale_all_dim.map_or(1.0, |all| mscale(self.factor, all).powi(2))
    }

    /// Where the ramp from `θ_i` to `θ_i / s` begins and ends: at the pairs that turn `beta_fast` and `beta_slow` times over L0.
    fn ends_of_ramp(&self, pairs: usize, base: f64, last: usize) -> (f64, f64) {
        let length = self.original_max_position_embeddings as f64;
        let pair_of = |turns: f64| 2.0 * pairs as f64 * (length / (turns * TAU)).ln() / (2.0 * base.ln());
        let (fast, slow) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        let (low, high) = if self.truncate { (fast.floor(), slow.ceil()) } else { (fast, slow) };
        (low.max(0.0), high.min(last as f64))
    }

    /// The public form. Its ramp ends at the last of D columns where it should be the last of D/2 pairs, which is seen in models whose
    /// slowest pair turns more than `beta_slow` times over L0.
    fn public(&self, powers: &[f32], base: f64) -> Vec<f32> {
        let (low, high) = self.ends_of_ramp(powers.len(), base, 2 * powers.len() - 1);
        let width = if low == high { 0.001 } else { high - low } as f32;
        let scaled = |(i, p): (usize, &f32)| {
            let kept = 1.0 - ((i as f32 - low as f32) / width).clamp(0.0, 1.0);
            1.0 / (self.factor as f32 * p) * (1.0 - kept) + 1.0 / p * kept
        };
        powers.iter().enumerate().map(scaled).collect()
    }

    /// MiniMind's form.
    fn minimind(&self, powers: &[f32], base: f64) -> Vec<f32> {
        let (low, high) = self.ends_of_ramp(powers.len(), base, powers.len() - 1);
        let width = (high - low).max(0.001) as f32;
        let scaled = |(i, p): (usize, &f32)| {
            let ramp = ((i as f32 - low as f32) / width).clamp(0.0, 1.0);
            1.0 / p * (1.0 - ramp + ramp / self.factor as f32)
        };
        powers.iter().enumerate().map(scaled).collect()
    }

    /// `β_i = beta_slow + (beta_fast − beta_slow)·i/(pairs − 1)`; `θ_i ← θ_i·(β_i·s − β_i + 1)/(β_i·s)` before the first pair
    /// whose wavelength exceeds L0, `θ_i/s` from it on.
    fn linear_beta(&self, powers: &[f32]) -> Vec<f32> {
        let (pairs, factor) = (powers.len(), self.factor as f32);
        let long = |p: &f32| TAU as f32 / (1.0 / p) > self.original_max_position_embeddings as f32;
        let first_long = powers.iter().position(long).unwrap_or(pairs);
        let scaled = |(i, p): (usize, &f32)| {
            let along = i as f32 / (pairs - 1).max(1) as f32;
            let beta = self.beta_slow as f32 + (self.beta_fast - self.beta_slow) as f32 * along;
            1.0 / p * if i < first_long { (beta * factor - beta + 1.0) / (beta * factor) } else { 1.0 / factor }
        };
        powers.iter().enumerate().map(scaled).collect()
    }

    fn check(&self) -> Result<()> {
        expect_positive(&[
            ("factor", self.factor),
            ("original_max_position_embeddings", self.original_max_position_embeddings as f64),
            ("beta_fast", self.beta_fast),
            ("beta_slow", self.beta_slow),
            // Those of cosines and sines, and of the softmax, are wrong where they come from a strange `mscale` or `mscale_all_dim`.
            ("attention_factor", self.attention_factor()),
            ("mscale_all_dim", self.softmax_factor()),
        ])
    }
}

#[cfg(test)]
mod tests;
