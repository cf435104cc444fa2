//! Whether the store answers this node, as its heartbeats show.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::store::StoreError;

/// How long a heartbeat may take before the store counts as away.
pub(in crate::node) const AWAY_AFTER: Duration = Duration::from_secs(2);

/// How long a read may take while the store is away: the store may be back before a heartbeat shows it.
const AWAY_PATIENCE: Duration = Duration::from_millis(500);

/// Whether the store answers this node. It is away from a heartbeat that failed or took [`AWAY_AFTER`] to the next one that is
/// answered.
#[derive(Debug)]
pub(in crate::node) struct StoreStatus {
    is_away: watch::Sender<bool>,
}

impl Default for StoreStatus {
    fn default() -> Self {
        Self {
            is_away: watch::Sender::new(false),
        }
    }
}

impl StoreStatus {
    /// Sets whether the store is away.
    pub(in crate::node) fn set_away(&self, is_away: bool) {
        self.is_away
            .send_if_modified(|known| std::mem::replace(known, is_away) != is_away);
    }

    /// Whether the store is away.
    pub(in crate::node) fn watch(&self) -> watch::Receiver<bool> {
        self.is_away.subscribe()
    }

    /// Waits for an answer of the store; while the store is away, at most [`AWAY_PATIENCE`].
    ///
    /// # Errors
    /// As `answer`, or that the store is away.
    pub(in crate::node) async fn unless_away<T>(
        &self,
        verb: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.away() => Err(StoreError::away(verb)),
        }
    }

    /// Resolves when the store has been away for [`AWAY_PATIENCE`] since the call, without a break. Cancel-safe.
    pub(in crate::node) async fn away(&self) {
        let mut is_away = self.is_away.subscribe();
        loop {
            if is_away.wait_for(|is_away| *is_away).await.is_err() {
                return pending().await;
            }
            tokio::select! {
                () = sleep(AWAY_PATIENCE) => return,
                _ = is_away.wait_for(|is_away| !*is_away) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_ends_when_the_store_stays_away() {
        let status = StoreStatus::default();
        let mut away = Box::pin(status.away());
        assert!(away.as_mut().now_or_never().is_none());
        status.set_away(true);
        assert!(away.as_mut().now_or_never().is_none());
        status.set_away(false);
        assert!(away.as_mut().now_or_never().is_none());
        tokio::time::advance(2 * AWAY_PATIENCE).await;
        assert!(away.as_mut().now_or_never().is_none(), "it came back");
        status.set_away(true);
        away.await;
    }
}
