//! A batch in one piece or in eight, and the last group of a run.
//!
//! The gradients of both differ by rounding alone: sums over the same terms in another order, at most some hundred of them in f32,
//! whose unit is 6e-8. A wrong weighting is off by percents.

mod common;

use common::Watcher;
use ferromind::data::Batch;
use ferromind::model::{AttentionConfig, GqaConfig, Init, Model, ModelConfig, MoeConfig};
use ferromind::ops::moe::{AuxLoss, RouterConfig};
use ferromind::rng::Philox;
use ferromind::tape::Checks;
use ferromind::train::corpus::Corpus;
use ferromind::train::{Options, StepReport, Trainer, pretrain};
use serde_json::{Map, json};
use tempfile::TempDir;

const ROWS: usize = 8;
const SEQ_LEN: usize = 24;
const VOCAB: usize = 50;
const ROUNDING: f64 = 1e-5;

fn dense() -> ModelConfig {
    ModelConfig {
        num_attention_heads: 4,
        attention: AttentionConfig::Gqa(GqaConfig { num_key_value_heads: 2, head_dim: 8, qk_norm: false }),
        intermediate_size: 40,
        max_position_embeddings: 64,
        ..ModelConfig::minimind2(32, 2, VOCAB)
    }
}

fn experts(aux_loss: AuxLoss) -> ModelConfig {
    let config = dense().with_experts();
    let moe =
        config.moe.clone().map(|moe| MoeConfig { router: RouterConfig { aux_loss, ..moe.router }, intermediate_size: 24, ..moe });
    ModelConfig { moe, ..config }
}

/// Rows of random tokens, of which row r counts all but its first 3·r targets.
fn batch() -> Batch {
    let random = Philox::new(9);
    let tokens = |stream: u64| (0..(ROWS * SEQ_LEN) as u64).map(move |i| random.stream(stream).below(i, VOCAB as u64) as i32);
    let counts = |i: usize| i % SEQ_LEN >= 3 * (i / SEQ_LEN);
    Batch {
        rows: ROWS,
        seq_len: SEQ_LEN,
        input_ids: tokens(0).collect(),
        targets: tokens(1).enumerate().map(|(i, target)| if counts(i) { target } else { Batch::IGNORE }).collect(),
        document_starts: vec![0; ROWS * SEQ_LEN],
        sample_ids: (100..100 + ROWS as u64).collect(),
    }
}

/// Row `r` alone.
fn row(batch: &Batch, r: usize) -> Batch {
    let cut = |values: &[i32]| values[r * SEQ_LEN..(r + 1) * SEQ_LEN].to_vec();
    Batch {
        rows: 1,
        seq_len: SEQ_LEN,
        input_ids: cut(&batch.input_ids),
        targets: cut(&batch.targets),
        document_starts: cut(&batch.document_starts),
        sample_ids: vec![batch.sample_ids[r]],
    }
}

fn trainer(config: ModelConfig) -> Trainer {
    let options = Options::resolve(&[Map::new()]).unwrap();
    Trainer::new(Model::random(config, Init::Pytorch, 0.02, 3).unwrap(), &options)
}

fn gradients(trainer: &mut Trainer, group: &[Batch]) -> (Vec<f64>, StepReport) {
    let report = trainer.compute_gradients(1, group, Checks::Off).unwrap();
    (trainer.gradients().flat::<f32>().unwrap().iter().map(|&g| f64::from(g)).collect(), report)
}

/// ‖a − b‖₂ / ‖b‖₂.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// How far the gradient of eight pieces is from that of one.
fn one_and_eight(config: ModelConfig) -> f64 {
    let (mut trainer, whole) = (trainer(config), batch());
    let rows: Vec<Batch> = (0..ROWS).map(|r| row(&whole, r)).collect();
    let (expected, one) = gradients(&mut trainer, &[whole]);
    let (computed, eight) = gradients(&mut trainer, &rows);
    assert_eq!((one.counted, one.tokens), (eight.counted, eight.tokens));
    assert!((one.loss / eight.loss - 1.0).abs() < ROUNDING, "{one:?} {eight:?}");
    assert_eq!(one.expert_counts, eight.expert_counts);
    distance(&computed, &expected)
}

