//! Kernels of clusters of two blocks, two clusters each. Integers: equal bits.

use super::Argument::{Buffer, I32, TensorMap};
use super::data::{Draw, f32_bytes};
use super::expected::{Element, Expected};
use super::matmul::product;
use super::{Arch, Case, Launch, Swizzle, kernel};

const CLUSTER: [u32; 3] = [2, 1, 1];

/// Halves of 151 for three warps. The sum is exact, its quotient and the difference are rounded once each.
pub fn cluster_reduce() -> Case {
    let (rows, columns) = (2, 302);
    let x = Draw(91).integers(rows * columns, 1 << 14);
    let mean: Vec<f32> = x.chunks(columns).map(|row| row.iter().sum::<f32>() / columns as f32).collect();
    let y: Vec<f32> = x.iter().enumerate().map(|(i, x)| x - mean[i / columns]).collect();
    let launch =
        Launch::new("cluster_reduce", [2 * rows as u32, 1, 1], [96, 1, 1], vec![Buffer("y"), Buffer("x"), I32(columns as i32)]);
    Case::new("cluster_reduce", Arch::Compute90a, kernel!("cluster_reduce.cu"))
        .define("THREADS", 96)
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .launch(Launch { cluster: CLUSTER, ..launch })
}

pub fn cluster_send() -> Case {
    let (blocks, tile) = (4, 64);
    let x = Draw(92).integers(blocks * tile, 1 << 20);
    let y: Vec<f32> = (0..blocks * tile).map(|i| x[i] + x[((i / tile) ^ 1) * tile + tile - 1 - i % tile]).collect();
    let launch = Launch::new("cluster_send", [blocks as u32, 1, 1], [64, 1, 1], vec![Buffer("y"), Buffer("x")]);
    Case::new("cluster_send", Arch::Compute90a, kernel!("cluster_send.cu"))
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .launch(Launch { cluster: CLUSTER, ..launch })
}

/// Six steps through two stages; of the last one's 16 rows 12 exist.
pub fn multicast() -> Case {
    let size @ [m, n, k] = [8, 32, 92];
    let mut draw = Draw(93);
    let (x, w) = (draw.integers(m * k, 400), draw.integers(k * n, 400));
    let map = TensorMap(super::TensorMap {
        buffer: "w",
        element: Element::F32,
        dims: vec![n as u64, k as u64],
        strides: vec![n as u64 * 4],
        tile: vec![32, 8],
        swizzle: Swizzle::None,
    });
    let launch = Launch::new("multicast", [m as u32 / 2, 1, 1], [96, 1, 1], vec![Buffer("y"), Buffer("x"), map, I32(k as i32)]);
    Case::new("multicast", Arch::Compute90a, kernel!("multicast.cu"))
        .define("STAGES", 2)
        .input("x", f32_bytes(&x))
        .input("w", f32_bytes(&w))
        .expect(Expected::f32s("y", &product(&x, &w, size, false)))
        .launch(Launch { cluster: CLUSTER, ..launch })
}
