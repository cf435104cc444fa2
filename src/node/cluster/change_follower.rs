//! Follows the store's feed of changes, and tells the open documents what they have not heard from other nodes.
//!
//! Most changes have been heard: the owner sends commits to the nodes that subscribe. The feed finds what was lost on the
//! way, so a document is told of a newer head only if it lacks it still at the next call.

use std::collections::HashMap;
use std::mem;

use crate::doc::Event;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::node::node::{Node, OpenDocument};
use crate::store::{ChangeCursor, Changes, Continuity, StoreError};

/// The position in the feed, and what open documents may have to be told.
#[derive(Debug, Default)]
pub(in crate::node) struct ChangeFollower {
    cursor: Option<ChangeCursor>,
    /// At most one entry for each open document. An entry stays until the document has heard of its change or is closed:
    /// while a document is loaded or claimed it is not known yet what it lacks, and its mailbox may be full.
    pending: HashMap<DocId, Pending>,
}

/// What a document may have to be told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Pending {
    /// The newest claim.
    claim: Option<Claim>,
    /// The newest revision.
    head: Option<Revision>,
    /// Whether an earlier call found the head: its commits are no longer on their way.
    is_overdue: bool,
}

/// What is known of the newest claim of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Its epoch. Older ones are lost.
    At(Epoch),
    /// That this epoch is not the newest.
    Not(Epoch),
}

impl ChangeFollower {
    /// Reads what changed, and tells the open documents. On an error the next call reads the same again.
    pub(in crate::node) async fn follow(&mut self, node: &Node) -> Result<(), StoreError> {
        self.tell(node);
        for pending in self.pending.values_mut() {
            pending.is_overdue = true;
        }
        let changes = node.store().changes(self.cursor.as_ref()).await?;
        if changes.continuity == Continuity::OtherServer {
            // Epochs and revisions of another history.
            self.pending.clear();
        }
        if changes.continuity != Continuity::Complete {
            tracing::debug!(continuity = ?changes.continuity, "comparing the open documents with the store");
            self.compare(node).await?;
        }
        self.take_in(node, &changes);
        self.cursor = Some(changes.cursor);
        self.tell(node);
        Ok(())
    }

    /// Compares all open documents with the store.
    async fn compare(&mut self, node: &Node) -> Result<(), StoreError> {
        let open = node.open_documents();
        let news = node.store().compare_open(&open).await?;
        let epochs: HashMap<_, _> = open.owned.into_iter().collect();
        for doc in news.lost {
            if let Some(epoch) = epochs.get(&doc) {
                self.pending.entry(doc).or_default().claim = Some(Claim::Not(*epoch));
            }
        }
        for (doc, head) in news.newer {
            self.pending.entry(doc).or_default().head_is(head);
        }
        Ok(())
    }

    /// Keeps the changes of open documents. One that is opened later reads from the store what came before.
    fn take_in(&mut self, node: &Node, changes: &Changes) {
        let pending = &mut self.pending;
        let claimed = changes.claimed.iter().map(|(doc, epoch)| (doc, *epoch));
        node.visit_open(claimed, |doc, epoch, _| {
            pending.entry(doc.clone()).or_default().claim = Some(Claim::At(epoch));
        });
        let appended = changes.appended.iter().map(|(doc, head)| (doc, *head));
        node.visit_open(appended, |doc, head, _| {
            pending.entry(doc.clone()).or_default().head_is(head);
        });
    }

    /// Tells the documents what they lack, and drops what they have.
    fn tell(&mut self, node: &Node) {
        let pending = mem::take(&mut self.pending);
        let mut events = Vec::new();
        node.visit_open(&pending, |doc, pending, document| {
            if pending.is_heard(document) {
                return;
            }
            self.pending.insert(doc.clone(), *pending);
            if let Some(event) = pending.event(document) {
                events.push((doc, event));
            }
        });
        for (doc, event) in events {
            node.told(doc, event);
        }
    }
}

impl Pending {
    fn head_is(&mut self, head: Revision) {
        self.head = self.head.max(Some(head));
    }

    /// Whether this document lacks nothing. An owner has all that was committed before its claim, and nothing is committed
    /// by others after it until the next claim. Which of two claims is the newer is known once both are over.
    fn is_heard(&self, document: OpenDocument) -> bool {
        if let Some(owned) = document.owned {
            return !self.is_lost(owned);
        }
        let has_head = |followed| self.head.is_none_or(|head| followed >= head);
        let is_decided = self.claim.is_none() || !document.is_claiming;
        document.followed.is_some_and(has_head) && is_decided
    }

    fn is_lost(&self, owned: Epoch) -> bool {
        match self.claim {
            Some(Claim::At(newest)) => owned < newest,
            Some(Claim::Not(lost)) => owned == lost,
            None => false,
        }
    }

    /// What the document is told.
    fn event(&self, document: OpenDocument) -> Option<Event> {
        if let Some(owned) = document.owned {
            return self.is_lost(owned).then_some(Event::Superseded(owned));
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
    fn document_is_told_only_what_it_lacks() {
        let owned = |epoch| OpenDocument {
            owned: Some(Epoch(epoch)),
            ..OpenDocument::default()
        };
        let followed = |head| OpenDocument {
            followed: Some(Revision(head)),
            ..OpenDocument::default()
        };
        let claiming = |head| OpenDocument {
            is_claiming: true,
            ..followed(head)
        };
        let none = OpenDocument::default();
        let claim = |claim| Pending {
            claim: Some(claim),
            head: Some(Revision(9)),
            is_overdue: false,
        };
        let head = |is_overdue| Pending {
            claim: None,
            head: Some(Revision(5)),
            is_overdue,
        };
        let (at, not) = (claim(Claim::At(Epoch(3))), claim(Claim::Not(Epoch(7))));
        let deposed = |epoch| Some(Event::Superseded(Epoch(epoch)));
        let newer = Some(Event::HeadAdvanced(Revision(5)));
        // What is pending; the document; whether it has heard of it, and what it is told.
        for (pending, document, heard, told) in [
            (at, owned(2), false, deposed(2)),
            (at, owned(3), true, None),
            (at, owned(4), true, None),
            (at, followed(8), false, None),
            (at, followed(9), true, None),
            (at, claiming(9), false, None),
            (at, none, false, None),
            // After a restore epochs begin lower.
            (not, owned(7), false, deposed(7)),
            (not, owned(4), true, None),
            (head(true), followed(4), false, newer),
            (head(false), followed(4), false, None),
            (head(true), followed(5), true, None),
            (head(true), owned(1), true, None),
            (head(true), none, false, None),
        ] {
            let case = format!("{pending:?} {document:?}");
            assert_eq!(pending.is_heard(document), heard, "{case}");
            let event = pending.event(document);
            assert_eq!(format!("{event:?}"), format!("{told:?}"), "{case}");
        }
    }
}
