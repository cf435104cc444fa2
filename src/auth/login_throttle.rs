//! Login throttle: spaces out password attempts. A correct password is delayed, but not rejected because of the failures of
//! other clients.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

/// Counts failed attempts per [`AttemptKey`] and says how long the next attempt waits before its password is checked.
///
/// Time is passed in as the duration since a fixed moment. Every attempt counts as failed until
/// [`succeeded`](Self::succeeded) is called, so attempts made at the same time do not slip by.
#[derive(Debug, Default)]
pub(super) struct LoginThrottle {
    hasher: RandomState,
    /// Two generations: when `current` is full it replaces `previous`. Lookups move an entry to
    /// `current`. So memory is bounded and eviction costs no scan.
    current: HashMap<u64, Attempts>,
    previous: HashMap<u64, Attempts>,
}

/// Attempts with the same key are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum AttemptKey {
    /// All attempts from one network by devices that have not signed in to the account before.
    Network(IpAddr),
    /// As `Network`, on one account or share link.
    Account(IpAddr, String),
    /// Attempts on one account by a device that has signed in to it before, or by one of its sessions.
    Device(String, String),
    /// Attempts on one account by all devices that have signed in to it before. Never delayed; counted for
    /// [`Admitted::rank`].
    KnownUser(String),
}

/// The password of an attempt may be checked after a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    /// How long to wait before the check.
    pub(super) wait: Duration,
    /// The attempts of the busiest key within about a minute. Lower ranks are checked first.
    pub(super) rank: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    /// Attempts that have not succeeded, reduced over time.
    failures: f32,
    /// Attempts of about the last minute, successful ones included.
    recent: f32,
    /// When `failures` and `recent` were computed.
    at: Duration,
    /// When the next attempt may be checked.
    next_at: Duration,
    /// Fingerprints of the passwords that were wrong most recently; 0: none.
    wrong: [u64; WRONG_KEPT],
}

/// The most keys of each of the two generations; an entry has about 60 bytes.
const GENERATION_MAX: usize = 50_000;

/// The wrong passwords per key that are recognised without being hashed again.
const WRONG_KEPT: usize = 4;

/// The longest delay. An attempt that would wait longer is rejected at once.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);

/// How long an attempt counts as recent.
const RECENT: Duration = Duration::from_mins(1);

/// The delays for one kind of key.
struct DelayPolicy {
    /// The failures without a delay.
    free: f32,
    /// The delay after the first failure beyond those. It grows with the square root of the failures.
    first: Duration,
    /// The longest delay.
    most: Duration,
    /// The time after which one failure no longer counts.
    forgiven: Duration,
}

impl AttemptKey {
    fn policy(&self) -> Option<DelayPolicy> {
        match self {
            // Many users may share an address.
            Self::Network(_) => Some(DelayPolicy {
                free: 50.0,
                first: Duration::from_millis(100),
                most: Duration::from_secs(1),
                forgiven: Duration::from_secs(10),
            }),
            Self::Account(..) | Self::Device(..) => Some(DelayPolicy {
                free: 5.0,
                first: Duration::from_millis(500),
                most: Duration::from_secs(8),
                forgiven: Duration::from_mins(1),
            }),
            Self::KnownUser(_) => None,
        }
    }
}

impl LoginThrottle {
    /// Counts an attempt towards all of `keys`.
    ///
    /// # Errors
    /// If the attempt would wait longer than [`WAIT_MAX`]: the time until the next attempt is accepted. It is not counted.
    pub(super) fn attempt(
        &mut self,
        keys: &[AttemptKey],
        now: Duration,
    ) -> Result<Admitted, Duration> {
        let wait = keys
            .iter()
            .map(|key| self.entry(key).next_at.saturating_sub(now))
            .max()
            .unwrap_or_default();
        if wait > WAIT_MAX {
            return Err(wait - WAIT_MAX);
        }
        let mut rank = 0;
        for key in keys {
            let policy = key.policy();
            let attempts = self.entry(key);
            attempts.age(now, policy.as_ref());
            rank = rank.max(attempts.recent as u32);
            attempts.recent += 1.0;
            if let Some(policy) = policy {
                attempts.failures += 1.0;
                attempts.next_at = attempts.next_at.max(now) + policy.delay(attempts.failures);
            }
        }
        Ok(Admitted { wait, rank })
    }

