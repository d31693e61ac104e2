//! Backward: the tiles again, each of which adds to the gradients of its queries, keys and values.
//!
//! A task owns the queries of a run of tokens, and adds up the gradients of the keys that they see in memory of its own; a second
//! pass adds the tasks' sums in order. The cut depends on the sizes alone, and so do the bits.

use rayon::prelude::*;

use super::tiles::{Block, Heads, Problem, blocks, row_pitch, windows};
use crate::cpu::gemm::{MatMut, MatRef, matmul};
use crate::cpu::{rows_per_task, vectorized};
use crate::ops::add::accumulate;
use crate::tensor::{Float, Recycled};

/// Tasks to cut the work into, where there is enough of it: what a processor of many cores needs to be busy.
const TASKS: usize = 32;

/// What forward left, and the output's gradient: `o` and `d_o` `[B·T, heads·Dv]`, `lse` `[B, kv_heads, T, group]`.
pub(super) struct Given<'a, F> {
    pub o: &'a [F],
    pub lse: &'a [F],
    pub d_o: &'a [F],
}

/// One task's gradients of the keys `first_key ..` of one head.
struct Part<F: Float> {
    first_key: usize,
    dk: Recycled<F>,
    dv: Recycled<F>,
}

/// The gradients of q, k and v, without gaps.
pub(super) fn backward<F: Float>(problem: &Problem<F>, given: &Given<F>) -> [Recycled<F>; 3] {
    let (seq_len, kv_heads, group) = (problem.queries, problem.kv_heads, problem.group);
    let runs = TASKS.div_ceil(problem.batch * kv_heads);
    let run = seq_len.div_ceil(runs).next_multiple_of(problem.block_tokens());

    let mut dq = Recycled::stale(problem.batch * seq_len * kv_heads * group * problem.q.width);
    let windows = windows(&mut dq, seq_len, run, kv_heads, group * problem.q.width);
    let tasks: Vec<_> = blocks(problem.batch, seq_len, run, kv_heads).zip(windows).collect();
    let parts: Vec<Part<F>> =
        tasks.into_par_iter().with_max_len(1).map(|(tokens, dq)| backward_run(problem, given, tokens, dq)).collect();

    let total = |width: usize, of_part: fn(&Part<F>) -> &[F]| {
        let (cols, of_sequence) = (kv_heads * width, seq_len.div_ceil(run) * kv_heads);
        let mut total = Recycled::stale(problem.batch * seq_len * cols);
        let rows_of_task = rows_per_task(cols);
        total.par_chunks_mut(rows_of_task * cols).enumerate().for_each(|(task, rows)| {
            for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                let (sequence, key) = ((task * rows_of_task + i) / seq_len, (task * rows_of_task + i) % seq_len);
                row.fill(F::of(0.0));
                for (n, part) in parts[sequence * of_sequence..][..of_sequence].iter().enumerate() {
                    let Some(at) = key.checked_sub(part.first_key) else { continue };
                    if let Some(part) = of_part(part).get(at * width..(at + 1) * width) {
                        accumulate(&mut row[n % kv_heads * width..][..width], part);
                    }
                }
            }
        });
        total
    };
    let (dk, dv) = (total(problem.k.width, |part| &part.dk), total(problem.v.width, |part| &part.dv));
    [dq, dk, dv]
}

/// The gradients that come from a run of tokens, block by block.
fn backward_run<F: Float>(problem: &Problem<F>, given: &Given<F>, run: Block, mut dq_rows: Vec<&mut [F]>) -> Part<F> {
    let (d, dv, tokens) = (problem.q.width, problem.v.width, problem.block_tokens());
    let most_rows = tokens.min(run.tokens.len()) * problem.group;
    let mut scratch = Scratch {
        q: Recycled::stale(most_rows * d),
        dq: Recycled::stale(most_rows * d),
        o: Recycled::stale(most_rows * dv),
        d_o: Recycled::stale(most_rows * dv),
        delta: vec![F::of(0.0); most_rows],
        p: Recycled::stale(problem.tile_len()),
        ds: Recycled::stale(problem.tile_len()),
        keep: Recycled::stale(if problem.dropout.is_some() { problem.tile_len() } else { 0 }),
    };
    let keys = problem.keys_of(&run);
    let mut part = Part { first_key: keys.start, dk: Recycled::zeros(keys.len() * d), dv: Recycled::zeros(keys.len() * dv) };
    for (start, dq_rows) in run.tokens.clone().step_by(tokens).zip(dq_rows.chunks_mut(tokens)) {
        let block = Block { tokens: start..start + dq_rows.len(), ..run.clone() };
        backward_block(problem, given, &block, &mut scratch, &mut part);
        for (row, dq) in dq_rows.iter_mut().zip(scratch.dq.chunks_exact(problem.group * d)) {
            row.iter_mut().zip(dq).for_each(|(row, &dq)| *row = dq * problem.scale);
        }
    }
    part
}

