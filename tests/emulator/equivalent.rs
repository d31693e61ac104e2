//! Faults that change nothing, listed with their reasons: in `equivalent.txt` those of the corpus, in `ours.txt` those of the kernels
//! that we ship.

use std::ops::RangeInclusive;

use ptx_emulator::fault::Fault;

/// Faults in the corpus.
pub const CORPUS: &str = include_str!("equivalent.txt");
/// Faults in `kernels/`.
pub const OURS: &str = include_str!("ours.txt");

/// A line `SUBJECT | OPERATORS | PLACE | REASON`, where the subject is a case of the corpus, a file of kernels, or `*` for all of them.
/// The place is either lines of the source (`12, 20-25`), or a text in double quotes that occurs in the source's line, which stays
/// when lines move. A text in backquotes behind it must occur in the fault's description. `#` begins a remark.
struct Entry {
    subject: &'static str,
    operators: Vec<&'static str>,
    place: Place,
    fragment: &'static str,
    text: &'static str,
    used: bool,
}

enum Place {
    Lines(Vec<RangeInclusive<u32>>),
    Text(&'static str),
}

/// The list, and which of its entries were needed.
pub struct Equivalents(Vec<Entry>);

impl Equivalents {
    /// All entries of a list; an ill-formed one panics.
    pub fn new(list: &'static str) -> Self {
        let lines = list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| entry(line).unwrap_or_else(|| panic!("list of equivalents: {line}"))).collect())
    }

    /// Whether an entry gives a reason for this fault, in this line of the source, to change nothing.
    pub fn explain(&mut self, subject: &str, fault: &Fault, source: &str) -> bool {
        let line = fault.location.map_or(0, |location| location.line);
        let operator = format!("{:?}", fault.operator);
        let fits = |entry: &&mut Entry| {
            let place = match &entry.place {
                Place::Lines(lines) => lines.iter().any(|lines| lines.contains(&line)),
                Place::Text(text) => source.contains(text),
            };
            let names = [subject, "*"].contains(&entry.subject) && entry.operators.contains(&operator.as_str());
            names && place && fault.description.contains(entry.fragment)
        };
        let found = self.0.iter_mut().filter(fits).map(|entry| entry.used = true).count();
        found > 0
    }

    /// Keeps the entries of one subject.
    pub fn keep(&mut self, subject: &str) {
        self.0.retain(|entry| entry.subject == subject);
    }

    /// Entries for which there was no fault.
    pub fn stale(&self) -> Vec<&'static str> {
        self.0.iter().filter(|entry| !entry.used).map(|entry| entry.text).collect()
    }
}

fn entry(text: &'static str) -> Option<Entry> {
    let mut parts = text.splitn(4, " | ").map(str::trim);
    let (subject, operators, place) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().filter(|reason| !reason.is_empty())?;
    let (place, fragment) = match place.strip_prefix('"') {
        Some(quoted) => {
            let (text, rest) = quoted.split_once('"')?;
            (Place::Text(text), rest.trim().strip_prefix('`').unwrap_or_default())
        }
        None => {
            let (lines, fragment) = place.split_once('`').unwrap_or((place, ""));
            let lines = lines.split(',').map(|range| {
                let (first, last) = range.trim().split_once('-').unwrap_or((range.trim(), range.trim()));
                Some(first.parse().ok()?..=last.parse().ok()?)
            });
            (Place::Lines(lines.collect::<Option<_>>()?), fragment)
        }
    };
    let operators = operators.split(',').map(str::trim).collect();
    Some(Entry { subject, operators, place, fragment: fragment.trim_end_matches('`'), text, used: false })
}
