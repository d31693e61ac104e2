//! The scaled complementary error function `erfcx(x) = e^(x²)·erfc(x)`, from which the normal distribution's tail follows without loss.

use crate::tensor::{DType, Float};

/// Coefficients of Chebyshev's polynomials T_n(2t − 1), n = 0, 1, …, of the function `erfcx(x)/t` of `t = 4/(4 + x)`, which is
/// smooth on (0, 1]. Those that are left out are below 1e-17; they come from the discrete cosine transform of its values at 120
/// nodes, computed with 40 digits.
const TERMS: [f64; 24] = [
    0.408_024_469_549_131_46,
    0.376_358_235_676_367_45,
    0.147_580_354_572_223_63,
    0.049_571_317_930_027_586,
    0.014_227_107_557_117_175,
    0.003_443_493_262_717_524,
    0.000_682_254_183_283_808_1,
    0.000_103_404_519_757_561_87,
    9.728_545_951_990_15e-6,
    -1.198_871_375_841_204_5e-7,
    -2.174_776_770_344_956_3e-7,
    -3.029_176_773_599_139e-8,
    9.479_917_565_204_55e-10,
    8.633_411_694_990_956e-10,
    6.872_156_425_953_403e-11,
    -1.703_489_843_829_627_7e-11,
    -3.392_130_686_829_088_7e-12,
    2.615_808_766_854_024_4e-13,
    1.212_767_580_310_864e-13,
    -2.114_689_543_244_809e-15,
    -4.117_340_933_404_178e-15,
    -6.328_712_721_700_708e-17,
    1.439_311_098_344_984_6e-16,
    4.561_494_798_284_131e-18,
];

/// Terms that float32 can tell from zero.
const TERMS_F32: usize = 12;

/// `e^(x²)·erfc(x)` for x ≥ 0, to a few units in the last place, by Clenshaw's recurrence; without branches, so that loops vectorise.
#[inline(always)]
pub(super) fn erfcx<F: Float>(x: F) -> F {
    let terms = if F::DTYPE == DType::F32 { &TERMS[..TERMS_F32] } else { &TERMS[..] };
    let t = F::of(4.0) / (F::of(4.0) + x);
    let y = t + t - F::of(1.0);
    let (mut b, mut before) = (F::of(0.0), F::of(0.0));
    for &term in terms[1..].iter().rev() {
        (b, before) = ((y + y) * b - before + F::of(term), b);
    }
    t * (y * b - before + F::of(terms[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments and values, computed with 60 digits.
    const VALUES: [(f64, f64); 10] = [
        (0.0, 1.0),
        (0.03125, 0.9656922246177029),
        (0.5, 0.6156903441929259),
        (1.0, 0.427583576155807),
        (1.75, 0.2849722347374364),
        (2.5, 0.2108063640611436),
        (4.0, 0.13699945762506138),
        (7.5, 0.07457369306287669),
        (12.0, 0.04685422101489376),
        (26.0, 0.021683584850562907),
    ];

    #[test]
    fn equals_known_values() {
        for (x, expected) in VALUES {
            let (double, single) = (erfcx(x), erfcx(x as f32).f64());
            assert!((double / expected - 1.0).abs() <= 1e-15, "erfcx({x}) = {double:e} instead of {expected:e}");
            assert!((single / expected - 1.0).abs() <= 3e-7, "erfcx({x}) = {single:e} instead of {expected:e} in float32");
        }
        assert_eq!(erfcx(f64::INFINITY), 0.0);
        assert!(erfcx(f64::NAN).is_nan());
    }

    /// Between the known values: `erfc(x) = 1 − erf(x)` by erf's power series, and Laplace's continued fraction where that loses digits.
    #[test]
    fn equals_series_and_continued_fraction() {
        for i in 0..=3000 {
            let x = f64::from(i) * 0.01;
            let expected = if x < 1.5 {
                let mut term = x;
                let mut sum = x;
                for n in 1..60 {
                    term *= 2.0 * x * x / f64::from(2 * n + 1);
                    sum += term;
                }
                (x * x).exp() - std::f64::consts::FRAC_2_SQRT_PI * sum
            } else {
                let fraction = (1..200).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
                std::f64::consts::FRAC_2_SQRT_PI / 2.0 / fraction
            };
            assert!((erfcx(x) / expected - 1.0).abs() <= 2e-14, "erfcx({x}) = {} instead of {expected}", erfcx(x));
        }
    }
}
