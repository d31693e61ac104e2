//! The tokenizer against golden encodings of the public implementation, and what it writes read back.

use ferromind::{Error, Result, data::Tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use std::{fs, path::Path};

const PUBLIC: &str = "tests/data/minimind-tokenizer";

fn golden(file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(Path::new(PUBLIC).join(file)).unwrap()).unwrap()
}

fn check(tokenizer: &Tokenizer, cases: &Value, decoded: &str) {
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), case[decoded].as_str().unwrap());
        assert_eq!(stream(tokenizer, &ids, false), tokenizer.decode(&ids, false).unwrap());
    }
}

fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.decode_stream(skip_special);
    let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    text += &stream.finish().unwrap();
    text
}

#[test]
fn encodings_equal_the_public_ones() {
    let tokenizer = Tokenizer::load(PUBLIC).unwrap();
    check(&tokenizer, &golden("golden.json"), "decoded");
    check(&tokenizer, &golden("golden_encode.json")["cases"], "decode_keep_special");
    assert_eq!(tokenizer.vocab_size(), 6400);
    assert_eq!((tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()), (Some(0), Some(1), Some(2)));
    assert_eq!(tokenizer.decode(&[1, 1602, 2], true).unwrap(), "Hello");
    assert!(matches!(tokenizer.decode(&[6400], true), Err(Error::TokenId { id: 6400, vocab_size: 6400 })));
}

#[test]
fn saving_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = Tokenizer::load(format!("{PUBLIC}/tokenizer.json")).unwrap();
    fs::write(dir.path().join("model.safetensors"), "kept").unwrap();
    loaded.save(dir.path()).unwrap();
    let read = |file: &str| -> Value { serde_json::from_str(&fs::read_to_string(dir.path().join(file)).unwrap()).unwrap() };
    assert_eq!(read("tokenizer.json"), golden("tokenizer.json"));
    assert_eq!(read("tokenizer_config.json"), golden("tokenizer_config.json"));
    assert_eq!(fs::read_to_string(dir.path().join("model.safetensors")).unwrap(), "kept");
    assert_eq!(Tokenizer::load(dir.path()).unwrap().fingerprint(), loaded.fingerprint());
}

#[test]
fn without_a_configuration_the_three_names_count() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(format!("{PUBLIC}/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()), (Some(0), Some(1), Some(2)));

    let config = dir.path().join("tokenizer_config.json");
    fs::write(&config, r#"{"bos_token": null, "eos_token": {"content": "<think>"}}"#).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()), (None, None, Some(25)));
    fs::write(&config, r#"{"eos_token": "</s>"}"#).unwrap();
    let message = Tokenizer::load(dir.path()).err().unwrap().to_string();
    assert!(message.contains("`</s>` as eos_token"), "{message}");
}

#[test]
fn truncation_and_padding_in_the_file_are_not_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut json = golden("tokenizer.json");
    json["truncation"] = serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().encode("Hello, world!").unwrap().len(), 4);
}

#[test]
fn bytes_is_an_ordinary_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = Tokenizer::bytes().unwrap();
    assert_eq!(bytes.vocab_size(), 259);
    assert_eq!((bytes.pad_id(), bytes.bos_id(), bytes.eos_id()), (Some(0), Some(1), Some(2)));
    assert_eq!(bytes.encode("<|im_start|>é<|im_end|>").unwrap().len(), 4);
    bytes.save(dir.path()).unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(loaded.fingerprint(), bytes.fingerprint());
    assert_eq!(loaded.encode("hé\n").unwrap(), bytes.encode("hé\n").unwrap());
    let config: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(config["pad_token"], "<|endoftext|>");
}

