//! Perplexity over positions as a picture.

use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

use super::Bucket;
use crate::{Error, Result};

const SIZE: (u32, u32) = (960, 480);
const INK: RGBColor = RGBColor(0x55, 0x52, 0x4f);
const GRID: RGBColor = RGBColor(0xe4, 0xe0, 0xda);
/// The colours of the curves, in their order.
const CURVES: [RGBColor; 4] =
    [RGBColor(0xb7, 0x41, 0x0e), RGBColor(0xb8, 0x8a, 0x1a), RGBColor(0x2f, 0x66, 0x90), RGBColor(0x5a, 0x7d, 0x3a)];

/// An SVG of the perplexity of each curve, a name and its buckets, over the positions, on a logarithmic axis, with a line where the
/// `trained_length` ends.
///
/// # Errors
/// No curve has a bucket.
pub fn positions_svg(trained_length: usize, curves: &[(&str, &[Bucket])]) -> Result<String> {
    let buckets = || curves.iter().flat_map(|(_, buckets)| *buckets);
    let last = buckets().map(|bucket| bucket.to).max().ok_or_else(|| Error::config("there is nothing to draw"))?;
    let (low, high) = buckets().fold((f64::INFINITY, 1.0f64), |(low, high), b| (low.min(b.perplexity), high.max(b.perplexity)));
    let mut text = String::new();
    draw(&mut text, trained_length, curves, last, (low * 0.9, high * 1.1))
        .map_err(|error| Error::Internal(format!("drawing perplexity over positions: {error}")))?;
    Ok(text)
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, trained: usize, curves: &[(&str, &[Bucket])], last: usize, (low, high): (f64, f64)) -> Drawn {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let font = |size: i32| ("sans-serif", size).into_font();
    let marks: Vec<f64> = (0..9)
        .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)))
        .filter(|mark| (low..=high).contains(mark))
        .collect();
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_top(44)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last as f64, (low..high).log_scale().with_key_points(marks))?;
    chart
        .configure_mesh()
        .bold_line_style(GRID.stroke_width(1))
        .light_line_style(TRANSPARENT)
        .axis_style(GRID.stroke_width(1))
        .label_style(font(16).color(&INK))
        .x_desc("position in the document, tokens")
        .y_desc("perplexity")
        .x_label_formatter(&|position| format!("{position:.0}"))
        .y_label_formatter(&|perplexity| format!("{perplexity:.0}"))
        .draw()?;
    let edge = trained as f64;
    if trained <= last {
        chart.draw_series(LineSeries::new([(edge, low), (edge, high)], INK.stroke_width(1)))?;
        let place = chart.backend_coord(&(edge, high));
        area.draw(&Text::new(format!("trained length {trained}"), (place.0 + 6, place.1 + 4), font(15).color(&INK)))?;
    }
    for (i, (name, buckets)) in curves.iter().enumerate() {
        let colour = CURVES[i % CURVES.len()];
        let middle = |bucket: &Bucket| ((bucket.from + bucket.to) as f64 / 2.0, bucket.perplexity);
        chart.draw_series(LineSeries::new(buckets.iter().map(middle), colour.stroke_width(3)))?;
        chart.draw_series(buckets.iter().map(|bucket| Circle::new(middle(bucket), 4, colour.filled())))?;
        let left = 80 + 140 * i as i32;
        area.draw(&PathElement::new(vec![(left, 24), (left + 28, 24)], colour.stroke_width(3)))?;
        area.draw(&Text::new((*name).to_owned(), (left + 36, 16), font(17).color(&INK)))?;
    }
    area.present()?;
    Ok(())
}
