//! The chain of operations against the layer in plain loops, and its gradients.

use std::cell::RefCell;

use super::reference::{FeedForward, Layer};
use super::*;
use crate::ops::add::add;
use crate::ops::linear::linear;
use crate::ops::testing::{assert_close, assert_gradients, random, to_scalar};
use crate::params::Gradients;
use crate::tensor::Tensor;

const RULES: [WeightRule; 3] = [WeightRule::Normalised, WeightRule::NormalisedIfSeveral, WeightRule::Softmax];
const FORMS: [AuxLoss; 4] =
    [AuxLoss::None, AuxLoss::Sequence { alpha: 0.7 }, AuxLoss::Token { alpha: 0.7 }, AuxLoss::Switch { coef: 0.7 }];

/// B, T, H, E, I.
#[derive(Clone, Copy)]
struct Sizes {
    b: usize,
    t: usize,
    h: usize,
    e: usize,
    i: usize,
}

/// x `[B, T, H]`, router `[E, H]`, gate and up `[E, 2·I, H]`, down `[E, H, I]`; the last column of x is 1, so that the last column of
/// the router's weight, `bias`, raises or lowers an expert for all tokens.
fn layer_inputs(Sizes { b, t, h, e, i }: Sizes, bias: &[f64]) -> [Tensor; 4] {
    let with_last = |x: Tensor, last: &dyn Fn(usize) -> f64| {
        let mut data = x.to_f64().unwrap();
        data.chunks_exact_mut(h).enumerate().for_each(|(r, row)| row[h - 1] = last(r));
        Tensor::new(x.shape(), data).unwrap()
    };
    let x = with_last(random([b, t, h], 1), &|_| 1.0);
    let router = with_last(random([e, h], 2), &|r| bias.get(r).copied().unwrap_or(0.0));
    [x, router, random([e, 2 * i, h], 3), random([e, h, i], 4)]
}

fn experts(v: &[Var], correction: &[f64]) -> Experts {
    let correction = (!correction.is_empty()).then(|| Tensor::new([correction.len()], correction.to_vec()).unwrap());
    Experts { router: v[1].clone(), correction, gate_up: v[2].clone(), down: v[3].clone() }
}

fn feed_forwards<'a>(gate_up: &'a [f64], down: &'a [f64], size: usize) -> Vec<FeedForward<'a, f64>> {
    let experts = gate_up.chunks_exact(2 * size).zip(down.chunks_exact(size));
    experts.map(|(gate_up, down)| FeedForward { gate: &gate_up[..size], up: &gate_up[size..], down }).collect()
}

/// Value and auxiliary loss of both, with one shared expert, for every rule and form; returns the load.
fn compare(sizes: Sizes, k: usize, bias: &[f64]) -> Vec<usize> {
    compare_with(sizes, RouterConfig::softmax(k, WeightRule::Softmax, AuxLoss::None), bias, &[])
}

/// The same for any router, whose weights and auxiliary loss take every rule and form.
fn compare_with(sizes: Sizes, router_config: RouterConfig, bias: &[f64], correction: &[f64]) -> Vec<usize> {
    let Sizes { b, t, h, e, i } = sizes;
    let [x, router, gate_up, down] = layer_inputs(sizes, bias);
    let (shared_gate_up, shared_down) = (random([1, 2 * i, h], 5), random([1, h, i], 6));
    let data = |x: &Tensor| x.to_f64().unwrap();
    let values = [&x, &router, &gate_up, &down, &shared_gate_up, &shared_down].map(data);
    let mut load = Vec::new();
    for weights in RULES {
        for aux_loss in FORMS {
            let config = RouterConfig { weights, aux_loss, ..router_config };
            let layer = Layer {
                router: &values[1],
                correction,
                experts: feed_forwards(&values[2], &values[3], i * h),
                shared: feed_forwards(&values[4], &values[5], i * h),
                activation: Activation::Silu,
                config,
            };
            assert_eq!(layer.experts.len(), e);
            let (expected, expected_aux) = layer.forward(&values[0], [b, t, h]);

            let tape = &mut Tape::inference();
            let v = [&x, &router, &gate_up, &down].map(|x| Var::constant(x.clone()));
            let (routed_y, routed) = moe(tape, &v[0], &experts(&v, correction), Activation::Silu, &config).unwrap();
            let hidden = linear(tape, &v[0], &shared_gate_up.reshape([2 * i, h]).unwrap().into()).unwrap();
            let hidden = gated(tape, &hidden, Activation::Silu).unwrap();
            let shared = linear(tape, &hidden, &shared_down.reshape([h, i]).unwrap().into()).unwrap();
            let y = add(tape, &routed_y, &shared).unwrap();

            assert_eq!(y.dims(), [b, t, h]);
            assert_close(y.value(), &expected, 1e-13);
            let aux = routed.aux_loss.value().item().unwrap();
            assert!((aux - expected_aux).abs() <= 1e-13 * expected_aux, "{aux_loss:?}: {aux} instead of {expected_aux}");
            load = routed.routing.counts();
        }
    }
    load
}

