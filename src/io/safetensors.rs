//! Reading weights in the safetensors format.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::float_type::{FloatType, Weight, from_le};
use super::mmap::Mmap;
use crate::tensor::Shape;
use crate::{Error, Result};

/// Elements that are converted at once: those of a few MiB, so that little of the file is held while its values are made.
const PIECE: usize = 1 << 20;

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
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| match e {
            SafeTensorError::MetadataIncompleteBuffer => wrong_length(&path, &map),
            e => Error::format(&path, format!("not a safetensors file, or one that was cut short: {e}")),
        })?;
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

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| self.error(format!("the tensor `{name}` is missing")))
    }

    fn error(&self, message: String) -> Error {
        Error::format(&self.path, message)
    }

    /// The extents of a tensor.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        Ok(self.find(name)?.shape.clone())
    }

    /// An error unless there is a float tensor of this name and shape; its type.
    pub fn expect(&self, name: &str, shape: &Shape) -> Result<FloatType> {
        let found = self.find(name)?;
        if &found.shape != shape {
            return Err(self.error(format!("the tensor `{name}` has shape {}, expected {shape}", found.shape)));
        }
        FloatType::of(found.dtype)
            .ok_or_else(|| self.error(format!("the tensor `{name}` has dtype {:?}; supported are F32, BF16 and F16", found.dtype)))
    }

    /// Reads a float tensor (f32, bf16, f16) that must have this shape, piece by piece on all cores. What was read stops counting
    /// as memory of the process.
    pub fn read<W: Weight>(&self, name: &str, shape: &Shape, values: &mut [W]) -> Result<()> {
        let float = self.expect(name, shape)?;
        values.par_chunks_mut(PIECE).zip(self.pieces(name, float)?).for_each(|(values, bytes)| {
            W::decode(float, &self.map[bytes.clone()], values);
            self.map.release(bytes);
        });
        Ok(())
    }

    /// Whether a float tensor has this shape and, read as [`WeightsFile::read`] does, these values. Takes no memory for a copy.
    pub fn holds<W: Weight>(&self, name: &str, shape: &Shape, values: &[W]) -> Result<bool> {
        let float = self.expect(name, shape)?;
        Ok(values.par_chunks(PIECE).zip(self.pieces(name, float)?).all(|(values, bytes)| {
            let mut found = vec![W::ZERO; values.len()];
            W::decode(float, &self.map[bytes.clone()], &mut found);
            self.map.release(bytes);
            found == values
        }))
    }

    /// A whole float tensor of any shape.
    pub fn f32(&self, name: &str) -> Result<(Shape, Vec<f32>)> {
        let shape = self.shape(name)?;
        self.expect(name, &shape)?; // before there is room for it
        let mut values = vec![0.0; shape.elements()];
        self.read(name, &shape, &mut values)?;
        Ok((shape, values))
    }

    /// Where the pieces of a tensor lie in the file.
    fn pieces(&self, name: &str, float: FloatType) -> Result<impl IndexedParallelIterator<Item = Range<usize>>> {
        let Range { start, end } = self.find(name)?.bytes;
        let step = PIECE * float.size();
        Ok((0..(end - start).div_ceil(step)).into_par_iter().map(move |i| {
            let from = start + i * step;
            from..end.min(from + step)
        }))
    }

    /// A whole tensor of 32-bit or 64-bit integers, as i32.
    pub fn i32(&self, name: &str) -> Result<(Shape, Vec<i32>)> {
        let Place { dtype, shape, bytes } = self.find(name)?;
        let bytes = &self.map[bytes.clone()];
        let mut values = vec![0; shape.elements()];
        match dtype {
            Dtype::I32 => from_le(bytes, &mut values, i32::from_le_bytes),
            Dtype::I64 => {
                let mut wide = vec![0; values.len()];
                from_le(bytes, &mut wide, i64::from_le_bytes);
                for (value, wide) in values.iter_mut().zip(wide) {
                    *value =
                        i32::try_from(wide).map_err(|_| self.error(format!("the tensor `{name}` holds {wide}, beyond 32 bits")))?;
                }
            }
            other => return Err(self.error(format!("the tensor `{name}` has dtype {other:?}, expected I32 or I64"))),
        }
        Ok((shape.clone(), values))
    }
}

/// What is wrong with a file whose header is one, but describes another length.
fn wrong_length(path: &Path, bytes: &[u8]) -> Error {
    let header = bytes.split_first_chunk().and_then(|(size, rest)| rest.get(..usize::try_from(u64::from_le_bytes(*size)).ok()?));
    let Some(metadata) = header.and_then(|header| serde_json::from_slice::<Metadata>(header).ok()) else {
        return Error::format(path, "not a safetensors file: its header cannot be read");
    };
    let start = size_of::<u64>() + header.map_or(0, <[u8]>::len);
    let (length, described) = (bytes.len(), start + metadata.data_len());
    if length > described {
        return Error::format(path, format!("has {length} bytes, its header describes {described}"));
    }
    let ends = metadata.tensors().into_iter().map(|(name, info)| (start + info.data_offsets.1, name));
    match ends.filter(|(end, _)| *end > length).min() {
        Some((end, name)) => {
            Error::format(path, format!("cut short: {length} bytes of {described}; the tensor `{name}` ends at byte {end}"))
        }
        None => Error::format(path, format!("cut short: {length} bytes of {described}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::io::write_weights;
    use crate::params::Layout;

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
            file.read::<f32>("b", &[3, 2].into(), &mut wrong)
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
