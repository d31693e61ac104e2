//! The angles of rotary position embedding: one frequency for each pair of a head's columns, and its cosines and sines by position.
//!
//! Public implementations compute frequencies and angles in f32, and at position 30000 the rounding of an angle is seen in its
//! cosine's third digit. The same roundings are made here, for f64 tensors too, so that trained models keep their angles.

use std::collections::HashMap;
use std::f64::consts::TAU;
use std::sync::{Arc, Mutex, PoisonError};

use crate::tensor::{DType, Float, Tensor};
use crate::{Error, Result, with_float};

/// How the frequencies are changed to reach beyond the length that a model was trained at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// YaRN as in its paper (Peng et al. 2023, arXiv 2309.00071) and in MiniMind.
    Yarn(Yarn),
    /// MiniMind's earlier YaRN, which walks from `beta_slow` to `beta_fast` over the pairs instead of keeping the fast ones.
    /// Told from the other by a `rope_scaling` without `attention_factor`; its own is 1.
    YarnLinearBeta(Yarn),
}

/// The settings of YaRN. Frequencies are scaled only where the table is longer than `original_max_position_embeddings`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// By how much the context grows, s.
    pub factor: f64,
    /// The length that the model was trained at, L0.
    pub original_max_position_embeddings: usize,
    /// Turns over L0 from which a pair counts as fast.
    pub beta_fast: f64,
    /// Turns over L0 up to which a pair counts as slow.
    pub beta_slow: f64,
    /// Multiplies cosines and sines, whether or not the frequencies are scaled.
    pub attention_factor: f64,
}

impl Yarn {
    /// The paper's ramp from `θ_i` to `θ_i / s`, between the pairs that turn `beta_fast` and `beta_slow` times over L0.
    fn ramp(&self, theta: &mut [f32], base: f64) {
        let (pairs, length) = (theta.len(), self.original_max_position_embeddings as f64);
        let pair_of = |turns: f64| 2.0 * pairs as f64 * (length / (turns * TAU)).ln() / (2.0 * base.ln());
        let low = pair_of(self.beta_fast).floor().max(0.0);
        let high = pair_of(self.beta_slow).ceil().min(pairs as f64 - 1.0);
        let width = (high - low).max(0.001) as f32;
        for (i, theta) in theta.iter_mut().enumerate() {
            let ramp = ((i as f32 - low as f32) / width).clamp(0.0, 1.0);
            *theta *= 1.0 - ramp + ramp / self.factor as f32;
        }
    }

    /// `β_i = beta_slow + (beta_fast − beta_slow)·i/(pairs − 1)`; `θ_i ← θ_i·(β_i·s − β_i + 1)/(β_i·s)` before the first pair
    /// whose wavelength exceeds L0, `θ_i/s` from it on.
    fn linear_beta(&self, theta: &mut [f32]) {
        let (pairs, factor) = (theta.len(), self.factor as f32);
        let long = |&theta: &f32| TAU as f32 / theta > self.original_max_position_embeddings as f32;
        let first_long = theta.iter().position(long).unwrap_or(pairs);
        for (i, theta) in theta.iter_mut().enumerate() {
            let along = i as f32 / (pairs - 1).max(1) as f32;
            let beta = self.beta_slow as f32 + (self.beta_fast - self.beta_slow) as f32 * along;
            *theta *= if i < first_long { (beta * factor - beta + 1.0) / (beta * factor) } else { 1.0 / factor };
        }
    }

    fn check(&self) -> Result<()> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let values = [self.factor, self.beta_fast, self.beta_slow, self.attention_factor];
        if !values.into_iter().all(positive) || self.original_max_position_embeddings == 0 {
            return Err(Error::config(format!("rope_scaling: every setting must be positive, got {self:?}")));
        }
        Ok(())
    }
}

/// One frequency for each pair of columns, and the factor of cosines and sines.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Radians per position, `[D/2]`.
    pub inv_freq: Vec<f32>,
    /// Multiplies cosines and sines; 1 but for some forms of YaRN.
    pub attention_factor: f64,
}

