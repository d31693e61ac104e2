//! Kernels whose outputs depend on a few inputs each.

use half::f16;

use super::Argument::{Buffer, F32, I32, U32, U64};
use super::data::{Draw, bf16_bytes, f16_bytes, f32_bytes, i32_bytes};
use super::expected::{Element, Expected, F32_ROUNDOFF};
use super::{Arch, Case, Launch, kernel};

/// 256 float4 for 128 threads, and a tail of 3.
pub fn vector_add() -> Case {
    let n = 1027;
    let mut draw = Draw(1);
    let (a, b) = (draw.integers(n, 1 << 20), draw.integers(n, 1 << 20));
    let y: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    Case::new("vector_add", Arch::Compute80, kernel!("vector_add.cu"))
        .input("a", f32_bytes(&a))
        .input("b", f32_bytes(&b))
        .expect(Expected::f32s("y", &y))
        .launch(Launch::new("vector_add", [2, 1, 1], [64, 1, 1], vec![Buffer("y"), Buffer("a"), Buffer("b"), I32(n as i32)]))
}

/// 288 threads go over 1000 elements in four strides.
pub fn saxpy() -> Case {
    let n = 1000;
    let mut draw = Draw(2);
    let (x, y) = (draw.integers(n, 1 << 20), draw.integers(n, 1 << 20));
    let result: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 3.0 * x + y).collect();
    Case::new("saxpy", Arch::Compute80, kernel!("saxpy.cu"))
        .input("x", f32_bytes(&x))
        .in_out("y", f32_bytes(&y))
        .expect(Expected::f32s("y", &result))
        .launch(Launch::new("saxpy", [3, 1, 1], [96, 1, 1], vec![Buffer("y"), Buffer("x"), F32(3.0), I32(n as i32)]))
}

/// An odd number of halves. a x + b of numbers of 11 bits and like size is exact in f64: rounded to f16 it is the fused result.
pub fn half_axpby() -> Case {
    let n = 203;
    let mut draw = Draw(3);
    let (a, x, b) = (draw.f16s(n, 1.0), draw.f16s(n, 1.0), draw.f16s(n, 1.0));
    let y = (0..n).flat_map(|i| f16::from_f64(f64::from(a[i]) * f64::from(x[i]) + f64::from(b[i])).to_ne_bytes()).collect();
    Case::new("half_axpby", Arch::Compute80, kernel!("half_axpby.cu"))
        .input("a", f16_bytes(&a))
        .input("x", f16_bytes(&x))
        .input("b", f16_bytes(&b))
        .expect(Expected::halves("y", Element::F16, y))
        .launch(Launch::new(
            "half_axpby",
            [4, 1, 1],
            [32, 1, 1],
            vec![Buffer("y"), Buffer("a"), Buffer("x"), Buffer("b"), I32(n as i32)],
        ))
}

/// In f32 the exponential's argument errs by |x| roundoffs, its value by 4, quotient, sum and product by one each.
pub fn swiglu() -> Case {
    let (rows, width) = (3, 50);
    let x = Draw(4).bf16s(rows * 2 * width, 2.0);
    let results: Vec<_> = (0..rows * width)
        .map(|i| {
            let (r, c) = (i / width, i % width);
            let (gate, up) = (f64::from(x[r * 2 * width + c]), f64::from(x[r * 2 * width + width + c]));
            let y = gate / (1.0 + (-gate).exp()) * up;
            (y, y.abs() * (2.0 * gate.abs() + 8.0) * F32_ROUNDOFF)
        })
        .collect();
    Case::new("swiglu", Arch::Compute80, kernel!("swiglu.cu"))
        .input("x", bf16_bytes(&x))
        .expect(Expected::near_bf16("y", &results))
        .launch(Launch::new("swiglu", [2, 1, 1], [32, 1, 1], vec![Buffer("y"), Buffer("x"), I32(rows as i32), I32(width as i32)]))
}

