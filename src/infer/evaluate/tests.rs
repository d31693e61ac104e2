use std::fs;

use tempfile::TempDir;

use super::choices::Tally;
use super::text::Cutter;
use super::*;
use crate::data::{Batch, Tokenizer};
use crate::model::{AttentionConfig, GqaConfig, Init, ModelConfig};
use crate::rng::Philox;

/// A small model of bytes, with weights large enough that the context matters.
fn model() -> Model {
    let config = ModelConfig {
        num_attention_heads: 2,
        attention: AttentionConfig::Gqa(GqaConfig { num_key_value_heads: 1, head_dim: 8, qk_norm: true }),
        intermediate_size: 32,
        max_position_embeddings: 512,
        ..ModelConfig::minimind3(16, 1, 259)
    };
    Model::random(config, Init::Normal, 0.4, 3).unwrap()
}

fn window(max_seq_len: usize, stride: usize) -> Window {
    Window::new(model().config(), Some(max_seq_len), Some(stride)).unwrap()
}

fn sequence(len: usize, given: usize, seed: u64) -> Sequence {
    let draws = Philox::new(seed);
    Sequence::new((0..len as u64).map(|i| draws.below(i, 259) as u32).collect(), given)
}

/// By the model's own loss, alone.
fn by_loss(model: &Model, sequence: &Sequence) -> f64 {
    let ids: Vec<i32> = sequence.ids.iter().map(|&id| id as i32).collect();
    let target = |t: usize| if t + 1 >= sequence.given { ids[t + 1] } else { Batch::IGNORE };
    let targets = (0..ids.len() - 1).map(target).collect();
    let forward = Forward::plain(1, ids.len() - 1, &ids[..ids.len() - 1]);
    -model.loss(&mut Tape::inference(), &forward, targets, 1, 0.0).unwrap().cross_entropy
}

fn assert_near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
}

fn options(window: Window) -> TextOptions {
    TextOptions { window, end_of_text: true, limit: None, skip_bad_lines: false }
}

fn loss_of(texts: &[String], options: &TextOptions) -> TextFigures {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("texts.jsonl");
    let lines: String = texts.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
    fs::write(&path, lines).unwrap();
    text_loss(&model(), &Tokenizer::bytes().unwrap(), &[path], options, &mut |_| {}).unwrap()
}

#[test]
fn windows_score_each_token_once_and_keep_the_context() {
    for (max_seq_len, stride) in [(2, 1), (8, 1), (8, 3), (8, 7), (9, 4)] {
        let mut cutter = Cutter::new(window(max_seq_len, stride));
        for len in 1..=40u32 {
            let mut windows: Vec<Sequence> = (0..len).filter_map(|id| cutter.push(id)).collect();
            windows.extend(cutter.finish());
            let scored: Vec<u32> = windows.iter().flat_map(|window| window.ids[window.given..].to_vec()).collect();
            assert_eq!(scored, (1..len).collect::<Vec<_>>(), "{len} tokens, {max_seq_len}, {stride}");
            for (i, window) in windows.iter().enumerate() {
                assert_eq!(window.ids[0] as usize, i * stride);
                assert!(window.ids.len() <= max_seq_len && (i == 0 || window.given == max_seq_len - stride));
            }
        }
    }
}

#[test]
fn likelihoods_are_those_of_each_sequence_alone_in_any_order() {
    let model = model();
    let sequences: Vec<_> = (0..60).map(|i| sequence(2 + (i * 37) % 300, (i * 11) % 40, i as u64)).collect();
    let scores = log_likelihoods(&model, &sequences).unwrap();
    for (sequence, &score) in sequences.iter().zip(&scores) {
        match sequence.scored() {
            0 => assert_eq!(score, 0.0),
            _ => assert_near(by_loss(&model, sequence), score),
        }
    }
    let reversed: Vec<_> = sequences.iter().rev().cloned().collect();
    for (a, b) in log_likelihoods(&model, &reversed).unwrap().iter().rev().zip(scores) {
        assert_near(*a, b);
    }
}

