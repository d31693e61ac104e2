//! Whole tiny models in f64 against central differences, to a relative error of 1e-6, with every mask and dropout at once.

use std::sync::Arc;

use ferromind::data::Batch;
use ferromind::model::{AttentionConfig, Dropout, Forward, GqaConfig, Init, Loss, MlaConfig, Model, ModelConfig, MoeConfig};
use ferromind::ops::moe::{AuxLoss, RouterConfig, WeightRule};
use ferromind::params::Gradients;
use ferromind::rng::Philox;
use ferromind::tape::Tape;

const ROWS: usize = 2;
const SEQ_LEN: usize = 5;
const VOCAB: usize = 11;
const BOUND: f64 = 1e-6;

/// The smallest shapes that are odd everywhere: one key head for two query heads of 6, 7 inside, 11 tokens.
fn tiny(config: ModelConfig) -> ModelConfig {
    ModelConfig {
        hidden_size: 12,
        num_attention_heads: 2,
        attention: AttentionConfig::Gqa(GqaConfig {
            num_key_value_heads: 1,
            head_dim: 6,
            qk_norm: config.gqa().is_some_and(|gqa| gqa.qk_norm),
        }),
        intermediate_size: 7,
        max_position_embeddings: 16,
        ..config
    }
}

fn minimind2() -> ModelConfig {
    tiny(ModelConfig::minimind2(16, 2, VOCAB))
}

fn minimind3() -> ModelConfig {
    tiny(ModelConfig::minimind3(16, 2, VOCAB))
}

/// Three experts of 5 inside; weights of the auxiliary loss are far above the published ones, so that its share of the router's
/// gradient is seen.
fn with_experts(config: ModelConfig, top_k: usize, shared: usize, weight_rule: WeightRule, aux_loss: AuxLoss) -> ModelConfig {
    let moe = MoeConfig {
        num_experts: 3,
        num_shared_experts: shared,
        intermediate_size: 5,
        router: RouterConfig::softmax(top_k, weight_rule, aux_loss),
        dense_layers: Vec::new(),
    };
    ModelConfig { moe: Some(moe), ..config }
}

/// A model and what it is differentiated at: row 0 holds two documents, row 1 a padding token at its end.
struct Case {
    model: Model,
    forward: Forward,
    targets: Arc<[i32]>,
}

impl Case {
    /// Parameters are of order one, not 0.02: so that every nonlinearity is in play.
    fn new(config: ModelConfig, seed: u64) -> Self {
        let (dropout, philox) = (config.dropout, Philox::new(seed));
        let mut model = Model::random(config, Init::Normal, 0.02, 0).unwrap().to_f64().unwrap();
        for (i, value) in model.params_mut().flat_mut::<f64>().unwrap().iter_mut().enumerate() {
            *value = if *value == 1.0 { 1.0 + 0.3 * philox.normal(i as u64) } else { 0.5 * philox.normal(i as u64) };
        }
        let ids: Vec<i32> = (0..ROWS * SEQ_LEN).map(|i| philox.stream(1).below(i as u64, VOCAB as u64) as i32).collect();
        let ignore = Batch::IGNORE;
        let dropout = (dropout > 0.0).then(|| Dropout { philox: philox.stream(2), sample_ids: [7, 1 << 40].into() });
        let forward = Forward {
            document_starts: Some([0, 0, 0, 3, 3, 0, 0, 0, 0, 0].into()),
            attention_mask: Some([1, 1, 1, 1, 1, 1, 1, 1, 1, 0].into()),
            dropout,
            ..Forward::plain(ROWS, SEQ_LEN, ids)
        };
        Self { model, forward, targets: [3, 10, ignore, 0, 5, 9, ignore, 2, 2, ignore].into() }
    }

    fn loss(&self, tape: &mut Tape) -> Loss {
        let counted = self.targets.iter().filter(|&&target| target != Batch::IGNORE).count();
        self.model.loss(tape, &self.forward, self.targets.clone(), counted, 0.5).unwrap()
    }

    fn gradients(&self) -> Vec<f64> {
        let mut tape = Tape::recording();
        let loss = self.loss(&mut tape);
        let mut gradients = Gradients::zeros(self.model.params());
        tape.backward(&loss.total, 1.0, &mut gradients).unwrap();
        gradients.expect_all_reached().unwrap();
        gradients.flat::<f64>().unwrap().to_vec()
    }

    /// Central differences of fourth order; see `ferromind::tape::check_gradients` for the formula.
    fn differences(&mut self) -> Vec<f64> {
        let h = 3e-4;
        let counts = self.loss(&mut Tape::inference()).expert_counts;
        let parameters = 0..self.model.params().layout().len();
        let mut at = |i: usize, step: f64| {
            let original = self.model.params().flat::<f64>().unwrap()[i];
            self.model.params_mut().flat_mut::<f64>().unwrap()[i] = original + step;
            let loss = self.loss(&mut Tape::inference());
            self.model.params_mut().flat_mut::<f64>().unwrap()[i] = original;
            assert_eq!(loss.expert_counts, counts, "a choice of experts hangs by a thread: use another seed");
            loss.total.value().item().unwrap()
        };
        parameters.map(|i| (8.0 * (at(i, h) - at(i, -h)) - (at(i, 2.0 * h) - at(i, -2.0 * h))) / (12.0 * h)).collect()
    }

