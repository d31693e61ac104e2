//! `ferromind data`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use ferromind::data::inspect::{Figures, Rows, Sample, picture};
use ferromind::data::{Dataset, Loader, ShardOptions, Shards, Tokenizer, View, default_cache_dir};
use ferromind::train::corpus::{stories, stories_tokenizer};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use super::say;

/// How tokenizing is shown.
pub const TOKENIZING: &str = "tokenizing {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

#[derive(Subcommand)]
pub enum Command {
    /// Show what a model will see: lengths of documents, what packing saves, and rows with their tokens, documents and masks
    Inspect {
        #[command(flatten)]
        source: Source,
        /// Plain text or JSON lines, also .gz or .zst: files, quoted patterns and directories. Without it: embedded stories
        #[arg(long, num_args = 1.., value_name = "PATH")]
        data_path: Vec<PathBuf>,
        /// Tokens of a row
        #[arg(long, default_value_t = 512)]
        max_seq_len: usize,
        /// Rows to show, in the order in which an epoch without held-out data deals them
        #[arg(long, default_value_t = 3)]
        samples: u64,
        /// Decides that order
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Show one document a row instead of packed rows
        #[arg(long)]
        no_packing: bool,
        /// Draw rows × positions, packed and one document a row, from the first row shown on
        #[arg(long, value_name = "FILE.svg")]
        picture: Option<PathBuf>,
    },
    /// Tokenize beforehand; pretrain finds it under the same data, tokenizer, --cache-dir and --skip-bad-lines
    ///
    /// Ctrl-C, a crash or a kill loses a moment's work: the same command goes on where it stopped, to the same bytes. A file
    /// that is added later is tokenized alone. Data are known by their content, not by name or place.
    Tokenize {
        #[command(flatten)]
        source: Source,
        /// Plain text or JSON lines, also .gz or .zst: files, quoted patterns ('data/*.jsonl.zst') and directories
        #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
        data_path: Vec<PathBuf>,
    },
}

/// How text becomes tokens, and where they are kept.
#[derive(Args)]
pub struct Source {
    /// "bytes" (the default with --data-path), or a tokenizer.json or its directory
    #[arg(long, value_name = "DIR|bytes")]
    tokenizer: Option<String>,
    /// Where tokenized data is kept [default: $FERROMIND_CACHE, or ferromind in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Count bad lines and go on, instead of stopping at the first
    #[arg(long)]
    skip_bad_lines: bool,
    /// Threads; 0 takes one for each core
    #[arg(long, default_value_t = 0)]
    num_workers: usize,
}

