//! When a document asks again for what was not answered.

use std::time::Duration;

use super::event::Now;

/// The delay before the store is asked again after its first failure; it doubles with each further failure.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest delay before the store is asked again.
pub(super) const RETRY_LAST: Duration = Duration::from_secs(2);

/// The time after which a submit is sent to the owner again for the first time; it doubles with each further time.
pub(super) const RESEND_FIRST: Duration = Duration::from_millis(400);
/// The longest time after which a submit is sent again. During a long outage of its store, the owner has received it often enough.
pub(super) const RESEND_LAST: Duration = Duration::from_secs(5);

/// The time after which a subscription with an owner elsewhere is renewed.
pub(super) const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(10);

/// The shortest time between two claims that an owner makes because of bases beyond its head. It is short because an honest
/// client waits, and not zero because a faulty client costs a claim each time.
pub(super) const RECLAIM_PAUSE: Duration = Duration::from_millis(100);

/// The timers of a document. All times are on the clock of [`Now::clock`].
#[derive(Debug, Default)]
pub(super) struct RetryTimers {
    /// When to ask the store again.
    store: Option<Duration>,
    /// The number of consecutive failures of the store.
    store_failures: u32,
    /// When to send the pending submits to the owner again.
    resend: Option<Duration>,
    /// The number of resends since the newest submit was sent first.
    resends: u32,
    /// When to renew the subscription with an owner elsewhere.
    subscribe: Duration,
    /// The earliest time of the next claim that a base beyond the head may cause.
    reclaim: Duration,
}

impl RetryTimers {
    /// The earliest time at which the store is asked or a submit is sent again.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.store.into_iter().chain(self.resend).min()
    }

    /// The store answered: the next failure is the first of its series.
    pub(super) fn store_answered(&mut self) {
        self.store_failures = 0;
    }

    /// The store did not answer: it is asked again after a delay that grows with each failure.
    pub(super) fn store_failed(&mut self, now: Now) {
        let pause = backoff(RETRY_FIRST, self.store_failures, RETRY_LAST);
        self.store_failures += 1;
        self.retry_store_at(now.clock + pause);
    }

    /// The number of consecutive failures of the store.
    pub(super) fn store_failures(&self) -> u32 {
        self.store_failures
    }

    /// Asks the store again after the shortest delay.
    pub(super) fn retry_soon(&mut self, now: Now) {
        self.retry_store_at(now.clock + RETRY_FIRST);
    }

    fn retry_store_at(&mut self, at: Duration) {
        self.store = Some(self.store.map_or(at, |store| store.min(at)));
    }

    /// Returns true, once, if the store is to be asked again by now.
    pub(super) fn take_store_retry(&mut self, now: Now) -> bool {
        self.store.take_if(|at| *at <= now.clock).is_some()
    }

    /// Returns true, once, if the pending submits are to be sent again by now.
    pub(super) fn take_resend(&mut self, now: Now) -> bool {
        let is_due = self.resend.take_if(|at| *at <= now.clock).is_some();
        self.resends += u32::from(is_due);
        is_due
    }

    /// A submit was sent for the first time, or the owner changed: what is pending is sent again soon.
    pub(super) fn submit_sent(&mut self, now: Now) {
        self.resends = 0;
        self.resend = self.resend.map(|at| at.min(now.clock + RESEND_FIRST));
    }

    /// Starts or stops the resend timer after an event. It runs while a submit `is_pending` and no retry of the store is due,
    /// which sends the submits too.
    pub(super) fn arm_resend(&mut self, is_pending: bool, now: Now) {
        if self.store.is_some() || !is_pending {
            self.resend = None;
        } else {
            let pause = backoff(RESEND_FIRST, self.resends, RESEND_LAST);
            self.resend.get_or_insert(now.clock + pause);
        }
    }

    /// Makes the running timers due now, and starts the series of failures anew.
    pub(super) fn expire(&mut self, now: Now) {
        self.store_failures = 0;
        for timer in [&mut self.store, &mut self.resend] {
            *timer = timer.map(|at| at.min(now.clock));
        }
    }

    /// The delay before the next resend is the shortest again.
    pub(super) fn restart_resends(&mut self) {
        self.resends = 0;
    }

    /// When the subscription with an owner elsewhere is to be renewed.
    pub(super) fn subscription_due(&self) -> Duration {
        self.subscribe
    }

    /// The subscription is renewed with this event.
    pub(super) fn renew_subscription(&mut self, now: Now) {
        self.subscribe = now.clock;
    }

    /// The subscription was sent.
    pub(super) fn subscription_sent(&mut self, now: Now) {
        self.subscribe = now.clock + SUBSCRIBE_AGAIN;
    }

    /// No subscription is needed: the next one is sent at once.
    pub(super) fn subscription_ended(&mut self) {
        self.subscribe = Duration::ZERO;
    }

    /// Returns true if a base beyond the head may cause a claim by now; otherwise the store is asked again when it may.
    pub(super) fn may_reclaim(&mut self, now: Now) -> bool {
        let may = now.clock >= self.reclaim;
        if !may {
            self.retry_store_at(self.reclaim);
        }
        may
    }

    /// A claim succeeded.
    pub(super) fn claimed(&mut self, now: Now) {
        self.reclaim = now.clock + RECLAIM_PAUSE;
    }
}

/// A delay that doubles `times` times from `first`, up to `last`.
fn backoff(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(1 << times.min(10)).min(last)
}