#[test]
fn tokens_outside_the_vocabulary_and_broken_weights_are_errors() {
    let mut model = model();
    let error = log_likelihoods(&model, &[Sequence::new(vec![1, 259], 1)]).unwrap_err().to_string();
    assert_eq!(error, "token id 259 is outside the vocabulary of 259 entries");
    model.params_mut().flat_mut::<f32>().unwrap().fill(f32::NAN);
    let error = log_likelihoods(&model, &[sequence(5, 1, 1)]).unwrap_err().to_string();
    assert!(error.contains("NaN"), "{error}");
}

#[test]
fn a_document_that_fits_is_one_window_and_a_longer_one_sees_less() {
    let texts = ["x".repeat(60), "What the miller saw.".to_string()];
    let whole = loss_of(&texts, &options(window(512, 256)));
    assert_eq!(loss_of(&texts, &options(window(62, 1))), whole);
    let cut = loss_of(&texts, &options(window(16, 8)));
    assert_eq!((cut.tokens, cut.documents, cut.bytes), (82, 2, 80));
    assert!((cut.loss - whole.loss).abs() > 1e-3, "{} {}", cut.loss, whole.loss);
}

#[test]
fn figures_follow_from_the_sum() {
    let text = "Zwölf Boxkämpfer.";
    let tokenizer = Tokenizer::bytes().unwrap();
    let ids = |eos: bool| [vec![1], tokenizer.encode(text).unwrap(), vec![2; usize::from(eos)]].concat();
    for end_of_text in [true, false] {
        let figures = loss_of(&[text.to_string()], &TextOptions { end_of_text, ..options(window(512, 256)) });
        let nats = -by_loss(&model(), &Sequence::new(ids(end_of_text), 1));
        assert_eq!((figures.bytes, figures.tokens), (19, 19 + u64::from(end_of_text)));
        assert_near(figures.loss, nats / figures.tokens as f64);
        assert_near(figures.bits_per_byte, nats / 19.0 / std::f64::consts::LN_2);
        assert_near(figures.perplexity, figures.loss.exp());
    }
}

#[test]
fn groups_of_batches_lose_nothing_and_the_limit_is_one_of_documents() {
    let text = "the same story again, and again the same ".repeat(8);
    let once = loss_of(std::slice::from_ref(&text), &options(window(512, 256)));
    let many = vec![text; GATHERED_TOKENS / 300];
    let all = loss_of(&many, &options(window(512, 256)));
    assert!(all.tokens as usize > GATHERED_TOKENS);
    assert_eq!(all.tokens, once.tokens * many.len() as u64);
    assert_near(all.loss, once.loss);
    let two = loss_of(&many, &TextOptions { limit: Some(2), ..options(window(512, 256)) });
    assert_eq!((two.documents, two.tokens), (2, 2 * once.tokens));
}

#[test]
fn windows_that_no_model_can_take_are_named() {
    let config = model().config().clone();
    let window = |len, stride| Window::new(&config, len, stride);
    assert_eq!(window(None, None).unwrap(), Window { max_seq_len: 512, stride: 256 });
    for (len, stride, phrase) in [
        (Some(513), None, "max-seq-len is 513"),
        (Some(1), None, "max-seq-len is 1"),
        (Some(64), Some(64), "1..=63"),
        (None, Some(0), "stride is 0"),
    ] {
        let error = window(len, stride).unwrap_err().to_string();
        assert!(error.contains(phrase), "{error}");
    }
}

#[test]
fn accuracy_of_likelihoods_made_by_hand() {
    let answer =
        |label, log_likelihoods: [f64; 3]| Answer { line: 1, label, log_likelihoods: log_likelihoods.into(), bytes: vec![2, 8, 4] };
    // By sum the first ending, by byte the second.
    assert_eq!([answer(0, [-4.0, -8.0, -9.0]).choice(), answer(0, [-4.0, -8.0, -9.0]).choice_norm()], [0, 1]);
    // Equal ones: the first.
    assert_eq!([answer(0, [-9.0, -3.0, -3.0]).choice(), answer(0, [-2.0, -8.0, -4.0]).choice_norm()], [1, 0]);
    let mut tally = Tally::default();
    let answers = [
        answer(0, [-4.0, -8.0, -9.0]),
        answer(1, [-4.0, -8.0, -9.0]),
        answer(2, [-4.0, -8.0, -9.0]),
        answer(0, [-1.0, -9.0, -9.0]),
    ];
    answers.iter().for_each(|answer| tally.add(answer));
    let figures = tally.figures();
    assert_eq!([figures.acc, figures.acc_norm], [0.5, 0.5]);
    assert_eq!((figures.questions, figures.endings), (4, 12));
    assert!((figures.acc_stderr.unwrap() - (0.25f64 / 3.0).sqrt()).abs() < 1e-15);
    let mut one = Tally::default();
    one.add(&answers[0]);
    assert_eq!((one.figures().acc, one.figures().acc_norm, one.figures().acc_stderr), (1.0, 0.0, None));
}

