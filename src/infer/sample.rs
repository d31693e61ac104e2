//! From logits to a token.

use std::cmp::Ordering;

use crate::rng::Philox;
use crate::{Error, Result};

/// How the next token is drawn. Filters apply in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits of tokens that were seen are divided by this where positive and multiplied where negative (Keskar et al. 2019,
    /// arXiv 1909.05858); 1 is off.
    pub repetition_penalty: f64,
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest tokens (and those equal to the k-th) stay; 0 is off.
    pub top_k: usize,
    /// Only the likeliest tokens stay, up to the first at which their probabilities reach p (Holtzman et al. 2019,
    /// arXiv 1904.09751); 1 is off.
    pub top_p: f64,
    /// Only tokens stay whose probability is at least this share of the likeliest one's (Nguyen et al. 2024, arXiv 2407.01082);
    /// 0 is off.
    pub min_p: f64,
    /// Draw n of a sequence depends on the seed and n alone.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { repetition_penalty: 1.0, temperature: 0.85, top_k: 0, top_p: 0.85, min_p: 0.0, seed: 42 }
    }
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, ..Self::default() }
    }

    /// An error that names the first setting out of its range.
    pub fn validate(&self) -> Result<()> {
        let out_of_range = [
            ("repetition-penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "greater than 0"),
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "in (0, 1]"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "in [0, 1]"),
        ];
        match out_of_range.iter().find(|(_, value, fits, _)| !fits || !value.is_finite()) {
            Some((name, value, _, range)) => Err(Error::config(format!("{name} is {value}; it must be {range}"))),
            None => Ok(()),
        }
    }
}

/// Draws tokens one after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    settings: Sampling,
    philox: Philox,
    draws: u64,
    /// Tokens that are left, with their logits, then their probabilities; kept to reuse its memory.
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    /// A sampler at the beginning of a sequence.
    pub fn new(settings: Sampling) -> Result<Self> {
        settings.validate()?;
        Ok(Self { settings, philox: Philox::new(settings.seed).stream(SAMPLING_STREAM), draws: 0, candidates: Vec::new() })
    }

    /// The next token, given the logits `[V]` and the tokens so far. Logits that are not finite are an error.
    pub fn sample(&mut self, logits: &[f32], seen: &[u32]) -> Result<u32> {
        if logits.is_empty() || logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(Error::NonFinite("the model's logits are not finite: its weights are damaged".into()));
        }
        if self.settings.temperature == 0.0 && self.settings.repetition_penalty == 1.0 {
            return Ok(first_largest(logits));
        }
        self.candidates.clear();
        self.candidates.extend(logits.iter().enumerate().map(|(id, &logit)| (id as u32, f64::from(logit))));
        self.penalise(seen);
        if self.settings.temperature == 0.0 {
            let first_best = |best: (u32, f64), next: &(u32, f64)| if next.1 > best.1 { *next } else { best };
            return Ok(self.candidates[1..].iter().fold(self.candidates[0], first_best).0);
        }
        self.rank();
        self.filter();
        self.draws += 1;
        let total: f64 = self.candidates.iter().map(|(_, p)| p).sum();
        let mut left = total * self.philox.uniform(self.draws - 1);
        let drawn = self.candidates.iter().find(|(_, p)| {
            left -= p;
            left < 0.0
        });
        Ok(drawn.or(self.candidates.last()).map_or(0, |(id, _)| *id))
    }

    fn penalise(&mut self, seen: &[u32]) {
        let penalty = self.settings.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some((_, logit)) = self.candidates.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Softmax at the temperature over the top k, likeliest first; equals by their id, so that the order is always the same.
    fn rank(&mut self) {
        let likeliest = |a: &(u32, f64), b: &(u32, f64)| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0));
        let k = self.settings.top_k;
        if k > 0 && k < self.candidates.len() {
            let kth = self.candidates.select_nth_unstable_by(k - 1, likeliest).1.1;
            self.candidates.retain(|(_, logit)| *logit >= kth);
        }
        self.candidates.sort_unstable_by(likeliest);
        let max = self.candidates.first().map_or(0.0, |(_, logit)| *logit);
        for (_, logit) in &mut self.candidates {
            *logit = ((*logit - max) / self.settings.temperature).exp();
        }
        let sum: f64 = self.candidates.iter().map(|(_, p)| p).sum();
        self.candidates.iter_mut().for_each(|(_, p)| *p /= sum);
    }

    /// Top-p and min-p over sorted probabilities; the likeliest token always stays.
    fn filter(&mut self) {
        let mut before = 0.0;
        let nucleus = self.candidates.iter().take_while(|(_, p)| {
            let inside = before < self.settings.top_p;
            before += p;
            inside
        });
        let nucleus = nucleus.count().max(1);
        self.candidates.truncate(nucleus);
        let floor = self.settings.min_p * self.candidates.first().map_or(0.0, |(_, p)| *p);
        self.candidates.retain(|(_, p)| *p >= floor);
    }
}

