//! The panics of this node's documents, and the documents in quarantine. Pure: the caller passes the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::id::{DocId, NodeId};
use crate::log::SubmitId;
use crate::store::{PANIC_WINDOW_MS, PanicRecord, QUARANTINED_MAX, QuarantinedDocument};

/// The most documents of which the newest panic is remembered.
const RECENT_MAX: usize = 2_000;

/// The most panics that wait to be stored.
const PENDING_MAX: usize = 1_000;

/// The most submits that caused a panic that are remembered.
const POISON_MAX: usize = 1_000;

/// The panics and the quarantine, as this node knows them.
#[derive(Debug, Default)]
pub(super) struct Panics {
    /// The documents in quarantine that the store has.
    stored: BTreeSet<DocId>,
    /// The documents that panicked twice on this node, which the store does not have yet.
    unconfirmed: BTreeSet<DocId>,
    /// The time of the newest panic of each document, in milliseconds since 1970.
    recent: BTreeMap<DocId, u64>,
    /// The panics that are not stored, oldest first.
    pending: VecDeque<PanicRecord>,
    /// The submits that caused a panic, oldest first.
    poison: VecDeque<(DocId, SubmitId)>,
}

/// The documents whose quarantine began or ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct QuarantineChanges {
    pub(super) begun: Vec<DocId>,
    pub(super) ended: Vec<DocId>,
}

impl Panics {
    /// Returns true if the document is in quarantine.
    pub(super) fn is_quarantined(&self, doc: &DocId) -> bool {
        self.stored.contains(doc) || self.unconfirmed.contains(doc)
    }

    /// Takes note of a panic of a document. Returns true if it puts the document into quarantine on this node.
    pub(super) fn panicked(
        &mut self,
        doc: &DocId,
        (node, node_name): (NodeId, Arc<str>),
        at_ms: u64,
    ) -> bool {
        let is_recent = |at: &u64| at.abs_diff(at_ms) < PANIC_WINDOW_MS;
        let is_repeated = self.recent.get(doc).is_some_and(is_recent);
        if !self.recent.contains_key(doc) && self.recent.len() >= RECENT_MAX {
            self.recent.retain(|_, at| is_recent(at));
        }
        if self.recent.len() < RECENT_MAX || self.recent.contains_key(doc) {
            self.recent.insert(doc.clone(), at_ms);
        }
        // A panic that is not stored is in the log of the node all the same.
        if self.pending.len() >= PENDING_MAX {
            return false;
        }
        self.pending.push_back(PanicRecord {
            doc: doc.clone(),
            node,
            node_name,
            at_ms,
            is_repeated,
        });
        let has_room = self.stored.len() + self.unconfirmed.len() < QUARANTINED_MAX;
        is_repeated
            && has_room
            && !self.stored.contains(doc)
            && self.unconfirmed.insert(doc.clone())
    }

    /// The oldest panic that is not stored.
    pub(super) fn next_pending(&self) -> Option<PanicRecord> {
        self.pending.front().cloned()
    }

    /// The oldest panic was stored.
    pub(super) fn pending_stored(&mut self) {
        self.pending.pop_front();
    }

    /// The oldest panic was not stored. It is tried again after the others.
    pub(super) fn pending_failed(&mut self) {
        self.pending.rotate_left(1.min(self.pending.len()));
    }

    /// Takes the documents in quarantine as the store lists them, read after the panics before were stored. Panics of documents
    /// that were released are counted anew.
    pub(super) fn refreshed(&mut self, listed: Vec<QuarantinedDocument>) -> QuarantineChanges {
        let before: BTreeSet<DocId> = self.stored.union(&self.unconfirmed).cloned().collect();
        self.stored = listed.into_iter().map(|it| it.doc).collect();
        let waiting: BTreeSet<&DocId> = self.pending.iter().map(|it| &it.doc).collect();
        self.unconfirmed.retain(|doc| waiting.contains(doc));
        let ended: Vec<DocId> = before
            .iter()
            .filter(|doc| !self.is_quarantined(doc))
            .cloned()
            .collect();
        for doc in &ended {
            self.recent.remove(doc);
        }
        let begun = self.stored.difference(&before).cloned().collect();
        QuarantineChanges { begun, ended }
    }

    /// Remembers a submit that caused a panic.
    pub(super) fn add_poison(&mut self, doc: &DocId, submit: SubmitId) {
        if self.poison.len() >= POISON_MAX {
            self.poison.pop_front();
        }
        self.poison.push_back((doc.clone(), submit));
    }

