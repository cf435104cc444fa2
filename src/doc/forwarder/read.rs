//! Fetches and subscriptions, and the snapshot that answers them.

use std::sync::Arc;
use std::time::Duration;

use super::Forwarder;
use super::catch_ups::{CatchUp, CatchUpGoal};
use crate::doc::action::SessionReply;
use crate::doc::effects::Effects;
use crate::doc::encoded_snapshot::EncodedSnapshot;
use crate::doc::event::{Now, ReadMode, Ticket};
use crate::doc::rejection::Rejection;
use crate::id::SessionId;
use crate::log::{Entry, Revision, Tail};

/// How long a read waits for the store.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// A fetch or a subscription.
#[derive(Debug, Clone, Copy)]
pub(in crate::doc) struct ReadRequest {
    pub(in crate::doc) session: SessionId,
    pub(in crate::doc) ticket: Ticket,
    pub(in crate::doc) mode: ReadMode,
    /// The revision that the client has; `None`: it is sent the document.
    pub(in crate::doc) since: Option<Revision>,
    /// A revision that the client knows to be committed. The document that it is sent is not older.
    pub(in crate::doc) min: Revision,
}

/// A read that waits for a snapshot, or for the tail to be known at all.
#[derive(Debug)]
pub(super) struct PendingRead {
    pub(super) session: SessionId,
    pub(super) ticket: Ticket,
    pub(super) mode: ReadMode,
    pub(super) since: Option<Revision>,
    pub(super) min: Revision,
    pub(super) freshness: MinRevision,
    /// When the read is rejected.
    pub(super) deadline: Duration,
}

/// The lowest revision that answers a read: everything that was committed when it was requested, as far as this node is told of
/// commits (rule 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MinRevision {
    /// The newest revision known when the read was requested.
    Known(Revision),
    /// The revision of the snapshot with this number, the first that was requested after the read. Used where this node is not
    /// told of commits, so that the revision it knows may be old.
    OfSnapshot(u64),
}

/// The newest encoded snapshot, and the request for the next one.
#[derive(Debug, Default)]
pub(super) struct SnapshotCache {
    /// Serves reads, together with the commits after it.
    pub(super) newest: Option<Arc<EncodedSnapshot>>,
    /// Whether a snapshot was requested and has not arrived. There is one request at a time.
    pub(super) is_requested: bool,
    /// The number of requests so far.
    pub(super) requests: u64,
}

impl SnapshotCache {
    /// Requests a snapshot unless that is under way.
    pub(super) fn request(&mut self, effects: &mut Effects) {
        if !std::mem::replace(&mut self.is_requested, true) {
            self.requests += 1;
            effects.request_snapshot();
        }
    }
}

impl Forwarder {
    /// Serves a read now, after a snapshot, or after a catch-up.
    pub(in crate::doc) fn read(&mut self, request: ReadRequest, now: Now, effects: &mut Effects) {
        let ReadRequest {
            session,
            ticket,
            mode,
            since,
            min,
        } = request;
        // The client may have dropped what it was sent.
        self.sent_ranges.forget(session);
        if let Some(read_only) = &self.read_only {
            return effects.reply(session, ticket, read_only.answer(since));
        }
        let freshness = if self.is_told() {
            MinRevision::Known(self.head().max(self.known_head))
        } else {
            self.next_snapshot()
        };
        if mode == ReadMode::Subscribe {
            // A new subscription replaces the session's earlier one; a fetch does not end it.
            self.subscribers.remove(session);
        }
        let deadline = now.clock + READ_PATIENCE;
        if let MinRevision::Known(known) = freshness
            && min > known
        {
            // Either this node is behind, or the log has lost what the client knows.
            let goal = CatchUpGoal::ProveRevision {
                ticket,
                mode,
                min,
                deadline,
            };
            let catch_up = CatchUp::new(session, min.before(), goal);
            return self.catch_ups.add(catch_up, effects);
        }
        let read = PendingRead {
            session,
            ticket,
            mode,
            since,
            min,
            freshness,
            deadline,
        };
        self.serve_or_wait(read, effects);
    }

