//! The output of a document's two state machines.

use std::collections::VecDeque;
use std::sync::Arc;

use super::action::{Action, SessionReply};
use super::event::{PageRequester, Ticket};
use super::peer_message::PeerMessage;
use super::rejection::Rejection;
use super::submit::Submit;
use crate::id::{NodeId, SessionId};
use crate::log::{Entry, Revision, SubmitId};

/// Everything that the forwarder and the sequencer want done, in order.
///
/// The machines only add. [`Document::handle`](super::Document::handle) takes everything out before it returns, and is the only
/// place where effects are matched.
#[derive(Debug)]
pub(super) struct Effects {
    /// This node. Messages to it do not leave the document.
    me: NodeId,
    queue: VecDeque<Effect>,
}

/// One effect.
#[derive(Debug)]
pub(super) enum Effect {
    /// Something for the caller of the document.
    Action(Action),
    /// A message that this node sends to itself.
    LocalMessage(PeerMessage),
    /// From the forwarder: bring this submit to the owner.
    Submit(Submit, Attempt),
    /// From the forwarder: encode a snapshot of the newest durable revision.
    RequestSnapshot,
    /// From the forwarder: retry after the shortest delay.
    RetrySoon,
}

/// Whether a submit was brought to the owner before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It was not.
    First,
    /// It was, without an answer so far.
    Repeated,
}

impl Effects {
    /// No effects of a document on the node `me`.
    pub(super) fn new(me: NodeId) -> Self {
        let queue = VecDeque::new();
        Self { me, queue }
    }

    /// Takes out the oldest effect.
    pub(super) fn pop(&mut self) -> Option<Effect> {
        self.queue.pop_front()
    }

    /// Adds something for the caller of the document.
    pub(super) fn action(&mut self, action: Action) {
        self.queue.push_back(Effect::Action(action));
    }

    /// Sends a message to a node, which may be this one.
    pub(super) fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.queue.push_back(if to == self.me {
            Effect::LocalMessage(message)
        } else {
            Effect::Action(Action::Send { to, message })
        });
    }

    /// Sends a node the rejection of a submit.
    pub(super) fn reject(&mut self, to: NodeId, id: SubmitId, rejection: Rejection) {
        self.send(to, PeerMessage::Reject { id, rejection });
    }

    /// Answers a session's request.
    pub(super) fn reply(&mut self, session: SessionId, ticket: Ticket, reply: SessionReply) {
        self.action(Action::Reply {
            session,
            ticket,
            reply,
        });
    }

    /// Delivers commits to one session.
    pub(super) fn deliver(&mut self, session: SessionId, entries: Vec<Arc<Entry>>) {
        let to = Arc::new(vec![session]);
        self.action(Action::Deliver { to, entries });
    }

    /// Loads the page of the log after `since`.
    pub(super) fn load_page(&mut self, requester: PageRequester, since: Revision) {
        self.action(Action::LoadPage { requester, since });
    }

    /// Brings a submit to the owner.
    pub(super) fn submit(&mut self, submit: Submit, attempt: Attempt) {
        self.queue.push_back(Effect::Submit(submit, attempt));
    }

    /// Asks for an encoded snapshot of the newest durable revision.
    pub(super) fn request_snapshot(&mut self) {
        self.queue.push_back(Effect::RequestSnapshot);
    }

    /// Asks for a retry after the shortest delay.
    pub(super) fn retry_soon(&mut self) {
        self.queue.push_back(Effect::RetrySoon);
    }

    /// Takes out everything.
    #[cfg(test)]
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Effect> {
        self.queue.drain(..)
    }
}
