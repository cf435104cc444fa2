//! A session of this node as its document's task knows it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::doc::{Rejection, SessionReply, SessionRequest, Ticket};
use crate::node::delivery::encoder::CommitAuthor;
use crate::node::delivery::outbox::{Outbox, OutboxFull};
use crate::node::delivery::reply::{BulkReply, ReplyFrames, ReplyTo};
use crate::node::delivery::throttle::DeliveryThrottle;

/// How many requests of one session may wait for one document before its next read is rejected. A client has a few.
pub(super) const READS_MAX: usize = 100;

/// A session of this node as its document's task knows it.
#[derive(Debug)]
pub(super) struct DocumentSession {
    pub(super) outbox: Arc<Outbox>,
    /// The bulk reply behind which everything for the session is held back.
    held_by: Option<Arc<BulkReply>>,
    /// The requests without an answer.
    requests: Vec<(Ticket, ReplyTo)>,
    /// The client of its newest submit.
    pub(super) author: Option<CommitAuthor>,
}

impl DocumentSession {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            held_by: None,
            requests: Vec::new(),
            author: None,
        }
    }

    /// Adds a request. Returns false if it was rejected because too many wait.
    pub(super) fn add_request(
        &mut self,
        ticket: Ticket,
        reply_to: ReplyTo,
        request: &SessionRequest,
    ) -> bool {
        if let SessionRequest::Submit(submit) = request {
            self.author = Some(CommitAuthor {
                user: submit.id.author.clone(),
                client: submit.id.client.clone(),
            });
        }
        // Submits have a bound of their own, and the end of a subscription only reduces what waits.
        if is_read(request) && self.requests.len() >= READS_MAX {
            let frames = reply_to.reply(&self.outbox, SessionReply::Rejected(Rejection::busy()));
            self.send(frames);
            return false;
        }
        // What is held back stays behind the reply that holds it: commits keep their order.
        let held_by = self.held_by.as_ref();
        if held_by.is_none_or(|bulk| !bulk.is_incomplete()) {
            self.held_by = reply_to.holding_bulk();
        }
        self.requests.push((ticket, reply_to));
        true
    }

    /// Removes a request that is answered.
    pub(super) fn take_request(&mut self, ticket: Ticket) -> Option<ReplyTo> {
        let mut requests = self.requests.iter();
        let at = requests.position(|(waiting, _)| *waiting == ticket)?;
        Some(self.requests.swap_remove(at).1)
    }

    /// Answers a request. If it is a submit, returns when its frame was read.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: SessionReply) -> Option<Instant> {
        let reply_to = self.take_request(ticket)?;
        let received = reply_to.submit_received();
        let frames = reply_to.reply(&self.outbox, reply);
        self.send(frames);
        received
    }

    /// Sends the frames of a reply, behind everything that is held back.
    pub(super) fn send(&mut self, frames: ReplyFrames) {
        match frames {
            ReplyFrames::None => {}
            ReplyFrames::Pushed(frame) => {
                if !self.hold(std::slice::from_ref(&frame)) {
                    // A full outbox closes itself, which ends its session.
                    let _ = self.outbox.push(frame);
                }
            }
            ReplyFrames::Content(pieces) => {
                if !self.hold(&pieces) {
                    self.outbox.push_reply(pieces);
                }
            }
        }
    }

    /// Sends commits at the document's pace, behind everything that is held back.
    pub(super) fn deliver(
        &mut self,
        throttle: &mut DeliveryThrottle,
        frames: Bytes,
    ) -> Result<(), OutboxFull> {
        if self.hold(std::slice::from_ref(&frames)) {
            return Ok(());
        }
        throttle.push(&self.outbox, frames)
    }

    /// Holds frames back behind a bulk reply. Returns false if there is none, or it is complete.
    fn hold(&mut self, pieces: &[Bytes]) -> bool {
        let bulk = self.held_by.as_ref();
        let is_held = bulk.is_some_and(|bulk| bulk.hold(&self.outbox, pieces));
        if !is_held {
            self.held_by = None;
        }
        is_held
    }
}

/// Returns true for requests that read the document.
pub(super) fn is_read(request: &SessionRequest) -> bool {
    matches!(
        request,
        SessionRequest::Fetch { .. }
            | SessionRequest::Subscribe { .. }
            | SessionRequest::ReadFrom { .. }
    )
}
