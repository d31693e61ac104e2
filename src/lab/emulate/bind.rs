//! Arguments on the device: memory is made and filled, and what the kernel gets is packed as its parameters ask.

use std::path::PathBuf;

use ptx_emulator::ptx::ast::Type;
use ptx_emulator::tensor::tensor_map::{Dimension, OutOfBounds, TensorMap};
use ptx_emulator::{Device, Finding, Kernel, Kind, Parameter};

use super::argument::{Argument, Buffer, Map, MapMemory, data_type};
use super::data::init::Init;
use super::data::{Scalar, npy};
use crate::error::{Error, Result};

/// A buffer on the device.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Number of the argument that it was made for.
    pub argument: usize,
    /// What findings and tables call it.
    pub name: String,
    /// Where it begins.
    pub address: u64,
    /// Its length.
    pub bytes: u64,
    scalar: Scalar,
    shape: Vec<u64>,
    must_be_written: bool,
    save: Option<PathBuf>,
}

/// All arguments of a launch.
#[derive(Debug)]
pub struct Bindings {
    /// As [`ptx_emulator::Launch`] takes them.
    pub packed: Vec<u8>,
    /// In the order of the arguments.
    pub memory: Vec<Memory>,
}

/// The kernel's parameters as a list for people.
pub fn describe(kernel: &Kernel) -> String {
    let mut text = format!("kernel `{}` takes {} arguments:", kernel.name, kernel.parameters.len());
    for (index, parameter) in kernel.parameters.iter().enumerate() {
        let bytes = parameter.size;
        let fits = match (bytes, kind(parameter.ty)) {
            (8, Some(false) | None) if parameter.ty != Type::B8 => "a pointer (buf:…) or a number (u64=…, i64=…)".to_owned(),
            (_, None) if parameter.ty == Type::B8 && bytes == 128 => "a tensor map (map:…) or a structure (bytes=…)".to_owned(),
            (_, None) if parameter.ty == Type::B8 && bytes > 2 => "a structure (bytes=…)".to_owned(),
            (_, Some(true)) => format!("a number (f{}=…)", 8 * bytes),
            _ => format!("a number of {bytes} bytes"),
        };
        text += &format!("\n  {index}  {} ({bytes} bytes): {fits}", parameter.name);
    }
    text
}

/// Whether a type is a float's (`Some(true)`), an integer's (`Some(false)`) or only bits.
fn kind(ty: Type) -> Option<bool> {
    match ty {
        Type::F16 | Type::BF16 | Type::F32 | Type::F64 => Some(true),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S8 | Type::S16 | Type::S32 | Type::S64 => Some(false),
        _ => None,
    }
}

/// Makes the memory, fills it, and packs the arguments.
///
/// # Errors
/// Too few or too many arguments, one that does not fit its parameter, a file that cannot be read, memory that there is not. Each
/// names the argument and lists the kernel's parameters.
pub fn bind(device: &mut Device, kernel: &Kernel, arguments: &[Argument], texts: &[String]) -> Result<Bindings> {
    let parameters = &kernel.parameters;
    if arguments.len() != parameters.len() {
        let message = format!("{} arguments given, {} expected", arguments.len(), parameters.len());
        return Err(Error::config(format!("{message}\n{}", describe(kernel))));
    }
    let named = |index: usize, message: String| {
        let text = texts.get(index).map_or("", String::as_str);
        Error::config(format!("argument {index}, `{text}`: {message}\n{}", describe(kernel)))
    };
    for (index, (argument, parameter)) in arguments.iter().zip(parameters).enumerate() {
        check(argument, parameter).map_err(|message| named(index, message))?;
    }
    let mut room = available_memory();
    let mut memory: Vec<Memory> = Vec::new();
    for (index, buffer) in arguments.iter().enumerate().filter_map(|(index, argument)| Some((index, argument.buffer()?))) {
        memory.push(make(device, index, buffer, &mut room).map_err(|error| named(index, error.to_string()))?);
    }
    let mut packed = vec![0; kernel.argument_bytes()];
    for (index, (argument, parameter)) in arguments.iter().zip(parameters).enumerate() {
        let bytes = bytes_of(argument, index, &memory).map_err(|message| named(index, message))?;
        match packed.get_mut(parameter.offset..parameter.offset + parameter.size) {
            Some(place) if bytes.len() >= parameter.size => place.copy_from_slice(&bytes[..parameter.size]),
            _ => return Err(named(index, format!("{} bytes do not fit", bytes.len()))),
        }
    }
    Ok(Bindings { packed, memory })
}

