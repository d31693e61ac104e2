//! Generation through a cache, token by token or in pieces, against the whole sequence at once.

use ferromind::model::{AttentionConfig, Forward, Init, MlaConfig, Model, ModelConfig, RotaryKey};
use ferromind::rng::Philox;
use ferromind::tape::Tape;

const VOCAB: usize = 50;
const TOKENS: usize = 300;

fn model(config: ModelConfig) -> Model {
    // Wide enough a spread that attention is far from uniform.
    Model::random(ModelConfig { max_position_embeddings: TOKENS, ..config }, Init::Normal, 0.2, 3).unwrap()
}

fn mla(config: ModelConfig, change: impl Fn(MlaConfig) -> MlaConfig) -> ModelConfig {
    match config.attention {
        AttentionConfig::Mla(mla) => ModelConfig { attention: AttentionConfig::Mla(change(mla)), ..config },
        AttentionConfig::Gqa(_) => config,
    }
}

fn kinds() -> Vec<(&'static str, ModelConfig)> {
    let deepseek = ModelConfig::deepseek_v3(128, 2, VOCAB);
    vec![
        ("grouped queries", ModelConfig::minimind2(128, 2, VOCAB)),
        ("normalised queries and keys", ModelConfig::minimind3(128, 2, VOCAB)),
        ("one rotated key", deepseek.clone()),
        (
            "low-rank queries, odd widths",
            mla(deepseek, |mla| MlaConfig {
                q_lora_rank: Some(24),
                qk_nope_head_dim: 11,
                qk_rope_head_dim: 6,
                v_head_dim: 13,
                ..mla
            }),
        ),
        ("a rotated key for each head", ModelConfig::notes_mla(128, 2, VOCAB)),
    ]
}

/// The largest difference of a value to the whole sequence's, relative to the largest of these, when the tokens come in pieces.
fn difference(model: &Model, pieces: &[usize]) -> f64 {
    let random = Philox::new(1);
    let ids: Vec<i32> = (0..TOKENS).map(|i| random.below(i as u64, VOCAB as u64) as i32).collect();
    let tape = &mut Tape::inference();
    let whole = model.hidden(tape, &Forward::plain(1, TOKENS, ids.clone())).unwrap().hidden.value().to_f64().unwrap();
    let mut cache = model.cache(TOKENS);
    let (mut parts, mut rest) = (Vec::new(), &ids[..]);
    for &piece in pieces {
        let (new, after) = rest.split_at(piece);
        rest = after;
        parts.extend(model.hidden_cached(tape, new, &mut cache).unwrap().hidden.value().to_f64().unwrap());
    }
    assert!(rest.is_empty() && cache.len() == TOKENS && parts.len() == whole.len());
    let largest = whole.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn a_cache_gives_what_the_whole_sequence_gives() {
    for (name, config) in kinds() {
        let model = model(config);
        for pieces in [vec![1; TOKENS], vec![TOKENS], vec![1, 2, 97, 1, 1, 150, 48], vec![128, 128, 44]] {
            let difference = difference(&model, &pieces);
            assert!(difference < 2e-5, "{name}, {} pieces: {difference:e}", pieces.len());
        }
    }
}

#[test]
fn what_a_cache_keeps_of_a_token() {
    let widths = |config: ModelConfig| config.cache_widths().iter().sum::<usize>();
    // Heads of 64 columns: 2 of 8 keep keys and values; a latent of 128 and one or eight rotated keys of 32.
    assert_eq!(widths(ModelConfig::minimind2(512, 8, 6400)), 2 * 2 * 64);
    assert_eq!(widths(ModelConfig::deepseek_v3(512, 8, 6400)), 128 + 32);
    assert_eq!(widths(ModelConfig::notes_mla(512, 8, 6400)), 128 + 8 * 32);
    let notes = mla(ModelConfig::notes_mla(1024, 24, 32000), |mla| MlaConfig { kv_lora_rank: 512, qk_rope_head_dim: 64, ..mla });
    let notes = ModelConfig { num_attention_heads: 16, ..notes };
    assert_eq!(widths(notes.clone()), 512 + 1024);
    assert_eq!(widths(mla(notes, |mla| MlaConfig { rotary_key: RotaryKey::Shared, ..mla })), 512 + 64);
}
