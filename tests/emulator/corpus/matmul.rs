//! Matrix products of compute_80. Operands are integers, small enough that every sum is exact: equal bits in any order.

use super::Argument::{Buffer, F32, I32};
use super::data::{Draw, bf16_bytes, f32_bytes};
use super::expected::Expected;
use super::{Arch, Case, Launch, kernel};

/// `a` [m, k] times `b` [k, n]; what is left of `b` is [n, k] if `transposed`.
pub fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], transposed: bool) -> Vec<f32> {
    let at = |j: usize, c: usize| if transposed { b[c * k + j] } else { b[j * n + c] };
    (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * at(j, i % n)).sum()).collect()
}

/// The sizes as arguments.
fn sizes([m, n, k]: [usize; 3]) -> [super::Argument; 3] {
    [m, n, k].map(|size| I32(size as i32))
}

/// Two tiles of rows, both cut in columns; six steps, the last half empty.
pub fn matmul_f32() -> Case {
    let size @ [m, n, k] = [50, 30, 44];
    let mut draw = Draw(31);
    let (a, b) = (draw.integers(m * k, 500), draw.integers(k * n, 500));
    Case::new("matmul_f32", Arch::Compute80, kernel!("matmul_f32.cu"))
        .input("a", f32_bytes(&a))
        .input("b", f32_bytes(&b))
        .expect(Expected::f32s("c", &product(&a, &b, size, false)))
        .launch(Launch::new(
            "matmul_f32",
            [1, 2, 1],
            [16, 16, 1],
            [vec![Buffer("c"), Buffer("a"), Buffer("b")], sizes(size).into()].concat(),
        ))
}

/// Two tiles of rows, cut both ways; six steps of which the last has 8 of 32, through three stages.
pub fn matmul_bf16() -> Case {
    let size @ [m, n, k] = [104, 56, 168];
    let mut draw = Draw(32);
    let (a, b) = (draw.integers(m * k, 255), draw.integers(k * n, 255));
    let launch = Launch::new(
        "matmul_bf16",
        [1, 2, 1],
        [128, 1, 1],
        [vec![Buffer("c"), Buffer("a"), Buffer("b")], sizes(size).into()].concat(),
    );
    Case::new("matmul_bf16", Arch::Compute80, kernel!("matmul_bf16.cu"))
        .define("STAGES", 3)
        .input("a", bf16_bytes(&a))
        .input("b", bf16_bytes(&b))
        .expect(Expected::f32s("c", &product(&a, &b, size, false)))
        .launch(Launch { shared: 3 * 8192, ..launch })
}

/// Two tiles of columns, cut both ways; four steps, the last half empty.
pub fn matmul_s8() -> Case {
    let size @ [m, n, k] = [30, 40, 112];
    let mut draw = Draw(33);
    let (a, b) = (draw.integers(m * k, 127), draw.integers(n * k, 127));
    let bytes = |x: &[f32]| x.iter().map(|&x| x as i8 as u8).collect();
    let c: Vec<i32> = product(&a, &b, size, true).into_iter().map(|c| c as i32).collect();
    Case::new("matmul_s8", Arch::Compute80, kernel!("matmul_s8.cu"))
        .input("a", bytes(&a))
        .input("b", bytes(&b))
        .expect(Expected::i32s("c", &c))
        .launch(Launch::new(
            "matmul_s8",
            [2, 1, 1],
            [64, 1, 1],
            [vec![Buffer("c"), Buffer("a"), Buffer("b")], sizes(size).into()].concat(),
        ))
}

/// Two tiles and three splits of 17, 17 and 16, each of two steps at most.
pub fn split_k() -> Case {
    let size @ [m, n, k] = [14, 24, 50];
    let (tiles, splits) = (2, 3);
    let mut draw = Draw(34);
    let (a, b) = (draw.integers(m * k, 500), draw.integers(k * n, 500));
    let c: Vec<f32> = product(&a, &b, size, false).into_iter().map(|c| 0.5 * c).collect();
    Case::new("split_k", Arch::Compute80, kernel!("split_k.cu"))
        .input("a", f32_bytes(&a))
        .input("b", f32_bytes(&b))
        .scratch("workspace", m * n * 4)
        .in_out("semaphore", vec![0; tiles as usize * 4])
        .expect(Expected::f32s("c", &c))
        .expect(Expected::u32s("semaphore", &[0; 2]))
        .launch(Launch::new(
            "split_k",
            [tiles, 1, splits],
            [16, 16, 1],
            [
                vec![Buffer("c"), Buffer("workspace"), Buffer("semaphore"), Buffer("a"), Buffer("b")],
                sizes(size).into(),
                vec![F32(0.5)],
            ]
            .concat(),
        ))
}