#[test]
fn the_chain_equals_the_layer_in_plain_loops() {
    let sizes = Sizes { b: 3, t: 7, h: 5, e: 4, i: 9 };
    for k in [1, 2, 4] {
        let load = compare(sizes, k, &[]);
        assert_eq!(load.iter().sum::<usize>(), 21 * k);
        assert_eq!(k == 4, load == [21; 4]);
    }
    compare(Sizes { b: 1, t: 1, h: 2, e: 3, i: 1 }, 2, &[]);
    compare(Sizes { b: 1, t: 1, h: 1, e: 1, i: 1 }, 1, &[]);
}

#[test]
fn also_where_an_expert_has_no_token_or_all_of_them() {
    let sizes = Sizes { b: 2, t: 9, h: 5, e: 4, i: 3 };
    let load = compare(sizes, 2, &[0.0, -50.0]);
    assert_eq!(load[1], 0);
    let load = compare(sizes, 1, &[0.0, 0.0, 50.0]);
    assert_eq!(load, [0, 0, 18, 0]);
}

/// Output and auxiliary loss as one scalar.
fn objective(tape: &mut Tape, v: &[Var], config: &RouterConfig, correction: &[f64]) -> crate::Result<Var> {
    let (y, routed) = moe(tape, &v[0], &experts(v, correction), Activation::Silu, config)?;
    let value = to_scalar(tape, &y)?;
    add(tape, &value, &routed.aux_loss.reshape([1, 1])?)
}

/// The least distance between a chosen and a rejected score: the differences must not cross a tie.
fn margin(inputs: &[Tensor], k: usize) -> f64 {
    let tape = &mut Tape::inference();
    let logits = linear(tape, &inputs[0].clone().into(), &inputs[1].clone().into()).unwrap();
    let mut scores = softmax(tape, &logits).unwrap().value().to_f64().unwrap();
    let experts = inputs[1].dims()[0];
    let margins = scores.chunks_exact_mut(experts).map(|s| {
        s.sort_by(|a, b| b.total_cmp(a));
        if k < experts { s[k - 1] - s[k] } else { 1.0 }
    });
    margins.fold(1.0, f64::min)
}

#[test]
fn gradients_of_all_inputs() {
    let sizes = Sizes { b: 2, t: 3, h: 3, e: 4, i: 2 };
    for (k, bias) in [(1, &[][..]), (2, &[1.5, 0.0, -50.0]), (4, &[])] {
        let inputs = layer_inputs(sizes, bias);
        assert!(margin(&inputs, k) > 0.01, "k = {k}: a tie is as near as {}", margin(&inputs, k));
        for weights in RULES {
            for aux_loss in FORMS {
                let config = RouterConfig::softmax(k, weights, aux_loss);
                assert_gradients(&inputs, |tape, v| objective(tape, v, &config, &[]));
            }
        }
    }
}

/// DeepSeek-V3's: 3 of 6 experts, out of 2 of 3 groups.
const DEEPSEEK: RouterConfig = RouterConfig {
    top_k: 3,
    scoring: Scoring::Sigmoid,
    weights: WeightRule::Normalised,
    aux_loss: AuxLoss::None,
    groups: 3,
    top_groups: 2,
    scale: 2.5,
};

