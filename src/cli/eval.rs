//! `ferromind eval`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use ferromind::data::Tokenizer;
use ferromind::infer::evaluate::{
    Bucket, ChoiceOptions, Progress, TextOptions, Window, long_documents, loss_by_position, multiple_choice, positions_svg,
    text_loss,
};
use ferromind::io::load_model;
use ferromind::model::Model;
use ferromind::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::rope::{Kind, RopeFlags};
use super::say;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("task").required(true))]
pub struct Flags {
    /// A run directory, or any model directory with config.json, model.safetensors and tokenizer.json
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text to score, plain UTF-8 or JSON lines {"text": …}, also .gz or .zst, files, quoted patterns and directories: loss in
    /// nats per token, perplexity, bits per byte
    #[arg(long, group = "task", num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Questions to answer, JSON lines as in HellaSwag {"ctx": …, "endings": […], "label": …}: acc, and acc_norm per byte
    #[arg(long, group = "task", value_name = "FILE")]
    multiple_choice: Option<PathBuf>,
    /// A directory, a tokenizer.json, or `bytes` [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Tokens that the model sees at once, the last one only predicted [default: the model's positions, at most 2048]
    #[arg(long)]
    max_seq_len: Option<usize>,
    /// Longer documents are scored in windows this many tokens apart, each token once [default: half of max-seq-len]
    #[arg(long, conflicts_with = "multiple_choice")]
    stride: Option<usize>,
    /// Only the first so many documents or questions
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Do not score the end-of-text token after each document: only the text's own tokens
    #[arg(long, conflicts_with = "multiple_choice")]
    no_eos: bool,
    /// Count bad lines and go on, instead of stopping at the first
    #[arg(long, conflicts_with = "multiple_choice")]
    skip_bad_lines: bool,
    /// The loss of each WIDTH positions apart, over documents as long as --rope-factor times the trained length (or --max-seq-len):
    /// with the model's own frequencies, and scaled linearly and by YaRN, or as --rope-scaling says
    #[arg(long, value_name = "WIDTH", requires = "data", conflicts_with_all = ["multiple_choice", "stride", "no_eos"])]
    by_position: Option<usize>,
    /// Draw perplexity over positions into this file, an SVG
    #[arg(long, value_name = "FILE", requires = "by_position")]
    picture: Option<PathBuf>,
    /// Write each question's log-likelihoods to this file, as JSON lines
    #[arg(long, conflicts_with = "data", value_name = "FILE")]
    log_samples: Option<PathBuf>,
    /// Threads; 0 takes one for each core
    #[arg(long, default_value_t = 0)]
    num_workers: usize,
    /// Only the last line, which is JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rope: RopeFlags,
}

/// Scores, with a progress bar; the last line is JSON.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    super::use_threads(flags.num_workers)?;
    let model = load_model(&flags.model)?;
    let tokenizer = tokenizer(flags)?;
    if let Some(width) = flags.by_position {
        say!("{}", by_position(flags, model, &tokenizer, width)?);
        return Ok(ExitCode::SUCCESS);
    }
    let model = flags.rope.apply(model, &flags.model)?;
    let window = Window::new(model.config(), flags.max_seq_len, flags.stride)?;
    let screen = Screen::new(flags.limit);
    let mut figures = match &flags.multiple_choice {
        Some(path) => answer(flags, &model, &tokenizer, path, window, &screen)?,
        None => read(flags, &model, &tokenizer, window, &screen)?,
    };
    figures["model"] = json!(flags.model);
    figures["max_seq_len"] = window.max_seq_len().into();
    say!("{figures}");
    Ok(ExitCode::SUCCESS)
}

/// The one that is named, or the model's.
fn tokenizer(flags: &Flags) -> Result<Tokenizer> {
    match &flags.tokenizer {
        Some(name) if name.as_os_str() == "bytes" => Tokenizer::bytes(),
        Some(path) => Tokenizer::load(path),
        None if !flags.model.join("tokenizer.json").is_file() => {
            Err(Error::config(format!("{} holds no tokenizer.json; name one by --tokenizer", flags.model.display())))
        }
        None => Tokenizer::load(&flags.model),
    }
}

