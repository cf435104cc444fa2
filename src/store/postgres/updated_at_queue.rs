//! Deferred updates of `documents.updated_at_ms`, the order of the list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::PostgresError;
use super::pool::Pool;
use crate::outage::LineLimit;
use crate::store::bounded_cache::BoundedCache;
use crate::sync::lock;

/// How long the list may lag behind the log of a document that was not edited in the last [`PERIOD`]. The edits of this
/// time are written together, by a connection that appends do not use.
const LAG: Duration = Duration::from_secs(2);

/// How long the list may lag behind the log of a document that is edited continuously. An update of `updated_at_ms`
/// changes an index, so it costs a new row version and more write-ahead log than an op.
const PERIOD: Duration = Duration::from_secs(60);

/// How many documents one statement updates.
const ROWS_MAX: usize = 1_000;

/// How many documents may be in the queue. Further ones are updated by their next claim.
const STAGED_MAX: usize = 100_000;

/// Copies the time of the last entry of each document into its row, unless that has a later one (see `LogEnd`), so it is right regardless of the node that appended
/// the entry. The rows are locked in the order of their numbers, as in appends, so there is no deadlock.
const UPDATE: &str = "
WITH edited AS (
  SELECT documents.number, last.at_ms
  FROM unnest($1::bigint[]) AS asked (doc)
  JOIN documents ON documents.number = asked.doc
  CROSS JOIN LATERAL (
    SELECT at_ms FROM entries WHERE entries.doc = asked.doc ORDER BY revision DESC LIMIT 1
  ) AS last
  WHERE documents.updated_at_ms < last.at_ms
  ORDER BY documents.number
  FOR NO KEY UPDATE OF documents
)
UPDATE documents
SET updated_at_ms = edited.at_ms
FROM edited
WHERE documents.number = edited.number";

/// The documents with an `updated_at_ms` that lags behind their log. A crash loses the queue; the next claim of a document
/// corrects its row.
#[derive(Debug)]
pub(super) struct UpdatedAtQueue {
    queue: Mutex<DueDocuments>,
    /// Wakes the task when the queue is no longer empty.
    not_empty: Notify,
}

#[derive(Debug)]
struct DueDocuments {
    /// When each document is due.
    due: BTreeMap<i64, Instant>,
    /// When each document was written last. A document that was dropped from the cache is written earlier than
    /// necessary.
    written: BoundedCache<i64, Instant>,
}

impl Default for UpdatedAtQueue {
    fn default() -> Self {
        Self {
            queue: Mutex::new(DueDocuments {
                due: BTreeMap::new(),
                written: BoundedCache::new(STAGED_MAX),
            }),
            not_empty: Notify::new(),
        }
    }
}

impl UpdatedAtQueue {
    /// Queues documents that were edited at `now`.
    pub(super) fn stage(&self, numbers: impl Iterator<Item = i64>, now: Instant) {
        let mut queue = self.lock();
        let was_empty = queue.due.is_empty();
        for number in numbers {
            if queue.due.len() >= STAGED_MAX || queue.due.contains_key(&number) {
                continue;
            }
            let due = queue.written.get(&number).map_or(now, |at| *at + PERIOD);
            queue.due.insert(number, due.max(now));
        }
        if was_empty && !queue.due.is_empty() {
            self.not_empty.notify_one();
        }
    }

    /// Starts the task that writes the queue.
    pub(super) fn start(self: &Arc<Self>, pool: Pool) -> JoinHandle<()> {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if this.is_empty() {
                    this.not_empty.notified().await;
                }
                sleep(LAG).await;
                if let Err(error) = this.write(&pool, FlushScope::Due).await {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "the times in the list of documents cannot be updated: retrying");
                    }
                }
            }
        })
    }

    /// Writes the whole queue, at most until `deadline`.
    pub(super) async fn finish(&self, pool: &Pool, deadline: Instant) -> Result<(), PostgresError> {
        match timeout_at(deadline, self.write(pool, FlushScope::All)).await {
            Ok(done) => done,
            Err(_) => Err(PostgresError::Other("the time to close is over".to_owned())),
        }
    }

    async fn write(&self, pool: &Pool, scope: FlushScope) -> Result<(), PostgresError> {
        loop {
            let numbers = self.take(scope, Instant::now());
            if numbers.is_empty() {
                return Ok(());
            }
            if let Err(error) = pool.query(UPDATE, &[&numbers]).await {
                self.put_back(&numbers, Instant::now());
                return Err(error);
            }
        }
    }

    /// Takes at most [`ROWS_MAX`] documents of the scope and records them as written at `now`.
    fn take(&self, scope: FlushScope, now: Instant) -> Vec<i64> {
        let mut queue = self.lock();
        let is_due = |(number, at): (&i64, &Instant)| {
            (scope == FlushScope::All || *at <= now).then_some(*number)
        };
        let taken = queue.due.iter().filter_map(is_due);
        let taken: Vec<_> = taken.take(ROWS_MAX).collect();
        for number in &taken {
            queue.due.remove(number);
            queue.written.put(*number, now);
        }
        taken
    }

    /// Returns documents to the queue that could not be written.
    fn put_back(&self, numbers: &[i64], now: Instant) {
        let mut queue = self.lock();
        for number in numbers {
            queue.written.remove(number);
            queue.due.insert(*number, now);
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().due.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, DueDocuments> {
        lock(&self.queue)
    }
}

/// Which documents of the queue are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlushScope {
    /// Those that are due.
    Due,
    /// All, because the store is closing.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuously_edited_document_is_written_once_a_minute() {
        let queue = UpdatedAtQueue::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut written = Vec::new();
        for second in 0..=180 {
            queue.stage([1].into_iter(), at(second));
            written.extend(
                queue
                    .take(FlushScope::Due, at(second))
                    .iter()
                    .map(|_| second),
            );
        }
        assert_eq!(written, [0, 60, 120, 180]);
        // The last edit is written as well.
        queue.stage([1, 2].into_iter(), at(181));
        assert_eq!(queue.take(FlushScope::Due, at(181)), [2]);
        assert_eq!(queue.take(FlushScope::Due, at(239)), [0; 0]);
        assert_eq!(queue.take(FlushScope::Due, at(240)), [1]);
        // A failed write is retried at once.
        queue.put_back(&[1], at(241));
        assert_eq!(queue.take(FlushScope::Due, at(241)), [1]);
        queue.stage([1].into_iter(), at(242));
        assert_eq!(queue.take(FlushScope::All, at(242)), [1]);
        assert!(queue.is_empty());
    }
}