    /// The submits that made this document panic.
    pub(super) fn poison_of(&self, doc: &DocId) -> Vec<SubmitId> {
        let of_doc = self.poison.iter().filter(|(it, _)| it == doc);
        of_doc.map(|(_, submit)| submit.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn doc(at: usize) -> DocId {
        DocId::parse("c", &format!("d{at}")).unwrap()
    }

    fn me() -> (NodeId, Arc<str>) {
        (NodeId(1), "a".into())
    }

    fn listed(docs: &[usize]) -> Vec<QuarantinedDocument> {
        let listed = docs.iter().map(|at| QuarantinedDocument {
            doc: doc(*at),
            since_ms: NOW_MS,
            node_name: "a".into(),
        });
        listed.collect()
    }

    fn store_all(panics: &mut Panics) -> Vec<bool> {
        let mut repeated = Vec::new();
        while let Some(pending) = panics.next_pending() {
            repeated.push(pending.is_repeated);
            panics.pending_stored();
        }
        repeated
    }

    #[test]
    fn second_panic_within_a_minute_quarantines_before_the_store_answers() {
        let mut panics = Panics::default();
        assert!(!panics.panicked(&doc(1), me(), NOW_MS));
        assert!(!panics.panicked(&doc(2), me(), NOW_MS));
        assert!(!panics.panicked(&doc(1), me(), NOW_MS + PANIC_WINDOW_MS));
        assert!(panics.panicked(&doc(1), me(), NOW_MS + 2 * PANIC_WINDOW_MS - 1));
        assert!(panics.is_quarantined(&doc(1)) && !panics.is_quarantined(&doc(2)));
        // A list that was read before the panic is stored does not release it.
        assert_eq!(panics.refreshed(listed(&[])), QuarantineChanges::default());
        assert!(panics.is_quarantined(&doc(1)));
        assert_eq!(store_all(&mut panics), [false, false, false, true]);
        assert_eq!(panics.refreshed(listed(&[1])), QuarantineChanges::default());
        assert!(panics.is_quarantined(&doc(1)));
    }

    #[test]
    fn quarantine_follows_the_list_of_the_store() {
        let mut panics = Panics::default();
        let begun = panics.refreshed(listed(&[1, 2]));
        assert_eq!(begun.begun, [doc(1), doc(2)]);
        panics.panicked(&doc(2), me(), NOW_MS);
        store_all(&mut panics);
        let changes = panics.refreshed(listed(&[1]));
        assert_eq!(
            (changes.begun, changes.ended),
            (vec![], vec![doc(2)]),
            "released"
        );
        assert!(!panics.is_quarantined(&doc(2)));
        // Its panics are counted anew.
        assert!(!panics.panicked(&doc(2), me(), NOW_MS + 1));
    }

    #[test]
    fn document_that_the_store_does_not_take_is_released() {
        let mut panics = Panics::default();
        panics.panicked(&doc(1), me(), NOW_MS);
        assert!(panics.panicked(&doc(1), me(), NOW_MS + 1));
        store_all(&mut panics);
        assert_eq!(panics.refreshed(listed(&[])).ended, [doc(1)]);
    }

    #[test]
    fn panic_that_is_not_stored_does_not_keep_back_the_others() {
        let mut panics = Panics::default();
        for at in 0..3 {
            panics.panicked(&doc(at), me(), NOW_MS);
        }
        panics.pending_failed();
        let mut order = Vec::new();
        while let Some(pending) = panics.next_pending() {
            order.push(pending.doc);
            panics.pending_stored();
        }
        assert_eq!(order, [doc(1), doc(2), doc(0)]);
        panics.pending_failed();
    }

    #[test]
    fn memory_is_bounded() {
        let mut panics = Panics::default();
        for at in 0..3 * RECENT_MAX {
            panics.panicked(&doc(at), me(), NOW_MS + at as u64);
            let submit = SubmitId {
                author: crate::id::UserId::anyone(),
                client: crate::id::ClientId::parse("c").unwrap(),
                seq: at as u64,
            };
            panics.add_poison(&doc(at), submit);
        }
        assert_eq!(panics.pending.len(), PENDING_MAX);
        assert!(panics.recent.len() <= RECENT_MAX);
        assert_eq!(panics.poison.len(), POISON_MAX);
        assert_eq!(panics.poison_of(&doc(0)), []);
        assert_eq!(panics.poison_of(&doc(3 * RECENT_MAX - 1)).len(), 1);
    }
}
