//! Rows × positions as a picture: how packing fills the rows, beside one document a row.

use super::{Figures, Sample};
use crate::{
    Error, Result,
    data::{Dataset, Shards, View},
};
use std::{ops::Range, sync::Arc};

/// The most rows that are drawn of each view.
const ROWS: u64 = 24;
/// Sizes in the picture's units.
const PANEL: f64 = 460.0;
const GAP: f64 = 40.0;
const MARGIN: f64 = 60.0;
const TOP: f64 = 76.0;
const ROW: f64 = 14.0;
/// The least width of a mark, so that one column of many stays visible.
const MARK: f64 = 1.2;

/// Neighbouring documents take neighbouring colours, after Okabe and Ito's palette for all kinds of sight.
const DOCUMENTS: [&str; 6] = ["#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#CC79A7"];
const PADDING: &str = "#D9D9D9";
const MASKED: &str = "#202020";

/// An SVG of up to 24 rows of `seq_len` tokens from packed row `first` on, beside the same documents one a row. Colours tell
/// documents apart, grey is padding, a dark mark is a token whose target does not count.
///
/// # Errors
/// Those of [`Dataset::new`], and `first` behind the last row.
pub fn picture(shards: &Arc<Shards>, seq_len: usize, first: u64) -> Result<String> {
    let dataset = |view| Dataset::new(shards.clone(), view, seq_len, shards.vocab_size());
    let (packed, padded) = (dataset(View::Packed)?, dataset(View::Padded)?);
    if first >= packed.len() {
        return Err(Error::config(format!("row {first} cannot be drawn: the data set has {} rows", packed.len())));
    }
    let samples = |dataset: &Dataset, first: u64| -> Result<Vec<Sample>> {
        (first..(first + ROWS).min(dataset.len())).map(|index| Sample::of(dataset, index)).collect()
    };
    let left = samples(&packed, first)?;
    let document = left.first().and_then(|row| row.spans.first()).map_or(0, |span| span.document);
    let right = samples(&padded, document)?;

    let figures = Figures::of(shards, seq_len);
    let (width, height) = (MARGIN + 2.0 * PANEL + GAP + 20.0, TOP + ROW * left.len().max(right.len()) as f64 + 40.0);
    let mut lines = Vec::new();
    let mut line = |text: String| lines.push(text);
    line(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12">"#
    ));
    line(format!(r#"<rect width="{width}" height="{height}" fill="white"/>"#));
    line(label(
        MARGIN,
        22.0,
        &format!(
            "{} documents in rows of {seq_len} tokens: packing saves {:.1} % of the positions",
            figures.documents,
            100.0 * figures.saved()
        ),
    ));
    line(label(MARGIN, 40.0, "a colour is a document; grey is padding; a dark mark is a token whose target does not count"));
    for (x, title, rows, share) in [
        (MARGIN, "packed", &left, figures.packed.padding_share()),
        (MARGIN + PANEL + GAP, "one document a row", &right, figures.padded.padding_share()),
    ] {
        line(label(x, TOP - 10.0, &format!("{title}: {:.1} % padding in all", 100.0 * share)));
        for (sample, y) in rows.iter().zip(0u32..).map(|(sample, row)| (sample, TOP + ROW * f64::from(row))) {
            if x == MARGIN || sample.index == document {
                line(format!(
                    r#"<text x="{:.1}" y="{:.1}" text-anchor="end" font-size="10">{}</text>"#,
                    x - 4.0,
                    y + 10.0,
                    sample.index
                ));
            }
            rectangles(sample, x, y, &mut line);
        }
        let y = TOP + ROW * rows.len() as f64 + 14.0;
        line(label(x, y, "0"));
        line(format!(r#"<text x="{:.1}" y="{y:.1}" text-anchor="end">{}</text>"#, x + PANEL, seq_len - 1));
    }
    line("</svg>".into());
    Ok(lines.join("\n") + "\n")
}

/// The documents, the padding and the masked columns of one row.
fn rectangles(sample: &Sample, x: f64, y: f64, line: &mut impl FnMut(String)) {
    let scale = PANEL / sample.batch.seq_len as f64;
    let mut rectangle = |class: String, columns: &Range<usize>, least: f64, fill: &str| {
        let width = (columns.len() as f64 * scale).max(least);
        let left = (x + columns.end as f64 * scale - width).max(x);
        line(format!(
            r#"<rect class="{class}" x="{left:.2}" y="{y:.1}" width="{width:.2}" height="{:.1}" fill="{fill}"/>"#,
            ROW - 2.0
        ));
    };
    for span in &sample.spans {
        let colour = DOCUMENTS[(span.document % DOCUMENTS.len() as u64) as usize];
        rectangle(format!("document {}", span.document), &span.columns, 0.0, colour);
    }
    let padding = sample.padding();
    if !padding.is_empty() {
        rectangle("padding".into(), &padding, 0.0, PADDING);
    }
    for masked in
        sample.masked().iter().map(|masked| masked.start..masked.end.min(padding.start)).filter(|masked| !masked.is_empty())
    {
        rectangle("masked".into(), &masked, MARK, MASKED);
    }
}

fn label(x: f64, y: f64, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}">{text}</text>"#)
}
