//! The library's one error type. Each message says what was wrong, where, and what was expected.

use std::path::{Path, PathBuf};

/// Everything that can go wrong in the library. The binary adds context with `anyhow`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are what the message says
pub enum Error {
    /// A tensor whose shape does not fit the operation.
    #[error("{op}: `{argument}` has shape {got}, expected {expected}")]
    Shape { op: &'static str, argument: &'static str, expected: String, got: String },

    /// A tensor whose element type does not fit the operation.
    #[error("{op}: `{argument}` has dtype {got}, expected {expected}")]
    DType { op: &'static str, argument: &'static str, expected: String, got: String },

    /// A setting that cannot be used: names the setting, its value and what would be accepted.
    #[error("{0}")]
    Config(String),

    /// A file or directory that could not be read or written. The message holds the cause, which is therefore no `source()`:
    /// whoever prints the chain of errors would print it twice.
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: std::io::Error },

    /// A file whose content is not what its format demands.
    #[error("{}: {message}", path.display())]
    Format { path: PathBuf, message: String },

    /// A bad line of a text or JSON-lines file; `line` counts from 1.
    #[error("{}:{line}: {message}", path.display())]
    Data { path: PathBuf, line: u64, message: String },

    /// A token id that the vocabulary does not hold.
    #[error("token id {id} is outside the vocabulary of {vocab_size} entries")]
    TokenId { id: i64, vocab_size: usize },

    /// A tokenizer that could not be loaded, trained or applied.
    #[error("tokenizer: {0}")]
    Tokenizer(String),

    /// A loss, gradient or activation that is no longer finite: names where it first appeared.
    #[error("{0}")]
    NonFinite(String),

    /// Software or hardware that is not there: what, every place that was looked at, and what to do.
    #[error("{what} was not found, or cannot be used. Looked at:\n{}To get it: {remedy}", looked.iter().map(|place| format!("  {place}\n")).collect::<String>())]
    Missing { what: String, looked: Vec<String>, remedy: String },

    /// CUDA source that does not compile; the log has the lines of the file.
    #[error("{source_name} does not compile for {arch}:\n{log}")]
    Compile { source_name: String, arch: String, log: String },

    /// Something that a device was asked to do and could not, or that a kernel did wrong.
    #[error("device: {0}")]
    Device(String),

    /// A broken promise inside the library: worth a bug report.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An input or output error together with the path that it happened on.
    pub fn io(path: impl AsRef<Path>, cause: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), cause }
    }

    /// A malformed file, named.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// A bad line of a data file; `line` counts from 1.
    pub fn data(path: impl AsRef<Path>, line: u64, message: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_path_buf(), line, message: message.into() }
    }

    /// Something that a device could not do.
    pub fn device(message: impl Into<String>) -> Self {
        Self::Device(message.into())
    }

    /// A setting that cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }
}