fn check(argument: &Argument, parameter: &Parameter) -> Result<(), String> {
    let Parameter { size, ty, .. } = *parameter;
    let sized = |given: usize, what: &str| {
        if given == size { Ok(()) } else { Err(format!("{what} has {given} bytes, the parameter has {size}")) }
    };
    match argument {
        Argument::Scalar { scalar, .. } => {
            sized(scalar.size(), scalar.name())?;
            match (scalar.format().is_some(), kind(ty)) {
                (true, Some(false)) => Err(format!("the parameter is an integer, not {}", scalar.name())),
                (false, Some(true)) => Err(format!("the parameter is a floating-point number, not {}", scalar.name())),
                _ => Ok(()),
            }
        }
        Argument::Bytes(bytes) => sized(bytes.len(), "it"),
        Argument::Buffer(_) if kind(ty) == Some(true) => Err("the parameter is a floating-point number, not a pointer".into()),
        Argument::Buffer(_) => sized(8, "a buffer's address"),
        Argument::Map(_) => sized(128, "a tensor map"),
    }
}

/// Bytes of memory that programs can still have, where the system tells it.
fn available_memory() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    told.unwrap_or(u64::MAX)
}

fn make(device: &mut Device, argument: usize, buffer: &Buffer, room: &mut u64) -> Result<Memory> {
    let Buffer { scalar, ref shape, ref init, ref save } = *buffer;
    let file = match init {
        Init::File(path) => Some((path, npy::read(path)?)),
        _ => None,
    };
    let shape = match (shape, &file) {
        (None, Some((_, array))) => array.shape.clone(),
        (Some(shape), _) => shape.clone(),
        (None, None) => Vec::new(),
    };
    let text = shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
    let count = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    let bytes = count.and_then(|count| count.checked_mul(scalar.size() as u64));
    let (Some(count), Some(bytes)) = (count, bytes.filter(|bytes| bytes <= room)) else {
        let needed = bytes.map_or("more than 2^64".to_owned(), |bytes| bytes.to_string());
        return Err(Error::config(format!("{needed} bytes of memory are needed, {room} are free")));
    };
    *room -= bytes;
    if let Some(folder) = save.as_ref().and_then(|path| path.parent())
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return Err(Error::config(format!("there is no folder {}", folder.display())));
    }
    let contents = match &file {
        Some((path, array)) if array.shape.iter().product::<u64>() != count => {
            let has = array.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
            return Err(Error::format(path, format!("has {has} elements, {text} are asked for")));
        }
        Some((path, array)) => Some(array.convert(scalar).map_err(|message| Error::format(path, message))?),
        None => generate(init, scalar, count)?,
    };
    let name = format!("argument {argument}, {}[{text}]", scalar.name());
    let address = device.allocate(&name, bytes).map_err(|error| Error::config(error.to_string()))?;
    if let Some(contents) = contents {
        device.write(address, &contents).map_err(|error| Error::config(error.to_string()))?;
    }
    let must_be_written = *init == Init::Out;
    Ok(Memory { argument, name, address, bytes, scalar, shape, must_be_written, save: save.clone() })
}

/// All elements; `None` if they are undefined.
fn generate(init: &Init, scalar: Scalar, count: u64) -> Result<Option<Vec<u8>>> {
    if matches!(init, Init::Out | Init::Scratch) {
        return Ok(None);
    }
    let mut bytes: Vec<u8> = Vec::new();
    let size = scalar.size();
    let fits = usize::try_from(count).ok().and_then(|count| bytes.try_reserve_exact(count.checked_mul(size)?).ok());
    fits.ok_or_else(|| Error::config(format!("no memory for {count} elements of {size} bytes")))?;
    for index in 0..count {
        let bits = init.element(scalar, index).unwrap_or(0);
        bytes.extend_from_slice(&bits.to_le_bytes()[..size]);
    }
    Ok(Some(bytes))
}