    /// The parameters whose gradients `computed` and `numeric` disagree on, with ‖difference‖₂ / ‖larger‖₂. Where both vanish (an
    /// expert that no token chose) they agree.
    fn disagreements(&self, computed: &[f64], numeric: &[f64]) -> Vec<(String, f64)> {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let error = |range: std::ops::Range<usize>| {
            let (computed, numeric) = (&computed[range.clone()], &numeric[range]);
            let scale = norm(&mut computed.iter().copied()).max(norm(&mut numeric.iter().copied()));
            let difference = norm(&mut computed.iter().zip(numeric).map(|(a, b)| a - b));
            if scale < 1e-10 { 0.0 } else { difference / scale }
        };
        let entries = self.model.params().layout().entries().iter();
        entries
            .map(|entry| (entry.name.clone(), error(entry.range())))
            .filter(|(_, error)| error.is_nan() || *error > BOUND)
            .collect()
    }
}

/// Every gradient of the model agrees with the differences, and none of the parameters is without one: with experts, seeds are
/// such that each is chosen in each layer.
fn assert_gradients(config: ModelConfig, seed: u64) {
    // The loss is evaluated thousands of times on a handful of numbers: threads would only get in each other's way.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let mut case = Case::new(config, seed);
        let (computed, numeric) = (case.gradients(), case.differences());
        assert_eq!(case.disagreements(&computed, &numeric), []);
        let entries = case.model.params().layout().entries();
        let zero: Vec<_> = entries.iter().filter(|e| computed[e.range()].iter().all(|&g| g == 0.0)).map(|e| &e.name).collect();
        assert!(zero.is_empty(), "no gradient in {zero:?}");
    });
}

#[test]
fn minimind2_dense() {
    assert_gradients(minimind2(), 1);
}

#[test]
fn minimind2_dense_with_dropout_and_a_head_of_its_own() {
    assert_gradients(ModelConfig { dropout: 0.2, tie_word_embeddings: false, ..minimind2() }, 2);
}

#[test]
fn minimind2_experts_balanced_by_sequence() {
    let aux_loss = AuxLoss::Sequence { alpha: 0.3 };
    assert_gradients(with_experts(minimind2(), 2, 1, WeightRule::NormalisedIfSeveral, aux_loss), 21);
}

#[test]
fn minimind2_experts_balanced_by_token_with_dropout() {
    let config = ModelConfig { dropout: 0.1, ..minimind2() };
    assert_gradients(with_experts(config, 2, 1, WeightRule::NormalisedIfSeveral, AuxLoss::Token { alpha: 0.3 }), 4);
}

#[test]
fn minimind3_dense() {
    assert_gradients(ModelConfig { dropout: 0.1, ..minimind3() }, 5);
}

#[test]
fn minimind3_experts_as_in_switch() {
    assert_gradients(with_experts(minimind3(), 1, 0, WeightRule::Normalised, AuxLoss::Switch { coef: 0.3 }), 21);
    assert_gradients(with_experts(minimind3(), 1, 0, WeightRule::Softmax, AuxLoss::Switch { coef: 0.3 }), 58);
}

/// Two heads of 3 + 2 columns and 3 of values, a latent of 5.
fn latent(config: ModelConfig, q_lora_rank: Option<usize>) -> ModelConfig {
    let attention = match config.attention {
        AttentionConfig::Mla(mla) => AttentionConfig::Mla(MlaConfig {
            q_lora_rank,
            kv_lora_rank: 5,
            qk_nope_head_dim: 3,
            qk_rope_head_dim: 2,
            v_head_dim: 3,
            ..mla
        }),
        gqa => gqa,
    };
    let sizes = (12, 2, 7, 16);
    let (hidden_size, num_attention_heads, intermediate_size, max_position_embeddings) = sizes;
    ModelConfig { attention, hidden_size, num_attention_heads, intermediate_size, max_position_embeddings, ..config }
}

#[test]
fn latent_attention_with_a_shared_rotated_key() {
    assert_gradients(latent(ModelConfig::deepseek_v3(16, 2, VOCAB), None), 7);
}

#[test]
fn latent_attention_with_low_rank_queries() {
    assert_gradients(ModelConfig { dropout: 0.1, ..latent(ModelConfig::deepseek_v3(16, 2, VOCAB), Some(4)) }, 8);
}

#[test]
fn latent_attention_with_a_rotated_key_for_each_head() {
    assert_gradients(latent(ModelConfig::notes_mla(16, 2, VOCAB), None), 9);
}

#[test]
fn a_gradient_that_is_wrong_by_a_hundredth_of_a_percent_is_seen() {
    let mut case = Case::new(ModelConfig { num_hidden_layers: 1, ..minimind2() }, 8);
    let (mut computed, numeric) = (case.gradients(), case.differences());
    let entry = case.model.params().layout().find("model.layers.0.self_attn.k_proj.weight").unwrap().range();
    computed[entry].iter_mut().for_each(|g| *g *= 1.0001);
    let names: Vec<_> = case.disagreements(&computed, &numeric).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["model.layers.0.self_attn.k_proj.weight"]);
}
