//! Text to tokens. What begins with a dot (`.global`, `.rn`, the `.x` of `%tid.x`) is one token each, so that opcodes and
//! directives may be written with or without spaces between their parts, as NVIDIA's assembler allows.

use crate::{Error, Result};
use std::fmt;

/// The smallest meaningful pieces of PTX.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind<'a> {
    /// An identifier, `%r1` and `$L__BB0_2` included, or `_`.
    Word(&'a str),
    /// What begins with a dot, without the dot: `shared::cluster`.
    Dot(&'a str),
    /// An integer literal.
    Integer(u64),
    /// `0f3F800000`
    Float32(u32),
    /// `0d3FF0000000000000`
    Float64(u64),
    /// A number with a point or exponent, as written: a decimal float, or the version of the ISA.
    Decimal(&'a str),
    /// What stands between double quotes, escapes as written.
    Text(&'a str),
    /// `<<` or `>>`, by its character.
    Shift(char),
    /// Any other sign.
    Sign(char),
    /// The end of the text.
    End,
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Kind::Word(text) | Kind::Decimal(text) => f.write_str(text),
            Kind::Dot(text) => write!(f, ".{text}"),
            Kind::Integer(value) => write!(f, "{value}"),
            Kind::Float32(bits) => write!(f, "0f{bits:08X}"),
            Kind::Float64(bits) => write!(f, "0d{bits:016X}"),
            Kind::Text(text) => write!(f, "\"{text}\""),
            Kind::Shift(sign) => write!(f, "{sign}{sign}"),
            Kind::Sign(sign) => write!(f, "{sign}"),
            Kind::End => f.write_str("the end of the text"),
        }
    }
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token<'a> {
    pub kind: Kind<'a>,
    /// From 1.
    pub line: u32,
    /// Bytes from the start of the text.
    pub offset: usize,
}

/// An error at a byte of the text; the column counts characters.
pub(super) fn error_at(text: &str, offset: usize, message: String) -> Error {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Error::Syntax {
        line: count(before.matches('\n').count() + 1),
        column: count(before[line_start..].chars().count() + 1),
        message,
    }
}

/// All tokens of a text, `Kind::End` last.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>> {
    let mut lexer = Lexer { text, offset: 0, line: 1 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        tokens.push(token);
        if token.kind == Kind::End {
            return Ok(tokens);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

#[derive(Clone, Copy)]
/// Always stands at the start of a character: tokens are ASCII, comments and strings end at ASCII signs.
struct Lexer<'a> {
    text: &'a str,
    offset: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or("")
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(error_at(self.text, self.offset, message.into()))
    }

    /// Steps over `bytes`, counting lines.
    fn advance(&mut self, bytes: usize) -> &'a str {
        let passed = self.rest().get(..bytes).unwrap_or_else(|| self.rest());
        self.offset += passed.len();
        self.line = self.line.saturating_add(passed.matches('\n').count().try_into().unwrap_or(u32::MAX));
        passed
    }

    /// Steps over the characters that `wanted` takes.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.advance(rest.find(|c| !wanted(c)).unwrap_or(rest.len()))
    }

    fn skip_blanks(&mut self) -> Result<()> {
        loop {
            // A C string's terminator counts as a blank.
            self.take_while(|c| c.is_whitespace() || c == '\0');
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                match self.rest().find("*/") {
                    Some(end) => self.advance(end + 2),
                    None => return self.fail("this comment has no `*/`"),
                };
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>> {
        self.skip_blanks()?;
        let (line, offset) = (self.line, self.offset);
        let kind = match self.rest().chars().next() {
            None => Kind::End,
            Some('0'..='9') => self.number()?,
            Some('"') => self.string()?,
            Some('.') => self.dot()?,
            Some(c) if is_word(c) || c == '%' => self.word()?,
            Some(c @ ('<' | '>')) if self.rest().as_bytes().get(1) == Some(&(c as u8)) => {
                self.advance(2);
                Kind::Shift(c)
            }
            Some(c) if c.is_ascii_punctuation() => {
                self.advance(1);
                Kind::Sign(c)
            }
            Some(c) => return self.fail(format!("the character `{}` has no place in PTX", c.escape_default())),
        };
        Ok(Token { kind, line, offset })
    }

    /// `%` alone is the remainder sign.
    fn word(&mut self) -> Result<Kind<'a>> {
        let rest = self.rest();
        let prefix = usize::from(rest.starts_with('%'));
        let length = rest[prefix..].find(|c| !is_word(c)).unwrap_or(rest.len() - prefix);
        let word = self.advance(prefix + length);
        Ok(if word == "%" { Kind::Sign('%') } else { Kind::Word(word) })
    }

    fn dot(&mut self) -> Result<Kind<'a>> {
        let start = self.offset + 1;
        self.advance(1);
        self.take_while(is_word);
        while self.rest().strip_prefix("::").is_some_and(|after| after.starts_with(is_word)) {
            self.advance(2);
            self.take_while(is_word);
        }
        match self.text.get(start..self.offset) {
            Some(name) if !name.is_empty() => Ok(Kind::Dot(name)),
            _ => self.fail("expected a name after the dot"),
        }
    }

    /// A string is kept as written, for PTX never looks into it; a backslash only keeps a quote from ending it.
    fn string(&mut self) -> Result<Kind<'a>> {
        let body = &self.rest()[1..];
        let mut escaped = false;
        for (end, c) in body.char_indices() {
            match c {
                '\n' => break,
                '"' if !escaped => {
                    self.advance(end + 2);
                    return Ok(Kind::Text(&body[..end]));
                }
                _ => escaped = c == '\\' && !escaped,
            }
        }
        self.fail("this string has no closing quote on its line")
    }

    fn number(&mut self) -> Result<Kind<'a>> {
        let start = *self;
        let bad = |message: String| Err(error_at(start.text, start.offset, message));
        let mut text = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let prefix = text.as_bytes().get(1).map(u8::to_ascii_lowercase);
        if let (true, Some(b'f' | b'd')) = (text.starts_with('0'), prefix) {
            let (digits, wanted) = (&text[2..], if prefix == Some(b'f') { 8 } else { 16 });
            return match u64::from_str_radix(digits, 16) {
                Ok(bits) if digits.len() == wanted && wanted == 8 => Ok(Kind::Float32(bits as u32)),
                Ok(bits) if digits.len() == wanted => Ok(Kind::Float64(bits)),
                _ => bad(format!("`{text}` needs exactly {wanted} hexadecimal digits after its first two characters")),
            };
        }
        let hexadecimal = text.starts_with('0') && prefix == Some(b'x');
        let exponent = !hexadecimal && text.ends_with(['e', 'E']) && self.rest().starts_with(['+', '-']);
        if !hexadecimal && (exponent || self.rest().starts_with('.') || text.contains(['e', 'E'])) {
            return self.decimal(start.offset);
        }
        text = text.strip_suffix(['U', 'u']).unwrap_or(text);
        let (digits, radix) = match text.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&text[2..], 16),
            [b'0', b'b' | b'B', ..] => (&text[2..], 2),
            [b'0', _, ..] => (&text[1..], 8),
            _ => (text, 10),
        };
        match u64::from_str_radix(digits, radix) {
            Ok(value) => Ok(Kind::Integer(value)),
            Err(_) => bad(format!("`{text}` is not an integer of base {radix} with at most 64 bits")),
        }
    }

    /// A number with a point or an exponent that began at `start`.
    fn decimal(&mut self, start: usize) -> Result<Kind<'a>> {
        if self.rest().starts_with('.') {
            self.advance(1);
            self.take_while(|c| c.is_ascii_alphanumeric());
        }
        let so_far = |lexer: &Self| lexer.text.get(start..lexer.offset).unwrap_or("");
        if so_far(self).ends_with(['e', 'E']) && self.rest().starts_with(['+', '-']) {
            self.advance(1);
            self.take_while(|c| c.is_ascii_digit());
        }
        let text = so_far(self);
        match text.parse::<f64>() {
            Ok(_) => Ok(Kind::Decimal(text)),
            Err(_) => Err(error_at(self.text, start, format!("`{text}` is not a number"))),
        }
    }
}