/// The answers to questions in a file, or what is wrong with it.
fn ask(lines: &str, max_seq_len: usize) -> Result<Vec<Answer>> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("q.jsonl");
    fs::write(&path, lines).unwrap();
    let mut all = Vec::new();
    let options = ChoiceOptions { window: window(max_seq_len, 1), limit: None };
    multiple_choice(&model(), &Tokenizer::bytes().unwrap(), &path, &options, &mut |_, answers| {
        all.extend_from_slice(answers);
        Ok(())
    })?;
    Ok(all)
}

#[test]
fn an_ending_is_scored_behind_its_context() {
    let score = |text: &str, context: usize, kept: usize| {
        let all = [vec![1], Tokenizer::bytes().unwrap().encode(text).unwrap()].concat();
        let cut = all.len().saturating_sub(kept);
        by_loss(&model(), &Sequence::new(all[cut..].to_vec(), 1 + context - cut))
    };
    let row = r#"{"ctx": "The cat", "endings": ["sat.", "sang a song."], "label": "1"}"#;
    let answers = ask(row, 512).unwrap();
    assert_eq!((answers[0].label, &answers[0].bytes[..]), (1, &[4, 12][..]));
    assert_near(answers[0].log_likelihoods[0], score("The cat sat.", 7, 512));
    assert_near(answers[0].log_likelihoods[1], score("The cat sang a song.", 7, 512));
    // A blank at the end of the context goes to the ending; other names of the fields; a byte order mark; no newline at the end.
    let row = "\u{FEFF}\n{\"question\": \"The cat \", \"choices\": [\"sat.\", \"ran\"], \"answer\": 0}";
    let answers = ask(row, 512).unwrap();
    assert_eq!(answers[0].line, 2);
    assert_near(answers[0].log_likelihoods[0], score("The cat  sat.", 7, 512));
    // Longer than a window: the last tokens.
    let answers = ask(r#"{"ctx": "The cat", "endings": ["sat.", "sang"], "label": 1}"#, 8).unwrap();
    assert_near(answers[0].log_likelihoods[0], score("The cat sat.", 7, 8));
    // No context but the beginning of text.
    let answers = ask(r#"{"ctx": "", "endings": ["sat.", "ran"], "label": 0}"#, 512).unwrap();
    assert_near(answers[0].log_likelihoods[0], score(" sat.", 0, 512));
}

#[test]
fn bad_questions_are_named_by_file_and_line() {
    let good = r#"{"ctx": "A", "endings": ["b", "c"], "label": 0}"#;
    for (bad, phrase) in [
        ("{\"ctx\"", "expected {\"ctx\""),
        (r#"{"ctx": "A", "endings": ["b", "c"]}"#, "missing field `label`"),
        (r#"{"ctx": "A", "label": 0}"#, "missing field `endings`"),
        (r#"{"ctx": "A", "question": "B", "endings": ["b", "c"], "label": 0}"#, "duplicate field"),
        (r#"{"ctx": "A", "endings": [], "label": 0}"#, "at least two endings; there are 0"),
        (r#"{"ctx": "A", "endings": ["b", ""], "label": 0}"#, "ending 1 is empty"),
        (r#"{"ctx": "A", "endings": ["b", "c"], "label": 2}"#, "the label is 2; it must be one of 0..=1"),
        (r#"{"ctx": "A", "endings": ["b", "c"], "label": -1}"#, "the label is -1"),
        (r#"{"ctx": "A", "endings": ["b", "c"], "label": "x"}"#, "the label is \"x\""),
        (r#"{"ctx": "A", "endings": ["b", "c"], "label": 18446744073709551615}"#, "the label is 18446744073709551615"),
        (r#"{"ctx": "A", "endings": ["b", "c"], "label": ""}"#, "the label is empty"),
        (r#"{"ctx": "A", "endings": ["b", "seven letters"], "label": 0}"#, "ending 1 has 14 tokens; from 1 to 11"),
    ] {
        let error = ask(&format!("{good}\n\n{bad}\n"), 12).unwrap_err().to_string();
        assert!(error.contains("q.jsonl:3: ") && error.contains(phrase), "{bad}: {error}");
    }
    assert!(ask("", 12).unwrap_err().to_string().contains("no question found"));
    assert!(ask("\n \n", 12).unwrap_err().to_string().contains("no question found"));
}

#[test]
fn buckets_of_positions_are_parts_of_the_whole() {
    let model = model();
    let sequences = [sequence(70, 1, 5), sequence(70, 1, 6), sequence(41, 1, 7)];
    let mut heard = 0;
    let buckets = loss_by_position(&model, &sequences, 32, &mut |tokens| heard = tokens).unwrap();
    let ranges: Vec<_> = buckets.iter().map(|bucket| (bucket.from, bucket.to, bucket.tokens)).collect();
    assert_eq!(ranges, [(0, 32, 3 * 31), (32, 64, 2 * 32 + 9), (64, 70, 2 * 6)]);
    assert_eq!(heard, 181);
    for bucket in &buckets {
        let part = |sequence: &Sequence| Sequence::new(sequence.ids.iter().copied().take(bucket.to).collect(), bucket.from);
        let parts: Vec<Sequence> = sequences.iter().map(part).filter(|part| part.scored() > 0).collect();
        let nats: f64 = parts.iter().map(|part| -by_loss(&model, part)).sum();
        assert_near(bucket.loss, nats / bucket.tokens as f64);
        assert_near(bucket.perplexity, bucket.loss.exp());
    }
    assert!(loss_by_position(&model, &sequences, 0, &mut |_| {}).is_err());
}

#[test]
fn long_documents_are_whole_beginnings_and_short_ones_are_counted() {
    let (dir, tokenizer) = (TempDir::new().unwrap(), Tokenizer::bytes().unwrap());
    // The last is read in several pieces.
    let texts = ["short", &"just long ".repeat(10), &"one line among very many\n".repeat(200_000)];
    let path = dir.path().join("texts.jsonl");
    let lines: String = texts.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
    fs::write(&path, lines).unwrap();
    let ids = |text: &str| [vec![1], tokenizer.encode(text).unwrap(), vec![2]].concat();
    for (len, long) in [(7, 3), (8, 2), (102, 2), (103, 1), (4_000_000, 1)] {
        let found = long_documents(&tokenizer, &[&path], len, None, false).unwrap();
        let expected = texts[3 - long..].iter().map(|text| Sequence::new(ids(text)[..len].to_vec(), 1));
        assert_eq!((found.sequences, found.shorter), (expected.collect(), 3 - long as u64), "{len}");
    }
    assert_eq!(long_documents(&tokenizer, &[&path], 7, Some(2), false).unwrap().sequences.len(), 2);
    let error = long_documents(&tokenizer, &[&path], 6_000_000, None, false).unwrap_err().to_string();
    assert_eq!(error, "no document has 6000000 tokens; the longest has 5000002");
}

#[test]
fn the_picture_shows_higher_perplexity_higher_and_where_training_ended() {
    let buckets = |perplexity: [f64; 2]| {
        let bucket =
            |(i, perplexity): (usize, f64)| Bucket { from: 8 * i, to: 8 * i + 8, tokens: 8, loss: perplexity.ln(), perplexity };
        perplexity.into_iter().enumerate().map(bucket).collect::<Vec<_>>()
    };
    let (worse, better) = (buckets([2.0, 300.0]), buckets([2.0, 3.0]));
    let text = positions_svg(8, &[("default", &worse), ("yarn", &better)]).unwrap();
    assert!(text.contains("trained length 8") && text.contains("default") && text.contains("yarn"));
    let heights = |colour: &str| -> Vec<i32> {
        let circles = text.lines().filter(|line| line.starts_with("<circle") && line.contains(colour));
        circles.map(|line| line.split("cy=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()).collect()
    };
    let (worse, better) = (heights("#B7410E"), heights("#B88A1A"));
    assert!(worse.len() == 2 && better.len() == 2 && worse[0] == better[0], "{text}");
    assert!(worse[1] < better[1] && better[1] < better[0]);
    assert!(positions_svg(8, &[]).is_err());
}
