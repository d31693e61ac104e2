//! `cp.async.bulk.tensor`, `cp.reduce.async.bulk.tensor`: boxes of a tensor between global and shared memory, in tile mode.

use super::access::window_of;
use super::address::{AddressOperand, Target};
use super::bulk::without_hint;
use super::bulk_move::{Completion, End, Move, Reduce, Run};
use super::reduction::{add_f32_flushed, reduction};
use crate::Result;
use crate::check::Kind;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::Reg;
use crate::memory::shared::{RANK_SHIFT, Range, SHARED_START};
use crate::program::{Class, Decoded, Lowering};
use crate::ptx::ast::{Instruction, Operand};
use crate::tensor::tensor_map::{DataType, SHARED_ALIGNMENT, SIZE, TensorMap};

/// A tensor map's address and the coordinates of a box's first element, dimension 0 first.
struct TensorBox {
    map: AddressOperand,
    coordinates: Vec<Reg<i32>>,
}

/// Which way the box goes.
#[derive(Clone, Copy)]
enum Direction {
    /// Into shared memory, of several blocks if there is a mask.
    Load { mbarrier: AddressOperand, blocks: Option<Reg<u16>> },
    /// Into global memory, where it may be combined with what is there.
    Store { reduce: Option<Operation> },
}

/// The operation of a reduction; the type is the tensor's.
#[derive(Clone, Copy)]
struct Operation(&'static str);

impl Operation {
    /// On the elements of a tensor; none if there is no such.
    fn of(self, data_type: DataType) -> Option<Reduce> {
        let bits = matches!(self.0, "and" | "or" | "xor");
        let ty = match data_type {
            DataType::Uint32 | DataType::Int32 if bits => "b32",
            DataType::Uint64 | DataType::Int64 if bits => "b64",
            DataType::Uint32 => "u32",
            DataType::Int32 => "s32",
            DataType::Uint64 => "u64",
            DataType::Int64 => "s64",
            DataType::Float16 => "f16",
            DataType::Bfloat16 => "bf16",
            DataType::Float32 | DataType::Float32Ftz => "f32",
            DataType::Float64 => "f64",
            _ => return None,
        };
        let reduction = reduction(self.0, ty)?;
        let combine = if (self.0, ty) == ("add", "f32") { add_f32_flushed } else { reduction.combine };
        Some(Reduce { combine, size: reduction.size })
    }
}

struct TensorCopy {
    tensor: TensorBox,
    shared: AddressOperand,
    direction: Direction,
}

impl Execute for TensorCopy {
    fn execute(&self, cx: &mut Cx) -> Flow {
        for lane in lanes_of(cx.active) {
            if let Some(operation) = self.operation(cx, lane) {
                operation.begin(cx, lane);
            }
        }
        Flow::Next
    }
}

impl TensorCopy {
    /// What one lane asks for; none if it is impossible, which is told.
    fn operation(&self, cx: &mut Cx, lane: usize) -> Option<Move> {
        let address = self.shared.addresses(cx)[lane];
        let (map, coordinates) = self.tensor.read(cx, lane)?;
        let bytes = u32::try_from(map.box_bytes()).ok()?;
        let range = cx.shared_range(lane, address, bytes, SHARED_ALIGNMENT)?;
        let offset = (address & ((1 << RANK_SHIFT) - 1)) as u32;
        let boxes = match map.runs(&coordinates, offset) {
            Ok(boxes) => boxes,
            Err(problem) => {
                cx.report(Kind::InvalidOperation, lane, || problem);
                return None;
            }
        };
        let mut fill = [0; 8];
        fill.iter_mut().zip(map.fill(8)).for_each(|(byte, value)| *byte = value);
        let stores = matches!(self.direction, Direction::Store { .. });
        let mut runs = Vec::new();
        for part in boxes {
            let global = match part.global {
                None => End::Outside(fill),
                Some(address) => cx.global_range(lane, address, part.length, stores)?,
            };
            // A swizzle moves bytes within 128, so that they stay in the box.
            let shared = End::Shared((part.shared - SHARED_START) as usize);
            let (from, to) = if stores { (shared, global) } else { (global, shared) };
            runs.push(Run { from, to, length: part.length });
        }
        match self.direction {
            Direction::Load { mbarrier, blocks } => {
                let mbarrier = mbarrier.addresses(cx)[lane];
                let counting = match blocks {
                    None => vec![range.rank],
                    Some(blocks) => {
                        let mask = cx.get(blocks)[lane];
                        cx.multicast_ranks(lane, mask)
                    }
                };
                let position = cx.counting_mbarrier(lane, mbarrier, range.rank, &counting)?;
                let destinations = counting.iter().map(|&rank| Range { rank, ..range }).collect();
                let completion = Completion::Mbarrier(position);
                Some(Move { runs, source: None, destinations, reduce: None, completion, bytes })
            }
            Direction::Store { reduce } => {
                let reduce = match reduce.map(|operation| (operation, operation.of(map.data_type()))) {
                    None => None,
                    Some((_, Some(reduce))) => Some(reduce),
                    Some((Operation(name), None)) => {
                        cx.report(Kind::InvalidOperation, lane, || format!("`{name}` of elements of type {:?}", map.data_type()));
                        return None;
                    }
                };
                let completion = Completion::Group(cx.warp.bulk.begin(lane));
                Some(Move { runs, source: Some(range), destinations: Vec::new(), reduce, completion, bytes })
            }
        }
    }
}

impl TensorBox {
    /// The tensor map and the coordinates that a lane gives; a finding if the map is none.
    fn read(&self, cx: &mut Cx, lane: usize) -> Option<(TensorMap, Vec<i32>)> {
        let address = self.map.addresses(cx)[lane];
        let map = read_map(cx, lane, address)?;
        Some((map, self.coordinates.iter().map(|&register| cx.get(register)[lane]).collect()))
    }
}

/// The tensor map at a generic address; a finding if there is none.
fn read_map(cx: &mut Cx, lane: usize, address: u64) -> Option<TensorMap> {
    if !cx.is_aligned_to(lane, address, 64) {
        return None;
    }
    let mut bytes = [0; SIZE];
    let (target, window) = window_of(address);
    match target {
        Target::Argument => {
            let at = (address - window) as usize;
            let Some(argument) = cx.launch.launch.arguments.get(at..at.saturating_add(SIZE)) else {
                cx.report_at(Kind::OutOfBounds, lane, Some(address), None, || "read beyond the kernel's parameters".into());
                return None;
            };
            bytes.copy_from_slice(argument);
        }
        Target::Global | Target::Generic => {
            let End::Global { allocation, offset } = cx.global_range(lane, address, SIZE as u32, false)? else { return None };
            cx.launch.memory.get(allocation).read(offset, &mut bytes);
        }
        Target::Shared | Target::Local => {
            cx.report_at(Kind::InvalidOperation, lane, Some(address), None, || {
                "a tensor map lies in parameter, constant or global memory".into()
            });
            return None;
        }
    }
    let map = TensorMap::decode(&bytes);
    map.map_err(|problem| cx.report_at(Kind::InvalidOperation, lane, Some(address), None, || problem)).ok()
}

/// `cp.async.bulk.prefetch.tensor`: nothing but the check that the map is one, of this rank.
struct Prefetch {
    tensor: TensorBox,
}

impl Execute for Prefetch {
    fn execute(&self, cx: &mut Cx) -> Flow {
        for lane in lanes_of(cx.active) {
            let Some((map, coordinates)) = self.tensor.read(cx, lane) else { continue };
            if let Err(problem) = map.runs(&coordinates, 0) {
                cx.report(Kind::InvalidOperation, lane, || problem);
            }
        }
        Flow::Next
    }
}

/// `prefetch.tensormap`: nothing but the check that there is one.
struct PrefetchMap {
    target: Target,
    map: AddressOperand,
}

impl Execute for PrefetchMap {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let window = if self.target == Target::Argument { crate::memory::PARAM_WINDOW } else { 0 };
        let addresses = self.map.addresses(cx);
        for lane in lanes_of(cx.active) {
            read_map(cx, lane, addresses[lane].wrapping_add(window));
        }
        Flow::Next
    }
}

