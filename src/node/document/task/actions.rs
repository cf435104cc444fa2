//! Performs the actions of a document's state machine.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tracing::Instrument;

use super::{Completion, DocumentTask};
use crate::doc::{Action, Event, PageRequester, PeerMessage, SessionReply, Ticket};
use crate::id::{DocId, NodeId, SessionId};
use crate::log::{Entry, Fence, Revision, Snapshot};
use crate::node::cluster::message::NodeMessage;
use crate::node::delivery::encoder::CommitAuthor;
use crate::node::delivery::probe::DeliveryProbe;
use crate::node::delivery::reply::ReplyFrames;
use crate::node::document::blocking::{IN_PLACE_BYTES, work_in_place};
use crate::node::metrics::{PageReader, SubmitPath, SubmitResult};
use crate::node::services::NodeServices;
use crate::protocol::CloseReason;
use crate::store::Batch;

/// One delivery in so many is measured: measuring takes about a hundredth of a delivery to one socket.
const DELIVERIES_PER_PROBE: u32 = 8;

impl DocumentTask {
    /// Performs an action. Never waits: answers come back as events.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Reply {
                session,
                ticket,
                reply,
            } => self.reply(session, ticket, reply),
            Action::Deliver { to, entries } if self.reader.is_some_and(|it| *to == [it]) => {
                self.send_catch_up(to[0], &entries);
            }
            Action::Deliver { to, entries } => self.deliver(&to, &entries),
            Action::PublishPresence {
                session,
                ticket,
                client,
                presence,
            } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.take_request(ticket);
                    let service = &self.services.presence;
                    self.services.metrics.presences_published.inc();
                    service.publish(session, &client, &known.outbox, presence);
                }
                self.answered.push(session);
            }
            Action::Send { to, message } => self.send_to_peer(to, message),
            Action::LoadSnapshot => {
                self.start(|services, doc| async move { services.loader.load_snapshot(&doc).await })
            }
            Action::RefoldSnapshot { snapshot, entries } => {
                self.start(|services, _| async move {
                    services.loader.refold_snapshot(snapshot, entries).await
                });
            }
            Action::EncodeSnapshot(snapshot) => {
                self.start(
                    |services, _| async move { services.loader.encode_snapshot(snapshot).await },
                )
            }
            Action::LoadPage { requester, since } => self.load_page(requester, since),
            Action::RequestSlice(epoch) => self.start(move |services, _| async move {
                Completion {
                    slice: services.slices.begin().await,
                    event: Event::SliceGranted(epoch),
                }
            }),
            Action::Claim => {
                self.start(|services, doc| async move { services.loader.claim(&doc).await });
            }
            Action::Append { fence, entries } => self.append(fence, entries),
            Action::CloseSessions => {
                for session in self.sessions.values() {
                    session.outbox.close(CloseReason::DocumentClosed);
                }
            }
            Action::SaveSnapshot { fence, snapshot } => self.save_snapshot(fence, snapshot),
            Action::ReportRefused(entry) => self.report_refused(&entry),
        }
    }

    /// Answers a session's request.
    pub(super) fn reply(&mut self, session: SessionId, ticket: Ticket, reply: SessionReply) {
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        // The commit that the client waits for is in its outbox.
        if let SessionReply::Committed(_) = reply {
            self.throttle.wake_at_next_flush(&known.outbox);
        }
        let result = SubmitResult::of(&reply);
        if let Some(received) = known.reply(ticket, reply) {
            let path = match self.document.owned_epoch() {
                Some(_) => SubmitPath::Owner,
                None => SubmitPath::Forwarded,
            };
            let metrics = &self.services.metrics;
            metrics.submit_answered(received, path, result);
        }
        self.answered.push(session);
    }

    /// Sends a message about the document to another node.
    pub(super) fn send_to_peer(&self, to: NodeId, message: PeerMessage) {
        let message = NodeMessage::Document(self.doc.clone(), message, self.history.mark());
        self.services.peers.send(to, &message);
    }

    /// Encodes commits once, and puts the same bytes into each session's outbox.
    pub(super) fn deliver(&mut self, to: &[SessionId], entries: &[Arc<Entry>]) {
        let for_all = self.encode(entries, None);
        let metrics = &self.services.metrics;
        metrics.deliveries.inc_by((to.len() * entries.len()) as u64);
        for id in to {
            let Some(session) = self.sessions.get(id) else {
                continue;
            };
            let is_marked =
                |reader: &&CommitAuthor| entries.iter().any(|entry| reader.is_marked_in(entry));
            let frames = match session.author.as_ref().filter(is_marked) {
                Some(reader) => self.encode(entries, Some(reader)),
                None => for_all.clone(),
            };
            if let Some(session) = self.sessions.get_mut(id)
                && session.deliver(&mut self.throttle, frames).is_err()
            {
                tracing::info!(session = id.0, "a slow reader was closed");
                self.services.metrics.slow_readers_closed.inc();
            }
        }
        self.measure_delivery(to);
        if let [session] = to {
            self.answered.push(*session);
        }
    }

    /// Measures one delivery in [`DELIVERIES_PER_PROBE`], on its first socket.
    fn measure_delivery(&mut self, to: &[SessionId]) {
        self.unmeasured_deliveries += 1;
        if self.unmeasured_deliveries < DELIVERIES_PER_PROBE {
            return;
        }
        let first = to.first().and_then(|id| self.sessions.get(id));
        if let Some(session) = first {
            self.unmeasured_deliveries = 0;
            let seconds = self.services.metrics.delivery_seconds.clone();
            session.outbox.measure(DeliveryProbe::start(seconds));
        }
    }

    /// Sends commits to the session that asked for them. They do not close its outbox, however slowly it reads: the next page
    /// is read when these commits are written.
    fn send_catch_up(&mut self, id: SessionId, entries: &[Arc<Entry>]) {
        let session = self.sessions.get(&id);
        let author = session.and_then(|session| session.author.as_ref());
        let frames = self.encode(entries, author);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.send(ReplyFrames::Content(vec![frames]));
        }
        self.answered.push(id);
    }

    fn encode(&self, entries: &[Arc<Entry>], reader: Option<&CommitAuthor>) -> Bytes {
        let bytes: usize = entries.iter().map(|entry| entry.size()).sum();
        let encode = || self.services.encoder.commits(&self.doc, entries, reader);
        if bytes > IN_PLACE_BYTES {
            work_in_place(encode)
        } else {
            encode()
        }
    }

    /// Reads a page of the log. Rebasing over it may take the sequencer long.
    fn load_page(&mut self, requester: PageRequester, since: Revision) {
        let pages = &self.services.metrics.log_pages_read;
        pages.of(PageReader::of(&requester)).inc();
        let reader = match requester {
            PageRequester::CatchUp(session) => self.sessions.get(&session),
            PageRequester::Gap | PageRequester::Sequencer(_) => None,
        };
        let reader = reader.map(|session| session.outbox.clone());
        self.start(move |services, doc| async move {
            let mut permit = None;
            if let (PageRequester::CatchUp(session), Some(reader)) = (requester, reader) {
                permit = services.loader.catch_up_permit(&reader).await;
                if permit.is_none() {
                    return Completion::from(Event::SessionClosed(session));
                }
            }
            let page = services.loader.load_page(&doc, since).await;
            drop(permit);
            let event = Event::PageLoaded {
                requester,
                since,
                page,
            };
            let slice = match requester {
                PageRequester::Sequencer(_) => services.slices.begin().await,
                PageRequester::Gap | PageRequester::CatchUp(_) => None,
            };
            Completion { event, slice }
        });
    }

    fn append(&mut self, fence: Fence, entries: Vec<Arc<Entry>>) {
        let batch = Batch {
            doc: self.doc.clone(),
            fence,
            entries,
        };
        self.start(move |services, _| async move {
            let result = services.loader.append(batch).await;
            Event::Appended { fence, result }
        });
    }

    /// Saves a snapshot beside the task. The store bounds how many it accepts.
    fn save_snapshot(&self, fence: Fence, snapshot: Snapshot) {
        let (services, doc) = (self.services.clone(), self.doc.clone());
        let save = async move {
            let loader = &services.loader;
            loader.save_snapshot(&doc, fence, snapshot).await;
        };
        tokio::spawn(save.in_current_span());
    }

    /// Starts a request. Its completion is handled as an event.
    fn start<F, C>(&mut self, request: impl FnOnce(Arc<NodeServices>, DocId) -> F)
    where
        F: Future<Output = C> + Send + 'static,
        C: Into<Completion> + 'static,
    {
        let request = request(self.services.clone(), self.doc.clone());
        self.pending.push(request.map(C::into).boxed());
    }
}
