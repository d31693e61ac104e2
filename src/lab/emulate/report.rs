//! What a run did, as tables for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use ptx_emulator::Finding;
use ptx_emulator::count::{Bound, Counters, Limit, Occupancy, Tally};
use ptx_emulator::program::Class;
use serde_json::{Value, json};

use crate::gpu::Arch;
use crate::gpu::nvrtc::Resources;

/// How many lines of the source the table of the hottest shows.
const HOTTEST: usize = 12;

/// Everything that is known after a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The file as it was given.
    pub file: String,
    /// Texts of the files that instructions come from, by the names that findings and counters have for them.
    pub sources: BTreeMap<String, String>,
    /// The kernel, as the PTX calls it.
    pub kernel: String,
    /// What was compiled for.
    pub arch: Arch,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster as they were asked for.
    pub cluster: [u32; 3],
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Static shared memory of a block in bytes.
    pub static_shared: u32,
    /// The arguments as they were written.
    pub arguments: Vec<String>,
    /// Whether mistakes were looked for.
    pub checked: bool,
    /// The mistakes.
    pub findings: Vec<Finding>,
    /// Registers and spills, where the assembler told.
    pub resources: Option<Resources>,
    /// Blocks that a multiprocessor holds at once, where registers are known.
    pub occupancy: Option<Occupancy>,
    /// What was executed and moved.
    pub counters: Counters,
    /// The least time that it takes on a GPU.
    pub bound: Bound,
    /// What the kernel printed.
    pub printed: Vec<String>,
    /// What the followed thread or warp did.
    pub trace: Vec<String>,
    /// Files that were written: number of the argument, and path.
    pub written: Vec<(usize, PathBuf)>,
    /// Time of the emulation.
    pub seconds: f64,
}

impl Outcome {
    /// All that [`Display`](fmt::Display) shows and more, for programs.
    pub fn json(&self) -> Value {
        let lines: Vec<Value> = self
            .counters
            .by_source()
            .into_iter()
            .map(|((file, line), tally)| json!({ "file": file, "line": line, "tally": tally }))
            .collect();
        let written: Vec<Value> =
            self.written.iter().map(|(argument, path)| json!({ "argument": argument, "path": path })).collect();
        json!({
            "file": self.file, "kernel": self.kernel, "arch": self.arch.to_string(), "grid": self.grid, "block": self.block,
            "cluster": self.cluster, "shared_bytes": self.shared_bytes, "static_shared_bytes": self.static_shared,
            "arguments": self.arguments, "checked": self.checked, "findings": self.findings, "resources": self.resources,
            "occupancy": self.occupancy, "totals": self.counters.total(), "lines": lines, "counters": self.counters,
            "bound": self.bound, "printed": self.printed, "trace": self.trace, "written": written, "emulation_seconds": self.seconds,
        })
    }

    fn write_findings(&self, out: &mut String) -> fmt::Result {
        match self.findings.len() {
            0 => writeln!(out, "no findings")?,
            1 => writeln!(out, "1 finding")?,
            n => writeln!(out, "{n} findings")?,
        }
        if !self.checked {
            writeln!(out, "(--no-checks: only what strays outside of memory was seen)")?;
        }
        self.findings.iter().enumerate().try_for_each(|(index, finding)| writeln!(out, "\n{}. {finding}", index + 1))
    }

    fn write_resources(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\nresources on {}", self.arch)?;
        match &self.resources {
            Some(Resources { registers, spill_stores, spill_loads, stack, .. }) => writeln!(
                out,
                "  {registers} registers per thread, {stack} bytes of stack, {spill_stores} bytes spilled, {spill_loads} reloaded"
            )?,
            None => writeln!(out, "  registers are known only of a .cu file that is compiled for sm_…")?,
        }
        writeln!(out, "  shared memory per block: {} bytes static, {} dynamic", self.static_shared, self.shared_bytes)?;
        if let Some(Occupancy { blocks, warps, share, limit }) = self.occupancy {
            let limit = match limit {
                Limit::Warps => "warps",
                Limit::Blocks => "the number of blocks",
                Limit::Registers => "registers",
                Limit::SharedMemory => "shared memory",
            };
            let share = 100.0 * share;
            writeln!(out, "  occupancy: {blocks} blocks, {warps} warps per multiprocessor ({share:.0} %), limited by {limit}")?;
        }
        Ok(())
    }

