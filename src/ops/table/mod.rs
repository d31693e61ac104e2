//! The table of kernels: every operation in every shape and type that its kernels are proven in.
//!
//! An operation's `cases.rs` lists its [`Case`]s; `lab check`, `lab bench`, the tests and `kernels/README.md` all read them here.

mod operand;
mod precision;
pub mod tolerance;

pub use operand::{HostOperands, Operand, Operands, Role, Type};
pub use precision::{Arithmetic, Brain, Exact, Half, Precision, Single};

use crate::Result;
use crate::gpu::ElementType;
use crate::rng::Philox;

/// One operation in one shape and type.
pub struct Case {
    /// The operation: `rmsnorm`.
    pub op: &'static str,
    /// What it does: `forward`.
    pub pass: &'static str,
    /// Its extents, for people: `513x96`.
    pub shape: String,
    /// The type of activations and weights.
    pub element: ElementType,
    /// Makes the numbers; only when the case is run, for all cases at once would not fit into memory.
    pub problem: Box<dyn Fn() -> Problem + Send + Sync>,
}

impl Case {
    /// With a function that makes the numbers.
    pub fn new(
        op: &'static str,
        pass: &'static str,
        shape: &str,
        element: ElementType,
        problem: impl Fn() -> Problem + Send + Sync + 'static,
    ) -> Self {
        Self { op, pass, shape: shape.to_owned(), element, problem: Box::new(problem) }
    }
}

/// A case's numbers and how they are computed.
pub struct Problem {
    /// What is read and written. Buffers are allocated in this order.
    pub operands: Vec<Operand>,
    /// Launches the kernels.
    pub run: Run,
    /// Every output by name, computed plainly.
    pub reference: Reference,
    /// Floating-point operations, a multiply-add counted as two.
    pub flops: u64,
    /// What the counters must say.
    pub traffic: Traffic,
}

/// Launches a case's kernels on its operands.
pub type Run = Box<dyn Fn(&Operands<'_>) -> Result<()>>;

/// Computes a case's outputs plainly from its inputs, exactly or in low precision.
pub type Reference = Box<dyn Fn(Arithmetic, &HostOperands) -> Outputs>;

/// Values of outputs by their operands' names, row by row without gaps.
pub type Outputs = Vec<(&'static str, Vec<f64>)>;

/// What is demanded of a case's memory traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Nothing: the shape is there for its oddity. It is also run in several orders of blocks and warps.
    Unmeasured,
    /// Every byte of the operands moves once, and little else.
    Streaming,
    /// Tiles are loaded again and again, by so many requests of 32-byte sectors in all.
    Tiled {
        /// Sectors requested.
        sectors: u64,
    },
}

/// Every case of every operation.
pub fn all() -> Vec<Case> {
    let tables = [
        super::adamw::cases::cases(),
        super::add::cases::cases(),
        super::attention::cases::cases(),
        super::attention::decode::cases::cases(),
        super::convert::cases::cases(),
        super::cross_entropy::cases::cases(),
        super::dropout::cases::cases(),
        super::embedding::cases::cases(),
        super::gated::cases::cases(),
        super::gemv::cases::cases(),
        super::linear::cases::cases(),
        super::moe::cases::cases(),
        super::moe::grouped_linear::cases::cases(),
        super::reduce::cases::cases(),
        super::rmsnorm::cases::cases(),
        super::rope::cases::cases(),
        super::sample::cases::cases(),
    ];
    tables.into_iter().flatten().collect()
}

/// Values before [`normal`] begins anew: a prime, so that no row of a matrix is another's copy.
const PERIOD: usize = 1_048_573;

/// Standard normal values that depend on `seed`; of very many, the same million again and again.
pub fn normal(len: usize, seed: u64) -> Vec<f64> {
    let philox = Philox::new(seed);
    let values: Vec<f64> = (0..len.min(PERIOD) as u64).map(|i| philox.normal(i)).collect();
    values.iter().copied().cycle().take(len).collect()
}

/// Numbers as they are written to outputs.
pub fn widened<F: crate::tensor::Float>(values: Vec<F>) -> Vec<f64> {
    values.into_iter().map(F::f64).collect()
}
