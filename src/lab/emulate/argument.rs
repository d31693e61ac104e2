//! What a person writes to pass something to a kernel: `i32=8`, `buf:bf16:64x128=randn:1@out.npy`, `map:0:bf16:64x128:64x16:128B`.

use std::path::PathBuf;

use ptx_emulator::tensor::swizzle::Swizzle;
use ptx_emulator::tensor::tensor_map::DataType;

use super::data::Scalar;
use super::data::init::Init;

/// One argument of the launch.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A number by value.
    Scalar {
        /// Its type.
        scalar: Scalar,
        /// Its bits.
        bits: u64,
    },
    /// A structure by value, as it lies in memory.
    Bytes(Vec<u8>),
    /// The address of memory that is made for it.
    Buffer(Buffer),
    /// A tensor map by value.
    Map(Map),
}

/// Memory on the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// Type of the elements.
    pub scalar: Scalar,
    /// Extents; `None`: those of the file that it is filled from.
    pub shape: Option<Vec<u64>>,
    /// What it holds.
    pub init: Init,
    /// Where it is written to after the run.
    pub save: Option<PathBuf>,
}

/// A tensor map: a tensor, the boxes that are copied of it, and how these lie in shared memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Which memory.
    pub memory: MapMemory,
    /// Type of the elements.
    pub scalar: Scalar,
    /// Elements in each dimension, the innermost first.
    pub shape: Vec<u64>,
    /// Elements of a box, the innermost first.
    pub tile: Vec<u32>,
    /// Arrangement in shared memory.
    pub swizzle: Swizzle,
}

/// The memory that a tensor map describes.
#[derive(Debug, Clone, PartialEq)]
pub enum MapMemory {
    /// That of another argument, by its number.
    Argument(usize),
    /// Its own: kernels that get a tensor by its map alone.
    Own(Buffer),
}

/// Reads the specifications in order; `@FILE.npy` by itself belongs to the one before it.
///
/// # Errors
/// A sentence that names the specification and what was expected.
pub fn parse(specifications: &[String]) -> Result<Vec<Argument>, String> {
    let mut arguments: Vec<Argument> = Vec::new();
    for text in specifications {
        let at = arguments.len();
        if let Some(path) = text.strip_prefix('@') {
            let named = |message: &str| format!("`--arg {text}`: {message}");
            let buffer = arguments.last_mut().and_then(Argument::buffer_mut);
            let buffer = buffer.ok_or_else(|| named("only a buffer can be written, and it stands before: buf:f32:64=zeros"))?;
            if buffer.save.is_some() || !path.ends_with(".npy") {
                return Err(named("expected one file whose name ends with .npy"));
            }
            buffer.save = Some(path.into());
        } else {
            arguments.push(parse_one(text).map_err(|message| format!("argument {at}, `{text}`: {message}"))?);
        }
    }
    Ok(arguments)
}

fn parse_one(text: &str) -> Result<Argument, String> {
    let expected = "expected TYPE=VALUE, buf:TYPE:COUNT=CONTENT, bytes=HEX or map:…";
    let (kind, rest) = text.split_once([':', '=']).ok_or(expected)?;
    match kind {
        "buf" => {
            let (what, content) = content_of(rest)?;
            let (name, count) = what.split_once(':').map_or((what, None), |(name, count)| (name, Some(count)));
            let shape = count.map(|count| extents(count, "COUNT")).transpose()?;
            Ok(Argument::Buffer(buffer(Scalar::from_name(name)?, shape, content)?))
        }
        "map" => map(rest).map(Argument::Map),
        "bytes" => hex(rest).map(Argument::Bytes),
        _ => {
            let scalar = Scalar::from_name(kind).map_err(|message| format!("{message}, buf, bytes or map"))?;
            if !text[kind.len()..].starts_with('=') {
                return Err(format!("expected {kind}={rest}, or buf:{kind}:… for memory"));
            }
            Ok(Argument::Scalar { scalar, bits: scalar.parse(rest)? })
        }
    }
}

/// What stands before and behind the `=` of a buffer.
fn content_of(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=').ok_or_else(|| "expected =CONTENT: zeros, randn:1, x.npy, out, …".to_owned())
}

