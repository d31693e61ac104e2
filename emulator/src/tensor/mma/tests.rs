//! The product against plain loops: to the bit in the documented order, and within the error bound of f32 sums against f64.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use Accumulator::{F16 as D16, F32 as D32, S32};
use Multiplicand::*;

/// The value of an element, independent of `element`.
fn value(kind: Multiplicand, bits: u32) -> f64 {
    let fp8 = |mantissa_bits: u32, bias: i32| {
        let (exponent, fraction) = ((bits & 0x7f) >> mantissa_bits, f64::from(bits & ((1 << mantissa_bits) - 1)));
        let scaled = fraction / f64::from(1 << mantissa_bits) + f64::from(u8::from(exponent > 0));
        (if bits & 0x80 == 0 { 1.0 } else { -1.0 }) * scaled * 2f64.powi(exponent.max(1) as i32 - bias)
    };
    match kind {
        F16 => f16::from_bits(bits as u16).to_f64(),
        Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Tf32 => f64::from(f32::from_bits(bits >> 13 << 13)),
        E4m3 => fp8(3, 7),
        E5m2 => fp8(2, 15),
        S8 => f64::from(bits as i8),
        U8 => f64::from(bits),
        S4 => f64::from(if bits < 8 { bits as i32 } else { bits as i32 - 16 }),
        U4 => f64::from(bits),
    }
}

/// Random bits that are no NaN or infinity, nor so large that sums overflow.
fn tame(kind: Multiplicand, bits: u32) -> u32 {
    match kind {
        F16 => bits & 0xbfff,
        Bf16 => bits & 0x8fff | 0x3000,
        Tf32 => bits & 0x8fff_ffff | 0x3000_0000,
        E4m3 => bits & 0xf7,
        E5m2 => bits & 0xbf,
        S8 | U8 => bits & 0xff,
        S4 | U4 => bits & 0xf,
    }
}

struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }
}

/// Registers of a fragment with the element at each (row, column) as `element` says.
fn deal(
    fragment: Fragment,
    (rows, columns): (usize, usize),
    bits: usize,
    mut element: impl FnMut(usize, usize) -> u32,
) -> Vec<Register> {
    let mut registers = vec![[0; 32]; fragment.registers()];
    for row in 0..rows {
        for column in 0..columns {
            let place = fragment.place(row, column);
            registers[place.register][place.lane] |= element(row, column) << (place.part * bits);
        }
    }
    registers
}

/// All that [`Mma`] can be, but wgmma's many n.
fn all() -> Vec<Mma> {
    let mut all = Vec::new();
    let types: [(Multiplicand, &[Multiplicand]); 9] = [
        (F16, &[F16]),
        (Bf16, &[Bf16]),
        (Tf32, &[Tf32]),
        (E4m3, &[E4m3, E5m2]),
        (E5m2, &[E4m3, E5m2]),
        (S8, &[S8, U8]),
        (U8, &[S8, U8]),
        (S4, &[S4, U4]),
        (U4, &[S4, U4]),
    ];
    for (a, bs) in types {
        for &b in bs {
            for c in [D32, D16, S32] {
                for d in [D32, D16, S32] {
                    for (m, k) in [(8, 16), (8, 32), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64)] {
                        all.extend(Mma::sync((m, 8, k), a, b, c, d));
                    }
                    for shape in [(16, 16, 16), (32, 8, 16), (8, 32, 16), (16, 16, 8)] {
                        all.extend(Mma::wmma(shape, a, b, c, d));
                    }
                }
                all.extend([8, 24, 32, 256].into_iter().flat_map(|n| Mma::wgmma(n, a, b, c)));
            }
        }
    }
    all
}