#[test]
fn sigmoid_scores_corrections_and_groups_equal_the_plain_loops() {
    let sizes = Sizes { b: 3, t: 17, h: 5, e: 6, i: 4 };
    let correction = [0.1, -0.2, 0.0, 0.3, -0.1, 0.05];
    let plain = compare_with(sizes, DEEPSEEK, &[], &[]);
    let corrected = compare_with(sizes, DEEPSEEK, &[], &correction);
    let ungrouped = compare_with(sizes, RouterConfig { groups: 1, top_groups: 1, ..DEEPSEEK }, &[], &correction);
    let one_group = compare_with(sizes, RouterConfig { top_groups: 1, top_k: 2, ..DEEPSEEK }, &[], &correction);
    let softmax = RouterConfig { scoring: Scoring::Softmax, groups: 2, top_groups: 1, scale: 0.5, ..DEEPSEEK };
    let softmax = compare_with(sizes, softmax, &[], &correction);
    for load in [&plain, &corrected, &ungrouped, &softmax] {
        assert_eq!(load.iter().sum::<usize>(), 3 * 51);
    }
    assert!(plain != corrected && corrected != ungrouped);
    // All experts of the one group that a token keeps.
    assert!(one_group.chunks_exact(2).all(|group| group[0] == group[1]) && one_group.iter().sum::<usize>() == 2 * 51);
    // An expert that no token may choose, and one that all do.
    let far = compare_with(sizes, DEEPSEEK, &[], &[0.0, -9.0, 9.0, 0.0, 0.0, 0.0]);
    assert_eq!(far[1..3], [0, 51]);
}

#[test]
fn gradients_through_sigmoid_scores() {
    let inputs = layer_inputs(Sizes { b: 2, t: 3, h: 3, e: 6, i: 2 }, &[]);
    let correction = [0.3, -0.2, 0.1, 0.2, -0.3, 0.0];
    for weights in RULES {
        for aux_loss in FORMS {
            let config = RouterConfig { weights, aux_loss, ..DEEPSEEK };
            let first = RefCell::new(None);
            assert_gradients(&inputs, |tape, v| {
                // The differences must not cross a tie, neither in the choice nor in what the loss counts.
                let logits = linear(&mut Tape::inference(), &v[0].value().clone().into(), &v[1].value().clone().into())?;
                let scores = sigmoid(&mut Tape::inference(), &logits)?;
                let correction_tensor = Tensor::new([6], correction.to_vec())?;
                let chosen = Routing::choose_within(scores.value(), Some(&correction_tensor), 3, [3, 2])?;
                let choices = (chosen, Routing::choose(scores.value(), 3)?);
                assert_ne!(choices.0, choices.1);
                assert!(*first.borrow_mut().get_or_insert(choices.clone()) == choices, "a tie is near");
                objective(tape, v, &config, &correction)
            });
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_threads() {
    let inputs = layer_inputs(Sizes { b: 2, t: 151, h: 96, e: 5, i: 65 }, &[]);
    let inputs = inputs.map(|x| Tensor::new(x.shape(), x.to_f64().unwrap().iter().map(|&x| x as f32).collect()).unwrap());
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut tape = Tape::recording();
            let v: Vec<Var> = inputs.iter().map(|x| tape.input(x.clone())).collect();
            let config = RouterConfig::softmax(2, WeightRule::Normalised, AuxLoss::Sequence { alpha: 0.1 });
            let (y, routed) = moe(&mut tape, &v[0], &experts(&v, &[]), Activation::Silu, &config).unwrap();
            let ones = Tensor::new([1, 2 * 151 * 96], vec![1.0f32; 2 * 151 * 96]).unwrap();
            let sum = linear(&mut tape, &y.reshape([1, 2 * 151 * 96]).unwrap(), &ones.into()).unwrap();
            let root = add(&mut tape, &sum, &routed.aux_loss.reshape([1, 1]).unwrap()).unwrap();
            let backward = tape.backward(&root, 1.0, &mut Gradients::none()).unwrap();
            let gradients: Vec<_> = v.iter().map(|v| backward.input(v).unwrap().to_f64().unwrap()).collect();
            (y.value().to_f64().unwrap(), gradients)
        })
    };
    assert!(run(1) == run(3));
}
