//! Against NVIDIA: what ptxas 13.0 makes of instructions on constants when it folds them for sm_90a, copied from the
//! code that it emits.

use super::bits::Overrun::{Clamp, Wrap};
use super::exact::Rounding::Nearest;
use super::float::{Float, sat};
use super::half_precision::{BF16, F16, Half};
use super::{approximate, bits, compare, convert, integer, round};

/// The result of an approximation may be one unit in the last place off.
#[track_caller]
fn near(name: &str, function: impl Fn(f32) -> f32, cases: &[(u32, u32)]) {
    for (a, expected) in cases {
        let result = function(f32::from_bits(*a)).to_bits();
        assert!(result.abs_diff(*expected) <= 1, "{name} {a:08x}: {result:08x}, not {expected:08x}");
    }
}

#[track_caller]
fn exact<const N: usize>(name: &str, function: impl Fn([u32; N]) -> u32, cases: &[([u32; N], u32)]) {
    for (operands, expected) in cases {
        let result = function(*operands);
        assert_eq!(result, *expected, "{name} {operands:x?}: {result:x}");
    }
}

#[track_caller]
fn unary(name: &str, function: impl Fn(u32) -> u32, cases: &[(u32, u32)]) {
    for (a, expected) in cases {
        exact(name, |[a]| function(a), &[([*a], *expected)]);
    }
}

#[track_caller]
fn binary(name: &str, function: impl Fn(u32, u32) -> u32, cases: &[([u32; 2], u32)]) {
    exact(name, |[a, b]| function(a, b), cases);
}

#[track_caller]
fn ternary(name: &str, function: impl Fn(u32, u32, u32) -> u32, cases: &[([u32; 3], u32)]) {
    exact(name, |[a, b, c]| function(a, b, c), cases);
}

#[track_caller]
fn floats(name: &str, function: impl Fn(f32, f32) -> f32, cases: &[([u32; 2], u32)]) {
    exact(name, |[a, b]| function(f32::from_bits(a), f32::from_bits(b)).to_bits(), cases);
}

#[track_caller]
fn conversion(name: &str, function: impl Fn(f32) -> u32, cases: &[(u32, u32)]) {
    unary(name, |a| function(f32::from_bits(a)), cases);
}

