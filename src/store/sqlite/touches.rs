//! When documents were last edited, on its way into the list.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// How long the list may lag behind the log: a busy document is written to the list once in this time, not per op.
const LAG: Duration = Duration::from_secs(1);

/// The documents whose `updated_at_ms` lags behind their log. A crash loses them; the next claim puts it right.
#[derive(Debug, Default)]
pub(super) struct Touches {
    /// In the open transaction: taken back if it is.
    staged: Vec<(i64, u64)>,
    /// Each document once, with when it is due.
    queue: VecDeque<(Instant, i64)>,
    /// The newest edit of each document in the queue.
    latest: HashMap<i64, u64>,
}

impl Touches {
    /// When the first is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// An edit in the open transaction.
    pub(super) fn stage(&mut self, number: i64, at_ms: u64) {
        self.staged.push((number, at_ms));
    }

    /// How many edits the open transaction has: what [`Touches::rolled_back`] takes to undo later ones.
    pub(super) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// The transaction was taken back, down to its first `kept` edits.
    pub(super) fn rolled_back(&mut self, kept: usize) {
        self.staged.truncate(kept);
    }

    /// Writes what is due at `now`, at most `max`. Returns how many that were, for [`Touches::committed`].
    pub(super) fn write(
        &self,
        db: &Connection,
        now: Instant,
        max: usize,
    ) -> rusqlite::Result<usize> {
        let mut written = 0;
        for (_, number) in self
            .queue
            .iter()
            .take(max)
            .take_while(|(due, _)| *due <= now)
        {
            db.prepare_cached("UPDATE documents SET updated_at_ms = ?2 WHERE number = ?1")?
                .execute(params![
                    number,
                    self.latest.get(number).map(|at_ms| at_ms.cast_signed())
                ])?;
            written += 1;
        }
        Ok(written)
    }

    /// The transaction is durable, with the first `written` of the queue.
    pub(super) fn committed(&mut self, written: usize, now: Instant) {
        for (_, number) in self.queue.drain(..written) {
            self.latest.remove(&number);
        }
        for (number, at_ms) in self.staged.drain(..) {
            if self.latest.insert(number, at_ms).is_none() {
                self.queue.push_back((now + LAG, number));
            }
        }
    }

    /// The store closes: everything is due at `now`.
    pub(super) fn all_are_due(&mut self, now: Instant) {
        self.queue.iter_mut().for_each(|(due, _)| *due = now);
    }

    /// Whether the list tells what the log tells.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
