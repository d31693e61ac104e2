//! Kernels that reduce: rows, groups of lanes, whole arrays.

use super::Argument::{Buffer, F32, I32};
use super::data::{Draw, bf16_bytes, f32_bytes, i32_bytes, u32_bytes};
use super::expected::{Expected, F32_ROUNDOFF};
use super::{Arch, Case, Launch, kernel};

/// Five warps per row of 777. A thread adds 5 terms, the shuffles ten more: with the division no sum passes more than 16 roundings,
/// and a square two before that.
pub fn block_reduce() -> Case {
    let (rows, width) = (3, 777);
    let x = Draw(11).floats(rows * width, 1.0);
    let (mut mean, mut variance) = (vec![], vec![]);
    for row in x.chunks(width) {
        let sum = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(x.into())).sum::<f64>() / width as f64;
        let mu = sum(&|x| x);
        mean.push((mu, 16.0 * F32_ROUNDOFF * sum(&|x| x.abs())));
        let squares = sum(&|x| (x - mu).powi(2));
        variance.push((squares, 20.0 * F32_ROUNDOFF * squares));
    }
    Case::new("block_reduce", Arch::Compute80, kernel!("block_reduce.cu"))
        .input("x", f32_bytes(&x))
        .expect(Expected::near_f32("mean", &mean))
        .expect(Expected::near_f32("variance", &variance))
        .launch(Launch::new(
            "block_reduce",
            [rows as u32, 1, 1],
            [160, 1, 1],
            vec![Buffer("mean"), Buffer("variance"), Buffer("x"), I32(width as i32)],
        ))
}

/// Three blocks of two warps; the last warp is absent, the one before it has 22 lanes, and its last tile 6.
pub fn warp_groups() -> Case {
    let (n, keys) = (150, 5);
    let mut draw = Draw(12);
    let key: Vec<i32> = draw.below(n, keys as u64).into_iter().map(|k| k as i32).collect();
    let value: Vec<i32> = draw.integers(n, 1 << 20).into_iter().map(|v| v as i32).collect();
    let start: Vec<i32> = (0..keys).map(|k| 1000 * k).collect();

    let rank: Vec<i32> = (0..n).map(|i| (i / 32 * 32..i).filter(|&j| key[j] == key[i]).count() as i32).collect();
    let mut total = start.clone();
    for i in 0..n {
        total[key[i] as usize] += value[i];
    }
    let reduce =
        |(t, tile): (usize, &[i32])| if t % 2 == 1 { tile.iter().sum() } else { tile.iter().copied().fold(i32::MIN, i32::max) };
    let tile: Vec<i32> = value.chunks(8).enumerate().map(reduce).collect();
    Case::new("warp_groups", Arch::Compute80, kernel!("warp_groups.cu"))
        .input("key", i32_bytes(&key))
        .input("value", i32_bytes(&value))
        .in_out("total", i32_bytes(&start))
        .expect(Expected::i32s("rank", &rank))
        .expect(Expected::i32s("total", &total))
        .expect(Expected::i32s("tile", &tile))
        .launch(Launch::new(
            "warp_groups",
            [3, 1, 1],
            [64, 1, 1],
            vec![Buffer("rank"), Buffer("total"), Buffer("tile"), Buffer("key"), Buffer("value"), I32(n as i32)],
        ))
}

/// One element of the first four rows is so large that the exponentials overflow without it as maximum; it lies in the last lane of
/// the last warp or of the first one, at the end of the row, or with the third warp. An exponential errs by 4 roundoffs and those of its argument (at most 4
/// in magnitude), in the numerator and in the sum; the sum passes 12 additions, then come a division and a product: less than 32
/// roundoffs, or nearly nothing where the exponential does.
pub fn softmax() -> Case {
    let (rows, width) = (8, 300);
    let mut x = Draw(13).floats(rows * width, 2.0);
    (x[255], x[width + 287], x[2 * width + 299], x[3 * width + 200]) = (95.0, 95.0, 95.0, 95.0);
    let mut results = vec![];
    for row in x.chunks(width) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let terms: Vec<f64> = row.iter().map(|&x| f64::from(x - largest).exp()).collect();
        let sum: f64 = terms.iter().sum();
        results.extend(terms.iter().map(|t| (t / sum, 32.0 * F32_ROUNDOFF * t / sum + f64::from(f32::MIN_POSITIVE))));
    }
    Case::new("softmax", Arch::Compute80, kernel!("softmax.cu"))
        .define("THREADS", 128)
        .input("x", f32_bytes(&x))
        .expect(Expected::near_f32("y", &results))
        .launch(Launch::new("softmax", [rows as u32, 1, 1], [128, 1, 1], vec![Buffer("y"), Buffer("x"), I32(width as i32)]))
}