#[test]
fn the_shapes_of_the_manual_are_all_there() {
    // mma: f16 2 × 2 accumulators, bf16 2, tf32 2, fp8 4 pairs × 2 × 2, 8 and 4 bits 4 pairs × 3. wmma: f16 3 × 4, bf16 3, tf32 1,
    // s8 and u8 3 each. wgmma, n of 4: f16 2, bf16, tf32, fp8 4 pairs × 2, 8 bits 4 pairs.
    let wgmma = 4 * (2 + 1 + 1 + 8 + 4);
    assert_eq!(all().len(), 4 + 2 + 2 + 16 + 12 + 12 + 12 + 3 + 1 + 6 + wgmma);
}

#[test]
fn products_equal_plain_loops() {
    let mut random = Random(7);
    for mma in all() {
        let (m, n, k) = mma.shape();
        let mut matrix = |kind: Multiplicand, count: usize| -> Vec<u32> { (0..count).map(|_| tame(kind, random.word())).collect() };
        let (a, b) = (matrix(mma.a, m * k), matrix(mma.b, k * n));
        let c: Vec<u32> = match mma.c {
            D32 => matrix(Tf32, m * n),
            D16 => matrix(F16, m * n),
            S32 => matrix(S8, m * n).iter().map(|x| x << 10).collect(),
        };
        let registers_a = deal(mma.a(), (m, k), mma.a.bits(), |i, j| a[i * k + j]);
        let registers_b = deal(mma.b(), (k, n), mma.b.bits(), |i, j| b[i * n + j]);
        let registers_c = deal(mma.c(), (m, n), 32 / mma.c.per_register(), |i, j| c[i * n + j]);
        let mut registers_d = vec![[!0; 32]; mma.d().registers()];
        mma.run(&registers_a, &registers_b, Addend::Registers(&registers_c), &mut registers_d);

        for i in 0..m {
            for j in 0..n {
                let place = mma.d().place(i, j);
                let bits = registers_d[place.register][place.lane];
                let terms = (0..k).map(|k_| value(mma.a, a[i * k + k_]) * value(mma.b, b[k_ * n + j]));
                let addend = c[i * n + j];
                if mma.d == S32 {
                    assert_eq!(f64::from(bits as i32), terms.sum::<f64>() + f64::from(addend), "{mma:?}");
                    continue;
                }
                let addend = if mma.c == D16 { value(F16, addend) } else { f64::from(f32::from_bits(addend)) };
                let magnitude = terms.clone().map(f64::abs).sum::<f64>() + addend.abs();
                let (exact, ordered) = (terms.clone().sum::<f64>() + addend, terms.fold(addend as f32, |s, x| s + x as f32));
                // Each of k additions errs by half a unit in the last place of a partial sum, which is at most `magnitude`.
                assert!((f64::from(ordered) - exact).abs() <= k as f64 * magnitude * 2f64.powi(-24), "{mma:?}");
                if mma.d == D16 {
                    assert_eq!((bits >> (16 * place.part)) as u16, f16::from_f32(ordered).to_bits(), "{mma:?}");
                } else {
                    assert_eq!(bits, ordered.to_bits(), "{mma:?} at {i}, {j}");
                }
            }
        }

        let panels = mma.unpack(&registers_b);
        let mut again = vec![[!0; 32]; mma.d().registers()];
        mma.multiply(&registers_a, &panels, Addend::Registers(&registers_c), &mut again);
        assert_eq!(again, registers_d, "{mma:?}: unpacked once");
        if mma.c == mma.d {
            again.copy_from_slice(&registers_c);
            mma.multiply(&registers_a, &panels, Addend::Destination, &mut again);
            assert_eq!(again, registers_d, "{mma:?}: in place");
        }
        let zeros = vec![[0; 32]; mma.c().registers()];
        let mut plain = registers_d.clone();
        mma.run(&registers_a, &registers_b, Addend::Registers(&zeros), &mut plain);
        mma.run(&registers_a, &registers_b, Addend::Zero, &mut registers_d);
        assert_eq!(plain, registers_d, "{mma:?}: nothing added");
        if let Ok(negated) = mma.scaled(-1, 1) {
            negated.run(&registers_a, &registers_b, Addend::Zero, &mut plain);
            let sign = if mma.d == D16 { 0x8000_8000 } else { 0x8000_0000 };
            let differs = |(x, y): (&u32, &u32)| x ^ y != sign && x & !sign != 0;
            assert!(!plain.as_flattened().iter().zip(registers_d.as_flattened()).any(differs), "{mma:?}: negated");
            assert_eq!(mma.scaled(-1, -1), Ok(mma));
        }
    }
}

