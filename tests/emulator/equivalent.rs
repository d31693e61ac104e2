//! Faults that change nothing, listed with their reasons in `equivalent.txt`.

use std::ops::RangeInclusive;

use ptx_emulator::fault::Fault;

/// Lines `CASE | OPERATOR | LINES | REASON`, where LINES are those of the source (`12, 20-25`), and a text in backquotes behind
/// them must occur in the fault's description; `#` begins a remark.
const LIST: &str = include_str!("equivalent.txt");

struct Entry {
    case: &'static str,
    operator: &'static str,
    lines: Vec<RangeInclusive<u32>>,
    fragment: &'static str,
    text: &'static str,
    used: bool,
}

/// The list, and which of its entries were needed.
pub struct Equivalents(Vec<Entry>);

impl Equivalents {
    /// All entries; an ill-formed one panics.
    pub fn new() -> Self {
        let lines = LIST.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| entry(line).unwrap_or_else(|| panic!("equivalent.txt: {line}"))).collect())
    }

    /// Whether an entry gives a reason for this fault to change nothing.
    pub fn explain(&mut self, case: &str, fault: &Fault) -> bool {
        let line = fault.location.map_or(0, |location| location.line);
        let operator = format!("{:?}", fault.operator);
        let fits = |entry: &&mut Entry| {
            let place = entry.lines.iter().any(|lines| lines.contains(&line)) && fault.description.contains(entry.fragment);
            entry.case == case && entry.operator == operator && place
        };
        let found = self.0.iter_mut().filter(fits).map(|entry| entry.used = true).count();
        found > 0
    }

    /// Entries for which there was no fault.
    pub fn stale(&self) -> Vec<&'static str> {
        self.0.iter().filter(|entry| !entry.used).map(|entry| entry.text).collect()
    }
}

fn entry(text: &'static str) -> Option<Entry> {
    let mut parts = text.splitn(4, '|').map(str::trim);
    let (case, operator, place) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().filter(|reason| !reason.is_empty())?;
    let (lines, fragment) = place.split_once('`').unwrap_or((place, ""));
    let lines = lines.split(',').map(|range| {
        let (first, last) = range.trim().split_once('-').unwrap_or((range.trim(), range.trim()));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    Some(Entry {
        case,
        operator,
        lines: lines.collect::<Option<_>>()?,
        fragment: fragment.trim_end_matches('`'),
        text,
        used: false,
    })
}
