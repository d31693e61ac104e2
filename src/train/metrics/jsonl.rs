//! `metrics.jsonl`: one JSON object a line, only ever added to.
//!
//! JSON has no word for numbers that are not finite: they are written as `null`, which reads back as NaN (a field that was not
//! measured is left out instead). So every line stays JSON for every reader, pandas and jq included.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::train::checkpoint::{durable, replace_root_file};
use crate::{Error, Result};

/// The name of the file in the run directory.
pub const FILE_NAME: &str = "metrics.jsonl";

/// What was measured at one step; `None` is not written.
///
/// Lines for the same step may follow one another, such as one of the training and one of the validation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Optimizer steps done, counted from 1 over the whole run.
    pub step: u64,
    /// Epochs done, as a fraction.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub epoch: Option<f64>,
    /// Tokens seen since the start of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Training loss without the auxiliary one: cross-entropy in nats per counted token.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Auxiliary loss of the experts' balance, as it is added to the loss.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub aux_loss: Option<f64>,
    /// Loss on the held-out split, in nats per counted token.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// Learning rate of the step.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Global L2 norm of the gradient before clipping.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Tokens per second.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub tok_s: Option<f64>,
    /// Model FLOPs utilisation, 0 to 1.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Seconds of training since the start of the run, stops not counted.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Share of the routed tokens that each expert received, `[layers][experts]`; a layer's shares add up to 1.
    #[serde(default, deserialize_with = "table", skip_serializing_if = "Option::is_none")]
    pub expert_load: Option<Vec<Vec<f64>>>,
}

/// A number, or NaN for the `null` that stands for one that is not finite.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(Some(Option::deserialize(from)?.unwrap_or(f64::NAN)))
}

fn table<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Vec<f64>>>, D::Error> {
    let rows = Vec::<Vec<Option<f64>>>::deserialize(from)?;
    Ok(Some(rows.into_iter().map(|row| row.into_iter().map(|share| share.unwrap_or(f64::NAN)).collect()).collect()))
}

/// `metrics.jsonl` of a run in progress.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Begins an empty log in `run_dir`; one that was there is replaced.
    pub fn create(run_dir: &Path) -> Result<Self> {
        replace_root_file(run_dir, FILE_NAME, &|_| Ok(()))?;
        Self::open(run_dir)
    }

    /// Goes on with the log in `run_dir` after `step`: later lines, and a last line that was torn by a crash, are dropped for good.
    ///
    /// Where there is no log, an empty one is begun. Errors: a line before the last that is not a record, named by its number.
    pub fn resume(run_dir: &Path, step: u64) -> Result<Self> {
        let path = run_dir.join(FILE_NAME);
        if !path.try_exists().map_err(|error| Error::io(&path, error))? {
            return Self::create(run_dir);
        }
        let bytes = fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let lines = lines(&path, &bytes)?;
        let kept: Vec<&[u8]> = lines.iter().filter(|(_, record)| record.step <= step).map(|(line, _)| *line).collect();
        if kept.iter().map(|line| line.len()).sum::<usize>() < bytes.len() {
            replace_root_file(run_dir, FILE_NAME, &|out| kept.iter().try_for_each(|line| out.write_all(line)))?;
        }
        Self::open(run_dir)
    }

    fn open(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(FILE_NAME);
        let file = File::options().append(true).open(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Self { path, file })
    }

    /// Adds one line; it is in the file, seen by every reader, when this returns.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|error| Error::Internal(format!("a line of metrics: {error}")))?;
        line.push(b'\n');
        durable::append(&mut self.file, &self.path, &line)
    }

    /// Makes all lines outlast a power cut: to be called before a checkpoint is saved, whose steps they tell of.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io(&self.path, error))
    }
}

/// Reads all records of the file `path`; a last line that was torn by a crash is left out.
///
/// Errors: a line before the last that is not a record, named by its number.
pub fn read_records(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
    Ok(lines(path, &bytes)?.into_iter().map(|(_, record)| record).collect())
}