/// A quarter dropped; the last group of four is cut. One product, hence equal bits.
pub fn dropout() -> Case {
    let n = 403;
    let (seed, site, threshold, scale) = (0x0123_4567_89ab_cdef_u64, 7, 1u32 << 30, 1.0 / 0.75_f32);
    let x = Draw(5).floats(n, 1.0);
    let kept: Vec<bool> = (0..n).map(|i| philox([(i / 4) as u32, 0, 0, site], seed)[i % 4] >= threshold).collect();
    let y: Vec<f32> = (0..n).map(|i| if kept[i] { x[i] * scale } else { 0.0 }).collect();
    Case::new("dropout", Arch::Compute80, kernel!("dropout.cu"))
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .expect(Expected::u8s("kept", kept.into_iter().map(u8::from).collect()))
        .launch(Launch::new(
            "dropout",
            [2, 1, 1],
            [64, 1, 1],
            vec![Buffer("y"), Buffer("kept"), Buffer("x"), I32(n as i32), U64(seed), U32(site), U32(threshold), F32(scale)],
        ))
}

/// Philox 4x32-10 (Salmon et al. 2011), written from the paper's round function.
fn philox(counter: [u32; 4], key: u64) -> [u32; 4] {
    let mut c = counter.map(u64::from);
    for round in 0..10 {
        let k0 = (key as u32).wrapping_add(0x9e37_79b9_u32.wrapping_mul(round));
        let k1 = ((key >> 32) as u32).wrapping_add(0xbb67_ae85_u32.wrapping_mul(round));
        let (p0, p1) = (0xd251_1f53 * c[0], 0xcd9e_8d57 * c[2]);
        c = [(p1 >> 32) ^ c[1] ^ u64::from(k0), p1 & 0xffff_ffff, (p0 >> 32) ^ c[3] ^ u64::from(k1), p0 & 0xffff_ffff];
    }
    c.map(|word| word as u32)
}

/// Two tiles each way, the outer ones cut.
pub fn transpose() -> Case {
    let (rows, columns) = (50, 45);
    let x = Draw(6).integers(rows * columns, 1 << 24);
    let y: Vec<f32> = (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect();
    Case::new("transpose", Arch::Compute80, kernel!("transpose.cu"))
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .launch(Launch::new(
            "transpose",
            [2, 2, 1],
            [32, 8, 1],
            vec![Buffer("y"), Buffer("x"), I32(rows as i32), I32(columns as i32)],
        ))
}

/// Three blocks, the last cut.
pub fn stencil() -> Case {
    let n = 300;
    let weights = [1.0, -2.0, 3.0, 5.0, -7.0, 11.0, 13.0];
    let x = Draw(7).integers(n, 1 << 16);
    let at = |i: usize| i.checked_sub(3).and_then(|i| x.get(i)).copied().unwrap_or(0.0);
    let y: Vec<f32> = (0..n).map(|i| weights.iter().enumerate().map(|(k, w)| w * at(i + k)).sum()).collect();
    Case::new("stencil", Arch::Compute80, kernel!("stencil.cu"))
        .define("THREADS", 128)
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .launch(Launch::new("stencil", [3, 1, 1], [128, 1, 1], vec![Buffer("y"), Buffer("x"), I32(n as i32)]))
}

/// Positions near and far: the last two take the slow reduction of the angle, which the last one needs. The angle is one rounded product; sine and cosine err by
/// two units in the last place (four roundoffs at most), products and sum by one each.
pub fn rope() -> Case {
    let position = [0, 1, 17, 511, 131_071, 2_000_000_000];
    let width = 22;
    let mut draw = Draw(8);
    let x = draw.floats(position.len() * width, 1.0);
    let frequency: Vec<f32> = (0..width / 2).map(|i| 10f32.powf(-(i as f32) / 4.0)).collect();
    let mut results = vec![];
    for (i, v) in x.chunks(2).enumerate() {
        let angle = f64::from(position[i / (width / 2)] as f32 * frequency[i % (width / 2)]);
        let (sine, cosine) = angle.sin_cos();
        let (a, b) = (f64::from(v[0]), f64::from(v[1]));
        let bound = 8.0 * F32_ROUNDOFF * (a.abs() + b.abs());
        results.extend([(a * cosine - b * sine, bound), (a * sine + b * cosine, bound)]);
    }
    Case::new("rope", Arch::Compute80, kernel!("rope.cu"))
        .input("x", f32_bytes(&x))
        .input("position", i32_bytes(&position))
        .input("frequency", f32_bytes(&frequency))
        .expect(Expected::near_f32("y", &results))
        .launch(Launch::new(
            "rope",
            [2, 1, 1],
            [64, 1, 1],
            vec![Buffer("y"), Buffer("x"), Buffer("position"), Buffer("frequency"), I32(position.len() as i32), I32(width as i32)],
        ))
}
