//! NumPy's `.npy` files: one array of numbers.
//!
//! Format: NumPy's documentation, `numpy.lib.format`, versions 1.0 to 3.0: a magic, the length of a header, the header as a Python
//! dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, the elements.

use std::path::Path;

use super::Scalar;
use crate::error::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// An array as it is in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Extents, the last one innermost.
    pub shape: Vec<u64>,
    /// Type of the elements.
    pub scalar: Scalar,
    big_endian: bool,
    elements: Vec<u8>,
}

/// Reads a file.
///
/// # Errors
/// No such file, not an array, or one of something else than real numbers in C order: in words.
pub fn read(path: &Path) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io(path, cause))?;
    parse(&bytes).map_err(|message| Error::format(path, message))
}

fn parse(bytes: &[u8]) -> Result<Array, String> {
    let (header, rest) = split_header(bytes).ok_or("is no .npy file, or is cut short")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let descr = value(header, "descr")?;
    let (scalar, big_endian) = element_type(descr)?;
    if !value(header, "fortran_order")?.starts_with("False") {
        return Err("the array is in Fortran order: save it with np.ascontiguousarray".into());
    }
    let shape = extents(value(header, "shape")?)?;
    let bytes = shape.iter().try_fold(scalar.size() as u64, |product, &n| product.checked_mul(n));
    if bytes != Some(rest.len() as u64) {
        return Err(format!("shape {shape:?} of {descr} does not fit the {} bytes that follow the header", rest.len()));
    }
    Ok(Array { shape, scalar, big_endian, elements: rest.to_vec() })
}

fn split_header(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[major, _], rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (len, rest) = match major {
        1 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// The text behind a key of the header.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let behind = quoted.iter().find_map(|key| header.split_once(key.as_str())).map(|(_, rest)| rest.trim_start());
    behind.and_then(|rest| rest.strip_prefix(':')).map(str::trim_start).ok_or_else(|| format!("its header lacks '{key}'"))
}

/// `'<f4', …`: byte order, kind and bytes.
fn element_type(descr: &str) -> Result<(Scalar, bool), String> {
    let name = descr.strip_prefix(['\'', '"']).and_then(|rest| rest.split(['\'', '"']).next()).unwrap_or(descr.trim());
    let (order, kind) = match name.strip_prefix(['<', '>', '|', '=']) {
        Some(kind) => (name.as_bytes().first().copied(), kind),
        None => (None, name),
    };
    let scalar = match kind {
        "i1" => Scalar::I8,
        "u1" | "b1" => Scalar::U8,
        "i2" => Scalar::I16,
        "u2" => Scalar::U16,
        "i4" => Scalar::I32,
        "u4" => Scalar::U32,
        "i8" => Scalar::I64,
        "u8" => Scalar::U64,
        "f2" => Scalar::F16,
        "f4" => Scalar::F32,
        "f8" => Scalar::F64,
        _ => return Err(format!("elements of type `{name}`: expected integers or floats (i1 to i8, u1 to u8, f2, f4, f8)")),
    };
    Ok((scalar, order == Some(b'>')))
}

/// `(2, 3), …`
fn extents(shape: &str) -> Result<Vec<u64>, String> {
    let list = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(list, _)| list);
    let numbers = list.map(|list| list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse::<u64>()).collect());
    match numbers {
        Some(Ok(shape)) => Ok(shape),
        _ => Err("its header's 'shape' is no tuple of numbers".into()),
    }
}

impl Array {
    /// The elements' bytes in another type.
    ///
    /// # Errors
    /// A sentence that names the first element that would change its value.
    pub fn convert(&self, to: Scalar) -> Result<Vec<u8>, String> {
        if to == self.scalar && !self.big_endian {
            return Ok(self.elements.clone());
        }
        let mut converted = Vec::with_capacity(self.elements.len() / self.scalar.size() * to.size());
        for (index, element) in self.elements.chunks_exact(self.scalar.size()).enumerate() {
            let mut word = [0; 8];
            word[..element.len()].copy_from_slice(element);
            if self.big_endian {
                word[..element.len()].reverse();
            }
            let number = self.scalar.decode(u64::from_le_bytes(word));
            match to.encode(number).filter(|&bits| to.decode(bits) == number) {
                Some(bits) => converted.extend_from_slice(&bits.to_le_bytes()[..to.size()]),
                None => {
                    let (from, to) = (self.scalar.name(), to.name());
                    return Err(format!(
                        "element {index}, {number} in {from}, is no {to}: convert the array before, or pass {from}"
                    ));
                }
            }
        }
        Ok(converted)
    }
}

