//! Against numbers of the public code, and against the formulas in f64.

use super::*;
use crate::ops::rope::Frequencies;

fn frequencies(head_dim: usize, base: f64, max_positions: usize, scaling: RopeScaling) -> Frequencies {
    Frequencies::new(head_dim, base, max_positions, scaling).unwrap()
}

fn assert_near(computed: &[f32], tolerance: f64, expected: impl Fn(usize) -> f64) {
    for (i, &theta) in computed.iter().enumerate() {
        assert!((f64::from(theta) / expected(i) - 1.0).abs() < tolerance, "{i}: {theta} and {}", expected(i));
    }
}

/// Every n-th frequency equals the n-th of `expected` but for the last place, which differs between powers of f32.
fn assert_every(frequencies: &Frequencies, expected: &[f64]) {
    let step = frequencies.inv_freq.len() / expected.len();
    let computed: Vec<f32> = frequencies.inv_freq.iter().copied().step_by(step).collect();
    assert_eq!(computed.len(), expected.len());
    assert_near(&computed, 2e-7, |i| expected[i]);
}

// The numbers of this and the next two tests are those of transformers 5.23, `modeling_rope_utils.py`, on a CPU.
#[test]
fn public_yarn() {
    let check = |head_dim, base, yarn: Yarn, factor: f64, expected: &[f64]| {
        let f = frequencies(head_dim, base, 64, RopeScaling::Yarn(yarn));
        assert_every(&f, expected);
        assert!((f.attention_factor - factor).abs() < 1e-15, "{} and {factor}", f.attention_factor);
    };
    let yarn = Yarn::new(YarnForm::Public, 4.0, 512);
    check(
        32,
        1e4,
        yarn,
        1.138629436111989,
        &[1.0, 0.28234622, 0.06785714, 0.014682004, 0.0025, 0.00079056947, 0.00025, 7.905695e-05],
    );
    check(
        32,
        1e4,
        Yarn { truncate: false, ..yarn },
        1.138629436111989,
        &[1.0, 0.30140647, 0.070398636, 0.014383359, 0.0025, 0.00079056947, 0.00025, 7.905695e-05],
    );
    let betas = Yarn { factor: 3.7, original_max_position_embeddings: 4096, beta_fast: 20.5, beta_slow: 2.5, ..yarn };
    check(
        32,
        1e6,
        betas,
        1.130833281965018,
        &[1.0, 0.17782794, 0.03162278, 0.0028876986, 0.00027027028, 4.8061607e-05, 8.546695e-06, 1.5198415e-06],
    );
    // The ramp ends at pair 139 of 128, where MiniMind's ends at 127.
    let wide = Yarn::new(YarnForm::Public, 8.0, 131_072);
    let at_wide = [1.0, 0.31622776, 0.1, 0.03162278, 0.01, 0.0031622779, 0.00089285715, 0.00019199544];
    check(256, 1e4, wide, 1.2079441541679836, &at_wide);
    let minimind = frequencies(256, 1e4, 1 << 20, RopeScaling::Yarn(Yarn { form: YarnForm::MiniMind, ..wide }));
    assert!(f64::from(minimind.inv_freq[112]) < 0.9 * at_wide[7]);
    // And here at 63 instead of 66.
    let far = Yarn { original_max_position_embeddings: 1_000_000, beta_fast: 1e4, beta_slow: 1e-3, ..yarn };
    check(
        64,
        1e4,
        far,
        1.138629436111989,
        &[1.0, 0.31622776, 0.1, 0.030305162, 0.009027778, 0.0026791522, 0.00079166674, 0.0002327788],
    );
    // A ramp of no width: between two pairs, and at the first.
    let steep = Yarn { original_max_position_embeddings: 2048, beta_fast: 8.0, beta_slow: 8.0, truncate: false, ..yarn };
    check(8, 1e4, steep, 1.138629436111989, &[1.0, 0.1, 0.0025, 0.00025]);
    let short = Yarn { original_max_position_embeddings: 4, ..yarn };
    check(8, 1e4, short, 1.138629436111989, &[1.0, 0.025, 0.0025, 0.00025]);
    check(8, 1e4, Yarn::new(YarnForm::Public, 0.5, 2048), 1.0, &[1.0, 0.1, 0.015, 0.002]);
}

#[test]
fn factors_of_public_yarn() {
    let deepseek = Yarn::new(YarnForm::Public, 40.0, 4096);
    for (attention_factor, mscale, mscale_all_dim, expected) in [
        (None, None, None, 1.3688879454113936),
        (None, Some(1.0), Some(1.0), 1.0),
        (None, Some(0.707), Some(1.3), 0.8521510516131852),
        (None, Some(0.707), Some(0.0), 1.3688879454113936),
        (None, None, Some(1.3), 1.3688879454113936),
        (Some(0.8), Some(0.707), Some(0.6), 0.8),
    ] {
        let yarn = Yarn { attention_factor, mscale, mscale_all_dim, ..deepseek };
        let f = frequencies(64, 1e4, 163_840, RopeScaling::Yarn(yarn));
        assert!((f.attention_factor - expected).abs() < 1e-15, "{yarn:?}: {}", f.attention_factor);
        assert_every(&f, &[1.0, 0.31622776, 0.1, 0.02687936, 0.0055000004, 0.0007905694, 2.5e-05, 7.9056945e-06]);
    }
    let softmax = |factor, mscale_all_dim| Yarn { factor, mscale_all_dim, ..deepseek }.softmax_factor();
    assert_eq!([softmax(40.0, None), softmax(40.0, Some(0.0)), softmax(0.5, Some(1.0))], [1.0; 3]);
    assert!((softmax(40.0, Some(1.0)) - 1.3688879454113936f64.powi(2)).abs() < 1e-15);
}

