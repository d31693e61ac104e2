//! Directed rounding against exact integers of any length, written for these tests alone.

use std::cmp::Ordering;

use super::*;

/// A signed integer of any length, magnitude in 64-bit limbs from the lowest.
#[derive(Clone)]
struct Big {
    negative: bool,
    limbs: Vec<u64>,
}

impl Big {
    /// `value · 2^1074`, an integer for every finite f64.
    fn scaled(value: f64) -> Big {
        let bits = value.to_bits();
        let field = (bits >> 52 & 0x7ff) as usize;
        let mantissa = bits & ((1 << 52) - 1) | if field > 0 { 1 << 52 } else { 0 };
        Big { negative: value.is_sign_negative(), limbs: vec![mantissa] }.shifted(field.max(1) - 1)
    }

    fn shifted(&self, count: usize) -> Big {
        let mut limbs = vec![0; count / 64];
        let mut carry = 0u128;
        for limb in &self.limbs {
            carry |= u128::from(*limb) << (count % 64);
            limbs.push(carry as u64);
            carry >>= 64;
        }
        limbs.push(carry as u64);
        Big { negative: self.negative, limbs }
    }

    fn times(&self, other: &Big) -> Big {
        let mut limbs = vec![0u64; self.limbs.len() + other.limbs.len()];
        for (i, a) in self.limbs.iter().enumerate().filter(|(_, a)| **a != 0) {
            let mut carry = 0u128;
            for (j, b) in other.limbs.iter().enumerate() {
                carry += u128::from(*a) * u128::from(*b) + u128::from(limbs[i + j]);
                limbs[i + j] = carry as u64;
                carry >>= 64;
            }
            limbs[i + other.limbs.len()] = carry as u64;
        }
        Big { negative: self.negative != other.negative, limbs }
    }

    fn limb(&self, index: usize) -> u64 {
        self.limbs.get(index).copied().unwrap_or(0)
    }

