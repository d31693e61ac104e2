//! Tensor maps in the emulator's own encoding: the hardware's is not documented.

use ptx_emulator::tensor::swizzle::Swizzle as Mode;
use ptx_emulator::tensor::tensor_map::{DataType as Type, Dimension, OutOfBounds as Fill, TensorMap as Encoded};

use crate::error::{Error, Result};
use crate::gpu::{L2Promotion, OutOfBounds, Swizzle, TensorMap, TensorMapElement, TensorMapLayout};

pub(super) fn encode(layout: &TensorMapLayout<'_>) -> Result<TensorMap> {
    layout.check()?;
    let strides = std::iter::once(layout.element.size()).chain(layout.strides.iter().copied());
    let dimensions: Vec<Dimension> = (layout.shape.iter().zip(strides).zip(layout.tile))
        .map(|((&size, stride), &box_size)| Dimension { size, stride, box_size, step: 1 })
        .collect();
    let map = Encoded::new(
        data_type(layout.element),
        layout.memory.address(),
        &dimensions,
        mode(layout.swizzle),
        l2_bytes(layout.l2_promotion),
        fill(layout.out_of_bounds),
    );
    let map = map.map_err(|message| Error::device(format!("buffer `{}`: {message}", layout.memory.buffer().name())))?;
    Ok(TensorMap::from_bytes(map.encode()))
}

fn data_type(element: TensorMapElement) -> Type {
    match element {
        TensorMapElement::U8 => Type::Uint8,
        TensorMapElement::U16 => Type::Uint16,
        TensorMapElement::U32 => Type::Uint32,
        TensorMapElement::I32 => Type::Int32,
        TensorMapElement::U64 => Type::Uint64,
        TensorMapElement::I64 => Type::Int64,
        TensorMapElement::F16 => Type::Float16,
        TensorMapElement::BF16 => Type::Bfloat16,
        TensorMapElement::F32 => Type::Float32,
        TensorMapElement::F64 => Type::Float64,
    }
}

fn mode(swizzle: Swizzle) -> Mode {
    match swizzle {
        Swizzle::None => Mode::None,
        Swizzle::B32 => Mode::B32,
        Swizzle::B64 => Mode::B64,
        Swizzle::B128 => Mode::B128,
    }
}

fn l2_bytes(promotion: L2Promotion) -> u32 {
    match promotion {
        L2Promotion::None => 0,
        L2Promotion::B64 => 64,
        L2Promotion::B128 => 128,
        L2Promotion::B256 => 256,
    }
}

fn fill(fill: OutOfBounds) -> Fill {
    match fill {
        OutOfBounds::Zero => Fill::Zero,
        OutOfBounds::NaN => Fill::Nan,
    }
}