/// The rest of `prefetch{.param}.tensormap`.
pub(super) fn decode_prefetch_map(i: &Instruction, cx: &mut Lowering, target: Target) -> Result<Decoded> {
    let [map] = cx.operands(i)?;
    let (map, target) = AddressOperand::new(cx, map, target)?;
    Decoded::new(Class::Copy, PrefetchMap { target, map })
}

/// `[map, {c0, c1}]` of as many dimensions as the modifier says.
fn tensor(i: &Instruction, cx: &mut Lowering, operand: &Operand, dimensions: &str) -> Result<TensorBox> {
    let rank = match dimensions {
        "1d" => 1,
        "2d" => 2,
        "3d" => 3,
        "4d" => 4,
        "5d" => 5,
        _ => return Err(cx.unsupported(i)),
    };
    let Operand::AddressList(parts) = operand else { return Err(cx.invalid(format!("`{operand}` is not `[map, {{…}}]`"))) };
    let [map, coordinates] = parts.as_slice() else { return Err(cx.unsupported(i)) };
    let map = match map {
        Operand::Name(name) => Operand::Address { base: Some(name.clone()), offset: 0 },
        Operand::Offset { name, offset } => Operand::Address { base: Some(name.clone()), offset: *offset },
        other => other.clone(),
    };
    let coordinates = cx.components(coordinates);
    if coordinates.len() != rank {
        return Err(cx.invalid(format!("{} coordinates for a copy of {rank} dimensions", coordinates.len())));
    }
    let (map, _) = AddressOperand::new(cx, &map, Target::Generic)?;
    let coordinates = coordinates.iter().map(|operand| cx.critical(operand)).collect::<Result<_>>()?;
    Ok(TensorBox { map, coordinates })
}

