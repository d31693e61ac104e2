//! The `mbarrier` object: counts arrivals and bytes, phase by phase.
//!
//! What the hardware keeps in its 8 bytes is its secret. Here the state lies beside the block's memory, and the bytes hold an
//! image of it, so that an ordinary store to them is noticed.

/// Largest count of arrivals, and largest magnitude of the transaction count (ISA, "Contents of the mbarrier object").
pub(crate) const MAX_COUNT: u32 = (1 << 20) - 1;

/// Bytes of the object, and its alignment.
pub(crate) const SIZE: u32 = 8;

/// One `mbarrier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mbarrier {
    /// Phases completed.
    pub phase: u64,
    /// Arrivals that the current phase still waits for.
    pub pending: u32,
    /// Arrivals that each next phase waits for.
    pub expected: u32,
    /// Bytes that the current phase still waits for; negative where copies came before they were announced.
    pub transactions: i32,
}

impl Mbarrier {
    /// Phase 0 of an object that waits for `count` arrivals.
    ///
    /// # Errors
    /// A count that is not 1 to 2²⁰ − 1.
    pub(crate) fn new(count: u32) -> Result<Self, String> {
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(format!("a count of {count} is not within 1 and {MAX_COUNT}"));
        }
        Ok(Self { phase: 0, pending: count, expected: count, transactions: 0 })
    }

    /// The object's 8 bytes.
    pub(crate) fn image(&self) -> u64 {
        let transactions = u64::from(self.transactions as u32 & 0x1f_ffff);
        (self.phase & 7) << 61 | transactions << 40 | u64::from(self.expected) << 20 | u64::from(self.pending)
    }

    /// What `arrive` returns: the phase and its pending count, for `test_wait` and `pending_count`.
    pub(crate) fn token(&self) -> u64 {
        self.phase << 20 | u64::from(self.pending)
    }

    /// The pending count in a token.
    pub(crate) fn pending_of(token: u64) -> u32 {
        token as u32 & MAX_COUNT
    }

    /// Whether the phase that a token was given in has completed.
    ///
    /// # Errors
    /// A token of neither the current phase nor the one before.
    pub(crate) fn has_passed(&self, token: u64) -> Result<bool, String> {
        let current = self.phase << 20 >> 20;
        match current.wrapping_sub(token >> 20) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(format!("the state is of phase {}, but the current one is {current}", token >> 20)),
        }
    }

    /// Whether the phase of a parity, the current one or the one before, has completed.
    pub(crate) fn has_passed_parity(&self, parity: u32) -> bool {
        self.phase & 1 != u64::from(parity & 1)
    }

    /// Announces bytes.
    ///
    /// # Errors
    /// More than the object can count.
    pub(crate) fn expect(&mut self, bytes: u32) -> Result<(), String> {
        self.count_bytes(i64::from(bytes))
    }

    /// Bytes have come; whether that completed the phase.
    ///
    /// # Errors
    /// More than the object can count.
    pub(crate) fn complete(&mut self, bytes: u32) -> Result<bool, String> {
        self.count_bytes(-i64::from(bytes))?;
        Ok(self.turn())
    }

    fn count_bytes(&mut self, bytes: i64) -> Result<(), String> {
        let sum = i64::from(self.transactions) + bytes;
        if sum.unsigned_abs() > u64::from(MAX_COUNT) {
            return Err(format!("its transaction count would become {sum}, beyond ±{MAX_COUNT}"));
        }
        self.transactions = sum as i32;
        Ok(())
    }

    /// `count` arrivals, `dropped` of which no later phase waits for; whether that completed the phase.
    ///
    /// # Errors
    /// More arrivals than the phase waits for.
    pub(crate) fn arrive(&mut self, count: u32, dropped: u32) -> Result<bool, String> {
        if count == 0 || count > MAX_COUNT {
            return Err(format!("a count of {count} is not within 1 and {MAX_COUNT}"));
        }
        if count > self.pending {
            return Err(format!("{count} arrive, but the phase waits for {} of {} only", self.pending, self.expected));
        }
        self.pending -= count;
        self.expected = self.expected.saturating_sub(dropped);
        Ok(self.turn())
    }

    /// One more arrival to wait for in this phase (`cp.async.mbarrier.arrive` without `.noinc`).
    ///
    /// # Errors
    /// More than the object can count.
    pub(crate) fn add_pending(&mut self) -> Result<(), String> {
        if self.pending == MAX_COUNT {
            return Err(format!("its pending count would exceed {MAX_COUNT}"));
        }
        self.pending += 1;
        Ok(())
    }

    /// Goes on to the next phase if nothing is missing in this one.
    fn turn(&mut self) -> bool {
        let complete = self.pending == 0 && self.transactions == 0;
        if complete {
            self.phase += 1;
            self.pending = self.expected;
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_ends_when_arrivals_and_bytes_have_come() {
        let mut barrier = Mbarrier::new(2).unwrap();
        let token = barrier.token();
        assert_eq!(Mbarrier::pending_of(token), 2);
        assert_eq!(barrier.arrive(1, 0), Ok(false));
        barrier.expect(64).unwrap();
        assert_eq!(barrier.arrive(1, 0), Ok(false));
        assert!(!barrier.has_passed_parity(0) && barrier.has_passed_parity(1));
        assert_eq!(barrier.complete(48), Ok(false));
        assert_eq!(barrier.has_passed(token), Ok(false));
        assert_eq!(barrier.complete(16), Ok(true));
        assert_eq!(barrier.has_passed(token), Ok(true));
        assert!(barrier.has_passed_parity(0) && !barrier.has_passed_parity(1));
        assert_eq!((barrier.pending, barrier.transactions, barrier.phase), (2, 0, 1));
        barrier.arrive(2, 0).unwrap();
        assert!(barrier.has_passed(token).is_err());
    }

    #[test]
    fn bytes_may_come_before_they_are_announced() {
        let mut barrier = Mbarrier::new(1).unwrap();
        assert_eq!(barrier.complete(128), Ok(false));
        barrier.expect(128).unwrap();
        assert_eq!(barrier.arrive(1, 0), Ok(true));
    }

    #[test]
    fn who_drops_out_is_not_waited_for_again() {
        let mut barrier = Mbarrier::new(3).unwrap();
        assert_eq!(barrier.arrive(1, 1), Ok(false));
        assert_eq!(barrier.arrive(2, 0), Ok(true));
        assert_eq!(barrier.arrive(2, 0), Ok(true));
    }

    #[test]
    fn counts_beyond_their_range_are_errors() {
        assert!(Mbarrier::new(0).is_err() && Mbarrier::new(MAX_COUNT + 1).is_err());
        let mut barrier = Mbarrier::new(1).unwrap();
        assert!(barrier.arrive(2, 0).is_err());
        assert!(barrier.expect(MAX_COUNT + 1).is_err());
        assert!(barrier.complete(MAX_COUNT + 1).is_err());
        assert_eq!(barrier, Mbarrier::new(1).unwrap());
    }
}
