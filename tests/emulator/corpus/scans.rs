//! Prefix sums and what is built on them.

use super::Argument::{Buffer, I32};
use super::data::{Draw, i32_bytes, u32_bytes};
use super::expected::Expected;
use super::{Arch, Case, Launch, kernel};

/// Sums of all before and including each, modulo 2^32.
fn prefix_sums(x: &[u32]) -> Vec<u32> {
    x.iter()
        .scan(0u32, |sum, &x| {
            *sum = sum.wrapping_add(x);
            Some(*sum)
        })
        .collect()
}

/// Six tiles of one block, the last cut.
pub fn scan() -> Case {
    let n = 700;
    let x = Draw(21).u32s(n);
    Case::new("scan", Arch::Compute80, kernel!("scan.cu"))
        .define("THREADS", 128)
        .input("x", u32_bytes(&x))
        .expect(Expected::u32s("y", &prefix_sums(&x)))
        .launch(Launch::new("scan", [1, 1, 1], [128, 1, 1], vec![Buffer("y"), Buffer("x"), I32(n as i32)]))
}

/// Five tiles by as many blocks.
pub fn lookback() -> Case {
    let (n, tiles) = (300, 5);
    let x = Draw(22).u32s(n);
    Case::new("lookback", Arch::Compute80, kernel!("lookback.cu"))
        .define("THREADS", 64)
        .input("x", u32_bytes(&x))
        .in_out("state", vec![0; tiles as usize * 8])
        .in_out("tickets", u32_bytes(&[0]))
        .expect(Expected::u32s("y", &prefix_sums(&x)))
        .expect(Expected::u32s("tickets", &[tiles]))
        .launch(Launch::new(
            "lookback",
            [tiles, 1, 1],
            [64, 1, 1],
            vec![Buffer("y"), Buffer("state"), Buffer("tickets"), Buffer("x"), I32(n as i32)],
        ))
}

/// Four warps, the last with 67 of its 128 pairs; the second of a key's digits decides.
pub fn radix_sort() -> Case {
    let n = 451;
    let mut draw = Draw(23);
    let (keys, values) = (draw.u32s(n), draw.u32s(n));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| keys[i] >> 4 & 15); // stable
    Case::new("radix_sort", Arch::Compute80, kernel!("radix_sort.cu"))
        .define("THREADS", 128)
        .input("keys", u32_bytes(&keys))
        .input("values", u32_bytes(&values))
        .expect(Expected::u32s("sorted_keys", &order.iter().map(|&i| keys[i]).collect::<Vec<_>>()))
        .expect(Expected::u32s("sorted_values", &order.iter().map(|&i| values[i]).collect::<Vec<_>>()))
        .launch(Launch::new(
            "radix_sort",
            [1, 1, 1],
            [128, 1, 1],
            vec![Buffer("sorted_keys"), Buffer("sorted_values"), Buffer("keys"), Buffer("values"), I32(n as i32), I32(4)],
        ))
}

/// Six tiles of one block, the last cut; what lies behind the kept elements stays as it was. The first and last
/// elements of each tile and the last of all are kept, the one at the end of a tile's first warp is not.
pub fn compact() -> Case {
    let n = 331;
    let mut x: Vec<i32> = Draw(24).integers(n, 1 << 20).into_iter().map(|x| x as i32).collect();
    for (i, x) in x.iter_mut().enumerate() {
        match i % 64 {
            0 | 63 => *x = x.abs() + 1,
            _ if i + 1 == n => *x = x.abs() + 1,
            31 => *x = -x.abs(),
            _ => {}
        }
    }
    let start: Vec<i32> = (0..n as i32).map(|i| -i).collect();
    let kept: Vec<i32> = x.iter().copied().filter(|&x| x > 0).collect();
    let y = [&kept[..], &start[kept.len()..]].concat();
    Case::new("compact", Arch::Compute80, kernel!("compact.cu"))
        .define("THREADS", 64)
        .input("x", i32_bytes(&x))
        .in_out("y", i32_bytes(&start))
        .expect(Expected::i32s("y", &y))
        .expect(Expected::i32s("kept", &[kept.len() as i32]))
        .launch(Launch::new("compact", [1, 1, 1], [64, 1, 1], vec![Buffer("y"), Buffer("kept"), Buffer("x"), I32(n as i32)]))
}
