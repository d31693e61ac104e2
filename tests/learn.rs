//! The pages under `learn/` show what their command prints, to the last digit.

use std::collections::HashSet;
use std::process::Command;

/// The blocks of a page that are fenced as `text`.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Numbers with four or more decimals.
fn numbers(text: &str) -> HashSet<&str> {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    numbers
        .filter(|number| number.split_once('.').is_some_and(|(whole, decimals)| !whole.is_empty() && decimals.len() >= 4))
        .collect()
}

/// What a page shows and the output lacks: blocks, line by line in their order, and numbers anywhere.
fn strangers<'a>(page: &'a str, output: &str) -> Vec<&'a str> {
    let framed = format!("\n{output}");
    let blocks = blocks(page).into_iter().filter(|block| !framed.contains(&format!("\n{block}")));
    let known = numbers(output);
    blocks.chain(numbers(page).into_iter().filter(|number| !known.contains(number))).collect()
}

#[test]
fn one_token_shows_what_the_command_prints() {
    let run = Command::new(env!("CARGO_BIN_EXE_ferromind")).args(["learn", "one-token"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let output = String::from_utf8(run.stdout).unwrap();
    let page = include_str!("../learn/01-one-token.md");
    assert_eq!(strangers(page, &output), Vec::<&str>::new());
    let titles = output.lines().filter(|line| line.split_once(". ").is_some_and(|(n, _)| n.parse::<u32>().is_ok())).count();
    assert_eq!((titles, blocks(page).len()), (20, 20), "each section of the output has its block on the page");
}

/// The commands of a page: what follows `$ ferromind ` on the lines of its blocks fenced as `sh`, `\` at an end joining two.
fn commands(page: &str) -> Vec<Vec<String>> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let joined: Vec<String> = blocks.map(|block| block.replace("\\\n", " ")).collect();
    let lines = joined.iter().flat_map(|block| block.lines()).filter_map(|line| line.strip_prefix("$ ferromind "));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn a_kernel_without_a_gpu_shows_what_its_commands_print() {
    let page = include_str!("../learn/02-a-kernel-without-a-gpu.md");
    let commands = commands(page);
    assert_eq!(commands.len(), 7, "each section has its command");
    let mut output = String::new();
    for command in commands {
        let run = Command::new(env!("CARGO_BIN_EXE_ferromind")).args(&command).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let run = run.unwrap();
        assert_ne!(run.status.code(), Some(2), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
        output += &String::from_utf8(run.stdout).unwrap();
    }
    // Findings hold the kernel's path as the compiler saw it.
    let output = output.replace(concat!(env!("CARGO_MANIFEST_DIR"), "/"), "");
    assert_eq!(strangers(page, &output), Vec::<&str>::new());
    assert!(blocks(page).len() >= 7);
}

#[test]
fn a_page_that_has_drifted_is_seen() {
    let output = "x   1.0000\ny   2.5000\n";
    let page = |block: &str, prose: &str| format!("{prose}\n```text\n{block}\n```\n");
    assert!(strangers(&page("y   2.5000", "so 1.0000"), output).is_empty());
    assert_eq!(strangers(&page("y   2.5001", ""), output).len(), 2);
    assert_eq!(strangers(&page("  1.0000", ""), output).len(), 1);
    assert_eq!(strangers(&page("y   2.5000\nx   1.0000", ""), output).len(), 1);
    assert_eq!(strangers(&page("y   2.5000", "so 1.0001"), output), ["1.0001"]);
}