#[test]
fn floats_are_folded_alike() {
    floats(
        "add.rn.f32",
        |a, b| round::add(Nearest, a, b),
        &[
            ([0x007f_ffff, 0x007f_ffff], 0x00ff_fffe),
            ([0xff80_0000, 0x7f80_0000], 0x7fff_ffff),
            ([0x7fc0_0001, 0x1e3c_e508], 0x7fff_ffff),
            ([1, 0x0080_0000], 0x0080_0001),
            ([0x7f7f_ffff, 0xff80_0000], 0xff80_0000),
            ([0x7f80_0000, 0x3f80_0001], 0x7f80_0000),
        ],
    );
    floats(
        "mul.rn.f32",
        |a, b| round::mul(Nearest, a, b),
        &[
            ([1, 0xff80_0000], 0xff80_0000),
            ([0x7f80_0000, 0xc049_0fdb], 0xff80_0000),
            ([0x7fc0_0001, 0x3eaa_aaab], 0x7fff_ffff),
            ([0x3eaa_aaab, 0xbf80_0001], 0xbeaa_aaac),
            ([0x1e3c_e508, 0x3eaa_aaab], 0x1d7b_dc0b),
        ],
    );
    floats(
        "add.ftz.f32",
        |a, b| round::add(Nearest, a.ftz(), b.ftz()).ftz(),
        &[
            ([0xff80_0000, 0x3eaa_aaab], 0xff80_0000),
            ([0xc049_0fdb, 0xbf80_0001], 0xc084_87ee),
            ([1, 0x7f7f_ffff], 0x7f7f_ffff),
            ([0xbf80_0001, 0xff80_0000], 0xff80_0000),
        ],
    );
    floats(
        "mul.ftz.f32",
        |a, b| round::mul(Nearest, a.ftz(), b.ftz()).ftz(),
        &[([1, 0x7f7f_ffff], 0), ([0x3eaa_aaab, 0x1e3c_e508], 0x1d7b_dc0b)],
    );
    floats(
        "add.sat.f32",
        |a, b| sat(round::add(Nearest, a, b)),
        &[
            ([0x7f80_0000, 0x7f7f_ffff], 0x3f80_0000),
            ([0x0080_0000, 0x3eaa_aaab], 0x3eaa_aaab),
            ([0x3eaa_aaab, 0x3f80_0001], 0x3f80_0000),
            ([0xff80_0000, 0x7f7f_ffff], 0),
        ],
    );
    floats(
        "min.f32",
        compare::min,
        &[
            ([0x7f7f_ffff, 0x0080_0000], 0x0080_0000),
            ([0x7fc0_0001, 0xff80_0000], 0xff80_0000),
            ([0xff80_0000, 0x7fc0_0001], 0xff80_0000),
            ([0x3eaa_aaab, 0x7f7f_ffff], 0x3eaa_aaab),
            ([0x7f7f_ffff, 1], 1),
        ],
    );
    floats(
        "max.f32",
        compare::max,
        &[
            ([0x8000_0000, 0x7f7f_ffff], 0x7f7f_ffff),
            ([0x3f80_0001, 0x3eaa_aaab], 0x3f80_0001),
            ([0x0080_0000, 0xbf80_0001], 0x0080_0000),
            ([0x7f80_0000, 0xbf80_0001], 0x7f80_0000),
        ],
    );
    floats("min.NaN.f32", compare::min_nan, &[([0x7fc0_0001, 0x8000_0000], 0x7fff_ffff)]);
    floats(
        "div.approx.f32",
        approximate::div,
        &[
            ([0x007f_ffff, 0x8000_0000], 0xff80_0000),
            ([0x0080_0000, 1], 0x4b00_0000),
            ([1, 0x8000_0003], 0xbeaa_aaab),
            ([0xbf80_0001, 1], 0xff80_0000),
        ],
    );
    floats(
        "div.full.f32",
        approximate::div_full,
        &[
            ([0xbf80_0001, 0xc049_0fdb], 0x3ea2_f984),
            ([0x7f7f_ffff, 0x007f_ffff], 0x7f80_0000),
            ([0xbf80_0001, 0x8000_0003], 0x7f80_0000),
            ([0x3eaa_aaab, 0x3eaa_aaab], 0x3f80_0000),
        ],
    );
    conversion(
        "cvt.rni.s32.f32",
        |a| convert::cvt_integer_f32::<i32>(Nearest, a) as u32,
        &[(0x4020_0000, 2), (0x3f80_3fff, 1), (0x477f_f000, 0xfff0), (0x3300_0001, 0)],
    );
    conversion(
        "cvt.rn.f16.f32",
        |a| F16::narrow(a).into(),
        &[(0x4020_0000, 0x4100), (0x3f80_3fff, 0x3c02), (0x477f_f000, 0x7c00), (0x3300_0001, 1)],
    );
    conversion(
        "cvt.rn.bf16.f32",
        |a| BF16::narrow(a).into(),
        &[(0x4020_0000, 0x4020), (0x3f80_3fff, 0x3f80), (0x477f_f000, 0x4780), (0x3300_0001, 0x3300)],
    );
    conversion(
        "cvt.rna.tf32.f32",
        convert::cvt_rna_tf32_f32,
        &[(0x4020_0000, 0x4020_0000), (0x3f80_3fff, 0x3f80_4000), (0x477f_f000, 0x4780_0000), (0x3300_0001, 0x3300_0000)],
    );
    // Not tabled above: what `.sat`, `max` and bf16 make of minus zero and NaN.
    assert_eq!(sat(round::add(Nearest, -0.0f32, -0.0)).to_bits(), 0);
    assert_eq!(compare::max(-0.0f32, 0.0).to_bits(), 0);
    assert_eq!(round::mul(Nearest, f32::INFINITY, 0.0).to_bits(), 0x7fff_ffff);
    assert_eq!(BF16::narrow(f32::from_bits(0x7fc0_0001)), 0x7fff);
    assert_eq!(compare::abs(f32::from_bits(0x7fc0_0001)).to_bits(), 0x7fc0_0001);
}

