//! Bits: shifts, fields, searches, permutations.

use super::integer::Integer;

/// Whether a count or position beyond the width is clamped to it or wraps around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum Overrun {
    Clamp,
    Wrap,
}

/// `shl`: counts from the width up give zero.
#[inline(always)]
pub fn shl<T: Integer>(a: T, count: u32) -> T {
    let shifted = a.wrapping_shl(count);
    if count < T::BITS { shifted } else { T::default() }
}

/// `shr`: counts from the width up give zero, or the sign in every bit of a signed type.
#[inline(always)]
pub fn shr<T: Integer>(a: T, count: u32) -> T {
    let shifted = a.wrapping_shr(count);
    let beyond = if a < T::default() { T::ONES } else { T::default() };
    if count < T::BITS { shifted } else { beyond }
}

/// The number of positions by which `shf` shifts.
#[inline(always)]
fn funnel_count(overrun: Overrun, count: u32) -> u32 {
    match overrun {
        Overrun::Clamp => count.min(32),
        Overrun::Wrap => count & 31,
    }
}

/// `shf.l`: the upper word of `{b, a}` shifted to the left.
#[inline(always)]
pub fn shf_l(overrun: Overrun, a: u32, b: u32, count: u32) -> u32 {
    let both = u64::from(b) << 32 | u64::from(a);
    ((both << funnel_count(overrun, count)) >> 32) as u32
}

/// `shf.r`: the lower word of `{b, a}` shifted to the right.
#[inline(always)]
pub fn shf_r(overrun: Overrun, a: u32, b: u32, count: u32) -> u32 {
    let both = u64::from(b) << 32 | u64::from(a);
    (both >> funnel_count(overrun, count)) as u32
}

/// `popc`.
#[inline(always)]
pub fn popc<T: Integer>(a: T) -> u32 {
    a.bits().count_ones()
}

/// `clz`: the width for zero.
#[inline(always)]
pub fn clz<T: Integer>(a: T) -> u32 {
    a.bits().leading_zeros() - (64 - T::BITS)
}

/// `brev`: the bits in reverse order.
#[inline(always)]
pub fn brev<T: Integer>(a: T) -> T {
    T::from_bits(a.bits().reverse_bits() >> (64 - T::BITS))
}

/// `bfind`: position of the highest bit that differs from the sign (of the highest one in an unsigned type), or
/// `0xffffffff` if there is none.
#[inline(always)]
pub fn bfind<T: Integer>(a: T) -> u32 {
    let bits = if a < T::default() { T::ONES.wrapping_sub(a) } else { a };
    (T::BITS - 1).wrapping_sub(clz(bits))
}

/// `bfind.shiftamt`: the shift to the left that brings that bit to the top, or `0xffffffff`.
#[inline(always)]
pub fn bfind_shiftamt<T: Integer>(a: T) -> u32 {
    let position = bfind(a);
    if position == u32::MAX { position } else { T::BITS - 1 - position }
}

/// `fns`: the position of the `|offset|`-th set bit of `mask` from `base`, upwards if `offset` is positive; the bit at `base`
/// itself for 0; `0xffffffff` if there is none.
#[inline]
pub fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    let is_set = |position: &u32| mask >> position & 1 == 1;
    let skip = offset.unsigned_abs().saturating_sub(1) as usize;
    let found = match offset.signum() {
        0 => Some(base).filter(|b| *b < 32).filter(is_set),
        1 => (base..32).filter(is_set).nth(skip),
        _ if base < 32 => (0..=base).rev().filter(is_set).nth(skip),
        _ => None,
    };
    found.unwrap_or(u32::MAX)
}

/// `bfe`: `length` bits of `a` from `position` up, extended; both counts are taken modulo 256. Bits beyond the top are the
/// sign or zero.
#[inline(always)]
pub fn bfe<T: Integer>(a: T, position: u32, length: u32) -> T {
    let (position, length) = (position & 0xff, length & 0xff);
    let field = shr(a, position);
    let spare = T::BITS.saturating_sub(length);
    shr(shl(field, spare), if length == 0 { 0 } else { spare })
}