#[test]
fn a_stream_holds_back_only_unfinished_characters() {
    let bytes = Tokenizer::bytes().unwrap();
    let mut stream = bytes.decode_stream(true);
    let pieces: Vec<String> = bytes.encode("a🎉é").unwrap().into_iter().map(|id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", "", "", "🎉", "", "é"]);
    assert_eq!(stream.finish().unwrap(), "");

    let ids = bytes.encode("é!").unwrap();
    let mut stream = bytes.decode_stream(true);
    let broken = [ids[0], ids[2], ids[1], ids[2], ids[0]];
    let pieces: Vec<String> = broken.into_iter().map(|id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["", "\u{FFFD}!", "", "\u{FFFD}!", ""]);
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

proptest! {
    #[test]
    fn any_text_survives_bytes(text in any::<String>()) {
        let bytes = Tokenizer::bytes().unwrap();
        let ids = bytes.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), text.len());
        prop_assert_eq!(bytes.decode(&ids, true).unwrap(), text.clone());
    }

    #[test]
    fn a_stream_gives_the_whole_text_of_any_ids(ids in proptest::collection::vec(0u32..259, 0..40), skip in any::<bool>()) {
        let bytes = Tokenizer::bytes().unwrap();
        prop_assert_eq!(stream(&bytes, &ids, skip), bytes.decode(&ids, skip).unwrap());
    }
}

/// Two thousand words of a small language.
fn corpus() -> Vec<String> {
    let syllables = ["ka", "lo", "mi", "te", "rün", "sha", "o", "北", "pe", "zur"];
    let philox = ferromind::rng::Philox::new(5);
    let word = |w: u64| -> String {
        (0..1 + philox.below(2 * w, 4)).map(|s| syllables[philox.below(1000 * w + s, 10) as usize]).collect()
    };
    (0..100).map(|d| (0..20).map(|w| word(philox.below(7000 + 20 * d + w, 300))).collect::<Vec<_>>().join(" ")).collect()
}

fn train(vocab_size: usize) -> Result<Tokenizer> {
    Tokenizer::train(corpus().into_iter().map(Ok), vocab_size)
}

#[test]
fn training_twice_gives_equal_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(400).unwrap().save(a.path()).unwrap();
    train(400).unwrap().save(b.path()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(a.path().join(file)).unwrap(), fs::read(b.path().join(file)).unwrap());
    }
    let trained = Tokenizer::load(a.path()).unwrap();
    assert_eq!(trained.vocab_size(), 400);
    let text = corpus().concat();
    let ids = trained.encode(&text).unwrap();
    assert!(ids.len() * 2 < text.len());
    assert_eq!(trained.decode(&ids, false).unwrap(), text);
    // All that is the model's frame equals the public tokenizer's.
    let ours: Value = serde_json::from_str(&fs::read_to_string(a.path().join("tokenizer.json")).unwrap()).unwrap();
    for part in ["normalizer", "pre_tokenizer", "post_processor", "truncation", "padding"] {
        assert_eq!(ours[part], golden("tokenizer.json")[part]);
    }
}

#[test]
fn merges_equal_the_public_trainer() {
    use tokenizers::models::{TrainerWrapper, bpe::BpeTrainer};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|t| tokenizers::AddedToken::from(t, true));
    let trainer = BpeTrainer::builder()
        .vocab_size(400)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut public = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
    public.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    public.train(&mut TrainerWrapper::from(trainer), corpus().into_iter()).unwrap();
    let public: Value = serde_json::from_str(&public.to_string(false).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    train(400).unwrap().save(dir.path()).unwrap();
    let ours: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(ours["model"]["vocab"], public["model"]["vocab"]);
    assert_eq!(ours["model"]["merges"], public["model"]["merges"]);
}

#[test]
fn errors_say_what_to_do() {
    let small = train(258).err().unwrap().to_string();
    assert!(small.contains("258") && small.contains("259"), "{small}");
    let none = Tokenizer::train(std::iter::empty(), 300).err().unwrap().to_string();
    assert!(none.contains("no text"), "{none}");
    let bad = Tokenizer::train([Err(Error::config("first")), Ok("x".into())], 300).err().unwrap().to_string();
    assert_eq!(bad, "first");
    let missing = Tokenizer::load("no/such/dir").err().unwrap().to_string();
    assert!(missing.contains("no/such/dir"), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let foreign = Tokenizer::load(dir.path()).err().unwrap().to_string();
    assert!(foreign.contains("tokenizer.json") && foreign.contains("not a tokenizer"), "{foreign}");
}