#[test]
fn approximations_are_folded_alike() {
    near(
        "rcp.approx.f32",
        approximate::rcp,
        &[
            (0x4040_0000, 0x3eaa_aaab),
            (0x3f00_0000, 0x4000_0000),
            (1, 0x7f80_0000),
            (0x8000_0000, 0xff80_0000),
            (0xbfc0_0000, 0xbf2a_aaab),
            (0xc316_0000, 0xbbda_740e),
            (0x7f7f_ffff, 0x0020_0000),
        ],
    );
    near(
        "rcp.approx.ftz.f32",
        |a| approximate::rcp(a.ftz()).ftz(),
        &[
            (0x4040_0000, 0x3eaa_aaab),
            (0x3f00_0000, 0x4000_0000),
            (1, 0x7f80_0000),
            (0x8000_0000, 0xff80_0000),
            (0xbfc0_0000, 0xbf2a_aaab),
            (0xc316_0000, 0xbbda_740e),
            (0x7f7f_ffff, 0),
        ],
    );
    near(
        "rsqrt.approx.f32",
        approximate::rsqrt,
        &[
            (0x4040_0000, 0x3f13_cd3a),
            (0x3f00_0000, 0x3fb5_04f3),
            (1, 0x64b5_04f3),
            (0x8000_0000, 0xff80_0000),
            (0x7f7f_ffff, 0x1f80_0000),
        ],
    );
    near(
        "sqrt.approx.f32",
        approximate::sqrt,
        &[(0x4040_0000, 0x3fdd_b3d7), (0x3f00_0000, 0x3f35_04f3), (1, 0x1a35_04f3), (0x7f7f_ffff, 0x5f7f_ffff)],
    );
    near(
        "ex2.approx.f32",
        approximate::ex2,
        &[
            (0x4040_0000, 0x4100_0000),
            (0x3f00_0000, 0x3fb5_04f3),
            (1, 0x3f80_0000),
            (0x8000_0000, 0x3f80_0000),
            (0xbfc0_0000, 0x3eb5_04f3),
            (0xc316_0000, 0),
            (0x7f7f_ffff, 0x7f80_0000),
        ],
    );
    near(
        "lg2.approx.f32",
        approximate::lg2,
        &[(0x4040_0000, 0x3fca_e00d), (0x3f00_0000, 0xbf80_0000), (1, 0xc315_0000), (0x7f7f_ffff, 0x4300_0000)],
    );
    near(
        "sin.approx.f32",
        approximate::sin,
        &[(0x4040_0000, 0x3e10_81c3), (0x3f00_0000, 0x3ef5_7744), (1, 0), (0xbfc0_0000, 0xbf7f_5bd5), (0xc316_0000, 0x3f37_0224)],
    );
    near(
        "cos.approx.f32",
        approximate::cos,
        &[
            (0x4040_0000, 0xbf7d_7026),
            (0x3f00_0000, 0x3f60_a940),
            (1, 0x3f80_0000),
            (0x8000_0000, 0x3f80_0000),
            (0xbfc0_0000, 0x3d90_deaa),
            (0xc316_0000, 0x3f33_021a),
        ],
    );
}

