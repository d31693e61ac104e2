//! What a kernel did wrong, and how it is told.

pub(crate) mod products;
pub(crate) mod proxy;
pub(crate) mod races;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// The kinds of mistakes that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// An access outside every allocation, or beyond the shared memory of the block.
    OutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// A store to constant or parameter memory.
    ReadOnly,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A value that was never written decided an address, a branch or an output.
    Uninitialized,
    /// Two unordered accesses to shared memory, one of them a write.
    SharedRace,
    /// Two blocks accessed global memory, one of them writing, with nothing that orders them.
    GlobalRace,
    /// Threads of a warp met a barrier apart from each other.
    DivergentBarrier,
    /// Threads of a block met different barriers, or a barrier with a wrong count.
    MismatchedBarrier,
    /// Lanes named in a mask did not come, or came without being named.
    MissingLanes,
    /// The destination of an asynchronous copy, or the accumulator of an asynchronous product, was used before it was waited for.
    NotWaitedFor,
    /// The source of an asynchronous operation was overwritten while it was still being read.
    OperandInFlight,
    /// An `mbarrier` that was not initialised, was overwritten, overflowed, or was waited for in a phase that cannot come.
    Mbarrier,
    /// A bulk or tensor copy, or `wgmma`, may not see what a thread wrote to shared memory: no proxy fence lies between.
    MissingProxyFence,
    /// Nothing can make progress any more.
    Deadlock,
    /// An output buffer holds bytes that nobody wrote.
    NeverWritten,
    /// An instruction was given what the ISA forbids.
    InvalidOperation,
    /// `trap` or a failed `assert`.
    Trap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfBounds => "out of bounds",
            Self::UseAfterFree => "use after free",
            Self::ReadOnly => "write to read-only memory",
            Self::Misaligned => "misaligned access",
            Self::Uninitialized => "uninitialised value",
            Self::SharedRace => "race in shared memory",
            Self::GlobalRace => "race in global memory between blocks",
            Self::DivergentBarrier => "divergent barrier",
            Self::MismatchedBarrier => "mismatched barrier",
            Self::MissingLanes => "lanes missing from a mask",
            Self::NotWaitedFor => "not waited for",
            Self::OperandInFlight => "operand in flight",
            Self::Mbarrier => "mbarrier misuse",
            Self::MissingProxyFence => "missing proxy fence",
            Self::Deadlock => "deadlock",
            Self::NeverWritten => "output never written",
            Self::InvalidOperation => "invalid operation",
            Self::Trap => "trap",
        })
    }
}

/// A place in a kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Line in the PTX.
    pub ptx_line: u32,
    /// The instruction.
    pub instruction: String,
    /// File and line that it was compiled from, where the compiler told.
    pub source: Option<(String, u32)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some((file, line)) => write!(f, "{file}:{line}"),
            None => write!(f, "PTX line {}", self.ptx_line),
        }
    }
}

/// One mistake, with everything that is needed to look for its cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What was wrong.
    pub kind: Kind,
    /// In words, with the other party where there is one.
    pub message: String,
    /// The kernel's name.
    pub kernel: String,
    /// Where.
    pub place: Option<Place>,
    /// `blockIdx` of the first thread that did it.
    pub block: [u32; 3],
    /// `threadIdx` of the first thread that did it.
    pub thread: [u32; 3],
    /// The address concerned.
    pub address: Option<u64>,
    /// The buffer that it lies in, fell out of or lies next to, and the offset in bytes from its start.
    pub buffer: Option<(String, i64)>,
    /// How often this kind was seen at this place.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [tx, ty, tz] = self.thread;
        write!(f, "{}: {}\n  in `{}`", self.kind, self.message, self.kernel)?;
        if let Some(place) = &self.place {
            write!(f, " at {place}: `{}` (PTX line {})", place.instruction, place.ptx_line)?;
        }
        let mut parts = Vec::new();
        // What nobody wrote has no thread.
        if self.kind != Kind::NeverWritten {
            parts.push(format!("block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz})"));
        }
        parts.extend(self.address.map(|address| format!("address {address:#x}")));
        parts.extend(self.buffer.as_ref().map(|(name, offset)| format!("`{name}` {offset:+} bytes")));
        write!(f, "\n  {}", parts.join(", "))?;
        if self.count > 1 {
            write!(f, "\n  {} times in all", self.count)?;
        }
        Ok(())
    }
}

/// Findings of one launch: the first of each kind at each instruction, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    by_place: BTreeMap<(Kind, u32), Finding>,
}

impl Findings {
    /// Counts a mistake at an instruction (`u32::MAX`: at none); `describe` is called for the first one only.
    pub(crate) fn report(&mut self, kind: Kind, pc: u32, describe: impl FnOnce() -> Finding) {
        self.by_place.entry((kind, pc)).and_modify(|finding| finding.count += 1).or_insert_with(describe);
    }

    /// Adds another worker's findings. Of two at one place that of the lower block and thread stays, whoever came first.
    pub(crate) fn merge(&mut self, other: Self) {
        for (key, finding) in other.by_place {
            match self.by_place.entry(key) {
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(finding);
                }
                std::collections::btree_map::Entry::Occupied(mut slot) => {
                    let count = slot.get().count + finding.count;
                    if linear(&finding) < linear(slot.get()) {
                        slot.insert(finding);
                    }
                    slot.get_mut().count = count;
                }
            }
        }
    }

    /// In the order of the program.
    pub(crate) fn into_sorted(self) -> Vec<Finding> {
        let mut findings: Vec<((Kind, u32), Finding)> = self.by_place.into_iter().collect();
        findings.sort_by_key(|((kind, pc), _)| (*pc, *kind));
        findings.into_iter().map(|(_, finding)| finding).collect()
    }
}

fn linear(finding: &Finding) -> ([u32; 3], [u32; 3]) {
    let reversed = |[x, y, z]: [u32; 3]| [z, y, x];
    (reversed(finding.block), reversed(finding.thread))
}
