//! The fields of a `config.json`, read by name and type: one of another type is an error that names it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The fields of a file, or of an object in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    /// What precedes the names in messages: of an object in the file, its own name and a dot.
    prefix: &'static str,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Those of the file at `path`.
    pub fn new(path: &'a Path, fields: &'a Map<String, Value>) -> Self {
        Self { path, prefix: "", fields }
    }

    /// Those of an object in the file; none where it is absent, null or empty. `prefix` is `name` and a dot.
    pub fn object(&self, name: &str, prefix: &'static str) -> Result<Option<Self>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok((!fields.is_empty()).then_some(Self { prefix, fields, ..*self })),
            Some(other) => Err(self.mismatch(name, other, "an object")),
        }
    }

    /// An error about the file.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::format(self.path, message)
    }

    /// An error that says what a field has and what is supported.
    pub fn unsupported(&self, name: &str, supported: &str) -> Error {
        let value = self.fields.get(name).unwrap_or(&Value::Null);
        self.error(format!("`{}{name}` is {value}, which is not supported; supported: {supported}", self.prefix))
    }

    fn mismatch(&self, name: &str, value: &Value, expected: &str) -> Error {
        self.error(format!("`{}{name}` is {value}, expected {expected}", self.prefix))
    }

    /// An error for a field that has to be there.
    pub fn missing(&self, name: &str) -> Error {
        self.error(format!("`{}{name}` is missing", self.prefix))
    }

    /// The names of the fields that are not null.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
    }

    /// The value under a name; `null` counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there and null.
    pub fn is_null(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(Value::is_null)
    }

    /// A field that may be left out, but not be null.
    fn read<T>(&self, name: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        self.fields.get(name).map(|value| read(value).ok_or_else(|| self.mismatch(name, value, expected))).transpose()
    }

    pub fn usize(&self, name: &str) -> Result<Option<usize>> {
        self.read(name, "a whole number", |v| v.as_u64().and_then(|x| usize::try_from(x).ok()))
    }

    /// One number under either of two names.
    pub fn usize_of(&self, names: [&str; 2]) -> Result<Option<usize>> {
        let [first, second] = [self.usize(names[0])?, self.usize(names[1])?];
        match (first, second) {
            (Some(a), Some(b)) if a != b => {
                Err(self.error(format!("`{}` is {a}, but `{}`, another name of the same, is {b}", names[0], names[1])))
            }
            _ => Ok(first.or(second)),
        }
    }

    /// A list of whole numbers; null is an empty one.
    pub fn list(&self, name: &str) -> Result<Vec<usize>> {
        let numbers = |v: &Value| v.as_array()?.iter().map(|x| usize::try_from(x.as_u64()?).ok()).collect();
        if self.is_null(name) {
            Ok(Vec::new())
        } else {
            Ok(self.read(name, "a list of whole numbers", numbers)?.unwrap_or_default())
        }
    }

    pub fn f64(&self, name: &str) -> Result<Option<f64>> {
        self.read(name, "a number", Value::as_f64)
    }

    /// A number that may be null as well, which counts as absent.
    pub fn nullable_f64(&self, name: &str) -> Result<Option<f64>> {
        if self.is_null(name) { Ok(None) } else { self.f64(name) }
    }

    pub fn bool(&self, name: &str) -> Result<Option<bool>> {
        let truth = |v: &Value| v.as_bool().or_else(|| v.as_u64().filter(|&x| x < 2).map(|x| x == 1));
        self.read(name, "true or false", truth)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.read(name, "text", Value::as_str)
    }

    /// A token id, of a list of them (several end tokens) the first; null is none. `default` where the field is left out.
    pub fn token(&self, name: &str, default: Option<u32>) -> Result<Option<u32>> {
        if self.is_null(name) {
            return Ok(None);
        }
        let id = |v: &Value| u32::try_from(v.as_array().and_then(|ids| ids.first()).unwrap_or(v).as_u64()?).ok();
        Ok(self.read(name, "a token id", id)?.or(default))
    }
}
