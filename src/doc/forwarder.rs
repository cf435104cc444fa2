//! Every node's half of a document: it stands between this node's sessions and the owner, wherever the owner is.

mod catch_up;
mod catch_ups;
mod pending_submits;
mod presence;
mod read;
mod read_only;
mod sent_ranges;
mod store_outage;
mod subscribers;

use std::sync::Arc;

use self::catch_ups::{CatchUp, CatchUpGoal, CatchUps};
use self::pending_submits::{PendingSubmit, PendingSubmits};
pub(super) use self::read::ReadRequest;
use self::read::{PendingRead, SnapshotCache};
use self::read_only::ReadOnlyDocument;
pub(super) use self::read_only::{OwnerPlace, PendingOnReadOnly};
use self::sent_ranges::SentRanges;
use self::store_outage::StoreOutage;
use self::subscribers::Subscribers;
use super::action::{Action, SessionReply};
use super::effects::Effects;
use super::event::{Now, PageRequester, Ticket};
use super::rejection::Rejection;
use super::settings::DocumentSettings;
use super::submit::Submit;
use crate::id::SessionId;
use crate::log::{Entry, Revision, SubmitId, Tail};

/// Delivers commits to this node's sessions in order, answers their reads, and sends their submits to the owner until each is
/// answered. A commit is checked by its revision, never by its sender.
///
/// # Contract
///
/// Every method may be called at any time. What a method wants done it adds to `effects`. The document feeds back:
/// [`commits`](Self::commits) for each message of the owner, [`snapshot_encoded`](Self::snapshot_encoded) or
/// [`snapshot_failed`](Self::snapshot_failed) once for each requested snapshot, and for each requested page
/// [`gap_page`](Self::gap_page), [`catch_up_page`](Self::catch_up_page), [`catch_up_failed`](Self::catch_up_failed) or
/// [`catch_up_damaged`](Self::catch_up_damaged). Failures of the store need [`retry`](Self::retry) later, and unanswered submits
/// [`resend`](Self::resend); the document has the timers.
#[derive(Debug)]
pub(super) struct Forwarder {
    /// The newest delivered commits; `None` until the first are known.
    tail: Option<Tail>,
    /// The newest revision that this node was told of. What is missing up to it is read from the store.
    known_head: Revision,
    /// The sessions that are sent every commit. All of them have been sent everything up to the tail's head.
    subscribers: Subscribers,
    snapshot: SnapshotCache,
    /// The reads that wait for a snapshot, or for the tail to be known at all.
    pending_reads: Vec<PendingRead>,
    /// The reads of clients that are behind the tail.
    catch_ups: CatchUps,
    pending_submits: PendingSubmits,
    /// What sessions were sent with the acks of their submits.
    sent_ranges: SentRanges,
    /// The entries after the tail's head that were requested and have not arrived.
    gap: Option<GapRequest>,
    /// Whether this node's own sequencer sends the commits.
    is_owner_here: bool,
    /// Set while the store does not answer.
    store_outage: Option<StoreOutage>,
    /// Set while only a part of the document can be read.
    read_only: Option<ReadOnlyDocument>,
    settings: DocumentSettings,
}

/// A request for entries after the tail's head.
#[derive(Debug, Clone, Copy)]
struct GapRequest {
    /// The revision before the first of them.
    since: Revision,
    /// The newest known revision at the time of the request.
    known_head: Revision,
}

/// When an entry was delivered to the subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeliveryTiming {
    Earlier,
    Now,
}

impl Forwarder {
    /// A forwarder that knows nothing of the document.
    pub(super) fn new(settings: DocumentSettings) -> Self {
        Self {
            tail: None,
            known_head: Revision::ZERO,
            subscribers: Subscribers::default(),
            snapshot: SnapshotCache::default(),
            pending_reads: Vec::new(),
            catch_ups: CatchUps::default(),
            pending_submits: PendingSubmits::default(),
            sent_ranges: SentRanges::default(),
            gap: None,
            is_owner_here: false,
            store_outage: None,
            read_only: None,
            settings,
        }
    }

    /// Returns true if no session needs anything.
    pub(super) fn is_idle(&self) -> bool {
        self.subscribers.is_empty()
            && self.pending_reads.is_empty()
            && self.catch_ups.is_empty()
            && self.pending_submits.is_empty()
    }

    /// Returns true if the session needs anything.
    pub(super) fn has_session(&self, session: SessionId) -> bool {
        self.subscribers.contains(session)
            || self.pending_submits.has_session(session)
            || self
                .pending_reads
                .iter()
                .any(|read| read.session == session)
            || self.catch_ups.has_session(session)
    }

