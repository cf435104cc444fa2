//! Limits how often the damage of a document's stored log is reported.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::id::DocId;
use crate::log::Revision;
use crate::sync::lock;

/// How long after a report of a document's damage it is not reported again.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);

/// The most documents with a remembered report. Beyond that, the oldest report is forgotten.
const REPORTED_MAX: usize = 1_024;

/// When the damage of each document was last reported.
#[derive(Debug, Default)]
pub(super) struct DamageReports(Mutex<BTreeMap<DocId, Instant>>);

impl DamageReports {
    /// Logs that the stored log of a document is damaged, at most once in ten minutes. `entry` is the first unreadable entry,
    /// `readable` the newest state that is served.
    pub(super) fn report(&self, doc: &DocId, entry: Option<Revision>, readable: Option<Revision>) {
        if self.is_due(doc, Instant::now()) {
            let text = |revision: Option<Revision>| revision.map(|it| it.to_string());
            let entry = text(entry).unwrap_or_else(|| "unknown".to_owned());
            let readable = text(readable).unwrap_or_else(|| "none".to_owned());
            tracing::error!(
                %doc, %entry, %readable,
                "the stored log of a document is damaged: run `copydesk verify`, and restore the row from a backup"
            );
        }
    }

    /// Returns true if the damage of `doc` is to be reported now.
    fn is_due(&self, doc: &DocId, now: Instant) -> bool {
        let mut reported = lock(&self.0);
        let recent = reported.get(doc);
        if recent.is_some_and(|at| now.saturating_duration_since(*at) < REPORT_INTERVAL) {
            return false;
        }
        if reported.len() >= REPORTED_MAX {
            let oldest = reported.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(doc, _)| doc.clone()) {
                reported.remove(&oldest);
            }
        }
        reported.insert(doc.clone(), now);
        true
    }
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
        let later = start + REPORT_INTERVAL;
        assert!(!reports.is_due(&doc(0), later - Duration::from_millis(1)));
        assert!(reports.is_due(&doc(0), later));
        for at in 0..2 * REPORTED_MAX {
            reports.is_due(&doc(at), later);
        }
        assert_eq!(lock(&reports.0).len(), REPORTED_MAX);
    }
}
