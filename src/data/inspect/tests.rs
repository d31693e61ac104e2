use super::*;
use proptest::prelude::*;
use std::sync::Arc;

fn shards(lengths: &[usize]) -> Arc<Shards> {
    let documents: Vec<String> = lengths.iter().zip(0u8..).map(|(&n, i)| char::from(b'a' + i % 26).to_string().repeat(n)).collect();
    Arc::new(Shards::from_documents(documents, &Tokenizer::bytes().unwrap()).unwrap())
}

/// The same numbers, counted over every row as the loader feeds it.
fn counted(shards: &Arc<Shards>, view: View, seq_len: usize) -> Rows {
    let dataset = Dataset::new(shards.clone(), view, seq_len, 259).unwrap();
    let mut rows = Rows { rows: dataset.len(), ..Rows::default() };
    let mut held = vec![0u64; shards.documents() as usize];
    let mut pieces = held.clone();
    for index in 0..dataset.len() {
        let batch = dataset.sample(index).unwrap();
        rows.positions += batch.input_ids.len() as u64;
        rows.counted += batch.counted() as u64;
        rows.padding += batch.input_ids.iter().filter(|&&id| id == 0).count() as u64;
        for span in Sample::of(&dataset, index).unwrap().spans {
            held[span.document as usize] += span.columns.len() as u64;
            pieces[span.document as usize] += 1;
        }
    }
    let lengths: Vec<u64> = shards.document_lengths().collect();
    rows.left_out = lengths.iter().sum::<u64>() - held.iter().sum::<u64>();
    rows.cut = match view {
        View::Packed => pieces.iter().zip(&held).zip(&lengths).filter(|((p, held), len)| **p > 1 || held < len).count() as u64,
        View::Padded => held.iter().zip(&lengths).filter(|(held, len)| held < len).count() as u64,
    };
    rows
}

proptest! {
    #[test]
    fn figures_are_what_the_rows_hold(lengths in proptest::collection::vec(1usize..60, 1..30), seq_len in 3usize..50) {
        let shards = shards(&lengths);
        let figures = Figures::of(&shards, seq_len);
        prop_assert_eq!(figures.packed, counted(&shards, View::Packed, seq_len));
        prop_assert_eq!(figures.padded, counted(&shards, View::Padded, seq_len));
        prop_assert_eq!(figures.tokens, lengths.iter().map(|n| *n as u64 + 2).sum::<u64>());
        let mut sorted: Vec<u64> = lengths.iter().map(|n| *n as u64 + 2).collect();
        sorted.sort_unstable();
        prop_assert_eq!((figures.length(0.0), figures.length(1.0)), (sorted[0], sorted[sorted.len() - 1]));
        for quantile in [0.01, 0.1, 0.5, 0.9, 0.99] {
            let value = figures.length(quantile);
            let at_most = |v: u64| sorted.iter().filter(|&&length| length <= v).count() as f64;
            prop_assert!(at_most(value) >= quantile * sorted.len() as f64);
            prop_assert!(at_most(value - 1) < quantile * sorted.len() as f64);
        }
    }

    /// Spans and padding are the row from its first column to its last, and say where in the documents it comes from.
    #[test]
    fn spans_tile_the_row(lengths in proptest::collection::vec(1usize..60, 2..20), seq_len in 3usize..50, padded in any::<bool>()) {
        let shards = shards(&lengths);
        let view = if padded { View::Padded } else { View::Packed };
        let dataset = Dataset::new(shards.clone(), view, seq_len, 259).unwrap();
        for index in 0..dataset.len() {
            let sample = Sample::of(&dataset, index).unwrap();
            let mut column = 0;
            for span in &sample.spans {
                prop_assert_eq!(span.columns.start, column);
                column = span.columns.end;
                let document = shards.document(span.document);
                prop_assert_eq!(span.of, document.end - document.start);
                let ids: Vec<u32> = shards.read(document.start + span.tokens.start..document.start + span.tokens.end).collect();
                let fed: Vec<u32> = sample.batch.input_ids[span.columns.clone()].iter().map(|&id| id as u32).collect();
                // Where a document is cut in a row of its own, its end token stands in for the last that fits.
                let same = if padded && span.tokens.end < span.of { ids.len() - 1 } else { ids.len() };
                prop_assert_eq!(&fed[..same], &ids[..same]);
            }
            prop_assert_eq!(sample.padding(), column..seq_len);
            let masked: Vec<usize> = sample.masked().into_iter().flatten().collect();
            let expected: Vec<usize> = (0..seq_len).filter(|&c| sample.batch.targets[c] == Batch::IGNORE).collect();
            prop_assert_eq!(masked, expected);
        }
    }
}

