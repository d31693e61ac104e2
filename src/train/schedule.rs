//! Learning-rate schedules: pure functions of `t = 1…S`, the micro-batches counted over all epochs.
//!
//! With the peak `lr`, warm-up length `W`, decay length `D`, final ratio `r`, and `ramp(t) = min(1, t/W)` (1 where `W = 0`):
//!
//! | name       | learning rate at `t`                                                                         |
//! |------------|----------------------------------------------------------------------------------------------|
//! | `notes`    | `ramp·(lr/10 + lr/2·(1 + cos(πt/S)))`: starts at 1.1 lr, ends at 0.1 lr                      |
//! | `minimind` | `ramp·lr·(0.1 + 0.45·(1 + cos(πt/S)))`: starts at lr, ends at 0.1 lr                         |
//! | `cosine`   | `ramp·lr` up to `W`, then `lr·(r + (1−r)·(1 + cos(πp))/2)` with `p = (t−W)/(S−W)`            |
//! | `wsd`      | `ramp·lr` up to `S−D`, then `lr·(1 − (1−r)·p)` or `lr·(1 − (1−r)·√p)` with `p = (t−(S−D))/D` |
//!
//! Cosine: Loshchilov and Hutter 2017, arXiv 1608.03983. Warm-up, stable, decay: Hu et al. 2024, arXiv 2404.06395;
//! its decay `1 − √p`: Hägele et al. 2024, arXiv 2405.18392. `notes` and `minimind` have no warm-up of their own: `W = 0`
//! reproduces their published logs.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The shape of the curve; the formulas stand at the head of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// A cosine from 1.1 lr to 0.1 lr.
    Notes,
    /// A cosine from lr to 0.1 lr.
    #[serde(rename = "minimind")]
    MiniMind,
    /// Linear warm-up, then a cosine down to the final ratio.
    Cosine,
    /// Warm-up, stable, decay: linear up, constant, then down to the final ratio.
    Wsd,
}

/// How [`Schedule::Wsd`] comes down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// In proportion to the part `p` of the decay that has passed.
    Linear,
    /// In proportion to `√p`: fast at first, slow at the end.
    #[default]
    Sqrt,
}

/// The one of `all` that is called `text`.
fn parse<T: Copy>(setting: &str, all: &[T], name: impl Fn(T) -> &'static str, text: &str) -> Result<T> {
    all.iter().copied().find(|&one| name(one) == text).ok_or_else(|| {
        let accepted: Vec<&str> = all.iter().map(|&one| name(one)).collect();
        Error::config(format!("unknown {setting} `{text}`: expected one of {}", accepted.join(", ")))
    })
}

impl Schedule {
    /// All of them, in the order in which help lists them.
    pub const ALL: [Self; 4] = [Self::Notes, Self::MiniMind, Self::Cosine, Self::Wsd];

    /// The word for it in flags and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::MiniMind => "minimind",
            Self::Cosine => "cosine",
            Self::Wsd => "wsd",
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse("schedule", &Self::ALL, Self::name, text)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Decay {
    /// All of them, in the order in which help lists them.
    pub const ALL: [Self; 2] = [Self::Linear, Self::Sqrt];

    /// The word for it in flags and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Sqrt => "sqrt",
        }
    }
}

impl FromStr for Decay {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse("decay", &Self::ALL, Self::name, text)
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A schedule with its numbers. All lengths are in micro-batches, the unit of `t`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// The shape.
    pub schedule: Schedule,
    /// The learning rate `lr` that the shape multiplies: the highest one, but for `notes`, which starts at 1.1 of it.
    pub peak: f64,
    /// The length `S` of the whole run.
    pub total: u64,
    /// The length `W` of the linear warm-up, after which `ramp` is 1; 0 for none.
    pub warmup: u64,
    /// The length `D` of the decay at the end; only `wsd` reads it.
    pub decay: u64,
    /// How `wsd` decays.
    pub decay_shape: Decay,
    /// The ratio `r` of the last learning rate to the peak; only `cosine` and `wsd` read it.
    pub min_ratio: f64,
}

impl LearningRate {
    /// Says which number is out of its range, if any: to be called once before [`at`](Self::at).
    pub fn validate(&self) -> Result<()> {
        let Self { peak, total, warmup, decay, min_ratio, .. } = *self;
        if !(peak.is_finite() && peak >= 0.0) {
            return Err(Error::config(format!("the learning rate is {peak}: expected a finite number, 0 or more")));
        }
        if !(0.0..=1.0).contains(&min_ratio) {
            return Err(Error::config(format!("the final ratio of the learning rate is {min_ratio}: expected 0 to 1")));
        }
        if total == 0 {
            return Err(Error::config("the run has no micro-batch to schedule: expected at least 1"));
        }
        let decay = if self.schedule == Schedule::Wsd { decay } else { 0 };
        if warmup.checked_add(decay).is_none_or(|length| length > total) {
            return Err(Error::config(format!(
                "warm-up ({warmup}) and decay ({decay}) are longer than the run of {total} micro-batches: shorten them"
            )));
        }
        Ok(())
    }

