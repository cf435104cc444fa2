//! Follows the store's feed of changes, and reports to the open documents what they missed.
//!
//! Most changes were received already: the owner sends commits to the nodes that subscribe. The feed finds messages that were
//! lost, so a newer head is reported to a document only if the document still lacks it at the next call.

use std::collections::HashMap;
use std::mem;

use crate::doc::Event;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::node::document::Ownership;
use crate::node::document::mailbox::Mailboxes;
use crate::store::{ChangeCursor, Changes, Continuity, Store, StoreError};

/// The position in the feed, and the changes that open documents may lack.
#[derive(Debug, Default)]
pub(super) struct ChangeFollower {
    cursor: Option<ChangeCursor>,
    /// At most one entry for each open document. An entry stays until the document has the change or is closed: while a
    /// document is loaded or claimed it is not known what it lacks, and its mailbox may be full.
    pending: HashMap<DocId, PendingChange>,
}

/// The changes that a document may lack.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct PendingChange {
    /// The newest claim.
    claim: Option<ObservedClaim>,
    /// The newest revision.
    head: Option<Revision>,
    /// Whether the head was found by an earlier call: its commits are no longer on their way.
    is_overdue: bool,
}

/// What the store says about the newest claim of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObservedClaim {
    /// Its epoch. Claims with older epochs are superseded.
    Newest(Epoch),
    /// The claim of this epoch is superseded.
    Superseded(Epoch),
}

impl ChangeFollower {
    /// Reads the feed, and reports changes to the open documents. After an error, the next call reads the same changes again.
    pub(super) async fn follow(
        &mut self,
        documents: &Mailboxes,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        self.report(documents);
        for pending in self.pending.values_mut() {
            pending.is_overdue = true;
        }
        let changes = store.changes(self.cursor.as_ref()).await?;
        if changes.continuity == Continuity::OtherServer {
            // The epochs and revisions are of another history.
            self.pending.clear();
        }
        if changes.continuity != Continuity::Complete {
            tracing::debug!(continuity = ?changes.continuity, "comparing the open documents with the store");
            self.compare(documents, store).await?;
        }
        self.add(documents, &changes);
        self.cursor = Some(changes.cursor);
        self.report(documents);
        Ok(())
    }

    /// Compares all open documents with the store.
    async fn compare(
        &mut self,
        documents: &Mailboxes,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let open = documents.followed_and_owned();
        let changes = store.compare_open(&open).await?;
        let epochs: HashMap<_, _> = open.owned.into_iter().collect();
        for doc in changes.lost {
            if let Some(epoch) = epochs.get(&doc) {
                let superseded = ObservedClaim::Superseded(*epoch);
                self.pending.entry(doc).or_default().claim = Some(superseded);
            }
        }
        for (doc, head) in changes.newer {
            self.pending.entry(doc).or_default().advance(head);
        }
        Ok(())
    }

    /// Adds the changes of open documents. A document that is opened later reads earlier changes from the store.
    fn add(&mut self, documents: &Mailboxes, changes: &Changes) {
        let pending = &mut self.pending;
        let claimed = changes.claimed.iter().map(|(doc, epoch)| (doc, *epoch));
        documents.visit(claimed, |doc, epoch, _| {
            let newest = ObservedClaim::Newest(epoch);
            pending.entry(doc.clone()).or_default().claim = Some(newest);
        });
        let appended = changes.appended.iter().map(|(doc, head)| (doc, *head));
        documents.visit(appended, |doc, head, _| {
            pending.entry(doc.clone()).or_default().advance(head);
        });
    }

    /// Reports to the documents what they lack, and drops what they have.
    fn report(&mut self, documents: &Mailboxes) {
        let pending = mem::take(&mut self.pending);
        let mut events = Vec::new();
        documents.visit(&pending, |doc, pending, ownership| {
            if pending.is_applied(ownership) {
                return;
            }
            self.pending.insert(doc.clone(), *pending);
            if let Some(event) = pending.event(ownership) {
                events.push((doc, event));
            }
        });
        for (doc, event) in events {
            documents.report_change(doc, event);
        }
    }
}

impl PendingChange {
    fn advance(&mut self, head: Revision) {
        self.head = self.head.max(Some(head));
    }

    /// Returns true if the document lacks nothing. An owner has everything that was committed before its claim, and no other
    /// node commits after it until the next claim. While a claim is under way, it is not known which of two claims is newer.
    fn is_applied(&self, document: Ownership) -> bool {
        if let Some(owned) = document.owned {
            return !self.supersedes(owned);
        }
        let has_head = |followed| self.head.is_none_or(|head| followed >= head);
        let is_decided = self.claim.is_none() || !document.is_claiming;
        document.followed.is_some_and(has_head) && is_decided
    }

    fn supersedes(&self, owned: Epoch) -> bool {
        match self.claim {
            Some(ObservedClaim::Newest(newest)) => owned < newest,
            Some(ObservedClaim::Superseded(superseded)) => owned == superseded,
            None => false,
        }
    }

    /// The event for the document; `None` if it lacks nothing, or its commits may still be on their way.
    fn event(&self, document: Ownership) -> Option<Event> {
        if let Some(owned) = document.owned {
            return self.supersedes(owned).then_some(Event::Superseded(owned));
        }
        let head = self.head.filter(|_| self.is_overdue)?;
        document.followed.filter(|followed| *followed < head)?;
        Some(Event::HeadAdvanced(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_gets_only_the_changes_that_it_lacks() {
        let owned = |epoch| Ownership {
            owned: Some(Epoch(epoch)),
            ..Ownership::default()
        };
        let followed = |head| Ownership {
            followed: Some(Revision(head)),
            ..Ownership::default()
        };
        let claiming = |head| Ownership {
            is_claiming: true,
            ..followed(head)
        };
        let none = Ownership::default();
        let claim = |claim| PendingChange {
            claim: Some(claim),
            head: Some(Revision(9)),
            is_overdue: false,
        };
        let head = |is_overdue| PendingChange {
            claim: None,
            head: Some(Revision(5)),
            is_overdue,
        };
        let (at, not) = (
            claim(ObservedClaim::Newest(Epoch(3))),
            claim(ObservedClaim::Superseded(Epoch(7))),
        );
        let superseded = |epoch| Some(Event::Superseded(Epoch(epoch)));
        let newer = Some(Event::HeadAdvanced(Revision(5)));
        // (pending change, ownership, whether it is applied, event)
        for (pending, document, applied, expected) in [
            (at, owned(2), false, superseded(2)),
            (at, owned(3), true, None),
            (at, owned(4), true, None),
            (at, followed(8), false, None),
            (at, followed(9), true, None),
            (at, claiming(9), false, None),
            (at, none, false, None),
            // After a restore, epochs begin lower.
            (not, owned(7), false, superseded(7)),
            (not, owned(4), true, None),
            (head(true), followed(4), false, newer),
            (head(false), followed(4), false, None),
            (head(true), followed(5), true, None),
            (head(true), owned(1), true, None),
            (head(true), none, false, None),
        ] {
            let case = format!("{pending:?} {document:?}");
            assert_eq!(pending.is_applied(document), applied, "{case}");
            let event = pending.event(document);
            assert_eq!(format!("{event:?}"), format!("{expected:?}"), "{case}");
        }
    }
}
