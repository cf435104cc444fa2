//! The feed of changes of a store that serves one process. It is in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use super::{ChangeCursor, Changes, Continuity};
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::sync::lock;

/// How many changes are kept. An older cursor is answered with [`Continuity::Incomplete`].
const KEPT_MAX: usize = 16_384;

/// A change of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedChange {
    /// It was claimed, with this epoch.
    Claimed(Epoch),
    /// It was appended to, up to this revision.
    Appended(Revision),
}

/// The newest changes of a store, in the order of their commits.
#[derive(Debug, Default)]
pub(super) struct ChangeFeed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// How many changes were recorded before the oldest that is kept.
    before: u64,
    changes: VecDeque<(DocId, FeedChange)>,
}

impl ChangeFeed {
    /// Records changes that are durable. Beyond [`KEPT_MAX`] the oldest are dropped.
    pub(super) fn record(&self, changes: impl IntoIterator<Item = (DocId, FeedChange)>) {
        let mut kept = self.lock();
        kept.changes.extend(changes);
        let surplus = kept.changes.len().saturating_sub(KEPT_MAX);
        kept.changes.drain(..surplus);
        kept.before += surplus as u64;
    }

    /// Makes all earlier cursors incomplete: changes may be durable that were not recorded.
    pub(super) fn interrupt(&self) {
        let mut kept = self.lock();
        kept.before += kept.changes.len() as u64 + 1;
        kept.changes.clear();
    }

    /// The changes since a cursor. A cursor of another feed is answered with [`Continuity::Incomplete`].
    pub(super) fn since(&self, cursor: Option<&ChangeCursor>) -> Changes {
        let kept = self.lock();
        let end = kept.before + kept.changes.len() as u64;
        let since = cursor.and_then(|cursor| cursor.0.parse::<u64>().ok());
        let since = since.filter(|since| (kept.before..=end).contains(since));
        let (mut claimed, mut appended) = (BTreeMap::new(), BTreeMap::new());
        let seen = since.map_or(kept.changes.len(), |since| (since - kept.before) as usize);
        for (doc, change) in kept.changes.iter().skip(seen) {
            match change {
                FeedChange::Claimed(epoch) => drop(claimed.insert(doc, *epoch)),
                FeedChange::Appended(revision) => drop(appended.insert(doc, *revision)),
            }
        }
        Changes {
            cursor: ChangeCursor(end.to_string().into()),
            continuity: match since {
                Some(_) => Continuity::Complete,
                None => Continuity::Incomplete,
            },
            claimed: claimed
                .into_iter()
                .map(|(doc, it)| (doc.clone(), it))
                .collect(),
            appended: appended
                .into_iter()
                .map(|(doc, it)| (doc.clone(), it))
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(at: usize) -> DocId {
        DocId::parse("c", &format!("d{at}")).unwrap()
    }

    fn appended(at: usize, revision: u64) -> (DocId, FeedChange) {
        (doc(at), FeedChange::Appended(Revision(revision)))
    }

    #[test]
    fn newest_change_of_each_document_is_returned_once() {
        let feed = ChangeFeed::default();
        feed.record([appended(1, 1)]);
        let start = feed.since(None);
        assert_eq!(
            (start.continuity, start.appended),
            (Continuity::Incomplete, vec![])
        );
        feed.record([
            appended(1, 2),
            (doc(2), FeedChange::Claimed(Epoch(1))),
            appended(1, 3),
        ]);
        let changes = feed.since(Some(&start.cursor));
        assert_eq!(changes.continuity, Continuity::Complete);
        assert_eq!(changes.claimed, [(doc(2), Epoch(1))]);
        assert_eq!(changes.appended, [(doc(1), Revision(3))]);
        let none = feed.since(Some(&changes.cursor));
        assert_eq!((none.claimed.len(), none.appended.len()), (0, 0));
        assert_eq!(none.continuity, Continuity::Complete);
    }

    #[test]
    fn cursor_is_incomplete_once_a_later_change_is_dropped() {
        let feed = ChangeFeed::default();
        let start = feed.since(None).cursor;
        feed.record((0..KEPT_MAX).map(|at| appended(at, 1)));
        let all = feed.since(Some(&start));
        assert_eq!(
            (all.continuity, all.appended.len()),
            (Continuity::Complete, KEPT_MAX)
        );
        feed.record([appended(0, 2)]);
        assert_eq!(feed.since(Some(&start)).continuity, Continuity::Incomplete);
        assert_eq!(
            feed.since(Some(&all.cursor)).appended,
            [(doc(0), Revision(2))]
        );
    }

    #[test]
    fn cursors_from_before_an_interruption_are_incomplete() {
        let feed = ChangeFeed::default();
        let start = feed.since(None).cursor;
        feed.interrupt();
        let after = feed.since(Some(&start));
        assert_eq!(after.continuity, Continuity::Incomplete);
        assert_eq!(
            feed.since(Some(&after.cursor)).continuity,
            Continuity::Complete
        );
    }
}
