//! Tokens per second over the last moments of a run, and the time that is left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A meter over a sliding window of time. The caller says what time it is, so that tests need no clock.
#[derive(Debug, Clone)]
pub struct Throughput {
    window: Duration,
    /// Time and tokens since the start, ascending; the first lies at the window's begin or just before.
    marks: VecDeque<(Instant, u64)>,
}

impl Throughput {
    /// A meter that starts at `now`, with no tokens, and looks back over `window`.
    pub fn start(now: Instant, window: Duration) -> Self {
        Self { window, marks: VecDeque::from([(now, 0)]) }
    }

    /// Says that `tokens` more were done by `now`.
    pub fn add(&mut self, now: Instant, tokens: u64) {
        let total = self.marks.back().map_or(0, |mark| mark.1) + tokens;
        self.marks.push_back((now, total));
        while self.marks.len() > 2 && now.saturating_duration_since(self.marks[1].0) >= self.window {
            self.marks.pop_front();
        }
    }

    /// Leaves out a pause, such as a validation or a save, that began at the last [`add`](Self::add) and ends at `now`.
    pub fn skip(&mut self, now: Instant) {
        let Some(&(last, _)) = self.marks.back() else { return };
        let pause = now.saturating_duration_since(last);
        self.marks.iter_mut().for_each(|mark| mark.0 += pause);
    }

    /// Tokens per second over the window; `None` before any time has passed.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.marks.front()?, self.marks.back()?);
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        (seconds > 0.0).then(|| (after - before) as f64 / seconds)
    }

    /// How long `remaining` tokens take at the present rate; `None` while there is no rate.
    pub fn time_left(&self, remaining: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(remaining as f64 / self.tokens_per_second()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_rate_is_that_of_the_window() {
        let start = Instant::now();
        let mut meter = Throughput::start(start, seconds(10));
        assert_eq!((meter.tokens_per_second(), meter.time_left(5)), (None, None));
        for second in 1..=20 {
            meter.add(start + seconds(second), 100);
            assert_eq!(meter.tokens_per_second(), Some(100.0));
        }
        // Five seconds at 300 behind five at 100: the older ones count no more.
        (21..=25).for_each(|second| meter.add(start + seconds(second), 300));
        assert_eq!(meter.tokens_per_second(), Some(200.0));
        assert_eq!(meter.time_left(1000), Some(seconds(5)));
        assert!(meter.marks.len() <= 12);
    }

    #[test]
    fn steps_longer_than_the_window_still_have_a_rate() {
        let start = Instant::now();
        let mut meter = Throughput::start(start, seconds(1));
        meter.add(start + seconds(60), 6000);
        meter.add(start + seconds(80), 6000);
        assert_eq!(meter.tokens_per_second(), Some(300.0));
    }

    #[test]
    fn a_pause_is_not_counted() {
        let start = Instant::now();
        let mut meter = Throughput::start(start, seconds(100));
        meter.add(start + seconds(10), 1000);
        meter.skip(start + seconds(40));
        meter.add(start + seconds(50), 1000);
        assert_eq!(meter.tokens_per_second(), Some(100.0));
    }

    #[test]
    fn no_progress_has_no_end() {
        let start = Instant::now();
        let mut meter = Throughput::start(start, seconds(1));
        meter.add(start, 5);
        assert_eq!(meter.tokens_per_second(), None);
        meter.add(start + seconds(10), 0);
        let mut idle = Throughput::start(start, seconds(1));
        idle.add(start + seconds(5), 0);
        assert_eq!((idle.tokens_per_second(), idle.time_left(1)), (Some(0.0), None));
    }
}