/// Why the other modes are not there.
fn refuse_modes(i: &Instruction, cx: &Lowering, modifiers: &[&str]) -> Result<()> {
    let reason = modifiers.iter().find_map(|modifier| match *modifier {
        mode if mode.starts_with("im2col") => Some("of the modes of tensor copies only tiles are emulated, not im2col"),
        "tile::gather4" | "tile::scatter4" => Some("gather and scatter belong to newer GPUs than Hopper"),
        group if group.starts_with("cta_group") => Some("pairs of blocks belong to newer GPUs than Hopper"),
        _ => None,
    });
    reason.map_or(Ok(()), |reason| Err(cx.refused(i, reason)))
}

/// The rest of `cp.async.bulk.tensor`.
pub(super) fn decode(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    refuse_modes(i, cx, modifiers)?;
    let (operands, modifiers) = without_hint(i, cx, modifiers)?;
    let modifiers: Vec<&str> = modifiers.into_iter().filter(|&modifier| modifier != "tile").collect();
    let decoded = match (modifiers.as_slice(), operands) {
        (
            [dimensions, "shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes", multicast @ ..],
            [shared, from, mbarrier, blocks @ ..],
        ) => {
            let blocks = match (multicast, blocks) {
                ([], []) => None,
                (["multicast::cluster"], [blocks]) => Some(cx.critical(blocks)?),
                _ => return Err(cx.unsupported(i)),
            };
            let (shared, _) = AddressOperand::new(cx, shared, Target::Shared)?;
            let (mbarrier, _) = AddressOperand::new(cx, mbarrier, Target::Shared)?;
            let tensor = tensor(i, cx, from, dimensions)?;
            TensorCopy { tensor, shared, direction: Direction::Load { mbarrier, blocks } }
        }
        ([dimensions, "global", "shared::cta", "bulk_group"], [to, shared]) => {
            let (shared, _) = AddressOperand::new(cx, shared, Target::Shared)?;
            let tensor = tensor(i, cx, to, dimensions)?;
            TensorCopy { tensor, shared, direction: Direction::Store { reduce: None } }
        }
        _ => return Err(cx.unsupported(i)),
    };
    Decoded::new(Class::Copy, decoded)
}

/// The rest of `cp.reduce.async.bulk.tensor`.
pub(super) fn decode_reduce(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    refuse_modes(i, cx, modifiers)?;
    let (operands, modifiers) = without_hint(i, cx, modifiers)?;
    let modifiers: Vec<&str> = modifiers.into_iter().filter(|&modifier| modifier != "tile").collect();
    let ([dimensions, "global", "shared::cta", operation, "bulk_group"], [to, shared]) = (modifiers.as_slice(), operands) else {
        return Err(cx.unsupported(i));
    };
    let known = ["add", "min", "max", "inc", "dec", "and", "or", "xor"].into_iter().find(|known| known == operation);
    let operation = Operation(known.ok_or_else(|| cx.unsupported(i))?);
    let (shared, _) = AddressOperand::new(cx, shared, Target::Shared)?;
    let tensor = tensor(i, cx, to, dimensions)?;
    Decoded::new(Class::Copy, TensorCopy { tensor, shared, direction: Direction::Store { reduce: Some(operation) } })
}

/// The rest of `cp.async.bulk.prefetch.tensor`.
pub(super) fn decode_prefetch(i: &Instruction, cx: &mut Lowering, modifiers: &[&str]) -> Result<Decoded> {
    refuse_modes(i, cx, modifiers)?;
    let (operands, modifiers) = without_hint(i, cx, modifiers)?;
    let modifiers: Vec<&str> = modifiers.into_iter().filter(|&modifier| modifier != "tile").collect();
    let ([dimensions, "L2", "global"], [from]) = (modifiers.as_slice(), operands) else { return Err(cx.unsupported(i)) };
    let tensor = tensor(i, cx, from, dimensions)?;
    Decoded::new(Class::Copy, Prefetch { tensor })
}
