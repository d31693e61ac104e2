//! Runs a kernel of one block whose parameters are buffers of 32-bit words.

pub mod elements;

use std::sync::Arc;

use ptx_emulator::{Device, Finding, Kind, Launch, Order, Program, Report};

/// What came of a launch.
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub report: Report,
    /// The output buffer.
    pub words: Vec<u32>,
}

impl Outcome {
    /// The output, after making sure that nothing was found.
    #[track_caller]
    pub fn clean(self) -> Vec<u32> {
        assert!(self.findings.is_empty(), "{}", self.findings[0]);
        self.words
    }

    /// The one finding of this kind, after making sure that there is no other kind.
    #[track_caller]
    pub fn only(&self, kind: Kind) -> &Finding {
        let list = || self.findings.iter().map(|finding| finding.to_string()).collect::<Vec<_>>().join("\n");
        assert!(!self.findings.is_empty() && self.findings.iter().all(|finding| finding.kind == kind), "{kind:?}:\n{}", list());
        &self.findings[0]
    }
}

/// A module with kernel `k`, whose parameters `k_param_0` to `k_param_{count - 1}` are addresses. Declared and set are: `%in0` and
/// so on, `%out` (the last parameter), `%lane` (the thread's number), `%four` and `%sixteen` (64-bit, times 4 and 16).
pub fn kernel(count: usize, declarations: &str, body: &str) -> String {
    let parameters: Vec<String> = (0..count).map(|i| format!(".param .u64 k_param_{i}")).collect();
    let mut loads = String::new();
    for i in 0..count {
        let name = if i + 1 == count { "%out".to_string() } else { format!("%in{i}") };
        loads += &format!(".reg .b64 {name};\nld.param.u64 {name}, [k_param_{i}];\n");
    }
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k({})\n{{\n.reg .b32 %lane;\n.reg .b64 %four, %sixteen;\n\
         {declarations}\n{loads}\nmov.u32 %lane, %tid.x;\nmul.wide.u32 %four, %lane, 4;\nmul.wide.u32 %sixteen, %lane, 16;\n\
         {body}\nret;\n}}\n",
        parameters.join(", ")
    )
}

/// Runs `k` with the inputs and an output of `words` words, nothing of which is defined. Undefined words of the inputs are `None`.
#[track_caller]
pub fn run_with(ptx: &str, threads: u32, inputs: &[Vec<Option<u32>>], words: usize, order: Order) -> Outcome {
    let program = Program::parse(ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let mut device = Device::new();
    let module = device.load(Arc::new(program)).unwrap();
    let mut arguments = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let address = device.allocate(&format!("in{i}"), 4 * input.len() as u64).unwrap();
        for (at, word) in input.iter().enumerate() {
            if let Some(word) = word {
                device.write(address + 4 * at as u64, &word.to_le_bytes()).unwrap();
            }
        }
        arguments.extend(address.to_le_bytes());
    }
    let out = device.allocate("out", 4 * words as u64).unwrap();
    arguments.extend(out.to_le_bytes());
    let launch = Launch { order, ..Launch::new([1; 3], [threads, 1, 1], arguments) };
    let report = device.launch(&module, "k", &launch).unwrap();
    let mut bytes = vec![0; 4 * words];
    device.read(out, &mut bytes).unwrap();
    let words = bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
    Outcome { findings: report.findings.clone(), report, words }
}

/// The same with inputs that are all defined, in natural order.
#[track_caller]
pub fn run(ptx: &str, threads: u32, inputs: &[Vec<u32>], words: usize) -> Outcome {
    let inputs: Vec<Vec<Option<u32>>> = inputs.iter().map(|input| input.iter().copied().map(Some).collect()).collect();
    run_with(ptx, threads, &inputs, words, Order::Natural)
}

/// `a, b, c` from a name and a count: `%r0, %r1, …`
pub fn registers(name: &str, count: usize) -> String {
    (0..count).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ")
}