    /// Returns true if a submit is with the owner.
    pub(super) fn is_submit_pending(&self) -> bool {
        self.pending_submits.is_any_with_owner()
    }

    /// Returns true if a session is subscribed.
    pub(super) fn has_subscribers(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// The newest delivered revision.
    pub(super) fn head(&self) -> Revision {
        self.tail.as_ref().map_or(Revision::ZERO, Tail::head)
    }

    /// The newest delivered commit; `None` if only a snapshot is known.
    pub(super) fn newest(&self) -> Option<&Arc<Entry>> {
        self.tail.as_ref()?.newest()
    }

    /// The delivered commit of this revision; `None` if it is not held in memory.
    pub(super) fn entry(&self, revision: Revision) -> Option<&Arc<Entry>> {
        self.tail.as_ref()?.entry(revision)
    }

    /// This node's own sequencer begins to send the commits.
    pub(super) fn owner_started_here(&mut self) {
        self.is_owner_here = true;
    }

    /// This node's own sequencer sends no more commits.
    pub(super) fn owner_ended_here(&mut self) {
        self.is_owner_here = false;
    }

    /// Returns true if this node is told of every commit: by its own sequencer, or because a session is subscribed. The owner
    /// drops subscriptions of nodes without subscribers, and the store's feed of changes is not read for them.
    fn is_told(&self) -> bool {
        self.is_owner_here || self.has_subscribers()
    }

    /// A session wants no more commits. Its subscriptions that wait for commits are answered now, and those that wait for the
    /// document when it arrives; no commit follows.
    pub(super) fn unsubscribe(
        &mut self,
        session: SessionId,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        self.subscribers.remove(session);
        let mut ended = self.end_pending_subscriptions(session);
        ended.extend(self.catch_ups.end_subscriptions(session));
        self.catch_ups.request_page(session, effects);
        for ticket in ended {
            effects.reply(session, ticket, SessionReply::Done);
        }
        effects.reply(session, ticket, SessionReply::Done);
    }

    /// A session ended. Its submit that is with the owner may still be committed.
    pub(super) fn session_closed(&mut self, session: SessionId) {
        self.subscribers.remove(session);
        self.pending_reads.retain(|read| read.session != session);
        self.catch_ups.remove_session(session);
        self.pending_submits.remove_session(session);
        self.sent_ranges.forget(session);
    }

    /// A session may not change the document any more: its submits are rejected, except the one that is with the owner.
    pub(super) fn write_access_revoked(&mut self, session: SessionId, effects: &mut Effects) {
        let rejection = Rejection::read_only_access();
        self.pending_submits
            .reject_unsent(session, &rejection, effects);
    }

    /// A session wants a change committed.
    pub(super) fn submit(
        &mut self,
        session: SessionId,
        ticket: Ticket,
        submit: Submit,
        effects: &mut Effects,
    ) {
        let submits_max = self.settings.session_submits_max;
        self.pending_submits
            .add((session, ticket), submit, submits_max, effects);
    }

    /// Sends every submit again that is with the owner.
    pub(super) fn resend(&self, effects: &mut Effects) {
        self.pending_submits.resend(effects);
    }

    /// The requests that wait for this submit.
    pub(super) fn requests_of(&self, id: &SubmitId) -> Vec<(SessionId, Ticket)> {
        self.pending_submits.requests_of(id)
    }

    /// The log has this head. `entries` are commits, known or new, without a gap among them.
    pub(super) fn commits(
        &mut self,
        head: Revision,
        entries: &[Arc<Entry>],
        effects: &mut Effects,
    ) {
        if self.stays_read_only(head) {
            return;
        }
        self.known_head = self.known_head.max(head);
        let start = entries
            .first()
            .map_or(head, |first| first.revision.before());
        let tail = self.tail.get_or_insert_with(|| Tail::new(start));
        // The number of known entries. There is none if a gap lies before the entries; it is filled below.
        if let Some(known) = tail.head().0.checked_sub(start.0) {
            let known = usize::try_from(known)
                .unwrap_or(usize::MAX)
                .min(entries.len());
            let (old, new) = entries.split_at(known);
            self.deliver(new, effects);
            for entry in old {
                self.answer_submits(entry, DeliveryTiming::Earlier, effects);
            }
            for entry in new {
                self.answer_submits(entry, DeliveryTiming::Now, effects);
            }
            self.serve_pending(effects);
        }
        if self.head() < self.known_head {
            self.request_gap(effects);
        }
    }

    /// Adds the entries after the tail's head to the tail, and delivers them.
    fn deliver(&mut self, new: &[Arc<Entry>], effects: &mut Effects) {
        let Some(tail) = self.tail.as_mut().filter(|_| !new.is_empty()) else {
            return;
        };
        for entry in new {
            tail.push(entry.clone());
        }
        tail.trim(
            self.settings.tail_entries_max,
            self.settings.tail_bytes_max,
            |_| {},
        );
        if !self.subscribers.is_empty() {
            effects.action(Action::Deliver {
                to: self.subscribers.shared(),
                entries: new.to_vec(),
            });
        }
    }

    /// Answers the submit that this entry commits, on each session that sent it.
    fn answer_submits(
        &mut self,
        entry: &Arc<Entry>,
        delivery: DeliveryTiming,
        effects: &mut Effects,
    ) {
        while let Some((session, pending)) = self.pending_submits.take(&entry.id) {
            self.answer_submit(session, &pending, entry, delivery, effects);
            self.pending_submits.send_first(session, effects);
        }
    }

    fn answer_submit(
        &mut self,
        session: SessionId,
        pending: &PendingSubmit,
        entry: &Arc<Entry>,
        delivery: DeliveryTiming,
        effects: &mut Effects,
    ) {
        let committed = SessionReply::Committed(entry.clone());
        effects.reply(session, pending.ticket, committed);
        let was_delivered = delivery == DeliveryTiming::Now && self.subscribers.contains(session);
        if was_delivered {
            return;
        }
        // The session is sent the entries from the submit's base to its commit, except those that it was sent before. A submit
        // without a base is answered by its commit alone, which its client may not be able to apply: it does not count as sent.
        let before = entry.revision.before();
        let at = match pending.submit.base {
            Some(base) => {
                let sent = self.sent_ranges.extend(session, base, entry.revision);
                if self
                    .catch_ups
                    .extend_own_commit(session, sent, entry.revision)
                {
                    return;
                }
                // What another catch-up is to send has not been sent yet.
                let is_catching_up = self.catch_ups.has_session(session);
                if is_catching_up {
                    base.min(before)
                } else {
                    sent
                }
            }
            None => before,
        };
        let catch_up = CatchUp::new(session, at, CatchUpGoal::OwnCommit(entry.revision));
        let tail = self.tail.as_ref();
        if tail.is_some_and(|tail| tail.since(at).is_some()) {
            self.finish_catch_up(&catch_up, effects);
        } else {
            self.catch_ups.add(catch_up, effects);
        }
    }

    /// The owner rejected a submit.
    pub(super) fn rejected(&mut self, id: &SubmitId, rejection: &Rejection, effects: &mut Effects) {
        while let Some((session, pending)) = self.pending_submits.take(id) {
            let rejected = SessionReply::Rejected(rejection.clone());
            effects.reply(session, pending.ticket, rejected);
            self.pending_submits.send_first(session, effects);
        }
    }

    /// Asks the store again for what is still needed, and rejects the reads that have waited too long.
    pub(super) fn retry(&mut self, now: Now, effects: &mut Effects) {
        self.reject_overdue(now, effects);
        if !self.pending_reads.is_empty() {
            self.snapshot.request(effects);
        }
        self.catch_ups.retry(effects);
        if self.gap.take().is_some() {
            self.request_gap(effects);
        }
    }

    /// Requests the entries after the tail's head, unless that is under way.
    fn request_gap(&mut self, effects: &mut Effects) {
        if self.gap.is_none() {
            self.gap = Some(GapRequest {
                since: self.head(),
                known_head: self.known_head,
            });
            effects.load_page(PageRequester::Gap, self.head());
        }
    }

    /// Requests the entries up to the newest known revision if sessions need them.
    fn fill_gap_if_told(&mut self, effects: &mut Effects) {
        if self.is_told() && self.head() < self.known_head {
            self.request_gap(effects);
        }
    }

    /// The page after the tail's head was loaded. A page of a catch-up is never used here: it may have been read before the
    /// entries existed that this node has been told of since.
    pub(super) fn gap_page(
        &mut self,
        since: Revision,
        entries: &[Arc<Entry>],
        effects: &mut Effects,
    ) {
        // Entries that arrived from elsewhere in the meantime are known and ignored.
        let Some(gap) = self.gap.take_if(|gap| gap.since == since) else {
            return;
        };
        let head = entries.last().map_or(since, |entry| entry.revision);
        if entries.is_empty() && self.known_head == gap.known_head {
            // The log ends here although a later head was named. To request it again would not end.
            self.known_head = self.known_head.min(self.head());
            if !self.pending_reads.is_empty() {
                effects.retry_soon();
            }
        }
        self.commits(head, entries, effects);
    }
}
