//! When documents were last edited, on its way into the list.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::fault::Fault;
use super::pool::Pool;
use crate::outage::LineLimit;

/// How long the list may lag behind the log: all that was edited meanwhile is written to it at once, off the way of the
/// appends.
const LAG: Duration = Duration::from_secs(2);

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
#[derive(Debug, Default)]
pub(super) struct Touches {
    edited: Mutex<BTreeSet<i64>>,
    /// Wakes the task when there is something to do.
    some: Notify,
}

impl Touches {
    /// Remembers that documents were edited.
    pub(super) fn stage(&self, numbers: impl Iterator<Item = i64>) {
        let mut edited = self.edited.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = edited.is_empty();
        for number in numbers {
            if edited.len() < STAGED_MAX {
                edited.insert(number);
            }
        }
        if was_empty && !edited.is_empty() {
            self.some.notify_one();
        }
    }

    /// Starts the task that writes them.
    pub(super) fn start(self: &Arc<Self>, pool: Pool) -> JoinHandle<()> {
        let touches = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                touches.some.notified().await;
                sleep(LAG).await;
                if let Err(error) = touches.write(&pool).await {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "cannot bring the list of documents up to date");
                    }
                }
            }
        })
    }

    /// Writes all that is staged, at most until `deadline`.
    pub(super) async fn finish(&self, pool: &Pool, deadline: Instant) -> Result<(), Fault> {
        match timeout_at(deadline, self.write(pool)).await {
            Ok(done) => done,
            Err(_) => Err(Fault::Other("Postgres takes too long".to_owned())),
        }
    }

    async fn write(&self, pool: &Pool) -> Result<(), Fault> {
        loop {
            let numbers = self.take();
            if numbers.is_empty() {
                return Ok(());
            }
            if let Err(fault) = pool.query(TOUCH, &[&numbers]).await {
                self.stage(numbers.into_iter());
                return Err(fault);
            }
        }
    }

    fn take(&self) -> Vec<i64> {
        let mut edited = self.edited.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        while taken.len() < TOUCHES_MAX
            && let Some(number) = edited.pop_first()
        {
            taken.push(number);
        }
        taken
    }
}
