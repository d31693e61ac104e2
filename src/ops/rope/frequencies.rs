//! The angles of rotary position embedding: one frequency for each pair of a head's columns, and its cosines and sines by position.
//!
//! Public implementations compute frequencies and angles in f32, and at position 30000 the rounding of an angle is seen in its
//! cosine's third digit. The same roundings are made here, for f64 tensors too, so that trained models keep their angles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::RopeScaling;
use crate::tensor::{DType, Float, Tensor};
use crate::{Error, Result, with_float};

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
    /// An error where `head_dim` is odd or zero, `base` is not greater than 1, or a setting of the scaling has no meaning.
    pub fn new(head_dim: usize, base: f64, max_positions: usize, scaling: RopeScaling) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(Error::config(format!("rope: the head dimension must be even and not zero, got {head_dim}")));
        }
        if !(base.is_finite() && base > 1.0) {
            return Err(Error::config(format!("rope_theta must be greater than 1, got {base}")));
        }
        let power = |i: usize| base.powf(f64::from(2.0 * i as f32 / head_dim as f32)) as f32;
        let powers: Vec<f32> = (0..head_dim / 2).map(power).collect();
        let (inv_freq, attention_factor) = scaling.apply(&powers, base, max_positions)?;
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

    #[test]
    fn default_frequencies() {
        let f = Frequencies::new(96, 1e6, 32768, RopeScaling::Default).unwrap();
        for (i, &theta) in f.inv_freq.iter().enumerate() {
            let expected = 1e6f64.powf(-2.0 * i as f64 / 96.0);
            assert!((f64::from(theta) / expected - 1.0).abs() < 1e-6, "{i}: {theta} and {expected}");
        }
        assert_eq!((f.head_dim(), f.attention_factor), (96, 1.0));
    }

    #[test]
    fn settings_that_cannot_be_used_are_errors() {
        assert!(Frequencies::new(7, 1e4, 8, RopeScaling::Default).unwrap_err().to_string().contains("even"));
        assert!(Frequencies::new(8, 1.0, 8, RopeScaling::Default).unwrap_err().to_string().contains("rope_theta"));
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
