//! Streams documents out of text files, whatever their size, in memory that does not grow with the file.
//!
//! **Which files.** Paths, patterns and directories, by the rule of [`super::files`]. A file that is packed by gzip or
//! zstd is unpacked as it is read; all that follows holds for what is in it.
//!
//! **Which format.** `.jsonl` and `.ndjson` are JSON lines, `.txt` is plain text, `.gz` and `.zst` behind them left aside. Of any
//! other file the first byte that is not blank decides: `{` means JSON lines, everything else plain text, except that a `.json`
//! file must be JSON lines.
//!
//! **JSON lines**: each line is an object whose `text` is a document; other fields are left alone. Blank lines and empty texts
//! are passed over in silence. A line is held in memory as a whole.
//!
//! **Plain text**: the file is one document. CRLF becomes LF. A byte order mark is dropped, here and in JSON lines.
//!
//! **Pieces.** A document comes as pieces of at most [`Piece::BYTES`], to be tokenized one by one. They are cut after a
//! newline that stands alone between two characters that are not blank: byte-level tokenizers split words there anyhow, so that
//! the pieces' ids are the document's. Text without such a place is cut before its last blank, where GPT-2's splitting makes no
//! difference either, and a text without blanks between two characters.
//!
//! **Bad lines**: not JSON, no `text` or one that is no string, not UTF-8. Each is an error with its file and line, or is counted
//! and passed over. In plain text only wrong UTF-8 is bad, and the rest of its line is
//! passed over (of a line shorter than a piece, the whole line, unless it is the last and lacks its newline).

mod unpack;

use super::files;
use crate::{Error, Result};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{BufRead, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use unpack::Text;

/// How a file holds its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object `{"text": …}` a line.
    JsonLines,
    /// The whole file is one document.
    Plain,
}

impl Format {
    /// The format of the file at `path`, by the module's rule.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let extension = files::extension(path);
        match extension.as_deref() {
            Some("jsonl" | "ndjson") => return Ok(Self::JsonLines),
            Some("txt") => return Ok(Self::Plain),
            _ => {}
        }
        let mut reader = unpack::open(path, &Arc::default())?;
        loop {
            let bytes = reader.fill_buf().map_err(|e| unpack::failure(path, e))?;
            match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
                Some(b'{') => return Ok(Self::JsonLines),
                Some(_) if extension.as_deref() == Some("json") => {
                    return Err(Error::format(path, "expected one JSON object a line, {\"text\": …}, as in a .jsonl file"));
                }
                Some(_) => return Ok(Self::Plain),
                None if bytes.is_empty() => return Ok(Self::Plain),
                None => {
                    let blank = bytes.len();
                    reader.consume(blank);
                }
            }
        }
    }
}

/// A part of a document, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Never empty.
    pub text: String,
    /// Whether the document begins here.
    pub begins: bool,
    /// Whether the document ends here.
    pub ends: bool,
}

impl Piece {
    /// The most bytes that a piece has.
    pub const BYTES: usize = 64 << 10;

    /// A document in memory as pieces.
    pub fn of(document: &str) -> impl Iterator<Item = Self> {
        let mut rest = document;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let begins = rest.len() == document.len();
            let (text, after) = rest.split_at(cut(rest).unwrap_or(rest.len()));
            rest = after;
            Some(Self { text: text.to_string(), begins, ends: after.is_empty() })
        })
    }
}

/// Where the first piece of `text` ends, by the module's rule; none where `text` is one piece.
fn cut(text: &str) -> Option<usize> {
    if text.len() <= Piece::BYTES {
        return None;
    }
    let boundary = (0..=Piece::BYTES).rev().find(|&i| text.is_char_boundary(i))?;
    let window = &text[..boundary];
    let mut before_blank = None;
    let mut next = text[window.len()..].chars().next()?;
    for (i, c) in window.char_indices().rev() {
        if c.is_whitespace() && !next.is_whitespace() && i > 0 {
            if c == '\n' && !window[..i].ends_with(char::is_whitespace) {
                return Some(i + 1);
            }
            before_blank = before_blank.or(Some(i));
        }
        next = c;
    }
    before_blank.or(Some(window.len()))
}

/// The documents of several files, in order, as an iterator of pieces.
pub struct Documents {
    files: VecDeque<(PathBuf, Format)>,
    current: Option<Source>,
    ready: VecDeque<Piece>,
    skip_bad_lines: bool,
    skipped: u64,
    bytes_done: Arc<AtomicU64>,
    bytes_total: u64,
}

/// The file being read.
struct Source {
    path: PathBuf,
    format: Format,
    reader: Text,
    line: u64,
    /// Whether what was read last was not the end of its line.
    within_line: bool,
    /// Whether the rest of the line is to be passed over.
    skipping: bool,
    /// The line, or part of a long line of plain text, that was read last; bytes that are still half a character stay in it.
    raw: Vec<u8>,
    /// Plain text that is not cut into pieces yet.
    text: String,
    /// Whether a document was found.
    found: bool,
}

impl Documents {
    /// Opens the files that `paths` name. With `skip_bad_lines`, bad lines are counted and passed over.
    ///
    /// # Errors
    /// Those of [`files::expand`]; a file that is empty or of no known format. What is found later (a bad line, a file in which
    /// no document was found, packed data that are damaged or end too early) comes out of the iterator, which then ends.
    pub fn open(paths: &[impl AsRef<Path>], skip_bad_lines: bool) -> Result<Self> {
        let mut files = VecDeque::new();
        let mut bytes_total = 0;
        for path in files::expand(paths)? {
            let bytes = path.metadata().map_err(|e| Error::io(&path, e))?.len();
            if bytes == 0 {
                return Err(Error::format(&path, "the file is empty"));
            }
            bytes_total += bytes;
            let format = Format::of(&path)?;
            files.push_back((path, format));
        }
        let (current, ready) = (None, VecDeque::new());
        Ok(Self { files, current, ready, skip_bad_lines, skipped: 0, bytes_done: Arc::default(), bytes_total })
    }

