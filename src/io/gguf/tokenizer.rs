//! A byte-level BPE tokenizer as GGUF keys.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::value::Value;
use crate::data::Tokenizer;
use crate::model::ModelConfig;
use crate::{Error, Result};

/// What becomes of a token in a text; the numbers are llama.cpp's.
mod kind {
    pub const NORMAL: i32 = 1;
    /// Not text: the beginning of a document, the end of a turn.
    pub const CONTROL: i32 = 3;
    /// Text that is one token wherever it stands.
    pub const USER_DEFINED: i32 = 4;
    /// In the model's vocabulary, but no token.
    pub const UNUSED: i32 = 5;
}

/// How Qwen and Llama 3 cut a text into words: they differ in how many digits stand together.
fn word_pattern(digits: &str) -> String {
    let contraction = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    let rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    format!(r"{contraction}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}{rest}")
}

/// The keys of the tokenizer in `dir`, for a model of this configuration.
pub(super) fn keys(dir: &Path, config: &ModelConfig) -> Result<Vec<(String, Value)>> {
    let tokenizer = Tokenizer::load(dir)?;
    let path = dir.join("tokenizer.json");
    let json = read_json(&path)?.ok_or_else(|| Error::format(&path, "is missing"))?;
    let settings = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    let error = |message: String| Error::format(&path, message);
    if tokenizer.vocab_size() > config.vocab_size {
        let (has, model) = (tokenizer.vocab_size(), config.vocab_size);
        return Err(error(format!("has {has} tokens, the model of config.json {model}")));
    }
    let pre = splitting(&json).map_err(|what| {
        error(format!(
            "{what} cannot be written as GGUF; supported is byte-level BPE that splits words as GPT-2, Llama 3 or Qwen2 does"
        ))
    })?;
    let merges = merges(&json).ok_or_else(|| error("its merges are not pairs of tokens".into()))?;
    let (tokens, kinds) = tokens(&tokenizer, &json, config.vocab_size);
    let mut keys = vec![
        ("model", Value::from("gpt2")),
        ("pre", pre.into()),
        ("tokens", Value::Texts(tokens)),
        ("token_type", Value::I32s(kinds)),
        ("merges", Value::Texts(merges)),
    ];
    for (key, id) in [
        ("bos_token_id", tokenizer.bos_id().or(config.bos_token_id)),
        ("eos_token_id", tokenizer.eos_id().or(config.eos_token_id)),
        ("padding_token_id", tokenizer.pad_id().or(config.pad_token_id)),
    ] {
        keys.extend(id.map(|id| (key, id.into())));
    }
    for (key, field, first) in [("add_bos_token", "add_bos_token", true), ("add_eos_token", "add_eos_token", false)] {
        let asked = settings.get(field).and_then(Json::as_bool);
        keys.push((key, asked.unwrap_or_else(|| template_adds(&json, first)).into()));
    }
    let mut keys: Vec<_> = keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    if let Some(template) = chat_template(dir, &settings)? {
        keys.push(("tokenizer.chat_template".into(), Value::Text(template)));
    }
    Ok(keys)
}

fn read_json(path: &Path) -> Result<Option<Json>> {
    match read_text(path)? {
        Some(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::format(path, format!("not JSON: {e}"))),
        None => Ok(None),
    }
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// llama.cpp's name of how a text is cut into words, or what is not supported.
fn splitting(json: &Json) -> Result<&'static str, String> {
    let model = &json["model"];
    if model["type"] != "BPE" || model["byte_fallback"] == true {
        return Err(format!(
            "a model of the type {}{}",
            model["type"],
            if model["byte_fallback"] == true { " over bytes" } else { "" }
        ));
    }
    let normalizer = &json["normalizer"];
    // NFC leaves nearly every text as it is, and llama.cpp knows none: the public files of Qwen2 are the same in this.
    if !(normalizer.is_null() || normalizer["type"] == "NFC") {
        return Err(format!("the normalizer {normalizer}"));
    }
    let pre = &json["pre_tokenizer"];
    let byte_level = |part: &Json, splits: bool| {
        part["type"] == "ByteLevel" && part["add_prefix_space"] == false && part["use_regex"].as_bool().unwrap_or(true) == splits
    };
    if byte_level(pre, true) {
        return Ok("gpt-2");
    }
    if let Some([split, last]) = pre["pretokenizers"].as_array().map(Vec::as_slice)
        && split["type"] == "Split"
        && split["behavior"] == "Isolated"
        && split["invert"] != true
        && byte_level(last, false)
        && let Some(pattern) = split["pattern"]["Regex"].as_str()
    {
        // llama.cpp's Llama 3 takes whole words of the vocabulary before it merges, its Qwen2 does not.
        let whole_words = model["ignore_merges"] == true;
        if pattern == word_pattern(r"\p{N}{1,3}") && whole_words {
            return Ok("llama-bpe");
        }
        if pattern == word_pattern(r"\p{N}") && !whole_words {
            return Ok("qwen2");
        }
    }
    Err(format!("the pre-tokenizer {pre}"))
}

