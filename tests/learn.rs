//! The pages under `learn/` show what their command prints, to the last digit.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ferromind::lab::ladder::LADDERS;
use serde_json::Value;
use tempfile::TempDir;

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
    assert_eq!(strangers(page, &printed(page, 7)), Vec::<&str>::new());
    assert!(blocks(page).len() >= 7);
}

/// What a page's commands print, of which there are so many; some find what they are there to find.
fn printed(page: &str, number: usize) -> String {
    let commands = commands(page);
    assert_eq!(commands.len(), number, "each section has its command");
    let mut output = String::new();
    for command in commands {
        let run = Command::new(env!("CARGO_BIN_EXE_ferromind")).args(&command).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let run = run.unwrap();
        assert_ne!(run.status.code(), Some(2), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
        output += &String::from_utf8(run.stdout).unwrap();
    }
    // Findings hold the kernel's path as the compiler saw it.
    output.replace(concat!(env!("CARGO_MANIFEST_DIR"), "/"), "")
}

#[test]
fn a_kernel_of_your_own_shows_what_its_commands_print() {
    let page = include_str!("../learn/04-your-own-kernel.md");
    assert_eq!(strangers(page, &printed(page, 6)), Vec::<&str>::new());
    assert_eq!(blocks(page).len(), 6);
}

#[test]
fn ladders_shows_what_its_command_prints() {
    let page = include_str!("../learn/05-ladders.md");
    assert_eq!(strangers(page, &printed(page, 1)), Vec::<&str>::new());
    assert_eq!(blocks(page).len(), LADDERS.len());
    for rung in LADDERS.iter().flat_map(|ladder| ladder.rungs) {
        assert!(page.contains(&format!("(../{})", rung.source.name)), "{} has no link", rung.source.name);
        let Some((counter, factor)) = rung.improves else { continue };
        let text = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains(&format!("**{factor} times fewer {counter}**")),
            "{}: {factor} times fewer {counter}",
            rung.source.name
        );
    }
}

/// Runs the program in `dir`; what it prints.
fn ferromind(dir: &Path, arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_ferromind")).args(arguments).current_dir(dir).output().unwrap();
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The experiment itself takes minutes: its commands are parsed, the frequencies are compared.
#[test]
fn longer_than_trained_shows_the_frequencies_and_commands_that_there_are() {
    let (page, here) = (include_str!("../learn/03-longer-than-trained.md"), Path::new(env!("CARGO_MANIFEST_DIR")));
    let commands = commands(page);
    assert_eq!(commands.len(), 7);
    for command in &commands {
        let typed = command.iter().take_while(|word| *word != ">").map(String::as_str);
        ferromind(here, &typed.chain(["--help"]).collect::<Vec<_>>());
    }
    assert_eq!(commands[0], ["learn", "frequencies"]);
    assert_eq!(strangers(page, &ferromind(here, &["learn", "frequencies"])), Vec::<&str>::new());
    assert_eq!(blocks(page).len(), 1);
    let picture = commands.iter().flatten().find(|word| word.ends_with(".svg")).unwrap();
    assert!(here.join(picture).is_file() && page.contains(&format!("({})", picture.strip_prefix("learn/").unwrap())), "{picture}");
}

/// The experiment of the page with a model, texts and lengths of a few seconds.
#[test]
fn yarn_reads_on_where_plain_frequencies_fail() {
    let dir = TempDir::new().unwrap();
    let said = |arguments: &str| ferromind(dir.path(), &arguments.split_whitespace().collect::<Vec<_>>());
    let documents = |file: &str, arguments: &str| {
        fs::write(dir.path().join(file), said(&format!("learn long-documents --stories 1 --tellings 6 {arguments}"))).unwrap();
    };
    documents("long.jsonl", "--count 120");
    documents("held-out.jsonl", "--count 8 --seed 2");
    said("tokenizer train --input long.jsonl --vocab-size 512 --out words");
    said(
        "pretrain --data-path long.jsonl --tokenizer words --cache-dir cache --out-dir run --max-seq-len 96 --rope-theta 10000 \
         --max-position-embeddings 96 --hidden-size 64 --num-attention-heads 2 --num-key-value-heads 2 --num-hidden-layers 2 \
         --intermediate-size 128 --batch-size 8 --max-steps 300 --epochs 100 --val-interval 0",
    );
    let figures = said("eval --model run --data held-out.jsonl --by-position 96 --picture picture.svg --json");
    let figures: Value = serde_json::from_str(&figures).unwrap();
    assert_eq!((&figures["trained_length"], &figures["max_seq_len"], &figures["factor"]), (&96.into(), &384.into(), &4.0.into()));
    let loss = |scaling: usize, bucket: usize| figures["scalings"][scaling]["buckets"][bucket]["loss"].as_f64().unwrap();
    let names: Vec<&Value> = figures["scalings"].as_array().unwrap().iter().map(|scaling| &scaling["scaling"]).collect();
    assert_eq!(names, ["default", "linear", "yarn"]);
    assert!(loss(0, 0) < loss(2, 0), "within the trained length its own frequencies are the best: {figures}");
    for bucket in [2, 3] {
        assert!(loss(2, bucket) < loss(0, bucket) && loss(2, bucket) < loss(1, bucket), "{figures}");
    }
    assert!(loss(0, 3) > loss(0, 0) + 0.3 && loss(2, 3) < loss(2, 0) + 0.15, "{figures}");
    assert!(fs::read_to_string(dir.path().join("picture.svg")).unwrap().contains("trained length 96"));

    let tokens = |arguments: &str| said(&format!("generate --model run --max-new-tokens 300 {arguments}")).len();
    assert!(tokens("--rope-scaling yarn") > tokens(""), "without scaling the model's positions end at 96");
    for (arguments, phrase) in [
        ("generate --model run --rope-factor 2", "--rope-factor says nothing without --rope-scaling"),
        ("generate --model run --rope-scaling yarn --rope-factor 0.5", "--rope-factor is 0.5"),
        ("generate --model run --rope-scaling linear --original-max-position-embeddings 0", "at least 1"),
        ("eval --model run --data held-out.jsonl --by-position 0", "at least 1"),
        ("eval --model run --data held-out.jsonl --by-position 8 --rope-factor 40", "no document has 3840 tokens"),
        ("eval --model run --data held-out.jsonl --by-position 8 --max-seq-len 385", "max-seq-len is 385"),
        ("eval --model run --data held-out.jsonl --picture a.svg", "--by-position"),
    ] {
        let run =
            Command::new(env!("CARGO_BIN_EXE_ferromind")).args(arguments.split(' ')).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && said.contains(phrase) && !said.contains("panicked"), "{arguments}: {said}");
    }
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
