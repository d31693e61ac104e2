use super::*;
use crate::cpu::gemm::MatRef;
use crate::ops::linear::linear;
use crate::ops::split::split;
use crate::ops::table::Exact;
use crate::ops::testing::{assert_close, assert_gradients, random, random_f32, to_scalar};
use crate::params::Gradients;
use crate::rng::Philox;

/// Widths of q, k and v of a configuration.
fn widths(options: &Attention, d: usize, dv: usize) -> [usize; 3] {
    [options.heads * d, options.kv_heads * d, options.kv_heads * dv]
}

/// Random q, k and v `[B·T, ..]` in f32, and the reference's output in f64.
fn case(options: &Attention, d: usize, dv: usize) -> ([Tensor; 3], Vec<f64>) {
    let rows = options.batch * options.seq_len;
    let mut seed = 0;
    let qkv = widths(options, d, dv).map(|width| {
        seed += 1;
        random_f32([rows, width], seed)
    });
    let mut expected = vec![0.0; rows * options.heads * dv];
    let [q, k, v] = qkv.each_ref().map(|x| x.to_f64().unwrap());
    options.reference::<Exact>([&q, &k, &v], &mut expected, &mut vec![0.0; rows * options.heads]);
    (qkv, expected)
}

fn run(options: &Attention, [q, k, v]: &[Tensor; 3]) -> Tensor {
    let vars = [q, k, v].map(|x| Var::constant(x.clone()));
    attention(&mut Tape::inference(), &vars[0], &vars[1], &vars[2], options.clone()).unwrap().value().clone()
}

/// Documents that begin at tokens 0, 1, 7, 13 .. of the first row, at 0 and 3 of each other.
fn document_starts(batch: usize, seq_len: usize) -> Option<Arc<[i32]>> {
    let first = |t: usize| if t == 0 { 0 } else { (t - 1) / 6 * 6 + 1 };
    let start = |b: usize, t: usize| {
        if b == 0 {
            first(t)
        } else if t < 3 {
            0
        } else {
            3
        }
    };
    Some((0..batch * seq_len).map(|i| start(i / seq_len, i % seq_len) as i32).collect())
}

/// Padding at the left of the first row, at the right of each other, and at one token inside.
fn attention_mask(batch: usize, seq_len: usize) -> Option<Arc<[i32]>> {
    let real = |b: usize, t: usize| if b == 0 { t >= 2 && t != 4 } else { t + 3 < seq_len };
    Some((0..batch * seq_len).map(|i| i32::from(real(i / seq_len, i % seq_len))).collect())
}

fn dropout(p: f64, batch: usize) -> Option<DropoutMask> {
    Some(DropoutMask { p, philox: Philox::new(5), sample_ids: (100..100 + batch as u64).collect() })
}

#[test]
fn equals_the_reference() {
    for (batch, seq_len, heads, kv_heads, d, dv) in [
        (1, 1, 1, 1, 8, 8),
        (2, 17, 4, 2, 24, 24),
        (3, 65, 6, 1, 8, 20),
        (2, 130, 8, 2, 96, 96),
        (1, 300, 3, 3, 5, 7),
        (1, 601, 2, 1, 16, 16),
        (1, 33, 40, 1, 8, 8),
    ] {
        let plain = Attention::new(batch, seq_len, heads, kv_heads, d);
        for options in [
            plain.clone(),
            Attention { scale: 0.9, document_starts: document_starts(batch, seq_len), ..plain.clone() },
            Attention { attention_mask: attention_mask(batch, seq_len), ..plain.clone() },
            Attention { dropout: dropout(0.3, batch), ..plain.clone() },
            Attention {
                document_starts: document_starts(batch, seq_len),
                attention_mask: attention_mask(batch, seq_len),
                dropout: dropout(0.1, batch),
                ..plain.clone()
            },
        ] {
            let (qkv, expected) = case(&options, d, dv);
            assert_close(&run(&options, &qkv), &expected, 1e-6);
        }
    }
}