    /// The bound of a read that only a snapshot can answer which is requested from now on.
    pub(super) fn next_snapshot(&self) -> MinRevision {
        MinRevision::OfSnapshot(self.snapshot.requests + 1)
    }

    /// Serves a read, or lets it wait for a snapshot.
    pub(super) fn serve_or_wait(&mut self, read: PendingRead, effects: &mut Effects) {
        if let Some(read) = self.serve(read, effects) {
            self.pending_reads.push(read);
            self.snapshot.request(effects);
            self.serve_from_memory(effects);
        }
    }

    /// Serves the pending reads that can be served by now.
    pub(super) fn serve_pending(&mut self, effects: &mut Effects) {
        for read in std::mem::take(&mut self.pending_reads) {
            if let Some(read) = self.serve(read, effects) {
                self.pending_reads.push(read);
            }
        }
    }

    /// Serves a read, or returns it if it has to wait.
    pub(super) fn serve(
        &mut self,
        read: PendingRead,
        effects: &mut Effects,
    ) -> Option<PendingRead> {
        let (Some(tail), MinRevision::Known(least)) = (&self.tail, read.freshness) else {
            return Some(read);
        };
        match read.since {
            None => self.serve_document(read, least, effects),
            // The missing entries are being read.
            Some(since) if since.max(tail.head()) < least => Some(read),
            Some(has) => {
                self.serve_commits(&read, has, effects);
                None
            }
        }
    }

    /// Serves the document as of `least` or later: the cached snapshot and the commits after it.
    fn serve_document(
        &mut self,
        read: PendingRead,
        least: Revision,
        effects: &mut Effects,
    ) -> Option<PendingRead> {
        let snapshot = self.snapshot.newest.as_ref();
        let snapshot = snapshot.filter(|snapshot| snapshot.revision >= least);
        // A snapshot may be newer than the tail: its entries then follow once more, and clients ignore them.
        let after = snapshot.zip(self.tail.as_ref());
        let after = after.and_then(|(snapshot, tail)| {
            let after = tail.since(snapshot.revision.min(tail.head()))?;
            Some(after.cloned().collect::<Vec<_>>())
        });
        let (Some(snapshot), Some(after)) = (snapshot, after) else {
            return Some(read);
        };
        let (session, subscribes) = (read.session, read.mode == ReadMode::Subscribe);
        let snapshot = SessionReply::Snapshot(snapshot.clone());
        effects.reply(session, read.ticket, snapshot);
        // A subscriber that fetches has ignored the commits that it was sent since it requested the document.
        let listens = subscribes || self.subscribers.contains(session);
        if listens && !after.is_empty() {
            effects.deliver(session, after);
        }
        if subscribes {
            self.subscribers.add(session);
        }
        None
    }

    /// Serves a client that has the document as of `has`.
    fn serve_commits(&mut self, read: &PendingRead, has: Revision, effects: &mut Effects) {
        let (ticket, mode) = (read.ticket, read.mode);
        let goal = CatchUpGoal::Read { ticket, mode, has };
        let head = self.head();
        if has > self.known_head.max(head) {
            // Either this node is behind, or the log has lost what the client has: the store tells whether it has this entry.
            let catch_up = CatchUp::new(read.session, has.before(), goal);
            return self.catch_ups.add(catch_up, effects);
        }
        let catch_up = CatchUp::new(read.session, has, goal);
        let is_in_tail = |tail: &Tail| tail.since(has).is_some();
        if has >= head || self.tail.as_ref().is_some_and(is_in_tail) {
            self.finish_catch_up(&catch_up, effects);
        } else {
            self.catch_ups.add(catch_up, effects);
        }
    }

