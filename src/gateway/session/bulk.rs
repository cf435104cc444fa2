//! Bulk requests: fetches, subscriptions and unsubscriptions of many documents with one answer.

use std::sync::Arc;

use super::subscriptions::empty_reply;
use super::{RequestError, Session};
use crate::doc::SessionRequest;
use crate::id::{DocId, Name};
use crate::log::Revision;
use crate::node::{BulkReply, ReplyTo};
use crate::protocol::{BulkRequest, EchoedFields, Refusal};

impl Session {
    pub(super) async fn bulk_fetch(
        &mut self,
        bulk: BulkRequest,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        self.bulk_read(bulk, echo, |since| SessionRequest::Fetch { since })
            .await
    }

    pub(super) async fn bulk_subscribe(
        &mut self,
        bulk: BulkRequest,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        let docs: Vec<DocId> = documents(&bulk).collect();
        self.permissions.load(docs.iter()).await?;
        let (mut visible, mut hidden) = (Vec::new(), Vec::new());
        for doc in docs {
            let may_read = self.may_read(&doc).await?;
            if may_read { &mut visible } else { &mut hidden }.push(doc);
        }
        self.subscriptions.add_visible(visible.iter())?;
        for doc in &hidden {
            self.subscriptions.add_hidden(doc)?;
        }
        self.bulk_read(bulk, echo, |since| SessionRequest::Subscribe { since })
            .await
    }

    async fn bulk_read(
        &mut self,
        bulk: BulkRequest,
        echo: &EchoedFields,
        request: impl Fn(Option<Revision>) -> SessionRequest,
    ) -> Result<(), RequestError> {
        let docs: Vec<DocId> = documents(&bulk).collect();
        self.permissions.load(docs.iter()).await?;
        let slot = self.request_slot(&self.bulk_requests.clone()).await?;
        let parts = bulk.docs.len() + bulk.beyond.len();
        let reply = BulkReply::new(Box::new(echo.clone()), !bulk.since, parts, Some(slot));
        reply.begin(&self.outbox);
        for id in bulk.beyond {
            reply.reject(&self.outbox, id, Refusal::bulk_too_long(bulk.docs.len()));
        }
        for (id, revision) in bulk.docs {
            let doc = document(&bulk.collection, &id);
            // In a request that names revisions, a document without one is read from its beginning.
            let since = bulk.since.then(|| revision.unwrap_or(Revision::ZERO));
            self.bulk_part(&reply, id, &doc, since, &request).await?;
        }
        Ok(())
    }

    /// Reads one document of a bulk request. A part that cannot be read is answered with an error in its place: the other
    /// parts wait for the whole.
    ///
    /// # Errors
    /// If the session ends.
    async fn bulk_part(
        &mut self,
        reply: &Arc<BulkReply>,
        id: Name,
        doc: &DocId,
        since: Option<Revision>,
        request: impl Fn(Option<Revision>) -> SessionRequest,
    ) -> Result<(), RequestError> {
        let allowed = match reply.temporary_rejection() {
            Some(refusal) => Err(refusal),
            None => self.check_history(doc, since),
        };
        let may_read = match allowed {
            Ok(()) => self.may_read(doc).await,
            Err(refusal) => Err(refusal),
        };
        match may_read {
            Ok(true) => {}
            Ok(false) => {
                match empty_reply(since) {
                    Ok(answer) => reply.answer(&self.outbox, id, answer),
                    Err(refusal) => reply.reject(&self.outbox, id, refusal),
                }
                return Ok(());
            }
            Err(refusal) => {
                reply.reject(&self.outbox, id, refusal);
                return Ok(());
            }
        }
        let slot = self.request_slot(&self.reads.clone()).await?;
        let part = ReplyTo::Bulk(reply.clone(), id.clone(), Some(slot));
        if let Err(refusal) = self.ask(doc, request(since), part).await {
            reply.reject(&self.outbox, id, refusal);
        }
        Ok(())
    }

    pub(super) async fn bulk_unsubscribe(
        &mut self,
        bulk: &BulkRequest,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        let beyond = bulk.beyond.iter();
        let beyond = beyond.map(|id| document(&bulk.collection, id));
        let mut subscribed: Vec<DocId> = documents(bulk).chain(beyond).collect();
        subscribed.retain(|doc| self.subscriptions.remove(doc));
        let reply = BulkReply::new(Box::new(echo.clone()), false, subscribed.len(), None);
        reply.begin(&self.outbox);
        for doc in subscribed {
            let part = ReplyTo::Bulk(reply.clone(), doc.id.clone(), None);
            if let Err(refusal) = self.ask(&doc, SessionRequest::Unsubscribe, part).await {
                reply.reject(&self.outbox, doc.id, refusal);
            }
        }
        Ok(())
    }
}

fn document(collection: &Name, id: &Name) -> DocId {
    DocId {
        collection: collection.clone(),
        id: id.clone(),
    }
}

fn documents(bulk: &BulkRequest) -> impl Iterator<Item = DocId> {
    let ids = bulk.docs.keys();
    ids.map(|id| document(&bulk.collection, id))
}