    fn write_classes(&self, out: &mut String) -> fmt::Result {
        let all = self.counters.warp_instructions().max(1) as f64;
        let mut classes: Vec<(&Class, &Tally)> = self.counters.classes.iter().collect();
        classes.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.warps));
        let rows = classes.into_iter().map(|(class, tally)| {
            let share = format!("{:.1} %", 100.0 * tally.warps as f64 / all);
            vec![class_name(*class).to_owned(), count(tally.warps), count(tally.threads), share]
        });
        writeln!(out, "\ninstructions by class")?;
        table(out, &["class", "warps", "threads", "of warps"], rows.collect())
    }

    fn write_lines(&self, out: &mut String) -> fmt::Result {
        let all = self.counters.warp_instructions().max(1) as f64;
        let mut lines: Vec<((String, u32), Tally)> = self.counters.by_source().into_iter().collect();
        lines.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.warps));
        let hidden = lines.len().saturating_sub(HOTTEST);
        lines.truncate(HOTTEST);
        let rows = lines.into_iter().map(|((file, line), tally)| {
            let place = if line == 0 { "no line".to_owned() } else { format!("{}:{line}", shortened(&file)) };
            vec![
                place,
                count(tally.warps),
                format!("{:.1} %", 100.0 * tally.warps as f64 / all),
                count(tally.divergences),
                count(tally.sectors),
                count(tally.wavefronts),
                count(tally.wavefronts.saturating_sub(tally.ideal_wavefronts)),
                count(tally.flops),
                self.line(&file, line),
            ]
        });
        writeln!(out, "\nhottest lines{}", if hidden > 0 { format!(" ({hidden} more in the JSON)") } else { String::new() })?;
        let header =
            ["line", "warps", "of warps", "divergences", "sectors", "wavefronts", "bank conflicts", "matrix ops", "source"];
        table(out, &header, rows.collect())
    }

    fn line(&self, file: &str, number: u32) -> String {
        let text = self.sources.get(file).and_then(|text| text.lines().nth(number.checked_sub(1)? as usize)).unwrap_or_default();
        text.trim().chars().take(60).collect()
    }

    fn write_buffers(&self, out: &mut String) -> fmt::Result {
        if self.counters.buffers.is_empty() {
            return Ok(());
        }
        let rows = self.counters.buffers.iter().map(|buffer| {
            let all = buffer.bytes.div_ceil(32);
            let of = |sectors: u64| format!("{} ({:.0} %)", count(sectors), 100.0 * sectors as f64 / all.max(1) as f64);
            vec![buffer.name.clone(), count(buffer.bytes), count(all), of(buffer.sectors_read), of(buffer.sectors_written)]
        });
        writeln!(out, "\nglobal memory, distinct sectors of 32 bytes")?;
        table(out, &["buffer", "bytes", "sectors", "read", "written"], rows.collect())
    }

    fn write_totals(&self, out: &mut String) -> fmt::Result {
        let total = self.counters.total();
        let (read, written) = self.counters.distinct_sectors();
        let seconds = self.seconds.max(1e-9);
        writeln!(out, "\ntotals")?;
        writeln!(out, "  {} warp instructions, {} thread instructions", count(total.warps), count(total.threads))?;
        let lanes = total.threads as f64 / (32 * total.warps).max(1) as f64;
        writeln!(out, "  {:.1} % of lanes active, {} divergent branches", 100.0 * lanes, count(total.divergences))?;
        let (requested, distinct) = (count(total.sectors), count(read + written));
        writeln!(out, "  {requested} sectors requested, {distinct} distinct (the rest is left to the caches)")?;
        let rate = count((total.threads as f64 / seconds) as u64);
        writeln!(out, "  emulated in {}: {rate} thread instructions per second", time(self.seconds))
    }

    fn write_bound(&self, out: &mut String) -> fmt::Result {
        let Bound { device, seconds, bound_by, units } = &self.bound;
        writeln!(out, "\nlower bound on an {device}: {}, by {bound_by}", time(*seconds))?;
        let share = |part: f64| if *seconds > 0.0 { 100.0 * part / seconds } else { 0.0 };
        let rows = units.iter().map(|unit| vec![unit.unit.to_owned(), time(unit.seconds), format!("{:.0} %", share(unit.seconds))]);
        table(out, &["unit", "busy for", "of the bound"], rows.collect())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, file, arch, grid, block, .. } = self;
        let mut out = String::new();
        writeln!(out, "kernel `{kernel}` of {file} for {arch}, grid {}, block {}", extent(*grid), extent(*block))?;
        if !self.printed.is_empty() {
            writeln!(out, "printed by the kernel\n{}\n", self.printed.concat().trim_end())?;
        }
        self.write_findings(&mut out)?;
        self.write_resources(&mut out)?;
        self.write_classes(&mut out)?;
        self.write_lines(&mut out)?;
        self.write_buffers(&mut out)?;
        self.write_totals(&mut out)?;
        self.write_bound(&mut out)?;
        if !self.trace.is_empty() {
            writeln!(out, "\ntrace")?;
            self.trace.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        for (argument, path) in &self.written {
            writeln!(out, "\nargument {argument} written to {}", path.display())?;
        }
        f.write_str(&out)
    }
}