    /// A snapshot arrived, with the entries around it that were loaded with it.
    pub(in crate::doc) fn snapshot_encoded(
        &mut self,
        snapshot: Arc<EncodedSnapshot>,
        entries: &[Arc<Entry>],
        effects: &mut Effects,
    ) {
        self.snapshot.is_requested = false;
        let start = entries
            .first()
            .map_or(snapshot.revision, |entry| entry.revision.before());
        let is_apart = self.tail.as_ref().is_none_or(|tail| tail.head() < start);
        if is_apart && !self.is_told() {
            // No session needs the entries between the tail and the snapshot.
            self.tail = Some(Tail::new(start));
        }
        self.resolve_freshness(snapshot.revision, effects);
        self.commits(snapshot.revision, entries, effects);
        let cached = self.snapshot.newest.as_ref();
        let is_newer = cached.is_none_or(|cached| cached.revision < snapshot.revision);
        if is_newer {
            self.snapshot.newest = Some(snapshot);
        }
        self.serve_pending(effects);
        // Request the next one if reads are left that need it.
        let needs_next = |read: &PendingRead| matches!(read.freshness, MinRevision::OfSnapshot(_));
        let needs_next = self.pending_reads.iter().any(needs_next);
        if needs_next || self.pending_reads.iter().any(|read| read.since.is_none()) {
            if is_newer || needs_next {
                self.snapshot.request(effects);
            } else {
                // The provider is behind. Requests without a delay would follow each other without end.
                effects.retry_soon();
            }
        }
    }

    /// Sets the bounds of the reads that waited for this snapshot, and rejects those that named a later revision.
    fn resolve_freshness(&mut self, revision: Revision, effects: &mut Effects) {
        let requests = self.snapshot.requests;
        self.pending_reads.retain_mut(|read| {
            if !matches!(read.freshness, MinRevision::OfSnapshot(number) if number <= requests) {
                return true;
            }
            read.freshness = MinRevision::Known(revision);
            let is_served = read.min <= revision;
            if !is_served {
                let rejected = SessionReply::Rejected(Rejection::future_revision());
                effects.reply(read.session, read.ticket, rejected);
            }
            is_served
        });
    }

    /// The requested snapshot does not arrive. It is requested again with the next retry.
    pub(in crate::doc) fn snapshot_failed(&mut self) {
        self.snapshot.is_requested = false;
    }

    /// The sequencer that was to provide the snapshot has ended: it is requested again if a read waits for it.
    pub(in crate::doc) fn request_snapshot_again(&mut self, effects: &mut Effects) {
        self.snapshot.is_requested = false;
        if !self.pending_reads.is_empty() {
            self.snapshot.request(effects);
        }
    }

    /// Rejects the reads that have waited too long.
    pub(super) fn reject_overdue(&mut self, now: Now, effects: &mut Effects) {
        self.pending_reads.retain(|read| {
            let may_wait = now.clock < read.deadline;
            if !may_wait {
                let rejected = SessionReply::Rejected(Rejection::store_unavailable());
                effects.reply(read.session, read.ticket, rejected);
            }
            may_wait
        });
    }

    /// Takes out the session's subscriptions that wait. Those that need only commits end: the tickets to answer. Those that
    /// need the document become fetches.
    pub(super) fn end_pending_subscriptions(&mut self, session: SessionId) -> Vec<Ticket> {
        let mut ended = Vec::new();
        self.pending_reads.retain_mut(|read| {
            let subscribes = read.session == session && read.mode == ReadMode::Subscribe;
            if subscribes {
                read.mode = ReadMode::Fetch;
            }
            let ends = subscribes && read.since.is_some();
            ended.extend(ends.then_some(read.ticket));
            !ends
        });
        ended
    }

    /// Drops the snapshot that is kept for the next reader.
    pub(in crate::doc) fn drop_cached_snapshot(&mut self) {
        self.snapshot.newest = None;
    }
}
