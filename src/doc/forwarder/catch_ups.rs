//! The catch-ups of clients that are behind the tail.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::doc::action::SessionReply;
use crate::doc::effects::Effects;
use crate::doc::event::{PageRequester, ReadMode, Ticket};
use crate::doc::rejection::Rejection;
use crate::id::SessionId;
use crate::log::Revision;

/// A read of the log for one session.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) session: SessionId,
    /// The revision up to which the session has been sent everything.
    pub(super) at: Revision,
    /// Whether the next page was requested and the store has not failed to answer.
    pub(super) is_page_requested: bool,
    pub(super) goal: CatchUpGoal,
}

/// The end of a catch-up.
#[derive(Debug, Clone, Copy)]
pub(super) enum CatchUpGoal {
    /// The session has everything up to the tail's head: its read is done, and a subscription begins.
    Read {
        ticket: Ticket,
        mode: ReadMode,
        /// The revision that its client has, by the client's own account.
        has: Revision,
    },
    /// The session has been sent its own commit, which has this revision.
    OwnCommit(Revision),
    /// The store has shown that the log reaches `min`, which the client named: the read can be served.
    ProveRevision {
        ticket: Ticket,
        mode: ReadMode,
        min: Revision,
        deadline: Duration,
    },
}

impl CatchUp {
    pub(super) fn new(session: SessionId, at: Revision, goal: CatchUpGoal) -> Self {
        Self {
            session,
            at,
            is_page_requested: false,
            goal,
        }
    }

    /// The read that waits for the catch-up, if it is for a read.
    fn read(&self) -> Option<(Ticket, ReadMode)> {
        match self.goal {
            CatchUpGoal::Read { ticket, mode, .. }
            | CatchUpGoal::ProveRevision { ticket, mode, .. } => Some((ticket, mode)),
            CatchUpGoal::OwnCommit(_) => None,
        }
    }
}

/// The catch-ups of all sessions, oldest first. Those of one session run one after the other, so that its client is sent no
/// commit before an older one.
#[derive(Debug, Default)]
pub(super) struct CatchUps(VecDeque<CatchUp>);

impl CatchUps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has_session(&self, session: SessionId) -> bool {
        self.0.iter().any(|catch_up| catch_up.session == session)
    }

    /// The sessions that are catching up.
    fn sessions(&self) -> BTreeSet<SessionId> {
        self.0.iter().map(|catch_up| catch_up.session).collect()
    }

    /// Adds a catch-up, and starts it if it is the session's only one.
    pub(super) fn add(&mut self, catch_up: CatchUp, effects: &mut Effects) {
        let session = catch_up.session;
        self.0.push_back(catch_up);
        self.request_page(session, effects);
    }

    /// Makes the session's last catch-up go on to its own commit `revision`, if it is one to an own commit that is sent the
    /// entries up to `at`. Returns false if it is not.
    pub(super) fn extend_own_commit(
        &mut self,
        session: SessionId,
        at: Revision,
        revision: Revision,
    ) -> bool {
        let mut catch_ups = self.0.iter_mut().rev();
        let last = catch_ups.find(|catch_up| catch_up.session == session);
        let Some(catch_up) = last.filter(|catch_up| catch_up.at <= at) else {
            return false;
        };
        match &mut catch_up.goal {
            CatchUpGoal::OwnCommit(until) if at <= *until => {
                *until = revision.max(*until);
                true
            }
            _ => false,
        }
    }

    /// Requests the next page of the session's oldest catch-up, unless that is under way.
    pub(super) fn request_page(&mut self, session: SessionId, effects: &mut Effects) {
        let mut catch_ups = self.0.iter_mut();
        let first = catch_ups.find(|catch_up| catch_up.session == session);
        if let Some(catch_up) = first.filter(|catch_up| !catch_up.is_page_requested) {
            catch_up.is_page_requested = true;
            effects.load_page(PageRequester::CatchUp(session), catch_up.at);
        }
    }

    /// Requests the pages that the store failed to answer.
    pub(super) fn retry(&mut self, effects: &mut Effects) {
        for session in self.sessions() {
            self.request_page(session, effects);
        }
    }

    pub(super) fn remove_session(&mut self, session: SessionId) {
        self.0.retain(|catch_up| catch_up.session != session);
    }

    /// Takes out the session's subscriptions: the tickets to answer.
    pub(super) fn end_subscriptions(&mut self, session: SessionId) -> Vec<Ticket> {
        let mut ended = Vec::new();
        self.0.retain(|catch_up| match catch_up.read() {
            Some((ticket, ReadMode::Subscribe)) if catch_up.session == session => {
                ended.push(ticket);
                false
            }
            Some(_) | None => true,
        });
        ended
    }

    /// Ends all catch-ups, and rejects the reads that wait for them.
    pub(super) fn reject_all(&mut self, rejection: &Rejection, effects: &mut Effects) {
        for catch_up in std::mem::take(&mut self.0) {
            if let Some((ticket, _)) = catch_up.read() {
                let rejected = SessionReply::Rejected(rejection.clone());
                effects.reply(catch_up.session, ticket, rejected);
            }
        }
    }

    /// The catch-up that requested the page after `at`.
    pub(super) fn awaiting(&mut self, session: SessionId, at: Revision) -> Option<&mut CatchUp> {
        let place = self.find(session, at)?;
        self.0.get_mut(place)
    }

    /// Takes out the catch-up that requested the page after `at`.
    pub(super) fn take_awaiting(&mut self, session: SessionId, at: Revision) -> Option<CatchUp> {
        let place = self.find(session, at)?;
        self.0.remove(place)
    }

    fn find(&self, session: SessionId, at: Revision) -> Option<usize> {
        self.0.iter().position(|catch_up| {
            catch_up.session == session && catch_up.at == at && catch_up.is_page_requested
        })
    }
}