fn read(flags: &Flags, model: &Model, tokenizer: &Tokenizer, window: Window, screen: &Screen) -> anyhow::Result<Value> {
    let (limit, skip_bad_lines) = (flags.limit, flags.skip_bad_lines);
    let options = TextOptions { window, end_of_text: !flags.no_eos, limit, skip_bad_lines };
    let figures = text_loss(model, tokenizer, &flags.data, &options, &mut |progress| screen.show(progress))?;
    let (seconds, tok_s) = screen.finish();
    if !flags.json {
        let (documents, tokens, bytes) = (figures.documents, figures.tokens, figures.bytes);
        say!("{documents} documents, {tokens} tokens, {bytes} bytes in {seconds:.1} s, {tok_s:.0} tokens/s");
        if figures.skipped_lines > 0 {
            say!("{} bad lines were passed over", figures.skipped_lines);
        }
        say!("loss           {:.4} nats per token", figures.loss);
        say!("perplexity     {:.3}", figures.perplexity);
        say!("bits per byte  {:.4}", figures.bits_per_byte);
    }
    let mut figures = serde_json::to_value(figures)?;
    figures["stride"] = window.stride().into();
    figures["bos"] = tokenizer.bos_id().is_some().into();
    figures["eos"] = (!flags.no_eos && tokenizer.eos_id().is_some()).into();
    Ok(with_speed(figures, seconds, tok_s))
}

fn answer(
    flags: &Flags,
    model: &Model,
    tokenizer: &Tokenizer,
    path: &PathBuf,
    window: Window,
    screen: &Screen,
) -> anyhow::Result<Value> {
    let same_file = |a: &PathBuf, b: &PathBuf| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if flags.log_samples.as_ref().is_some_and(|log| same_file(log, path)) {
        anyhow::bail!("--log-samples would overwrite the questions in {}", path.display());
    }
    let mut log = match &flags.log_samples {
        Some(path) => Some((path, File::create(path).map(BufWriter::new).map_err(|e| Error::io(path, e))?)),
        None => None,
    };
    let options = ChoiceOptions { window, limit: flags.limit };
    let figures = multiple_choice(model, tokenizer, path, &options, &mut |progress, answers| {
        screen.show(progress);
        let Some((path, log)) = &mut log else { return Ok(()) };
        let mut write = || answers.iter().try_for_each(|answer| writeln!(log, "{}", json!(answer))).and_then(|()| log.flush());
        write().map_err(|e| Error::io(path, e))
    })?;
    let (seconds, tok_s) = screen.finish();
    if !flags.json {
        let share = |name: &str, share: f64, stderr: Option<f64>| {
            let stderr = stderr.map_or(String::new(), |stderr| format!(" ± {stderr:.4}"));
            say!("{name:8} {share:.4}{stderr}");
        };
        say!("{} questions, {} endings in {seconds:.1} s, {tok_s:.0} tokens/s", figures.questions, figures.endings);
        share("acc", figures.acc, figures.acc_stderr);
        share("acc_norm", figures.acc_norm, figures.acc_norm_stderr);
    }
    Ok(with_speed(serde_json::to_value(figures)?, seconds, tok_s))
}

