//! Damage of stored rows: the error that names the entry, and the record of the snapshots that were reported.

use std::collections::HashSet;
use std::sync::Mutex;

use thiserror::Error;

use super::StoreError;
use crate::id::DocId;
use crate::log::Revision;
use crate::sync::lock;

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

    /// The error that the caller of `verb` gets.
    pub(super) fn into_store_error(self, verb: &'static str) -> StoreError {
        StoreError::damaged(verb, Some(self.entry), self)
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
