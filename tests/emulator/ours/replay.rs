//! A recorded case executed again, with one of its files exchanged for a faulty one.

use std::collections::BTreeSet;
use std::sync::Arc;

use ferromind::lab::check::Expected;
use ptx_emulator::{Device, Launch, Program, Result};

use super::record::{Recording, Step};
use crate::run::{Conditions, Execute, Outcome, Run};

/// A case of the operations' table.
pub struct Recorded {
    /// `rmsnorm forward 17x96 bf16`
    pub name: String,
    pub recording: Recording,
    pub expected: Expected,
    /// What was read back from the intact kernels, in the order of reading.
    pub intact: Vec<Vec<u8>>,
}

/// A case with the number of the file that is exchanged.
pub struct Replay {
    pub case: Arc<Recorded>,
    pub file: usize,
}

impl Execute for Replay {
    fn run(&self, program: &Arc<Program>, conditions: Conditions) -> Run {
        let mut run = Run { outcome: Outcome::Right(Vec::new()), reached: BTreeSet::new(), warp_instructions: 0 };
        run.outcome = self.attempt(program, conditions, &mut run).unwrap_or_else(|error| Outcome::Error(error.to_string()));
        run
    }
}

impl Replay {
    fn attempt(&self, program: &Arc<Program>, conditions: Conditions, run: &mut Run) -> Result<Outcome> {
        let Recording { steps, files } = &self.case.recording;
        let mut device = Device::new();
        let mut modules = Vec::new();
        let mut read = Vec::new();
        for step in steps {
            match step {
                Step::Allocate { name, bytes } => device.allocate(name, *bytes).map(drop)?,
                Step::Write { address, bytes } => device.write(*address, bytes)?,
                Step::Fill { address, bytes, byte } => device.write(*address, &vec![*byte; *bytes])?,
                Step::Copy { to, from, bytes } => device.copy(*to, *from, *bytes)?,
                Step::Load { file } => {
                    let program = if *file == self.file { program } else { &files[*file].program };
                    modules.push(device.load(program.clone())?);
                }
                Step::Launch { file, kernel, config, arguments } => {
                    let launch = Launch {
                        cluster: config.cluster,
                        shared_bytes: config.shared_bytes,
                        max_instructions: conditions.max_instructions,
                        workers: Some(conditions.workers),
                        order: conditions.order,
                        ..Launch::new(config.grid, config.block, arguments.clone())
                    };
                    let report = device.launch(&modules[*file], kernel, &launch)?;
                    run.warp_instructions += report.counters.warp_instructions();
                    if *file == self.file {
                        run.reached.extend(report.counters.instructions.iter().map(|line| line.place.ptx_line));
                    }
                    if let Some(finding) = report.findings.first() {
                        return Ok(Outcome::Finding(finding.kind, finding.to_string()));
                    }
                }
                Step::Read { name, address, bytes } => {
                    if let Some(at) = device.first_undefined(*address, *bytes as u64)? {
                        return Ok(Outcome::NeverWritten(format!("{name} from byte {at}")));
                    }
                    let mut found = vec![0; *bytes];
                    device.read(*address, &mut found)?;
                    read.push((name, found));
                }
            }
        }
        Ok(self.judged(read))
    }

    /// What the check of the table says of the outputs, and where it says nothing whether all bits are the intact kernels'.
    ///
    /// Kernels give the same bits on every run: other bits are noticed by whoever compares two runs of a training, though not by
    /// the table, for they are near enough to the reference.
    fn judged(&self, read: Vec<(&String, Vec<u8>)>) -> Outcome {
        let mut other = None;
        for (at, (name, found)) in read.iter().enumerate() {
            let intact = self.case.intact.get(at);
            if intact == Some(found) {
                continue;
            }
            let failures = match self.case.expected.judge(name, found) {
                Some((_, failures)) => failures,
                None if intact.is_some() => vec![format!("`{name}` is an input and was written")],
                None => Vec::new(),
            };
            if !failures.is_empty() {
                return Outcome::Wrong(failures.join("; "));
            }
            if intact.is_some() {
                other.get_or_insert_with(|| Outcome::OtherBits(format!("`{name}`")));
            }
        }
        other.unwrap_or_else(|| Outcome::Right(read.into_iter().map(|(_, found)| found).collect()))
    }
}
