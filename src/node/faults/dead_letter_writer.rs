//! The task that writes dead letters to the store, and deletes those that are beyond the bounds.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::node::metrics::{DeadLetterResult, NodeMetrics};
use crate::outage::LineLimit;
use crate::store::{DeadLetter, DeadLetterBounds, Store, StoreError, removable};

/// How often the age of dead letters is checked while none is written.
const RETENTION_INTERVAL: Duration = Duration::from_hours(1);

/// The pause after a write, so that many dead letters share one look at the bounds.
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// How often a write is tried before its letters are dropped.
const ATTEMPTS_MAX: u32 = 6;

/// The pause after the first failed write. Each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The time limit of one call of the store.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// What is given to the writer.
#[derive(Debug)]
pub(super) enum QueueItem {
    Letter(DeadLetter),
    /// Answered when the items before it are done.
    Flush(oneshot::Sender<()>),
}

/// Writes dead letters, one batch after the other.
#[derive(Debug)]
pub(super) struct DeadLetterWriter {
    store: Arc<dyn Store>,
    bounds: DeadLetterBounds,
    queue: mpsc::Receiver<QueueItem>,
    metrics: Arc<NodeMetrics>,
}

impl DeadLetterWriter {
    pub(super) fn new(
        store: Arc<dyn Store>,
        bounds: DeadLetterBounds,
        queue: mpsc::Receiver<QueueItem>,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        Self {
            store,
            bounds,
            queue,
            metrics,
        }
    }

    /// Runs until the node is dropped.
    pub(super) async fn run(mut self) {
        self.retain().await;
        loop {
            let Ok(item) = timeout(RETENTION_INTERVAL, self.queue.recv()).await else {
                self.retain().await;
                continue;
            };
            let Some(item) = item else { return };
            self.write_with(item).await;
        }
    }

    /// Writes an item, together with those that wait behind it.
    async fn write_with(&mut self, first: QueueItem) {
        let (mut letters, mut flushes) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                QueueItem::Letter(letter) => letters.push(letter),
                QueueItem::Flush(flush) => flushes.push(flush),
            }
            next = self.queue.try_recv().ok();
        }
        if !letters.is_empty() {
            self.write(letters).await;
            self.retain().await;
        }
        if flushes.is_empty() {
            return sleep(WRITE_PAUSE).await;
        }
        for flush in flushes {
            // The caller may have given up.
            let _ = flush.send(());
        }
    }

    /// Writes letters. They are dropped if the store does not take them within [`ATTEMPTS_MAX`] attempts, which take at least 15 s.
    async fn write(&self, letters: Vec<DeadLetter>) {
        let count = letters.len() as u64;
        let mut pause = RETRY_FIRST;
        for attempt in 1..=ATTEMPTS_MAX {
            let written = within_patience(self.store.add_dead_letters(letters.clone())).await;
            let Err(error) = written else {
                self.count(DeadLetterResult::Written, count);
                return;
            };
            if attempt == ATTEMPTS_MAX {
                static LIMIT: LineLimit = LineLimit::new();
                self.count(DeadLetterResult::Dropped, count);
                if let Some(left_out) = LIMIT.pass() {
                    tracing::warn!(%error, count, left_out, "dead letters dropped: the store did not take them");
                }
                return;
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    fn count(&self, result: DeadLetterResult, letters: u64) {
        self.metrics.dead_letters.of(result).inc_by(letters);
    }

    /// Deletes the letters that are beyond the bounds. Several nodes may do so at once.
    async fn retain(&self) {
        let retained = async {
            let sizes = within_patience(self.store.dead_letter_sizes()).await?;
            let removable = removable(&sizes, &self.bounds, now_ms());
            if !removable.is_empty() {
                within_patience(self.store.remove_dead_letters(removable)).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = retained.await {
            tracing::debug!(%error, "old dead letters were not deleted: retrying later");
        }
    }
}

async fn within_patience<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(STORE_PATIENCE, answer).await;
    answer.unwrap_or_else(|_| Err(StoreError::new("dead letters", "no answer in time")))
}

/// The time by this computer's clock. Ages are days, so the difference to the store's clock has no effect.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