    fn compare_magnitude(&self, other: &Big) -> Ordering {
        let length = self.limbs.len().max(other.limbs.len());
        (0..length).rev().map(|i| self.limb(i).cmp(&other.limb(i))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn plus(&self, other: &Big) -> Big {
        let length = self.limbs.len().max(other.limbs.len()) + 1;
        if self.negative == other.negative {
            let mut carry = 0u128;
            let sum = |i| {
                carry += u128::from(self.limb(i)) + u128::from(other.limb(i));
                let limb = carry as u64;
                carry >>= 64;
                limb
            };
            return Big { negative: self.negative, limbs: (0..length).map(sum).collect() };
        }
        let (large, small) = if self.compare_magnitude(other).is_ge() { (self, other) } else { (other, self) };
        let mut borrow = false;
        let difference = |i| {
            let (first, b1) = large.limb(i).overflowing_sub(small.limb(i));
            let (limb, b2) = first.overflowing_sub(u64::from(borrow));
            borrow = b1 || b2;
            limb
        };
        Big { negative: large.negative, limbs: (0..length).map(difference).collect() }
    }

    fn sign(&self) -> i32 {
        match (self.limbs.iter().all(|l| *l == 0), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn minus(&self, other: &Big) -> Big {
        self.plus(&Big { negative: !other.negative, limbs: other.limbs.clone() })
    }
}

/// Floats that have neighbours and fit into f64.
trait Neighbours: Float + std::fmt::Debug {
    fn above(self) -> Self;
    fn below(self) -> Self;
    fn wide(self) -> f64;
}

impl Neighbours for f32 {
    fn above(self) -> f32 {
        self.next_up()
    }
    fn below(self) -> f32 {
        self.next_down()
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Neighbours for f64 {
    fn above(self) -> f64 {
        self.next_up()
    }
    fn below(self) -> f64 {
        self.next_down()
    }
    fn wide(self) -> f64 {
        self
    }
}

/// Asserts that `results` (`Down`, `Up`, `Zero` in this order) are the directed roundings of the exact value, of which only
/// the sign of `x - exact` is known.
fn assert_directed<F: Neighbours>(what: &str, results: [F; 3], sign_of_difference: impl Fn(f64) -> i32) {
    let side = |x: F| match x.wide() {
        f64::INFINITY => 1,
        f64::NEG_INFINITY => -1,
        x => sign_of_difference(x),
    };
    let [down, up, zero] = results;
    assert!(side(down) <= 0 && side(down.above()) > 0, "{what} down: {down:?}");
    assert!(side(up) >= 0 && side(up.below()) < 0, "{what} up: {up:?}");
    let positive = side(F::ZERO) < 0;
    assert_eq!(zero.bits(), if positive { down.bits() } else { up.bits() }, "{what} towards zero: {zero:?}");
    if side(F::ZERO) != 0 {
        assert!(results.iter().all(|r| r.negative() != positive), "{what}: the sign of an inexact zero");
    }
}

const DIRECTED: [Rounding; 3] = [Rounding::Down, Rounding::Up, Rounding::Zero];

fn check_pair<F: Neighbours>(a: F, b: F) {
    let (x, y) = (Big::scaled(a.wide()), Big::scaled(b.wide()));
    let sum = x.plus(&y);
    if sum.sign() != 0 {
        let difference = |r| Big::scaled(r).minus(&sum).sign();
        assert_directed(&format!("{a:?} + {b:?}"), DIRECTED.map(|d| add(d, a, b)), difference);
        assert_directed(&format!("{a:?} - -{b:?}"), DIRECTED.map(|d| sub(d, a, -b)), difference);
    }
    let product = x.times(&y);
    if product.sign() != 0 {
        let results = DIRECTED.map(|d| mul(d, a, b));
        assert_directed(&format!("{a:?} * {b:?}"), results, |r| Big::scaled(r).shifted(1074).minus(&product).sign());
        let results = DIRECTED.map(|d| div(d, a, b));
        let sign_of_b = if b.negative() { -1 } else { 1 };
        let dividend = x.shifted(1074);
        let difference = |r| Big::scaled(r).times(&y).minus(&dividend).sign() * sign_of_b;
        assert_directed(&format!("{a:?} / {b:?}"), results, difference);
    }
}

fn check_triple<F: Neighbours>(a: F, b: F, c: F) {
    let exact = Big::scaled(a.wide()).times(&Big::scaled(b.wide())).plus(&Big::scaled(c.wide()).shifted(1074));
    if exact.sign() != 0 {
        let results = DIRECTED.map(|d| fma(d, a, b, c));
        assert_directed(&format!("{a:?} * {b:?} + {c:?}"), results, |r| Big::scaled(r).shifted(1074).minus(&exact).sign());
    }
}

fn check_root<F: Neighbours>(a: F) {
    let square = Big::scaled(a.wide()).shifted(1074);
    let results = DIRECTED.map(|d| sqrt(d, a));
    let difference = |r: f64| if r < 0.0 { -1 } else { Big::scaled(r).times(&Big::scaled(r)).minus(&square).sign() };
    assert_directed(&format!("sqrt {a:?}"), results, difference);
}

/// The exact path rounding to nearest must give what the host gives.
fn check_nearest<F: Neighbours>(a: F, b: F, c: F) {
    let nearest = |e: Exact| e.round(F::FORMAT, Rounding::Nearest);
    let (x, y, z) = (Exact::of(a), Exact::of(b), Exact::of(c));
    assert_eq!(nearest(x.sum(y, Rounding::Nearest)), (a + b).bits(), "{a:?} + {b:?}");
    assert_eq!(nearest(x.product(y)), (a * b).bits(), "{a:?} * {b:?}");
    assert_eq!(nearest(x.product(y).sum(z, Rounding::Nearest)), a.fused(b, c).bits(), "{a:?} * {b:?} + {c:?}");
    if b != F::ZERO {
        assert_eq!(nearest(x.quotient(y)), (a / b).bits(), "{a:?} / {b:?}");
    }
    if a >= F::ZERO {
        assert_eq!(nearest(x.square_root()), a.root().bits(), "sqrt {a:?}");
    }
}

/// Finite encodings spread over the whole range: a multiplicative generator, exponents near each other in every second draw
/// so that sums cancel.
fn draws<F: Float>(count: usize) -> Vec<F> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = move || {
        state = state.wrapping_mul(0xd129_0a3b_5a1c_1e15).wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = state ^ state >> 29;
        let format = F::FORMAT;
        let near_one = mixed & (format.sign_bit() | ((1 << format.mantissa_bits) - 1)) | F::ONE.bits();
        F::from_bits(if mixed >> 61 < 4 { near_one } else { mixed & (format.sign_bit() | (format.sign_bit() - 1)) })
    };
    std::iter::from_fn(|| Some(draw())).filter(|f| f.finite()).take(count).collect()
}

fn check_all<F: Neighbours>(edges: &[F], draws: &[F]) {
    for &a in edges {
        for &b in edges {
            check_pair(a, b);
            for &c in edges {
                check_triple(a, b, c);
                check_nearest(a, b, c);
            }
        }
    }
    for window in draws.windows(3) {
        check_pair(window[0], window[1]);
        check_triple(window[0], window[1], window[2]);
        let product = window[0] * window[1];
        if product.finite() {
            check_triple(window[0], window[1], -product);
        }
        check_nearest(window[0], window[1], window[2]);
    }
    for &a in edges.iter().chain(draws) {
        if a > F::ZERO {
            check_root(a);
        }
    }
}

#[test]
fn f32_is_rounded_as_exact_integers_say() {
    let tiny = f32::from_bits(1);
    let positive = [
        0.0,
        tiny,
        tiny * 3.0,
        f32::MIN_POSITIVE.next_down(),
        f32::MIN_POSITIVE,
        1e-20,
        0.1,
        1f32.next_down(),
        1.0,
        1f32.next_up(),
        3.0,
        16_777_217.0,
        1e20,
        f32::MAX / 2.0,
        f32::MAX,
    ];
    let edges: Vec<f32> = positive.iter().flat_map(|v| [*v, -*v]).collect();
    check_all(&edges, &draws::<f32>(3000));
}

#[test]
fn f64_is_rounded_as_exact_integers_say() {
    let tiny = f64::from_bits(1);
    let positive = [
        0.0,
        tiny,
        f64::MIN_POSITIVE.next_down(),
        f64::MIN_POSITIVE,
        1e-160,
        1f64.next_down(),
        1.0,
        1f64.next_up(),
        3.0,
        1e155,
        f64::MAX,
    ];
    let edges: Vec<f64> = positive.iter().flat_map(|v| [*v, -*v]).collect();
    check_all(&edges, &draws::<f64>(2000));
    // Roots that lie just above a float are rare, and the only ones to need the sticky bit.
    draws::<f64>(30_000).into_iter().filter(|a| *a > 0.0).for_each(check_root);
}

/// Sums in f64 against exact integers: encodings of all sizes, addends near the product or its negative, products near the largest
/// and the smallest values, and terms of which one is but a trace beside the other.
#[test]
fn f32_fma_in_f64_is_that_of_exact_integers() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut draw = move || {
        state = state.wrapping_mul(0xd129_0a3b_5a1c_1e15).wrapping_add(0x1405_7b7e_f767_814f);
        state ^ state >> 29
    };
    // Exponents from -149, of short mantissas now and then, which leave ties and exact results.
    let mut of_size = move |exponent: i32| {
        let bits = draw();
        let mantissa = (bits >> 40) as u32 & if bits & 7 == 0 { 7 << 20 } else { 0x7f_ffff };
        let value = f64::from(1.0 + mantissa as f32 / 8_388_608.0) * 2f64.powi(exponent);
        (if bits & 8 == 0 { value } else { -value }) as f32
    };
    let mut state = 1u64;
    for case in 0..1_000_000u32 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let pick = |shift: u32, range: u64| (state >> shift) % range;
        // The exponent of the product: anywhere, about that of the largest, about those of the subnormals.
        let total = [pick(8, 276) as i32 - 148, pick(8, 6) as i32 + 124, pick(8, 40) as i32 - 160][pick(20, 3) as usize];
        let first = (pick(24, 180) as i32 - 90).clamp(total - 127, total + 149).clamp(-149, 127);
        let (a, b) = (of_size(first), of_size((total - first).clamp(-149, 127)));
        let product = a * b;
        let c = match case % 4 {
            0 => -product.step(pick(40, 5) as i32 - 2),
            1 => of_size((total + pick(40, 60) as i32 - 30).clamp(-149, 127)),
            2 => of_size(pick(40, 276) as i32 - 148),
            _ => [0.0, -0.0, f32::MAX, -f32::MAX, f32::from_bits(1), -f32::from_bits(1), f32::MIN_POSITIVE][pick(40, 7) as usize],
        };
        if a.finite() && b.finite() && c.finite() {
            for rounding in DIRECTED {
                let (got, expected) = (fma(rounding, a, b, c), fma_of_integers(rounding, a, b, c));
                assert_eq!(got.to_bits(), expected.to_bits(), "{a:e} * {b:e} + {c:e} {rounding:?}: {got:e}, {expected:e}");
            }
        }
    }
}

#[test]
fn an_exact_zero_is_negative_only_when_rounding_down_or_when_all_terms_are() {
    for (rounding, difference) in [(Rounding::Nearest, 0u32), (Rounding::Zero, 0), (Rounding::Up, 0), (Rounding::Down, 0x8000_0000)]
    {
        assert_eq!(add(rounding, 1.5f32, -1.5).to_bits(), difference);
        assert_eq!(add(rounding, 0.0f32, -0.0).to_bits(), difference);
        assert_eq!(sub(rounding, 0.0f32, 0.0).to_bits(), difference);
        assert_eq!(fma(rounding, 2.0f32, 3.0, -6.0).to_bits(), difference);
        assert_eq!(add(rounding, -0.0f32, -0.0).to_bits(), 0x8000_0000);
        assert_eq!(add(rounding, 0.0f32, 0.0).to_bits(), 0);
        assert_eq!(mul(rounding, -0.0f32, 5.0).to_bits(), 0x8000_0000);
        assert_eq!(sqrt(rounding, -0.0f32).to_bits(), 0x8000_0000);
        assert_eq!(div(rounding, 0.0f32, -5.0).to_bits(), 0x8000_0000);
    }
}

#[test]
fn infinities_and_nan_do_not_depend_on_the_direction() {
    let payload = f64::from_bits(0x7ff0_0000_0000_0abc);
    for rounding in [Rounding::Nearest, Rounding::Zero, Rounding::Up, Rounding::Down] {
        assert_eq!(add(rounding, f32::INFINITY, f32::NEG_INFINITY).to_bits(), 0x7fff_ffff);
        assert_eq!(mul(rounding, 0.0, f32::NEG_INFINITY).to_bits(), 0x7fff_ffff);
        assert_eq!(add(rounding, f32::from_bits(0xff80_0123), 1.0).to_bits(), 0x7fff_ffff);
        assert_eq!(sqrt(rounding, -1.0f32).to_bits(), 0x7fff_ffff);
        assert_eq!(div(rounding, 0.0f32, 0.0).to_bits(), 0x7fff_ffff);
        assert_eq!(rcp(rounding, -0.0f32), f32::NEG_INFINITY);
        assert_eq!(div(rounding, 1.0f32, f32::NEG_INFINITY).to_bits(), 0x8000_0000);
        assert_eq!(fma(rounding, 2.0, 3.0, f32::INFINITY), f32::INFINITY);
        assert_eq!(add(rounding, 1.0, payload).to_bits(), 0x7ff8_0000_0000_0abc);
        assert_eq!(mul(rounding, 0.0, f64::INFINITY).to_bits(), 0xfff8_0000_0000_0000);
    }
}

#[test]
fn flushing_keeps_the_sign_and_saturating_removes_nan_and_minus_zero() {
    use crate::numeric::float::sat;
    assert_eq!((-1e-40f32).ftz().to_bits(), 0x8000_0000);
    assert_eq!(f32::MIN_POSITIVE.next_down().ftz().to_bits(), 0);
    assert_eq!(f32::MIN_POSITIVE.ftz(), f32::MIN_POSITIVE);
    assert_eq!(1e-310f64.ftz(), 1e-310);
    assert!(f32::NAN.ftz().is_nan());
    for (input, expected) in [(f32::NAN, 0.0f32), (-0.0, 0.0), (-3.0, 0.0), (0.25, 0.25), (1.5, 1.0), (f32::INFINITY, 1.0)] {
        assert_eq!(sat(input).to_bits(), expected.to_bits(), "{input}");
    }
}