#[test]
fn windows_of_a_fused_projection() {
    let options = Attention::new(2, 17, 4, 2, 8);
    let (qkv, expected) = case(&options, 8, 12);
    let columns: Vec<Vec<f64>> = qkv.iter().map(|x| x.to_f64().unwrap()).collect();
    let widths = widths(&options, 8, 12);
    let fused = (0..34).flat_map(|r| {
        let parts = columns.iter().zip(widths).map(move |(x, width)| x[r * width..][..width].to_vec());
        parts.flatten().map(|x| x as f32).collect::<Vec<_>>()
    });
    let fused = Tensor::new([2, 17, widths.iter().sum()], fused.collect()).unwrap();
    let mut start = 0;
    let parts = widths.map(|width| {
        start += width;
        fused.columns(start - width, width).unwrap()
    });
    assert_close(&run(&options, &parts), &expected, 1e-6);
}

/// Large scores, which overflow without the maximum, in an order in which it moves from tile to tile.
#[test]
fn the_running_maximum_moves() {
    let options = Attention { scale: 1.0, ..Attention::new(1, 700, 1, 1, 1) };
    let q = Tensor::new([700, 1], vec![1.0f32; 700]).unwrap();
    let k = Tensor::new([700, 1], (0..700).map(|t| (t / 100) as f32 * 100.0).collect()).unwrap();
    let v = random_f32([700, 1], 1);
    let mut expected = vec![0.0; 700];
    let inputs = [&q, &k, &v].map(|x| x.to_f64().unwrap());
    options.reference::<Exact>(inputs.each_ref().map(|x| &x[..]), &mut expected, &mut [0.0; 700]);
    assert_close(&run(&options, &[q, k, v]), &expected, 1e-5);
}

fn check(options: &Attention, d: usize, dv: usize) {
    let rows = options.batch * options.seq_len;
    let widths = widths(options, d, dv);
    let inputs = [random([rows, widths[0]], 1), random([rows, widths[1]], 2), random([rows, widths[2]], 3)];
    assert_gradients(&inputs, |tape, v| attention(tape, &v[0], &v[1], &v[2], options.clone()));
}

#[test]
fn gradients() {
    check(&Attention::new(1, 1, 1, 1, 3), 3, 2);
    check(&Attention::new(2, 7, 4, 2, 3), 3, 2);
    check(&Attention::new(1, 19, 2, 1, 2), 2, 5);
}

#[test]
fn gradients_under_masks_and_dropout() {
    let plain = Attention::new(2, 9, 2, 1, 3);
    check(&Attention { document_starts: document_starts(2, 9), ..plain.clone() }, 3, 3);
    check(&Attention { attention_mask: attention_mask(2, 9), ..plain.clone() }, 3, 3);
    check(&Attention { dropout: dropout(0.4, 2), ..plain.clone() }, 3, 3);
    let all = Attention {
        document_starts: document_starts(2, 9),
        attention_mask: attention_mask(2, 9),
        dropout: dropout(0.2, 2),
        scale: 0.7,
        ..plain
    };
    check(&all, 3, 2);
}

#[test]
fn gradients_of_windows_of_a_fused_projection() {
    assert_gradients(&[random([10, 16], 1)], |tape, x| {
        let [q, k, v] = split(tape, &x[0], [8, 4, 4])?;
        attention(tape, &q, &k, &v, Attention::new(2, 5, 4, 2, 2))
    });
}

/// The gradients of a problem of several blocks, tiles and tasks agree with differences along a random direction.
#[test]
fn gradients_across_blocks_and_tiles() {
    let options = Attention { dropout: dropout(0.1, 1), ..Attention::new(1, 601, 3, 1, 2) };
    let (inputs, directions) = ([(6, 1), (2, 2), (4, 3)], [(6, 4), (2, 5), (4, 6)]);
    let [inputs, directions] = [inputs, directions].map(|x| x.map(|(width, seed)| random([601, width], seed)));
    let value = |tape: &mut Tape, vars: &[Var; 3]| {
        let o = attention(tape, &vars[0], &vars[1], &vars[2], options.clone()).unwrap();
        to_scalar(tape, &o).unwrap()
    };
    let mut tape = Tape::recording();
    let vars = inputs.each_ref().map(|x| tape.input(x.clone()));
    let root = value(&mut tape, &vars);
    let gradients = tape.backward(&root, 1.0, &mut Gradients::none()).unwrap();
    for (i, direction) in directions.iter().enumerate() {
        let dot =
            |x: &Tensor| -> f64 { x.data::<f64>().unwrap().iter().zip(direction.data::<f64>().unwrap()).map(|(a, b)| a * b).sum() };
        let at = |step: f64| {
            let mut vars = inputs.each_ref().map(|x| Var::constant(x.clone()));
            let moved = inputs[i].data::<f64>().unwrap().iter().zip(direction.data::<f64>().unwrap()).map(|(x, d)| x + step * d);
            vars[i] = Tensor::new(inputs[i].shape(), moved.collect()).unwrap().into();
            value(&mut Tape::inference(), &vars).value().item().unwrap()
        };
        let h = 1e-4;
        let numeric = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let computed = dot(gradients.input(&vars[i]).unwrap());
        assert!((computed / numeric - 1.0).abs() < 1e-6, "input {i}: {computed} and {numeric}");
    }
}

