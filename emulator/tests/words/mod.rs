//! Runs PTX on threads that each read and write some 32-bit words of their own.
#![allow(dead_code)] // not every test uses all of it

use std::sync::Arc;

use ptx_emulator::{Device, Error, Finding, Kind, Launch, Order, Program, Report};

/// A kernel to be wrapped around a body, and how to launch it.
///
/// The body finds its thread's inputs at `[%rd3]`, its outputs at `[%rd2]`, 64 words of all threads, zero at first, at `[%rd4]`, the thread's
/// number in `%r1`, in the block in `%r0`; registers from `%r2`, `%rd5` and `%p0` on are free.
pub struct Kernel<'a> {
    /// What stands before the kernel.
    pub module: &'a str,
    pub body: &'a str,
    pub blocks: u32,
    pub threads: u32,
    /// Words that each thread reads.
    pub inputs: &'a [u32],
    /// Words that each thread writes.
    pub outputs: u32,
}

impl<'a> Kernel<'a> {
    pub fn warp(body: &'a str, inputs: &'a [u32], outputs: u32) -> Self {
        Self { module: "", body, blocks: 1, threads: 32, inputs, outputs }
    }

    pub fn ptx(&self) -> String {
        let threads = self.blocks * self.threads;
        let (inputs, outputs) = (self.inputs.len() as u32 / threads * 4, self.outputs * 4);
        format!(
            ".version 9.0\n.target sm_90a\n.address_size 64\n{}\n
            .visible .entry k(.param .u64 out, .param .u64 in, .param .u64 common) {{
                .reg .pred %p<8>; .reg .b32 %r<40>; .reg .b64 %rd<16>;
                ld.param.u64 %rd0, [out]; ld.param.u64 %rd1, [in]; ld.param.u64 %rd4, [common];
                mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r39, %ntid.x; mad.lo.s32 %r1, %r1, %r39, %r0;
                mul.wide.u32 %rd2, %r1, {outputs}; add.s64 %rd2, %rd2, %rd0;
                mul.wide.u32 %rd3, %r1, {inputs}; add.s64 %rd3, %rd3, %rd1;
                {}
                ret;
            }}",
            self.module, self.body
        )
    }

    pub fn launch(&self, change: impl Fn(&mut Launch)) -> Result<(Vec<u32>, Report), Error> {
        let program = Program::parse(&self.ptx())?;
        let mut device = Device::new();
        let module = device.load(Arc::new(program))?;
        let bytes = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
        let size = self.blocks * self.threads * self.outputs * 4;
        let out = device.allocate("out", u64::from(size))?;
        let input = device.allocate("in", self.inputs.len() as u64 * 4)?;
        device.write(input, &bytes(self.inputs))?;
        let common = device.allocate("common", 256)?;
        device.write(common, &[0; 256])?;
        let arguments = [out, input, common].iter().flat_map(|address| address.to_le_bytes()).collect();
        let mut launch = Launch::new([self.blocks, 1, 1], [self.threads, 1, 1], arguments);
        change(&mut launch);
        let report = device.launch(&module, "k", &launch)?;
        let mut read = vec![0; size as usize];
        device.read(out, &mut read)?;
        Ok((read.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect(), report))
    }

    /// What it writes under several orders; there must be no findings.
    pub fn run(&self) -> Vec<u32> {
        let orders = [Order::Natural, Order::Seeded(1), Order::Seeded(2)];
        let mut results = orders.map(|order| {
            let (words, report) = self.launch(|launch| launch.order = order).expect(self.body);
            assert!(report.findings.is_empty(), "{order:?}: {}", report.findings[0]);
            words
        });
        assert!(results[0] == results[1] && results[0] == results[2], "the order decides the result");
        std::mem::take(&mut results[0])
    }

    /// What it writes in the natural order, in which lanes come together again as soon as they can; there must be no findings.
    pub fn natural(&self) -> Vec<u32> {
        let (words, report) = self.launch(|_| ()).expect(self.body);
        assert!(report.findings.is_empty(), "{}", report.findings[0]);
        words
    }

    /// The one finding that it must give.
    pub fn finding(&self) -> Finding {
        let (_, report) = self.launch(|_| ()).expect(self.body);
        assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
        report.findings[0].clone()
    }

    pub fn expect(&self, kind: Kind, text: &str) -> Finding {
        let finding = self.finding();
        assert!(finding.kind == kind && finding.message.contains(text), "{finding}");
        finding
    }

    pub fn refused(&self, text: &str) {
        match self.launch(|_| ()) {
            Err(error) => assert!(error.to_string().contains(text), "{error}"),
            Ok((_, report)) => panic!("accepted: {:?}", report.findings),
        }
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) as u32
    }

    pub fn below(&mut self, limit: u32) -> u32 {
        self.word() % limit
    }
}
