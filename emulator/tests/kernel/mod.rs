//! Runs small kernels written as PTX, in natural order and under eight seeds.

use std::sync::Arc;

use ptx_emulator::{Device, Finding, Kind, Launch, Order, Program};

/// Orders under which each kernel runs.
pub fn orders() -> impl Iterator<Item = Order> {
    std::iter::once(Order::Natural).chain((0..8).map(Order::Seeded))
}

/// A kernel's body and its launch.
pub struct Kernel<'a> {
    /// What it does. `%tid`, `%warp`, `%lane` and `%block` hold the indices, `%four` four times the thread's; shared memory of 8 KiB
    /// is at `s`, `%mine` the address of the thread's word in it; `%out` is a zeroed buffer of 64 KiB, `%there` the address of the
    /// thread's word of it.
    pub body: &'a str,
    pub grid: u32,
    pub block: u32,
    pub cluster: u32,
}

impl<'a> Kernel<'a> {
    /// One block.
    #[allow(dead_code)] // not all tests that share this file
    pub fn block(threads: u32, body: &'a str) -> Self {
        Self { body, grid: 1, block: threads, cluster: 1 }
    }

    /// Several blocks of 64 threads.
    #[allow(dead_code)]
    pub fn grid(blocks: u32, body: &'a str) -> Self {
        Self { body, grid: blocks, block: 64, cluster: 1 }
    }

    fn ptx(&self) -> String {
        let (body, block) = (self.body, self.block);
        format!(
            ".version 8.3
.target sm_90
.address_size 64
.visible .entry k(.param .u64 out_param)
{{
.reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .b64 %d<16>;
.reg .b32 %four; .reg .b32 %mine; .reg .b32 %warp; .reg .b32 %lane; .reg .b32 %tid; .reg .b32 %block; .reg .b32 %index;
.reg .b64 %out; .reg .b64 %there;
.shared .align 16 .b8 s[8192];
ld.param.u64 %out, [out_param];
mov.u32 %tid, %tid.x; mov.u32 %warp, %warpid; mov.u32 %lane, %laneid; mov.u32 %block, %ctaid.x;
mul.lo.s32 %four, %tid, 4; mov.u32 %mine, s; add.s32 %mine, %mine, %four;
mad.lo.s32 %index, %block, {block}, %tid; mul.wide.s32 %there, %index, 4; add.s64 %there, %there, %out;
{body}
ret;
}}
"
        )
    }

    /// What the emulator finds, and the output buffer's words.
    pub fn run(&self, order: Order) -> (Vec<Finding>, Vec<u32>) {
        let program = Program::parse(&self.ptx()).unwrap_or_else(|error| panic!("{error}\n{}", self.ptx()));
        let mut device = Device::new();
        let module = device.load(Arc::new(program)).expect("the module loads");
        let out = device.allocate("out", 1 << 16).expect("room for the output");
        device.write(out, &vec![0; 1 << 16]).expect("the output is writable");
        let mut launch = Launch::new([self.grid, 1, 1], [self.block, 1, 1], out.to_le_bytes().to_vec());
        (launch.order, launch.cluster, launch.max_instructions) = (order, [self.cluster, 1, 1], 1 << 22);
        let report = device.launch(&module, "k", &launch).expect("the launch is valid");
        let mut bytes = vec![0; 1 << 16];
        device.read(out, &mut bytes).expect("the output is readable");
        (report.findings, bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default())).collect())
    }

    /// Nothing is found, in any order.
    pub fn is_clean(&self) {
        for order in orders() {
            let (findings, _) = self.run(order);
            assert!(findings.is_empty(), "{order:?}\n{}", findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n"));
        }
    }

    /// In every order there is a finding of this kind at one of these instructions, and none of another kind; the first one found in
    /// natural order.
    pub fn is_found(&self, kind: Kind, instructions: &[&str]) -> Finding {
        let mut first = None;
        for order in orders() {
            let (findings, _) = self.run(order);
            let told = findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n");
            assert!(findings.iter().all(|finding| finding.kind == kind), "{order:?}: not only {kind}:\n{told}");
            let here = |finding: &&Finding| {
                finding.place.as_ref().is_some_and(|place| instructions.iter().any(|text| place.instruction.starts_with(text)))
            };
            let Some(found) = findings.iter().find(here) else { panic!("{order:?}: no {kind} at {instructions:?}:\n{told}") };
            first.get_or_insert_with(|| found.clone());
        }
        first.expect("there are orders")
    }
}