fn bytes_of(argument: &Argument, index: usize, memory: &[Memory]) -> Result<Vec<u8>, String> {
    let made_for = |argument: usize| memory.iter().find(|memory| memory.argument == argument);
    match argument {
        Argument::Scalar { bits, .. } => Ok(bits.to_le_bytes().to_vec()),
        Argument::Bytes(bytes) => Ok(bytes.clone()),
        Argument::Buffer(_) => made_for(index).map(|memory| memory.address.to_le_bytes().to_vec()).ok_or_else(String::new),
        Argument::Map(map) => {
            let of = match map.memory {
                MapMemory::Argument(number) => number,
                MapMemory::Own(_) => index,
            };
            encode(map, made_for(of).ok_or_else(|| format!("argument {of} is no buffer"))?)
        }
    }
}

/// The tensor lies densely, from the buffer's begin.
fn encode(map: &Map, memory: &Memory) -> Result<Vec<u8>, String> {
    let size = map.scalar.size() as u64;
    let mut stride = size;
    let mut dimensions = Vec::new();
    for (&extent, &box_size) in map.shape.iter().zip(&map.tile) {
        dimensions.push(Dimension { size: extent, stride, box_size, step: 1 });
        stride = stride.checked_mul(extent).ok_or("SHAPE is more than 2^64 bytes")?;
    }
    if stride > memory.bytes {
        return Err(format!("SHAPE needs {stride} bytes, {} has {}", memory.name, memory.bytes));
    }
    let map = TensorMap::new(data_type(map.scalar), memory.address, &dimensions, map.swizzle, 0, OutOfBounds::Zero)?;
    Ok(map.encode().to_vec())
}

impl Bindings {
    /// A finding for each output that has bytes which the kernel did not write.
    pub fn never_written(&self, device: &Device, kernel: &str) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for memory in self.memory.iter().filter(|memory| memory.must_be_written) {
            let first = device.first_undefined(memory.address, memory.bytes).map_err(|error| Error::Internal(error.to_string()))?;
            let Some(offset) = first else { continue };
            let element = offset / memory.scalar.size() as u64;
            findings.push(Finding {
                kind: Kind::NeverWritten,
                message: format!("nobody wrote element {} of {}", index(element, &memory.shape), memory.name),
                kernel: kernel.to_owned(),
                place: None,
                block: [0; 3],
                thread: [0; 3],
                address: Some(memory.address + offset),
                buffer: Some((memory.name.clone(), offset as i64)),
                count: 1,
            });
        }
        Ok(findings)
    }

    /// Writes the files that were asked for; their arguments and paths.
    pub fn save(&self, device: &Device) -> Result<Vec<(usize, PathBuf)>> {
        let mut written = Vec::new();
        for memory in &self.memory {
            let Some(path) = &memory.save else { continue };
            let mut bytes = vec![0; memory.bytes as usize];
            device.read(memory.address, &mut bytes).map_err(|error| Error::Internal(error.to_string()))?;
            npy::write(path, memory.scalar, &memory.shape, &bytes)?;
            written.push((memory.argument, path.clone()));
        }
        Ok(written)
    }
}

/// An element's number as its indices in an array of this shape: `7`, or `[3, 5]`.
fn index(element: u64, shape: &[u64]) -> String {
    let mut rest = element;
    let mut indices: Vec<String> = Vec::new();
    for &extent in shape.iter().rev() {
        indices.push((rest % extent.max(1)).to_string());
        rest /= extent.max(1);
    }
    indices.reverse();
    if indices.len() > 1 { format!("[{}]", indices.join(", ")) } else { element.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_by_their_indices() {
        assert_eq!(index(7, &[10]), "7");
        assert_eq!(index(7, &[]), "7");
        assert_eq!(index(23, &[2, 3, 5]), "[1, 1, 3]");
    }
}
