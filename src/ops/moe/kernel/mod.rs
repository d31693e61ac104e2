//! The mixture of experts on a device, all but its products: `kernels/moe_*.cu`.
//!
//! [`Router`] chooses and weighs, [`Dispatch`] sorts the choices by expert, [`Rows`] moves tokens to their experts and back. Nothing
//! of what was chosen comes to the host: shapes are the same whatever the load.

mod dispatch;
mod router;
mod rows;

pub use dispatch::{Dispatch, Dispatched};
pub use router::{Chosen, Partials, Router, RouterGradient, correct};
pub use rows::{Rows, Weighed};

use crate::error::{Error, Result};

/// The most experts that the kernels take.
pub const MAX_EXPERTS: usize = 256;

/// A number as kernels take it.
fn integer(what: &str, x: usize) -> Result<i32> {
    i32::try_from(x).map_err(|_| Error::device(format!("mixture of experts: {x} {what}, at most {} fit", i32::MAX)))
}

/// An error if the kernels do not take so many experts.
fn expect_experts(experts: usize) -> Result<()> {
    if (1..=MAX_EXPERTS).contains(&experts) {
        return Ok(());
    }
    Err(Error::device(format!("mixture of experts: {experts} experts, the kernels take 1 to {MAX_EXPERTS}")))
}
