//! Tensor copies through tensor maps, against loops over elements written here.

use std::sync::Arc;

use ptx_emulator::tensor::swizzle::Swizzle;
use ptx_emulator::tensor::tensor_map::{DataType, Dimension, OutOfBounds, TensorMap};
use ptx_emulator::{Device, Finding, Kind, Launch, Order, Program};

/// Elements of the tensor, 32 bits each: 40 columns, 11 rows, 3 planes.
const SIZE: [u64; 3] = [40, 11, 3];

fn orders() -> impl Iterator<Item = Order> {
    std::iter::once(Order::Natural).chain((0..8).map(Order::Seeded))
}

/// A kernel of one warp whose first thread does `first`; `%map` is the address of a tensor map given by value, `%out` a buffer,
/// `s` shared memory. Then all copy the first 4 KiB of shared memory to the buffer if `dump`.
fn kernel(first: &str, dump: bool) -> String {
    let dump = if dump {
        "mov.u32 %r9, 0;
        LOOP:
        mad.lo.s32 %r8, %r9, 32, %tid;
        mov.u32 %r7, s; mad.lo.s32 %r7, %r8, 4, %r7; ld.shared.u32 %r6, [%r7];
        mul.wide.u32 %d1, %r8, 4; add.s64 %d1, %d1, %out; st.global.u32 [%d1], %r6;
        add.s32 %r9, %r9, 1; setp.lt.u32 %p2, %r9, 32; @%p2 bra LOOP;"
    } else {
        ""
    };
    format!(
        ".version 8.3
.target sm_90a
.address_size 64
.visible .entry k(.param .align 64 .b8 map_param[128], .param .u64 out_param)
{{
.reg .pred %p<8>; .reg .b32 %r<32>; .reg .b64 %d<16>; .reg .b32 %tid; .reg .b64 %map; .reg .b64 %out;
.shared .align 1024 .b8 s[8192];
.shared .align 8 .b8 bar[8];
ld.param.u64 %out, [out_param];
mov.u64 %map, map_param; cvta.param.u64 %map, %map;
mov.u32 %tid, %tid.x; setp.ne.u32 %p0, %tid, 0;
mov.u32 %r0, s; mov.u32 %r1, bar;
@%p0 bra JOIN;
mbarrier.init.shared.b64 [%r1], 1;
fence.mbarrier_init.release.cluster;
{first}
JOIN:
bar.sync 0;
{dump}
ret;
}}
"
    )
}

/// The buffer, and what was found.
fn run(ptx: &str, map: &TensorMap, order: Order, device: &mut Device, out: u64) -> Vec<Finding> {
    let program = Program::parse(ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let module = device.load(Arc::new(program)).expect("the module loads");
    let mut arguments = map.encode().to_vec();
    arguments.extend(out.to_le_bytes());
    let mut launch = Launch::new([1; 3], [32, 1, 1], arguments);
    (launch.order, launch.max_instructions) = (order, 1 << 20);
    device.launch(&module, "k", &launch).expect("the launch is valid").findings
}

fn words(device: &Device, address: u64, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    device.read(address, &mut bytes).expect("the buffer is readable");
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default())).collect()
}

/// A device with the tensor, whose elements are their own numbers plus 1, and its map of boxes of these extents.
fn tensor(boxes: &[u32], swizzle: Swizzle) -> (Device, TensorMap, u64) {
    let mut device = Device::new();
    let count = SIZE.iter().product::<u64>();
    let address = device.allocate("tensor", 4 * count).expect("room");
    let bytes: Vec<u8> = (1..=count as u32).flat_map(u32::to_le_bytes).collect();
    device.write(address, &bytes).expect("writable");
    let mut dimensions = Vec::new();
    let mut stride = 4;
    for (&size, &box_size) in SIZE.iter().zip(boxes) {
        dimensions.push(Dimension { size, stride, box_size, step: 1 });
        stride *= size;
    }
    let map = TensorMap::new(DataType::Uint32, address, &dimensions, swizzle, 0, OutOfBounds::Zero).expect("a valid map");
    (device, map, address)
}

/// The element at some coordinates: its number plus 1, zero outside.
fn element(coordinates: [i64; 3]) -> u32 {
    let inside = coordinates.iter().zip(SIZE).all(|(&at, size)| (0..size as i64).contains(&at));
    let number = coordinates[0] + SIZE[0] as i64 * (coordinates[1] + SIZE[1] as i64 * coordinates[2]);
    if inside { number as u32 + 1 } else { 0 }
}

const WAIT: &str = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 0; @!%p1 bra WAIT;";