    /// Records that an attempt of these keys succeeded.
    pub(super) fn succeeded(&mut self, keys: &[AttemptKey]) {
        for key in keys {
            let attempts = self.entry(key);
            match key {
                AttemptKey::Account(..) | AttemptKey::Device(..) => {
                    attempts.failures = 0.0;
                    attempts.next_at = Duration::ZERO;
                }
                // A client with an account of its own could otherwise clear the count by signing in between guesses.
                AttemptKey::Network(_) => attempts.failures = (attempts.failures - 1.0).max(0.0),
                AttemptKey::KnownUser(_) => {}
            }
        }
    }

    /// Returns true if this password was wrong for `key` recently. `stored` is the hash to compare with, so that the check
    /// is repeated after the password was changed.
    pub(super) fn is_known_wrong(
        &mut self,
        key: &AttemptKey,
        password: &str,
        stored: &str,
    ) -> bool {
        let fingerprint = self.fingerprint(password, stored);
        self.entry(key).wrong.contains(&fingerprint)
    }

    /// Records that this password is wrong.
    pub(super) fn was_wrong(&mut self, key: &AttemptKey, password: &str, stored: &str) {
        let fingerprint = self.fingerprint(password, stored);
        let wrong = &mut self.entry(key).wrong;
        wrong.rotate_right(1);
        wrong[0] = fingerprint;
    }

    fn fingerprint(&self, password: &str, stored: &str) -> u64 {
        self.hasher.hash_one((password, stored)).max(1)
    }

    fn entry(&mut self, key: &AttemptKey) -> &mut Attempts {
        let key = self.hasher.hash_one(key);
        if !self.current.contains_key(&key) {
            let attempts = self.previous.remove(&key).unwrap_or_default();
            if self.current.len() >= GENERATION_MAX {
                self.previous = std::mem::take(&mut self.current);
            }
            self.current.insert(key, attempts);
        }
        self.current.entry(key).or_default()
    }
}

impl Attempts {
    /// Reduces the counts by the time that has passed.
    fn age(&mut self, now: Duration, policy: Option<&DelayPolicy>) {
        let elapsed = now.saturating_sub(self.at).as_secs_f32();
        self.at = self.at.max(now);
        self.recent *= (-elapsed / RECENT.as_secs_f32()).exp();
        if let Some(policy) = policy {
            self.failures = (self.failures - elapsed / policy.forgiven.as_secs_f32()).max(0.0);
        }
    }
}

impl DelayPolicy {
    /// The delay between an attempt and the next one.
    fn delay(&self, failures: f32) -> Duration {
        if failures <= self.free {
            return Duration::ZERO;
        }
        self.first
            .mul_f32((failures / self.free).sqrt())
            .min(self.most)
    }
}