#[test]
fn integers_wrap_or_saturate() {
    let wrapping = Mma::sync((16, 8, 32), S8, S8, S32, S32).unwrap();
    let saturating = wrapping.saturating().unwrap();
    let (a, b) = ([[0x7f7f_7f7f; 32]; 4], [[0x7f7f_7f7f; 32]; 2]);
    let product = 32 * 127 * 127;
    let mut d = [[0; 32]; 4];
    wrapping.run(&a, &b, Addend::Registers(&[[i32::MAX as u32; 32]; 4]), &mut d);
    assert_eq!(d, [[(i32::MIN + product - 1) as u32; 32]; 4]);
    saturating.run(&a, &b, Addend::Registers(&[[i32::MAX as u32 - 5; 32]; 4]), &mut d);
    assert_eq!(d, [[i32::MAX as u32; 32]; 4]);
    saturating.run(&a, &[[0x8181_8181; 32]; 2], Addend::Registers(&[[i32::MIN as u32; 32]; 4]), &mut d);
    assert_eq!(d, [[i32::MIN as u32; 32]; 4]);
    assert!(Mma::sync((16, 8, 16), F16, F16, D32, D32).unwrap().saturating().is_err());
}

#[test]
fn nan_and_infinity_reach_their_rows_and_columns_only() {
    let mma = Mma::sync((16, 8, 16), Bf16, Bf16, D32, D32).unwrap();
    let one = 0x3f80;
    let a = deal(mma.a(), (16, 16), 16, |i, j| if (i, j) == (5, 11) { 0x7fc0 } else { one });
    let b = deal(mma.b(), (16, 8), 16, |i, j| if (i, j) == (2, 3) { 0x7f80 } else { one });
    let mut d = [[0; 32]; 4];
    mma.run(&a, &b, Addend::Zero, &mut d);
    for i in 0..16 {
        for j in 0..8 {
            let place = mma.d().place(i, j);
            let bits = d[place.register][place.lane];
            match (i, j) {
                (5, _) => assert_eq!(bits, 0x7fff_ffff),
                (_, 3) => assert_eq!(bits, f32::INFINITY.to_bits()),
                _ => assert_eq!(bits, 16f32.to_bits()),
            }
        }
    }
    let half = Mma::sync((16, 8, 16), F16, F16, D16, D16).unwrap();
    let mut d = [[0; 32]; 2];
    half.run(&[[0xfe00_fe00; 32]; 4], &[[0x3c00_3c00; 32]; 2], Addend::Zero, &mut d);
    assert_eq!(d, [[0x7fff_7fff; 32]; 2]);
}