/// The type as which a buffer is written, so that NumPy knows it: the small floats as `f32`, which holds all their values.
fn written_as(scalar: Scalar) -> (Scalar, &'static str) {
    match scalar {
        Scalar::I8 => (scalar, "|i1"),
        Scalar::U8 => (scalar, "|u1"),
        Scalar::I16 => (scalar, "<i2"),
        Scalar::U16 => (scalar, "<u2"),
        Scalar::I32 => (scalar, "<i4"),
        Scalar::U32 => (scalar, "<u4"),
        Scalar::I64 => (scalar, "<i8"),
        Scalar::U64 => (scalar, "<u8"),
        Scalar::F16 => (scalar, "<f2"),
        Scalar::F64 => (scalar, "<f8"),
        Scalar::F32 | Scalar::BF16 | Scalar::E4M3 | Scalar::E5M2 => (Scalar::F32, "<f4"),
    }
}

/// Writes elements of this type and shape.
///
/// # Errors
/// The file cannot be written, or the elements do not fit the shape.
pub fn write(path: &Path, scalar: Scalar, shape: &[u64], elements: &[u8]) -> Result<()> {
    let little = Array { shape: shape.to_vec(), scalar, big_endian: false, elements: elements.to_vec() };
    let (to, descr) = written_as(scalar);
    let elements = little.convert(to).map_err(Error::Internal)?;
    let extents: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", extents.join(" "));
    // The elements begin at a multiple of 64; a newline ends the header.
    let before = MAGIC.len() + 4;
    while !(before + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let len = u16::try_from(header.len()).map_err(|_| Error::Internal(format!("{} extents", shape.len())))?;
    let file = [MAGIC, [1, 0].as_slice(), &len.to_le_bytes(), header.as_bytes(), &elements].concat();
    std::fs::write(path, file).map_err(|cause| Error::io(path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, elements: &[u8]) -> Vec<u8> {
        [MAGIC, [1, 0].as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), elements].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let halves = [0x3f80u16, 0xc040, 0x7f80].map(u16::to_le_bytes).concat();
        write(&path, Scalar::BF16, &[3, 1], &halves).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 128 + 12);
        let array = read(&path).unwrap();
        assert_eq!((array.scalar, &array.shape[..]), (Scalar::F32, &[3, 1][..]));
        assert_eq!(array.elements, [1f32, -3.0, f32::INFINITY].map(f32::to_le_bytes).concat());
        assert_eq!(array.convert(Scalar::BF16).unwrap(), halves);
    }

    /// A file as NumPy 2.3 writes it: `np.save("x.npy", np.array([[1, -2]], ">i2"))`.
    #[test]
    fn numpys_own_bytes() {
        let mut header = "{'descr': '>i2', 'fortran_order': False, 'shape': (1, 2), }".to_owned();
        header += &" ".repeat(128 - 10 - 1 - header.len());
        header += "\n";
        let array = parse(&file(&header, &[0, 1, 0xff, 0xfe])).unwrap();
        assert_eq!(array.shape, [1, 2]);
        assert_eq!(array.convert(Scalar::I16).unwrap(), [1, 0, 0xfe, 0xff]);
        assert_eq!(array.convert(Scalar::F32).unwrap(), [1f32, -2.0].map(f32::to_le_bytes).concat());
        assert!(array.convert(Scalar::U64).unwrap_err().contains("element 1, -2 in i16, is no u64"));
    }

    #[test]
    fn only_conversions_that_lose_nothing() {
        let header = |descr: &str, shape: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let doubles = parse(&file(&header("<f8", "(2,)"), &[0.5f64, 0.1].map(f64::to_le_bytes).concat())).unwrap();
        assert!(doubles.convert(Scalar::F32).unwrap_err().contains("element 1, 0.1 in f64"));
        let scalar = parse(&file(&header("<f8", "()"), &f64::NAN.to_le_bytes())).unwrap();
        assert_eq!((scalar.shape.len(), scalar.convert(Scalar::F16).unwrap()), (0, vec![0xff, 0x7f]));
        let large = parse(&file(&header("<u8", "(1,)"), &(u64::MAX - 1).to_le_bytes())).unwrap();
        assert!(large.convert(Scalar::F64).is_err());
        assert!(large.convert(Scalar::I64).is_err());
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let good = file("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", &[0; 4]);
        parse(&good).unwrap();
        for cut in 0..good.len() {
            parse(&good[..cut]).unwrap_err();
        }
        for (header, words) in [
            ("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "`<c8`"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "elements of type"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", "Fortran"),
            ("{'descr': '<f4', 'shape': (1,), }", "fortran_order"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "tuple"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': 1, }", "tuple"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }", "does not fit"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "does not fit"),
            ("((((((((((((", "descr"),
        ] {
            let message = parse(&file(header, &[0; 4])).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
