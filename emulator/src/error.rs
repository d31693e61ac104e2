//! The crate's one error type: why something could not be parsed, loaded or launched. What a kernel does wrong while it runs is
//! a finding, not an error.

/// Why PTX could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are what the message says
pub enum Error {
    /// The text is not PTX; `line` and `column` count from 1.
    #[error("PTX line {line}, column {column}: {message}")]
    Syntax { line: u32, column: u32, message: String },

    /// An instruction, or a form of one, that the emulator does not know. It never guesses.
    #[error("PTX line {line}: `{instruction}` is not supported{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Unsupported { line: u32, instruction: String, reason: Option<String> },

    /// A statement that contradicts itself or its surroundings: an undeclared name, a wrong operand.
    #[error("PTX line {line}: {message}")]
    Invalid { line: u32, message: String },

    /// A launch, allocation or copy that cannot be done as asked.
    #[error("{0}")]
    Launch(String),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