    /// Bytes of the files, as they lie on disk, read so far.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Ordering::Relaxed)
    }

    /// Bytes of all files as they lie on disk.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Bad lines passed over so far.
    pub fn skipped_lines(&self) -> u64 {
        self.skipped
    }

    /// Reads until a piece is ready; false at the end of the last file.
    fn advance(&mut self) -> Result<bool> {
        while self.ready.is_empty() {
            let Some(source) = &mut self.current else {
                let Some((path, format)) = self.files.pop_front() else { return Ok(false) };
                self.current = Some(Source::open(path, format, &self.bytes_done)?);
                continue;
            };
            let step = match source.format {
                Format::JsonLines => source.json_line(&mut self.ready),
                Format::Plain => source.plain(&mut self.ready),
            };
            let Step { bytes, bad } = step.map_err(|e| unpack::failure(&source.path, e))?;
            if let Some(message) = bad {
                if !self.skip_bad_lines {
                    return Err(Error::data(&source.path, source.line, message));
                }
                self.skipped += 1;
            } else if bytes == 0 {
                if !source.found {
                    return Err(Error::format(&source.path, source.nothing_found()));
                }
                self.current = None;
            }
        }
        Ok(true)
    }
}

impl Iterator for Documents {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => self.ready.pop_front().map(Ok),
            Ok(false) => None,
            Err(e) => {
                self.files.clear();
                self.current = None;
                Some(Err(e))
            }
        }
    }
}

/// What one read came to: how many bytes (0 at the end of the file), and what is bad about the line.
struct Step {
    bytes: u64,
    bad: Option<String>,
}

impl Source {
    fn open(path: PathBuf, format: Format, bytes_done: &Arc<AtomicU64>) -> Result<Self> {
        let reader = unpack::open(&path, bytes_done)?;
        let (raw, text) = (Vec::new(), String::new());
        Ok(Self { path, format, reader, line: 0, within_line: false, skipping: false, raw, text, found: false })
    }

    fn json_line(&mut self, ready: &mut VecDeque<Piece>) -> std::io::Result<Step> {
        self.raw.clear();
        let bytes = self.reader.read_until(b'\n', &mut self.raw)? as u64;
        self.line += 1;
        let line = self.raw.trim_ascii();
        if line.is_empty() {
            return Ok(Step { bytes, bad: None });
        }
        match text_of(line) {
            Ok(text) => {
                ready.extend(Piece::of(&text));
                self.found |= !text.is_empty();
                Ok(Step { bytes, bad: None })
            }
            Err(message) => Ok(Step { bytes, bad: Some(message) }),
        }
    }

    fn plain(&mut self, ready: &mut VecDeque<Piece>) -> std::io::Result<Step> {
        let bytes = self.reader.by_ref().take(Piece::BYTES as u64).read_until(b'\n', &mut self.raw)? as u64;
        let at_end = bytes == 0;
        self.line += u64::from(!at_end && !self.within_line);
        self.within_line = !at_end && !self.raw.ends_with(b"\n");
        if self.skipping {
            self.skipping = self.within_line;
            self.raw.clear();
        }
        let (mut valid, wrong) = match std::str::from_utf8(&self.raw) {
            Ok(text) => (text.len(), false),
            Err(e) => (e.valid_up_to(), e.error_len().is_some() || !self.within_line),
        };
        if wrong {
            self.skipping = self.within_line;
            self.raw.clear();
            return Ok(Step { bytes, bad: Some("not valid UTF-8".into()) });
        }
        // What ends within the line may end within a CRLF.
        if self.within_line && self.raw[..valid].ends_with(b"\r") {
            valid -= 1;
        }
        let rest = self.raw.split_off(valid);
        let text = String::from_utf8_lossy(&self.raw);
        match text.strip_suffix("\r\n") {
            Some(line) => self.text.extend([line, "\n"]),
            None => self.text.push_str(&text),
        }
        self.raw = rest;
        while let Some(end) = cut(&self.text) {
            let rest = self.text.split_off(end);
            self.push(rest, false, ready);
        }
        if at_end && (self.found || !self.text.trim().is_empty()) && !self.text.is_empty() {
            self.push(String::new(), true, ready);
        }
        Ok(Step { bytes, bad: None })
    }

    /// Hands out the text as a piece; `rest` is what stays.
    fn push(&mut self, rest: String, ends: bool, ready: &mut VecDeque<Piece>) {
        let text = std::mem::replace(&mut self.text, rest);
        ready.push_back(Piece { text, begins: !self.found, ends });
        self.found = true;
    }

    fn nothing_found(&self) -> &'static str {
        match self.format {
            Format::JsonLines => "no document found: not one line {\"text\": …} with a text that is not empty",
            Format::Plain => "no document found: the file holds no text",
        }
    }
}

/// The document that a line of JSON holds.
fn text_of(line: &[u8]) -> Result<Cow<'_, str>, String> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        text: Cow<'a, str>,
    }
    let line = std::str::from_utf8(line).map_err(|e| format!("not valid UTF-8 (byte {} of the line)", e.valid_up_to() + 1))?;
    let parsed: Line = serde_json::from_str(line).map_err(|e| format!("expected {{\"text\": …}}: {e}"))?;
    Ok(parsed.text)
}

#[cfg(test)]
mod tests;
