//! What a buffer holds before the kernel runs.

use std::path::PathBuf;

use super::{Number, Scalar};
use crate::rng::Philox;

/// The contents that can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// One number everywhere, as bits.
    Full(u64),
    /// 0, 1, 2, …: in integers that are too small for it modulo their range, in floats rounded.
    Iota,
    /// Normally distributed, mean 0 and variance 1, by element number from a seed.
    Normal(u64),
    /// Of floats 0 to below 1, of integers all values alike, by element number from a seed.
    Uniform(u64),
    /// Elements of a `.npy` file.
    File(PathBuf),
    /// Undefined; the kernel must write every byte.
    Out,
    /// Undefined; the kernel may do with it what it likes.
    Scratch,
}

impl Init {
    /// Reads `zeros`, `ones`, `iota`, `full:V`, `randn:SEED`, `uniform:SEED`, `out`, `scratch` or `FILE.npy`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str, scalar: Scalar) -> Result<Self, String> {
        let seed = |text: &str| text.parse().map_err(|_| format!("seed `{text}`: expected an integer from 0 to 2^64 - 1"));
        Ok(match text.split_once(':') {
            _ if text.ends_with(".npy") => Self::File(text.into()),
            None if text == "zeros" => Self::Full(0),
            None if text == "ones" => Self::Full(scalar.parse("1")?),
            None if text == "iota" => Self::Iota,
            None if text == "out" => Self::Out,
            None if text == "scratch" => Self::Scratch,
            Some(("full", value)) => Self::Full(scalar.parse(value)?),
            Some(("uniform", number)) => Self::Uniform(seed(number)?),
            Some(("randn", number)) if scalar.format().is_some() => Self::Normal(seed(number)?),
            Some(("randn", _)) => return Err(format!("randn makes no {}: uniform:SEED does", scalar.name())),
            _ => {
                let all = "zeros, ones, iota, full:V, randn:SEED, uniform:SEED, FILE.npy, out or scratch";
                return Err(format!("unknown content `{text}`: expected {all}"));
            }
        })
    }

    /// The bits of element `index`; `None` of what is undefined, or in a file.
    pub fn element(&self, scalar: Scalar, index: u64) -> Option<u64> {
        let float = |value: f64| scalar.encode(Number::Float(value));
        match self {
            Self::Full(bits) => Some(*bits),
            Self::Iota if scalar.format().is_none() => Some(index),
            Self::Iota => scalar.encode(Number::Integer(i128::from(index))),
            Self::Normal(seed) => float(Philox::new(*seed).normal(index)),
            Self::Uniform(seed) if scalar.format().is_none() => Some(Philox::new(*seed).bits(index)),
            Self::Uniform(seed) => float(below_one(scalar, Philox::new(*seed).uniform(index))),
            Self::File(_) | Self::Out | Self::Scratch => None,
        }
    }
}

/// Cuts a number from [0, 1) to the digits that the type has there, so that none is rounded up to 1.
fn below_one(scalar: Scalar, value: f64) -> f64 {
    let digits = scalar.format().map_or(0, |format| format.mantissa_bits as i32);
    let scale = 2f64.powi(digits.min(52) + 1);
    (value * scale).floor() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(init: &Init, scalar: Scalar, index: u64) -> f64 {
        match scalar.decode(init.element(scalar, index).unwrap()) {
            Number::Integer(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    #[test]
    fn every_content() {
        let parse = |text: &str, scalar| Init::parse(text, scalar).unwrap();
        assert_eq!(value(&parse("zeros", Scalar::BF16), Scalar::BF16, 9), 0.0);
        assert_eq!(value(&parse("ones", Scalar::F16), Scalar::F16, 9), 1.0);
        assert_eq!(value(&parse("full:-2.5", Scalar::F64), Scalar::F64, 0), -2.5);
        assert_eq!(value(&parse("iota", Scalar::I32), Scalar::I32, 77), 77.0);
        assert_eq!(value(&parse("iota", Scalar::U8), Scalar::U8, 257), 1.0);
        assert_eq!(value(&parse("iota", Scalar::BF16), Scalar::BF16, 257), 256.0);
        assert_eq!(parse("dir/x.npy", Scalar::F32), Init::File("dir/x.npy".into()));
        assert_eq!(parse("out", Scalar::F32).element(Scalar::F32, 0), None);
        for text in ["", "zero", "randn", "randn:x", "full:", "uniform:-1", "x.bin"] {
            assert!(Init::parse(text, Scalar::F32).is_err(), "{text}");
        }
        assert!(Init::parse("randn:1", Scalar::I32).unwrap_err().contains("uniform"));
    }

    #[test]
    fn random_numbers_depend_on_the_seed_and_stay_in_range() {
        let (one, two) = (Init::Uniform(1), Init::Uniform(2));
        for scalar in [Scalar::E5M2, Scalar::E4M3, Scalar::BF16, Scalar::F16, Scalar::F32, Scalar::F64] {
            let values: Vec<f64> = (0..4096).map(|i| value(&one, scalar, i)).collect();
            assert!(values.iter().all(|x| (0.0..1.0).contains(x)), "{scalar:?}");
            let mean = values.iter().sum::<f64>() / 4096.0;
            // Coarse formats are cut down by half a step on average.
            assert!((0.35..0.52).contains(&mean), "{scalar:?}: {mean}");
            assert!((0..64).any(|i| value(&two, scalar, i) != values[i as usize]));
        }
        let variance = (0..4096).map(|i| value(&Init::Normal(3), Scalar::F32, i).powi(2)).sum::<f64>() / 4096.0;
        assert!((0.9..1.1).contains(&variance), "{variance}");
    }
}
