//! A timer for somebody who waits again and again, each time until another moment.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// Rings at the earliest moment that it was [set](Self::set) to since it rang last, and so perhaps earlier than needed.
///
/// To set a timer of its own for each wait is dear: where it comes before all others, the thread that sleeps until the
/// next of them is woken to be told. Somebody busy waits a thousand times a second, nearly always for something sooner
/// than the time.
#[derive(Debug, Default)]
pub(in crate::node) struct CoarseTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it rings; none: it is not set.
    rings: Option<Instant>,
}

impl CoarseTimer {
    /// Has it ring at `due`, or earlier. To be called on the runtime that it is waited for on.
    pub(in crate::node) fn set(&mut self, due: Instant) {
        if self.rings.is_some_and(|rings| rings <= due) {
            return;
        }
        self.rings = Some(due);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(due.into()),
            None => self.sleep = Some(Box::pin(sleep_until(due.into()))),
        }
    }

    /// Waits until it rings; for ever, where it is not set. Cancel-safe.
    pub(in crate::node) async fn ring(&mut self) {
        match &mut self.sleep {
            Some(sleep) if self.rings.is_some() => sleep.as_mut().await,
            _ => std::future::pending().await,
        }
        self.rings = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::{advance, pause};

    use super::*;

    #[tokio::test]
    async fn it_rings_once_at_the_earliest_moment_it_was_set_to() {
        pause();
        let start = tokio::time::Instant::now().into_std();
        let second = |second| start + Duration::from_secs(second);
        let mut timer = CoarseTimer::default();
        assert!(timer.ring().now_or_never().is_none(), "it is not set");
        timer.set(second(20));
        timer.set(second(10));
        timer.set(second(30));
        advance(Duration::from_secs(9)).await;
        assert!(timer.ring().now_or_never().is_none());
        advance(Duration::from_secs(2)).await;
        assert!(timer.ring().now_or_never().is_some());
        advance(Duration::from_secs(60)).await;
        assert!(timer.ring().now_or_never().is_none(), "it has rung");
        timer.set(second(100));
        assert!(timer.ring().now_or_never().is_none(), "it is not 100 yet");
        advance(Duration::from_secs(40)).await;
        assert!(timer.ring().now_or_never().is_some());
    }
}
