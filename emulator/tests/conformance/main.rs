//! Every lane-wise instruction, form by form: a kernel of that one instruction runs over edge cases and random bits, and each
//! result is compared with what a formula in this test says, which shares no code with the emulator.

mod bits;
mod compare;
mod convert;
mod float;
mod halves;
mod integer;
mod moves;
mod oracle;

use std::fmt::Write;
use std::sync::Arc;

use ptx_emulator::{Device, Launch, Program};

/// What an operand is: its register's width and the values that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ty {
    Pred,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    /// Two integers of 16 bits.
    X16,
    /// Shift counts, positions, lengths.
    Count,
    F16,
    BF16,
    F16x2,
    BF16x2,
    F32,
    F64,
}

use Ty::*;

impl Ty {
    fn bits(self) -> u32 {
        match self {
            Pred => 1,
            U16 | S16 | F16 | BF16 => 16,
            U32 | S32 | X16 | Count | F16x2 | BF16x2 | F32 => 32,
            U64 | S64 | F64 => 64,
        }
    }

    fn register(self) -> &'static str {
        match self.bits() {
            1 => "pred",
            16 => "b16",
            32 => "b32",
            _ => "b64",
        }
    }

    /// The numbers at which something happens, as bits.
    fn edges(self) -> Vec<u64> {
        let integers = |bits: u32| {
            let top = 1u64 << (bits - 1);
            let ones = u64::MAX >> (64 - bits);
            vec![
                0,
                1,
                2,
                3,
                7,
                10,
                0x55,
                0xff,
                0x100,
                top - 1,
                top,
                top + 1,
                ones - 1,
                ones,
                ones / 3,
                0x1234_5678_9abc_def0 & ones,
            ]
        };
        let pairs = |halves: Vec<u64>| -> Vec<u64> {
            let shifted = halves.iter().cycle().skip(halves.len() / 2 - 1);
            halves.iter().zip(shifted).map(|(low, high)| low | high << 16).collect()
        };
        match self {
            Pred => vec![0, 1],
            X16 => pairs(integers(16)),
            Count => vec![0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 0xffff_ffff],
            U16 | S16 | U32 | S32 | U64 | S64 => integers(self.bits()),
            F16 => vec![
                0, 0x8000, 1, 0x8001, 0x03ff, 0x0400, 0x8400, 0x3c00, 0xbc00, 0x3c01, 0x3bff, 0x3800, 0x4248, 0xc248, 0x7bff,
                0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfe01, 0x7c01, 0x2e66, 0x6400, 0xb555,
            ],
            BF16 => vec![
                0, 0x8000, 1, 0x8001, 0x007f, 0x0080, 0x8080, 0x3f80, 0xbf80, 0x3f81, 0x3f7f, 0x3f00, 0x4049, 0xc049, 0x7f7f,
                0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xffc1, 0x7f81, 0x3dcd, 0x4b00, 0xbeab,
            ],
            F16x2 => pairs(F16.edges()),
            BF16x2 => pairs(BF16.edges()),
            F32 => {
                let mut edges: Vec<u64> = [
                    0.0f32,
                    1.0,
                    1.5,
                    0.5,
                    2.5,
                    3.0,
                    0.1,
                    1e-45,
                    1e-40,
                    1.1754942e-38,
                    f32::MIN_POSITIVE,
                    1.0000001,
                    0.99999994,
                    255.5,
                    65504.0,
                    65520.0,
                    2147483600.0,
                    4294967300.0,
                    9.223372e18,
                    1.8446744e19,
                    1e30,
                    f32::MAX,
                    f32::INFINITY,
                ]
                .iter()
                .flat_map(|value| [value.to_bits(), (-value).to_bits()])
                .map(u64::from)
                .collect();
                edges.extend([0x7fc0_0000, 0xffc0_0001, 0x7f80_0001]);
                edges
            }
            F64 => {
                let mut edges: Vec<u64> = [
                    0.0f64,
                    1.0,
                    1.5,
                    0.5,
                    2.5,
                    0.1,
                    5e-324,
                    1e-310,
                    f64::MIN_POSITIVE,
                    1.0 + f64::EPSILON,
                    1e-40,
                    1e-45,
                    3e38,
                    3.5e38,
                    65520.0,
                    4294967295.5,
                    2147483648.0,
                    9.3e18,
                    1.9e19,
                    1e300,
                    f64::MAX,
                    f64::INFINITY,
                ]
                .iter()
                .flat_map(|value| [value.to_bits(), (-value).to_bits()])
                .collect();
                edges.extend([0x7ff8_0000_0000_0000, 0xfff8_0000_0000_0001, 0x7ff0_0000_0000_0001]);
                edges
            }
        }
    }
}

/// Says what is wrong with a result, given the operands' bits.
type Check = Box<dyn Fn(&[u64], u64) -> Result<(), String>>;

/// One instruction (or a few, that belong together) with `$d`, `$a`, `$b`, `$c`, `$e` for its operands.
struct Case {
    text: String,
    inputs: Vec<Ty>,
    output: Ty,
    check: Check,
}

/// A case whose result is known to the bit.
fn exact(text: impl Into<String>, inputs: &[Ty], output: Ty, oracle: impl Fn(&[u64]) -> u64 + 'static) -> Case {
    let check = move |operands: &[u64], got: u64| {
        let expected = oracle(operands);
        if got == expected { Ok(()) } else { Err(format!("{expected:#x}")) }
    };
    checked(text, inputs, output, check)
}

/// A case whose result must pass a check, which otherwise says what would be right.
fn checked(
    text: impl Into<String>,
    inputs: &[Ty],
    output: Ty,
    check: impl Fn(&[u64], u64) -> Result<(), String> + 'static,
) -> Case {
    Case { text: text.into(), inputs: inputs.to_vec(), output, check: Box::new(check) }
}