/// `bfi`: `b` with its `length` bits from `position` up replaced by the low bits of `a`; both counts are taken modulo 256.
#[inline(always)]
pub fn bfi<T: Integer>(a: T, b: T, position: u32, length: u32) -> T {
    let (position, length) = (position & 0xff, length & 0xff);
    let ones = T::from_bits(!shl(u64::MAX, length));
    let mask = shl(ones, position).bits();
    T::from_bits(b.bits() & !mask | shl(a, position).bits() & mask)
}

/// `bmsk`: `width` ones from `position` up.
#[inline(always)]
pub fn bmsk(overrun: Overrun, position: u32, width: u32) -> u32 {
    let (position, width) = match overrun {
        Overrun::Clamp => (position, width),
        Overrun::Wrap => (position & 31, width & 31),
    };
    shl(!shl(u32::MAX, width), position)
}

/// `szext`: the low `width` bits of `a`, extended. Zero bits give zero; 32 and more are the whole or wrap.
#[inline(always)]
pub fn szext<T: Integer>(overrun: Overrun, a: T, width: u32) -> T {
    let width = match overrun {
        Overrun::Clamp => width.min(T::BITS),
        Overrun::Wrap => width & (T::BITS - 1),
    };
    bfe(a, 0, width)
}

/// `lop3`: bit by bit the entry `4a + 2b + c` of the table.
#[inline(always)]
pub fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    let entry = |index: u32| (u32::from(table) >> index & 1).wrapping_neg();
    let choose = |select: u32, one: u32, zero: u32| zero ^ (select & (one ^ zero));
    let with_a = |i| choose(a, entry(4 + i), entry(i));
    let with_ab = |i| choose(b, with_a(2 + i), with_a(i));
    choose(c, with_ab(1), with_ab(0))
}

/// `prmt` in its general form: the low 3 bits of each of the four lowest nibbles of `selector` choose a byte of `{b, a}`,
/// the fourth asks for its sign in all bits instead.
#[inline(always)]
pub fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let byte = |i: u32| {
        let nibble = selector >> (4 * i);
        let value = (bytes >> (8 * (nibble & 7))) as u8;
        let sign = ((value as i8) >> 7) as u8;
        u32::from(if nibble & 8 != 0 { sign } else { value }) << (8 * i)
    };
    byte(0) | byte(1) | byte(2) | byte(3)
}

/// The special forms of `prmt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermuteMode {
    /// `.f4e`: forward 4 extract.
    ForwardExtract,
    /// `.b4e`: backward 4 extract.
    BackwardExtract,
    /// `.rc8`: replicate 8 bits.
    Replicate8,
    /// `.ecl`: edge clamp left.
    EdgeClampLeft,
    /// `.ecr`: edge clamp right.
    EdgeClampRight,
    /// `.rc16`: replicate 16 bits.
    Replicate16,
}

/// `prmt` with a mode: the two lowest bits of `selector` say which of its four permutations.
#[inline(always)]
pub fn prmt_mode(mode: PermuteMode, a: u32, b: u32, selector: u32) -> u32 {
    let i = selector & 3;
    let general = match mode {
        PermuteMode::ForwardExtract => 0x3210 + 0x1111 * i,
        PermuteMode::BackwardExtract => 0x5670u32.wrapping_add(0x1111 * i) & 0x7777,
        PermuteMode::Replicate8 => 0x1111 * i,
        PermuteMode::EdgeClampLeft => [0x3210, 0x3211, 0x3222, 0x3333][i as usize],
        PermuteMode::EdgeClampRight => [0x0000, 0x1110, 0x2210, 0x3210][i as usize],
        PermuteMode::Replicate16 => 0x1010 + 0x2222 * (i & 1),
    };
    prmt(a, b, general)
}

