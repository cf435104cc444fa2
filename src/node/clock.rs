//! The clocks of a node: its monotonic clock, and the wall clock by which entries get their times.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cluster::store_clock::StoreClock;
use crate::doc::Now;
use crate::sync::lock;

/// The clocks of a node. Its wall clock is the store's, as estimated at each heartbeat, or this computer's if the store has
/// none.
#[derive(Debug)]
pub(super) struct NodeClock {
    started: Instant,
    store: Mutex<StoreClock>,
    /// Added to this computer's clock by tests, in milliseconds.
    offset_ms: i64,
}

impl NodeClock {
    /// A monotonic clock that starts now.
    pub(super) fn new(offset_ms: i64) -> Self {
        Self {
            started: Instant::now(),
            store: Mutex::default(),
            offset_ms,
        }
    }

    pub(super) fn now(&self) -> Now {
        let clock = self.started.elapsed();
        Now {
            clock,
            wall_ms: self.wall_ms_at(clock),
        }
    }

    /// The wall clock, in milliseconds since 1970.
    pub(super) fn wall_ms(&self) -> u64 {
        self.wall_ms_at(self.started.elapsed())
    }

    /// The moment at which the monotonic clock shows `clock`.
    pub(super) fn instant(&self, clock: Duration) -> Instant {
        self.started + clock
    }

    /// Takes the store's time from the answer to a heartbeat that was sent when the monotonic clock showed `asked`. Logs a
    /// difference to this computer's clock of more than 2 s, once.
    pub(super) fn learn(&self, store_ms: u64, asked: Duration) {
        let (answered, own_ms) = (self.started.elapsed(), self.own_ms());
        let difference = {
            let mut store = lock(&self.store);
            store.learn(store_ms, asked, answered);
            store.new_difference(own_ms, answered)
        };
        if let Some(difference_ms) = difference {
            tracing::warn!(
                difference_ms,
                "the clock of this machine differs from Postgres's: entries get Postgres's time; check NTP"
            );
        }
    }

    fn wall_ms_at(&self, clock: Duration) -> u64 {
        let store_ms = lock(&self.store).now_ms(clock);
        store_ms.unwrap_or_else(|| self.own_ms())
    }

    /// This computer's clock.
    fn own_ms(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| {
            u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
        });
        wall_ms.saturating_add_signed(self.offset_ms)
    }
}
