use std::collections::{BTreeMap, HashSet};

use super::grammar::{List, list};
use super::template::Grammar;
use super::*;

const SEED: u64 = 42;

fn corpus() -> Vec<Story> {
    Stories::new(SEED, DEFAULT_COUNT).iter().collect()
}

/// Every story and each of its sentences parses, the story in one way and with the probability that it was drawn with.
#[test]
fn the_parser_reads_what_the_generator_writes() {
    for story in Stories::new(SEED, 3000).iter() {
        let parsed = parse(&story.text).unwrap_or_else(|e| panic!("{e}\n{}", story.text));
        assert_eq!(parsed.derivations, 1, "{}", story.text);
        assert!(sentences(&story.text).all(parse_sentence), "{}", story.text);
        assert!((parsed.log_prob - story.log_prob).abs() < 1e-9, "{} and {}: {}", parsed.log_prob, story.log_prob, story.text);
    }
}

#[test]
fn the_mean_of_minus_log_prob_is_the_entropy() {
    let nats: Vec<f64> = Stories::new(SEED, 50_000).iter().map(|s| -s.log_prob).collect();
    let n = nats.len() as f64;
    let mean = nats.iter().sum::<f64>() / n;
    let deviation = (nats.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!(deviation > 0.1);
    assert!((mean - entropy()).abs() < 4.0 * deviation / n.sqrt(), "mean {mean}, entropy {}", entropy());
}

/// On a grammar small enough to list all its stories, the sums of [`Grammar::measures`] and the parser agree with the list.
#[test]
fn the_exact_sums_agree_with_a_list_of_all_stories() {
    const LISTS: &[List] = &[list("name|he", &["Ann|she", "Bob|he"]), list("thing", &["hat", "key", "red hat"])];
    let grammar = Grammar::compile(
        &[
            &[&["{name} sang."], &["{He} saw a {thing}.", "It rained.", ""], &["A {thing} fell.", "{Name} left."]],
            &[&["So {he} sang."]],
        ],
        LISTS,
    );
    let mut stories = BTreeMap::new();
    for i in 0..20_000 {
        let (text, log_prob) = grammar.draw(&mut Draws::new(Philox::new(SEED).stream(i)));
        let parsed = grammar.parse(&text).unwrap();
        assert_eq!(parsed.derivations, 1);
        assert!((parsed.log_prob - log_prob).abs() < 1e-12);
        stories.insert(text, log_prob);
    }
    // Two names × (3 things × 2 endings + 2 × (3 + 1) endings), and two of the second plot.
    assert_eq!(stories.len(), 2 * (3 * 2 + 2 * (3 + 1)) + 2);
    let sum = |f: fn(f64) -> f64| stories.values().map(|&l| f(l)).sum::<f64>();
    let measures = grammar.measures();
    assert!((sum(f64::exp) - 1.0).abs() < 1e-12);
    assert!((sum(|l| -l * l.exp()) - measures.entropy).abs() < 1e-12);
    assert!((sum(|l| (2.0 * l).exp()) - measures.collision).abs() < 1e-12);
}

/// An ambiguous text has the sum of the probabilities of its derivations.
#[test]
fn derivations_add_up() {
    const LISTS: &[List] = &[list("word", &["a", "b"])];
    let parsed = Grammar::compile(&[&[&["{word}.", "a."]]], LISTS).parse("a.").unwrap();
    assert_eq!(parsed.derivations, 2);
    assert!((parsed.log_prob.exp() - 0.75).abs() < 1e-12);
}

#[test]
fn a_story_is_a_function_of_seed_and_index() {
    let (long, short) = (Stories::new(SEED, 100), Stories::new(SEED, 3));
    assert_eq!(long.iter().nth(57).unwrap(), short.story(57));
    assert_ne!(long.story(57), Stories::new(SEED + 1, 100).story(57));
    assert_eq!(short.iter().len(), short.len());
}

#[test]
fn stories_are_distinct_and_varied() {
    let stories = corpus();
    let distinct =
        |key: &dyn Fn(&Story) -> String| stories.iter().map(key).collect::<HashSet<_>>().len() as f64 / stories.len() as f64;
    assert_eq!(distinct(&|s| s.text.clone()), 1.0);
    assert!(distinct(&|s| sentences(&s.text).take(2).collect()) > 0.999);
    assert!(distinct(&|s| sentences(&s.text).next().unwrap_or_default().to_owned()) > 0.95);
    // A sample that stands in the corpus is not to be expected in the life of the universe.
    assert!(collision() * (DEFAULT_COUNT as f64) < 1e-17);
}

#[test]
fn stories_are_short_plain_and_of_whole_sentences() {
    let mut bytes = 0;
    for Story { text, .. } in corpus() {
        bytes += text.len();
        assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text}");
        assert!(!text.contains("  ") && text.trim() == text, "{text}");
        assert!((60..=120).contains(&text.split(' ').count()), "{text}");
        assert!((5..=9).contains(&sentences(&text).count()), "{text}");
        for vowel in ["a", "e", "i", "o", "u"] {
            assert!(!text.contains(&format!(" a {vowel}")), "{text}");
        }
    }
    assert!((2_500_000..4_000_000).contains(&bytes), "{bytes} bytes");
}