#[test]
fn boxes_are_loaded_with_every_swizzle_and_beyond_every_edge() {
    for (swizzle, columns, chunks) in [(Swizzle::None, 12, 1), (Swizzle::B32, 8, 2), (Swizzle::B64, 16, 4), (Swizzle::B128, 32, 8)]
    {
        for (x, y, z) in [(0, 0, 0), (8, 2, 1), (30, 5, 2), (-4, -2, -1), (36, 9, 2), (100, 0, 0)] {
            let bytes = columns * 6 * 2 * 4;
            let first = format!(
                "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {bytes};
                mov.u32 %r2, {x}; mov.u32 %r3, {y};
                cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r0], [%map, {{%r2, %r3, {z}}}], [%r1];
                {WAIT}"
            );
            for order in orders() {
                let (mut device, map, _) = tensor(&[columns, 6, 2], swizzle);
                let out = device.allocate("out", 4096).expect("room");
                // What the copy does not write is not defined, but it may be looked at here.
                let ptx = kernel(&first, true);
                let findings = run(&ptx, &map, order, &mut device, out);
                assert!(findings.iter().all(|finding| finding.kind == Kind::Uninitialized), "{findings:?}");
                let got = words(&device, out, bytes as usize / 4);
                for (index, &value) in got.iter().enumerate() {
                    // Where word `index` of the box, row after row, comes from: its 16-byte unit has changed places within the
                    // swizzle's span by the number of its 128-byte line.
                    let (unit, line) = (index / 4, index / 32);
                    let from = (unit ^ (line % chunks)) * 4 + index % 4;
                    let (column, row) = (from as u32 % columns, from as u32 / columns);
                    let at = [x + i64::from(column), y + i64::from(row % 6), z + i64::from(row / 6)];
                    assert_eq!(value, element(at), "{swizzle:?} at {:?}, word {index}", (x, y, z));
                }
            }
        }
    }
}

#[test]
fn boxes_are_stored_and_combined_inside_the_tensor_only() {
    // 8 columns and 4 rows: word i of shared memory is 1000 i.
    let fill: String = (0..32).map(|word| format!("st.shared.u32 [%r0+{}], {};", 4 * word, 1000 * word)).collect();
    for (operation, expected) in [("", (|_, new| new) as fn(u32, u32) -> u32), ("add", |old, new| old + new), ("max", u32::max)] {
        let instruction = if operation.is_empty() {
            "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group".to_string()
        } else {
            format!("cp.reduce.async.bulk.tensor.2d.global.shared::cta.{operation}.bulk_group")
        };
        for (x, y) in [(4, 2), (36, 9), (-3, -1)] {
            let first = format!(
                "{fill} fence.proxy.async.shared::cta;
                {instruction} [%map, {{{x}, {y}}}], [%r0];
                cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"
            );
            for order in orders() {
                let (mut device, map, address) = tensor(&[8, 4], Swizzle::None);
                let out = device.allocate("out", 16).expect("room");
                let findings = run(&kernel(&first, false), &map, order, &mut device, out);
                assert!(findings.is_empty(), "{}", findings[0]);
                let got = words(&device, address, 40 * 11);
                for (index, &value) in got.iter().enumerate() {
                    let (column, row) = (index as i64 % 40 - x, index as i64 / 40 - y);
                    let old = index as u32 + 1;
                    let inside = (0..8).contains(&column) && (0..4).contains(&row);
                    let new = if inside { expected(old, 1000 * (row * 8 + column) as u32) } else { old };
                    assert_eq!(value, new, "{operation} at ({x}, {y}), element {index}");
                }
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_tensor_copy_is_found() {
    let load = |shared: &str, map: &str| {
        format!(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [{shared}], [{map}, {{0, 0}}], [%r1];
            mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 128;"
        )
    };
    let kinds = |first: String| {
        let (mut device, map, _) = tensor(&[8, 4], Swizzle::None);
        let out = device.allocate("out", 16).expect("room");
        run(&kernel(&first, false), &map, Order::Natural, &mut device, out).iter().map(|finding| finding.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(load("%r0", "%map") + WAIT), []);
    assert_eq!(kinds(load("%r0+64", "%map")), [Kind::Misaligned]);
    assert_eq!(kinds(load("%r0+8128", "%map")), [Kind::Misaligned]);
    assert_eq!(kinds(load("%r0+8192", "%map")), [Kind::OutOfBounds]);
    assert_eq!(kinds(load("%r0", "%map+32")), [Kind::Misaligned]);
    assert_eq!(kinds(load("%r0", "%out")), [Kind::OutOfBounds]);
    assert_eq!(kinds(load("%r0", "%map").replace("2d", "1d").replace("{0, 0}", "{0}")), [Kind::InvalidOperation]);
    assert_eq!(kinds(load("%r0", "%map")), [Kind::NotWaitedFor], "the block ends before the load is done");
    // The shared memory that is stored must have been written.
    let store = "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%map, {0, 0}], [%r0]; cp.async.bulk.commit_group; \
                 cp.async.bulk.wait_group 0;";
    assert_eq!(kinds(store.into()), [Kind::Uninitialized]);
    assert_eq!(kinds("prefetch.tensormap [%map]; cp.async.bulk.prefetch.tensor.2d.L2.global [%map, {0, 0}];".into()), []);
}

#[test]
fn other_modes_are_refused_with_a_reason() {
    for modifier in ["im2col", "tile::gather4"] {
        let first = format!(
            "cp.async.bulk.tensor.3d.shared::cluster.global.{modifier}.mbarrier::complete_tx::bytes [%r0], [%map, {{0, 0, 0}}], [%r1];"
        );
        let error = Program::parse(&kernel(&first, false)).err().expect("it is refused").to_string();
        assert!(error.contains("emulated") || error.contains("Hopper"), "{error}");
    }
}
