//! When documents were last edited, on its way into the list.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// How long the list may lag behind the log: all that was edited meanwhile is written to it at once. An append that
/// kept the list itself would dirty four pages instead of two.
const LAG: Duration = Duration::from_secs(1);

/// How many touches one transaction carries, so that nobody waits long for them. More go into the next one.
const TOUCHES_MAX: usize = 1_000;

/// The documents whose `updated_at_ms` lags behind their log. A crash loses them; the next claim puts it right.
#[derive(Debug, Default)]
pub(super) struct UpdatedAtQueue {
    /// In the open transaction: taken back if it is.
    staged: Vec<(i64, u64)>,
    /// Each document's newest edit; in the order in which their rows lie in the table.
    latest: BTreeMap<i64, u64>,
    /// When they are to be written; `None` while there are none.
    due: Option<Instant>,
}

impl UpdatedAtQueue {
    /// When a transaction is wanted for them.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// An edit in the open transaction.
    pub(super) fn stage(&mut self, number: i64, at_ms: u64) {
        self.staged.push((number, at_ms));
    }

    /// How many edits the open transaction has: what [`UpdatedAtQueue::truncate`] takes to undo later ones.
    pub(super) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// What is guarded was taken back, down to the transaction's first `kept` edits.
    pub(super) fn truncate(&mut self, kept: usize) {
        self.staged.truncate(kept);
    }

    /// The transaction that began at `now` was taken back. What is due is tried again later: a full disk is not asked
    /// again and again.
    pub(super) fn rolled_back(&mut self, now: Instant) {
        self.staged.clear();
        self.due = self.due.map(|due| due.max(now + LAG));
    }

    /// Writes what is due at `now`. Returns how many that were, for [`UpdatedAtQueue::committed`].
    pub(super) fn write(&self, db: &Connection, now: Instant) -> rusqlite::Result<usize> {
        if self.due.is_none_or(|due| now < due) {
            return Ok(0);
        }
        let mut update =
            db.prepare_cached("UPDATE documents SET updated_at_ms = ?2 WHERE number = ?1")?;
        for (number, at_ms) in self.latest.iter().take(TOUCHES_MAX) {
            update.execute(params![number, at_ms.cast_signed()])?;
        }
        Ok(self.latest.len().min(TOUCHES_MAX))
    }

    /// The transaction is durable, with the first `written`.
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

    /// The store closes: everything is due at `now`.
    pub(super) fn flush_now(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
    }

    /// Whether the list tells what the log tells.
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
        let mut touches = UpdatedAtQueue::default();
        let start = Instant::now();
        let step = |touches: &mut UpdatedAtQueue, after| {
            let now = start + after;
            let count = touches.write(&db, now).unwrap();
            touches.committed(count, now);
        };
        for at_ms in [7, 8, 9] {
            (1..=1_500).for_each(|number| touches.stage(number, at_ms));
            step(&mut touches, Duration::ZERO);
        }
        step(&mut touches, LAG - Duration::from_millis(1));
        assert_eq!((written(), touches.due()), (0, Some(start + LAG)));
        // The disk is full for a while.
        touches.stage(1, 10);
        touches.rolled_back(start + LAG);
        step(&mut touches, LAG);
        assert_eq!((written(), touches.due()), (0, Some(start + 2 * LAG)));
        step(&mut touches, 2 * LAG);
        assert_eq!((written(), touches.is_empty()), (1_000, false));
        step(&mut touches, 2 * LAG);
        assert_eq!(
            (written(), touches.is_empty(), touches.due()),
            (1_500, true, None)
        );
    }
}
