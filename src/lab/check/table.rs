//! `kernels/README.md`: what the measured cases' kernels move and need, as a table.

use std::fmt::Write;

use super::Outcome;
use super::counters::{Counted, LaunchCount};
use crate::ops::table::Traffic;

/// Text before the table.
const BEGIN: &str = "<!-- counters: written by `ferromind lab check --write-table` -->\n";
/// Text behind it.
const END: &str = "<!-- end of counters -->\n";

/// The table in Markdown: one line for each launch of each measured case.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| operation, pass | shape, type | kernel | registers | shared | distinct | requested | banks | bound by | at least | roofline |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes.iter().filter(|outcome| outcome.traffic != Traffic::Unmeasured) {
        let Some(counted) = &outcome.counted else { continue };
        for (i, launch) in counted.launches.iter().enumerate() {
            line(&mut text, outcome, counted, launch, i == 0);
        }
    }
    text
}

fn line(text: &mut String, outcome: &Outcome, counted: &Counted, launch: &LaunchCount, first: bool) {
    let Outcome { op, pass, shape, element, .. } = outcome;
    let case = if first { format!("{op}, {pass} | {shape}, {element}") } else { " | ".to_owned() };
    let registers = outcome.registers.get(&launch.kernel).map(ToString::to_string).unwrap_or_default();
    let micro = |seconds: f64| format!("{:.2} µs", 1e6 * seconds);
    let Counted { distinct, requested, wavefronts, roofline, .. } = counted;
    let sums = if first { format!("{distinct:.3} | {requested:.3} | {wavefronts:.3}") } else { " | | ".to_owned() };
    let roofline = if first { micro(*roofline) } else { String::new() };
    let (kernel, shared) = (&launch.kernel, launch.shared);
    let bound = format!("{} | {}", launch.bound_by, micro(launch.bound));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| {case} | `{kernel}` | {registers} | {shared} | {sums} | {bound} | {roofline} |");
}

/// The file with its table replaced; `None` if it has no place for one.
pub fn replaced(file: &str, table: &str) -> Option<String> {
    let (before, rest) = file.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_is_replaced() {
        let file = format!("before\n{BEGIN}old\n{END}after\n");
        assert_eq!(replaced(&file, "new\n"), Some(format!("before\n{BEGIN}new\n{END}after\n")));
        assert_eq!(replaced("before", "new"), None);
    }
}