/// Each merge as two tokens with a space between: no byte-level token holds one.
fn merges(json: &Json) -> Option<Vec<String>> {
    let merge = |merge: &Json| match merge.as_array().map(Vec::as_slice) {
        Some([first, second]) => Some(format!("{} {}", first.as_str()?, second.as_str()?)),
        _ => merge.as_str().map(str::to_owned),
    };
    json["model"]["merges"].as_array()?.iter().map(merge).map(|merge| merge.filter(|m| m.matches(' ').count() == 1)).collect()
}

/// The token of each id of the model, and what becomes of it in a text.
fn tokens(tokenizer: &Tokenizer, json: &Json, vocab_size: usize) -> (Vec<String>, Vec<i32>) {
    let added = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let special: HashMap<u64, bool> =
        added.iter().filter_map(|token| Some((token["id"].as_u64()?, token["special"].as_bool()?))).collect();
    let token = |id: usize| match u32::try_from(id).ok().and_then(|id| tokenizer.token(id)) {
        None => (format!("[PAD{id}]"), kind::UNUSED),
        Some(text) => match special.get(&(id as u64)) {
            Some(true) => (text, kind::CONTROL),
            Some(false) => (text, kind::USER_DEFINED),
            None => (text, kind::NORMAL),
        },
    };
    (0..vocab_size).map(token).unzip()
}

/// Whether the tokenizer puts a special token before, or after, each text.
fn template_adds(json: &Json, first: bool) -> bool {
    let processor = &json["post_processor"];
    let parts = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    parts.iter().filter_map(|part| part["single"].as_array()).any(|pieces| {
        let piece = if first { pieces.first() } else { pieces.last() };
        piece.is_some_and(|piece| piece.get("SpecialToken").is_some())
    })
}

/// The chat template: a file of its own, or a text in `tokenizer_config.json`; of several, the default one.
fn chat_template(dir: &Path, settings: &Json) -> Result<Option<String>> {
    if let Some(template) = read_text(&dir.join("chat_template.jinja"))? {
        return Ok(Some(template));
    }
    let template = match &settings["chat_template"] {
        Json::Array(several) => several.iter().find(|one| one["name"] == "default").map(|one| &one["template"]),
        one => Some(one),
    };
    Ok(template.and_then(Json::as_str).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bpe(pre: Json, whole_words: bool) -> Json {
        json!({ "model": { "type": "BPE", "ignore_merges": whole_words }, "normalizer": null, "pre_tokenizer": pre })
    }

    fn split(pattern: &str) -> Json {
        let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": false });
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false }, byte_level] })
    }

    #[test]
    fn public_splittings_are_told_apart() {
        let llama =
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let qwen = llama.replace("{1,3}", "");
        assert_eq!(splitting(&bpe(split(llama), true)), Ok("llama-bpe"));
        assert_eq!(splitting(&bpe(split(&qwen), false)), Ok("qwen2"));
        let byte_level = |space: bool| json!({ "type": "ByteLevel", "add_prefix_space": space, "use_regex": true });
        assert_eq!(splitting(&bpe(byte_level(false), false)), Ok("gpt-2"));
        for other in [bpe(split(llama), false), bpe(split(r"\s+"), false), bpe(byte_level(true), false), bpe(json!(null), false)] {
            assert!(splitting(&other).unwrap_err().contains("the pre-tokenizer"), "{other}");
        }
        assert!(splitting(&json!({ "model": { "type": "Unigram" } })).unwrap_err().contains("Unigram"));
        assert!(splitting(&json!({ "model": { "type": "BPE", "byte_fallback": true } })).unwrap_err().contains("over bytes"));
    }

    #[test]
    fn both_forms_of_merges_and_templates() {
        let with = |merges: Json| merges_of(&merges);
        fn merges_of(merges: &Json) -> Option<Vec<String>> {
            super::merges(&json!({ "model": { "merges": merges } }))
        }
        assert_eq!(with(json!([["a", "b"], ["ab", "Ġc"]])), Some(vec!["a b".into(), "ab Ġc".into()]));
        assert_eq!(with(json!(["a b"])), Some(vec!["a b".into()]));
        assert_eq!(with(json!([["a", "b c"]])), None);
        let processor = json!({ "post_processor": { "type": "Sequence", "processors": [
            { "type": "ByteLevel" },
            { "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>" } }, { "Sequence": { "id": "A" } }] }] } });
        assert_eq!([true, false].map(|first| template_adds(&processor, first)), [true, false]);
        assert!(!template_adds(&json!({ "post_processor": null }), true));
    }
}
