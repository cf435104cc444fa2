//! Fetches, subscriptions and history reads of single documents.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::select;

use super::{RequestError, Session};
use crate::access::Role;
use crate::doc::{ReadMode, SessionReply, SessionRequest};
use crate::gateway::permission_cache::no_access;
use crate::id::DocId;
use crate::log::{Revision, Snapshot};
use crate::node::ReplyTo;
use crate::protocol::{self, Code, EchoedFields, Refusal, encode_snapshot};
use crate::store::LoadRange;

/// The documents that a socket is subscribed to. Pure.
#[derive(Debug)]
pub(super) struct Subscriptions {
    documents_max: usize,
    /// Those that the client is sent the commits of.
    visible: BTreeSet<DocId>,
    /// Those that the user may not read. The client sees an empty document, and is sent the content when it may be read.
    hidden: BTreeSet<DocId>,
}

impl Subscriptions {
    /// No subscriptions yet, and at most `documents_max`.
    pub(super) fn new(documents_max: usize) -> Self {
        Self {
            documents_max,
            visible: BTreeSet::new(),
            hidden: BTreeSet::new(),
        }
    }

    /// All documents.
    pub(super) fn documents(&self) -> impl Iterator<Item = &DocId> {
        self.visible.iter().chain(&self.hidden)
    }

    pub(super) fn is_visible(&self, doc: &DocId) -> bool {
        self.visible.contains(doc)
    }

    /// Adds all documents of `docs`, or none.
    ///
    /// # Errors
    /// If there would be more than the maximum.
    pub(super) fn add_visible<'a>(
        &mut self,
        docs: impl Iterator<Item = &'a DocId> + Clone,
    ) -> Result<(), Refusal> {
        let new = docs.clone().filter(|doc| !self.visible.contains(*doc));
        if self.len() + new.count() > self.documents_max {
            return Err(self.too_many());
        }
        self.visible.extend(docs.cloned());
        Ok(())
    }

    /// Adds a document that the user may not read.
    ///
    /// # Errors
    /// If there would be more than the maximum.
    pub(super) fn add_hidden(&mut self, doc: &DocId) -> Result<(), Refusal> {
        if self.len() >= self.documents_max && !self.hidden.contains(doc) {
            return Err(self.too_many());
        }
        self.hidden.insert(doc.clone());
        Ok(())
    }

    /// Makes a hidden document visible. Returns false if it is not hidden.
    pub(super) fn reveal(&mut self, doc: &DocId) -> bool {
        let was_hidden = self.hidden.remove(doc);
        if was_hidden {
            self.visible.insert(doc.clone());
        }
        was_hidden
    }

    /// Removes a document. Returns whether it was visible.
    pub(super) fn remove(&mut self, doc: &DocId) -> bool {
        self.hidden.remove(doc);
        self.visible.remove(doc)
    }

    /// Removes and returns the visible documents.
    pub(super) fn take_visible(&mut self) -> BTreeSet<DocId> {
        std::mem::take(&mut self.visible)
    }

    fn len(&self) -> usize {
        self.visible.len() + self.hidden.len()
    }

    fn too_many(&self) -> Refusal {
        let documents_max = self.documents_max;
        let message = format!("A connection subscribes to at most {documents_max} documents");
        Refusal::new(Code::TooMany, message)
    }
}

/// The request for a document: from revision `since` on, or else a snapshot that is at least as new as `min`.
fn read_request(mode: ReadMode, since: Option<Revision>, min: Option<Revision>) -> SessionRequest {
    match (since, min, mode) {
        (None, Some(min), mode) => SessionRequest::ReadFrom { min, mode },
        (_, _, ReadMode::Fetch) => SessionRequest::Fetch { since },
        (_, _, ReadMode::Subscribe) => SessionRequest::Subscribe { since },
    }
}

impl Session {
    pub(super) async fn fetch(
        &mut self,
        doc: &DocId,
        since: Option<Revision>,
        min: Option<Revision>,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        self.check_history(doc, since)?;
        if !self.may_read(doc).await? {
            return Ok(self.send_empty(since, echo)?);
        }
        let request = read_request(ReadMode::Fetch, since, min);
        self.ask_read(doc, request, echo).await
    }