/// The network that attempts and requests are counted by: an IPv4 address, or the /64 network of an IPv6 address, which
/// belongs to one customer.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => long.to_ipv4_mapped().map_or_else(
            || {
                let [a, b, c, d, ..] = long.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            },
            IpAddr::V4,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn ann(address: IpAddr) -> [AttemptKey; 2] {
        [
            AttemptKey::Network(address),
            AttemptKey::Account(address, "ann".to_owned()),
        ]
    }

    fn ann_at_home() -> [AttemptKey; 2] {
        [
            AttemptKey::Device("laptop".to_owned(), "ann".to_owned()),
            AttemptKey::KnownUser("ann".to_owned()),
        ]
    }

    #[test]
    fn guesses_are_spaced_out_and_a_correct_password_waits_instead_of_being_refused() {
        let mut throttle = LoginThrottle::default();
        let mut now = Duration::ZERO;
        // Attempts one after the other, each as early as it is admitted.
        let mut waits = Vec::new();
        for _ in 0..1_000 {
            let admitted = throttle.attempt(&ann(HERE), now).unwrap();
            now += admitted.wait;
            waits.push(admitted.wait);
        }
        assert!(waits[..5].iter().all(Duration::is_zero));
        assert!(
            waits[6..]
                .iter()
                .all(|wait| *wait >= Duration::from_millis(500))
        );
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(8)));
        // The bound that SECURITY.md states for a day.
        assert!(waits[999] >= Duration::from_secs(5), "{:?}", waits[999]);
        // A user of the account waits at the same address, and not at another one or on a known device.
        assert!(throttle.attempt(&ann(HERE), now).unwrap().wait <= Duration::from_secs(8));
        for keys in [ann(THERE), ann_at_home()] {
            assert!(throttle.attempt(&keys, now).unwrap().wait.is_zero());
        }
        // A success clears the count of the account.
        now += Duration::from_mins(1);
        throttle.succeeded(&ann(HERE));
        assert!(throttle.attempt(&ann(HERE), now).unwrap().wait.is_zero());
    }

    #[test]
    fn attempts_at_the_same_time_are_refused_only_beyond_the_longest_wait() {
        let mut throttle = LoginThrottle::default();
        let admitted = (0..1_000)
            .map_while(|_| throttle.attempt(&ann(HERE), Duration::ZERO).ok())
            .count();
        assert!((15..60).contains(&admitted), "{admitted}");
        let refused = throttle.attempt(&ann(HERE), Duration::ZERO).unwrap_err();
        assert!(refused <= Duration::from_secs(8));
        // A rejected attempt is not counted.
        assert_eq!(throttle.attempt(&ann(HERE), Duration::ZERO), Err(refused));
        assert!(throttle.attempt(&ann(HERE), refused).is_ok());
        // It is not counted for the network either: other accounts are not delayed.
        let bob = [
            AttemptKey::Network(HERE),
            AttemptKey::Account(HERE, "bob".to_owned()),
        ];
        assert!(throttle.attempt(&bob, refused).unwrap().wait.is_zero());
    }

    #[test]
    fn a_success_does_not_clear_a_network() {
        let mut throttle = LoginThrottle::default();
        let own = |n: u32| {
            [
                AttemptKey::Network(HERE),
                AttemptKey::Account(HERE, n.to_string()),
            ]
        };
        for n in 0..60 {
            let _ = throttle.attempt(&own(n), Duration::ZERO).unwrap();
        }
        throttle.succeeded(&own(1_000));
        let delayed = throttle.attempt(&own(2_000), Duration::ZERO).unwrap();
        assert!(!delayed.wait.is_zero());
        let later = Duration::from_hours(1);
        assert!(throttle.attempt(&own(3_000), later).unwrap().wait.is_zero());
    }

    #[test]
    fn a_busy_network_ranks_behind_a_quiet_one() {
        let mut throttle = LoginThrottle::default();
        for _ in 0..5 {
            let _ = throttle.attempt(&ann(HERE), Duration::ZERO).unwrap();
        }
        let rank = |throttle: &mut LoginThrottle, keys: &[AttemptKey], now| {
            throttle.attempt(keys, now).unwrap().rank
        };
        let network = [AttemptKey::Network(HERE)];
        assert_eq!(rank(&mut throttle, &network, Duration::ZERO), 5);
        assert_eq!(rank(&mut throttle, &ann(THERE), Duration::ZERO), 0);
        assert_eq!(rank(&mut throttle, &network, Duration::from_mins(10)), 0);
    }

    #[test]
    fn a_wrong_password_is_recognised_until_the_stored_one_changes() {
        let mut throttle = LoginThrottle::default();
        let [_, key] = ann(HERE);
        assert!(!throttle.is_known_wrong(&key, "guess", "hash"));
        throttle.was_wrong(&key, "guess", "hash");
        assert!(throttle.is_known_wrong(&key, "guess", "hash"));
        assert!(!throttle.is_known_wrong(&key, "guess", "new hash"));
        assert!(!throttle.is_known_wrong(&key, "guess 2", "hash"));
        assert!(!throttle.is_known_wrong(&ann(THERE)[1], "guess", "hash"));
    }

    #[test]
    fn memory_is_bounded_and_a_busy_key_is_kept() {
        let mut throttle = LoginThrottle::default();
        for n in 0..3 * GENERATION_MAX {
            let _ = throttle.attempt(&[AttemptKey::Account(THERE, n.to_string())], Duration::ZERO);
            if n % 1_000 == 0 {
                let _ = throttle.attempt(&ann(HERE), Duration::ZERO);
            }
        }
        let kept = throttle.current.len() + throttle.previous.len();
        assert!(kept <= 2 * GENERATION_MAX, "{kept}");
        assert!(
            !throttle
                .attempt(&ann(HERE), Duration::ZERO)
                .is_ok_and(|it| it.wait.is_zero())
        );
    }

    #[test]
    fn a_network_is_one_key() {
        let [one, two, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(network(one), network(two));
        assert_ne!(network(one), network(other));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), HERE);
    }
}
