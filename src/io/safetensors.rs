//! Weights in the safetensors format.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::Mmap;
use crate::params::Layout;
use crate::tensor::Shape;
use crate::{Error, Result};

/// A weights file, mapped: its tensors are read only when they are asked for.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    map: Mmap,
    tensors: HashMap<String, Place>,
}

/// One tensor: its type, extents and bytes in the file.
#[derive(Debug)]
struct Place {
    dtype: Dtype,
    shape: Shape,
    bytes: Range<usize>,
}

impl WeightsFile {
    /// Opens a file and checks its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let map = Mmap::open(&path)?;
        let malformed = |e| Error::format(&path, format!("not a safetensors file: {e}"));
        SafeTensors::deserialize(&map).map_err(malformed)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(malformed)?;
        let start = size_of::<u64>() + header;
        let place = |info: &TensorInfo| {
            let (from, to) = info.data_offsets;
            Place { dtype: info.dtype, shape: Shape::from(info.shape.as_slice()), bytes: start + from..start + to }
        };
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, place(info))).collect();
        Ok(Self { path, map, tensors })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<(Dtype, Shape, &[u8])> {
        let missing = || Error::format(&self.path, format!("the tensor `{name}` is missing"));
        let Place { dtype, shape, bytes } = self.tensors.get(name).ok_or_else(missing)?;
        Ok((*dtype, shape.clone(), &self.map[bytes.clone()]))
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The extents of a tensor.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        Ok(self.find(name)?.1)
    }

    /// An error unless there is a tensor of this name and shape.
    pub fn expect(&self, name: &str, shape: &Shape) -> Result<()> {
        let found = self.shape(name)?;
        if &found == shape {
            return Ok(());
        }
        Err(Error::format(&self.path, format!("the tensor `{name}` has shape {found}, expected {shape}")))
    }

    /// Reads a float tensor (f32, bf16, f16) that must have this shape.
    pub fn read_f32(&self, name: &str, shape: &Shape, values: &mut [f32]) -> Result<()> {
        self.expect(name, shape)?;
        let (dtype, _, bytes) = self.find(name)?;
        match dtype {
            Dtype::F32 => convert(bytes, values, f32::from_le_bytes),
            Dtype::BF16 => convert(bytes, values, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => convert(bytes, values, |b| half::f16::from_le_bytes(b).to_f32()),
            other => {
                return Err(Error::format(
                    &self.path,
                    format!("the tensor `{name}` has dtype {other:?}; f32, bf16 and f16 can be read"),
                ));
            }
        }
        Ok(())
    }

    /// A whole float tensor of any shape.
    pub fn f32(&self, name: &str) -> Result<(Shape, Vec<f32>)> {
        let shape = self.shape(name)?;
        let mut values = vec![0.0; shape.elements()];
        self.read_f32(name, &shape, &mut values)?;
        Ok((shape, values))
    }

    /// A whole tensor of 32-bit or 64-bit integers, as i32.
    pub fn i32(&self, name: &str) -> Result<(Shape, Vec<i32>)> {
        let (dtype, shape, bytes) = self.find(name)?;
        let mut values = vec![0; shape.elements()];
        match dtype {
            Dtype::I32 => convert(bytes, &mut values, i32::from_le_bytes),
            Dtype::I64 => {
                let mut wide = vec![0; values.len()];
                convert(bytes, &mut wide, i64::from_le_bytes);
                for (value, wide) in values.iter_mut().zip(wide) {
                    *value = i32::try_from(wide)
                        .map_err(|_| Error::format(&self.path, format!("the tensor `{name}` holds {wide}, beyond 32 bits")))?;
                }
            }
            other => {
                return Err(Error::format(&self.path, format!("the tensor `{name}` has dtype {other:?}, expected i32 or i64")));
            }
        }
        Ok((shape, values))
    }
}

/// Little-endian values of N bytes each.
fn convert<const N: usize, E: Send>(bytes: &[u8], values: &mut [E], from: impl Fn([u8; N]) -> E + Sync) {
    let (chunks, _) = bytes.as_chunks::<N>();
    values.par_iter_mut().zip(chunks.par_iter()).with_min_len(64 * 1024).for_each(|(value, chunk)| *value = from(*chunk));
}

/// Writes parameters under their public names in f32; `values` is the flat buffer. Streams: nothing is copied.
pub fn write_weights(out: &mut dyn Write, layout: &Layout, values: &[f32]) -> std::io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    for entry in layout.entries() {
        let range = entry.range();
        let described = json!({ "dtype": "F32", "shape": entry.shape.dims(), "data_offsets": [4 * range.start, 4 * range.end] });
        header.insert(entry.name.clone(), described);
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let bytes: Cow<'_, [u8]> = match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    };
    out.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        layout.add("b", [2, 3]);
        layout.add("a", [3]);
        layout
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let values: Vec<f32> = (0..9).map(|x| x as f32 * 0.5).collect();
        write_weights(&mut std::fs::File::create(&path).unwrap(), &layout(), &values).unwrap();
        let file = WeightsFile::open(&path).unwrap();
        assert_eq!(file.f32("b").unwrap(), ([2, 3].into(), values[..6].to_vec()));
        assert_eq!(file.f32("a").unwrap(), ([3].into(), values[6..].to_vec()));
        let mut wrong = [0.0; 6];
        assert!(
            file.read_f32("b", &[3, 2].into(), &mut wrong)
                .unwrap_err()
                .to_string()
                .contains("`b` has shape [2, 3], expected [3, 2]")
        );
        assert!(file.f32("c").unwrap_err().to_string().contains("`c` is missing"));
        assert!(file.i32("a").unwrap_err().to_string().contains("dtype F32"));
    }

    #[test]
    fn half_precision_is_widened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("half.safetensors");
        let values = [1.5f32, -0.25];
        let bf16: Vec<u8> = values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect();
        let f16: Vec<u8> = values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
        let views = [(Dtype::BF16, "bf16", bf16), (Dtype::F16, "f16", f16)];
        let views =
            views.iter().map(|(dtype, name, data)| (*name, safetensors::tensor::TensorView::new(*dtype, vec![2], data).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let file = WeightsFile::open(&path).unwrap();
        assert_eq!(file.f32("bf16").unwrap().1, values);
        assert_eq!(file.f32("f16").unwrap().1, values);
    }

    #[test]
    fn wide_integers_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (value, fits) in [(-100i64, true), (1 << 32, false)] {
            let path = dir.path().join("ids.safetensors");
            let bytes = value.to_le_bytes();
            let view = safetensors::tensor::TensorView::new(Dtype::I64, vec![1], &bytes).unwrap();
            safetensors::serialize_to_file([("ids", view)], None, &path).unwrap();
            let read = WeightsFile::open(&path).unwrap().i32("ids");
            assert_eq!(read.ok().map(|(_, values)| values), fits.then(|| vec![value as i32]));
        }
    }

    #[test]
    fn garbage_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.safetensors");
        std::fs::write(&path, b"not weights at all").unwrap();
        assert!(WeightsFile::open(&path).unwrap_err().to_string().contains("broken.safetensors: not a safetensors file"));
        assert!(WeightsFile::open(dir.path().join("none")).is_err());
    }
}
