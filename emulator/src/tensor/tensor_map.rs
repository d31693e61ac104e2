//! Tensor maps: what `cuTensorMapEncodeTiled` describes, and the bytes that `cp.async.bulk.tensor` moves for it (ISA 5.5
//! "Tensors"; the constraints are those of the driver API's reference).
//!
//! The hardware's 128 bytes are secret, so these are our own: a kernel only ever passes their address on. Not supported: im2col,
//! interleaved layouts, packed 4- and 6-bit types, the swizzles of newer GPUs than Hopper.

use super::swizzle::Swizzle;

/// Bytes of an encoded map, to be aligned to 64.
pub const SIZE: usize = 128;

/// Alignment that `cp.async.bulk.tensor` asks of the shared address, in bytes.
pub const SHARED_ALIGNMENT: u32 = 128;

/// The first 8 bytes of an encoded map, so that other bytes are not taken for one.
const MAGIC: u64 = u64::from_le_bytes(*b"TILEDMAP");

/// Type of the elements: `CUtensorMapDataType`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the driver API's own
#[repr(u8)]
pub enum DataType {
    Uint8 = 0,
    Uint16 = 1,
    Uint32 = 2,
    Int32 = 3,
    Uint64 = 4,
    Int64 = 5,
    Float16 = 6,
    Float32 = 7,
    Float64 = 8,
    Bfloat16 = 9,
    Float32Ftz = 10,
    Tfloat32 = 11,
    Tfloat32Ftz = 12,
}

impl DataType {
    /// The type of a `CUtensorMapDataType`'s number.
    pub fn from_number(number: u32) -> Option<Self> {
        use DataType::*;
        let all =
            [Uint8, Uint16, Uint32, Int32, Uint64, Int64, Float16, Float32, Float64, Bfloat16, Float32Ftz, Tfloat32, Tfloat32Ftz];
        all.get(number as usize).copied()
    }

    /// Bytes of an element.
    pub const fn size(self) -> u32 {
        match self {
            Self::Uint8 => 1,
            Self::Uint16 | Self::Float16 | Self::Bfloat16 => 2,
            Self::Uint32 | Self::Int32 | Self::Float32 | Self::Float32Ftz | Self::Tfloat32 | Self::Tfloat32Ftz => 4,
            Self::Uint64 | Self::Int64 | Self::Float64 => 8,
        }
    }

    /// Whether the elements are floating-point numbers.
    pub const fn is_float(self) -> bool {
        self as u8 >= Self::Float16 as u8
    }

    /// The little-endian bytes of the NaN with which out-of-bounds elements are filled on request, in a `u64`'s low bytes. Which
    /// NaN the hardware writes is not documented.
    const fn nan(self) -> u64 {
        match self {
            Self::Float16 => 0x7fff,
            Self::Float64 => 0x7fff_ffff_ffff_ffff,
            Self::Bfloat16 => 0x7fff,
            _ => 0x7fff_ffff,
        }
    }
}

/// What loads find outside the tensor: `CUtensorMapFloatOOBfill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutOfBounds {
    /// Zeros.
    #[default]
    Zero,
    /// NaN (`NAN_REQUEST_ZERO_FMA`).
    Nan,
}

/// One dimension of a tensor and of its box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dimension {
    /// Elements of the tensor: 1 to 2³².
    pub size: u64,
    /// Bytes from one index to the next. In dimension 0 it is the element's size, whatever is written here.
    pub stride: u64,
    /// Elements that the box traverses: 1 to 256.
    pub box_size: u32,
    /// Step between elements in the traversal: 1 to 8. In dimension 0 it is 1, whatever is written here.
    pub step: u32,
}

/// A tiled tensor map: the arguments of `cuTensorMapEncodeTiled`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMap {
    data_type: DataType,
    address: u64,
    dimensions: Vec<Dimension>,
    swizzle: Swizzle,
    l2_promotion: u32,
    out_of_bounds: OutOfBounds,
}

