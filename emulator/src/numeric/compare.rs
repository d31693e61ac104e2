//! Comparisons, `min`, `max` and what only touches the sign.

use super::float::Float;

/// The comparison of `setp` and `set`. On floats `Eq` to `Ge` are false if an operand is NaN; the unordered ones are true.
/// On integers the signedness of the type decides: decode `lo`, `ls`, `hi`, `hs` as `Lt`, `Le`, `Gt`, `Ge` of an unsigned type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// `setp` without its Boolean operator. For f16 and bf16 widen the operands to f32 first: that is exact. On integers, which
/// are never NaN, the unordered comparisons equal the ordered ones.
#[inline(always)]
pub fn compare<T: PartialOrd>(comparison: Comparison, a: T, b: T) -> bool {
    let unordered = a.partial_cmp(&b).is_none();
    match comparison {
        Comparison::Eq => a == b,
        Comparison::Ne => a != b && !unordered,
        Comparison::Lt => a < b,
        Comparison::Le => a <= b,
        Comparison::Gt => a > b,
        Comparison::Ge => a >= b,
        Comparison::Equ => a == b || unordered,
        Comparison::Neu => a != b,
        Comparison::Ltu => a < b || unordered,
        Comparison::Leu => a <= b || unordered,
        Comparison::Gtu => a > b || unordered,
        Comparison::Geu => a >= b || unordered,
        Comparison::Num => !unordered,
        Comparison::Nan => unordered,
    }
}

/// How `setp` and `set` combine a comparison with a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum BoolOp {
    And,
    Or,
    Xor,
}

/// `t BoolOp c`: the first destination of `setp`; the second is `combine(op, !t, c)`.
#[inline(always)]
pub fn combine(op: BoolOp, t: bool, c: bool) -> bool {
    match op {
        BoolOp::And => t & c,
        BoolOp::Or => t | c,
        BoolOp::Xor => t ^ c,
    }
}

/// The result of `set` with a 32-bit integer destination: all ones or zero.
#[inline(always)]
pub fn set_integer(truth: bool) -> u32 {
    u32::from(truth).wrapping_neg()
}

/// The result of `set` with an f32 destination: 1 or +0.
#[inline(always)]
pub fn set_f32(truth: bool) -> f32 {
    if truth { 1.0 } else { 0.0 }
}

/// Whether `a` goes before `b`, with `-0 < +0`; false if either is NaN.
#[inline(always)]
fn before<F: Float>(a: F, b: F) -> bool {
    (a < b) | ((a == b) & a.negative() & !b.negative())
}

/// `min`: of a number and a NaN, the number; `-0 < +0`.
#[inline(always)]
pub fn min<F: Float>(a: F, b: F) -> F {
    let least = if before(a, b) | b.nan() { a } else { b };
    least.settle(&[a, b])
}

/// `max`: of a number and a NaN, the number; `-0 < +0`.
#[inline(always)]
pub fn max<F: Float>(a: F, b: F) -> F {
    let greatest = if before(b, a) | b.nan() { a } else { b };
    greatest.settle(&[a, b])
}

/// `min.NaN`: NaN if either is.
#[inline(always)]
pub fn min_nan<F: Float>(a: F, b: F) -> F {
    let least = if before(a, b) | a.nan() { a } else { b };
    least.settle(&[a, b])
}

/// `max.NaN`: NaN if either is.
#[inline(always)]
pub fn max_nan<F: Float>(a: F, b: F) -> F {
    let greatest = if before(b, a) | a.nan() { a } else { b };
    greatest.settle(&[a, b])
}

/// `.xorsign.abs` around one of the four above: the operation on magnitudes, with the product of the signs. A NaN result
/// stays as it is.
#[inline(always)]
pub fn xorsign_abs<F: Float>(operation: impl Fn(F, F) -> F, a: F, b: F) -> F {
    let result = operation(a.magnitude(), b.magnitude());
    let sign = (a.bits() ^ b.bits()) & F::FORMAT.sign_bit();
    if result.nan() { result } else { F::from_bits(result.bits() & !F::FORMAT.sign_bit() | sign) }
}

/// `abs`: clears the sign; a NaN keeps its payload (left open by the ISA).
#[inline(always)]
pub fn abs<F: Float>(a: F) -> F {
    a.magnitude()
}

/// `neg`: flips the sign; a NaN keeps its payload (left open by the ISA).
#[inline(always)]
pub fn neg<F: Float>(a: F) -> F {
    F::from_bits(a.bits() ^ F::FORMAT.sign_bit())
}

/// `copysign`: the sign of `a` on the magnitude of `b`, in the order of PTX's operands.
#[inline(always)]
pub fn copysign<F: Float>(a: F, b: F) -> F {
    F::from_bits(a.bits() & F::FORMAT.sign_bit() | b.bits() & (F::FORMAT.sign_bit() - 1))
}