/// Random words, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Operands to try: every pair of edge cases, then mixtures of edge cases and random bits.
fn operands(types: &[Ty]) -> Vec<Vec<u64>> {
    let edges: Vec<Vec<u64>> = types.iter().map(|ty| ty.edges()).collect();
    let mut all = Vec::new();
    match edges.as_slice() {
        [a] => all.extend(a.iter().map(|&a| vec![a])),
        [a, b] => all.extend(a.iter().flat_map(|&a| b.iter().map(move |&b| vec![a, b]))),
        _ => {}
    }
    let mut random = Random(types.len() as u64);
    for _ in 0..if types.len() > 2 { 4000 } else { 600 } {
        all.push(
            types
                .iter()
                .zip(&edges)
                .map(|(ty, edges)| {
                    let word = random.next();
                    if word >> 60 < 10 {
                        edges[random.next() as usize % edges.len()]
                    } else {
                        word & (u64::MAX >> (64 - ty.bits()))
                    }
                })
                .collect(),
        );
    }
    all
}

const NAMES: [&str; 4] = ["$a", "$b", "$c", "$e"];

/// A kernel that applies the case to the words that its thread finds in memory.
fn kernel(number: usize, case: &Case) -> String {
    let mut text = format!(
        ".visible .entry k{number}(.param .u64 in, .param .u64 out, .param .u32 n) {{\n\
         .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %w<8>; .reg .b64 %l<8>; .reg .b128 %q<2>;\n\
         .reg .b64 %in, %out, %at; .reg .b32 %i, %t, %n; .reg .pred %end;\n\
         mov.u32 %i, %ctaid.x; mov.u32 %t, %ntid.x; mad.lo.s32 %i, %i, %t, 0; mov.u32 %t, %tid.x; add.s32 %i, %i, %t;\n\
         ld.param.u32 %n, [n]; setp.ge.s32 %end, %i, %n; @%end ret;\n\
         ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mul.wide.u32 %at, %i, 32; add.s64 %in, %in, %at;\n\
         mul.wide.u32 %at, %i, 8; add.s64 %out, %out, %at;\n"
    );
    let mut body = case.text.replace("$d", "%d");
    for (position, ty) in case.inputs.iter().enumerate() {
        let offset = 8 * position;
        body = body.replace(NAMES[position], &format!("%s{position}"));
        let _ = match ty {
            Pred => writeln!(
                text,
                ".reg .pred %s{position}; .reg .b32 %x{position}; ld.global.u32 %x{position}, [%in+{offset}]; \
                 setp.ne.u32 %s{position}, %x{position}, 0;"
            ),
            _ => writeln!(text, ".reg .{0} %s{position}; ld.global.{0} %s{position}, [%in+{offset}];", ty.register()),
        };
    }
    let _ = write!(text, ".reg .{} %d;\n{body}\n", case.output.register());
    text += &match case.output {
        Pred => ".reg .b32 %y; selp.b32 %y, 1, 0, %d; st.global.b32 [%out], %y;\n".to_string(),
        ty => format!("st.global.{} [%out], %d;\n", ty.register()),
    };
    text + "ret;\n}\n"
}

const HEADER: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

/// Runs all cases and tells of every one that has a wrong result.
fn run(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if let Err(failure) = try_case(number, case) {
            failures.push(format!("{}\n    {failure}", case.text));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn try_case(number: usize, case: &Case) -> Result<(), String> {
    let program = Program::parse(&format!("{HEADER}{}", kernel(number, case))).map_err(|error| error.to_string())?;
    let inputs = operands(&case.inputs);
    let n = inputs.len();
    let mut device = Device::new();
    let run = |device: &mut Device| -> ptx_emulator::Result<Vec<u8>> {
        let (from, to) = (device.allocate("in", 32 * n as u64)?, device.allocate("out", 8 * n as u64)?);
        let words = inputs.iter().flat_map(|row| (0..4).map(|at| row.get(at).copied().unwrap_or(0)));
        device.write(from, &words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())?;
        let module = device.load(Arc::new(program))?;
        let mut arguments = [from.to_le_bytes(), to.to_le_bytes()].concat();
        arguments.extend((n as u32).to_le_bytes());
        let report =
            device.launch(&module, &format!("k{number}"), &Launch::new([n.div_ceil(128) as u32, 1, 1], [128, 1, 1], arguments))?;
        assert!(report.findings.is_empty(), "{}: {:?}", case.text, report.findings);
        let mut bytes = vec![0; 8 * n];
        device.read(to, &mut bytes)?;
        Ok(bytes)
    };
    let bytes = run(&mut device).map_err(|error| error.to_string())?;
    let mut wrong = Vec::new();
    for (row, bytes) in inputs.iter().zip(bytes.as_chunks::<8>().0) {
        let got = u64::from_le_bytes(*bytes) & (u64::MAX >> (64 - case.output.bits()));
        if let Err(expected) = (case.check)(row, got) {
            wrong.push(format!("{row:#x?}: {got:#x}, not {expected}").replace(['\n', ' '], ""));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {n} wrong, first {}", wrong.len(), wrong[..wrong.len().min(3)].join("; ")))
    }
}

/// What must be refused: forms that the ISA does not have.
fn refused(instructions: &[&str]) {
    for text in instructions {
        let body = format!(
            "{HEADER}.visible .entry k() {{\n.reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b64 %d<8>;\n{text}\nret;\n}}\n"
        );
        assert!(Program::parse(&body).is_err(), "`{text}` was accepted");
    }
}