impl TensorMap {
    /// Checks what the driver API documents. Dimension 0 is the contiguous one. `l2_promotion` is a hint: bytes fetched into L2
    /// at once, 0, 64, 128 or 256.
    ///
    /// # Errors
    /// A sentence that names the argument, its value and what is asked of it.
    pub fn new(
        data_type: DataType,
        address: u64,
        dimensions: &[Dimension],
        swizzle: Swizzle,
        l2_promotion: u32,
        out_of_bounds: OutOfBounds,
    ) -> Result<Self, String> {
        let fail = |argument: String, rule: &str| Err(format!("tensor map: {argument} {rule}"));
        if !(1..=5).contains(&dimensions.len()) {
            return fail(format!("rank {}", dimensions.len()), "must be 1 to 5");
        }
        if !address.is_multiple_of(16) {
            return fail(format!("globalAddress {address:#x}"), "must be a multiple of 16");
        }
        if !matches!(l2_promotion, 0 | 64 | 128 | 256) {
            return fail(format!("l2Promotion of {l2_promotion} bytes"), "must be 0, 64, 128 or 256");
        }
        if out_of_bounds == OutOfBounds::Nan && !data_type.is_float() {
            return fail(format!("a fill of NaN for {data_type:?}"), "needs a floating-point type");
        }
        let mut dimensions = dimensions.to_vec();
        (dimensions[0].stride, dimensions[0].step) = (u64::from(data_type.size()), 1);
        for (i, dimension) in dimensions.iter().enumerate() {
            let Dimension { size, stride, box_size, step } = *dimension;
            if !(1..=1 << 32).contains(&size) {
                return fail(format!("globalDim[{i}] = {size}"), "must be 1 to 2^32");
            }
            if i > 0 && (!stride.is_multiple_of(16) || stride >= 1 << 40) {
                return fail(format!("globalStrides[{}] = {stride} bytes", i - 1), "must be a multiple of 16 below 2^40");
            }
            if !(1..=256).contains(&box_size) {
                return fail(format!("boxDim[{i}] = {box_size}"), "must be 1 to 256");
            }
            if !(1..=8).contains(&step) {
                return fail(format!("elementStrides[{i}] = {step}"), "must be 1 to 8");
            }
        }
        let row = dimensions[0].box_size * data_type.size();
        if !row.is_multiple_of(16) {
            return fail(format!("the box's rows of {row} bytes (boxDim[0] × element size)"), "must be a multiple of 16 bytes");
        }
        if swizzle != Swizzle::None && row > swizzle.span() {
            return fail(
                format!("the box's rows of {row} bytes (boxDim[0] × element size)"),
                &format!("must fit into the {} bytes of the swizzle", swizzle.span()),
            );
        }
        Ok(Self { data_type, address, dimensions, swizzle, l2_promotion, out_of_bounds })
    }

    /// Our own encoding, little-endian: 8 bytes of magic, 8 of address, type, rank, swizzle, L2 promotion / 64 and fill in a byte
    /// each; from byte 24 on five times 20 bytes: size − 1 (4), stride (8), box size (4), step (4).
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.address.to_le_bytes());
        let swizzle = Swizzle::ALL.iter().position(|&s| s == self.swizzle).unwrap_or_default();
        bytes[16] = self.data_type as u8;
        bytes[17] = self.dimensions.len() as u8;
        bytes[18] = swizzle as u8;
        bytes[19] = (self.l2_promotion / 64) as u8;
        bytes[20] = u8::from(self.out_of_bounds == OutOfBounds::Nan);
        for (field, dimension) in bytes[24..].chunks_exact_mut(20).zip(&self.dimensions) {
            field[..4].copy_from_slice(&((dimension.size - 1) as u32).to_le_bytes());
            field[4..12].copy_from_slice(&dimension.stride.to_le_bytes());
            field[12..16].copy_from_slice(&dimension.box_size.to_le_bytes());
            field[16..].copy_from_slice(&dimension.step.to_le_bytes());
        }
        bytes
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    /// A sentence when the bytes are not a tensor map.
    pub fn decode(bytes: &[u8; SIZE]) -> Result<Self, String> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let wide = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let (rank, fill) = (usize::from(bytes[17]), [OutOfBounds::Zero, OutOfBounds::Nan].get(usize::from(bytes[20])).copied());
        let (Some(data_type), Some(&swizzle), Some(fill), true, MAGIC) =
            (DataType::from_number(bytes[16].into()), Swizzle::ALL.get(usize::from(bytes[18])), fill, rank <= 5, wide(0))
        else {
            return Err("these 128 bytes are not a tensor map: was it encoded, and passed by value as a __grid_constant__?".into());
        };
        let dimension = |at: usize| Dimension {
            size: u64::from(word(at)) + 1,
            stride: wide(at + 4),
            box_size: word(at + 12),
            step: word(at + 16),
        };
        let dimensions: Vec<_> = (0..rank).map(|i| dimension(24 + 20 * i)).collect();
        Self::new(data_type, wide(8), &dimensions, swizzle, 64 * u32::from(bytes[19]), fill)
    }

    /// Dimensions of the tensor, the contiguous one first.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// Type of the elements.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Swizzling mode of the box in shared memory.
    pub fn swizzle(&self) -> Swizzle {
        self.swizzle
    }

    /// Elements of a box along dimension `i`: ⌈box size / step⌉.
    fn count(&self, i: usize) -> u32 {
        self.dimensions[i].box_size.div_ceil(self.dimensions[i].step)
    }

    /// Bytes of a box in shared memory, which a load's mbarrier counts whether in bounds or not.
    pub fn box_bytes(&self) -> u64 {
        (0..self.dimensions.len()).map(|i| u64::from(self.count(i))).product::<u64>() * u64::from(self.data_type.size())
    }

    /// The bytes with which out-of-bounds `length` bytes are filled.
    pub fn fill(&self, length: u32) -> impl Iterator<Item = u8> + use<> {
        let (element, size) =
            (if self.out_of_bounds == OutOfBounds::Nan { self.data_type.nan() } else { 0 }, self.data_type.size());
        (0..length).map(move |i| (element >> (8 * (i % size))) as u8)
    }

    /// The runs of contiguous bytes of the box whose first element is at `coordinates` (dimension 0 first) and which lies at the
    /// shared address `shared`.
    ///
    /// # Errors
    /// A sentence when there are more or fewer coordinates than dimensions, when the shared address is not aligned to 128 bytes or
    /// the box would wrap around the address space, or when a swizzled box has rows shorter than the swizzle's span.
    pub fn runs(&self, coordinates: &[i32], shared: u32) -> Result<Runs<'_>, String> {
        let rank = self.dimensions.len();
        if coordinates.len() != rank {
            return Err(format!("{} coordinates for a tensor map of rank {rank}", coordinates.len()));
        }
        if !shared.is_multiple_of(SHARED_ALIGNMENT) {
            return Err(format!("shared address {shared:#x} of a tensor's box must be a multiple of {SHARED_ALIGNMENT}"));
        }
        let bytes = u32::try_from(self.box_bytes()).ok().filter(|&bytes| shared.checked_add(bytes).is_some());
        let Some(bytes) = bytes else {
            return Err(format!("a box of {} bytes does not fit behind shared address {shared:#x}", self.box_bytes()));
        };
        let row = self.dimensions[0].box_size * self.data_type.size();
        if self.swizzle != Swizzle::None && row != self.swizzle.span() {
            return Err(format!(
                "how a box with rows of {row} bytes lies in shared memory under a {}-byte swizzle is not documented: make the rows \
                 as long as the swizzle",
                self.swizzle.span()
            ));
        }
        let mut runs = Runs { map: self, coordinates: [0; 5], index: [0; 5], row: None, within: 0, shared, end: shared + bytes };
        runs.coordinates[..rank].copy_from_slice(coordinates);
        runs.row = runs.row();
        Ok(runs)
    }
}

