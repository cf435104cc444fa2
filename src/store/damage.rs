//! Damage of stored rows: the error that names the entry, and the record of the snapshots that were reported.

use std::collections::HashSet;
use std::sync::Mutex;

use thiserror::Error;

use super::StoreError;
use crate::id::DocId;
use crate::log::Revision;
use crate::outage::LineLimit;
use crate::sync::lock;

/// The end of a document's log, and whether entries after it are missing.
///
/// The times in a log never fall, and `documents.updated_at_ms` has the time of an entry. So if it is later than the last
/// entry of the log, that entry is missing. It lags behind the log: a deleted entry that was never copied there is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// The revision of the last entry; zero if the log is empty.
    pub(super) head: Revision,
    pub(super) is_cut_off: bool,
}

impl LogEnd {
    /// From the document's `updated_at_ms` and the last entry's revision and time.
    pub(super) fn new(updated_at_ms: i64, last: Option<(i64, i64)>) -> Self {
        let (revision, at_ms) = last.unwrap_or_default();
        Self {
            head: Revision(revision.cast_unsigned()),
            is_cut_off: updated_at_ms.cast_unsigned() > at_ms.cast_unsigned(),
        }
    }

    /// Fails if a load that needs the entries up to `revision` needs one that was cut off.
    pub(super) fn check(self, doc: &DocId, revision: Revision) -> Result<(), LogDamage> {
        if self.is_cut_off && revision > self.head {
            return Err(LogDamage::cut_off(doc, self.head.next()));
        }
        Ok(())
    }

    /// The highest revision that the log is known to have had.
    pub(super) fn highest_revision(self) -> Revision {
        match self.is_cut_off {
            true => self.head.next(),
            false => self.head,
        }
    }

    /// The head that a load of the readable part returns, which begins with a snapshot at `snapshot`. It differs from the
    /// last revision that can be read.
    pub(super) fn head_before_damage(self, snapshot: Revision) -> Revision {
        if snapshot <= self.head {
            self.highest_revision()
        } else {
            self.head
        }
    }
}

/// An entry of a document's log is missing or fails its checks.
#[derive(Debug, Error)]
#[error("{doc}: entry {entry}: {reason}: the log is damaged")]
pub(super) struct LogDamage {
    pub(super) doc: DocId,
    /// The first entry that cannot be read.
    pub(super) entry: Revision,
    pub(super) reason: String,
}

impl LogDamage {
    pub(super) fn new(doc: &DocId, entry: Revision, reason: impl Into<String>) -> Self {
        Self {
            doc: doc.clone(),
            entry,
            reason: reason.into(),
        }
    }

    /// The row of an entry does not exist.
    pub(super) fn missing(doc: &DocId, entry: Revision) -> Self {
        Self::new(doc, entry, "it is missing")
    }

    /// There is a snapshot at `entry`, and the log ends before it.
    pub(super) fn before_snapshot(doc: &DocId, entry: Revision) -> Self {
        Self::new(doc, entry, "it is missing, and there is a snapshot of it")
    }

    /// The list has a later edit than the last entry, which is `entry`'s predecessor.
    pub(super) fn cut_off(doc: &DocId, entry: Revision) -> Self {
        Self::new(doc, entry, "it is missing, and the list has its time")
    }

    /// The error that the caller of `verb` gets.
    pub(super) fn into_store_error(self, verb: &'static str) -> StoreError {
        StoreError::damaged(verb, Some(self.entry), self)
    }
}

/// A row that claims and appends of a document need is missing or contradicts the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum HeadDamage {
    /// The document was known to this process, and its name is not in the table any more. Rows of documents are never deleted.
    #[error("its row in documents is missing")]
    MissingDocument,
    /// Only in Postgres, where the fence has a table of its own.
    #[error("its row in heads is missing")]
    MissingFence,
    /// The epochs in a log never fall, and an entry is appended under the epoch of the fence. So a fence with a smaller epoch
    /// than the last entry is an old one.
    #[error("its fence has a smaller epoch than its last entry")]
    EpochBehindLog,
}

impl HeadDamage {
    /// Logs the damage of a document that cannot be claimed.
    pub(super) fn report(self, doc: &DocId) {
        static LIMIT: LineLimit = LineLimit::new();
        if let Some(left_out) = LIMIT.pass() {
            tracing::error!(%doc, damage = %self, left_out, "a row of a document is damaged, so it cannot be claimed: run `copydesk repair` for a fence, and restore a row of documents from a backup");
        }
    }

    /// The error that the caller of `verb` gets.
    pub(super) fn into_store_error(self, verb: &'static str, doc: &DocId) -> StoreError {
        StoreError::damaged(verb, None, format!("{doc}: {self}"))
    }
}

/// How many damaged snapshots are recorded. With more, the record is emptied, and they may be reported again.
const REPORTED_MAX: usize = 1_024;

/// Records which damaged snapshots were logged, so that each is logged once and not at every load.
#[derive(Debug, Default)]
pub(super) struct ReportedSnapshots(Mutex<HashSet<(DocId, Revision)>>);

impl ReportedSnapshots {
    /// Records a snapshot. Returns true if it was not recorded before: the caller logs it.
    pub(super) fn is_first(&self, doc: &DocId, revision: Revision) -> bool {
        let mut reported = lock(&self.0);
        if reported.len() >= REPORTED_MAX {
            reported.clear();
        }
        reported.insert((doc.clone(), revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_cut_off_if_the_list_has_a_later_time() {
        let doc = DocId::parse("docs", "a").unwrap();
        for (updated_at_ms, last, head, is_cut_off) in [
            (0, None, 0, false),
            (7, None, 0, true),
            (7, Some((3, 7)), 3, false),
            // The list lags behind the log.
            (6, Some((3, 7)), 3, false),
            (8, Some((3, 7)), 3, true),
        ] {
            let end = LogEnd::new(updated_at_ms, last);
            assert_eq!((end.head.0, end.is_cut_off), (head, is_cut_off));
            assert!(end.check(&doc, end.head).is_ok());
            let beyond = end.check(&doc, end.head.next());
            let missing = beyond.err().map(|damage| damage.entry.0);
            assert_eq!(missing, is_cut_off.then_some(head + 1));
            let before_damage = end.head_before_damage(end.head);
            assert_eq!(before_damage.0, head + u64::from(is_cut_off));
            let behind_snapshot = end.head_before_damage(end.head.next());
            assert_eq!(behind_snapshot, end.head);
        }
    }
}