/// `cnot`: 1 of zero, else 0.
#[inline(always)]
pub fn cnot<T: Integer>(a: T) -> T {
    T::from_bits(u64::from(a == T::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [u32; 9] = [0, 1, 0x8000_0000, 0x7fff_ffff, u32::MAX, 0xf000_000f, 0x1234_5678, 0xfedc_ba98, 0x0000_8001];
    const COUNTS: [u32; 12] = [0, 1, 5, 8, 15, 16, 31, 32, 33, 63, 64, 255];

    /// Bit `i` of `a`, zero beyond 64.
    fn bit(a: u64, i: u32) -> u64 {
        if i < 64 { a >> i & 1 } else { 0 }
    }

    /// A word from its bits.
    fn gather(width: u32, bit_at: impl Fn(u32) -> u64) -> u64 {
        (0..width).map(|i| bit_at(i) << i).sum()
    }

    #[test]
    fn shifts_clamp_at_the_width() {
        for a in WORDS {
            for n in COUNTS {
                let wide = u128::from(a);
                assert_eq!(shl(a, n), if n < 64 { (wide << n) as u32 } else { 0 });
                assert_eq!(shr(a, n), if n < 64 { (wide >> n) as u32 } else { 0 });
                assert_eq!(shr(a as i32, n), (i64::from(a as i32) >> n.min(63)) as i32);
                assert_eq!(shl(a as u16, n), if n < 64 { (wide << n) as u16 } else { 0 });
                assert_eq!(shr(a as i16, n), (i64::from(a as i16) >> n.min(63)) as i16);
                for b in WORDS {
                    let pair = u128::from(b) << 32 | u128::from(a);
                    let (clamped, wrapped) = (n.min(32), n % 32);
                    assert_eq!(shf_l(Overrun::Clamp, a, b, n), (pair << clamped >> 32) as u32);
                    assert_eq!(shf_l(Overrun::Wrap, a, b, n), (pair << wrapped >> 32) as u32);
                    assert_eq!(shf_r(Overrun::Clamp, a, b, n), (pair >> clamped) as u32);
                    assert_eq!(shf_r(Overrun::Wrap, a, b, n), (pair >> wrapped) as u32);
                }
            }
        }
        assert_eq!((shl(1u64, 63), shl(1u64, 64), shr(i64::MIN, 200)), (1 << 63, 0, -1));
    }

    #[test]
    fn searches() {
        for a in WORDS {
            let highest = |v: u64| (0..64).rev().find(|i| bit(v, *i) == 1);
            let magnitude = if a as i32 >= 0 { a } else { !a };
            assert_eq!(popc(a), (0..32).map(|i| bit(a.into(), i) as u32).sum());
            assert_eq!(clz(a), highest(a.into()).map_or(32, |i| 31 - i));
            assert_eq!(clz(u64::from(a)), highest(a.into()).map_or(64, |i| 63 - i));
            assert_eq!(bfind(a), highest(a.into()).unwrap_or(u32::MAX));
            assert_eq!(bfind(a as i32), highest(magnitude.into()).unwrap_or(u32::MAX));
            assert_eq!(bfind_shiftamt(a), highest(a.into()).map_or(u32::MAX, |i| 31 - i));
            assert_eq!(bfind_shiftamt(a as i32), highest(magnitude.into()).map_or(u32::MAX, |i| 31 - i));
            assert_eq!(u64::from(brev(a)), gather(32, |i| bit(a.into(), 31 - i)));
            assert_eq!(brev(u64::from(a)), gather(64, |i| bit(a.into(), 63 - i)));
            assert_eq!(cnot(a), u32::from(a == 0));
        }
        // The ISA's examples, then the bounds.
        let mask = 0xaaaa_aaaa;
        assert_eq!([fns(mask, 3, 1), fns(mask, 3, -1), fns(mask, 2, 1), fns(mask, 2, -1)], [3, 3, 3, 1]);
        assert_eq!([fns(mask, 3, 2), fns(mask, 3, -2), fns(mask, 3, 0), fns(mask, 2, 0)], [5, 1, 3, u32::MAX]);
        assert_eq!([fns(mask, 31, 2), fns(mask, 1, -2), fns(mask, 40, -1), fns(1, 0, i32::MIN)], [u32::MAX; 4]);
    }

    #[test]
    fn fields_follow_the_loops_of_the_isa() {
        for a in WORDS {
            for position in COUNTS {
                for length in COUNTS {
                    let field = |sign: u64| {
                        gather(32, |i| if i < length && position + i <= 31 { bit(a.into(), position + i) } else { sign })
                    };
                    let sign = if length == 0 { 0 } else { bit(a.into(), (position + length - 1).min(31)) };
                    assert_eq!(u64::from(bfe(a, position, length)), field(0), "{a:x} {position} {length}");
                    assert_eq!(u64::from(bfe(a as i32, position, length) as u32), field(sign), "{a:x} {position} {length}");
                    let base = 0x5a5a_a5a5u32;
                    let inserted = |i: u32| {
                        if i >= position && i - position < length { bit(a.into(), i - position) } else { bit(base.into(), i) }
                    };
                    assert_eq!(u64::from(bfi(a, base, position, length)), gather(32, inserted));
                    assert_eq!(bfe(a, position + 256, length + 512), bfe(a, position, length));
                }
            }
        }
        assert_eq!(bfe(i64::MIN, 60, 10), -8);
        assert_eq!(bfi(u64::MAX, 0, 60, 10), 0xf << 60);
    }

    #[test]
    fn masks_and_extensions_follow_the_pseudocode() {
        for a in COUNTS {
            for b in COUNTS {
                for overrun in [Overrun::Clamp, Overrun::Wrap] {
                    let (a1, b1, clamp) = (a & 31, b & 31, overrun == Overrun::Clamp);
                    let mask0 = if clamp && a >= 32 { 0 } else { u32::MAX << a1 };
                    let mask1 = if a1 + b1 >= 32 || clamp && (a >= 32 || b >= 32) {
                        0
                    } else if b1 == 0 {
                        u32::MAX
                    } else {
                        u32::MAX << (a1 + b1)
                    };
                    assert_eq!(bmsk(overrun, a, b), mask0 & !mask1, "{overrun:?} {a} {b}");
                    for word in WORDS {
                        let mask = if clamp && b >= 32 { 0 } else { u32::MAX << b1 };
                        let negative = b1 != 0 && mask != 0 && word >> (b1 - 1) & 1 == 1;
                        assert_eq!(szext(overrun, word, b), word & !mask, "{overrun:?} {word:x} {b}");
                        assert_eq!(szext(overrun, word as i32, b) as u32, word & !mask | if negative { mask } else { 0 });
                    }
                }
            }
        }
    }

    #[test]
    fn lop3_is_its_table() {
        for table in 0..=255u8 {
            assert_eq!(lop3(0xf0, 0xcc, 0xaa, table) as u8, table);
            assert_eq!(lop3(0x1234_5678, 0x9abc_def0, 0x0f1e_2d3c, table) >> 31 & 1, u32::from(table >> 2 & 1));
        }
        assert_eq!(lop3(0x1234_5678, 0x9abc_def0, 0x0f1e_2d3c, 0x96), 0x1234_5678 ^ 0x9abc_def0 ^ 0x0f1e_2d3c);
    }

    #[test]
    fn permutations() {
        let (a, b) = (0x1312_1110, 0x9716_1514);
        assert_eq!(prmt(a, b, 0x7531), 0x9715_1311);
        assert_eq!(prmt(a, b, 0xffff_f7f0), 0xff97_ff10);
        assert_eq!(prmt(a, b, 0x0008), 0x1010_1000);
        use PermuteMode::*;
        // The ISA's table; bytes here are 0x10 + index, but for the last.
        let table = [
            (ForwardExtract, [0x3210, 0x4321, 0x5432, 0x6543]),
            (BackwardExtract, [0x5670, 0x6701, 0x7012, 0x0123]),
            (Replicate8, [0x0000, 0x1111, 0x2222, 0x3333]),
            (EdgeClampLeft, [0x3210, 0x3211, 0x3222, 0x3333]),
            (EdgeClampRight, [0x0000, 0x1110, 0x2210, 0x3210]),
            (Replicate16, [0x1010, 0x3232, 0x1010, 0x3232]),
        ];
        for (mode, rows) in table {
            for (i, row) in rows.into_iter().enumerate() {
                assert_eq!(prmt_mode(mode, a, b, i as u32 | 0xffff_fff0), prmt(a, b, row), "{mode:?} {i}");
            }
        }
    }
}