/// One model, read by its own frequencies and by scaled ones, side by side.
fn by_position(flags: &Flags, model: Model, tokenizer: &Tokenizer, width: usize) -> anyhow::Result<Value> {
    let stretch = flags.rope.stretch(&model, &flags.model)?;
    let (original, positions) = (stretch.original, stretch.positions());
    let len = flags.max_seq_len.unwrap_or(positions);
    anyhow::ensure!(
        (2..=positions).contains(&len),
        "max-seq-len is {len}; it must lie in 2..={positions}, {original} times the factor"
    );
    let documents = long_documents(tokenizer, &flags.data, len, flags.limit, flags.skip_bad_lines)?;
    let kinds = flags.rope.rope_scaling.map_or(vec![Kind::Linear, Kind::Yarn], |kind| vec![kind]);
    let bar = ProgressBar::new((documents.sequences.len() * len * (1 + kinds.len())) as u64);
    let (mut model, mut curves): (Model, Vec<(&str, Vec<Bucket>)>) = (stretch.unscaled(model)?, Vec::new());
    for kind in [None].into_iter().chain(kinds.into_iter().map(Some)) {
        let name = match kind {
            None => "default",
            Some(Kind::Linear) => "linear",
            Some(Kind::Yarn) => "yarn",
        };
        if let Some(kind) = kind {
            model = stretch.apply(model, kind)?;
        }
        let done = bar.position();
        curves.push((name, loss_by_position(&model, &documents.sequences, width, &mut |tokens| bar.set_position(done + tokens))?));
    }
    bar.finish_and_clear();
    if let Some(path) = &flags.picture {
        let curves: Vec<(&str, &[Bucket])> = curves.iter().map(|(name, buckets)| (*name, buckets.as_slice())).collect();
        std::fs::write(path, positions_svg(original, &curves)?).map_err(|e| Error::io(path, e))?;
    }
    if !flags.json {
        let (long, shorter, factor) = (documents.sequences.len(), documents.shorter, stretch.factor);
        say!(
            "perplexity of {long} documents' first {len} tokens ({shorter} are shorter); trained length {original}, factor {factor}"
        );
        say!("{:>11}{}", "positions", curves.iter().map(|(name, _)| format!("{name:>10}")).collect::<String>());
        let rows = curves.first().map_or(0, |(_, buckets)| buckets.len());
        for row in 0..rows {
            let buckets: Vec<&Bucket> = curves.iter().filter_map(|(_, buckets)| buckets.get(row)).collect();
            let range = buckets.first().map_or(String::new(), |bucket| format!("{}–{}", bucket.from, bucket.to - 1));
            say!("{range:>11}{}", buckets.iter().map(|bucket| format!("{:10.3}", bucket.perplexity)).collect::<String>());
        }
    }
    let scalings: Vec<Value> = curves.iter().map(|(name, buckets)| json!({ "scaling": name, "buckets": buckets })).collect();
    Ok(json!({
        "scalings": scalings, "documents": documents.sequences.len(), "shorter": documents.shorter, "width": width,
        "trained_length": original, "factor": stretch.factor, "max_seq_len": len, "model": flags.model,
    }))
}

fn with_speed(mut figures: Value, seconds: f64, tok_s: f64) -> Value {
    figures["seconds"] = seconds.into();
    figures["tok_s"] = tok_s.into();
    figures
}

/// The progress bar, on standard error; its length is that of the files in bytes, or the number of items asked for.
struct Screen {
    bar: ProgressBar,
    limit: Option<u64>,
    began: Instant,
    tokens: std::cell::Cell<u64>,
}

impl Screen {
    fn new(limit: Option<u64>) -> Self {
        let bar = ProgressBar::new(limit.unwrap_or(0));
        let of_files = "{wide_bar} {bytes}/{total_bytes} {msg}, {eta} left";
        let style =
            ProgressStyle::with_template(if limit.is_some() { "{wide_bar} {pos}/{len} {msg}, {eta} left" } else { of_files });
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, limit, began: Instant::now(), tokens: std::cell::Cell::new(0) }
    }

    fn show(&self, progress: &Progress) {
        self.tokens.set(progress.tokens);
        if self.limit.is_none() {
            self.bar.set_length(progress.bytes_total);
        }
        self.bar.set_position(if self.limit.is_some() { progress.items } else { progress.bytes_done });
        self.bar.set_message(format!("{} tokens, {:.0} tokens/s", progress.tokens, self.speed()));
    }

    fn speed(&self) -> f64 {
        self.tokens.get() as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }

    /// Clears the bar; seconds since the beginning, and tokens in each of them.
    fn finish(&self) -> (f64, f64) {
        self.bar.finish_and_clear();
        (self.began.elapsed().as_secs_f64(), self.speed())
    }
}
