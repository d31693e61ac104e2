//! How a model directory wants its model to be sampled: `generation_config.json`, as the transformers library writes it.

use std::path::Path;

use serde_json::{Map, Value};

use super::Sampling;
use crate::model::ModelConfig;
use crate::{Error, Result};

const FILE: &str = "generation_config.json";

/// What generation takes where nobody says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The tokens that end a text: chat models have several.
    pub end_tokens: Vec<u32>,
}

impl Defaults {
    /// Those of the model in `dir`: what its `generation_config.json` says, else [`Sampling::default`] and the end token of its
    /// configuration.
    ///
    /// An error that names a field of the wrong type, or a value that nothing can be drawn with.
    pub fn read(dir: &Path, config: &ModelConfig) -> Result<Self> {
        let path = dir.join(FILE);
        let mut defaults = Self { sampling: Sampling::default(), end_tokens: config.eos_token_id.into_iter().collect() };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(defaults),
            Err(error) => return Err(Error::io(&path, error)),
        };
        let fields: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| Error::format(&path, format!("not a JSON object: {e}")))?;
        defaults.lay_over(&fields).map_err(|message| Error::format(&path, message))?;
        defaults.sampling.validate().map_err(|e| Error::format(&path, e.to_string()))?;
        Ok(defaults)
    }

    fn lay_over(&mut self, fields: &Map<String, Value>) -> Result<(), String> {
        let sampling = &mut self.sampling;
        for (name, slot) in [
            ("temperature", &mut sampling.temperature),
            ("top_p", &mut sampling.top_p),
            ("min_p", &mut sampling.min_p),
            ("repetition_penalty", &mut sampling.repetition_penalty),
        ] {
            if let Some(value) = field(fields, name, "a number", Value::as_f64)? {
                *slot = value;
            }
        }
        let whole = |value: &Value| value.as_u64().and_then(|x| usize::try_from(x).ok());
        if let Some(top_k) = field(fields, "top_k", "a whole number", whole)? {
            sampling.top_k = top_k;
        }
        if field(fields, "do_sample", "true or false", Value::as_bool)? == Some(false) {
            sampling.temperature = 0.0;
        }
        let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let tokens = |value: &Value| match value {
            Value::Array(ids) => ids.iter().map(token).collect(),
            id => token(id).map(|id| vec![id]),
        };
        if let Some(ids) = field(fields, "eos_token_id", "a token id or a list of them", tokens)? {
            self.end_tokens = ids;
        }
        Ok(())
    }
}

/// A field; `null` counts as absent.
fn field<T>(fields: &Map<String, Value>, name: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
    let value = fields.get(name).filter(|value| !value.is_null());
    value.map(|value| read(value).ok_or_else(|| format!("`{name}` is {value}, expected {kind}"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Defaults> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Defaults::read(dir.path(), &ModelConfig::minimind2(64, 1, 10))
    }

    #[test]
    fn what_is_said_and_what_is_not() {
        let none = Defaults { sampling: Sampling::default(), end_tokens: vec![2] };
        assert_eq!(Defaults::read(tempfile::tempdir().unwrap().path(), &ModelConfig::minimind2(64, 1, 10)).unwrap(), none);
        assert_eq!(read("{}").unwrap(), none);
        assert_eq!(read(r#"{"top_p": null, "eos_token_id": null}"#).unwrap(), none);
        let all = read(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [7, 9]}"#).unwrap();
        let sampling = Sampling { temperature: 0.6, top_k: 20, top_p: 0.95, ..Sampling::default() };
        assert_eq!(all, Defaults { sampling, end_tokens: vec![7, 9] });
        let greedy = read(r#"{"do_sample": false, "temperature": 0.6, "eos_token_id": 3}"#).unwrap();
        assert_eq!((greedy.sampling.temperature, greedy.end_tokens), (0.0, vec![3]));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, phrase) in [
            ("[]", "not a JSON object"),
            (r#"{"temperature": "hot"}"#, "`temperature` is \"hot\", expected a number"),
            (r#"{"top_k": -1}"#, "`top_k` is -1, expected a whole number"),
            (r#"{"eos_token_id": [1, "x"]}"#, "`eos_token_id` is [1,\"x\"], expected a token id or a list of them"),
            (r#"{"top_p": 0}"#, "top-p is 0; it must be in (0, 1]"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(phrase), "{error}");
        }
    }
}
