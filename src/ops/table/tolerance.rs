//! How far off a kernel may be: never a bound set by hand.
//!
//! For the maximum and for the root mean square over a tensor, the distance from the exact result may be at most twice that of the
//! plain program in the same type, and one unit in the last place of the tensor's scale more. (The rule of FlashAttention's tests,
//! with the unit added because a plain program may be exact by luck.)

use crate::gpu::ElementType;

use super::Type;

/// A tensor's distance from the exact result, in two norms, and what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Distance {
    /// Largest absolute difference; infinite where a value that should be finite is not.
    pub max: f64,
    /// The most that it may be.
    pub max_allowed: f64,
    /// Root mean square of the differences.
    pub rms: f64,
    /// The most that it may be.
    pub rms_allowed: f64,
}

impl Distance {
    /// Of a kernel's result, given the exact one and the plain program's. Integers must be equal.
    pub fn of(result: &[f64], exact: &[f64], plain: &[f64], ty: Type, element: ElementType) -> Self {
        let (max, rms) = norms(result, exact);
        if !matches!(ty, Type::Activation | Type::F32) {
            return Self { max, max_allowed: 0.0, rms, rms_allowed: 0.0 };
        }
        let (plain_max, plain_rms) = norms(plain, exact);
        let finite = exact.iter().filter(|x| x.is_finite());
        let (scale, squares) = finite.clone().fold((0f64, 0f64), |(most, sum), &x| (most.max(x.abs()), sum + x * x));
        let mean = squares / (finite.count().max(1) as f64);
        let digits = if ty == Type::F32 { ElementType::F32 } else { element };
        Self {
            max,
            max_allowed: 2.0 * plain_max + unit_in_last_place(scale, digits),
            rms,
            rms_allowed: 2.0 * plain_rms + unit_in_last_place(mean.sqrt(), digits),
        }
    }

    /// Whether both are within what is allowed. Nothing that is infinitely far off is, whatever the plain program does.
    pub fn pass(&self) -> bool {
        self.max.is_finite() && self.max <= self.max_allowed && self.rms <= self.rms_allowed
    }

    /// The larger of the two as a share of what is allowed: above 1 it fails.
    pub fn share(&self) -> f64 {
        let share = |of: f64, allowed: f64| if of == 0.0 { 0.0 } else { of / allowed };
        share(self.max, self.max_allowed).max(share(self.rms, self.rms_allowed))
    }
}

/// Largest and root mean square difference. Equal infinities do not differ; any other value that is not finite is infinitely far off.
fn norms(x: &[f64], exact: &[f64]) -> (f64, f64) {
    if x.len() != exact.len() {
        return (f64::INFINITY, f64::INFINITY);
    }
    let differences = x.iter().zip(exact).map(|(&x, &exact)| {
        let difference = if x == exact { 0.0 } else { (x - exact).abs() };
        if difference.is_nan() { f64::INFINITY } else { difference }
    });
    let (max, squares) = differences.fold((0f64, 0f64), |(max, squares), d| (max.max(d), squares + d * d));
    (max, (squares / exact.len().max(1) as f64).sqrt())
}

/// The distance of neighbours near `x` in this type.
fn unit_in_last_place(x: f64, element: ElementType) -> f64 {
    let digits = match element {
        ElementType::F32 => 23,
        ElementType::F16 => 10,
        ElementType::BF16 => 7,
    };
    if x == 0.0 { 0.0 } else { (x.log2().floor() - f64::from(digits)).exp2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_plain_program_and_a_unit() {
        let (exact, plain) = ([4.0, 1.0], [4.0 + 2f64.powi(-8), 1.0]);
        let at = |error: f64| Distance::of(&[4.0 + error, 1.0], &exact, &plain, Type::Activation, ElementType::BF16);
        // A unit of bf16 at 4 is 2^-5.
        let most = 2.0 * 2f64.powi(-8) + 2f64.powi(-5);
        assert_eq!(at(0.0).max_allowed, most);
        assert!(at(most / 2.0).pass() && !at(most * 1.001).pass());
        assert!((at(most * 2.0).share() - at(most).share() * 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_small_error_everywhere_is_seen_by_the_mean() {
        let mut exact = vec![2f64.powi(-10); 1000];
        exact[0] = 100.0;
        let result: Vec<f64> = exact.iter().map(|x| x + 0.3).collect();
        let distance = Distance::of(&result, &exact, &exact, Type::Activation, ElementType::BF16);
        assert!(distance.max <= distance.max_allowed && !distance.pass(), "{distance:?}");
    }

    #[test]
    fn what_is_not_finite_is_infinitely_far_off() {
        let of = |x: f64, exact: f64| Distance::of(&[x], &[exact], &[exact], Type::F32, ElementType::F32);
        assert!(!of(f64::NAN, 1.0).pass() && !of(f64::INFINITY, 1.0).pass() && !of(1.0, f64::NAN).pass());
        assert!(of(f64::NEG_INFINITY, f64::NEG_INFINITY).pass() && !of(f64::NEG_INFINITY, f64::INFINITY).pass());
        assert!(!Distance::of(&[1.0], &[1.0, 2.0], &[1.0, 2.0], Type::F32, ElementType::F32).pass());
    }

    #[test]
    fn integers_are_equal_or_wrong() {
        let of = |x: f64| Distance::of(&[x], &[7.0], &[9.0], Type::I32, ElementType::F32);
        assert!(of(7.0).pass() && !of(8.0).pass());
    }
}
