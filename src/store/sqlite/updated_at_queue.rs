//! Deferred updates of `documents.updated_at_ms`, the order of the list.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// How long the list may lag behind the log. The edits of this time are written together: an append that updated the
/// list itself would write four pages instead of two.
const LAG: Duration = Duration::from_secs(1);

/// How many rows one transaction updates, which bounds its duration. The rest is written by the next one.
const ROWS_MAX: usize = 1_000;

/// The documents with an `updated_at_ms` that lags behind their log. A crash loses the queue; the next claim of a document
/// corrects its row.
#[derive(Debug, Default)]
pub(super) struct UpdatedAtQueue {
    /// The edits of the open transaction.
    staged: Vec<(i64, u64)>,
    /// The newest edit of each document, sorted as the rows of the table.
    latest: BTreeMap<i64, u64>,
    /// When the rows are due; `None` if there are none.
    due: Option<Instant>,
}

impl UpdatedAtQueue {
    /// When the rows are due, which needs a transaction.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Stages an edit of the open transaction.
    pub(super) fn stage(&mut self, number: i64, at_ms: u64) {
        self.staged.push((number, at_ms));
    }

    /// How many edits of the open transaction are staged, for [`truncate`](Self::truncate).
    pub(super) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Drops all but the first `kept` edits of the open transaction: its savepoint was rolled back.
    pub(super) fn truncate(&mut self, kept: usize) {
        self.staged.truncate(kept);
    }

    /// Drops the edits of the transaction that began at `now` and was rolled back. What was due is retried after
    /// [`LAG`], so that a full disk is not retried at once.
    pub(super) fn rolled_back(&mut self, now: Instant) {
        self.staged.clear();
        self.due = self.due.map(|due| due.max(now + LAG));
    }

    /// Writes the rows that are due at `now`. Returns how many, for [`committed`](Self::committed).
    pub(super) fn write(&self, db: &Connection, now: Instant) -> rusqlite::Result<usize> {
        if self.due.is_none_or(|due| now < due) {
            return Ok(0);
        }
        let mut update =
            db.prepare_cached("UPDATE documents SET updated_at_ms = ?2 WHERE number = ?1")?;
        for (number, at_ms) in self.latest.iter().take(ROWS_MAX) {
            update.execute(params![number, at_ms.cast_signed()])?;
        }
        Ok(self.latest.len().min(ROWS_MAX))
    }

    /// Moves the edits of the committed transaction into the queue and removes the first `written` rows.
    pub(super) fn committed(&mut self, written: usize, now: Instant) {
        if written == self.latest.len() {
            self.due = None;
        }
        for _ in 0..written {
            self.latest.pop_first();
        }
        self.latest.extend(self.staged.drain(..));
        if !self.latest.is_empty() {
            self.due.get_or_insert(now + LAG);
        }
    }

    /// Makes all rows due at `now`: the store is closing.
    pub(super) fn flush_now(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
    }

    /// Returns true if no row lags behind the log.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_written_once_a_second_and_never_early() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(
            "CREATE TABLE documents (number INTEGER PRIMARY KEY, updated_at_ms INTEGER);
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 1500)
             INSERT INTO documents SELECT n, 0 FROM numbers",
        )
        .unwrap();
        let written = || -> i64 {
            let sql = "SELECT count(*) FROM documents WHERE updated_at_ms = 9";
            db.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        let mut queue = UpdatedAtQueue::default();
        let start = Instant::now();
        let step = |queue: &mut UpdatedAtQueue, after| {
            let now = start + after;
            let count = queue.write(&db, now).unwrap();
            queue.committed(count, now);
        };
        for at_ms in [7, 8, 9] {
            (1..=1_500).for_each(|number| queue.stage(number, at_ms));
            step(&mut queue, Duration::ZERO);
        }
        step(&mut queue, LAG - Duration::from_millis(1));
        assert_eq!((written(), queue.due()), (0, Some(start + LAG)));
        // A transaction fails, as on a full disk.
        queue.stage(1, 10);
        queue.rolled_back(start + LAG);
        step(&mut queue, LAG);
        assert_eq!((written(), queue.due()), (0, Some(start + 2 * LAG)));
        step(&mut queue, 2 * LAG);
        assert_eq!((written(), queue.is_empty()), (1_000, false));
        step(&mut queue, 2 * LAG);
        assert_eq!(
            (written(), queue.is_empty(), queue.due()),
            (1_500, true, None)
        );
    }
}
