//! Kernels whose point is how threads, warps, blocks and grids wait for each other.

use super::Argument::{Buffer, I32};
use super::data::{Draw, f32_bytes, i32_bytes, u32_bytes};
use super::expected::Expected;
use super::{Arch, Case, Launch, kernel};

/// Five tiles through two buffers.
pub fn named_barriers() -> Case {
    let (blocks, tiles, tile) = (2, 5, 64);
    let x = Draw(61).integers(blocks * tiles * tile, 1 << 16);
    let at = |b: usize, t: usize, j: usize| x[(b * tiles + t) * tile + j];
    let y: Vec<f32> =
        (0..blocks * tile).map(|i| (0..tiles).map(|t| (t + 1) as f32 * at(i / tile, t, tile - 1 - i % tile)).sum()).collect();
    Case::new("named_barriers", Arch::Compute80, kernel!("named_barriers.cu"))
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .launch(Launch::new("named_barriers", [blocks as u32, 1, 1], [96, 1, 1], vec![Buffer("y"), Buffer("x"), I32(tiles as i32)]))
}

/// Four warps, the last with 4 lanes of its own; absent lanes count as x = 1.
pub fn divergent() -> Case {
    let n = 100;
    let x: Vec<i32> = Draw(62).below(n, 60).into_iter().map(|x| 1 + x as i32).collect();
    let collatz = |x: i32| {
        std::iter::successors(Some(x), |&x| (x != 1).then_some(if x % 2 == 0 { x / 2 } else { 3 * x + 1 })).count() as i32 - 1
    };
    let length: Vec<i32> = (0..128).map(|i| x.get(i).map_or(0, |&x| collatz(x))).collect();
    let pair = |i: usize| match (i % 2, length[i] - length[i ^ 1]) {
        (0, _) => length[i] + length[i + 1],
        (_, difference) if difference < 0 => -3 * difference,
        (_, difference) => difference,
    };
    let y: Vec<i32> = (0..n).map(|i| pair(i ^ 1) * 100 + length[i / 32 * 32 + (i + 5) % 32]).collect();
    let launch = Launch::new("divergent", [2, 1, 1], [64, 1, 1], vec![Buffer("y"), Buffer("steps"), Buffer("x"), I32(n as i32)]);
    Case::new("divergent", Arch::Compute80, kernel!("divergent.cu"))
        .input("x", i32_bytes(&x))
        .expect(Expected::i32s("y", &y))
        .expect(Expected::i32s("steps", &length[..n]))
        .launch(Launch { shared: 64 * 8, ..launch })
}

/// Seven tiles drawn by three blocks, each of which draws one ticket too many.
pub fn persistent() -> Case {
    let (n, blocks, tiles) = (400, 3, 7);
    let x = Draw(63).integers(n, 1 << 11);
    let y: Vec<f32> = (0..n).map(|i| x[n - 1 - i] * x[n - 1 - i] + x[i]).collect();
    let launch = Launch::new(
        "persistent",
        [blocks, 1, 1],
        [64, 1, 1],
        vec![Buffer("y"), Buffer("squares"), Buffer("tickets"), Buffer("arrived"), Buffer("x"), I32(n as i32)],
    );
    Case::new("persistent", Arch::Compute80, kernel!("persistent.cu"))
        .define("THREADS", 64)
        .input("x", f32_bytes(&x))
        .in_out("tickets", u32_bytes(&[0]))
        .in_out("arrived", u32_bytes(&[0]))
        .expect(Expected::f32s("y", &y))
        .expect(Expected::f32s("squares", &x.iter().map(|x| x * x).collect::<Vec<_>>()))
        .expect(Expected::u32s("tickets", &[tiles + blocks]))
        .expect(Expected::u32s("arrived", &[blocks]))
        .launch(Launch { cooperative: true, ..launch })
}

/// Three blocks of each kernel, the last cut.
pub fn dependent_launch() -> Case {
    let n = 150;
    let mut draw = Draw(64);
    let (x, c) = (draw.integers(n, 1 << 11), draw.integers(n, 1 << 20));
    let y: Vec<f32> = x.iter().map(|x| x * x).collect();
    let z: Vec<f32> = (0..n).map(|i| y[n - 1 - i] + 3.0 * c[i]).collect();
    let second = Launch::new("add_second", [3, 1, 1], [64, 1, 1], vec![Buffer("z"), Buffer("y"), Buffer("c"), I32(n as i32)]);
    Case::new("dependent_launch", Arch::Compute90a, kernel!("dependent_launch.cu"))
        .input("x", f32_bytes(&x))
        .input("c", f32_bytes(&c))
        .expect(Expected::f32s("y", &y))
        .expect(Expected::f32s("z", &z))
        .launch(Launch::new("square_first", [3, 1, 1], [64, 1, 1], vec![Buffer("y"), Buffer("x"), I32(n as i32)]))
        .launch(Launch { dependent: true, ..second })
}
