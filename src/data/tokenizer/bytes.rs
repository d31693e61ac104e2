//! The byte tokenizer without the machinery of a vocabulary: an id is looked up for each byte, some hundred times as fast.

use super::SPECIAL;
use std::array;

/// The ids of [`Tokenizer::bytes`](super::Tokenizer::bytes).
#[derive(Clone)]
pub(super) struct Bytes {
    ids: Box<[u32; 256]>,
}

impl Bytes {
    /// Reads the ids off `tokenizer`, which must have one for each byte.
    pub fn of(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Self> {
        // Each byte that UTF-8 has stands in one of these characters: the ends, and for what begins a character the first with it.
        let characters = (0..0xC0).chain((0xC0..0x1000).step_by(0x40)).chain((0x1000..=u32::from(char::MAX)).step_by(0x1000));
        let text: String = characters.filter_map(char::from_u32).collect();
        let mut ids = Box::new(array::from_fn(|_| 0));
        for (byte, &id) in text.bytes().zip(tokenizer.encode_fast(text.as_str(), false)?.get_ids()) {
            ids[usize::from(byte)] = id;
        }
        Ok(Self { ids })
    }

    /// The ids of `text`; special tokens written in it are recognised.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [byte, after @ ..] = rest {
            let special = match byte {
                b'<' => SPECIAL.iter().zip(0..).find(|(token, _)| rest.starts_with(token.as_bytes())),
                _ => None,
            };
            match special {
                Some((token, id)) => {
                    ids.push(id);
                    rest = &rest[token.len()..];
                }
                None => {
                    ids.push(self.ids[usize::from(*byte)]);
                    rest = after;
                }
            }
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use proptest::prelude::*;

    fn equal(text: &str) {
        let tokenizer = Tokenizer::bytes().unwrap();
        assert!(tokenizer.bytes.is_some());
        assert_eq!(tokenizer.encode(text).unwrap(), tokenizer.inner.encode_fast(text, false).unwrap().get_ids(), "{text:?}");
    }

    #[test]
    fn every_character_has_the_ids_of_the_vocabulary() {
        equal(&(0..=u32::from(char::MAX)).step_by(7).filter_map(char::from_u32).collect::<String>());
        equal(&(0..0x3000).filter_map(char::from_u32).collect::<String>());
    }

    #[test]
    fn a_loaded_one_is_recognised_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        Tokenizer::bytes().unwrap().save(dir.path()).unwrap();
        assert!(Tokenizer::load(dir.path()).unwrap().bytes.is_some());
        assert!(Tokenizer::load("tests/data/minimind-tokenizer").unwrap().bytes.is_none());
        let texts = std::iter::once(Ok("abab abab".to_string()));
        assert!(Tokenizer::train(texts, 260).unwrap().bytes.is_none());
    }

    proptest! {
        #[test]
        fn special_tokens_are_recognised_alike(parts in proptest::collection::vec(
            prop_oneof![
                Just("<|im_start|>".to_string()), Just("<|im_end|>".into()), Just("<|endoftext|>".into()), Just("<|im_".into()),
                Just("<".into()), Just("|>".into()), Just(" \n".into()), any::<String>()
            ], 0..12)) {
            equal(&parts.concat());
        }
    }
}
