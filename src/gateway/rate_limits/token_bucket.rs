//! Token buckets: one for a single user of it, one that several tasks share, and a map of those by key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// A token bucket, kept as a schedule: tokens are due one `interval` after the other, and may be taken up to `burst` before
/// they are due.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: Duration,
    burst: Duration,
    /// When the last token that was taken is due.
    due: Instant,
}

impl TokenBucket {
    /// A full bucket. `burst` is the time in which it refills.
    pub(super) fn new(per_second: u32, burst: Duration, now: Instant) -> Self {
        Self {
            interval: interval(per_second),
            burst,
            due: now,
        }
    }

    /// A full bucket that holds `burst` tokens.
    pub(super) fn with_burst_tokens(per_second: u32, burst: u32, now: Instant) -> Self {
        Self::new(per_second, interval(per_second) * burst, now)
    }

    /// Takes tokens. Returns how long the caller must wait before it acts.
    pub(super) fn take(&mut self, now: Instant, count: u32) -> Duration {
        self.due = self.due.max(now) + self.interval * count;
        self.due.saturating_duration_since(now + self.burst)
    }

    /// Takes tokens if the wait for them is at most `wait_max`, and returns the wait. Otherwise takes nothing.
    pub(super) fn try_take(
        &mut self,
        now: Instant,
        count: u32,
        wait_max: Duration,
    ) -> Option<Duration> {
        let due = self.due;
        let wait = self.take(now, count);
        if wait > wait_max {
            self.due = due;
            return None;
        }
        Some(wait)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.due <= now
    }
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

/// A token bucket that several sockets or requests take from.
#[derive(Debug)]
pub(super) struct SharedBucket(Mutex<TokenBucket>);

impl SharedBucket {
    /// Takes `count` tokens if the wait for them is at most `wait_max`, and returns the wait. Otherwise takes nothing.
    pub(super) fn try_take(
        &self,
        now: Instant,
        count: u32,
        wait_max: Duration,
    ) -> Option<Duration> {
        lock(&self.0).try_take(now, count, wait_max)
    }

    fn is_full(&self, now: Instant) -> bool {
        lock(&self.0).is_full(now)
    }
}

/// A shared bucket for each key. A bucket that is full and not in use is removed when there are too many.
#[derive(Debug)]
pub(super) struct KeyedBuckets<K> {
    per_second: u32,
    buckets: Mutex<HashMap<K, Arc<SharedBucket>>>,
}

/// The number of buckets from which on those that are full and not in use are removed.
const BUCKETS_MAX: usize = 50_000;

/// The time in which a shared bucket refills.
const BURST: Duration = Duration::from_secs(2);

impl<K: Eq + Hash> KeyedBuckets<K> {
    /// Buckets of `per_second` tokens a second, which hold the tokens of two seconds.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            buckets: Mutex::default(),
        }
    }

    /// The bucket of `key`.
    pub(super) fn bucket(&self, key: K) -> Arc<SharedBucket> {
        let now = Instant::now();
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        }
        let full = || TokenBucket::new(self.per_second, BURST, now);
        let bucket = buckets.entry(key);
        bucket
            .or_insert_with(|| Arc::new(SharedBucket(Mutex::new(full()))))
            .clone()
    }

    /// Takes a token of `key` if there is one now.
    pub(super) fn allow(&self, key: K) -> bool {
        let bucket = self.bucket(key);
        bucket.try_take(Instant::now(), 1, Duration::ZERO).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_allows_a_burst_then_delays_then_rejects() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, BURST, start);
        let mut at = |now| bucket.try_take(now, 1, Duration::from_millis(500));
        for _ in 0..20 {
            assert_eq!(at(start), Some(Duration::ZERO));
        }
        for wait in [100, 200, 300, 400, 500] {
            assert_eq!(at(start), Some(Duration::from_millis(wait)));
        }
        assert_eq!(at(start), None);
        assert_eq!(at(start), None);
        // A rejected attempt took nothing.
        let later = start + Duration::from_millis(100);
        assert_eq!(at(later), Some(Duration::from_millis(500)));
    }

    #[test]
    fn twenty_keys_a_second_are_never_delayed() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, BURST, start);
        for key in 1..=2_000 {
            let now = start + Duration::from_secs(1) + Duration::from_millis(50) * key;
            let wait = bucket.try_take(now, 1, Duration::ZERO);
            assert_eq!(wait, Some(Duration::ZERO));
        }
    }

    #[test]
    fn burst_is_counted_in_tokens() {
        let start = Instant::now();
        let mut bucket = TokenBucket::with_burst_tokens(10, 3, start);
        let waits = [1, 2, 1, 0].map(|count| bucket.take(start, count).as_millis());
        assert_eq!(waits, [0, 0, 100, 100]);
    }

    #[test]
    fn each_key_has_its_own_bucket() {
        let buckets = KeyedBuckets::new(1);
        let [ann, again, bob] = ["ann", "ann", "bob"].map(|key| buckets.bucket(key));
        assert!(Arc::ptr_eq(&ann, &again) && !Arc::ptr_eq(&ann, &bob));
    }
}