#[test]
fn integers_are_folded_alike() {
    unary("bfind.s32", |a| bits::bfind(a as i32), &[(0x8000_0000, 0x1e), (0x1234_5678, 0x1c)]);
    unary("bfind.u32", bits::bfind, &[(0x8000_0000, 0x1f), (0xffff_ffff, 0x1f)]);
    unary("bfind.shiftamt.s32", |a| bits::bfind_shiftamt(a as i32), &[(5, 0x1d), (1, 0x1f)]);
    unary("clz.b32", bits::clz, &[(5, 0x1d), (0x28, 0x1a)]);
    unary("popc.b32", bits::popc, &[(0x28, 2), (0x7fff_ffff, 0x1f)]);
    unary("brev.b32", bits::brev, &[(0x8000_0000, 1), (5, 0xa000_0000)]);
    binary("mul.hi.s32", |a, b| integer::mul_hi(a as i32, b as i32) as u32, &[([0, 1], 0), ([0xffff_ffff, 0x28], 0xffff_ffff)]);
    binary(
        "mul24.lo.s32",
        |a, b| integer::mul24_lo(a as i32, b as i32) as u32,
        &[([0x7fff_ffff, 1], 0xffff_ffff), ([0, 0xffff_0001], 0)],
    );
    binary("mul24.hi.u32", integer::mul24_hi, &[([1, 1], 0), ([0x28, 0xffff_0001], 0x27d8)]);
    binary(
        "mul24.hi.s32",
        |a, b| integer::mul24_hi(a as i32, b as i32) as u32,
        &[([0xffff_ffff, 0x28], 0xffff_ffff), ([0x8000_0000, 0x1234_5678], 0)],
    );
    binary("sub.sat.s32", |a, b| integer::sub_sat(a as i32, b as i32) as u32, &[([0x1234_5678, 0xffff_0001], 0x1235_5677)]);
    binary("shl.b32", bits::shl, &[([0x28, 0x28], 0), ([5, 5], 0xa0)]);
    binary("shr.s32", |a, b| bits::shr(a as i32, b) as u32, &[([0x8000_0000, 0x1234_5678], 0xffff_ffff), ([0, 0x1234_5678], 0)]);
    binary("shr.u32", bits::shr, &[([0xffff_0001, 0xffff_0001], 0), ([0, 0x28], 0)]);
    binary(
        "szext.clamp.s32",
        |a, b| bits::szext(Clamp, a as i32, b) as u32,
        &[([0x7fff_ffff, 0x1234_5678], 0x7fff_ffff), ([5, 0x1234_5678], 5)],
    );
    binary("szext.wrap.u32", |a, b| bits::szext(Wrap, a, b), &[([0xffff_ffff, 0x8000_0000], 0)]);
    ternary(
        "mad24.lo.s32",
        |a, b, c| integer::mad24_lo(a as i32, b as i32, c as i32) as u32,
        &[([1, 0x28, 0x1234_5678], 0x1234_56a0), ([0x28, 0x28, 0xffff_ffff], 0x63f)],
    );
    ternary("shf.l.clamp.b32", |a, b, c| bits::shf_l(Clamp, a, b, c), &[([0, 5, 0x7fff_ffff], 0), ([0x28, 5, 0x28], 0x28)]);
    ternary(
        "shf.r.clamp.b32",
        |a, b, c| bits::shf_r(Clamp, a, b, c),
        &[([0x8000_0000, 0xffff_ffff, 0xffff_ffff], 0xffff_ffff), ([1, 0, 1], 0)],
    );
    ternary(
        "shf.l.wrap.b32",
        |a, b, c| bits::shf_l(Wrap, a, b, c),
        &[([0x1234_5678, 0x28, 1], 0x50), ([0, 0x28, 0x8000_0000], 0x28)],
    );
    ternary(
        "shf.r.wrap.b32",
        |a, b, c| bits::shf_r(Wrap, a, b, c),
        &[([5, 0xffff_ffff, 0x7fff_ffff], 0xffff_fffe), ([0xffff_0001, 0x8000_0000, 5], 0x07ff_f800)],
    );
    ternary("bfe.u32", bits::bfe, &[([0, 0x28, 0], 0), ([0x8000_0000, 0xffff_0001, 1], 0)]);
    ternary(
        "bfe.s32",
        |a, b, c| bits::bfe(a as i32, b, c) as u32,
        &[([0x1234_5678, 0x28, 0x7fff_ffff], 0), ([0xffff_0001, 0, 5], 1)],
    );
    ternary(
        "fns.b32",
        |a, b, c| bits::fns(a, b, c as i32),
        &[([5, 0x7fff_ffff, 1], 0xffff_ffff), ([0x1234_5678, 0x7fff_ffff, 0], 0xffff_ffff)],
    );
}