fn buffer(scalar: Scalar, shape: Option<Vec<u64>>, content: &str) -> Result<Buffer, String> {
    // A path may hold an @ of its own; what is behind the last one names the output.
    let (content, save) = match content.rsplit_once('@') {
        Some((content, path)) if path.ends_with(".npy") && !content.is_empty() => (content, Some(path.into())),
        Some((_, path)) if !content.ends_with(".npy") => return Err(format!("`@{path}`: expected a name that ends with .npy")),
        _ => (content, None),
    };
    let init = Init::parse(content, scalar)?;
    if shape.is_none() && !matches!(init, Init::File(_)) {
        return Err(format!("expected buf:{}:COUNT={content}; only a file knows its own COUNT", scalar.name()));
    }
    Ok(Buffer { scalar, shape, init, save })
}

/// `64x128`: numbers whose product is a number of elements.
fn extents(text: &str, what: &str) -> Result<Vec<u64>, String> {
    let numbers: Option<Vec<u64>> = text.split('x').map(|n| n.parse().ok()).collect();
    let numbers = numbers.ok_or_else(|| format!("{what} `{text}`: expected a number, or numbers such as 64x128"))?;
    let fits = numbers.len() <= 32 && numbers.iter().try_fold(1u64, |product, &n| product.checked_mul(n)).is_some();
    if fits { Ok(numbers) } else { Err(format!("{what} `{text}` is more than 2^64 elements")) }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()),
        _ => Err("expected two hexadecimal digits for each byte".into()),
    }
}

/// `ARGUMENT:TYPE:SHAPE:BOX[:SWIZZLE]` or `TYPE:SHAPE:BOX[:SWIZZLE]=CONTENT`.
fn map(text: &str) -> Result<Map, String> {
    let (layout, content) = text.split_once('=').map_or((text, None), |(layout, content)| (layout, Some(content)));
    let mut fields: Vec<&str> = layout.split(':').collect();
    let argument = match fields.first().and_then(|field| field.parse::<usize>().ok()) {
        Some(number) => {
            fields.remove(0);
            Some(number)
        }
        None => None,
    };
    let (scalar, shape, tile, swizzle) = match fields[..] {
        [scalar, shape, tile] => (scalar, shape, tile, "none"),
        [scalar, shape, tile, swizzle] => (scalar, shape, tile, swizzle),
        _ => return Err("expected map:ARGUMENT:TYPE:SHAPE:BOX[:128B|64B|32B], or map:TYPE:SHAPE:BOX[:128B|64B|32B]=CONTENT".into()),
    };
    let scalar = Scalar::from_name(scalar)?;
    let shape = extents(shape, "SHAPE")?;
    let tile = extents(tile, "BOX")?;
    if tile.len() != shape.len() {
        return Err(format!("SHAPE has {} dimensions, BOX has {}", shape.len(), tile.len()));
    }
    let tile = tile.iter().map(|&n| u32::try_from(n)).collect::<Result<_, _>>().map_err(|_| "BOX: at most 256".to_owned())?;
    let swizzle = match swizzle {
        "none" => Swizzle::None,
        "32B" => Swizzle::B32,
        "64B" => Swizzle::B64,
        "128B" => Swizzle::B128,
        other => return Err(format!("swizzle `{other}`: expected 128B, 64B, 32B or none")),
    };
    let memory = match (argument, content) {
        (Some(number), None) => MapMemory::Argument(number),
        (None, Some(content)) => {
            // The file's order of dimensions is the opposite one.
            let reversed = shape.iter().rev().copied().collect();
            MapMemory::Own(buffer(scalar, Some(reversed), content)?)
        }
        (Some(_), Some(_)) => return Err("the memory of another argument has its CONTENT there".into()),
        (None, None) => return Err("expected the number of a buffer's argument before TYPE, or =CONTENT".into()),
    };
    Ok(Map { memory, scalar, shape, tile, swizzle })
}

impl Argument {
    /// The memory that is made for it.
    pub fn buffer(&self) -> Option<&Buffer> {
        match self {
            Self::Buffer(buffer) | Self::Map(Map { memory: MapMemory::Own(buffer), .. }) => Some(buffer),
            _ => None,
        }
    }

    fn buffer_mut(&mut self) -> Option<&mut Buffer> {
        match self {
            Self::Buffer(buffer) | Self::Map(Map { memory: MapMemory::Own(buffer), .. }) => Some(buffer),
            _ => None,
        }
    }
}

