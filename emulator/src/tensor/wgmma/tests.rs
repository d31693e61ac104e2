//! Products of tiles that a tensor map wrote to shared memory and a descriptor reads, against plain loops. All numbers are small
//! integers, so that sums are exact.

use half::{bf16, f16};

use super::*;
use crate::tensor::element::Accumulator;
use crate::tensor::fragment::Fragment;
use crate::tensor::mma::{Addend, Mma};
use crate::tensor::swizzle::Swizzle;
use crate::tensor::tensor_map::{DataType, Dimension, OutOfBounds, TensorMap};

const N: usize = 64;

fn data_type(kind: Multiplicand) -> DataType {
    match kind.bits() {
        32 => DataType::Float32,
        16 => DataType::Float16,
        _ => DataType::Uint8,
    }
}

/// The bytes of a small integer, -4 to 4 (0 to 4 unsigned).
fn bytes(kind: Multiplicand, value: i32) -> Vec<u8> {
    match kind {
        Multiplicand::F16 => f16::from_f32(value as f32).to_le_bytes().to_vec(),
        Multiplicand::Bf16 => bf16::from_f32(value as f32).to_le_bytes().to_vec(),
        Multiplicand::Tf32 => (value as f32).to_le_bytes().to_vec(),
        Multiplicand::E4m3 => {
            let magnitude = [0x00, 0x38, 0x40, 0x44, 0x48][value.unsigned_abs() as usize];
            vec![magnitude | if value < 0 { 0x80 } else { 0 }]
        }
        _ => vec![value as u8],
    }
}

/// `rows` (M or N) × `ks` numbers.
struct Matrix {
    rows: usize,
    ks: usize,
    numbers: Vec<i32>,
}

impl Matrix {
    fn new(rows: usize, ks: usize, seed: usize) -> Self {
        let numbers = (0..rows * ks).map(|i| ((i * 7919 + seed) * 104729 / 64 % 9) as i32 - 4).collect();
        Self { rows, ks, numbers }
    }

    fn at(&self, row: usize, k: usize) -> i32 {
        self.numbers[row * self.ks + k]
    }

    /// Global memory holds the matrix with `major` contiguous; boxes as wide as the swizzle's span (16 bytes without) are loaded
    /// one after the other to `start`. Returns the descriptors of each 32 bytes of K.
    fn load(&self, kind: Multiplicand, major: Major, swizzle: Swizzle, shared: &mut [u8], start: u32) -> Vec<Descriptor> {
        let (inner, outer) = if major == Major::K { (self.ks, self.rows) } else { (self.rows, self.ks) };
        let element = |line: usize, i: usize| if major == Major::K { self.at(line, i) } else { self.at(i, line) };
        let global: Vec<u8> = (0..outer * inner).flat_map(|i| bytes(kind, element(i / inner, i % inner))).collect();
        let (size, span) = ((kind.bits() / 8) as u32, swizzle.span());
        let dimensions = [
            Dimension { size: inner as u64, stride: 0, box_size: span / size, step: 1 },
            Dimension { size: outer as u64, stride: inner as u64 * u64::from(size), box_size: outer as u32, step: 1 },
        ];
        let map = TensorMap::new(data_type(kind), 0, &dimensions, swizzle, 128, OutOfBounds::Zero).unwrap();
        let boxes = inner as u32 * size / span;
        for i in 0..boxes {
            let to = start + i * span * outer as u32;
            for run in map.runs(&[(i * span / size) as i32, 0], to).unwrap() {
                let (from, length) = (run.global.unwrap() as usize, run.length as usize);
                shared[run.shared as usize..][..length].copy_from_slice(&global[from..][..length]);
            }
        }
        let (block, steps) = (span * outer as u32, self.ks as u32 * size / 32);
        (0..steps)
            .map(|step| match (major, swizzle) {
                // Two 16-byte columns of K are two boxes.
                (Major::K, Swizzle::None) => (2 * block * step, block, 128),
                // A step of 32 bytes inside the span, and a box when the span is used up.
                (Major::K, _) => (step * 32 % span + step * 32 / span * block, 0, 8 * span),
                // 16 k are 16 lines of a box.
                (Major::Mn, Swizzle::None) => (256 * step, 128, block),
                (Major::Mn, _) => (16 * span * step, block, 8 * span),
            })
            .map(|(offset, leading, stride)| {
                let bits = Descriptor { start: start + offset, leading, stride, base_offset: 0, swizzle }.encode().unwrap();
                Descriptor::decode(bits).unwrap()
            })
            .collect()
    }
}