/// Every sentence and every word is seen often enough to be learned.
#[test]
fn no_choice_is_rare() {
    let stories = corpus();
    let text: Vec<&str> = stories.iter().map(|s| s.text.as_str()).collect();
    for list in super::grammar::LISTS {
        for word in list.words.iter().map(|w| w.split('|').next().unwrap_or_default()) {
            let tail = &word[1..];
            let seen = text.iter().filter(|t| t.contains(tail)).count();
            assert!(seen >= 200, "`{word}` is in {seen} stories");
        }
    }
}

#[test]
fn broken_stories_do_not_parse() {
    let Story { text, .. } = Stories::new(SEED, 1).story(0);
    let words: Vec<&str> = text.split(' ').collect();
    for i in 0..words.len() {
        let without = [&words[..i], &words[i + 1..]].concat().join(" ");
        assert!(parse(&without).is_err(), "{without}");
        assert!(parse(&words[..i].join(" ")).is_err());
    }
    assert!(parse(&format!("{text} ")).is_err());
    assert!(parse("").is_err());
    assert!(parse("\u{e9}t\u{e9}").is_err());
    let error = parse(&text.replacen("lived", "loved", 1)).unwrap_err();
    assert!(error.rest.starts_with("loved") || error.rest.contains("loved"), "{error}");
}

/// A word that changes half-way: the sentences are fine, one by one, but they are not a story.
#[test]
fn choices_hold_through_the_story() {
    let stories = Stories::new(SEED, 200);
    let mut changed = 0;
    for Story { text, .. } in stories.iter() {
        let Some(at) = text.rfind(" owl").filter(|&at| text.find(" owl") != Some(at)) else { continue };
        let other = format!("{} toad{}", &text[..at], &text[at + 4..]);
        assert!(sentences(&other).all(parse_sentence), "{other}");
        assert!(parse(&other).is_err(), "{other}");
        changed += 1;
    }
    assert!(changed > 0);
}

#[test]
fn sentences_end_where_they_should() {
    let text = "\"Where can it be?\" said Ada. It was gone! \"Look,\" said the owl, \"there.\" \"Oh.\" She r";
    let parts = ["\"Where can it be?\" said Ada.", "It was gone!", "\"Look,\" said the owl, \"there.\"", "\"Oh.\"", "She r"];
    assert_eq!(sentences(text).collect::<Vec<_>>(), parts);
    assert_eq!(sentences("  ").count(), 0);
    assert!(parse_sentence("And there it lay, where the goat had left it."));
    assert!(!parse_sentence("And there it lay, where the goat had left"));
    assert!(!parse_sentence("She looked in the attic and found only a button. "));
    assert!(!parse_sentence("Mira was a shy fox who lived"));
    assert!(parse_sentence("Mira was a shy fox who lived by the sea."));
    assert!(!parse_sentence("Every night she dreamed that he could bake a pie."));
    assert!(!parse_sentence(""));
}
