//! `report.html`: a run at a glance, in one file that needs nothing else.

use std::fmt::Write;
use std::path::Path;

use super::Record;
use super::chart::{self, FIRST, Look, SECOND, Series, short};
use super::tensorboard::peak_load;
use crate::Result;
use crate::train::checkpoint::replace_root_file;

const STYLE: &str = include_str!("report.css");

/// What the page shows.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The name of the run.
    pub title: &'a str,
    /// The lines of `metrics.jsonl`, in the order of their steps.
    pub records: &'a [Record],
    /// Name and value of each setting, in the order in which they are listed.
    pub settings: &'a [(String, String)],
    /// What the model writes: pairs of a prompt and the text that goes on from it.
    pub samples: &'a [(String, String)],
}

impl Report<'_> {
    /// Writes the page to `run_dir/report.html`, at once.
    pub fn write(&self, run_dir: &Path) -> Result<()> {
        let html = self.html()?;
        replace_root_file(run_dir, "report.html", &|out| out.write_all(html.as_bytes()))?;
        Ok(())
    }

    /// The page. What was never measured is left out; all text is escaped.
    pub fn html(&self) -> Result<String> {
        let title = escape(self.title);
        let parts = [self.tiles(), self.charts()?, self.samples(), self.settings()].concat();
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{parts}</body>\n</html>\n"
        ))
    }

    fn points(&self, value: impl Fn(&Record) -> Option<f64>) -> Vec<(f64, f64)> {
        self.records.iter().filter_map(|record| Some((record.step as f64, value(record)?))).collect()
    }

    fn tiles(&self) -> String {
        let last = |points: Vec<(f64, f64)>| points.last().map(|point| point.1);
        let best = |points: Vec<(f64, f64)>| points.into_iter().map(|point| point.1).filter(|loss| !loss.is_nan()).reduce(f64::min);
        let loss = |loss: f64| format!("{loss:.3}");
        let tiles = [
            ("steps", self.records.last().map(|record| record.step.to_string())),
            ("tokens", self.records.iter().rev().find_map(|record| record.tokens).map(|tokens| short(tokens as f64))),
            ("training loss, smoothed", last(smooth(&self.points(|record| record.loss))).map(loss)),
            ("best validation loss", best(self.points(|record| record.val_loss)).map(loss)),
            ("tokens/s, median", median(self.points(|record| record.tok_s)).map(|rate| short(rate.round()))),
            ("time of training", last(self.points(|record| record.elapsed_s)).map(duration)),
        ];
        let tiles: Vec<String> = tiles
            .into_iter()
            .filter_map(|(name, value)| Some(format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", value?)))
            .collect();
        if tiles.is_empty() { String::new() } else { format!("<dl class=\"card tiles\">\n{}</dl>\n", tiles.concat()) }
    }

    fn charts(&self) -> Result<String> {
        let line = |points, look, colour| Series { points, look, colour };
        let only = |value: fn(&Record) -> Option<f64>| [line(self.points(value), Look::Line, FIRST)];
        let raw = self.points(|record| record.loss);
        let loss = [
            line(smooth(&raw), Look::Line, FIRST),
            line(raw, Look::Faint, FIRST),
            line(self.points(|record| record.val_loss), Look::Dots, SECOND),
        ];
        let loss_key =
            "nats per token over steps <i class=\"faint\">training</i> <i>smoothed</i> <i class=\"second\">validation</i>";
        let peaks = |record: &Record| expert_load(record).map(|layers| layers.iter().map(|load| peak_load(load)).collect());
        let layers = |reduce: fn(Vec<f64>) -> f64| self.points(|record| peaks(record).map(reduce));
        let balance = [
            line(layers(|peaks| peaks.iter().sum::<f64>() / peaks.len() as f64), Look::Line, FIRST),
            line(layers(|peaks| peaks.into_iter().fold(0.0, f64::max)), Look::Line, SECOND),
        ];
        let balance_key = "load of the busiest expert, 1 = even <i>mean of layers</i> <i class=\"second\">worst layer</i>";
        let charts = [
            card("Loss", loss_key, chart::svg("Loss", &loss, false)?),
            card("Learning rate", "over steps", chart::svg("Learning rate", &only(|record| record.lr), true)?),
            card("Throughput", "tokens per second over steps", chart::svg("Throughput", &only(|record| record.tok_s), true)?),
            card(
                "Gradient norm",
                "before clipping, over steps",
                chart::svg("Gradient norm", &only(|record| record.grad_norm), true)?,
            ),
            card("Expert balance", balance_key, chart::svg("Expert balance", &balance, false)?),
        ];
        Ok(format!("<div class=\"grid\">\n{}{}</div>\n", charts.concat(), self.experts()))
    }

    /// The last measured share of every expert, a row for each layer; the colour is full at twice the even share.
    fn experts(&self) -> String {
        let Some(layers) = self.records.iter().rev().find_map(expert_load) else { return String::new() };
        let experts = layers.iter().map(Vec::len).max().unwrap_or(0);
        let head: String = (0..experts).map(|expert| format!("<th>{expert}</th>")).collect();
        let row = |(layer, load): (usize, &Vec<f64>)| {
            let cell = |&share: &f64| {
                let colour = (50.0 * share * load.len() as f64).clamp(0.0, 100.0);
                format!("<td style=\"--load:{colour:.0}\">{:.0}%</td>", 100.0 * share)
            };
            format!("<tr><th>layer {layer}</th>{}</tr>\n", load.iter().map(cell).collect::<String>())
        };
        let rows: String = layers.iter().enumerate().map(row).collect();
        let table = format!(
            "<div class=\"scroll\"><table class=\"load\"><thead><tr><th></th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
        );
        card("Expert load", "share of the routed tokens for each expert, at the end", Some(table))
    }

    fn samples(&self) -> String {
        if self.samples.is_empty() {
            return String::new();
        }
        let sample = |(prompt, text): &(String, String)| format!("<pre><b>{}</b>{}</pre>\n", escape(prompt), escape(text));
        let samples: String = self.samples.iter().map(sample).collect();
        format!("<section class=\"card\"><h2>What the model writes</h2>\n{samples}</section>\n")
    }

    fn settings(&self) -> String {
        if self.settings.is_empty() {
            return String::new();
        }
        let row = |(name, value): &(String, String)| format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value));
        let rows: String = self.settings.iter().map(row).collect();
        format!("<section class=\"card\"><h2>Settings</h2>\n<table class=\"settings\">{rows}</table></section>\n")
    }
}