fn check(kind: Multiplicand, accumulator: Accumulator, majors: (Major, Major), swizzles: (Swizzle, Swizzle)) {
    let ks = 4 * 256 / kind.bits();
    let (a, b) = (Matrix::new(64, ks, 1), Matrix::new(N, ks, 5));
    let mut shared = vec![0xff; 1 << 17];
    let descriptors_a = a.load(kind, majors.0, swizzles.0, &mut shared, 0x400);
    let descriptors_b = b.load(kind, majors.1, swizzles.1, &mut shared, 0x8000);
    let read = |address| row_of(&shared, address).ok_or("outside");
    let mma = Mma::wgmma(N, kind, kind, accumulator).unwrap();

    let mut d = vec![vec![[0; 32]; mma.d().registers()]; 4];
    for (step, (&descriptor_a, &descriptor_b)) in descriptors_a.iter().zip(&descriptors_b).enumerate() {
        let (tile_a, tile_b) = (Tile::new(descriptor_a, majors.0, kind).unwrap(), Tile::new(descriptor_b, majors.1, kind).unwrap());
        let panels = mma.unpack(&tile_b.gather(0, N as u32, read).unwrap());
        for (warp, d) in d.iter_mut().enumerate() {
            let addend = if step == 0 { Addend::Zero } else { Addend::Destination };
            mma.multiply(&tile_a.gather(16 * warp as u32, 16, read).unwrap(), &panels, addend, d);
        }
    }
    for row in 0..64 {
        for column in 0..N {
            let expected: i32 = (0..ks).map(|k| a.at(row, k) * b.at(column, k)).sum();
            let place = Fragment::accumulator(16, N, 1).place(row % 16, column);
            let bits = d[row / 16][place.register][place.lane];
            let found = if accumulator == Accumulator::S32 { bits as i32 as f32 } else { f32::from_bits(bits) };
            assert_eq!(found, expected as f32, "{kind:?} {majors:?} {swizzles:?}: row {row}, column {column}");
        }
    }
}

#[test]
fn k_major_tiles_written_by_tensor_maps_multiply_right() {
    for (kind, accumulator) in [
        (Multiplicand::F16, Accumulator::F32),
        (Multiplicand::Bf16, Accumulator::F32),
        (Multiplicand::Tf32, Accumulator::F32),
        (Multiplicand::E4m3, Accumulator::F32),
        (Multiplicand::S8, Accumulator::S32),
    ] {
        for swizzle in Swizzle::ALL {
            check(kind, accumulator, (Major::K, Major::K), (swizzle, swizzle));
        }
    }
}

#[test]
fn mn_major_tiles_written_by_tensor_maps_multiply_right() {
    for kind in [Multiplicand::F16, Multiplicand::Bf16] {
        for a in Swizzle::ALL {
            for b in Swizzle::ALL {
                for majors in [(Major::K, Major::Mn), (Major::Mn, Major::K), (Major::Mn, Major::Mn)] {
                    check(kind, Accumulator::F32, majors, (a, b));
                }
            }
        }
    }
}

#[test]
fn only_16_bit_elements_are_transposed() {
    let descriptor = Descriptor::decode(0).unwrap();
    for kind in [Multiplicand::Tf32, Multiplicand::E4m3, Multiplicand::S8] {
        assert!(Tile::new(descriptor, Major::Mn, kind).unwrap_err().contains("transposes f16 and bf16 only"));
        assert!(Tile::new(descriptor, Major::K, kind).is_ok());
    }
}

#[test]
fn reads_outside_shared_memory_are_the_callers_to_refuse() {
    let tile = Tile::new(Descriptor::decode(0x3fff).unwrap(), Major::K, Multiplicand::F16).unwrap();
    assert_eq!(tile.gather(0, 16, |address| row_of(&[0; 1024], address).ok_or(address)), Err(0x3fff0));
    assert_eq!(row_of(&[1; 32], 16), Some([0x0101_0101; 4]));
    assert_eq!(row_of(&[1; 32], 17), None);
}
