//! What many sockets share the right to: each user, each tenant and each address has a pace of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::settings::GatewaySettings;
use crate::auth::Person;

/// The paces of those who share them.
#[derive(Debug)]
pub(super) struct Limits {
    users: Shared<String>,
    tenants: Shared<String>,
    addresses: Shared<IpAddr>,
}

/// What one socket's messages count towards.
#[derive(Debug, Default)]
pub(super) struct Share(Vec<Arc<Bucket>>);

/// As many wait for the same bucket as one who is patient would see pass in this time; the others are refused.
const WAIT_MAX: Duration = Duration::from_secs(2);

impl Limits {
    pub(super) fn new(settings: &GatewaySettings) -> Self {
        Self {
            users: Shared::new(settings.user_messages_per_second),
            tenants: Shared::new(settings.tenant_messages_per_second),
            addresses: Shared::new(settings.address_handshakes_per_second),
        }
    }

    /// What the messages of somebody's socket count towards; nothing where nobody is told apart.
    pub(super) fn share(&self, person: &Person) -> Share {
        if person.is_free() {
            return Share::default();
        }
        let user = self.users.bucket(person.author.as_str().to_owned());
        let tenant = person
            .tenant()
            .map(|tenant| self.tenants.bucket(tenant.to_owned()));
        Share(std::iter::once(user).chain(tenant).collect())
    }

    /// Whether an address may open one more socket now.
    pub(super) fn may_knock(&self, address: IpAddr) -> bool {
        self.addresses
            .bucket(address)
            .take(Instant::now(), Duration::ZERO)
            .is_some()
    }
}

impl Share {
    /// Counts a message: how long it is to wait; none: too many wait already.
    pub(super) fn take(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut longest = Duration::ZERO;
        for bucket in &self.0 {
            longest = longest.max(bucket.take(now, WAIT_MAX)?);
        }
        Some(longest)
    }
}

/// A bucket for each of many, forgotten when it is full and nobody holds it.
#[derive(Debug)]
struct Shared<K> {
    each: Duration,
    buckets: Mutex<HashMap<K, Arc<Bucket>>>,
}

/// How many buckets are kept; when there are more, those that are full and held by nobody are forgotten.
const BUCKETS_MAX: usize = 50_000;

impl<K: Eq + Hash> Shared<K> {
    fn new(per_second: u32) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.max(1),
            buckets: Mutex::default(),
        }
    }

    fn bucket(&self, key: K) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            let now = Instant::now();
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        }
        let bucket = buckets.entry(key);
        bucket
            .or_insert_with(|| Arc::new(Bucket::new(self.each)))
            .clone()
    }
}

/// Lets so much pass in a second, and as much as passes in two seconds at once.
#[derive(Debug)]
struct Bucket {
    each: Duration,
    /// When all that was taken would have passed at the steady rate.
    due: Mutex<Instant>,
}

const BURST: Duration = Duration::from_secs(2);

impl Bucket {
    fn new(each: Duration) -> Self {
        Self {
            each,
            due: Mutex::new(Instant::now()),
        }
    }

    /// Takes one: how long it is to wait; none, and nothing is taken, when that is longer than `patience`.
    fn take(&self, now: Instant, patience: Duration) -> Option<Duration> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*due).max(now) + self.each;
        let wait = next.saturating_duration_since(now + BURST);
        if wait > patience {
            return None;
        }
        *due = next;
        Some(wait)
    }

    fn is_full(&self, now: Instant) -> bool {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_burst_pass_then_slows_then_refuses() {
        let start = Instant::now();
        let bucket = Bucket::new(Duration::from_millis(100));
        *bucket.due.lock().unwrap() = start;
        let at = |now| bucket.take(now, Duration::from_millis(500));
        for _ in 0..20 {
            assert_eq!(at(start), Some(Duration::ZERO));
        }
        for wait in [100, 200, 300, 400, 500] {
            assert_eq!(at(start), Some(Duration::from_millis(wait)));
        }
        assert_eq!(at(start), None);
        assert_eq!(at(start), None);
        // What was refused was not taken.
        let later = start + Duration::from_millis(100);
        assert_eq!(at(later), Some(Duration::from_millis(500)));
        // Twenty keys a second are never slowed by a bucket that is filled a hundred times a second.
        let typist = Bucket::new(Duration::from_millis(10));
        for key in 1..=2_000 {
            let now = start + Duration::from_secs(1) + Duration::from_millis(50) * key;
            assert_eq!(typist.take(now, Duration::ZERO), Some(Duration::ZERO));
        }
    }

    #[test]
    fn each_has_a_bucket_of_its_own_that_is_forgotten() {
        let shared = Shared::new(1);
        let (ann, again, bob) = (
            shared.bucket("ann"),
            shared.bucket("ann"),
            shared.bucket("bob"),
        );
        assert!(Arc::ptr_eq(&ann, &again) && !Arc::ptr_eq(&ann, &bob));
    }
}
