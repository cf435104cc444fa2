//! A timer for a task that waits many times, each time until another deadline.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// Fires at the earliest deadline that was [set](Self::set) since it last fired, and so perhaps earlier than needed.
///
/// A busy task waits a thousand times a second, nearly always for an event that comes before the deadline. A tokio timer for
/// each wait is expensive: if its deadline is earlier than all others, the thread that sleeps until the next deadline is
/// woken to register it.
#[derive(Debug, Default)]
pub(in crate::node) struct CoarseTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires; `None` if it is not set.
    fires_at: Option<Instant>,
}

impl CoarseTimer {
    /// Makes the timer fire at `deadline` or earlier. To be called within the runtime on which it is awaited.
    pub(in crate::node) fn set(&mut self, deadline: Instant) {
        if self.fires_at.is_some_and(|at| at <= deadline) {
            return;
        }
        self.fires_at = Some(deadline);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline.into()),
            None => self.sleep = Some(Box::pin(sleep_until(deadline.into()))),
        }
    }

    /// Waits until it fires, or for ever if it is not set. Cancel-safe.
    pub(in crate::node) async fn fired(&mut self) {
        match &mut self.sleep {
            Some(sleep) if self.fires_at.is_some() => sleep.as_mut().await,
            _ => std::future::pending().await,
        }
        self.fires_at = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::{advance, pause};

    use super::*;

    #[tokio::test]
    async fn fires_once_at_the_earliest_deadline() {
        pause();
        let start = tokio::time::Instant::now().into_std();
        let second = |second| start + Duration::from_secs(second);
        let mut timer = CoarseTimer::default();
        assert!(timer.fired().now_or_never().is_none(), "it is not set");
        timer.set(second(20));
        timer.set(second(10));
        timer.set(second(30));
        advance(Duration::from_secs(9)).await;
        assert!(timer.fired().now_or_never().is_none());
        advance(Duration::from_secs(2)).await;
        assert!(timer.fired().now_or_never().is_some());
        advance(Duration::from_secs(60)).await;
        assert!(timer.fired().now_or_never().is_none(), "it has fired");
        timer.set(second(100));
        assert!(timer.fired().now_or_never().is_none(), "it is not 100 yet");
        advance(Duration::from_secs(40)).await;
        assert!(timer.fired().now_or_never().is_some());
    }
}
