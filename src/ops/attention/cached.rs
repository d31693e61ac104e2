//! Attention of new tokens to a cache of keys and values: generation, off the tape.

use rayon::prelude::*;

use super::forward::forward;
use super::tiles::{Heads, Problem, exponentials, largest, row_pitch};
use crate::cpu::gemm::{MatMut, MatRef, matmul};
use crate::cpu::vectorized;
use crate::tensor::Float;
use crate::{Error, Result};

/// The last `q.rows` tokens of one sequence attend to all of its tokens, each to those at or before itself.
///
/// `q` `[new, heads·D]`, `keys` `[past + new, kv_heads·D]`, `values` `[past + new, kv_heads·Dv]`, row-major with any pitch: the
/// cache is used where it lies, and the new tokens' keys and values are in it. `o` `[new, heads·Dv]` is overwritten. A prompt may
/// come whole or in pieces; one new token is computed without tiles.
///
/// An error where sizes do not fit.
pub fn attend_cached<F: Float>(
    q: MatRef<F>,
    keys: MatRef<F>,
    values: MatRef<F>,
    [heads, kv_heads]: [usize; 2],
    scale: f64,
    o: &mut [F],
) -> Result<()> {
    if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) || !q.cols.is_multiple_of(heads) || q.cols == 0 {
        return Err(Error::config(format!("attention: {heads} heads over {kv_heads} key heads, queries of {} columns", q.cols)));
    }
    let fits = q.rows > 0
        && keys.cols == q.cols / heads * kv_heads
        && values.cols > 0
        && values.cols.is_multiple_of(kv_heads)
        && keys.rows == values.rows
        && keys.rows >= q.rows
        && o.len() == q.rows * (values.cols / kv_heads * heads);
    let row_major =
        [q, keys, values].iter().all(|x| x.col_stride == 1 && x.data.len() >= (x.rows.max(1) - 1) * x.row_stride + x.cols);
    if !fits || !row_major {
        return Err(Error::config(format!(
            "attention: q [{}, {}], keys [{}, {}], values [{}, {}], {} outputs do not fit {heads} heads over {kv_heads}",
            q.rows,
            q.cols,
            keys.rows,
            keys.cols,
            values.rows,
            values.cols,
            o.len()
        )));
    }
    let of_heads = |x: MatRef<'_, F>, heads: usize| (x.row_stride, x.cols / heads);
    let [(q_pitch, d), (k_pitch, _), (v_pitch, dv)] = [of_heads(q, heads), of_heads(keys, kv_heads), of_heads(values, kv_heads)];
    let problem = Problem {
        batch: 1,
        queries: q.rows,
        keys: keys.rows,
        kv_heads,
        group: heads / kv_heads,
        scale: F::of(scale),
        q: Heads { data: q.data, pitch: q_pitch, width: d },
        k: Heads { data: keys.data, pitch: k_pitch, width: d },
        v: Heads { data: values.data, pitch: v_pitch, width: dv },
        document_starts: None,
        attention_mask: None,
        dropout: None,
    };
    if q.rows == 1 {
        decode(&problem, o);
    } else {
        forward(&problem, o, &mut vec![F::of(0.0); q.rows * heads]);
    }
    Ok(())
}

/// Keys of one task of a decoding step.
const RUN: usize = 1024;
/// A step that reads fewer elements of the cache is over before threads, which [`awake`](crate::cpu::awake()) keeps ready, take a share.
const WORTH_THREADS: usize = 16 * 1024;

/// What one task knows of the softmax of its keys: for each query head the maximum, the sum under it, and the weighted values.
struct Part<F> {
    max: Vec<F>,
    sum: Vec<F>,
    values: Vec<F>,
}

/// One new token: bound by reading the cache once.
fn decode<F: Float>(problem: &Problem<F>, o: &mut [F]) {
    let (group, dv, runs) = (problem.group, problem.v.width, problem.keys.div_ceil(RUN));
    let part = |task: usize| {
        let (head, run) = (task / runs, task % runs);
        let q = problem.q.of_row(0, head * group, group);
        let zeros = |len: usize| vec![F::of(0.0); len];
        let mut part = Part { max: zeros(group), sum: zeros(group), values: zeros(group * dv) };
        let keys = run * RUN..(run * RUN + RUN).min(problem.keys);
        let (len, pitch) = (keys.len(), row_pitch(keys.len()));
        let mut scores = vec![F::neg_infinity(); group * pitch];
        let q = MatRef::new(q, group, problem.q.width);
        let tile = MatMut::with_pitch(&mut scores, group, len, pitch);
        matmul(tile, problem.scale, q, problem.k.matrix(keys.clone(), head).t(), false, false);
        weigh(&mut scores, &mut part.max, &mut part.sum);
        let tile = MatRef::with_pitch(&scores, group, len, pitch);
        matmul(MatMut::new(&mut part.values, group, dv), F::of(1.0), tile, problem.v.matrix(keys, head), false, false);
        part
    };
    let tasks = problem.kv_heads * runs;
    let parts: Vec<Part<F>> = if problem.keys * problem.kv_heads * (problem.k.width + dv) < WORTH_THREADS {
        (0..tasks).map(part).collect()
    } else {
        (0..tasks).into_par_iter().map(part).collect()
    };
    for (row, o) in o.chunks_exact_mut(dv).enumerate() {
        let (parts, g) = (&parts[row / group * runs..][..runs], row % group);
        let max = parts.iter().map(|part| part.max[g]).fold(F::neg_infinity(), F::max);
        let weight = |part: &Part<F>| (part.max[g] - max).exp();
        let sum: F = parts.iter().map(|part| weight(part) * part.sum[g]).sum();
        o.fill(F::of(0.0));
        for part in parts {
            let weight = weight(part) / sum;
            o.iter_mut().zip(&part.values[g * dv..]).for_each(|(o, &v)| *o += weight * v);
        }
    }
}

vectorized! {
    /// Turns each query's row of scores, of [`row_pitch`], into `e^(s − max)`.
    pub(super) fn weigh<F: Float>(scores: &mut [F], max: &mut [F], sum: &mut [F]) {
        let pitch = scores.len() / max.len();
        for ((row, max), sum) in scores.chunks_exact_mut(pitch).zip(max).zip(sum) {
            *max = largest(row);
            *sum = exponentials(row, *max);
        }
    }
}