/// The place of the largest of finite numbers or −∞, the first of equals.
fn first_largest(logits: &[f32]) -> u32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in logits.chunks(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(largest, &x)| *largest = if x > *largest { x } else { *largest });
    }
    let largest = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&x| x == largest).unwrap_or(0) as u32
}

/// Keeps sampling's draws apart from those of training under the same seed.
const SAMPLING_STREAM: u64 = 0x73616D706C65;

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Sampling = Sampling { repetition_penalty: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 1 };
    /// Probabilities 0.5, 0.25, 0.125, 0.125.
    const LOGITS: [f32; 4] =
        [3.0 * std::f32::consts::LN_2, 2.0 * std::f32::consts::LN_2, std::f32::consts::LN_2, std::f32::consts::LN_2];

    fn shares(settings: Sampling, seen: &[u32]) -> Vec<f64> {
        let mut sampler = Sampler::new(settings).unwrap();
        let mut counts = [0.0; 4];
        let n = 40_000;
        for _ in 0..n {
            counts[sampler.sample(&LOGITS, seen).unwrap() as usize] += 1.0 / f64::from(n);
        }
        counts.to_vec()
    }

    fn assert_shares(settings: Sampling, seen: &[u32], expected: [f64; 4]) {
        let shares = shares(settings, seen);
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 0.012, "{shares:?} for {settings:?}");
            assert!(expected > 0.0 || *share == 0.0, "{shares:?} for {settings:?}");
        }
    }

    #[test]
    fn draws_by_probability() {
        assert_shares(OFF, &[], [0.5, 0.25, 0.125, 0.125]);
        let halved = [0.5f64, 0.25, 0.125, 0.125].map(f64::sqrt);
        assert_shares(Sampling { temperature: 2.0, ..OFF }, &[], halved.map(|p| p / halved.iter().sum::<f64>()));
    }

    #[test]
    fn filters() {
        assert_shares(Sampling { top_k: 2, ..OFF }, &[], [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        assert_shares(Sampling { top_k: 3, ..OFF }, &[], [0.5, 0.25, 0.125, 0.125]); // the fourth equals the third
        assert_shares(Sampling { top_p: 0.5, ..OFF }, &[], [1.0, 0.0, 0.0, 0.0]);
        assert_shares(Sampling { top_p: 0.51, ..OFF }, &[], [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        assert_shares(Sampling { min_p: 0.4, ..OFF }, &[], [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        assert_shares(Sampling { repetition_penalty: 3.0, ..OFF }, &[0, 0, 9], [2.0, 4.0, 2.0, 2.0].map(|p| p / 10.0));
    }

    #[test]
    fn zero_temperature_is_greedy_and_ties_go_to_the_first() {
        let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
        assert_eq!(sampler.sample(&[0.0, 2.0, 2.0], &[]).unwrap(), 1);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -5.0], &[]).unwrap(), 1);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 2], &[]).unwrap(), 0);
        for n in [1, 16, 17, 100] {
            let logits: Vec<f32> = (0..n).map(|i| (i * 7 % n) as f32).collect();
            let expected = logits.iter().position(|&x| x == (n - 1) as f32 || n == 1).unwrap();
            assert_eq!(sampler.sample(&logits, &[]).unwrap() as usize, expected);
        }
    }

    #[test]
    fn one_seed_one_sequence() {
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..OFF }).unwrap();
            (0..50).map(|_| sampler.sample(&LOGITS, &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn bad_settings_and_logits_are_named() {
        let error = |settings| Sampler::new(settings).unwrap_err().to_string();
        assert!(error(Sampling { temperature: -1.0, ..OFF }).contains("temperature is -1"));
        assert!(error(Sampling { top_p: 0.0, ..OFF }).contains("top-p"));
        assert!(error(Sampling { min_p: f64::NAN, ..OFF }).contains("min-p"));
        assert!(Sampler::new(OFF).unwrap().sample(&[f32::NAN, 1.0], &[]).is_err());
    }
}
