//! An estimate of the store's clock. Entries get their times from it, so that all nodes use one clock.

use std::time::Duration;

/// How far this node's clock may be from the store's until it is logged.
const DIFFERENCE_MAX_MS: u64 = 2_000;

/// The store's clock, estimated at each heartbeat. Pure: the caller passes the times.
///
/// A heartbeat's answer carries the store's time of some moment between the question and the answer, so at the answer that
/// clock is between this time and this time plus the round trip. An estimate within these bounds is kept, another one moves
/// to the nearer bound. Between heartbeats the estimate advances with the node's monotonic clock. So it is ahead of the
/// store's clock by at most a round trip, and follows a store that was replaced by one with another clock.
#[derive(Debug, Default)]
pub(in crate::node) struct StoreClock {
    /// The store's time minus the node's monotonic time, in milliseconds; `None` before the first answer.
    offset_ms: Option<i64>,
    /// Whether the difference to this node's clock was logged.
    logged: bool,
}

impl StoreClock {
    /// The store's time in milliseconds since 1970; `None` before the first answer.
    pub(in crate::node) fn now_ms(&self, monotonic: Duration) -> Option<u64> {
        let now_ms = self.offset_ms?.saturating_add(ms(monotonic));
        Some(now_ms.max(0).cast_unsigned())
    }

    /// A heartbeat that was sent at `asked` and answered at `answered` carries the store's time.
    pub(in crate::node) fn learn(&mut self, store_ms: u64, asked: Duration, answered: Duration) {
        let earliest = i64::try_from(store_ms).unwrap_or(i64::MAX);
        let latest = earliest.saturating_add(ms(answered.saturating_sub(asked)));
        let estimate = self
            .offset_ms
            .map_or(earliest, |offset| offset.saturating_add(ms(answered)));
        let estimate = estimate.clamp(earliest, latest);
        self.offset_ms = Some(estimate.saturating_sub(ms(answered)));
    }

    /// How many milliseconds this node's own clock is ahead of the store's, if that is much and was not returned before.
    pub(in crate::node) fn new_difference(
        &mut self,
        own_ms: u64,
        monotonic: Duration,
    ) -> Option<i64> {
        let store_ms = self.now_ms(monotonic)?;
        let is_much = own_ms.abs_diff(store_ms) > DIFFERENCE_MAX_MS;
        let is_new = is_much && !self.logged;
        self.logged = is_much;
        is_new.then(|| own_ms.cast_signed().saturating_sub(store_ms.cast_signed()))
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn estimate_stays_within_what_the_newest_answers_allow() {
        let mut clock = StoreClock::default();
        assert_eq!(clock.now_ms(at(5)), None);
        // (store's time, asked, answered, estimate at the answer)
        for (store_ms, asked, answered, expected) in [
            (10_000, 100, 120, 10_000),
            // Within the bounds: kept, however long the answer took.
            (10_200, 300, 2_300, 12_180),
            // Too low: the first answer was late.
            (12_190, 2_300, 2_301, 12_190),
            // Another server with a clock that is an hour behind, and back again.
            (8_690, 2_800, 2_810, 8_700),
            (13_190, 3_300, 3_304, 13_190),
        ] {
            clock.learn(store_ms, at(asked), at(answered));
            assert_eq!(clock.now_ms(at(answered)), Some(expected), "{store_ms}");
        }
        assert_eq!(clock.now_ms(at(3_804)), Some(13_690));
        clock.learn(u64::MAX, at(0), Duration::MAX);
        clock.learn(0, Duration::MAX, at(0));
        assert_eq!(clock.now_ms(Duration::ZERO), Some(0));
    }

    #[test]
    fn estimate_is_never_ahead_by_more_than_a_round_trip() {
        let mut clock = StoreClock::default();
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut asked = 0;
        for _ in 0..10_000 {
            let (there, back) = (random(50), random(50));
            let store_ms = 1_000_000 + asked + there;
            let answered = asked + there + back;
            clock.learn(store_ms, at(asked), at(answered));
            let estimate = clock.now_ms(at(answered)).unwrap();
            let truth = 1_000_000 + answered;
            assert!(
                estimate.abs_diff(truth) <= there + back,
                "{estimate} {truth}"
            );
            asked = answered + random(1_000);
        }
    }

    #[test]
    fn difference_is_returned_once_until_it_is_gone() {
        let mut clock = StoreClock::default();
        clock.learn(1_000_000, at(0), at(0));
        assert_eq!(clock.new_difference(1_001_000, at(0)), None);
        assert_eq!(clock.new_difference(1_090_000, at(0)), Some(90_000));
        assert_eq!(clock.new_difference(1_090_000, at(0)), None);
        assert_eq!(clock.new_difference(1_000_000, at(0)), None);
        assert_eq!(clock.new_difference(910_000, at(0)), Some(-90_000));
    }
}