/// The lines that are whole, each with its line feed and its record.
fn lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a [u8], Record)>> {
    let whole = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let record = |(index, line)| match serde_json::from_slice(line) {
        Ok(record) => Ok((line, record)),
        Err(error) => Err(Error::data(path, index as u64 + 1, format!("not a line of metrics: {error}"))),
    };
    whole.enumerate().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn record(step: u64) -> Record {
        Record { step, loss: Some(7.0 / step as f64), ..Record::default() }
    }

    fn log_of(steps: &[u64]) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let mut log = MetricsLog::create(dir.path()).unwrap();
        steps.iter().for_each(|&step| log.append(&record(step)).unwrap());
        log.sync().unwrap();
        let path = dir.path().join(FILE_NAME);
        (dir, path)
    }

    #[test]
    fn records_are_read_back_bit_for_bit_and_unmeasured_fields_left_out() {
        let (dir, path) = log_of(&[]);
        let full = Record {
            step: 3,
            epoch: Some(0.1 + 0.2),
            tokens: Some(u64::MAX),
            loss: Some(1.0 / 3.0),
            aux_loss: Some(f64::MIN_POSITIVE),
            val_loss: Some(2.0f64.sqrt()),
            lr: Some(5e-4),
            grad_norm: Some(1e300),
            tok_s: Some(850.5),
            mfu: Some(0.31),
            elapsed_s: Some(0.0),
            expert_load: Some(vec![vec![0.25, 0.75], vec![0.5, 0.5]]),
        };
        let mut log = MetricsLog::resume(dir.path(), 0).unwrap();
        log.append(&full).unwrap();
        log.append(&Record { step: 4, val_loss: Some(1.5), ..Record::default() }).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().nth(1).unwrap(), r#"{"step":4,"val_loss":1.5}"#);
        assert_eq!(read_records(&path).unwrap()[0], full);
    }

    #[test]
    fn numbers_that_are_not_finite_stay_json() {
        let (dir, path) = log_of(&[]);
        let bad = Record {
            step: 1,
            loss: Some(f64::NAN),
            grad_norm: Some(f64::INFINITY),
            expert_load: Some(vec![vec![f64::NAN, 1.0]]),
            ..Record::default()
        };
        MetricsLog::resume(dir.path(), 9).unwrap().append(&bad).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":1,\"loss\":null,\"grad_norm\":null,\"expert_load\":[[null,1.0]]}\n");
        let read = read_records(&path).unwrap().remove(0);
        assert!(read.loss.unwrap().is_nan() && read.grad_norm.unwrap().is_nan() && read.lr.is_none());
        assert!(read.expert_load.unwrap()[0][0].is_nan());
    }

    #[test]
    fn resuming_drops_later_and_torn_lines_and_leaves_the_rest_untouched() {
        let (dir, path) = log_of(&[10, 20, 20, 30]);
        let whole = fs::read(&path).unwrap();
        let torn = [&whole[..], br#"{"step":2"#].concat();
        fs::write(&path, &torn).unwrap();
        assert_eq!(read_records(&path).unwrap().len(), 4);
        MetricsLog::resume(dir.path(), 40).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        let mut log = MetricsLog::resume(dir.path(), 20).unwrap();
        let steps = |path| read_records(path).unwrap().iter().map(|line| line.step).collect::<Vec<_>>();
        assert_eq!(steps(&path), [10, 20, 20]);
        assert!(whole.starts_with(&fs::read(&path).unwrap()));
        log.append(&record(30)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn unknown_fields_of_a_line_survive_and_a_bad_line_is_named() {
        let (dir, path) = log_of(&[1]);
        let text = "{\"step\":1,\"mine\":\"x\"}\n{\"step\":2}\n";
        fs::write(&path, text).unwrap();
        MetricsLog::resume(dir.path(), 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1,\"mine\":\"x\"}\n");
        fs::write(&path, "{\"step\":1}\nnonsense\n{\"step\":3}\n").unwrap();
        let message = MetricsLog::resume(dir.path(), 3).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2: not a line of metrics"), "{message}");
        fs::write(&path, "{\"loss\":1.0}\n").unwrap();
        assert!(read_records(&path).unwrap_err().to_string().contains("missing field `step`"));
    }
}