/// The load of the layers that have experts, if there are any.
fn expert_load(record: &Record) -> Option<&[Vec<f64>]> {
    record.expert_load.as_deref().filter(|layers| !layers.is_empty())
}

/// A titled box around `figure`, or nothing where there is none.
fn card(title: &str, note: &str, figure: Option<String>) -> String {
    let card = |figure| format!("<section class=\"card\"><h2>{title}</h2><p class=\"note\">{note}</p>\n{figure}</section>\n");
    figure.map(card).unwrap_or_default()
}

/// An exponential moving average over about a hundredth of the points, free of the bias towards its start.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 100.0).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let finite = points.iter().filter(|(_, value)| value.is_finite());
    finite
        .map(|&(step, value)| {
            (sum, weight) = (keep * sum + value, keep * weight + 1.0);
            (step, sum / weight)
        })
        .collect()
}

fn median(points: Vec<(f64, f64)>) -> Option<f64> {
    let mut values: Vec<f64> = points.into_iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn duration(seconds: f64) -> String {
    match seconds.round() as u64 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        let _ = match char {
            '&' => escaped.write_str("&amp;"),
            '<' => escaped.write_str("&lt;"),
            '>' => escaped.write_str("&gt;"),
            '"' => escaped.write_str("&quot;"),
            '\'' => escaped.write_str("&#39;"),
            other => escaped.write_char(other),
        };
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    fn curve(step: u64) -> Record {
        let part = step as f64 / 2000.0;
        let noise = (step as f64 * 12.9898).sin();
        let load = |layer: u64| (0..4u64).map(|e| 0.25 + 0.05 * ((layer * 4 + e) as f64 * 1.7).sin() * (1.0 - part)).collect();
        Record {
            step,
            tokens: Some(step * 16384),
            loss: Some(1.6 + 5.0 * (-6.0 * part).exp() + 0.12 * noise),
            val_loss: step.is_multiple_of(200).then(|| 1.65 + 5.0 * (-6.0 * part).exp()),
            lr: Some(5e-4 * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * part).cos()))),
            grad_norm: Some(0.6 + 2.0 * (-20.0 * part).exp() + 0.2 * noise.abs()),
            tok_s: Some(850.0 + 20.0 * noise),
            elapsed_s: Some(step as f64 * 0.7),
            expert_load: Some((0..8).map(load).collect()),
            ..Record::default()
        }
    }

    #[test]
    fn the_page_needs_nothing_else_and_shows_everything() {
        let records: Vec<Record> = (1..=2000).filter(|step| step % 5 == 0).map(curve).collect();
        let settings = pairs(&[("preset", "minimind2-moe"), ("learning-rate", "5e-4"), ("batch-size", "32"), ("seed", "42")]);
        let samples = pairs(&[("Once upon a time", ", there was a fox who lived by the river.\nShe had a red boat.")]);
        let report = Report { title: "tiny on stories", records: &records, settings: &settings, samples: &samples };
        let dir = TempDir::new().unwrap();
        report.write(dir.path()).unwrap();
        let html = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
        assert_eq!(html.matches("<svg role=").count(), 5);
        assert_eq!(html.matches("<tr><th>layer ").count(), 8);
        assert!(html.contains("<dd>2000</dd>") && html.contains("<dd>32.77M</dd>") && html.contains("<dd>23 min 20 s</dd>"));
        assert!(html.contains("<b>Once upon a time</b>, there was a fox"));
        for outside in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        for colour in ["#B7410E", "#2F6690", "#E4E0DA"] {
            assert!(
                html.contains(&format!("stroke=\"{colour}\"/>")) || html.contains(&format!("stroke=\"{colour}\" ")),
                "{colour}"
            );
        }
    }

    #[test]
    fn a_run_that_measured_nothing_still_has_a_page() {
        let html = Report { title: "", records: &[], settings: &[], samples: &[] }.html().unwrap();
        assert!(html.ends_with("</html>\n") && !html.contains("<svg"));
        let bad =
            [Record { step: 1, loss: Some(f64::NAN), val_loss: Some(f64::NAN), expert_load: Some(vec![]), ..Record::default() }];
        let html = Report { title: "NaN", records: &bad, settings: &[], samples: &[] }.html().unwrap();
        assert!(html.contains("<dd>1</dd>") && !html.contains("<svg"));
    }

    #[test]
    fn text_is_escaped() {
        let evil = "<script>alert('x')</script> & \"";
        let texts = pairs(&[(evil, evil)]);
        let html = Report { title: evil, records: &[], settings: &texts, samples: &texts }.html().unwrap();
        assert!(!html.contains("<script") && !html.contains("alert('"));
        assert_eq!(html.matches("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;").count(), 6);
    }

    #[test]
    fn smoothing_keeps_a_constant_and_halves_noise() {
        let constant: Vec<(f64, f64)> = (0..200).map(|step| (step as f64, 3.0)).collect();
        assert!(smooth(&constant).iter().all(|point| (point.1 - 3.0).abs() < 1e-12));
        let noisy: Vec<(f64, f64)> = (0..200).map(|step| (step as f64, if step % 2 == 0 { 1.0 } else { -1.0 })).collect();
        assert!(smooth(&noisy)[100..].iter().all(|point| point.1.abs() < 0.5));
        assert_eq!(smooth(&noisy[..3]), noisy[..3]);
        assert_eq!(median(noisy), Some(1.0));
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([59.4, 61.0, 7322.0].map(duration), ["59 s", "1 min 1 s", "2 h 2 min"]);
    }
}
