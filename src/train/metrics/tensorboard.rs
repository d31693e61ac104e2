//! TensorBoard event files, written by hand.
//!
//! A file is a row of records: length (u64, little endian), masked CRC-32C of these 8 bytes, data, masked CRC-32C of the data, where
//! masked means `rotr(crc, 15) + 0xa282ead8` (TensorFlow's TFRecord format). Each datum is an `Event` of TensorFlow's `event.proto`:
//! `wall_time = 1` (double), `step = 2` (varint), and one of `file_version = 3` (string), `summary = 5`, `session_log = 7`.
//! A summary is a row of `value = 1 { tag = 1, simple_value = 2 (float) }`; a session log of `status = 1` says that a run starts
//! again at this step, whereupon TensorBoard forgets what earlier files say of this step and later.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Record;
use crate::{Error, Result};

/// An event file of scalars, open for writing; each record is in the file when its call returns.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Begins a new event file in `dir`. For a run that resumes, `resumed` is the step that it goes on from: what earlier files of
    /// `dir` hold of later steps is shown no more.
    pub fn create(dir: &Path, resumed: Option<u64>) -> Result<Self> {
        let seconds = wall_time() as u64;
        // Several runs may begin within one second.
        let created = (0..1000).find_map(|number| {
            let path = dir.join(format!("events.out.tfevents.{seconds:010}.ferromind.{number:03}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
                other => Some((path, other)),
            }
        });
        let (path, file) = created.ok_or_else(|| Error::config(format!("{}: too many event files", dir.display())))?;
        let file = file.map_err(|error| Error::io(&path, error))?;
        let mut writer = Self { path, file };
        writer.event(None, |event| event.bytes(3, b"brain.Event:2"))?;
        if let Some(step) = resumed {
            writer.event(Some(step + 1), |event| {
                event.message(7, |session| session.varint(1, 1));
            })?;
        }
        Ok(writer)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one value of each tag at `step`. Not finite is allowed: TensorBoard marks such points.
    pub fn scalars<'a>(&mut self, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<()> {
        self.event(Some(step), |event| {
            event.message(5, |summary| {
                for (tag, value) in values {
                    summary.message(1, |scalar| {
                        scalar.bytes(1, tag.as_bytes());
                        scalar.float(2, value as f32);
                    });
                }
            });
        })
    }

    /// Writes what `record` holds, under `train/…`, `val/loss`, and for each layer of experts `expert_load/layer_N_max`: the share of
    /// its busiest expert times the number of experts, 1 where all are equally busy.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let measured = [
            ("train/loss", record.loss),
            ("train/aux_loss", record.aux_loss),
            ("val/loss", record.val_loss),
            ("train/lr", record.lr),
            ("train/grad_norm", record.grad_norm),
            ("train/tok_s", record.tok_s),
            ("train/mfu", record.mfu),
        ];
        let layers = record.expert_load.iter().flatten().enumerate();
        let peaks: Vec<_> = layers.map(|(layer, load)| (format!("expert_load/layer_{layer}_max"), peak_load(load))).collect();
        let scalars = measured.into_iter().filter_map(|(tag, value)| Some((tag, value?)));
        self.scalars(record.step, scalars.chain(peaks.iter().map(|(tag, peak)| (tag.as_str(), *peak))))
    }

    fn event(&mut self, step: Option<u64>, content: impl FnOnce(&mut Message)) -> Result<()> {
        let mut event = Message::default();
        event.double(1, wall_time());
        if let Some(step) = step {
            event.varint(2, step);
        }
        content(&mut event);
        self.file.write_all(&frame(&event.0)).map_err(|error| Error::io(&self.path, error))
    }
}