/// 7 rows for 8 warps, 33 vectors for 32 lanes. A lane adds 16 squares, the shuffles five more; half of that reaches the root, which
/// errs by 3 (the ISA bounds rsqrt.approx by 2^-22.9). The f32 `rstd` shows what bf16 would hide.
pub fn rmsnorm() -> Case {
    let (rows, width, eps) = (7, 264, 1e-5_f32);
    let mut draw = Draw(14);
    let (x, w) = (draw.bf16s(rows * width, 1.0), draw.bf16s(width, 1.0));
    let (mut y, mut rstd) = (vec![], vec![]);
    for row in x.chunks(width) {
        let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
        let r = 1.0 / (mean + f64::from(eps)).sqrt();
        rstd.push((r, 16.0 * F32_ROUNDOFF * r));
        y.extend(row.iter().zip(&w).map(|(&x, &w)| f64::from(x) * r * f64::from(w)).map(|y| (y, 18.0 * F32_ROUNDOFF * y.abs())));
    }
    Case::new("rmsnorm", Arch::Compute80, kernel!("rmsnorm.cu"))
        .input("x", bf16_bytes(&x))
        .input("w", bf16_bytes(&w))
        .expect(Expected::near_bf16("y", &y))
        .expect(Expected::near_f32("rstd", &rstd))
        .launch(Launch::new(
            "rmsnorm",
            [2, 1, 1],
            [128, 1, 1],
            vec![Buffer("y"), Buffer("rstd"), Buffer("x"), Buffer("w"), I32(rows as i32), I32(width as i32), F32(eps)],
        ))
}

/// 480 threads of 5 blocks for 1000 integers.
pub fn last_block() -> Case {
    let (n, blocks) = (1000, 5);
    let x = Draw(15).integers(n, 1 << 12);
    Case::new("last_block", Arch::Compute80, kernel!("last_block.cu"))
        .define("THREADS", 96)
        .input("x", f32_bytes(&x))
        .scratch("partial", blocks as usize * 4)
        .in_out("count", u32_bytes(&[0]))
        .expect(Expected::f32s("out", &[x.iter().sum()]))
        .expect(Expected::u32s("count", &[0]))
        .launch(Launch::new(
            "last_block",
            [blocks, 1, 1],
            [96, 1, 1],
            vec![Buffer("out"), Buffer("partial"), Buffer("count"), Buffer("x"), I32(n as i32)],
        ))
}

/// 375 words for 192 threads and a tail of 2, added to counts that are not zero.
pub fn histogram() -> Case {
    let n = 1502;
    let x: Vec<u8> = Draw(16).below(n, 256).into_iter().map(|x| x as u8).collect();
    let start: Vec<u32> = (0..64).map(|b| 10 + b).collect();
    let mut count = start.clone();
    for &byte in &x {
        count[usize::from(byte / 4)] += 1;
    }
    Case::new("histogram", Arch::Compute80, kernel!("histogram.cu"))
        .input("x", x)
        .in_out("count", u32_bytes(&start))
        .expect(Expected::u32s("count", &count))
        .launch(Launch::new("histogram", [3, 1, 1], [64, 1, 1], vec![Buffer("count"), Buffer("x"), I32(n as i32)]))
}

/// Five rows for eight warps. In some the two largest are equal, in others a lane owns two of the largest.
pub fn top_k() -> Case {
    let (rows, width, k) = (5, 64, 4);
    let mut x = Draw(17).floats(rows * width, 1.0);
    let (mut value, mut index) = (vec![], vec![]);
    for (r, row) in x.chunks_mut(width).enumerate() {
        match r {
            1 => (row[11], row[43], row[22], row[54]) = (2.0, 1.9, 1.8, 1.7),
            3 => (row[11], row[22], row[54]) = (2.0, 1.9, 1.8),
            _ => (row[7 * r + 3], row[60 - 3 * r]) = (2.0, 2.0),
        }
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a])); // stable: of equal ones the first
        value.extend(order[..k].iter().map(|&c| row[c]));
        index.extend(order[..k].iter().map(|&c| c as i32));
    }
    Case::new("top_k", Arch::Compute80, kernel!("top_k.cu"))
        .define("K", k as u32)
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("value", &value))
        .expect(Expected::i32s("index", &index))
        .launch(Launch::new("top_k", [2, 1, 1], [128, 1, 1], vec![Buffer("value"), Buffer("index"), Buffer("x"), I32(rows as i32)]))
}
