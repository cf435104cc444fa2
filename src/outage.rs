//! Limits log lines of repeated failures: one line when an outage begins, one when it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The time after the last failure from which on a success ends the outage. Earlier successes, such as statements that a
/// stopping server still answers, do not split one outage in two.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Distinguishes the first failure of an outage from later ones, and detects its end.
///
/// The caller reports each outcome: [`begins`](Self::begins) for a failure, [`ends`](Self::ends) for a success.
#[derive(Debug, Default)]
pub struct Outage {
    /// True while `current` is set: without an outage, a success checks nothing else.
    is_on: AtomicBool,
    current: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    failures: u64,
}

/// An outage that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastOutage {
    /// Number of failed calls.
    pub failures: u64,
    /// The time from the first failure to the success that ended it.
    pub lasted: Duration,
}

impl Outage {
    /// Starts without an outage.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            current: Mutex::new(None),
        }
    }

    /// Counts a failure. Returns true if it begins an outage, which the caller logs; false if the outage was logged before.
    pub fn begins(&self) -> bool {
        self.begins_at(Instant::now())
    }

    /// Counts a success. Returns the outage that it ends, if any, which the caller logs.
    pub fn ends(&self) -> Option<PastOutage> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        self.ends_at(Instant::now())
    }

    fn begins_at(&self, now: Instant) -> bool {
        let mut current = self.lock();
        if let Some(failing) = &mut *current {
            failing.last = now;
            failing.failures += 1;
            return false;
        }
        *current = Some(Failing {
            since: now,
            last: now,
            failures: 1,
        });
        self.is_on.store(true, Ordering::Release);
        true
    }

    fn ends_at(&self, now: Instant) -> Option<PastOutage> {
        let mut current = self.lock();
        let settled =
            |failing: &mut Failing| now.saturating_duration_since(failing.last) >= SETTLED_AFTER;
        let over = current.take_if(settled)?;
        self.is_on.store(false, Ordering::Release);
        Some(PastOutage {
            failures: over.failures,
            lasted: now.saturating_duration_since(over.since),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        lock(&self.current)
    }
}

/// The time between two lines of one [`LineLimit`].
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Limits a log line, which many requests would write for the same reason, to one a minute.
#[derive(Debug, Default)]
pub struct LineLimit(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    at: Option<Instant>,
    left_out: u64,
}

impl LineLimit {
    /// Starts without a line written.
    #[must_use]
    pub const fn new() -> Self {
        let written = Written {
            at: None,
            left_out: 0,
        };
        Self(Mutex::new(written))
    }

    /// Returns how many lines were left out since the last one, if this one may be written; otherwise counts it.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut written = lock(&self.0);
        let is_due = |at: Instant| now.saturating_duration_since(at) >= LINE_EVERY;
        if written.at.is_none_or(is_due) {
            written.at = Some(now);
            return Some(std::mem::take(&mut written.left_out));
        }
        written.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_once_and_its_end_once() {
        let outage = Outage::new();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(outage.ends(), None);
        assert!(outage.begins_at(at(0)));
        for ms in 1..40 {
            assert!(!outage.begins_at(at(ms)));
        }
        assert_eq!(outage.ends_at(at(100)), None, "it may be one in between");
        assert!(!outage.begins_at(at(500)));
        assert_eq!(outage.ends_at(at(2_499)), None);
        let over = outage.ends_at(at(2_500));
        let expected = PastOutage {
            failures: 41,
            lasted: Duration::from_millis(2_500),
        };
        assert_eq!(over, Some(expected));
        assert_eq!(outage.ends_at(at(9_000)), None, "it is over once");
        assert!(outage.begins_at(at(9_000)), "the next one is reported");
    }

    #[test]
    fn a_limited_line_passes_once_a_minute_and_counts_the_rest() {
        let limit = LineLimit::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limit.pass_at(at(0)), Some(0));
        for second in 1..60 {
            assert_eq!(limit.pass_at(at(second)), None);
        }
        assert_eq!(limit.pass_at(at(60)), Some(59));
        assert_eq!(limit.pass_at(at(61)), None);
    }
}
