//! Clients that are behind the tail: each is sent the entries that it lacks from the store, page by page, at its own pace.

use std::sync::Arc;

use super::Forwarder;
use super::catch_ups::{CatchUp, CatchUpGoal};
use super::read::{MinRevision, PendingRead};
use crate::doc::action::SessionReply;
use crate::doc::effects::Effects;
use crate::doc::event::ReadMode;
use crate::doc::rejection::Rejection;
use crate::id::SessionId;
use crate::log::{Entry, Revision};

impl Forwarder {
    /// A page of the log was loaded for a client that is behind.
    pub(in crate::doc) fn catch_up_page(
        &mut self,
        session: SessionId,
        since: Revision,
        entries: &[Arc<Entry>],
        effects: &mut Effects,
    ) {
        let Some(catch_up) = self.catch_ups.awaiting(session, since) else {
            return;
        };
        let (has, until) = match catch_up.goal {
            CatchUpGoal::ProveRevision { .. } => {
                return self.prove(session, since, entries, effects);
            }
            CatchUpGoal::OwnCommit(revision) => (Revision::ZERO, revision),
            CatchUpGoal::Read { has, .. } => (has, Revision(u64::MAX)),
        };
        let page = entries.iter().take_while(|entry| entry.revision <= until);
        let Some(last) = page.clone().last().map(|entry| entry.revision) else {
            // The log ends here, or lacks what its head promises. In both cases there is nothing more to send.
            return self.finish_first(session, since, effects);
        };
        // Send what the client lacks of the page.
        catch_up.at = last;
        let lacking: Vec<_> = page.filter(|entry| entry.revision > has).cloned().collect();
        if !lacking.is_empty() {
            effects.deliver(session, lacking);
        }
        // Go on from the tail if it reaches back so far, otherwise with the next page.
        let tail = self.tail.as_ref();
        if last == until || tail.is_some_and(|tail| tail.since(last).is_some()) {
            self.finish_first(session, last, effects);
        } else {
            catch_up.is_page_requested = false;
            self.catch_ups.request_page(session, effects);
        }
        self.known_head = self.known_head.max(last);
        self.fill_gap_if_told(effects);
    }

    fn finish_first(&mut self, session: SessionId, at: Revision, effects: &mut Effects) {
        if let Some(catch_up) = self.catch_ups.take_awaiting(session, at) {
            self.finish_catch_up(&catch_up, effects);
            self.catch_ups.request_page(catch_up.session, effects);
        }
    }

    /// Ends a catch-up that has reached the tail: sends the rest from memory, and answers its read.
    pub(super) fn finish_catch_up(&mut self, catch_up: &CatchUp, effects: &mut Effects) {
        let CatchUp {
            session, at, goal, ..
        } = *catch_up;
        let until = match goal {
            CatchUpGoal::OwnCommit(revision) => revision,
            CatchUpGoal::Read { .. } | CatchUpGoal::ProveRevision { .. } => Revision(u64::MAX),
        };
        let rest = self.tail.as_ref().and_then(|tail| tail.since(at));
        let rest: Vec<_> = rest
            .into_iter()
            .flatten()
            .take_while(|entry| entry.revision <= until)
            .cloned()
            .collect();
        let sent_until = rest.last().map_or(at, |entry| entry.revision);
        if !rest.is_empty() {
            effects.deliver(session, rest);
        }
        if matches!(goal, CatchUpGoal::OwnCommit(revision) if sent_until < revision) {
            self.sent_ranges.forget(session);
        }
        let CatchUpGoal::Read { ticket, mode, has } = goal else {
            return;
        };
        if at < has {
            let rejected = SessionReply::Rejected(Rejection::future_revision());
            return effects.reply(session, ticket, rejected);
        }
        if self.tail.as_ref().is_some_and(|tail| at < tail.start()) {
            // A subscription would begin with a gap.
            let rejected = SessionReply::Rejected(Rejection::revision_too_old());
            return effects.reply(session, ticket, rejected);
        }
        effects.reply(session, ticket, SessionReply::Done);
        if mode == ReadMode::Subscribe {
            self.subscribers.add(session);
        }
    }

    /// The page that shows whether the log reaches the revision that a client named was loaded.
    fn prove(
        &mut self,
        session: SessionId,
        since: Revision,
        entries: &[Arc<Entry>],
        effects: &mut Effects,
    ) {
        let Some(catch_up) = self.catch_ups.take_awaiting(session, since) else {
            return;
        };
        let CatchUpGoal::ProveRevision {
            ticket,
            mode,
            min,
            deadline,
        } = catch_up.goal
        else {
            return;
        };
        if entries.first().is_none_or(|entry| entry.revision != min) {
            let rejected = SessionReply::Rejected(Rejection::future_revision());
            effects.reply(session, ticket, rejected);
        } else {
            self.known_head = self.known_head.max(min);
            self.fill_gap_if_told(effects);
            let freshness = match self.is_told() {
                true => MinRevision::Known(self.known_head),
                false => self.next_snapshot(),
            };
            let read = PendingRead {
                session,
                ticket,
                mode,
                since: None,
                min,
                freshness,
                deadline,
            };
            self.serve_or_wait(read, effects);
        }
        self.catch_ups.request_page(session, effects);
    }

    /// The store did not answer for a client that is behind. Its page is requested again with the next retry; a client that
    /// has nothing of the document is rejected.
    pub(in crate::doc) fn catch_up_failed(
        &mut self,
        session: SessionId,
        since: Revision,
        effects: &mut Effects,
    ) {
        let Some(catch_up) = self.catch_ups.awaiting(session, since) else {
            return;
        };
        if let CatchUpGoal::ProveRevision { ticket, .. } = catch_up.goal {
            self.catch_ups.take_awaiting(session, since);
            let rejected = SessionReply::Rejected(Rejection::store_unavailable());
            effects.reply(session, ticket, rejected);
            self.catch_ups.request_page(session, effects);
        } else {
            catch_up.is_page_requested = false;
        }
    }

    /// The page that a client needs is damaged: its read is rejected. A client that waits for its own commit is sent that
    /// alone if it is in memory; the gap before it makes the client fetch, and that fetch is rejected.
    pub(in crate::doc) fn catch_up_damaged(
        &mut self,
        session: SessionId,
        since: Revision,
        rejection: &Rejection,
        effects: &mut Effects,
    ) {
        let Some(catch_up) = self.catch_ups.take_awaiting(session, since) else {
            return;
        };
        match catch_up.goal {
            CatchUpGoal::Read { ticket, .. } | CatchUpGoal::ProveRevision { ticket, .. } => {
                let rejected = SessionReply::Rejected(rejection.clone());
                effects.reply(session, ticket, rejected);
            }
            CatchUpGoal::OwnCommit(revision) => {
                self.sent_ranges.forget(session);
                let tail = self.tail.as_ref();
                let own = tail.and_then(|tail| tail.since(revision.before()));
                let own: Vec<_> = own.into_iter().flatten().take(1).cloned().collect();
                if !own.is_empty() {
                    effects.deliver(session, own);
                }
            }
        }
        self.catch_ups.request_page(session, effects);
    }
}