/// Each step moves a correction by the speed towards its load, of the right layer; weight decay, though it is on for all, never does.
#[test]
fn corrections_of_routers_follow_the_load_alone() {
    const SPEED: f32 = 0.01;
    let settings = json!({ "router-bias-speed": SPEED, "decay-scope": "all", "weight-decay": 0.5 });
    let options = Options::resolve(&[settings.as_object().unwrap().clone()]).unwrap();
    let config = ModelConfig::deepseek_v3(32, 3, VOCAB).with_experts();
    let mut trainer = Trainer::new(Model::random(config, Init::Pytorch, 0.02, 3).unwrap(), &options);
    let corrections = |trainer: &Trainer| -> Vec<Vec<f32>> {
        let name = |layer: usize| format!("model.layers.{layer}.mlp.gate.e_score_correction_bias");
        (1..3).map(|layer| trainer.model().params().get(&name(layer)).unwrap().data::<f32>().unwrap().to_vec()).collect()
    };
    let mut expected = vec![vec![0.0; 4]; 2];
    assert_eq!(corrections(&trainer), expected);
    for step in 1..=6 {
        let counts = trainer.step(step, &[batch()], 1e-2).unwrap().expert_counts;
        assert_eq!(counts.len(), 2);
        for (expected, counts) in expected.iter_mut().flatten().zip(counts.iter().flatten()) {
            let mean = 2 * ROWS * SEQ_LEN / 4;
            *expected += SPEED * (mean.cmp(counts) as i8) as f32;
        }
        for (computed, expected) in corrections(&trainer).iter().flatten().zip(expected.iter().flatten()) {
            assert!((computed - expected).abs() < 1e-6, "step {step}: {computed} and {expected}");
        }
    }
    assert!(expected[0] != expected[1] && expected.iter().flatten().any(|&x| x != 0.0));
}

#[test]
fn dense_and_sequence_balanced_models_get_the_same_gradient() {
    for config in [dense(), experts(AuxLoss::Sequence { alpha: 0.1 })] {
        for dropout in [0.0, 0.2] {
            let error = one_and_eight(ModelConfig { dropout, ..config.clone() });
            assert!(error <= ROUNDING, "{error:e} with dropout {dropout}: {config:?}");
        }
    }
}

/// What the loads of all tokens are balanced by is no mean over rows: here the pieces must differ, or the comparison sees nothing.
#[test]
fn a_loss_over_all_tokens_depends_on_the_pieces() {
    assert!(one_and_eight(experts(AuxLoss::Token { alpha: 1.0 })) > 10.0 * ROUNDING);
}

/// The planted fault: each micro-batch divided by its own count, then averaged.
#[test]
fn a_mean_of_means_is_far_off() {
    let (mut trainer, whole) = (trainer(dense()), batch());
    let mut mean = vec![0.0; trainer.model().params().layout().len()];
    for r in 0..ROWS {
        let (own, _) = gradients(&mut trainer, &[row(&whole, r)]);
        mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += own / ROWS as f64);
    }
    let error = distance(&mean, &gradients(&mut trainer, &[whole]).0);
    assert!(error > 1000.0 * ROUNDING, "{error:e}");
}

/// A run whose micro-batches do not divide into groups, against its steps done by hand.
#[test]
fn the_last_partial_group_is_stepped() {
    let dir = TempDir::new().unwrap();
    let changes = json!({ "accumulation-steps": 5, "epochs": 1, "max-steps": null, "dropout": 0.1, "warmup-steps": 0 });
    let settings = common::settings(dir.path(), "run", changes);
    let summary = pretrain(std::slice::from_ref(&settings), &mut Watcher::default()).unwrap();

    let options = Options::resolve(&[settings]).unwrap();
    let corpus = Corpus::prepare(&options, &mut |_, _| ()).unwrap();
    let total = corpus.micro_batches(&options).unwrap();
    assert_ne!(total % 5, 0, "the corpus must not divide");
    let model =
        Model::random(options.model(corpus.tokenizer.vocab_size()).unwrap(), options.init, options.init_std, options.seed).unwrap();
    let (mut trainer, rate) = (Trainer::new(model, &options), options.learning_rate(total).unwrap());
    let batches: Vec<Batch> = (0..total).map(|i| corpus.training.batch(i).unwrap()).collect();
    let mut done = 0;
    for (step, group) in batches.chunks(5).enumerate() {
        done += group.len() as u64;
        trainer.step(step as u64 + 1, group, rate.at(done)).unwrap();
    }
    assert_eq!(summary.step, total.div_ceil(5));
    let trained = ferromind::io::load_model(&summary.run_dir).unwrap();
    assert!(trained.params().flat::<f32>().unwrap() == trainer.model().params().flat::<f32>().unwrap());
}
