//! What code is compiled for: `sm_90a` (machine code for one kind of processor) or `compute_90a` (PTX alone).

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A target of the compiler, in NVIDIA's notation.
///
/// `sm_*` runs the assembler, which alone checks inline PTX and knows registers; `compute_*` stops at PTX. The suffix `a` opens the
/// instructions that only this one architecture has (`wgmma` of `sm_90a`), `f` those of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    major: u8,
    minor: u8,
    suffix: Suffix,
    ptx_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Suffix {
    None,
    Family,
    Specific,
}

impl Arch {
    /// Machine code for a device of this compute capability, with all the instructions that it has.
    pub const fn of_capability(major: u8, minor: u8) -> Self {
        let suffix = if major >= 9 { Suffix::Specific } else { Suffix::None };
        Self { major, minor, suffix, ptx_only: false }
    }

    /// Major and minor compute capability: (9, 0) of `sm_90a`.
    pub fn capability(self) -> (u8, u8) {
        (self.major, self.minor)
    }

    /// The same target, but PTX alone: `compute_90a` of `sm_90a`.
    pub fn ptx_only(self) -> Self {
        Self { ptx_only: true, ..self }
    }

    /// Whether it is a `compute_*` target, from which no machine code comes.
    pub fn is_ptx_only(self) -> bool {
        self.ptx_only
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.ptx_only { "compute" } else { "sm" };
        let suffix = match self.suffix {
            Suffix::None => "",
            Suffix::Family => "f",
            Suffix::Specific => "a",
        };
        write!(f, "{kind}_{}{}{suffix}", self.major, self.minor)
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::config(format!(
                "architecture `{text}`: expected sm_ or compute_ with a compute capability, such as sm_80, sm_90a or compute_90"
            ))
        })
    }
}

fn parse(text: &str) -> Option<Arch> {
    let (ptx_only, rest) = match text.strip_prefix("compute_") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("sm_")?),
    };
    let (digits, suffix) = match (rest.strip_suffix('a'), rest.strip_suffix('f')) {
        (Some(digits), _) => (digits, Suffix::Specific),
        (_, Some(digits)) => (digits, Suffix::Family),
        _ => (rest, Suffix::None),
    };
    let plausible = (2..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let number: u16 = plausible.then(|| digits.parse().ok())??;
    Some(Arch { major: u8::try_from(number / 10).ok()?, minor: (number % 10) as u8, suffix, ptx_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_parsed() {
        for text in ["sm_80", "sm_86", "sm_90a", "sm_100", "sm_100a", "sm_120f", "compute_80", "compute_90a"] {
            assert_eq!(text.parse::<Arch>().unwrap().to_string(), text);
        }
        assert_eq!("sm_103a".parse::<Arch>().unwrap().capability(), (10, 3));
        assert_eq!(Arch::of_capability(9, 0).to_string(), "sm_90a");
        assert_eq!(Arch::of_capability(8, 6).ptx_only().to_string(), "compute_86");
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in [
            "",
            "90",
            "sm90",
            "sm_",
            "sm_9",
            "sm_09",
            "sm_9000",
            "sm_90b",
            "sm_a",
            "SM_90",
            "compute_",
            "sm_90aa",
            "sm_９０",
            " sm_90",
        ] {
            let message = text.parse::<Arch>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")) && message.contains("sm_90a"), "{message}");
        }
    }
}
