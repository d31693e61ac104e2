//! Line charts as inline SVG. Colours are fixed words that the page's style sheet exchanges for those of its light or dark theme.

use plotters::prelude::*;

use crate::{Error, Result};

/// The colour of text.
pub(super) const INK: RGBColor = RGBColor(0x6e, 0x6a, 0x66);
/// The colour of grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xe4, 0xe0, 0xda);
/// The colour of what is measured in training.
pub(super) const FIRST: RGBColor = RGBColor(0xb7, 0x41, 0x0e);
/// The colour of what is set beside it.
pub(super) const SECOND: RGBColor = RGBColor(0x2f, 0x66, 0x90);

/// The size in SVG units, about two to a pixel, since plotters rounds to whole ones.
const SIZE: (u32, u32) = (1040, 560);
/// Points beyond this many are thinned out: a chart has no more columns to show them in.
const COLUMNS: usize = 400;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Look {
    /// A thin pale line: all the noise.
    Faint,
    /// A line.
    Line,
    /// A line with a dot at each point.
    Dots,
}

/// Points (step, value) in the order of their steps.
pub(super) struct Series {
    pub points: Vec<(f64, f64)>,
    pub look: Look,
    pub colour: RGBColor,
}

/// Draws `series` over a common grid; `None` where none has a finite point. `zero`: the axis of values begins at 0.
pub(super) fn svg(label: &str, series: &[Series], zero: bool) -> Result<Option<String>> {
    let series: Vec<(&Series, Vec<(f64, f64)>)> = series.iter().map(|line| (line, thin(&line.points))).collect();
    let all = || series.iter().flat_map(|(_, points)| points);
    let (Some(x), Some(y)) = (span(all().map(|point| point.0)), span(all().map(|point| point.1))) else { return Ok(None) };
    let low = if zero { y.0.min(0.0) } else { y.0 - 0.06 * (y.1 - y.0) };
    let high = y.1 + 0.06 * (y.1 - low);
    let mut text = String::new();
    draw(&mut text, &series, x, (low, high)).map_err(|error| Error::Internal(format!("drawing the chart `{label}`: {error}")))?;
    let (width, height) = SIZE;
    let fixed = format!("width=\"{width}\" height=\"{height}\"");
    Ok(Some(text.replacen(&fixed, &format!("role=\"img\" aria-label=\"{label}\""), 1)))
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, series: &[(&Series, Vec<(f64, f64)>)], x: (f64, f64), y: (f64, f64)) -> Drawn {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin_top(16)
        .margin_right(40)
        .x_label_area_size(56)
        .y_label_area_size(112)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .bold_line_style(GRID.stroke_width(2))
        .light_line_style(TRANSPARENT)
        .axis_style(GRID.stroke_width(2))
        .label_style(("sans-serif", 38).into_font().color(&INK))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for (line, points) in series {
        let style = match line.look {
            Look::Faint => line.colour.mix(0.35).stroke_width(2),
            Look::Line | Look::Dots => line.colour.stroke_width(4),
        };
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        if line.look == Look::Dots || points.len() == 1 {
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 7, line.colour.filled())))?;
        }
    }
    area.present()?;
    Ok(())
}

/// The finite points; of many, the lowest and the highest in each column, so that no spike is lost.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    if finite.len() <= 2 * COLUMNS {
        return finite;
    }
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let extremes = |column: &[(f64, f64)]| {
        let (Some(&low), Some(&high)) = (column.iter().min_by(by_value), column.iter().max_by(by_value)) else { return vec![] };
        if low.0 <= high.0 { vec![low, high] } else { vec![high, low] }
    };
    finite.chunks(finite.len().div_ceil(COLUMNS)).flat_map(extremes).collect()
}

/// Lowest and highest of `values`, drawn apart where they are one.
fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let apart = if low == 0.0 { 1.0 } else { 0.05 * low.abs() };
    (low <= high).then_some(if low == high { (low - apart, high + apart) } else { (low, high) })
}

/// A number in few characters: 1500 as `1.5k`, 0.0005 as `5e-4`.
pub(super) fn short(value: f64) -> String {
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    match value.abs() {
        size if size >= 1e9 => trim(format!("{:.2}", value / 1e9)) + "G",
        size if size >= 1e6 => trim(format!("{:.2}", value / 1e6)) + "M",
        size if size >= 1e3 => trim(format!("{:.2}", value / 1e3)) + "k",
        size if size >= 1e-2 => trim(format!("{value:.3}")),
        size if size < 1e-12 => "0".to_string(),
        _ => {
            let text = format!("{value:.2e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{exponent}", trim(digits.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1e-17, "0"),
            (5e-4, "5e-4"),
            (-2.25e-6, "-2.25e-6"),
            (0.05, "0.05"),
            (2.0 + 1e-15, "2"),
            (100.0, "100"),
            (1500.0, "1.5k"),
            (44160.0, "44.16k"),
            (25_829_888.0, "25.83M"),
            (1.2e10, "12G"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn thinning_keeps_the_extremes_in_order_and_drops_what_is_not_finite() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (i as f64, (i as f64 / 900.0).sin())).collect();
        points[5000].1 = 40.0;
        points[5001].1 = f64::NAN;
        points[7000].1 = -40.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= 2 * COLUMNS && thinned.contains(&(5000.0, 40.0)) && thinned.contains(&(7000.0, -40.0)));
        assert!(thinned.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        assert!(thinned.iter().all(|point| point.1.is_finite()));
        assert_eq!(thin(&points[..3]), points[..3]);
    }

    #[test]
    fn higher_values_are_drawn_higher() {
        let line = |points: &[(f64, f64)]| [Series { points: points.to_vec(), look: Look::Line, colour: FIRST }];
        let text = svg("a", &line(&[(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)]), false).unwrap().unwrap();
        let curve = text.split("<polyline").last().unwrap();
        let points = curve.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let y: Vec<i32> = points.split_whitespace().map(|point| point.split_once(',').unwrap().1.parse().unwrap()).collect();
        assert!(y.len() == 3 && y[1] < y[2] && y[2] < y[0], "{points}");
        assert!(text.contains("aria-label=\"a\"") && !text.contains("height=\"560\""));
        assert!(svg("a", &line(&[(0.0, f64::NAN)]), true).unwrap().is_none());
        for single in [0.0, 2.0, -3.0] {
            assert!(svg("a", &line(&[(5.0, single)]), false).unwrap().unwrap().contains("<circle"));
        }
    }
}
