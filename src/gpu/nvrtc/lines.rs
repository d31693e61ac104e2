//! From lines of PTX to lines of the source: `.loc FILE LINE COLUMN` before an instruction, `.file NUMBER "name"` at the end.

/// Adds the source line to what the assembler says of a line of this PTX: `…, line 35; error : …` becomes
/// `kernels/axpy.cu(12): …`. Lines that it cannot place stay as they are.
pub(super) fn translate(log: &str, ptx: &str) -> String {
    let translated = log.lines().map(|line| match number_after(line, "line ").and_then(|number| source_line(ptx, number)) {
        Some(place) if line.starts_with("ptxas") => format!("{place}: {line}"),
        _ => line.to_owned(),
    });
    translated.collect::<Vec<_>>().join("\n")
}

/// `file(line)` of the source from which line `number` (from 1) of this PTX comes, if `.loc` tells.
fn source_line(ptx: &str, number: usize) -> Option<String> {
    let before: Vec<&str> = ptx.lines().take(number).collect();
    let mut numbers = before.iter().rev().find_map(|line| line.trim_start().strip_prefix(".loc"))?.split_whitespace();
    let (file, line) = (numbers.next()?, numbers.next()?);
    let name = ptx.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(".file")?.trim_start().strip_prefix(file)?;
        rest.trim_start().strip_prefix('"')?.split('"').next()
    })?;
    Some(format!("{name}({line})"))
}

fn number_after(text: &str, words: &str) -> Option<usize> {
    let (_, rest) = text.split_once(words)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "\
.version 9.0
.loc 1 4 5
mov.u32 %r1, %tid.x;
.loc 2 17 9
bogus.op %f1;
.file 1 \"kernels/k.cu\"
.file 2 \"common.cuh\"";

    #[test]
    fn the_nearest_loc_above_tells() {
        assert_eq!(source_line(PTX, 3).as_deref(), Some("kernels/k.cu(4)"));
        assert_eq!(source_line(PTX, 5).as_deref(), Some("common.cuh(17)"));
        assert_eq!(source_line(PTX, 1), None);
        assert_eq!(source_line("", 7), None);
        assert_eq!(source_line(".loc x", 1), None);
    }

    #[test]
    fn only_the_assemblers_lines_are_placed() {
        let log = "k.cu(3): warning: line 5\nptxas application ptx input, line 5; error   : Not a name\nptxas fatal   : aborted";
        let expected = "k.cu(3): warning: line 5\n\
             common.cuh(17): ptxas application ptx input, line 5; error   : Not a name\n\
             ptxas fatal   : aborted";
        assert_eq!(translate(log, PTX), expected);
    }
}
