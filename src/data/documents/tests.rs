use super::*;
use crate::data::Tokenizer;
use std::fs;

/// The documents of one file of that name and content, joined from their pieces, and how many lines were skipped.
fn read(name: &str, content: &[u8], skip: bool) -> Result<(Vec<String>, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    let mut reader = Documents::open(&[path], skip)?;
    let mut documents: Vec<String> = Vec::new();
    let mut open = false;
    for piece in &mut reader {
        let piece = piece?;
        assert!(piece.text.len() <= Piece::BYTES && !piece.text.is_empty());
        assert_ne!(piece.begins, open);
        open = !piece.ends;
        match documents.last_mut() {
            Some(last) if !piece.begins => last.push_str(&piece.text),
            _ => documents.push(piece.text),
        }
    }
    assert!(!open);
    Ok((documents, reader.skipped_lines()))
}

fn message(name: &str, content: &[u8]) -> String {
    read(name, content, false).unwrap_err().to_string()
}

#[test]
fn json_lines_in_every_dress() {
    let expected = (vec!["a\nb".to_string(), "é".to_string(), " c ".to_string()], 0);
    let content = "\u{FEFF}\r\n{\"text\": \"a\\nb\", \"id\": 3}\r\n\n  {\"id\": {}, \"text\": \"\\u00e9\"}\n{\"text\":\"\"}\n \t\n{\"text\":\" c \"}";
    for name in ["x.jsonl", "x.NDJSON", "x.json", "x", "x.data"] {
        assert_eq!(read(name, content.as_bytes(), false).unwrap(), expected, "{name}");
    }
    assert_eq!(read("x.txt", b"{\"text\": 1}", false).unwrap().0, ["{\"text\": 1}"]);
}

#[test]
fn plain_text_in_every_dress() {
    let text = read("x.txt", "\u{FEFF}one\r\n\r\ntwo\n\n  three\rfour".as_bytes(), false).unwrap();
    assert_eq!(text, (vec!["one\n\ntwo\n\n  three\rfour".to_string()], 0));
}

/// Long lines are read in parts: a CRLF or a character of several bytes may lie across the cut.
#[test]
fn parts_of_a_long_line_join() {
    for filler in Piece::BYTES - 3..Piece::BYTES + 3 {
        let text = "a".repeat(filler);
        let got = read("x.txt", format!("{text}\r\n\u{1F389}\n{text}\u{1F389}\rb\r").as_bytes(), false).unwrap().0;
        assert!(got == [format!("{text}\n\u{1F389}\n{text}\u{1F389}\rb\r")], "{filler}");
        let bad = [b"ok\n".as_slice(), text.as_bytes(), b"\xF0\x9F\n", text.as_bytes(), b"\nend"].concat();
        assert!(message("x.txt", &bad).contains("x.txt:2: not valid UTF-8"));
        let (kept, skipped) = read("x.txt", &bad, true).unwrap();
        assert!(skipped == 1 && kept[0].starts_with("ok\n") && kept[0].ends_with(&format!("{text}\nend")));
    }
}

#[test]
fn bad_lines_are_named_or_counted() {
    let cases: [(&[u8], &str); 5] = [
        (b"nonsense", "expected {\"text\""),
        (b"{\"content\": \"x\"}", "missing field `text`"),
        (b"{\"text\": 3}", "expected a string"),
        (b"{\"text\": \"\xFF\"}", "not valid UTF-8"),
        (b"[\"text\"", "expected {\"text\""),
    ];
    for (bad, expected) in cases {
        let content = [b"{\"text\": \"a\"}\n\n".as_slice(), bad, b"\n{\"text\": \"b\"}\n"].concat();
        let got = message("x.jsonl", &content);
        assert!(got.contains("x.jsonl:3: ") && got.contains(expected), "{got}");
        assert_eq!(read("x.jsonl", &content, true).unwrap(), (vec!["a".to_string(), "b".to_string()], 1));
    }
    let plain = b"one\ntw\xFFo\nthree\nf\xC3";
    let got = message("x.txt", plain);
    assert!(got.contains("x.txt:2: not valid UTF-8"), "{got}");
    assert_eq!(read("x.txt", plain, true).unwrap(), (vec!["one\nthree\nf".to_string()], 2));
}

#[test]
fn reading_stops_at_the_first_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    fs::write(&path, "{}\n{\"text\": \"b\"}\n").unwrap();
    let mut reader = Documents::open(&[&path, &path], false).unwrap();
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

#[test]
fn files_without_documents_are_errors() {
    assert!(message("x.txt", b"").contains("the file is empty"));
    assert!(message("x.txt", b" \n\n").contains("holds no text"));
    assert!(message("x.jsonl", b"\n{\"text\": \"\"}\n").contains("no document found"));
    assert!(message("x.json", b"[{\"text\": \"a\"}]").contains("one JSON object a line"));
    let missing = Documents::open(&["no/such/file.txt"], false).err().unwrap().to_string();
    assert!(missing.contains("no/such/file.txt"), "{missing}");
    assert!(Documents::open(&[] as &[&str], false).is_err());
}

/// Texts of several pieces: paragraphs, lines with CRLF, one endless line with and without blanks, characters of three bytes.
fn long_texts() -> Vec<String> {
    let philox = crate::rng::Philox::new(1);
    let text = |ends: &[&str], parts: &[&str], n: u64| -> String {
        (0..n)
            .map(|i| {
                let (part, end) = (philox.below(2 * i, parts.len() as u64), philox.below(2 * i + 1, ends.len() as u64));
                format!("{}{}", parts[part as usize], ends[end as usize])
            })
            .collect()
    };
    let words = ["the", "don't", "naïve", "3.14", "!?", "北京", "--"];
    vec![
        text(&[" ", " ", "\n", "\n\n"], &words, 50_000),
        text(&[" ", "\n\n\n", " \n\n", "  "], &words, 50_000),
        text(&[" ", "  ", "\t"], &words, 50_000),
        text(&[""], &["北", "京"], 70_000),
    ]
}

#[test]
fn pieces_are_bounded_and_whole() {
    for text in long_texts() {
        assert_eq!(read("x.txt", text.as_bytes(), false).unwrap().0.len(), 1);
        assert_eq!(read("x.txt", text.as_bytes(), false).unwrap().0.concat(), text);
        assert_eq!(read("x.txt", text.replace('\n', "\r\n").as_bytes(), false).unwrap().0.concat(), text);
        let line = serde_json::json!({"text": text}).to_string();
        assert_eq!(read("x.jsonl", line.as_bytes(), false).unwrap().0.concat(), text);
        let streamed: Vec<String> = {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("x.txt"), &text).unwrap();
            Documents::open(&[dir.path().join("x.txt")], false).unwrap().map(|p| p.unwrap().text).collect()
        };
        assert!(streamed.len() > 2);
    }
}

#[test]
fn pieces_have_the_ids_of_the_document() {
    let tokenizer = Tokenizer::load("tests/data/minimind-tokenizer").unwrap();
    for text in &long_texts()[..3] {
        let whole = tokenizer.encode(text).unwrap();
        let pieces: Vec<u32> = Piece::of(text).flat_map(|p| tokenizer.encode(&p.text).unwrap()).collect();
        assert!(pieces == whole);
    }
}