#[test]
fn a_row_without_keys_gives_zeros_and_no_gradient() {
    let options = Attention { attention_mask: Some([0, 0, 1, 1].into()), ..Attention::new(1, 4, 2, 1, 3) };
    let mut tape = Tape::recording();
    let [q, k, v] = [(6, 1), (3, 2), (3, 3)].map(|(width, seed)| tape.input(random([4, width], seed)));
    let o = attention(&mut tape, &q, &k, &v, options).unwrap();
    assert!(o.value().data::<f64>().unwrap()[..12].iter().all(|&o| o == 0.0));
    let root = to_scalar(&mut tape, &o).unwrap();
    let gradients = tape.backward(&root, 1.0, &mut Gradients::none()).unwrap();
    for (var, unused) in [(&q, 12), (&k, 6), (&v, 6)] {
        let gradient = gradients.input(var).unwrap().data::<f64>().unwrap();
        assert!(gradient[..unused].iter().all(|&g| g == 0.0));
        assert!(gradient.iter().all(|g| g.is_finite()));
    }
    // The last query has two keys, so that its gradient is not zero.
    assert!(gradients.input(&q).unwrap().data::<f64>().unwrap()[18..].iter().all(|&g| g != 0.0));
}

#[test]
fn the_bits_do_not_depend_on_the_threads() {
    let options = Attention { dropout: dropout(0.1, 2), ..Attention::new(2, 200, 4, 2, 16) };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut tape = Tape::recording();
            let qkv = [(64, 1), (32, 2), (32, 3)].map(|(width, seed)| tape.input(random_f32([400, width], seed)));
            let o = attention(&mut tape, &qkv[0], &qkv[1], &qkv[2], options.clone()).unwrap();
            let weights = Var::constant(random_f32([1, 400 * 64], 4));
            let root = linear(&mut tape, &o.reshape([1, 400 * 64]).unwrap(), &weights).unwrap();
            let gradients = tape.backward(&root, 1.0, &mut Gradients::none()).unwrap();
            let gradients = qkv.each_ref().map(|x| gradients.input(x).unwrap().data::<f32>().unwrap().to_vec());
            (o.value().data::<f32>().unwrap().to_vec(), gradients)
        })
    };
    assert_eq!(run(1), run(2));
}

/// One row of a batch, computed alone, gets the same bits, as its sample keeps its dropout.
#[test]
fn the_bits_do_not_depend_on_the_batch() {
    let options = Attention { dropout: dropout(0.25, 3), ..Attention::new(3, 70, 2, 1, 8) };
    let (qkv, _) = case(&options, 8, 8);
    let whole = run(&options, &qkv);
    let of_last =
        |x: &Tensor| Tensor::new([70, x.shape().cols()], x.data::<f32>().unwrap()[140 * x.shape().cols()..].to_vec()).unwrap();
    let sample = Some(DropoutMask { sample_ids: [102].into(), ..dropout(0.25, 1).unwrap() });
    let alone = run(&Attention { batch: 1, dropout: sample, ..options.clone() }, &qkv.each_ref().map(of_last));
    assert_eq!(alone.data::<f32>().unwrap(), &whole.data::<f32>().unwrap()[140 * 16..]);
    let other = Some(DropoutMask { sample_ids: [7].into(), ..dropout(0.25, 1).unwrap() });
    let other = run(&Attention { batch: 1, dropout: other, ..options }, &qkv.each_ref().map(of_last));
    assert_ne!(other.data::<f32>().unwrap(), alone.data::<f32>().unwrap());
}

