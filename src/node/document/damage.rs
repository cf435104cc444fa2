//! Documents whose stored rows are damaged: found when they are loaded, reported once, shown read-only.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::task::{Folded, ReadablePart, fold};
use crate::doc::ReadOnlyCause;
use crate::id::DocId;
use crate::log::Revision;
use crate::node::Node;
use crate::store::{LoadRange, StoreError, StoreErrorKind};
use crate::sync::lock;

/// How long after one report of a document's damage it is not reported again.
const REPORT_AGAIN: Duration = Duration::from_secs(600);

/// For how many documents that is remembered. With more, the one that was reported first is forgotten.
const REPORTED_MAX: usize = 1_024;

/// Which damaged documents were reported, and when.
#[derive(Debug, Default)]
pub(in crate::node) struct DamageReports(Mutex<BTreeMap<DocId, Instant>>);

impl DamageReports {
    /// Returns true if the damage of `doc` is to be reported now.
    fn is_due(&self, doc: &DocId, now: Instant) -> bool {
        let mut reported = lock(&self.0);
        let recent = reported.get(doc);
        if recent.is_some_and(|at| now.saturating_duration_since(*at) < REPORT_AGAIN) {
            return false;
        }
        if reported.len() >= REPORTED_MAX {
            let first = reported.iter().min_by_key(|(_, at)| **at);
            if let Some(first) = first.map(|(doc, _)| doc.clone()) {
                reported.remove(&first);
            }
        }
        reported.insert(doc.clone(), now);
        true
    }
}

impl Node {
    /// Loads a document's head and folds it. Of a damaged document, what stands before the damage.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(in crate::node) async fn load_folded(&self, doc: &DocId) -> Result<Folded, StoreError> {
        match self.store().load(doc, LoadRange::Head).await {
            Ok(loaded) => return Ok(fold(loaded).await),
            Err(error) if !is_damage(&error) => return Err(error),
            Err(_) => {}
        }
        let loaded = match self.store().load(doc, LoadRange::BeforeDamage).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let StoreErrorKind::Damaged { entry } = error.kind else {
                    return Err(error);
                };
                return Ok(Folded::ReadOnly(ReadablePart {
                    readable: None,
                    head: Revision::ZERO,
                    cause: ReadOnlyCause::Damaged { entry },
                }));
            }
        };
        let head = loaded.head;
        Ok(match fold(loaded).await {
            // Only a snapshot was damaged, and the log says the same.
            Folded::Whole(snapshot, _) if snapshot.revision != head => {
                Folded::damaged(snapshot, head)
            }
            folded => folded,
        })
    }

    /// Writes the log line about a damaged document, unless that was done a short time ago.
    pub(in crate::node) fn report_damage(
        &self,
        doc: &DocId,
        entry: Option<Revision>,
        readable: Option<Revision>,
    ) {
        if self.damage_reports().is_due(doc, Instant::now()) {
            let text = |revision: Option<Revision>| revision.map(|it| it.to_string());
            let entry = text(entry).unwrap_or_else(|| "unknown".to_owned());
            let readable = text(readable).unwrap_or_else(|| "none".to_owned());
            tracing::error!(
                %doc, %entry, %readable,
                "the stored log of a document is damaged: run `copydesk verify`, and restore the row from a backup"
            );
        }
    }
}

fn is_damage(error: &StoreError) -> bool {
    matches!(error.kind, StoreErrorKind::Damaged { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_document_is_reported_once_in_ten_minutes() {
        let reports = DamageReports::default();
        let start = Instant::now();
        let doc = |at: usize| DocId::parse("docs", &at.to_string()).unwrap();
        assert!(reports.is_due(&doc(0), start));
        let later = start + REPORT_AGAIN;
        assert!(!reports.is_due(&doc(0), later - Duration::from_millis(1)));
        assert!(reports.is_due(&doc(0), later));
        for at in 0..2 * REPORTED_MAX {
            reports.is_due(&doc(at), later);
        }
        assert_eq!(reports.0.lock().unwrap().len(), REPORTED_MAX);
    }
}