    pub(super) async fn subscribe(
        &mut self,
        doc: &DocId,
        since: Option<Revision>,
        min: Option<Revision>,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        self.check_history(doc, since)?;
        let may_read = self.may_read(doc).await?;
        self.send_role(doc).await?;
        if !may_read {
            self.subscriptions.add_hidden(doc)?;
            return Ok(self.send_empty(since, echo)?);
        }
        self.subscriptions.add_visible(std::iter::once(doc))?;
        let request = read_request(ReadMode::Subscribe, since, min);
        self.ask_read(doc, request, echo).await
    }

    pub(super) async fn unsubscribe(
        &mut self,
        doc: &DocId,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        if self.subscriptions.remove(doc) {
            let reply = ReplyTo::Socket(Box::new(echo.clone()));
            return self.ask(doc, SessionRequest::Unsubscribe, reply).await;
        }
        self.send(protocol::done(echo));
        Ok(())
    }

    /// Sends the document as it was.
    pub(super) async fn history(
        &mut self,
        doc: &DocId,
        range: LoadRange,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        self.permissions.require_role(doc, Role::Viewer).await?;
        let shown = {
            let history = self.gateway.history(doc, range);
            select! {
                biased;
                // A long read must not delay the loss of a permission.
                () = self.permissions.access_changed() => return Err(Refusal::busy()),
                shown = history => shown?,
            }
        };
        self.outbox.push_reply(protocol::history(echo, &shown));
        Ok(())
    }

    /// Whether the user may read a document.
    pub(super) async fn may_read(&mut self, doc: &DocId) -> Result<bool, Refusal> {
        let node = self.gateway.node().clone();
        let role = select! {
            biased;
            role = self.permissions.role(doc) => role?,
            () = node.store_away() => return Err(Refusal::store_unavailable()),
        };
        Ok(role.is_some())
    }

    /// Answers as for a document that does not exist, whether it exists or not.
    fn send_empty(&self, since: Option<Revision>, echo: &EchoedFields) -> Result<(), Refusal> {
        match empty_reply(since)? {
            SessionReply::Snapshot(snapshot) => {
                self.outbox
                    .push_reply(protocol::snapshot_reply(echo, &snapshot));
            }
            SessionReply::Done | SessionReply::Committed(_) | SessionReply::Rejected(_) => {
                self.send(protocol::done(echo));
            }
        }
        Ok(())
    }
}

/// The answer to a client that has `since` of a document that does not exist or that the user may not read.
///
/// # Errors
/// If the client has a part of the document: its access has been revoked.
pub(super) fn empty_reply(since: Option<Revision>) -> Result<SessionReply, Refusal> {
    match since {
        None => {
            let empty = encode_snapshot(&Snapshot::default());
            Ok(SessionReply::Snapshot(Arc::new(empty)))
        }
        Some(Revision::ZERO) => Ok(SessionReply::Done),
        Some(_) => Err(no_access()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_and_hidden_documents_share_a_maximum() {
        let [a, b, c] = ["a", "b", "c"].map(|id| DocId::parse("c", id).unwrap());
        let mut subscriptions = Subscriptions::new(2);
        subscriptions.add_hidden(&a).unwrap();
        let both = [b.clone(), c.clone()];
        assert!(subscriptions.add_visible(both.iter()).is_err());
        assert!(!subscriptions.is_visible(&b), "all or none");
        subscriptions.add_visible([&b].into_iter()).unwrap();
        subscriptions.add_visible([&b].into_iter()).unwrap();
        subscriptions.add_hidden(&a).unwrap();
        assert!(subscriptions.add_hidden(&c).is_err());
        assert!(subscriptions.reveal(&a) && !subscriptions.reveal(&a));
        assert!(subscriptions.is_visible(&a));
        assert!(subscriptions.remove(&a) && !subscriptions.remove(&a));
        subscriptions.add_hidden(&c).unwrap();
        assert!(!subscriptions.remove(&c), "it was hidden");
        assert_eq!(subscriptions.take_visible(), BTreeSet::from([b]));
        assert_eq!(subscriptions.documents().count(), 0);
    }
}
