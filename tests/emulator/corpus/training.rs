//! Kernels of a training step: loss, optimizer, embedding.

use super::Argument::{Buffer, F32, I32};
use super::data::{Draw, f32_bytes, i32_bytes};
use super::expected::{Expected, F32_ROUNDOFF};
use super::{Arch, Case, Launch, kernel};

/// Four rows for three warps, one of them ignored. A pair (maximum, sum) goes through 11 combinations, each with an exponential of an
/// argument of at most 4: 16 roundoffs each, with the last steps 200 for the sum.
pub fn cross_entropy() -> Case {
    let (width, scale) = (301, 0.25_f32);
    let target = [17, -100, 300, 0];
    let x = Draw(51).floats(target.len() * width, 2.0);
    let (mut loss, mut dx) = (vec![], vec![]);
    for (row, &target) in x.chunks(width).zip(&target) {
        let Ok(target) = usize::try_from(target) else {
            loss.push((0.0, 0.0));
            dx.extend(vec![(0.0, 0.0); width]);
            continue;
        };
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        loss.push((sum.ln() - f64::from(row[target]), 200.0 * F32_ROUNDOFF));
        for (c, &x) in row.iter().enumerate() {
            let p = f64::from(x).exp() / sum;
            let onehot = f64::from(u8::from(c == target));
            dx.push(((p - onehot) * f64::from(scale), (200.0 * p + 2.0 * onehot) * F32_ROUNDOFF * f64::from(scale)));
        }
    }
    Case::new("cross_entropy", Arch::Compute80, kernel!("cross_entropy.cu"))
        .define("THREADS", 96)
        .input("x", f32_bytes(&x))
        .input("target", i32_bytes(&target))
        .expect(Expected::near_f32("loss", &loss))
        .expect(Expected::near_f32("dx", &dx))
        .launch(Launch::new(
            "cross_entropy",
            [target.len() as u32, 1, 1],
            [96, 1, 1],
            vec![Buffer("loss"), Buffer("dx"), Buffer("x"), Buffer("target"), I32(width as i32), F32(scale)],
        ))
}

/// 192 threads over 500 parameters, third step. Bounds count the roundings on the way to each result: 4 of a moment's terms, 12 of
/// the update, one of the sum.
pub fn adamw() -> Case {
    let n = 500;
    let [rate, b1, b2, eps, decay] = [1e-2_f32, 0.9, 0.95, 1e-8, 0.1];
    let (c1, c2) = (1.0 - b1.powi(3), 1.0 - b2.powi(3));
    let mut draw = Draw(52);
    let (p, m, g) = (draw.floats(n, 1.0), draw.floats(n, 1.0), draw.floats(n, 1.0));
    let v: Vec<f32> = draw.floats(n, 1.0).into_iter().map(f32::abs).collect();

    let wide = f64::from;
    let (mut new_p, mut new_m, mut new_v) = (vec![], vec![], vec![]);
    for i in 0..n {
        let (old, gradient) = (wide(b1) * wide(m[i]), (1.0 - wide(b1)) * wide(g[i]));
        let first = old + gradient;
        let first_bound = 4.0 * F32_ROUNDOFF * (old.abs() + gradient.abs());
        let second = wide(b2) * wide(v[i]) + (1.0 - wide(b2)) * wide(g[i]).powi(2);
        let root = (second / wide(c2)).sqrt() + wide(eps);
        let update = wide(rate) * (first / wide(c1) / root + wide(decay) * wide(p[i]));
        let magnitude = wide(rate) * (first.abs() / wide(c1) / root + wide(decay) * wide(p[i]).abs());
        let update_bound = 12.0 * F32_ROUNDOFF * magnitude + wide(rate) * first_bound / wide(c1) / root;
        new_m.push((first, first_bound));
        new_v.push((second, 4.0 * F32_ROUNDOFF * second));
        new_p.push((wide(p[i]) - update, update_bound + F32_ROUNDOFF * (wide(p[i]) - update).abs()));
    }
    let copy = new_p.clone();
    Case::new("adamw", Arch::Compute80, kernel!("adamw.cu"))
        .in_out("p", f32_bytes(&p))
        .in_out("m", f32_bytes(&m))
        .in_out("v", f32_bytes(&v))
        .input("g", f32_bytes(&g))
        .expect(Expected::near_f32("p", &new_p))
        .expect(Expected::near_f32("m", &new_m))
        .expect(Expected::near_f32("v", &new_v))
        .expect(Expected::near_bf16("copy", &copy))
        .launch(Launch::new(
            "adamw",
            [3, 1, 1],
            [64, 1, 1],
            vec![
                Buffer("p"),
                Buffer("m"),
                Buffer("v"),
                Buffer("copy"),
                Buffer("g"),
                I32(n as i32),
                F32(rate),
                F32(b1),
                F32(b2),
                F32(eps),
                F32(decay),
                F32(c1),
                F32(c2),
            ],
        ))
}

/// 71 tokens of 7 words, one of which never occurs; 9 of a block's 32 threads hold columns. Gradients are integers: equal bits.
pub fn embedding() -> Case {
    let (tokens, words, width) = (71, 7, 36);
    let mut draw = Draw(58);
    let id: Vec<i32> =
        draw.below(tokens, words as u64 - 1).into_iter().map(|w| if w < 4 { w as i32 } else { w as i32 + 1 }).collect();
    let (table, dy) = (draw.integers(words * width, 1 << 20), draw.integers(tokens * width, 1 << 16));
    let y: Vec<f32> = id.iter().flat_map(|&w| table[w as usize * width..][..width].iter().copied()).collect();
    let mut dtable = vec![0.0; words * width];
    for (&w, dy) in id.iter().zip(dy.chunks(width)) {
        for (sum, dy) in dtable[w as usize * width..].iter_mut().zip(dy) {
            *sum += dy;
        }
    }
    let sizes = [I32(tokens as i32), I32(width as i32)];
    Case::new("embedding", Arch::Compute80, kernel!("embedding.cu"))
        .input("table", f32_bytes(&table))
        .input("id", i32_bytes(&id))
        .input("dy", f32_bytes(&dy))
        .expect(Expected::f32s("y", &y))
        .expect(Expected::f32s("dtable", &dtable))
        .launch(Launch::new(
            "embedding_gather",
            [2, 1, 1],
            [64, 1, 1],
            [vec![Buffer("y"), Buffer("table"), Buffer("id")], sizes.clone().into()].concat(),
        ))
        .launch(Launch::new(
            "embedding_scatter",
            [words as u32, 1, 1],
            [32, 1, 1],
            [vec![Buffer("dtable"), Buffer("dy"), Buffer("id")], sizes.into()].concat(),
        ))
}