/// The copy engine's name for a type; it moves bits, so types that it does not know count as those of their size.
pub fn data_type(scalar: Scalar) -> DataType {
    match scalar {
        Scalar::I8 | Scalar::U8 | Scalar::E4M3 | Scalar::E5M2 => DataType::Uint8,
        Scalar::I16 | Scalar::U16 => DataType::Uint16,
        Scalar::I32 => DataType::Int32,
        Scalar::U32 => DataType::Uint32,
        Scalar::I64 => DataType::Int64,
        Scalar::U64 => DataType::Uint64,
        Scalar::F16 => DataType::Float16,
        Scalar::BF16 => DataType::Bfloat16,
        Scalar::F32 => DataType::Float32,
        Scalar::F64 => DataType::Float64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Argument {
        parse(&[text.to_owned()]).unwrap().remove(0)
    }

    fn fails(text: &str) -> String {
        parse(&[text.to_owned()]).unwrap_err()
    }

    #[test]
    fn every_form() {
        assert_eq!(one("i32=-8"), Argument::Scalar { scalar: Scalar::I32, bits: -8i64 as u64 });
        assert_eq!(one("bytes=00fF10"), Argument::Bytes(vec![0, 255, 16]));
        let buffer = |scalar, shape: Option<&[u64]>, init, save: Option<&str>| {
            Argument::Buffer(Buffer { scalar, shape: shape.map(<[_]>::to_vec), init, save: save.map(PathBuf::from) })
        };
        assert_eq!(one("buf:f32:1000=zeros"), buffer(Scalar::F32, Some(&[1000]), Init::Full(0), None));
        let expected = buffer(Scalar::BF16, Some(&[64, 128]), Init::Normal(7), Some("dir/y.npy"));
        assert_eq!(one("buf:bf16:64x128=randn:7@dir/y.npy"), expected);
        assert_eq!(one("buf:u8=x.npy"), buffer(Scalar::U8, None, Init::File("x.npy".into()), None));
        assert_eq!(one("buf:u8=x.npy@y.npy"), buffer(Scalar::U8, None, Init::File("x.npy".into()), Some("y.npy")));
        let split = parse(&["i32=1".into(), "buf:f32:4=out".into(), "@y.npy".into(), "i32=2".into()]).unwrap();
        assert_eq!((split.len(), &split[1]), (3, &buffer(Scalar::F32, Some(&[4]), Init::Out, Some("y.npy"))));

        let Argument::Map(map) = one("map:1:bf16:256x64:64x32:128B") else { panic!() };
        assert_eq!((&map.memory, map.swizzle), (&MapMemory::Argument(1), Swizzle::B128));
        assert_eq!((&map.shape[..], &map.tile[..]), (&[256, 64][..], &[64, 32][..]));
        let Argument::Map(map) = one("map:f32:256x64:8x8=out@t.npy") else { panic!() };
        let MapMemory::Own(buffer) = map.memory else { panic!() };
        assert_eq!((buffer.shape, map.swizzle), (Some(vec![64, 256]), Swizzle::None));
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, words) in [
            ("", "expected TYPE=VALUE"),
            ("8", "expected TYPE=VALUE"),
            ("f33=1", "unknown type `f33`"),
            ("i32=1.5", "`1.5` is no i32"),
            ("i32:4", "expected i32=4"),
            ("buf:f32:4", "expected =CONTENT"),
            ("buf:float:4=zeros", "unknown type `float`"),
            ("buf:f32=zeros", "buf:f32:COUNT=zeros"),
            ("buf:f32:4y=zeros", "COUNT `4y`"),
            ("buf:f32:-4=zeros", "COUNT `-4`"),
            ("buf:f32:=zeros", "COUNT ``"),
            ("buf:f32:99999999999x99999999999=zeros", "2^64"),
            ("buf:f32:4=nothing", "unknown content `nothing`"),
            ("buf:f32:4=zeros@y.txt", ".npy"),
            ("bytes=123", "two hexadecimal digits"),
            ("bytes=zz", "two hexadecimal digits"),
            ("map:0:bf16:64x64:8", "BOX has 1"),
            ("map:0:bf16:64", "expected map:"),
            ("map:bf16:64:8", "number of a buffer's argument"),
            ("map:0:bf16:64:8=zeros", "has its CONTENT there"),
            ("map:0:bf16:64:8:96B", "swizzle `96B`"),
            ("map:0:bf16:64:99999999999", "256"),
            ("@y.npy", "only a buffer"),
        ] {
            let message = fails(text);
            assert!(message.contains(words) && message.contains(&format!("{text}`")), "{text}: {message}");
        }
        let twice = parse(&["buf:f32:4=out@a.npy".into(), "@b.npy".into()]).unwrap_err();
        assert!(twice.contains("one file"), "{twice}");
    }
}