/// The property that `testp` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum Property {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// `testp`; zero counts as normal.
#[inline(always)]
pub fn testp<F: Float>(property: Property, a: F) -> bool {
    let magnitude = a.bits() & (F::FORMAT.sign_bit() - 1);
    let subnormal = magnitude != 0 && magnitude >> F::FORMAT.mantissa_bits == 0;
    match property {
        Property::Finite => a.finite(),
        Property::Infinite => !a.finite() && !a.nan(),
        Property::Number => !a.nan(),
        Property::NotANumber => a.nan(),
        Property::Normal => a.finite() && !subnormal,
        Property::Subnormal => subnormal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f32 = f32::NAN;

    #[test]
    fn a_nan_makes_ordered_comparisons_false_and_unordered_ones_true() {
        use Comparison::*;
        // (comparison, 1 ? 2, 2 ? 2, 2 ? 1, NaN ? 1)
        let table = [
            (Eq, false, true, false, false),
            (Ne, true, false, true, false),
            (Lt, true, false, false, false),
            (Le, true, true, false, false),
            (Gt, false, false, true, false),
            (Ge, false, true, true, false),
            (Equ, false, true, false, true),
            (Neu, true, false, true, true),
            (Ltu, true, false, false, true),
            (Leu, true, true, false, true),
            (Gtu, false, false, true, true),
            (Geu, false, true, true, true),
            (Num, true, true, true, false),
            (Nan, false, false, false, true),
        ];
        for (comparison, less, equal, greater, unordered) in table {
            assert_eq!(compare(comparison, 1.0f32, 2.0), less, "{comparison:?}");
            assert_eq!(compare(comparison, 2.0f32, 2.0), equal, "{comparison:?}");
            assert_eq!(compare(comparison, 2.0f64, 1.0), greater, "{comparison:?}");
            assert_eq!(compare(comparison, NAN, 1.0), unordered, "{comparison:?}");
            assert_eq!(compare(comparison, 1.0, NAN), unordered, "{comparison:?}");
            assert_eq!(compare(comparison, NAN, NAN), unordered, "{comparison:?}");
            assert_eq!(compare(comparison, 0.0f32, -0.0), equal, "{comparison:?}");
            assert_eq!(compare(comparison, -1i32, 2), less, "{comparison:?}");
            assert_eq!(compare(comparison, u32::MAX, 2), greater, "{comparison:?}");
        }
    }

    #[test]
    fn results_of_set_and_boolean_operators() {
        assert_eq!((set_integer(true), set_integer(false)), (0xffff_ffff, 0));
        assert_eq!((set_f32(true), set_f32(false).to_bits()), (1.0, 0));
        for (t, c) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(combine(BoolOp::And, t, c), t && c);
            assert_eq!(combine(BoolOp::Or, t, c), t || c);
            assert_eq!(combine(BoolOp::Xor, t, c), t != c);
        }
    }

    /// The ISA's pseudocode on a total order of the numbers, written as sign and magnitude.
    fn order(a: f32) -> i64 {
        let magnitude = i64::from(a.to_bits() & 0x7fff_ffff);
        if a.is_sign_negative() { -1 - magnitude } else { magnitude }
    }

    #[test]
    fn min_and_max_order_zeros_and_pass_numbers_by_nan() {
        let values = [f32::NEG_INFINITY, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, f32::INFINITY, NAN, f32::from_bits(0xffa0_0001)];
        for a in values {
            for b in values {
                let (nan, bits) = (0x7fff_ffffu32, f32::to_bits);
                let least = if order(a) < order(b) { a } else { b };
                let greatest = if order(a) > order(b) { a } else { b };
                let expected = match (a.is_nan(), b.is_nan()) {
                    (true, true) => [nan; 4],
                    (true, false) => [bits(b), bits(b), nan, nan],
                    (false, true) => [bits(a), bits(a), nan, nan],
                    (false, false) => [bits(least), bits(greatest), bits(least), bits(greatest)],
                };
                assert_eq!([min(a, b), max(a, b), min_nan(a, b), max_nan(a, b)].map(bits), expected, "{a} {b}");
                let wide = min(f64::from(a), f64::from(b));
                assert!(wide.is_nan() && a.is_nan() && b.is_nan() || wide.to_bits() == f64::from(min(a, b)).to_bits());
            }
        }
    }

    #[test]
    fn signs() {
        assert_eq!(xorsign_abs(min, -2.0f32, 3.0), -2.0);
        assert_eq!(xorsign_abs(max, -2.0f32, -3.0), 3.0);
        assert_eq!(xorsign_abs(min, -0.0f32, 3.0).to_bits(), 0x8000_0000);
        assert_eq!(xorsign_abs(min_nan, -2.0f32, NAN).to_bits(), 0x7fff_ffff);
        assert_eq!(xorsign_abs(min, -2.0f32, NAN), -2.0);
        assert_eq!((abs(-0.0f32).to_bits(), neg(0.0f32).to_bits()), (0, 0x8000_0000));
        assert_eq!(abs(f64::from_bits(0xfff8_0000_0000_0001)).to_bits(), 0x7ff8_0000_0000_0001);
        assert_eq!((copysign(-1.0f32, 5.0), copysign(1.0f64, -5.0)), (-5.0, 5.0));
    }

    #[test]
    fn testp_counts_zero_as_normal() {
        use Property::*;
        let table = [
            (0.0f32, [true, false, true, false, true, false]),
            (-1.5, [true, false, true, false, true, false]),
            (f32::MIN_POSITIVE, [true, false, true, false, true, false]),
            (-1e-40, [true, false, true, false, false, true]),
            (f32::NEG_INFINITY, [false, true, true, false, false, false]),
            (NAN, [false, false, false, true, false, false]),
        ];
        for (a, expected) in table {
            assert_eq!([Finite, Infinite, Number, NotANumber, Normal, Subnormal].map(|p| testp(p, a)), expected, "{a}");
        }
    }
}
