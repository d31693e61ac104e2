use super::*;
use crate::model::{Forward, Init, ModelConfig, Preset};
use crate::tape::Tape;
use crate::tensor::DType;

const VOCAB: usize = 96;

/// A small model of each kind of attention and feed-forward.
fn models() -> Vec<Model> {
    let configs = [
        ModelConfig { num_hidden_layers: 2, ..Preset::Tiny.config(VOCAB) },
        ModelConfig { num_hidden_layers: 2, ..Preset::Tiny.config(VOCAB) }.with_experts(),
        ModelConfig::deepseek_v3(64, 2, VOCAB),
        ModelConfig::deepseek_v3(64, 2, VOCAB).with_experts(),
        ModelConfig::notes_mla(64, 2, VOCAB),
    ];
    configs.map(|config| Model::random(config, Init::Normal, 0.1, 7).unwrap()).into()
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![5], vec![1, 2, 3, 4, 5, 6, 7, 8, 9], vec![90, 3], vec![11, 12, 13]]
}

#[test]
fn a_batch_gives_what_each_prompt_gives_alone() {
    for model in models() {
        for model in [model.to_bf16().unwrap(), model] {
            for sampling in [Sampling::greedy(), Sampling { temperature: 1.0, ..Sampling::default() }] {
                let mut batch = BatchGeneration::new(&model, &prompts(), sampling, 12).unwrap().without_end();
                let steps = batch.by_ref().map(|tokens| tokens.unwrap()).collect::<Vec<_>>();
                assert_eq!(steps.len(), 12);
                for (i, prompt) in prompts().iter().enumerate() {
                    let alone = Sampling { seed: sampling.seed + i as u64, ..sampling };
                    let alone = Generation::new(&model, prompt, alone, 12).unwrap().without_end();
                    let alone: Vec<u32> = alone.map(|token| token.unwrap()).collect();
                    assert_eq!(batch.generated(i), alone);
                    assert_eq!(steps.iter().map(|step| step[i].unwrap()).collect::<Vec<_>>(), alone);
                }
            }
        }
    }
}

#[test]
fn a_sequence_that_ends_leaves_the_batch() {
    let model = models().remove(0);
    let endless = |prompt: &Vec<u32>| {
        let tokens = Generation::new(&model, prompt, Sampling::greedy(), 12).unwrap().without_end();
        tokens.map(|token| token.unwrap()).collect::<Vec<u32>>()
    };
    let free: Vec<_> = prompts().iter().map(endless).collect();
    let end = free[1][3];
    let several = Generation::new(&model, &prompts()[1], Sampling::greedy(), 12).unwrap().with_end_tokens(vec![u32::MAX, end]);
    let first = free[1].iter().position(|&id| id == end).unwrap();
    assert_eq!(several.map(|token| token.unwrap()).collect::<Vec<_>>(), free[1][..=first]);
    let config = ModelConfig { eos_token_id: Some(end), ..model.config().clone() };
    let model = Model::random(config, Init::Normal, 0.1, 7).unwrap();
    let mut batch = BatchGeneration::new(&model, &prompts(), Sampling::greedy(), 12).unwrap();
    let steps: Vec<_> = batch.by_ref().map(|tokens| tokens.unwrap()).collect();
    for (i, free) in free.iter().enumerate() {
        let expected = free.iter().position(|&id| id == end).map_or(&free[..], |at| &free[..=at]);
        assert_eq!(batch.generated(i), expected);
        assert!(steps.iter().enumerate().all(|(t, step)| step[i] == expected.get(t).copied()));
    }
    assert!(batch.generated(1).len() <= 4);
}

/// The hidden states of ids one by one behind a cache, and of all at once.
fn cached_and_plain(model: &Model, ids: &[i32]) -> [Vec<f64>; 2] {
    let mut cache = model.cache(ids.len());
    let tape = &mut Tape::inference();
    let steps = ids.chunks(1).flat_map(|id| model.hidden_cached(tape, id, &mut cache).unwrap().hidden.value().to_f64().unwrap());
    let steps = steps.collect();
    [steps, model.hidden(tape, &Forward::plain(1, ids.len(), ids)).unwrap().hidden.value().to_f64().unwrap()]
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn bf16_weights_give_what_the_rounded_weights_give_in_float32() {
    let ids: Vec<i32> = (0..40).map(|i| i * 37 % VOCAB as i32).collect();
    for model in models() {
        let narrow = model.to_bf16().unwrap();
        assert_eq!(narrow.params().dtype(), DType::BF16);
        let rounded: Vec<f32> = narrow.params().flat::<half::bf16>().unwrap().iter().map(|x| x.to_f32()).collect();
        let mut wide = Model::random(model.config().clone(), Init::Normal, 0.1, 8).unwrap();
        wide.params_mut().flat_mut::<f32>().unwrap().copy_from_slice(&rounded);
        let ([narrow_steps, narrow_plain], [wide_steps, wide_plain]) =
            (cached_and_plain(&narrow, &ids), cached_and_plain(&wide, &ids));
        for (what, a, b, bound) in [
            ("one by one", &narrow_steps, &wide_steps, 1e-6),
            ("at once", &narrow_plain, &wide_plain, 1e-6),
            ("cached against plain", &narrow_steps, &narrow_plain, 1e-5),
        ] {
            assert!(distance(a, b) <= bound, "{what}: {:e}", distance(a, b));
        }
        let original = &cached_and_plain(&model, &ids)[1];
        assert!(distance(&narrow_plain, original) > 1e-4, "rounding is seen");
    }
}

#[test]
fn threads_do_not_change_a_token() {
    let run = |model: &Model, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cached_and_plain(model, &[1, 2, 3, 4, 5, 6, 7]))
    };
    for model in models() {
        for model in [model.to_bf16().unwrap(), model] {
            assert!((2..4).all(|threads| run(&model, threads) == run(&model, 1)));
        }
    }
}