impl Frequencies {
    /// `θ_i = base^(−2i/D)` for i in 0..D/2, scaled as asked for a table of `max_positions` positions.
    ///
    /// An error where `head_dim` is odd or zero, or a setting is not positive (`base` must exceed 1).
    pub fn new(head_dim: usize, base: f64, max_positions: usize, scaling: RopeScaling) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(Error::config(format!("rope: the head dimension must be even and not zero, got {head_dim}")));
        }
        if !(base.is_finite() && base > 1.0) {
            return Err(Error::config(format!("rope_theta must be greater than 1, got {base}")));
        }
        let exponent = |i: usize| 2.0 * i as f32 / head_dim as f32;
        let theta = |i: usize| 1.0 / base.powf(f64::from(exponent(i))) as f32;
        let mut inv_freq: Vec<f32> = (0..head_dim / 2).map(theta).collect();
        let attention_factor = match scaling {
            RopeScaling::Default => 1.0,
            RopeScaling::Yarn(yarn) | RopeScaling::YarnLinearBeta(yarn) => {
                yarn.check()?;
                if max_positions > yarn.original_max_position_embeddings {
                    match scaling {
                        RopeScaling::YarnLinearBeta(_) => yarn.linear_beta(&mut inv_freq),
                        _ => yarn.ramp(&mut inv_freq, base),
                    }
                }
                yarn.attention_factor
            }
        };
        Ok(Self { inv_freq, attention_factor })
    }

    /// Columns of a head, D.
    pub fn head_dim(&self) -> usize {
        2 * self.inv_freq.len()
    }
}

/// Cosines and sines by position, computed when they are first asked for and shared by all clones.
#[derive(Debug, Clone)]
pub struct RopeTable(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    frequencies: Frequencies,
    max_positions: usize,
    /// `[positions so far, D]` for each float type that was asked for.
    computed: Mutex<HashMap<DType, Tensor>>,
}

impl RopeTable {
    /// A table of at most `max_positions` positions (`max_position_embeddings`).
    pub fn new(frequencies: Frequencies, max_positions: usize) -> Self {
        Self(Arc::new(Shared { frequencies, max_positions, computed: Mutex::default() }))
    }

    /// What the angles are made from.
    pub fn frequencies(&self) -> &Frequencies {
        &self.0.frequencies
    }

    /// How many positions there are.
    pub fn max_positions(&self) -> usize {
        self.0.max_positions
    }

    /// At least `positions` rows `[cos θ_0·t .. cos θ_(D/2−1)·t, sin θ_0·t ..]` of D values, each times the attention factor.
    ///
    /// An error beyond [`RopeTable::max_positions`].
    pub fn rows(&self, dtype: DType, positions: usize) -> Result<Tensor> {
        let max = self.0.max_positions;
        if positions > max {
            return Err(Error::config(format!(
                "position {} is outside the model's {max} positions (max_position_embeddings)",
                positions - 1
            )));
        }
        let mut computed = self.0.computed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = computed.get(&dtype).filter(|rows| rows.shape().rows() >= positions) {
            return Ok(rows.clone());
        }
        // Doubling keeps the work of growing below that of the last table.
        let rows = self.compute(dtype, positions.next_power_of_two().clamp(256.min(max), max))?;
        computed.insert(dtype, rows.clone());
        Ok(rows)
    }

