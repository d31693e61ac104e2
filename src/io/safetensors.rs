//! Weights in the safetensors format.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
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
}

impl WeightsFile {
    /// Opens a file and checks its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = Self { map: Mmap::open(&path)?, path };
        file.tensors()?;
        Ok(file)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.map).map_err(|e| Error::format(&self.path, format!("not a safetensors file: {e}")))
    }

    /// The names of its tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors().map(|tensors| tensors.names().into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    fn find(&self, name: &str) -> Result<(Dtype, Shape, &[u8])> {
        let tensors = self.tensors()?;
        let view = tensors.tensor(name).map_err(|_| Error::format(&self.path, format!("the tensor `{name}` is missing")))?;
        Ok((view.dtype(), Shape::from(view.shape()), view.data()))
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The extents of a tensor.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        Ok(self.find(name)?.1)
    }

    /// Reads a float tensor (f32, bf16, f16) that must have this shape.
    pub fn read_f32(&self, name: &str, shape: &Shape, values: &mut [f32]) -> Result<()> {
        let (dtype, found, bytes) = self.find(name)?;
        if &found != shape {
            return Err(Error::format(&self.path, format!("the tensor `{name}` has shape {found}, expected {shape}")));
        }
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
            Dtype::I64 => convert(bytes, &mut values, |b| i64::from_le_bytes(b) as i32),
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
    fn garbage_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.safetensors");
        std::fs::write(&path, b"not weights at all").unwrap();
        assert!(WeightsFile::open(&path).unwrap_err().to_string().contains("broken.safetensors: not a safetensors file"));
        assert!(WeightsFile::open(dir.path().join("none")).is_err());
    }
}
