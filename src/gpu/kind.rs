//! Which device: `--device auto|cpu|cuda[:N]|emulator`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a user can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceKind {
    /// CUDA if a driver, a device and NVRTC are there, else the CPU.
    #[default]
    Auto,
    /// Fast loops on the processor, no kernels.
    Cpu,
    /// A CUDA device by its number.
    Cuda(u32),
    /// The kernels, executed and checked on the processor.
    Emulator,
}

impl DeviceKind {
    /// Settles `auto`. `probe` tells why CUDA device 0 cannot be used, if it cannot ([`probe_cuda`](super::probe_cuda)); it is asked
    /// only for `auto`. With the choice comes a sentence for the user that says why.
    pub fn choose(self, probe: impl FnOnce() -> Result<()>) -> (Self, Option<String>) {
        match self {
            Self::Auto => match probe() {
                Ok(()) => (Self::Cuda(0), Some("device auto: cuda:0".to_owned())),
                Err(reason) => (Self::Cpu, Some(format!("device auto: cpu, because there is no CUDA: {reason}"))),
            },
            chosen => (chosen, None),
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Emulator => f.write_str("emulator"),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let ordinal = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            "emulator" => Some(Self::Emulator),
            other => other.strip_prefix("cuda:").and_then(ordinal).map(Self::Cuda),
        }
        .ok_or_else(|| {
            Error::config(format!("device `{text}`: expected auto, cpu, cuda, cuda:N with a device's number, or emulator"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_parsed() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7", "emulator"] {
            assert_eq!(text.parse::<DeviceKind>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceKind>().unwrap(), DeviceKind::Cuda(0));
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:4294967296", "cuda:1 ", "cuda 1"] {
            let message = text.parse::<DeviceKind>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")) && message.contains("cuda:N"), "{message}");
        }
    }

    #[test]
    fn auto_takes_cuda_only_if_it_is_there_and_says_why_not() {
        let (kind, note) = DeviceKind::Auto.choose(|| Ok(()));
        assert_eq!((kind, note.as_deref()), (DeviceKind::Cuda(0), Some("device auto: cuda:0")));
        let (kind, note) = DeviceKind::Auto.choose(|| Err(Error::device("no driver")));
        assert_eq!(kind, DeviceKind::Cpu);
        assert!(note.unwrap().contains("no driver"));
        for kind in [DeviceKind::Cpu, DeviceKind::Cuda(1), DeviceKind::Emulator] {
            assert_eq!(kind.choose(|| unreachable!("only auto asks")), (kind, None));
        }
    }
}