/// The share of a layer's busiest expert, relative to an even share.
pub(super) fn peak_load(load: &[f64]) -> f64 {
    load.iter().copied().fold(0.0, f64::max) * load.len() as f64
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

/// A protobuf message under construction: fields are a key `number << 3 | wire type` and a value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.raw_varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u64, content: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        content(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// Any protobuf message taken apart: field number, and either the bits of a number or bytes.
    #[derive(Debug, Clone, PartialEq)]
    enum Value {
        Number(u64),
        Bytes(Vec<u8>),
    }

    fn decode(mut bytes: &[u8]) -> Vec<(u64, Value)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            let value = bytes[..length].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
            *bytes = &bytes[length..];
            value
        }
        fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
            let (head, tail) = bytes.split_at(count);
            *bytes = tail;
            head
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let count = varint(&mut bytes) as usize;
                    Value::Bytes(take(&mut bytes, count).to_vec())
                }
                5 => Value::Number(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()).into()),
                wire => panic!("wire type {wire}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    /// CRC-32C bit by bit, from its polynomial.
    fn slow_crc(bytes: &[u8]) -> u32 {
        !bytes
            .iter()
            .fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))))
    }

    fn unmask(masked: &[u8]) -> u32 {
        u32::from_le_bytes(masked.try_into().unwrap()).wrapping_sub(0xa282_ead8).rotate_left(15)
    }

    fn records(path: &Path) -> Vec<Vec<(u64, Value)>> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(unmask(&rest[8..12]), slow_crc(&rest[..8]));
            let data = &rest[12..12 + length];
            assert_eq!(unmask(&rest[12 + length..16 + length]), slow_crc(data));
            records.push(decode(data));
            rest = &rest[16 + length..];
        }
        records
    }

    fn field(fields: &[(u64, Value)], number: u64) -> Value {
        fields.iter().find(|(field, _)| *field == number).unwrap().1.clone()
    }

    fn inner(fields: &[(u64, Value)], number: u64) -> Vec<(u64, Value)> {
        let Value::Bytes(bytes) = field(fields, number) else { panic!("field {number} is a number") };
        decode(&bytes)
    }

    #[test]
    fn the_checksum_agrees_with_the_vectors_of_rfc_3720() {
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, crc) in
            [(&[0u8; 32][..], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43), (&ascending, 0x46dd_794e), (b"123456789", 0xe306_9283)]
        {
            assert_eq!(crc32c::crc32c(bytes), crc);
            assert_eq!(slow_crc(bytes), crc);
            assert_eq!(unmask(&masked_crc(bytes)), crc);
        }
    }

    #[test]
    fn an_independent_decoder_reads_what_was_written() {
        let dir = TempDir::new().unwrap();
        let mut writer = EventWriter::create(dir.path(), None).unwrap();
        writer.scalars(300, [("train/loss", 1.0 / 3.0), ("train/lr", 5e-4)]).unwrap();
        writer.record(&Record { step: u64::from(u32::MAX), val_loss: Some(f64::NAN), ..Record::default() }).unwrap();
        writer.record(&Record { step: 1, expert_load: Some(vec![vec![0.5, 0.25, 0.25, 0.0]]), ..Record::default() }).unwrap();
        let events = records(writer.path());
        assert_eq!(events.len(), 4);
        assert_eq!(field(&events[0], 3), Value::Bytes(b"brain.Event:2".to_vec()));
        let Value::Number(bits) = field(&events[1], 1) else { panic!("no wall time") };
        assert!((wall_time() - f64::from_bits(bits)).abs() < 3600.0);
        assert_eq!(field(&events[1], 2), Value::Number(300));
        let values: Vec<_> = inner(&events[1], 5).iter().map(|value| inner(std::slice::from_ref(value), 1)).collect();
        let scalar = |tag: &str, value: f32| vec![(1, Value::Bytes(tag.into())), (2, Value::Number(value.to_bits().into()))];
        assert_eq!(values, [scalar("train/loss", 1.0 / 3.0), scalar("train/lr", 5e-4)]);
        assert_eq!(field(&events[2], 2), Value::Number(u32::MAX.into()));
        assert_eq!(inner(&inner(&events[2], 5), 1), scalar("val/loss", f32::NAN));
        assert_eq!(inner(&inner(&events[3], 5), 1), scalar("expert_load/layer_0_max", 2.0));
    }

    #[test]
    fn a_resumed_run_has_a_file_of_its_own_that_says_from_where() {
        let dir = TempDir::new().unwrap();
        let first = EventWriter::create(dir.path(), None).unwrap();
        let second = EventWriter::create(dir.path(), Some(20)).unwrap();
        assert!(first.path() < second.path(), "TensorBoard reads files by name");
        let events = records(second.path());
        assert_eq!(field(&events[1], 2), Value::Number(21));
        assert_eq!(inner(&events[1], 7), [(1, Value::Number(1))]);
    }
}
