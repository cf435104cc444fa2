//! Slows down who guesses: each failure makes the next attempt wait longer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Who has failed how often. Time comes in as an argument: since some moment that does not change.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    guesses: HashMap<Guesser, Guesses>,
}

/// Whose attempts are counted together. The account alone is not enough: strangers could make its user wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Guesser {
    /// Everything from an address.
    Address(IpAddr),
    /// What an address tries on one account or link.
    At(IpAddr, String),
}

#[derive(Debug, Clone, Copy)]
struct Guesses {
    /// Attempts that have not succeeded.
    failures: u32,
    /// When the next may be made.
    next_at: Duration,
}

/// How many are remembered. When there are more, those who may try again at once are forgotten, then all.
const GUESSERS_MAX: usize = 100_000;

/// The longest that anybody waits.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// After so long without an attempt a guesser is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(15);

impl Guesser {
    /// How often it may fail before it waits. Many people share an address.
    fn free(&self) -> u32 {
        match self {
            Self::Address(_) => 50,
            Self::At(..) => 5,
        }
    }
}

impl Backoff {
    /// Counts an attempt as failed until it [`succeeded`](Self::succeeded): attempts at once do not slip by.
    ///
    /// # Errors
    /// When it may not be made yet: how long to wait.
    pub(super) fn attempt(&mut self, guesser: &Guesser, now: Duration) -> Result<(), Duration> {
        self.make_room(now);
        let guesses = self.guesses.entry(guesser.clone()).or_insert(Guesses {
            failures: 0,
            next_at: now,
        });
        if guesses.next_at + FORGOTTEN < now {
            guesses.failures = 0;
        }
        if guesses.next_at > now {
            return Err(guesses.next_at - now);
        }
        guesses.failures += 1;
        guesses.next_at = now + wait(guesses.failures, guesser.free());
        Ok(())
    }

    /// An attempt was none of a stranger.
    pub(super) fn succeeded(&mut self, guesser: &Guesser) {
        match guesser {
            Guesser::At(..) => {
                self.guesses.remove(guesser);
            }
            // Whoever has one account could else guess at all others between two sign-ins.
            Guesser::Address(_) => {
                if let Some(guesses) = self.guesses.get_mut(guesser) {
                    guesses.failures = guesses.failures.saturating_sub(1);
                }
            }
        }
    }

    fn make_room(&mut self, now: Duration) {
        if self.guesses.len() < GUESSERS_MAX {
            return;
        }
        self.guesses.retain(|_, guesses| guesses.next_at > now);
        if self.guesses.len() >= GUESSERS_MAX {
            self.guesses.clear();
        }
    }
}

fn wait(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(beyond) => Duration::from_secs(1 << beyond.min(6)).min(WAIT_MAX),
    }
}

/// The address that is counted: whoever has one of IPv6 has the whole network of 64 bits.
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

    fn at(address: IpAddr) -> Guesser {
        Guesser::At(address, "ann".to_owned())
    }

    #[test]
    fn who_guesses_waits_longer_and_longer_and_others_do_not() {
        let mut backoff = Backoff::default();
        let mut now = Duration::ZERO;
        for _ in 0..5 {
            assert_eq!(backoff.attempt(&at(HERE), now), Ok(()));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(backoff.attempt(&at(HERE), now), Err(wait));
            now += wait;
            assert_eq!(backoff.attempt(&at(HERE), now), Ok(()));
        }
        // The account's user, elsewhere, is not locked out.
        assert_eq!(backoff.attempt(&at(THERE), now), Ok(()));
        backoff.succeeded(&at(HERE));
        assert_eq!(backoff.attempt(&at(HERE), now), Ok(()));
    }

    #[test]
    fn a_success_does_not_wash_an_address_clean() {
        let mut backoff = Backoff::default();
        let guesser = Guesser::Address(HERE);
        for _ in 0..50 {
            assert_eq!(backoff.attempt(&guesser, Duration::ZERO), Ok(()));
        }
        backoff.succeeded(&guesser);
        assert!(backoff.attempt(&guesser, Duration::ZERO).is_err());
        assert_eq!(
            backoff.attempt(&guesser, FORGOTTEN + WAIT_MAX + WAIT_MAX),
            Ok(())
        );
    }

    #[test]
    fn a_network_is_one_guesser() {
        let [one, two, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(network(one), network(two));
        assert_ne!(network(one), network(other));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), HERE);
    }
}
