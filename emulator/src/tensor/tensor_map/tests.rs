//! Runs against a loop over the elements; each documented constraint refused by name.

use proptest::prelude::*;

use super::*;

fn dimension(size: u64, stride: u64, box_size: u32, step: u32) -> Dimension {
    Dimension { size, stride, box_size, step }
}

/// 100 × 60 f16 with boxes of 64 × 8.
fn plane() -> [Dimension; 2] {
    [dimension(100, 2, 64, 1), dimension(60, 208, 8, 1)]
}

fn map(dimensions: &[Dimension]) -> Result<TensorMap, String> {
    TensorMap::new(DataType::Float16, 0x1000, dimensions, Swizzle::B128, 128, OutOfBounds::Nan)
}

#[test]
fn each_constraint_is_refused_by_name() {
    let [inner, outer] = plane();
    let refused = |result: Result<TensorMap, String>, words: &[&str]| {
        let message = result.unwrap_err();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    assert!(map(&plane()).is_ok());
    refused(map(&[]), &["rank 0"]);
    refused(map(&[inner; 6]), &["rank 6"]);
    refused(map(&[Dimension { size: 0, ..inner }]), &["globalDim[0] = 0"]);
    refused(map(&[inner, Dimension { size: (1 << 32) + 1, ..outer }]), &["globalDim[1]", "2^32"]);
    refused(map(&[inner, Dimension { stride: 200, ..outer }]), &["globalStrides[0] = 200", "multiple of 16"]);
    refused(map(&[inner, Dimension { stride: 1 << 40, ..outer }]), &["globalStrides[0]", "2^40"]);
    refused(map(&[inner, Dimension { box_size: 257, ..outer }]), &["boxDim[1] = 257"]);
    refused(map(&[inner, Dimension { box_size: 0, ..outer }]), &["boxDim[1] = 0"]);
    refused(map(&[inner, Dimension { step: 9, ..outer }]), &["elementStrides[1] = 9"]);
    refused(map(&[inner, Dimension { step: 0, ..outer }]), &["elementStrides[1] = 0"]);
    refused(map(&[Dimension { box_size: 12, ..inner }]), &["rows of 24 bytes", "multiple of 16"]);
    refused(map(&[Dimension { box_size: 72, ..inner }]), &["rows of 144 bytes", "128 bytes of the swizzle"]);
    let other = |data_type, address, l2| TensorMap::new(data_type, address, &plane(), Swizzle::B128, l2, OutOfBounds::Nan);
    refused(other(DataType::Float16, 0x1008, 0), &["globalAddress 0x1008"]);
    refused(other(DataType::Float16, 0x1000, 32), &["l2Promotion"]);
    refused(other(DataType::Uint16, 0x1000, 0), &["NaN", "Uint16"]);
}

#[test]
fn boxes_are_placed_with_a_reason_when_they_cannot() {
    let map = self::map(&plane()).unwrap();
    assert!(map.runs(&[0], 0).unwrap_err().contains("1 coordinates for a tensor map of rank 2"));
    assert!(map.runs(&[0, 0], 64).unwrap_err().contains("multiple of 128"));
    assert!(map.runs(&[0, 0], 0u32.wrapping_sub(128)).unwrap_err().contains("does not fit"));
    let narrow = self::map(&[Dimension { box_size: 32, ..plane()[0] }, plane()[1]]).unwrap();
    assert!(narrow.runs(&[0, 0], 0).unwrap_err().contains("rows of 64 bytes"));
}

#[test]
fn bytes_that_are_no_map_are_refused() {
    let good = map(&plane()).unwrap().encode();
    assert_eq!(TensorMap::decode(&good), map(&plane()));
    assert!(TensorMap::decode(&[0; SIZE]).unwrap_err().contains("not a tensor map"));
    for (byte, value) in [(0, 0), (16, 13), (17, 6), (18, 4), (20, 2)] {
        let mut bad = good;
        bad[byte] = value;
        assert!(TensorMap::decode(&bad).unwrap_err().contains("not a tensor map"), "byte {byte}");
    }
    let mut bad = good;
    bad[17] = 0;
    assert!(TensorMap::decode(&bad).unwrap_err().contains("rank 0"));
    bad = good;
    bad[8] = 1;
    assert!(TensorMap::decode(&bad).unwrap_err().contains("globalAddress"));
}

#[test]
fn fills_are_zeros_or_nan() {
    let fill = |data_type, out_of_bounds| -> Vec<u8> {
        let dimensions = [dimension(100, 0, 16, 1)];
        TensorMap::new(data_type, 0, &dimensions, Swizzle::None, 0, out_of_bounds).unwrap().fill(16).collect()
    };
    assert_eq!(fill(DataType::Float32, OutOfBounds::Zero), [0; 16]);
    let words = |bytes: Vec<u8>| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect() };
    assert!(words(fill(DataType::Float32, OutOfBounds::Nan)).iter().all(|x| x.is_nan()));
    let halves = |bytes: Vec<u8>| -> Vec<u16> { bytes.as_chunks().0.iter().map(|&x| u16::from_le_bytes(x)).collect() };
    assert!(halves(fill(DataType::Float16, OutOfBounds::Nan)).iter().all(|&x| half::f16::from_bits(x).is_nan()));
    assert!(halves(fill(DataType::Bfloat16, OutOfBounds::Nan)).iter().all(|&x| half::bf16::from_bits(x).is_nan()));
    let wide = |bytes: Vec<u8>| -> Vec<f64> { bytes.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect() };
    assert!(wide(fill(DataType::Float64, OutOfBounds::Nan)).iter().all(|x| x.is_nan()));
}

