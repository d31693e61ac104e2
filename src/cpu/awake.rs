//! A pool that stays awake: for work cut into many parallel loops of some microseconds each, as the decoding of one token is.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::Yield;

/// Runs `f` on a thread of the current rayon pool, while the others look for its work without ever falling asleep: waking one up takes
/// as long as a whole small loop. Those that find nothing for a while let other threads of the system go first.
///
/// Costs the pool's other threads for the time of `f`, which should be full of parallel loops. Inside another call it adds nothing.
pub fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if BUSY.get() > 0 {
        return f();
    }
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let done = &done;
        scope.spawn_broadcast(move |_, _| {
            // A thread that is in the middle of such work takes up its copy of this task only while it waits for a part of a loop; it
            // would wait for itself here, or for another that waits for it.
            let mut idle = 0;
            while BUSY.get() == 0 && !done.load(Ordering::Acquire) {
                match rayon::yield_now() {
                    Some(Yield::Idle) if idle < PATIENCE => idle += 1,
                    Some(Yield::Idle) => std::thread::yield_now(),
                    _ => idle = 0,
                }
                std::hint::spin_loop();
            }
        });
        let _busy = Busy::begin(done);
        f()
    })
}

/// Looks for work, some 0.1 µs each, before other threads of the system may go first: longer than from one loop to the next.
const PATIENCE: usize = 200;

thread_local! {
    /// How many calls of [`awake`] this thread is in the middle of: more than one where it took up another's work while it waited.
    static BUSY: Cell<usize> = const { Cell::new(0) };
}

/// One of them; its end, by a panic too, lets the other threads go.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    fn begin(done: &'a AtomicBool) -> Self {
        BUSY.set(BUSY.get() + 1);
        Self(done)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        BUSY.set(BUSY.get() - 1);
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn loops_inside_are_done_by_any_number_of_threads() {
        for threads in 1..4 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for outer in [false, true] {
                let run = || awake(|| (0..50u64).map(|i| (0..1000u64).into_par_iter().map(|j| i * j).sum::<u64>()).sum::<u64>());
                let sum = if outer { pool.install(|| rayon::join(run, run).1) } else { pool.install(run) };
                assert_eq!(sum, 1225 * 499_500);
            }
        }
    }

    #[test]
    fn a_panic_inside_ends_the_wait() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let caught = std::panic::catch_unwind(|| pool.install(|| awake(|| panic!("planted"))));
        assert!(caught.is_err());
    }
}
