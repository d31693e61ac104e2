//! Forward: for each block of queries, the tiles of its keys one after the other, under a running maximum.

use rayon::prelude::*;

use super::tiles::{Block, Problem, blocks, exponentials, larger, largest, row_pitch, windows};
use crate::cpu::gemm::{MatMut, MatRef, matmul};
use crate::cpu::vectorized;
use crate::tensor::{Float, Recycled};

/// `o` `[B·T, heads·Dv]` and `lse` `[B, kv_heads, T, group]`, both overwritten. A row without keys gives 0 and +∞, so that
/// `exp(s − lse)` is 0 for it.
pub(super) fn forward<F: Float>(problem: &Problem<F>, o: &mut [F], lse: &mut [F]) {
    let (queries, tokens, heads) = (problem.queries, problem.block_tokens(), problem.kv_heads);
    let o = windows(o, queries, tokens, heads, problem.group * problem.v.width);
    let lse = lse_of_blocks(lse, problem);
    let units: Vec<_> = blocks(problem.batch, queries, tokens, heads).zip(o).zip(lse).collect();
    units.into_par_iter().with_max_len(1).for_each(|((block, o), lse)| forward_block(problem, &block, o, lse));
}

/// The windows of `lse` `[B, kv_heads, T, group]` in the order of [`blocks`].
fn lse_of_blocks<'a, F: Float>(lse: &'a mut [F], problem: &Problem<F>) -> Vec<&'a mut [F]> {
    let (of_head, of_block) = (problem.queries * problem.group, problem.block_tokens() * problem.group);
    let mut dealt = Vec::new();
    for sequence in lse.chunks_exact_mut(problem.kv_heads * of_head) {
        let mut heads: Vec<_> = sequence.chunks_exact_mut(of_head).map(|head| head.chunks_mut(of_block)).collect();
        while let Some(first) = heads[0].next() {
            dealt.push(first);
            dealt.extend(heads[1..].iter_mut().filter_map(Iterator::next));
        }
    }
    dealt
}

fn forward_block<F: Float>(problem: &Problem<F>, block: &Block, o: Vec<&mut [F]>, lse: &mut [F]) {
    let (rows, d, dv) = (lse.len(), problem.q.width, problem.v.width);
    let mut q = Recycled::stale(rows * d);
    let mut scores = Recycled::stale(problem.tile_len());
    let mut keep = Recycled::stale(if problem.dropout.is_some() { problem.tile_len() } else { 0 });
    let mut sum_of_values = Recycled::zeros(rows * dv);
    let (mut max, mut sum, mut rescale) = (vec![F::neg_infinity(); rows], vec![F::of(0.0); rows], vec![F::of(0.0); rows]);
    problem.pack_queries(block, &mut q);
    for keys in problem.tiles_of(block) {
        let key_rows = problem.key_rows(block.sequence, &keys);
        let k = problem.k.matrix(key_rows.clone(), block.kv_head);
        let v = problem.v.matrix(key_rows, block.kv_head);
        let (len, pitch) = (keys.len(), row_pitch(keys.len()));
        let scores = &mut scores[..rows * pitch];
        let tile = MatMut::with_pitch(scores, rows, len, pitch);
        matmul(tile, F::of(1.0), MatRef::new(&q, rows, d), k.t(), false, false);
        problem.mask(block, &keys, scores);
        softmax_tile(scores, pitch, &mut max, &mut sum, &mut rescale);
        if let Some(dropout) = problem.dropout {
            let keep = &mut keep[..scores.len()];
            problem.keep(dropout, block, &keys, keep);
            scores.iter_mut().zip(&*keep).for_each(|(p, &keep)| *p *= keep);
        }
        scale_rows(&mut sum_of_values, dv, &rescale);
        let tile = MatRef::with_pitch(scores, rows, len, pitch);
        matmul(MatMut::new(&mut sum_of_values, rows, dv), F::of(1.0), tile, v, true, false);
    }
    for ((lse, scale), (&max, &sum)) in lse.iter_mut().zip(&mut rescale).zip(max.iter().zip(&sum)) {
        let none = sum == F::of(0.0);
        *lse = if none { F::infinity() } else { max + sum.ln() };
        *scale = if none { F::of(0.0) } else { F::of(1.0) / sum };
    }
    scale_rows(&mut sum_of_values, dv, &rescale);
    for (o, values) in o.into_iter().zip(sum_of_values.chunks_exact(problem.group * dv)) {
        o.copy_from_slice(values);
    }
}

vectorized! {
    /// Turns rows of `pitch` scores into `e^(s − max)` under the maximum so far, and gives the factor for what was summed before.
    fn softmax_tile<F: Float>(scores: &mut [F], pitch: usize, max: &mut [F], sum: &mut [F], rescale: &mut [F]) {
        // A row that has seen no key yet: −∞ − −∞ would be NaN.
        let shift = |max: F| if max == F::neg_infinity() { F::of(0.0) } else { max };
        for (row, here) in scores.chunks_exact(pitch).zip(rescale.iter_mut()) {
            *here = largest(row);
        }
        for (max, rescale) in max.iter_mut().zip(rescale.iter_mut()) {
            let before = *max;
            *max = larger(before, *rescale);
            *rescale = (before - shift(*max)).exp_lane();
        }
        for (((row, &max), sum), &rescale) in scores.chunks_exact_mut(pitch).zip(&*max).zip(sum).zip(&*rescale) {
            *sum = *sum * rescale + exponentials(row, shift(max));
        }
    }

    /// Multiplies each row of `width` elements by its factor.
    fn scale_rows<F: Float>(x: &mut [F], width: usize, factors: &[F]) {
        for (row, &factor) in x.chunks_exact_mut(width).zip(factors).filter(|(_, factor)| **factor != F::of(1.0)) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}