impl Source {
    fn load(&self, data_path: &[PathBuf]) -> anyhow::Result<(Tokenizer, Shards, PathBuf)> {
        super::use_threads(self.num_workers)?;
        let tokenizer = match self.tokenizer.as_deref() {
            None if data_path.is_empty() => stories_tokenizer()?,
            None | Some("bytes") => Tokenizer::bytes()?,
            Some(path) => Tokenizer::load(path)?,
        };
        let cache_dir = self.cache_dir.clone().unwrap_or_else(default_cache_dir);
        let shards = if data_path.is_empty() {
            Shards::from_documents(stories().iter().map(|story| story.text), &tokenizer)?
        } else {
            let skip_bad_lines = self.skip_bad_lines;
            let options = ShardOptions { cache_dir: cache_dir.clone(), skip_bad_lines, ..ShardOptions::default() };
            let mut progress = Progress::default();
            let shards = Shards::from_files(data_path, &tokenizer, &options, &mut |done, total| progress.tell(done, total))?;
            progress.end();
            shards
        };
        Ok((tokenizer, shards, cache_dir))
    }
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Inspect { source, data_path, max_seq_len, samples, seed, no_packing, picture: file } => {
            let (tokenizer, shards, _) = source.load(&data_path)?;
            let shards = Arc::new(shards);
            let view = if no_packing { View::Padded } else { View::Packed };
            let dataset = Dataset::new(shards.clone(), view, max_seq_len, tokenizer.vocab_size())?;
            print_figures(&shards, max_seq_len);
            let loader = Loader::new(dataset, 1, seed)?;
            let row = |place| loader.order(0).at(place);
            for place in 0..samples.min(loader.dataset().len()) {
                say!("\n{}", Sample::of(loader.dataset(), row(place))?.describe(&tokenizer)?.trim_end());
            }
            if let Some(file) = file {
                let first = if no_packing { 0 } else { row(0) };
                std::fs::write(&file, picture(&shards, max_seq_len, first)?).with_context(|| file.display().to_string())?;
                say!("\nThe picture is in {}", file.display());
            }
        }
        Command::Tokenize { source, data_path } => {
            let (_, shards, cache_dir) = source.load(&data_path)?;
            say!(
                "{} documents, {} tokens in {} {} of {} in {}",
                shards.documents(),
                shards.tokens(),
                shards.count(),
                if shards.count() == 1 { "shard" } else { "shards" },
                HumanBytes(shards.bytes()),
                cache_dir.display()
            );
            print_skipped(&shards);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_skipped(shards: &Shards) {
    if shards.skipped_lines() > 0 {
        say!("{} bad lines were passed over", shards.skipped_lines());
    }
}

fn print_figures(shards: &Shards, seq_len: usize) {
    let figures = Figures::of(shards, seq_len);
    let [least, tenth, median, ninetieth, hundredth, most] = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0].map(|q| figures.length(q));
    say!("{} documents, {} tokens", figures.documents, figures.tokens);
    print_skipped(shards);
    say!(
        "tokens of a document: mean {:.1}, least {least}, 10 % {tenth}, median {median}, 90 % {ninetieth}, 99 % {hundredth}, most {most}",
        figures.mean_length()
    );
    say!("\nrows of {seq_len:<24}{:>16}{:>24}", "packed", "one document a row");
    let rows = |name: &str, figure: fn(&Rows) -> u64| {
        say!("{name:<32}{:>16}{:>24}", figure(&figures.packed), figure(&figures.padded));
    };
    rows("rows", |rows| rows.rows);
    rows("positions", |rows| rows.positions);
    rows("padding", |rows| rows.padding);
    let share = |rows: &Rows| format!("{:.2} %", 100.0 * rows.padding_share());
    say!("{:<32}{:>16}{:>24}", "  of the positions", share(&figures.packed), share(&figures.padded));
    rows("targets that count", |rows| rows.counted);
    rows("targets that do not count", |rows| rows.positions - rows.counted);
    rows("documents not whole in one row", |rows| rows.cut);
    rows("tokens left out", |rows| rows.left_out);
    // Documents that are cut to a row need no padding: packing may even need a little more, which is not worth a minus sign.
    let saved = 100.0 * figures.saved();
    let saved = if saved.abs() < 0.005 { 0.0 } else { saved };
    say!("packing saves {saved:.2} % of the positions that one document a row needs for as many tokens");
}

/// Without a terminal, a line now and then says how far it is.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// A bar, or lines where there is no terminal.
#[derive(Default)]
struct Progress {
    bar: Option<ProgressBar>,
    /// When tokenizing began and with how many bytes, and when a line was written.
    lines: Option<(Instant, u64, Instant)>,
}

impl Progress {
    fn tell(&mut self, done: u64, total: u64) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(TOKENIZING) {
                bar.set_style(style);
            }
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        bar.set_position(done);
        if !bar.is_hidden() {
            return;
        }
        let now = Instant::now();
        let (began, before, last) = self.lines.get_or_insert((now, done, now));
        if last.elapsed() >= BETWEEN_LINES {
            *last = now;
            let speed = (done - *before) as f64 / began.elapsed().as_secs_f64();
            let left = Duration::try_from_secs_f64((total - done) as f64 / speed).unwrap_or(Duration::MAX);
            let (done, total, left) = (HumanBytes(done), HumanBytes(total), HumanDuration(left));
            say!("tokenizing: {done} of {total}, {}/s, {left} left", HumanBytes(speed as u64));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