#[test]
fn a_row_inside_the_tensor_is_one_run_without_swizzle() {
    let map = TensorMap::new(DataType::Float16, 0x1000, &plane(), Swizzle::None, 0, OutOfBounds::Zero).unwrap();
    let runs: Vec<_> = map.runs(&[-4, 58], 0x80).unwrap().take(3).collect();
    let row = 0x1000 + 58 * 208;
    assert_eq!(runs[0], Run { global: None, shared: 0x80, length: 8 });
    assert_eq!(runs[1], Run { global: Some(row), shared: 0x88, length: 120 });
    assert_eq!(runs[2], Run { global: None, shared: 0x100, length: 8 });
    let above = map.runs(&[64, 0], 0).unwrap().next().unwrap();
    assert_eq!(above, Run { global: Some(0x1080), shared: 0, length: 72 });
}

/// A map of random rank, sizes and box; the box is kept small.
fn any_map() -> impl Strategy<Value = (TensorMap, Vec<i32>)> {
    let outer = (1u64..9, 0u64..9, 1u32..7, 1u32..4, -3i32..9);
    let inner = (1u64..80, 1u32..9, -20i32..90);
    let kind = (0u32..13, 0usize..4);
    (kind, inner, prop::collection::vec(outer, 0..5)).prop_map(|((number, swizzle), (size, chunks, first), outer)| {
        let (data_type, swizzle) = (DataType::from_number(number).unwrap(), Swizzle::ALL[swizzle]);
        let row = if swizzle == Swizzle::None { 16 * chunks } else { swizzle.span() };
        let mut dimensions = vec![dimension(size, 0, row / data_type.size(), 1)];
        let mut coordinates = vec![first];
        for (size, stride, box_size, step, first) in outer {
            dimensions.push(dimension(size, 16 * stride, box_size, step));
            coordinates.push(first);
        }
        let map = TensorMap::new(data_type, 0x10_0000, &dimensions, swizzle, 256, OutOfBounds::Zero).unwrap();
        (map, coordinates)
    })
}

/// (global, shared) address of each element of the box, dimension `i` downwards from the last.
fn elements(map: &TensorMap, coordinates: &[i32], shared: u32) -> Vec<(Option<u64>, u32)> {
    let mut all = vec![(Some(map.address), 0u32)];
    let size = map.data_type.size();
    for (i, d) in map.dimensions.iter().enumerate().rev() {
        let count = (0..d.box_size).step_by(d.step as usize).count() as u32;
        all = (all.iter())
            .flat_map(|&(global, index)| {
                (0..count).map(move |j| {
                    let coordinate = coordinates[i] as i64 + i64::from(j * d.step);
                    let inside = coordinate >= 0 && coordinate < d.size as i64;
                    (global.filter(|_| inside).map(|g| g + coordinate as u64 * d.stride), index * count + j)
                })
            })
            .collect();
    }
    let chunks = map.swizzle.span() / 16;
    all.into_iter()
        .map(|(global, index)| {
            let linear = shared + index * size;
            let (line, chunk) = (linear / 128, linear / 16 % chunks);
            (global, linear - 16 * chunk + 16 * (chunk ^ (line % chunks)))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn runs_are_the_elements_of_the_box((map, coordinates) in any_map(), lines in 0u32..16) {
        let shared = 128 * lines;
        let size = map.data_type.size();
        let mut found = Vec::new();
        for run in map.runs(&coordinates, shared).unwrap() {
            prop_assert!(run.length > 0 && run.length.is_multiple_of(size));
            for i in 0..run.length / size {
                found.push((run.global.map(|g| g + u64::from(i * size)), run.shared + i * size));
            }
        }
        prop_assert_eq!(found.len() as u64 * u64::from(size), map.box_bytes());
        prop_assert_eq!(found, elements(&map, &coordinates, shared));
    }

    #[test]
    fn maps_survive_a_round_trip((map, _) in any_map()) {
        prop_assert_eq!(TensorMap::decode(&map.encode()), Ok(map));
    }
}
