//! The submits of this node's sessions that are not answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::doc::action::SessionReply;
use crate::doc::effects::{Attempt, Effects};
use crate::doc::event::Ticket;
use crate::doc::rejection::Rejection;
use crate::doc::submit::Submit;
use crate::id::{ClientId, SessionId};
use crate::log::SubmitId;

/// The unanswered submits of each session, oldest first. Only the first of each session is with the owner, so that a
/// session's submits keep their order.
#[derive(Debug, Default)]
pub(super) struct PendingSubmits {
    by_session: BTreeMap<SessionId, VecDeque<PendingSubmit>>,
    /// The submits that are with the owner. A client that reconnects sends the same submit on two sockets for a while; each
    /// is answered.
    with_owner: BTreeSet<(ClientId, u64, SessionId)>,
}

/// A submit that is not answered.
#[derive(Debug)]
pub(super) struct PendingSubmit {
    pub(super) ticket: Ticket,
    pub(super) submit: Submit,
}

impl PendingSubmits {
    pub(super) fn is_empty(&self) -> bool {
        self.by_session.is_empty()
    }

    /// Returns true if a submit of the session is pending.
    pub(super) fn has_session(&self, session: SessionId) -> bool {
        self.by_session.contains_key(&session)
    }

    /// Returns true if a submit is with the owner.
    pub(super) fn is_any_with_owner(&self) -> bool {
        !self.with_owner.is_empty()
    }

    /// Adds a submit, and sends it if it is the session's only one. Rejects it if the session has `submits_max` already.
    pub(super) fn add(
        &mut self,
        (session, ticket): (SessionId, Ticket),
        submit: Submit,
        submits_max: usize,
        effects: &mut Effects,
    ) {
        let queue = self.by_session.entry(session).or_default();
        if queue.len() >= submits_max {
            let busy = SessionReply::Rejected(Rejection::busy());
            return effects.reply(session, ticket, busy);
        }
        queue.push_back(PendingSubmit { ticket, submit });
        if queue.len() == 1 {
            self.send_first(session, effects);
        }
    }

    /// Sends the session's oldest submit to the owner.
    pub(super) fn send_first(&mut self, session: SessionId, effects: &mut Effects) {
        if let Some(first) = self.by_session.get(&session).and_then(VecDeque::front) {
            self.with_owner.insert(key(&first.submit.id, session));
            effects.submit(first.submit.clone(), Attempt::First);
        }
    }

    /// Sends every submit again that is with the owner: the owner may have changed, or the message was lost.
    pub(super) fn resend(&self, effects: &mut Effects) {
        for (_, _, session) in &self.with_owner {
            if let Some(first) = self.by_session.get(session).and_then(VecDeque::front) {
                effects.submit(first.submit.clone(), Attempt::Repeated);
            }
        }
    }

    /// The requests that wait for this submit.
    pub(super) fn requests_of(&self, id: &SubmitId) -> Vec<(SessionId, Ticket)> {
        let first = |session: &SessionId| self.by_session.get(session)?.front();
        self.sessions_of(id)
            .filter_map(|session| Some((session, first(&session)?)))
            .filter(|(_, first)| first.submit.id == *id)
            .map(|(session, first)| (session, first.ticket))
            .collect()
    }

    /// The sessions on which this client's `seq` is with the owner.
    fn sessions_of(&self, id: &SubmitId) -> impl Iterator<Item = SessionId> {
        let (first, last) = (SessionId(0), SessionId(u64::MAX));
        let range = self.with_owner.range(key(id, first)..=key(id, last));
        range.map(|(_, _, session)| *session)
    }

    /// Takes out one request that waits for this submit.
    pub(super) fn take(&mut self, id: &SubmitId) -> Option<(SessionId, PendingSubmit)> {
        let is_this = |session: &SessionId| {
            let first = self.by_session.get(session).and_then(VecDeque::front);
            first.is_some_and(|first| first.submit.id == *id)
        };
        let session = self.sessions_of(id).find(is_this)?;
        let queue = self.by_session.get_mut(&session)?;
        let first = queue.pop_front()?;
        if queue.is_empty() {
            self.by_session.remove(&session);
        }
        self.with_owner.remove(&key(id, session));
        Some((session, first))
    }

    /// Removes the session's submits without an answer. The one that is with the owner may still be committed.
    pub(super) fn remove_session(&mut self, session: SessionId) {
        self.by_session.remove(&session);
        self.with_owner
            .retain(|(_, _, waiting)| *waiting != session);
    }

    /// Rejects the session's submits that are not with the owner.
    pub(super) fn reject_unsent(
        &mut self,
        session: SessionId,
        rejection: &Rejection,
        effects: &mut Effects,
    ) {
        let Some(queue) = self.by_session.get_mut(&session) else {
            return;
        };
        for pending in queue.split_off(1.min(queue.len())) {
            let rejected = SessionReply::Rejected(rejection.clone());
            effects.reply(session, pending.ticket, rejected);
        }
    }

    /// Rejects all submits.
    pub(super) fn reject_all(&mut self, rejection: &Rejection, effects: &mut Effects) {
        self.with_owner.clear();
        for (session, queue) in std::mem::take(&mut self.by_session) {
            for pending in queue {
                let rejected = SessionReply::Rejected(rejection.clone());
                effects.reply(session, pending.ticket, rejected);
            }
        }
    }
}

fn key(id: &SubmitId, session: SessionId) -> (ClientId, u64, SessionId) {
    (id.client.clone(), id.seq, session)
}