/// Bytes that are contiguous in global and in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// Address in global memory; none outside the tensor (a load fills, a store skips).
    pub global: Option<u64>,
    /// Address in shared memory, swizzled.
    pub shared: u32,
    /// Bytes, a multiple of the element's size.
    pub length: u32,
}

/// Iterator of [`TensorMap::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    map: &'a TensorMap,
    /// Of the box's first element.
    coordinates: [i32; 5],
    /// Of the row in the box; dimension 0 stays 0.
    index: [u32; 5],
    /// Global address of the row's element 0, whether in the box or not; none for a row outside the tensor.
    row: Option<u64>,
    /// Bytes of the row that were given out.
    within: u32,
    /// Shared address of the next byte, before the swizzle, and of the box's end.
    shared: u32,
    end: u32,
}

impl Runs<'_> {
    /// What the field `row` says of the current index.
    fn row(&self) -> Option<u64> {
        let mut address = self.map.address;
        for (i, dimension) in self.map.dimensions.iter().enumerate().skip(1) {
            let at = i64::from(self.coordinates[i]) + i64::from(self.index[i]) * i64::from(dimension.step);
            let at = u64::try_from(at).ok().filter(|&at| at < dimension.size)?;
            address = address.wrapping_add(at.wrapping_mul(dimension.stride));
        }
        Some(address)
    }

    /// Steps to the next row.
    fn advance(&mut self) {
        self.within = 0;
        for i in 1..self.map.dimensions.len() {
            self.index[i] += 1;
            if self.index[i] < self.map.count(i) {
                break;
            }
            self.index[i] = 0;
        }
        self.row = self.row();
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.shared == self.end {
            return None;
        }
        let (inner, size) = (&self.map.dimensions[0], i64::from(self.map.data_type.size()));
        let row = inner.box_size * self.map.data_type.size();
        // A swizzle moves each 16 bytes elsewhere.
        let mut length = if self.map.swizzle == Swizzle::None { row - self.within } else { 16 - self.within % 16 };
        // Along dimension 0 the next byte is before, inside or after the tensor.
        let (start, end) = (i64::from(self.coordinates[0]) * size + i64::from(self.within), inner.size as i64 * size);
        let edge = if start < 0 { -start } else { end - start };
        if self.row.is_some() && edge > 0 {
            length = i64::from(length).min(edge) as u32;
        }
        let global = self.row.filter(|_| (0..end).contains(&start)).map(|row| row.wrapping_add(start as u64));
        let run = Run { global, shared: self.map.swizzle.apply(self.shared), length };
        self.shared += length;
        self.within += length;
        if self.within == row {
            self.advance();
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests;