#[test]
fn dropout_keeps_the_share_it_says_and_its_vector_form_agrees() {
    let dropout = dropout(0.3, 2).unwrap();
    let (mut kept, mut row) = (0, vec![0.0f64; 1000]);
    for head in 0..4 {
        for query in 1000..1010 {
            dropout.factors(1, head, query, 13..1013, &mut row);
            let expected: Vec<f64> = (13..1013).map(|key| dropout.factor(1, head, query, key)).collect();
            assert_eq!(row, expected);
            kept += row.iter().filter(|&&factor| factor != 0.0).count();
        }
    }
    // 40,000 draws of chance 0.7: standard deviation 92.
    assert!((kept as f64 - 28_000.0).abs() < 5.0 * 92.0, "{kept}");
}

#[test]
fn the_cache_gives_what_the_whole_gives() {
    for (seq_len, heads, kv_heads, d, dv) in [(1, 2, 1, 8, 8), (23, 4, 2, 24, 10), (2100, 6, 2, 8, 8)] {
        let options = Attention::new(1, seq_len, heads, kv_heads, d);
        let (qkv, expected) = case(&options, d, dv);
        let [q, k, v] = qkv.each_ref().map(|x| x.data::<f32>().unwrap());
        // The cache has room for more tokens than there are, and gaps between its rows.
        let (k_pitch, v_pitch) = (kv_heads * d + 3, kv_heads * dv + 1);
        let mut cache = [vec![f32::NAN; (seq_len + 5) * k_pitch], vec![f32::NAN; (seq_len + 5) * v_pitch]];
        for (cache, (source, pitch)) in cache.iter_mut().zip([(k, k_pitch), (v, v_pitch)]) {
            let cols = source.len() / seq_len;
            for (row, source) in cache.chunks_exact_mut(pitch).zip(source.chunks_exact(cols)) {
                row[..cols].copy_from_slice(source);
            }
        }
        for (past, new) in [(0, seq_len), (seq_len - 1, 1), (seq_len / 2, seq_len - seq_len / 2)] {
            let (cols, cols_out) = (heads * d, heads * dv);
            let q = MatRef::new(&q[past * cols..], new, cols);
            let keys = MatRef::with_pitch(&cache[0], past + new, kv_heads * d, k_pitch);
            let values = MatRef::with_pitch(&cache[1], past + new, kv_heads * dv, v_pitch);
            let mut o = vec![f32::NAN; new * cols_out];
            attend_cached(q, keys, values, [heads, kv_heads], options.scale, &mut o).unwrap();
            assert_close(&Tensor::new([new, cols_out], o).unwrap(), &expected[past * cols_out..], 1e-6);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let error = |options: Attention, widths: [usize; 3]| {
        let [q, k, v] = widths.map(|width| Var::constant(random_f32([6, width], 1)));
        attention(&mut Tape::inference(), &q, &k, &v, options).unwrap_err().to_string()
    };
    let good = Attention::new(2, 3, 4, 2, 8);
    assert_eq!(error(good.clone(), [32, 15, 16]), "attention: `k` has shape [6, 15], expected [6, 16]");
    assert_eq!(error(good.clone(), [33, 16, 16]), "attention: `q` has shape [6, 33], expected [6, 4·D]");
    assert_eq!(error(good.clone(), [32, 16, 15]), "attention: `v` has shape [6, 15], expected [6, 2·Dv]");
    assert!(error(Attention { kv_heads: 3, ..good.clone() }, [32, 16, 16]).contains("kv_heads divides heads"));
    assert!(
        error(Attention { attention_mask: Some([1, 1].into()), ..good.clone() }, [32, 16, 16]).contains("2 elements, expected 6")
    );
    let starts = Some([0, 2, 0, 0, 0, 0].into());
    assert!(error(Attention { document_starts: starts, ..good.clone() }, [32, 16, 16]).contains("says 2 for the token at 1"));
    assert!(error(Attention { dropout: dropout(1.0, 2), ..good.clone() }, [32, 16, 16]).contains("less than 1, got 1"));
    assert!(error(Attention { dropout: dropout(0.1, 1), ..good }, [32, 16, 16]).contains("1 sample ids for a batch of 2"));
    let (q, keys) = ([0.0f32; 16], [0.0f32; 32]);
    let mut o = [0.0; 16];
    let q = MatRef::new(&q, 2, 8);
    let result = attend_cached(q, MatRef::new(&keys, 1, 8), MatRef::new(&keys, 1, 8), [2, 2], 1.0, &mut o);
    assert!(result.unwrap_err().to_string().contains("keys [1, 8]"));
}
