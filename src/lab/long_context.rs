//! What `learn/03-longer-than-trained.md` shows: rotary frequencies, scaled and not, and documents on which position matters.

use std::f64::consts::TAU;
use std::fmt::Write;

use crate::data::stories::Stories;
use crate::ops::rope::{Frequencies, RopeScaling, Yarn, YarnForm};
use crate::rng::{Draws, Philox};
use crate::{Error, Result};

/// The widest head that is printed.
const WIDEST_HEAD: usize = 1024;
/// The most stories that a document holds, and the most times that one of them is told.
const MOST: usize = 10_000;

/// A table of the frequencies of a head of `head_dim` columns: how they turn over the `length` of training, and what linear scaling and
/// YaRN make of them for a context `factor` times as long.
///
/// # Errors
/// Settings that have no meaning, see [`Frequencies::new`].
pub fn frequencies(head_dim: usize, rope_theta: f64, length: usize, factor: f64) -> Result<String> {
    if head_dim > WIDEST_HEAD {
        return Err(Error::config(format!("a head of {head_dim} columns is too wide to print; {WIDEST_HEAD} are the most")));
    }
    let of = |scaling| Frequencies::new(head_dim, rope_theta, length, scaling);
    let yarn = Yarn::new(YarnForm::Public, factor, length);
    let (plain, linear, scaled) = (of(RopeScaling::Default)?, of(RopeScaling::Linear { factor })?, of(RopeScaling::Yarn(yarn))?);
    let mut text = format!("{head_dim} columns, base {rope_theta}, trained length {length}, factor {factor}\n");
    let mut line = |columns: [&str; 6]| {
        let [pair, theta, wavelength, turns, linear, yarn] = columns;
        let _ = writeln!(text, "{pair:>4}{theta:>12}{wavelength:>13}{turns:>10}{linear:>10}{yarn:>10}");
    };
    line(["pair", "θ", "wavelength", "turns", "linear/θ", "yarn/θ"]);
    for (i, &theta) in plain.inv_freq.iter().enumerate() {
        let (theta, linear, yarn) = (f64::from(theta), f64::from(linear.inv_freq[i]), f64::from(scaled.inv_freq[i]));
        line([
            &i.to_string(),
            &format!("{theta:.6}"),
            &format!("{:.1}", TAU / theta),
            &format!("{:.2}", length as f64 * theta / TAU),
            &format!("{:.4}", linear / theta),
            &format!("{:.4}", yarn / theta),
        ]);
    }
    let factor = scaled.attention_factor;
    let _ = writeln!(text, "YaRN multiplies cosines and sines by {factor:.4}, and so the scores by {:.4}", factor * factor);
    Ok(text)
}

/// `count` documents, each `stories` stories of its own of which one, drawn anew each time, is told `tellings` times; a function of the
/// seed. Once all of them were heard, whoever remembers the beginning of the document can tell the rest of each.
///
/// # Errors
/// No stories, or more than a document should hold.
pub fn documents(seed: u64, count: usize, stories: usize, tellings: usize) -> Result<impl Iterator<Item = String>> {
    if !(1..=MOST).contains(&stories) || !(1..=MOST).contains(&tellings) {
        return Err(Error::config(format!("a document of {stories} stories, told {tellings} times: both must lie in 1..={MOST}")));
    }
    let (corpus, philox) = (Stories::new(seed, usize::MAX), Philox::new(seed).stream(u64::MAX));
    Ok((0..count).map(move |document| {
        let pool: Vec<String> =
            (0..stories).map(|i| corpus.story(document.saturating_mul(stories).saturating_add(i)).text).collect();
        let mut draws = Draws::new(philox.stream(document as u64));
        let told: Vec<&str> = (0..tellings).map(|_| pool[draws.below(stories)].as_str()).collect();
        told.join(" ")
    }))
}
