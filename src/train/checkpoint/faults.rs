//! Planted faults: the crash tests stop the process, or fill the disk, at any operation of [`durable`](super::durable).
//!
//! Compiled in with the feature `failpoints` only; without it every call here is empty. Two ways in:
//! - `FERROMIND_STOP_AT=k` aborts the process at its k-th operation, `FERROMIND_FAIL_AT=k` lets that one operation fail as on a
//!   full disk. A write is done by half first. A stop also halves each file that was written but not yet synced, as a power cut may.
//! - `FAILPOINTS="durable::rename=return"` (crate `fail`, after its `FailScenario::setup`) makes the operations of one name fail.

pub(super) use planted::*;

#[cfg(feature = "failpoints")]
mod planted {
    use std::fs::File;
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::{LazyLock, Mutex, PoisonError};

    static STOP_AT: LazyLock<Option<u64>> = LazyLock::new(|| setting("FERROMIND_STOP_AT"));
    static FAIL_AT: LazyLock<Option<u64>> = LazyLock::new(|| setting("FERROMIND_FAIL_AT"));
    static OPERATIONS: AtomicU64 = AtomicU64::new(0);
    static UNSYNCED: Mutex<Vec<(u64, File)>> = Mutex::new(Vec::new());

    fn setting(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    /// Counts one operation and lets the fault that is planted there happen; `tear` does the half of it that still succeeds.
    pub fn point(name: &str, tear: impl FnOnce()) -> io::Result<()> {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        fail::fail_point!(name, |_| Err(full()));
        let operation = Some(1 + OPERATIONS.fetch_add(1, Relaxed));
        if operation == *STOP_AT {
            tear();
            for (_, file) in UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = file.metadata().and_then(|data| file.set_len(data.len() / 2));
            }
            std::process::abort();
        }
        if operation == *FAIL_AT {
            tear();
            return Err(full());
        }
        Ok(())
    }

    /// Stands for a file whose content is not yet on the disk.
    pub struct Unsynced(u64);

    impl Unsynced {
        pub fn new(file: &File) -> io::Result<Self> {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let id = NEXT.fetch_add(1, Relaxed);
            UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner).push((id, file.try_clone()?));
            Ok(Self(id))
        }

        pub fn synced(self) {
            UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.0);
        }
    }
}

#[cfg(not(feature = "failpoints"))]
mod planted {
    use std::fs::File;
    use std::io;

    #[inline(always)]
    pub fn point(_: &str, _: impl FnOnce()) -> io::Result<()> {
        Ok(())
    }

    pub struct Unsynced;

    impl Unsynced {
        pub fn new(_: &File) -> io::Result<Self> {
            Ok(Self)
        }

        pub fn synced(self) {}
    }
}
