//! Text to token ids and back: any `tokenizer.json` of the public format, a byte-level one that needs no training, and training.

mod bytes;

use super::bpe;
use crate::{Error, Result};
use bytes::Bytes;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    fmt::{self, Display},
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tokenizers::{
    ModelWrapper, OffsetReferential, OffsetType, PreTokenizer, models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel,
};

/// The special tokens of a tokenizer made here, in the order of their ids: padding, beginning and end of a document.
const SPECIAL: [&str; 3] = [PAD, BOS, EOS];
const PAD: &str = "<|endoftext|>";
const BOS: &str = "<|im_start|>";
const EOS: &str = "<|im_end|>";
const FILE: &str = "tokenizer.json";
const CONFIG_FILE: &str = "tokenizer_config.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";

/// How much text is counted at once when training: bounds the memory that the text itself takes.
const TRAINING_CHUNK: usize = 4 << 20;

/// A tokenizer. What it was loaded from is kept word for word, so that saving loses nothing.
///
/// A `tokenizer.json` may ask for truncation and padding; both are left to the data views here, which know the sample's length.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    config: Map<String, Value>,
    template: Option<String>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Where this is [`Tokenizer::bytes`]: its ids, looked up.
    bytes: Option<Bytes>,
}

impl Tokenizer {
    /// Loads `tokenizer.json`: `path` is that file or the directory that holds it. `tokenizer_config.json` and
    /// `chat_template.jinja` beside it are read where present.
    ///
    /// # Errors
    /// Files that cannot be read or are malformed; a BPE model with dropout, which would turn a text into other ids each time.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join(FILE) } else { path.to_path_buf() };
        let json = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        let inner = parse(&json).map_err(|e| Error::format(&file, format!("not a tokenizer: {e}")))?;
        if let ModelWrapper::BPE(BPE { dropout: Some(dropout), .. }) = inner.get_model()
            && *dropout != 0.0
        {
            let message = format!("BPE dropout {dropout} makes other ids of the same text each time; set model.dropout to null");
            return Err(Error::format(&file, message));
        }
        let config_file = file.with_file_name(CONFIG_FILE);
        let config = match read_if_there(&config_file)? {
            Some(text) => serde_json::from_str(&text).map_err(|e| Error::format(&config_file, e.to_string()))?,
            None => default_config(&inner),
        };
        let loaded = Self::assemble(inner, json, config, read_if_there(&file.with_file_name(TEMPLATE_FILE))?)?;
        let bytes = Self::bytes()?;
        Ok(Self { bytes: bytes.bytes.filter(|_| bytes.json == loaded.json), ..loaded })
    }

    /// The tokenizer that needs no training: the three special tokens (0 `<|endoftext|>` padding, 1 `<|im_start|>` beginning,
    /// 2 `<|im_end|>` end) and the 256 bytes, 259 entries. Any text survives encoding and decoding.
    pub fn bytes() -> Result<Self> {
        let tokenizer = Self::from_merges(bpe::learn(&HashMap::new(), alphabet(), 0))?;
        let bytes = Bytes::of(&tokenizer.inner).map_err(fail("encoding a text"))?;
        Ok(Self { bytes: Some(bytes), ..tokenizer })
    }

    /// Trains byte-level BPE on `texts`: GPT-2's splitting into words, no normalisation, no prefix space, the three special tokens
    /// first, then the 256 bytes, then one entry a merge up to `vocab_size` entries (fewer where the text has no pair left to merge).
    /// Equal texts give equal tokenizers. Memory grows with the number of distinct words, not with the text.
    ///
    /// # Errors
    /// `vocab_size` below 259, no text at all, and whatever error `texts` yields first.
    pub fn train(texts: impl IntoIterator<Item = Result<String>>, vocab_size: usize) -> Result<Self> {
        let base = Self::bytes()?;
        if vocab_size < base.vocab_size() {
            return Err(Error::config(format!(
                "a vocabulary of {vocab_size} entries is too small: the {} special tokens and the 256 bytes need {}",
                SPECIAL.len(),
                base.vocab_size()
            )));
        }
        let mut words = HashMap::new();
        let mut chunk = Vec::new();
        let mut bytes = 0;
        for text in texts {
            let text = text?;
            bytes += text.len();
            chunk.push(text);
            if bytes >= TRAINING_CHUNK {
                base.count_words(&chunk, &mut words)?;
                chunk.clear();
                bytes = 0;
            }
        }
        base.count_words(&chunk, &mut words)?;
        if words.is_empty() {
            return Err(Error::Tokenizer("there is no text to train on".into()));
        }
        Self::from_merges(bpe::learn(&words, alphabet(), vocab_size))
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` (which the public transformers library reads as a
    /// `PreTrainedTokenizerFast`) and, where the loaded directory had one, `chat_template.jinja` into `dir`, making it if it is
    /// not there. Each file is replaced as a whole; other files stay as they are.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        replace(&dir.join(FILE), &self.json)?;
        let config = serde_json::to_string_pretty(&self.config).map_err(fail("writing its configuration"))?;
        replace(&dir.join(CONFIG_FILE), &config)?;
        self.template.as_ref().map_or(Ok(()), |template| replace(&dir.join(TEMPLATE_FILE), template))
    }

    /// The ids of `text`. No special token is added; those written in the text are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.encode(text));
        }
        Ok(self.inner.encode_fast(text, false).map_err(fail("encoding a text"))?.get_ids().to_vec())
    }

    /// The text of `ids`, with or without the special tokens among them. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id that the vocabulary does not hold.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| self.token(id).is_none()) {
            return Err(Error::TokenId { id: id.into(), vocab_size: self.vocab_size() });
        }
        self.inner.decode(ids, skip_special).map_err(fail("decoding ids"))
    }

    /// A decoder for ids that arrive one by one.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, skip_special, ids: Vec::new(), fresh: 0, emitted: 0 }
    }

    /// Entries of the vocabulary, added tokens included, and never less than the largest id plus one.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        largest.max(self.inner.get_vocab_size(true))
    }

    /// The token that begins a document, named by `tokenizer_config.json`, or `<|im_start|>` where there is no such file.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a document, named by `tokenizer_config.json`, or `<|im_end|>` where there is no such file.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The token that fills short samples, named by `tokenizer_config.json`, or `<|endoftext|>` where there is no such file.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad
    }

    /// The id of `token` as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of `id` as the vocabulary spells it: byte-level vocabularies spell a space `Ġ`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// BLAKE3 of `tokenizer.json` and of the three special ids: equal where every text becomes the same ids.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for id in [self.bos, self.eos, self.pad] {
            hasher.update(&id.map_or(u64::MAX, u64::from).to_le_bytes());
        }
        hasher.update(self.json.as_bytes()).finalize()
    }

    fn from_merges(learned: bpe::Merges) -> Result<Self> {
        let added: Vec<Value> = SPECIAL
            .iter()
            .enumerate()
            .map(|(id, content)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let vocab: Map<String, Value> = learned.vocab.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": learned.merges,
            },
        });
        let json = serde_json::to_string_pretty(&json).map_err(fail("writing it"))?;
        let inner = parse(&json).map_err(fail("reading it back"))?;
        let config = default_config(&inner);
        Self::assemble(inner, json, config, None)
    }

    fn assemble(inner: tokenizers::Tokenizer, json: String, config: Map<String, Value>, template: Option<String>) -> Result<Self> {
        let special = |field: &str| -> Result<Option<u32>> {
            // A plain string, or an object with the token's text and flags.
            let Some(token) = config.get(field).and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str())) else {
                return Ok(None);
            };
            inner
                .token_to_id(token)
                .map(Some)
                .ok_or_else(|| Error::Tokenizer(format!("{CONFIG_FILE} names `{token}` as {field}, but {FILE} has no such token")))
        };
        let (bos, eos, pad) = (special("bos_token")?, special("eos_token")?, special("pad_token")?);
        Ok(Self { inner, json, config, template, bos, eos, pad, bytes: None })
    }

    /// Adds to `words` how often each byte-level word stands in `texts`. Special tokens are not words.
    fn count_words(&self, texts: &[String], words: &mut HashMap<String, u64>) -> Result<()> {
        let count = |text: &String| -> tokenizers::Result<HashMap<String, u64>> {
            let mut split = self.inner.get_added_vocabulary().extract_and_normalize(self.inner.get_normalizer(), text);
            ByteLevel::new(false, true, true).pre_tokenize(&mut split)?;
            let mut words = HashMap::new();
            for (word, _, special) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                if special.is_none() {
                    *words.entry(word.to_string()).or_default() += 1;
                }
            }
            Ok(words)
        };
        let counted: Vec<_> = texts.par_iter().map(count).collect::<tokenizers::Result<_>>().map_err(fail("splitting text"))?;
        for (word, n) in counted.into_iter().flatten() {
            *words.entry(word).or_default() += n;
        }
        Ok(())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// Text of ids that arrive one by one, given out as soon as it is whole characters. See [`Tokenizer::decode_stream`].
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    /// A window: ids whose text was given out, kept because some decoders look at what stands before, then `ids[fresh..]`.
    ids: Vec<u32>,
    fresh: usize,
    /// Bytes of the window's text that were given out.
    emitted: usize,
}

impl DecodeStream<'_> {
    /// Takes the next id; returns the text that is complete by now, often empty in the middle of a character.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        // Only the last replacement character can stand for the first bytes of a character that is still to be completed.
        let complete = text.strip_suffix('\u{FFFD}').unwrap_or(&text);
        let new = complete.get(self.emitted..).unwrap_or_default().to_string();
        self.emitted = self.emitted.max(complete.len());
        if complete.len() == text.len() {
            self.ids.drain(..self.fresh);
            self.fresh = self.ids.len();
            self.emitted = self.tokenizer.decode(&self.ids, self.skip_special)?.len();
        }
        Ok(new)
    }

    /// Ends the stream; returns what is left: U+FFFD for a character that was never completed.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(text.get(self.emitted..).unwrap_or_default().to_string())
    }
}

/// The vocabulary before any merge: the special tokens, then the 256 bytes in the order of the characters that spell them.
fn alphabet() -> Vec<String> {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    SPECIAL.into_iter().map(String::from).chain(bytes.into_iter().map(String::from)).collect()
}

fn parse(json: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer: tokenizers::Tokenizer = json.parse()?;
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// What `tokenizer_config.json` says where there is none: the three names, as far as the vocabulary has them.
fn default_config(tokenizer: &tokenizers::Tokenizer) -> Map<String, Value> {
    let tokens = [("bos_token", BOS), ("eos_token", EOS), ("pad_token", PAD)];
    let known = tokens.into_iter().filter(|(_, token)| tokenizer.token_to_id(token).is_some());
    let class = [("tokenizer_class", json!("PreTrainedTokenizerFast")), ("clean_up_tokenization_spaces", json!(false))];
    let tokens = known.map(|(field, token)| (field, json!(token)));
    class.into_iter().chain(tokens).map(|(field, value)| (field.to_string(), value)).collect()
}

fn read_if_there(path: &PathBuf) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// Writes beside and renames, so that a reader never sees half a file.
fn replace(path: &Path, content: &str) -> Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = fs::File::create(&beside)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| Error::io(path, e))
}

fn fail<E: Display>(what: &'static str) -> impl Fn(E) -> Error {
    move |e| Error::Tokenizer(format!("{what}: {e}"))
}