#[test]
fn llama3_and_linear() {
    let llama3 = Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 8192 };
    let f = frequencies(64, 5e5, 131_072, RopeScaling::Llama3(llama3));
    assert_every(
        &f,
        &[
            1.0,
            0.44036663,
            0.19392276,
            0.0853971,
            0.03760603,
            0.01656044,
            0.007292665,
            0.003211446,
            0.0004295567,
            1.9461639e-05,
            8.570256e-06,
            3.7740544e-06,
            1.6619674e-06,
            7.3187493e-07,
            3.222933e-07,
            1.419272e-07,
        ],
    );
    let other = Llama3 { factor: 8.5, low_freq_factor: 1.5, high_freq_factor: 9.0, original_max_position_embeddings: 1024 };
    let f = frequencies(32, 1e4, 131_072, RopeScaling::Llama3(other));
    assert_every(&f, &[1.0, 0.31622776, 0.1, 0.017313328, 0.0013291136, 0.0003720327, 0.00011764706, 3.720327e-05]);
    let f = frequencies(16, 1e4, 64, RopeScaling::Linear { factor: 2.5 });
    assert_every(&f, &[0.4, 0.1264911, 0.04, 0.012649111, 0.004, 0.0012649111, 0.0004, 0.00012649111]);
    assert_eq!(f.attention_factor, 1.0);
}

/// D = 96, base 1e6: the pairs that turn 32 times and once are 8.064 and 20.105.
#[test]
fn minimind_keeps_the_fast_pairs_and_divides_the_slow_ones() {
    let settings = Yarn::new(YarnForm::MiniMind, 16.0, 2048);
    assert_near(&frequencies(96, 1e6, 32768, RopeScaling::Yarn(settings)).inv_freq, 1e-6, |i| {
        let ramp = ((i as f64 - 8.0) / 13.0).clamp(0.0, 1.0);
        1e6f64.powf(-2.0 * i as f64 / 96.0) * (1.0 - ramp + ramp / 16.0)
    });
}

/// D = 64, base 1e6: the first pair with a wavelength above 2048 is 14 (2π·1e6^(13/32) = 1719, 2π·1e6^(14/32) = 2648).
#[test]
fn the_linear_beta_form() {
    let settings = Yarn { beta_fast: 4.0, ..Yarn::new(YarnForm::MiniMindLinearBeta, 4.0, 2048) };
    assert_near(&frequencies(64, 1e6, 4096, RopeScaling::Yarn(settings)).inv_freq, 1e-6, |i| {
        let beta = 1.0 + 3.0 * i as f64 / 31.0;
        let scale = if i < 14 { (3.0 * beta + 1.0) / (4.0 * beta) } else { 0.25 };
        1e6f64.powf(-2.0 * i as f64 / 64.0) * scale
    });
}

#[test]
fn a_short_table_is_scaled_in_the_public_form_alone() {
    let plain = frequencies(64, 1e6, 2048, RopeScaling::Default);
    for form in [YarnForm::MiniMind, YarnForm::MiniMindLinearBeta, YarnForm::Public] {
        let scaling = RopeScaling::Yarn(Yarn::new(form, 16.0, 2048));
        assert_eq!(frequencies(64, 1e6, 2048, scaling) == plain, form != YarnForm::Public);
        assert_ne!(frequencies(64, 1e6, 2049, scaling), plain);
    }
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let error = |scaling| Frequencies::new(8, 1e4, 8, scaling).unwrap_err().to_string();
    let yarn = Yarn::new(YarnForm::Public, 4.0, 512);
    let llama3 = Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 8192 };
    for (scaling, expected) in [
        (RopeScaling::Linear { factor: -1.0 }, "`factor` must be positive, got -1"),
        (RopeScaling::Yarn(Yarn { factor: f64::NAN, ..yarn }), "`factor` must be positive, got NaN"),
        (RopeScaling::Yarn(Yarn { beta_slow: 0.0, ..yarn }), "`beta_slow` must be positive, got 0"),
        (RopeScaling::Yarn(Yarn { original_max_position_embeddings: 0, ..yarn }), "`original_max_position_embeddings` must"),
        (RopeScaling::Yarn(Yarn { attention_factor: Some(0.0), ..yarn }), "`attention_factor` must be positive, got 0"),
        (RopeScaling::Yarn(Yarn { mscale: Some(-90.0), mscale_all_dim: Some(1.0), ..yarn }), "`attention_factor` must be"),
        (RopeScaling::Yarn(Yarn { mscale_all_dim: Some(f64::INFINITY), ..yarn }), "`mscale_all_dim` must be positive"),
        (RopeScaling::Llama3(Llama3 { low_freq_factor: 0.0, ..llama3 }), "`low_freq_factor` must be positive, got 0"),
        (RopeScaling::Llama3(Llama3 { low_freq_factor: 4.0, ..llama3 }), "`high_freq_factor` must be greater"),
    ] {
        assert!(error(scaling).contains(expected), "{}", error(scaling));
    }
}