#[test]
fn by_hand() {
    // Documents of 4, 3 and 7 tokens: rows of 6 are 4+2, 1+5, 2 and padding.
    let (shards, many) = (shards(&[2, 1, 5]), shards(&[1; 10]));
    let figures = Figures::of(&shards, 6);
    assert_eq!(figures.packed, Rows { rows: 3, positions: 18, padding: 4, counted: 11, left_out: 0, cut: 2 });
    assert_eq!(figures.padded, Rows { rows: 3, positions: 18, padding: 5, counted: 10, left_out: 1, cut: 1 });
    assert_eq!((figures.length(0.5), figures.mean_length(), figures.saved()), (4, 14.0 / 3.0, 0.0));
    assert_eq!(figures.padded.padding_share(), 5.0 / 18.0);
    assert_eq!(Figures::of(&many, 30).saved(), 0.9);
}

#[test]
fn a_row_as_text() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let documents = ["a\n".to_string(), "é".into(), "word ".repeat(20)];
    let shards = Arc::new(Shards::from_documents(&documents, &tokenizer).unwrap());
    let dataset = Dataset::new(shards, View::Packed, 60, 259).unwrap();
    let text = Sample::of(&dataset, 0).unwrap().describe(&tokenizer).unwrap();
    let expected = [
        "row 0",
        "  columns 0-3: document 0, whole, 4 tokens",
        "    <|im_start|>│a│⏎│<|im_end|>",
        "  columns 4-7: document 1, whole, 4 tokens",
        "    <|im_start|>││é│<|im_end|>",
        "  columns 8-59: document 2, its first 52 of 102 tokens",
    ];
    assert_eq!(text.lines().take(6).collect::<Vec<_>>(), expected);
    assert!(text.contains("│ … 12 tokens … │"), "{text}");
    assert!(text.ends_with("  2 of 60 targets do not count: columns 3, 7\n"), "{text}");
    let last = Sample::of(&dataset, 1).unwrap().describe(&tokenizer).unwrap();
    assert!(last.contains("columns 0-49: document 2, its last 50 of 102 tokens, without sight of what stands before"), "{last}");
    assert!(last.contains("columns 50-59: padding") && last.ends_with("11 of 60 targets do not count: columns 49-59\n"), "{last}");
}

/// The widths of the picture's rectangles of a class add up to what the rows hold.
#[test]
fn the_picture_shows_the_rows() {
    let shards = shards(&[10, 50, 3, 80, 7, 7, 30]);
    let seq_len = 46;
    let svg = picture(&shards, seq_len, 0).unwrap();
    let attribute = |line: &str, name: &str| -> f64 {
        let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
        rest[..rest.find('"').unwrap()].parse().unwrap()
    };
    // Ten units a column; the second panel begins behind the first.
    let columns = |class: &str, right: bool| -> f64 {
        let lines =
            svg.lines().filter(|line| line.contains(&format!("class=\"{class}")) && (attribute(line, "x") > 530.0) == right);
        lines.map(|line| attribute(line, "width") / 10.0).sum()
    };
    let (packed, padded) = (counted(&shards, View::Packed, seq_len), counted(&shards, View::Padded, seq_len));
    for (rows, right) in [(packed, false), (padded, true)] {
        assert_eq!(columns("padding", right).round(), rows.padding as f64);
        assert_eq!(columns("document", right).round(), (rows.positions - rows.padding) as f64);
        assert_eq!(columns("masked", right).round(), (rows.positions - rows.padding - rows.counted) as f64);
    }
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n") && svg.contains("packing saves"));
    assert!(svg.contains(&format!(">packed: {:.1} % padding in all<", 100.0 * packed.padding_share())));
    assert!(picture(&shards, seq_len, packed.rows).unwrap_err().to_string().contains("cannot be drawn"));
}
