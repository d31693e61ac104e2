//! Matrix products of compute_90a. Operands are integers, small enough that every sum is exact: equal bits in any order.

use super::Argument::{Buffer, I32, TensorMap};
use super::data::{Draw, bf16_bytes};
use super::expected::{Element, Expected};
use super::matmul::product;
use super::{Arch, Case, Launch, Swizzle, kernel};

/// Two tiles of rows, cut both ways; seven steps through three stages, the last with 40 of 64.
pub fn wgmma_matmul() -> Case {
    let size @ [m, n, k] = [100, 120, 424];
    let mut draw = Draw(81);
    let (a, b) = (draw.integers(m * k, 200), draw.integers(n * k, 200));
    let map = |buffer, rows: usize, tile| {
        TensorMap(super::TensorMap {
            buffer,
            element: Element::Bf16,
            dims: vec![k as u64, rows as u64],
            strides: vec![k as u64 * 2],
            tile: vec![64, tile],
            swizzle: Swizzle::Bytes128,
        })
    };
    let arguments = vec![Buffer("c"), map("a", m, 64), map("b", n, 128), I32(m as i32), I32(n as i32), I32(k as i32)];
    Case::new("wgmma_matmul", Arch::Compute90a, kernel!("wgmma_matmul.cu"))
        .define("STAGES", 3)
        .input("a", bf16_bytes(&a))
        .input("b", bf16_bytes(&b))
        .expect(Expected::f32s("c", &product(&a, &b, size, true)))
        .launch(Launch { shared: 3 * (24576 + 16), ..Launch::new("wgmma_matmul", [1, 2, 1], [256, 1, 1], arguments) })
}

/// Three steps, the last with 26 of 32.
pub fn wgmma_registers() -> Case {
    let size @ [m, n, k] = [64, 64, 90];
    let mut draw = Draw(82);
    let (a, b) = (draw.integers(m * k, 127), draw.integers(k * n, 200));
    let doubled: Vec<f32> = a.iter().map(|a| 2.0 * a).collect();
    Case::new("wgmma_registers", Arch::Compute90a, kernel!("wgmma_registers.cu"))
        .input("a", bf16_bytes(&a))
        .input("b", bf16_bytes(&b))
        .expect(Expected::f32s("c", &product(&doubled, &b, size, false)))
        .launch(Launch::new("wgmma_registers", [1, 1, 1], [128, 1, 1], vec![Buffer("c"), Buffer("a"), Buffer("b"), I32(k as i32)]))
}

/// Two blocks of rows, the last cut to 24; three steps. The exact sums are rounded once.
pub fn stmatrix_epilogue() -> Case {
    let size @ [m, n, k] = [56, 32, 48];
    let mut draw = Draw(83);
    let (a, b) = (draw.integers(m * k, 200), draw.integers(n * k, 200));
    Case::new("stmatrix_epilogue", Arch::Compute90a, kernel!("stmatrix_epilogue.cu"))
        .input("a", bf16_bytes(&a))
        .input("b", bf16_bytes(&b))
        .expect(Expected::halves("c", Element::Bf16, bf16_bytes(&product(&a, &b, size, true))))
        .launch(Launch::new(
            "stmatrix_epilogue",
            [2, 1, 1],
            [64, 1, 1],
            vec![Buffer("c"), Buffer("a"), Buffer("b"), I32(m as i32), I32(k as i32)],
        ))
}
