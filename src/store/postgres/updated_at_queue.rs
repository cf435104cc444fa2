//! When documents were last edited, on its way into the list.

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

/// How long the list may lag behind the log of a document that was not edited in the last [`PERIOD`]: all that was edited
/// meanwhile is written to it at once, by a connection that appends do not use.
const LAG: Duration = Duration::from_secs(2);

/// How long the list may lag behind the log of a document that is edited again and again. Each write of `updated_at_ms`
/// changes an index, so it costs a new row version and more of the write-ahead log than an op does.
const PERIOD: Duration = Duration::from_secs(60);

/// How many documents one statement brings up to date.
const TOUCHES_MAX: usize = 1_000;

/// How many documents may lag. More are left to their next claim, which puts it right.
const STAGED_MAX: usize = 100_000;

/// Brings the list up to the log. What the log says is the truth, whoever wrote it and however late this runs. The rows
/// are locked in the order of their numbers, as appends lock them: nobody waits in a circle.
const TOUCH: &str = "
WITH edited AS (
  SELECT documents.number, last.at_ms
  FROM unnest($1::bigint[]) AS asked (doc)
  JOIN documents ON documents.number = asked.doc
  CROSS JOIN LATERAL (
    SELECT at_ms FROM entries WHERE entries.doc = asked.doc ORDER BY revision DESC LIMIT 1
  ) AS last
  WHERE documents.updated_at_ms <> last.at_ms
  ORDER BY documents.number
  FOR NO KEY UPDATE OF documents
)
UPDATE documents
SET updated_at_ms = edited.at_ms
FROM edited
WHERE documents.number = edited.number";

/// The documents whose `updated_at_ms` lags behind their log. A crash loses them; the next claim puts it right.
#[derive(Debug)]
pub(super) struct UpdatedAtQueue {
    lagging: Mutex<Lagging>,
    /// Wakes the task when there is something to do.
    some: Notify,
}

#[derive(Debug)]
struct Lagging {
    /// When each is to be written.
    due: BTreeMap<i64, Instant>,
    /// When each was written last. One that was dropped from the cache is written earlier than it need be.
    written: BoundedCache<i64, Instant>,
}

impl Default for UpdatedAtQueue {
    fn default() -> Self {
        Self {
            lagging: Mutex::new(Lagging {
                due: BTreeMap::new(),
                written: BoundedCache::new(STAGED_MAX),
            }),
            some: Notify::new(),
        }
    }
}

impl UpdatedAtQueue {
    /// Remembers that documents were edited at `now`.
    pub(super) fn stage(&self, numbers: impl Iterator<Item = i64>, now: Instant) {
        let mut lagging = self.lock();
        let was_empty = lagging.due.is_empty();
        for number in numbers {
            if lagging.due.len() >= STAGED_MAX || lagging.due.contains_key(&number) {
                continue;
            }
            let due = lagging.written.get(&number).map_or(now, |at| *at + PERIOD);
            lagging.due.insert(number, due.max(now));
        }
        if was_empty && !lagging.due.is_empty() {
            self.some.notify_one();
        }
    }

    /// Starts the task that writes them.
    pub(super) fn start(self: &Arc<Self>, pool: Pool) -> JoinHandle<()> {
        let touches = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if touches.is_empty() {
                    touches.some.notified().await;
                }
                sleep(LAG).await;
                if let Err(error) = touches.write(&pool, FlushScope::Due).await {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "cannot bring the list of documents up to date");
                    }
                }
            }
        })
    }

    /// Writes all that is staged, at most until `deadline`.
    pub(super) async fn finish(&self, pool: &Pool, deadline: Instant) -> Result<(), PostgresError> {
        match timeout_at(deadline, self.write(pool, FlushScope::All)).await {
            Ok(done) => done,
            Err(_) => Err(PostgresError::Other("Postgres takes too long".to_owned())),
        }
    }

    async fn write(&self, pool: &Pool, due: FlushScope) -> Result<(), PostgresError> {
        loop {
            let numbers = self.take(due, Instant::now());
            if numbers.is_empty() {
                return Ok(());
            }
            if let Err(fault) = pool.query(TOUCH, &[&numbers]).await {
                self.put_back(&numbers, Instant::now());
                return Err(fault);
            }
        }
    }

    /// Takes at most [`TOUCHES_MAX`] of those that are due, as if they were written at `now`.
    fn take(&self, due: FlushScope, now: Instant) -> Vec<i64> {
        let mut lagging = self.lock();
        let is_due = |(number, at): (&i64, &Instant)| {
            (due == FlushScope::All || *at <= now).then_some(*number)
        };
        let taken = lagging.due.iter().filter_map(is_due);
        let taken: Vec<_> = taken.take(TOUCHES_MAX).collect();
        for number in &taken {
            lagging.due.remove(number);
            lagging.written.put(*number, now);
        }
        taken
    }

    /// They were not written.
    fn put_back(&self, numbers: &[i64], now: Instant) {
        let mut lagging = self.lock();
        for number in numbers {
            lagging.written.remove(number);
            lagging.due.insert(*number, now);
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().due.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Lagging> {
        lock(&self.lagging)
    }
}

/// Which of the documents that lag are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlushScope {
    /// Those whose time has come.
    Due,
    /// All: the store closes.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_that_is_edited_again_and_again_is_written_once_a_minute() {
        let touches = UpdatedAtQueue::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut written = Vec::new();
        for second in 0..=180 {
            touches.stage([1].into_iter(), at(second));
            written.extend(
                touches
                    .take(FlushScope::Due, at(second))
                    .iter()
                    .map(|_| second),
            );
        }
        assert_eq!(written, [0, 60, 120, 180]);
        // The last edit is not forgotten.
        touches.stage([1, 2].into_iter(), at(181));
        assert_eq!(touches.take(FlushScope::Due, at(181)), [2]);
        assert_eq!(touches.take(FlushScope::Due, at(239)), [0; 0]);
        assert_eq!(touches.take(FlushScope::Due, at(240)), [1]);
        // What could not be written is due at once.
        touches.put_back(&[1], at(241));
        assert_eq!(touches.take(FlushScope::Due, at(241)), [1]);
        touches.stage([1].into_iter(), at(242));
        assert_eq!(touches.take(FlushScope::All, at(242)), [1]);
        assert!(touches.is_empty());
    }
}