/// A path without the working directory, under which the compiler has put it.
fn shortened(path: &str) -> &str {
    let directory = std::env::current_dir().unwrap_or_default();
    Path::new(path).strip_prefix(directory).ok().and_then(Path::to_str).unwrap_or(path)
}

fn extent([x, y, z]: [u32; 3]) -> String {
    format!("{x}x{y}x{z}")
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Integer => "integer",
        Class::Float => "float",
        Class::Double => "double",
        Class::Special => "special functions",
        Class::Convert => "conversion",
        Class::Move => "move",
        Class::Control => "control",
        Class::Global => "global memory",
        Class::Shared => "shared memory",
        Class::Local => "local memory",
        Class::Constant => "constants, parameters",
        Class::Atomic => "atomics",
        Class::Warp => "shuffles, votes",
        Class::Barrier => "barriers, waits",
        Class::Copy => "asynchronous copies",
        Class::Matrix => "matrix products",
    }
}

/// Three digits and a power of ten: `12.3 M`; exact below 10,000.
fn count(n: u64) -> String {
    let value: f64 = n as f64;
    for (power, unit) in [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= f64::max(power, 1e4) {
            return format!("{:.*} {unit}", digits(value / power), value / power);
        }
    }
    n.to_string()
}

/// Three digits and a unit: `1.23 µs`.
fn time(seconds: f64) -> String {
    for (power, unit) in [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")] {
        if seconds >= power {
            return format!("{:.*} {unit}", digits(seconds / power), seconds / power);
        }
    }
    format!("{:.*} ns", digits(seconds * 1e9), seconds * 1e9)
}

/// Digits behind the point that make three in all.
fn digits(value: f64) -> usize {
    if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    }
}

/// Columns as wide as their content: numbers to the right, the first and a column of source text to the left.
fn table(out: &mut String, header: &[&str], rows: Vec<Vec<String>>) -> fmt::Result {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|title| title.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let titles = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let left = column == 0 || header.get(column) == Some(&"source");
            if left { write!(line, "  {cell:<width$}")? } else { write!(line, "  {cell:>width$}")? }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (n, text) in [(0, "0"), (9999, "9999"), (12345, "12.3 k"), (1_234_567, "1.23 M"), (u64::MAX, "18.4 E")] {
            assert_eq!(count(n), text);
        }
        for (seconds, text) in [(0.0, "0.00 ns"), (1.5e-6, "1.50 µs"), (0.25, "250 ms"), (61.0, "61.0 s")] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut out = String::new();
        let rows = vec![vec!["a".into(), "1".into(), "x = 1;".into()], vec!["long".into(), "1000".into(), String::new()]];
        table(&mut out, &["name", "n", "source"], rows).unwrap();
        assert_eq!(out, "  name     n  source\n  a        1  x = 1;\n  long  1000\n");
    }
}