#[test]
fn shapes_and_types_that_ptx_lacks_are_refused() {
    let refused = |result: Result<Mma, String>, word: &str| {
        let message = result.unwrap_err();
        assert!(message.contains(word), "{message}");
    };
    refused(Mma::sync((8, 8, 4), F16, F16, D32, D32), "Volta");
    refused(Mma::sync((16, 8, 4), F16, F16, D32, D32), "m16n8k8, m16n8k16");
    refused(Mma::sync((16, 16, 16), F16, F16, D32, D32), "no shape");
    refused(Mma::sync((16, 8, 16), F16, Bf16, D32, D32), "does not go with B");
    refused(Mma::sync((16, 8, 32), S8, E4m3, S32, S32), "does not go with B");
    refused(Mma::sync((16, 8, 16), Bf16, Bf16, D16, D16), "does not go with C");
    refused(Mma::sync((16, 8, 16), F16, F16, S32, S32), "does not go with C");
    refused(Mma::sync((16, 8, 16), F16, F16, D16, D32), "one type");
    refused(Mma::wmma((16, 16, 16), E4m3, E4m3, D32, D32), "not supported");
    refused(Mma::wmma((16, 16, 16), Tf32, Tf32, D32, D32), "no shape");
    refused(Mma::wgmma(12, F16, F16, D32), "multiple of 8");
    refused(Mma::wgmma(264, F16, F16, D32), "8 to 256");
    refused(Mma::wgmma(0, F16, F16, D32), "8 to 256");
    refused(Mma::wgmma(40, S8, S8, S32), "multiple of 16");
    refused(Mma::wgmma(64, S4, S4, S32), "no form");
    refused(Mma::wgmma(64, S8, S8, S32).unwrap().scaled(-1, 1), "cannot be negated");
    refused(Mma::wgmma(64, F16, F16, D32).unwrap().scaled(2, 1), "1 or -1");
}

#[test]
fn f64_products_equal_plain_loops() {
    let mut random = Random(3);
    let mut number = || f64::from(random.word() as i32) * 2f64.powi(-20);
    for (m, k) in [(8, 4), (16, 4), (16, 8), (16, 16)] {
        let (fragments, fragment_d) = ([Fragment::a(m, k, 1), Fragment::b(k, 8, 1)], Fragment::accumulator(m, 8, 1));
        let mut registers = |fragment: Fragment| -> Vec<[f64; 32]> {
            (0..fragment.registers()).map(|_| std::array::from_fn(|_| number())).collect()
        };
        let (a, b, c) = (registers(fragments[0]), registers(fragments[1]), registers(fragment_d));
        let mut d = vec![[0.0; 32]; fragment_d.registers()];
        multiply_f64(f64_fragments((m, 8, k)).unwrap(), &a, &b, &c, &mut d);
        let at = |registers: &[[f64; 32]], fragment: Fragment, row: usize, column: usize| {
            let place = fragment.place(row, column);
            registers[place.register][place.lane]
        };
        for i in 0..m {
            for j in 0..8 {
                let mut sum = at(&c, fragment_d, i, j);
                for x in 0..k {
                    sum = at(&a, fragments[0], i, x).mul_add(at(&b, fragments[1], x, j), sum);
                }
                assert_eq!(at(&d, fragment_d, i, j), sum);
            }
        }
    }
    assert!(f64_fragments((16, 8, 32)).unwrap_err().contains("F64"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn undefined_lanes_spread_along_rows_and_columns(seed in any::<u64>()) {
        let mut random = Random(seed);
        // Few undefined lanes, so that not all of D is.
        let mut masks = |fragment: Fragment| -> Vec<u32> {
            (0..fragment.registers()).map(|_| if random.word().is_multiple_of(3) { 1 << (random.word() % 32) } else { 0 }).collect()
        };
        for mma in all().into_iter().filter(|mma| mma.n <= 32) {
            let (m, n, k) = mma.shape();
            let (a, b, c) = (masks(mma.a()), masks(mma.b()), masks(mma.c()));
            let mut d = vec![!0; mma.d().registers()];
            mma.undefined(&a, &b, &c, &mut d);
            let at = |masks: &[u32], fragment: Fragment, row, column| {
                let place = fragment.place(row, column);
                masks[place.register] >> place.lane & 1 == 1
            };
            let mut expected = vec![0; d.len()];
            for i in 0..m {
                for j in 0..n {
                    let touched = (0..k).any(|x| at(&a, mma.a(), i, x) || at(&b, mma.b(), x, j)) || at(&c, mma.c(), i, j);
                    let place = mma.d().place(i, j);
                    expected[place.register] |= u32::from(touched) << place.lane;
                }
            }
            prop_assert_eq!(d, expected, "{:?}", mma);
        }
    }
}
