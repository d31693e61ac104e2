//! Which kernels, and on what: what `lab check` and `lab bench` are told alike.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use ferromind::gpu::{DeviceKind, Replacement};
use ferromind::ops::table::Case;

#[derive(Args)]
pub struct Selection {
    /// emulator, cuda or cuda:N
    #[arg(long, default_value = "emulator")]
    pub device: DeviceKind,
    /// Only this operation; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    pub op: Vec<String>,
    /// Only cases whose line has this text, such as 513x64, backward or bf16
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Your own kernels: a .cu file whose entry points stand in for ours of the same names
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
}

impl Selection {
    /// The user's kernels.
    pub fn replacement(&self) -> anyhow::Result<Option<Replacement>> {
        let Some(path) = &self.kernel else { return Ok(None) };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
        Ok(Some(Replacement::new(&name, text)?))
    }

    /// The cases that are meant.
    pub fn cases<'a>(&self, table: &'a [Case]) -> anyhow::Result<Vec<&'a Case>> {
        let mut ops: Vec<&str> = table.iter().map(|case| case.op).collect();
        ops.dedup();
        if let Some(unknown) = self.op.iter().find(|op| !ops.contains(&op.as_str())) {
            bail!("no operation `{unknown}`: there are {}", ops.join(", "));
        }
        let cases: Vec<&Case> = table.iter().filter(|case| self.means(case)).collect();
        if cases.is_empty() {
            bail!("no case has `{}` in its line", self.only.as_deref().unwrap_or_default());
        }
        Ok(cases)
    }

    /// Whether this case is.
    pub fn means(&self, case: &Case) -> bool {
        let line = || format!("{} {} {} {}", case.op, case.pass, case.shape, case.element);
        (self.op.is_empty() || self.op.iter().any(|op| op == case.op))
            && self.only.as_ref().is_none_or(|text| line().contains(text.as_str()))
    }

    /// The error where no case launches any of the user's kernels.
    pub fn nothing_launched(&self, replacement: &Replacement) -> anyhow::Error {
        let has: Vec<&str> = replacement.kernels().collect();
        let of = if self.op.is_empty() { "any operation".to_owned() } else { self.op.join(", ") };
        anyhow::anyhow!("no case of {of} launches a kernel of this file, which has {}", has.join(", "))
    }
}