    /// The learning rate of micro-batch `t`, counted from 1 over all epochs; beyond the end it stays at its last value.
    pub fn at(&self, t: u64) -> f64 {
        let Self { peak: lr, total, warmup, decay, min_ratio: r, .. } = *self;
        let t = t.min(total);
        let ramp = if t < warmup { t as f64 / warmup as f64 } else { 1.0 };
        let half_turn = |passed: u64, length: u64| 1.0 + (PI * passed as f64 / length as f64).cos();
        match self.schedule {
            Schedule::Notes => ramp * (lr / 10.0 + lr / 2.0 * half_turn(t, total)),
            Schedule::MiniMind => ramp * lr * (0.1 + 0.45 * half_turn(t, total)),
            Schedule::Cosine if t <= warmup => ramp * lr,
            Schedule::Cosine => lr * (r + (1.0 - r) * half_turn(t - warmup, total - warmup) / 2.0),
            Schedule::Wsd => {
                let start = total - decay.min(total);
                if t <= start {
                    return ramp * lr;
                }
                let p = (t - start) as f64 / decay as f64;
                let fall = match self.decay_shape {
                    Decay::Linear => p,
                    Decay::Sqrt => p.sqrt(),
                };
                ramp * lr * (1.0 - (1.0 - r) * fall)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(schedule: Schedule) -> LearningRate {
        LearningRate { schedule, peak: 5e-4, total: 1000, warmup: 0, decay: 0, decay_shape: Decay::Linear, min_ratio: 0.1 }
    }

    fn assert_close(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-15, "{got} is not {expected}");
    }

    #[test]
    fn notes_and_minimind_agree_with_values_worked_out_by_hand() {
        // cos(π/3) = 1/2, cos(π/2) = 0, cos(2π/3) = −1/2, cos(π) = −1.
        let at = |schedule, t| LearningRate { total: 1200, ..rate(schedule) }.at(t);
        for (t, notes, minimind) in [(400, 4.25e-4, 3.875e-4), (600, 3e-4, 2.75e-4), (800, 1.75e-4, 1.625e-4), (1200, 5e-5, 5e-5)] {
            assert_close(at(Schedule::Notes, t), notes);
            assert_close(at(Schedule::MiniMind, t), minimind);
        }
        assert_close(at(Schedule::Notes, 0), 5.5e-4);
        assert_close(at(Schedule::MiniMind, 0), 5e-4);
    }

    #[test]
    fn cosine_warms_up_and_falls_to_the_final_ratio() {
        let rate = LearningRate { warmup: 100, ..rate(Schedule::Cosine) };
        for (t, expected) in [(1, 5e-6), (50, 2.5e-4), (100, 5e-4), (400, 3.875e-4), (550, 2.75e-4), (1000, 5e-5), (2000, 5e-5)] {
            assert_close(rate.at(t), expected);
        }
        assert!((1..100).all(|t| rate.at(t) < rate.at(t + 1)));
        assert!((100..1000).all(|t| rate.at(t) > rate.at(t + 1)));
    }

    #[test]
    fn wsd_stays_at_the_peak_between_warm_up_and_decay() {
        let linear = LearningRate { warmup: 100, decay: 200, min_ratio: 0.0, ..rate(Schedule::Wsd) };
        let sqrt = LearningRate { decay_shape: Decay::Sqrt, ..linear };
        for rate in [linear, sqrt] {
            assert_close(rate.at(1), 5e-6);
            assert!((100..=800).all(|t| rate.at(t) == 5e-4));
            assert!((800..1000).all(|t| rate.at(t) > rate.at(t + 1)));
            assert_eq!(rate.at(1000), 0.0);
        }
        assert_close(linear.at(850), 3.75e-4);
        assert_close(sqrt.at(850), 2.5e-4); // p = 1/4, √p = 1/2
        assert_close(LearningRate { min_ratio: 0.2, ..sqrt }.at(850), 3e-4);
    }

    #[test]
    fn a_warm_up_ramps_the_schedules_that_have_none_of_their_own() {
        let rate = LearningRate { warmup: 200, ..rate(Schedule::MiniMind) };
        let bare = LearningRate { warmup: 0, ..rate };
        assert_close(rate.at(50), bare.at(50) / 4.0);
        assert_eq!(rate.at(200), bare.at(200));
    }

    #[test]
    fn lengths_at_their_limits_stay_finite() {
        for schedule in Schedule::ALL {
            for (total, warmup, decay) in [(1, 0, 0), (1, 1, 0), (1, 0, 1), (5, 5, 0), (5, 0, 5), (5, 2, 3)] {
                let rate = LearningRate { total, warmup, decay, ..rate(schedule) };
                rate.validate().unwrap();
                assert!((1..=total).all(|t| (0.0..=5.5e-4).contains(&rate.at(t))), "{rate:?}");
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let good = rate(Schedule::Wsd);
        for (bad, word) in [
            (LearningRate { peak: f64::NAN, ..good }, "NaN"),
            (LearningRate { peak: -1.0, ..good }, "-1"),
            (LearningRate { min_ratio: 1.5, ..good }, "1.5"),
            (LearningRate { total: 0, ..good }, "no micro-batch"),
            (LearningRate { warmup: 900, decay: 101, ..good }, "(900)"),
            (LearningRate { warmup: u64::MAX, decay: 1, ..good }, "longer"),
        ] {
            let message = bad.validate().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        good.validate().unwrap();
    }

    #[test]
    fn names_are_the_same_in_flags_and_files() {
        for schedule in Schedule::ALL {
            assert_eq!(schedule.name().parse::<Schedule>().unwrap(), schedule);
            assert_eq!(serde_json::to_string(&schedule).unwrap(), format!("\"{schedule}\""));
        }
        for decay in Decay::ALL {
            assert_eq!(decay.name().parse::<Decay>().unwrap(), decay);
            assert_eq!(serde_json::to_string(&decay).unwrap(), format!("\"{decay}\""));
        }
        let message = "linear".parse::<Schedule>().unwrap_err().to_string();
        assert_eq!(message, "unknown schedule `linear`: expected one of notes, minimind, cosine, wsd");
    }
}
