//! The next token from logits, on a device: what [`Sampler`](crate::infer::Sampler) does on the CPU, for sequences that are
//! generated without the host. The formula stands in [`reference`].

pub mod cases;
pub mod kernel;

/// How tokens are drawn: see [`Sampling`](crate::infer::Sampling), whose fields these are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// What logits of tokens that were seen are divided by where positive, and multiplied by where negative; 1 is off.
    pub repetition_penalty: f32,
    /// What logits are divided by; 0 takes the largest.
    pub temperature: f32,
    /// Only the k largest stay, and those equal to the k-th; 0 is off.
    pub top_k: i32,
    /// Only the likeliest stay, up to the first at which their probabilities reach p; 1 is off.
    pub top_p: f32,
    /// Only those stay whose probability is at least this share of the likeliest one's; 0 is off.
    pub min_p: f32,
}

/// The token that `uniform`, in [0, 1), draws: plain, by sorting, in f64.
pub(crate) fn reference(logits: &[f64], seen: impl Fn(usize) -> bool, settings: &Settings, uniform: f64) -> usize {
    let (penalty, temperature) = (f64::from(settings.repetition_penalty), f64::from(settings.temperature));
    let penalised = |(token, &logit): (usize, &f64)| match (seen(token), logit > 0.0) {
        (false, _) => (token, logit),
        (true, true) => (token, logit / penalty),
        (true, false) => (token, logit * penalty),
    };
    let mut ranked: Vec<(usize, f64)> = logits.iter().enumerate().map(penalised).collect();
    // A stable sort: of equals the first stays the first.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let Some(&(first, largest)) = ranked.first() else { return 0 };
    if temperature == 0.0 {
        return first;
    }
    if let Some(&(_, kth)) = (settings.top_k as usize).checked_sub(1).and_then(|place| ranked.get(place)) {
        ranked.retain(|&(_, logit)| logit >= kth);
    }
    let weights: Vec<f64> = ranked.iter().map(|&(_, logit)| ((logit - largest) / temperature).exp()).collect();
    let reach = f64::from(settings.top_p) * weights.iter().sum::<f64>();
    let mut before = 0.0;
    let mut kept = Vec::new();
    for (&(token, _), &weight) in ranked.iter().zip(&weights) {
        if (before < reach && weight >= f64::from(settings.min_p)) || kept.is_empty() {
            kept.push((token, weight));
        }
        before += weight;
    }
    let mut left = uniform * kept.iter().map(|&(_, weight)| weight).sum::<f64>();
    let drawn = kept.iter().find(|&&(_, weight)| {
        left -= weight;
        left < 0.0
    });
    drawn.or(kept.last()).map_or(first, |&(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::{Sampler, Sampling};
    use crate::ops::table::normal;
    use crate::rng::Philox;

    /// Keeps sampling's draws apart from those of training: "sample" as the sampler has it.
    const STREAM: u64 = 0x73616D706C65;

    #[test]
    fn the_reference_is_the_sampler() {
        for (round, (penalty, temperature, top_k, top_p, min_p)) in [
            (1.0, 0.0, 0, 1.0, 0.0),
            (1.25, 0.0, 0, 1.0, 0.0),
            (1.0, 1.0, 0, 0.875, 0.0),
            (1.25, 0.75, 20, 0.5, 0.0),
            (1.5, 2.0, 3, 1.0, 0.125),
        ]
        .into_iter()
        .enumerate()
        {
            let sampling = Sampling { repetition_penalty: penalty, temperature, top_k, top_p, min_p, seed: round as u64 };
            let settings = Settings {
                repetition_penalty: penalty as f32,
                temperature: temperature as f32,
                top_k: top_k as i32,
                top_p: top_p as f32,
                min_p: min_p as f32,
            };
            let mut sampler = Sampler::new(sampling).unwrap();
            let philox = Philox::new(round as u64).stream(STREAM);
            let seen = [3u32, 3, 50, 7];
            for draw in 0..200 {
                // Some are equal.
                let logits: Vec<f32> =
                    normal(100, 1000 * round as u64 + draw).iter().map(|x| (8.0 * x).round() as f32 / 4.0).collect();
                let wide: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
                let expected = sampler.sample(&logits, &seen).unwrap();
                let token = reference(&wide, |token| seen.contains(&(token as u32)), &settings, philox.uniform(draw));
                assert_eq!(token, expected as usize, "{settings:?}, draw {draw}");
            }
        }
    }
}