    fn compute(&self, dtype: DType, positions: usize) -> Result<Tensor> {
        let Frequencies { inv_freq, attention_factor } = &self.0.frequencies;
        let dim = self.0.frequencies.head_dim();
        with_float!("rope", dtype, F => {
            Ok(Tensor::build::<F>([positions, dim], |data| {
                for (t, row) in data.chunks_exact_mut(dim).enumerate() {
                    let (cos, sin) = row.split_at_mut(dim / 2);
                    for ((cos, sin), &theta) in cos.iter_mut().zip(sin).zip(inv_freq) {
                        let angle = f64::from(t as f32 * theta);
                        *cos = F::of(angle.cos()) * F::of(*attention_factor);
                        *sin = F::of(angle.sin()) * F::of(*attention_factor);
                    }
                }
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Yarn =
        Yarn { factor: 16.0, original_max_position_embeddings: 2048, beta_fast: 32.0, beta_slow: 1.0, attention_factor: 1.0 };

    fn assert_near(computed: &[f32], expected: impl Fn(usize) -> f64) {
        for (i, &theta) in computed.iter().enumerate() {
            assert!((f64::from(theta) / expected(i) - 1.0).abs() < 1e-6, "{i}: {theta} and {}", expected(i));
        }
    }

    #[test]
    fn default_frequencies() {
        let f = Frequencies::new(96, 1e6, 32768, RopeScaling::Default).unwrap();
        assert_near(&f.inv_freq, |i| 1e6f64.powf(-2.0 * i as f64 / 96.0));
        assert_eq!((f.head_dim(), f.attention_factor), (96, 1.0));
    }

    /// D = 96, base 1e6: the pairs that turn 32 times and once are 8.064 and 20.105.
    #[test]
    fn yarn_keeps_the_fast_pairs_and_divides_the_slow_ones() {
        let f = Frequencies::new(96, 1e6, 32768, RopeScaling::Yarn(PAPER)).unwrap();
        assert_near(&f.inv_freq, |i| {
            let ramp = ((i as f64 - 8.0) / 13.0).clamp(0.0, 1.0);
            1e6f64.powf(-2.0 * i as f64 / 96.0) * (1.0 - ramp + ramp / 16.0)
        });
    }

    /// D = 64, base 1e6: the first pair with a wavelength above 2048 is 14 (2π·1e6^(13/32) = 1719, 2π·1e6^(14/32) = 2648).
    #[test]
    fn the_linear_beta_form() {
        let settings = Yarn { factor: 4.0, beta_fast: 4.0, ..PAPER };
        let f = Frequencies::new(64, 1e6, 4096, RopeScaling::YarnLinearBeta(settings)).unwrap();
        assert_near(&f.inv_freq, |i| {
            let beta = 1.0 + 3.0 * i as f64 / 31.0;
            let scale = if i < 14 { (3.0 * beta + 1.0) / (4.0 * beta) } else { 0.25 };
            1e6f64.powf(-2.0 * i as f64 / 64.0) * scale
        });
    }

    #[test]
    fn a_short_table_is_not_scaled() {
        let plain = Frequencies::new(64, 1e6, 2048, RopeScaling::Default).unwrap();
        for scaling in [RopeScaling::Yarn(PAPER), RopeScaling::YarnLinearBeta(PAPER)] {
            assert_eq!(Frequencies::new(64, 1e6, 2048, scaling).unwrap(), plain);
            assert_ne!(Frequencies::new(64, 1e6, 2049, scaling).unwrap(), plain);
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_errors() {
        assert!(Frequencies::new(7, 1e4, 8, RopeScaling::Default).unwrap_err().to_string().contains("even"));
        assert!(Frequencies::new(8, 1.0, 8, RopeScaling::Default).unwrap_err().to_string().contains("rope_theta"));
        let scaling = RopeScaling::Yarn(Yarn { factor: 0.0, ..PAPER });
        assert!(Frequencies::new(8, 1e4, 8, scaling).unwrap_err().to_string().contains("rope_scaling"));
    }

    #[test]
    fn both_types_hold_the_cosines_of_angles_rounded_to_f32() {
        let frequencies = Frequencies { attention_factor: 0.5, ..Frequencies::new(8, 1e4, 32768, RopeScaling::Default).unwrap() };
        let table = RopeTable::new(frequencies, 32768);
        let (single, double) = (table.rows(DType::F32, 30001).unwrap(), table.rows(DType::F64, 30001).unwrap());
        let (single, double) = (&single.data::<f32>().unwrap()[30000 * 8..], &double.data::<f64>().unwrap()[30000 * 8..]);
        let angle = f64::from(30000.0f32 * table.frequencies().inv_freq[1]);
        assert_eq!((double[1], double[5]), (0.5 * angle.cos(), 0.5 * angle.sin()));
        for (&a, &b) in single.iter().zip(double).take(8) {
            assert_eq!(a, b as f32);
        }
    }

    #[test]
    fn growing_keeps_the_rows_and_stops_at_the_limit() {
        let table = RopeTable::new(Frequencies::new(8, 1e4, 1000, RopeScaling::Default).unwrap(), 1000);
        let short = table.rows(DType::F32, 3).unwrap();
        let long = table.clone().rows(DType::F32, 700).unwrap();
        assert_eq!((short.shape().rows(), long.shape().rows()), (256, 1000));
        assert_eq!(short.data::<f32>().unwrap(), &long.data::<f32>().unwrap()[..256 * 8]);
        assert!(table.rows(DType::F32, 1001).unwrap_err().to_string().contains("position 1000 is outside"));
    }
}