/// A task's memory: a block's queries, outputs and their gradients, and two tiles.
struct Scratch<F: Float> {
    q: Recycled<F>,
    dq: Recycled<F>,
    o: Recycled<F>,
    d_o: Recycled<F>,
    delta: Vec<F>,
    p: Recycled<F>,
    ds: Recycled<F>,
    keep: Recycled<F>,
}

/// Adds to `part`, and leaves the gradient of the scaled queries in `scratch.dq`.
fn backward_block<F: Float>(problem: &Problem<F>, given: &Given<F>, block: &Block, scratch: &mut Scratch<F>, part: &mut Part<F>) {
    let (d, dv, rows) = (problem.q.width, problem.v.width, block.tokens.len() * problem.group);
    let first_row = ((block.sequence * problem.kv_heads + block.kv_head) * problem.queries + block.tokens.start) * problem.group;
    let lse = &given.lse[first_row..][..rows];
    let (q, dq, delta) = (&mut scratch.q[..rows * d], &mut scratch.dq[..rows * d], &mut scratch.delta[..rows]);
    let (o, d_o) = (&mut scratch.o[..rows * dv], &mut scratch.d_o[..rows * dv]);
    let outputs = |data| Heads { data, pitch: problem.cols_out(), width: dv };
    problem.pack_queries(block, q);
    problem.pack(block, outputs(given.o), o);
    problem.pack(block, outputs(given.d_o), d_o);
    row_dots(o, d_o, dv, delta);
    dq.fill(F::of(0.0));
    let (q, d_o) = (MatRef::new(q, rows, d), MatRef::new(d_o, rows, dv));
    let one = F::of(1.0);
    for keys in problem.tiles_of(block) {
        let (len, pitch) = (keys.len(), row_pitch(keys.len()));
        let key_rows = problem.key_rows(block.sequence, &keys);
        let k = problem.k.matrix(key_rows.clone(), block.kv_head);
        let v = problem.v.matrix(key_rows, block.kv_head);
        let (p, ds) = (&mut scratch.p[..rows * pitch], &mut scratch.ds[..rows * pitch]);
        matmul(MatMut::with_pitch(p, rows, len, pitch), one, q, k.t(), false, false);
        problem.mask(block, &keys, p);
        matmul(MatMut::with_pitch(ds, rows, len, pitch), one, d_o, v.t(), false, false);
        if let Some(dropout) = problem.dropout {
            let keep = &mut scratch.keep[..rows * pitch];
            problem.keep(dropout, block, &keys, keep);
            backward_tile_dropout(p, ds, keep, pitch, lse, delta);
        } else {
            backward_tile(p, ds, pitch, lse, delta);
        }
        let (p, ds) = (MatRef::with_pitch(p, rows, len, pitch), MatRef::with_pitch(ds, rows, len, pitch));
        let at = keys.start - part.first_key;
        matmul(MatMut::new(&mut part.dv[at * dv..][..len * dv], len, dv), one, p.t(), d_o, true, false);
        matmul(MatMut::new(&mut part.dk[at * d..][..len * d], len, d), one, ds.t(), q, true, false);
        matmul(MatMut::new(dq, rows, d), one, ds, k, true, false);
    }
}

vectorized! {
    /// Σ a·b of each row.
    fn row_dots<F: Float>(a: &[F], b: &[F], width: usize, dots: &mut [F]) {
        for ((a, b), dots) in a.chunks_exact(width).zip(b.chunks_exact(width)).zip(dots) {
            let mut lanes = [F::of(0.0); 16];
            for (a, b) in a.chunks(16).zip(b.chunks(16)) {
                for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += a * b;
                }
            }
            *dots = lanes.into_iter().sum();
        }
    }

    /// Rows of `pitch`: scores to probabilities, and the gradient of the probabilities to that of the scores.
    fn backward_tile<F: Float>(p: &mut [F], ds: &mut [F], pitch: usize, lse: &[F], delta: &[F]) {
        for (((p, ds), &lse), &delta) in p.chunks_exact_mut(pitch).zip(ds.chunks_exact_mut(pitch)).zip(lse).zip(delta) {
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = (*p - lse).exp_lane();
                *ds = *p * (*ds - delta);
            }
        }
    }

    /// The same under dropout; the probabilities that are left are those after it.
    fn backward_tile_dropout<F: Float>(p: &mut [F], ds: &mut [F], keep: &[F], pitch: usize, lse: &[F], delta: &[F]) {
        let rows = p.chunks_exact_mut(pitch).zip(ds.chunks_exact_mut(pitch)).zip(keep.chunks_exact(pitch));
        for (((p, ds), keep), (&lse, &delta)) in rows.zip(lse.iter().zip(delta)) {
            for ((p, ds), &keep) in p.iter_mut().zip(ds).zip(keep) {
                let probability = (*p - lse).exp_lane();
                *p = probability * keep;
                *ds = probability * (*ds * keep - delta);
            }
        }
    }
}
