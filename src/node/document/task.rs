//! The task of an open document: it passes messages to the document's state machine and performs the machine's actions.

mod actions;
mod faults;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll, select_all, unfold};
use futures_util::{FutureExt, StreamExt};
use tokio::select;
use tokio::sync::{mpsc, watch};

use super::blocking::{IN_PLACE_BYTES, work_in_place};
use super::mailbox::DocumentMessage;
use super::ownership::{Ownership, OwnershipStatus};
use super::session::{DocumentSession, is_read};
use super::slices::SlicePermit;
use crate::doc::{
    Contradiction, Document, Event, PageRequester, PeerMessage, SessionRequest, Ticket,
};
use crate::id::{DocId, NodeId, SessionId};
use crate::log::Revision;
use crate::node::cluster::log_history::NewestCommit;
use crate::node::cluster::peers;
use crate::node::delivery::outbox::Outbox;
use crate::node::delivery::reply::ReplyTo;
use crate::node::delivery::throttle::DeliveryThrottle;
use crate::node::delivery::timer::CoarseTimer;
use crate::node::metrics::{OwnershipChange, OwnershipMeter};
use crate::node::presence::registry::PresenceUpdate;
use crate::node::services::NodeServices;
use crate::outage::LineLimit;
use crate::protocol::CloseReason;
use crate::store::History;

/// The task of an open document.
///
/// It ends when the document is idle, when the node stops, when the log has another history, or when the state machine
/// panics. Whatever the reason, the sockets of its sessions are closed: their clients reconnect with their revisions, and the
/// document is opened anew.
pub(super) struct DocumentTask {
    doc: DocId,
    /// Identifies this task among those of the document.
    incarnation: u64,
    /// The history of the log in which the document was opened.
    history: History,
    document: Document,
    services: Arc<NodeServices>,
    mailbox: mpsc::Receiver<DocumentMessage>,
    /// What concerns all documents of the node.
    node_events: SelectAll<BoxStream<'static, NodeEvent>>,
    /// Whether the document is to be closed as soon as it is idle.
    is_evicted: bool,
    status: Arc<OwnershipStatus>,
    sessions: HashMap<SessionId, DocumentSession>,
    /// The sessions that ended while requests of theirs may still be in the mailbox, which hold their outboxes. Those requests
    /// are dropped: an edit behind one that was dropped must not be committed without it.
    ended: HashMap<SessionId, Weak<Outbox>>,
    throttle: DeliveryThrottle,
    timer: CoarseTimer,
    next_ticket: u64,
    /// The revision of the newest commit that was reported to the node.
    reported_revision: Revision,
    /// The requests to the store and to the encoder. Bounded: the state machine has at most one of each kind under way, and a
    /// page for each client that catches up.
    pending: FuturesUnordered<BoxFuture<'static, Completion>>,
    /// The permit for long work on the event that came with it.
    slice: Option<SlicePermit>,
    is_finishing: bool,
    /// Whether the document is to be opened anew: its quarantine began or ended.
    is_reloading: bool,
    idle_since: Option<Instant>,
    /// The sessions that were answered since they were last looked at.
    answered: Vec<SessionId>,
    /// The session of the read that is being handled: commits for it alone are part of the answer.
    reader: Option<SessionId>,
    ownership: OwnershipMeter,
    /// Deliveries since the last one that was measured.
    unmeasured_deliveries: u32,
}

/// A completed request to the store or to the encoder.
struct Completion {
    event: Event,
    /// The permit for long work on the event, where that may be needed.
    slice: Option<SlicePermit>,
}

impl From<Event> for Completion {
    fn from(event: Event) -> Self {
        Self { event, slice: None }
    }
}

/// Something that concerns all documents of the node.
#[derive(Debug)]
enum NodeEvent {
    /// The hash ring names this owner for the document.
    OwnerChanged(NodeId),
    /// Too many documents are open, or too many bytes of snapshots are cached.
    Evict,
    /// The log has another history.
    HistoryChanged,
    /// Messages pass again or take another transport, or the store answers again.
    Reconnected,
    /// Whether the store is away.
    StoreAway(bool),
}

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskEnd {
    /// The document has no sessions and nothing to do.
    Idle,
    /// The node stops, and everything that was accepted is durable.
    Finished,
    /// The state machine or one of its actions panicked.
    Panicked,
    /// The quarantine of the document began or ended.
    Reloading,
    /// The log has another history, in which the machine's state may never have existed.
    HistoryChanged,
}

impl DocumentTask {
    /// A task for a document that was opened as this `incarnation` in this `history`.
    pub(super) fn new(
        doc: DocId,
        (incarnation, history): (u64, History),
        services: Arc<NodeServices>,
        mailbox: mpsc::Receiver<DocumentMessage>,
        status: Arc<OwnershipStatus>,
    ) -> Self {
        let me = services.id;
        let owner = services.peers.owner(&doc);
        let settings = services.settings.document.clone();
        let ownership_metrics = services.metrics.clone();
        let mut document = Document::new(me, owner, settings);
        document.reject_poison(services.faults.poison_of(&doc));
        let mut store_away = services.store_status.watch();
        if *store_away.borrow_and_update() {
            document.handle(Event::StoreUnavailable, services.clock.now());
        }
        let owners = {
            let doc = doc.clone();
            watch_changes(services.peers.watch_ring(), move |ring| {
                NodeEvent::OwnerChanged(peers::owner(ring, &doc, me))
            })
        };
        let node_events = select_all([
            owners,
            watch_changes(services.documents.watch_evictions(), |()| NodeEvent::Evict),
            watch_changes(services.log_history.watch(), |_| NodeEvent::HistoryChanged),
            watch_changes(services.peers.watch_reconnects(), |_| {
                NodeEvent::Reconnected
            }),
            watch_changes(store_away, |is_away| NodeEvent::StoreAway(*is_away)),
        ]);
        Self {
            doc,
            incarnation,
            history,
            document,
            services,
            mailbox,
            node_events,
            is_evicted: false,
            status,
            sessions: HashMap::new(),
            ended: HashMap::new(),
            throttle: DeliveryThrottle::default(),
            timer: CoarseTimer::default(),
            next_ticket: 0,
            reported_revision: Revision::ZERO,
            pending: FuturesUnordered::new(),
            slice: None,
            is_finishing: false,
            is_reloading: false,
            idle_since: None,
            answered: Vec::new(),
            reader: None,
            ownership: OwnershipMeter::new(ownership_metrics),
            unmeasured_deliveries: 0,
        }
    }

    /// Runs until the document is closed. A panic ends this document and no other.
    pub(super) async fn run(mut self) {
        loop {
            let turn = AssertUnwindSafe(self.turn()).catch_unwind().await;
            let end = turn.unwrap_or_else(|cause| {
                self.panicked(&*cause);
                Some(TaskEnd::Panicked)
            });
            if let Some(end) = end {
                return tracing::debug!(?end, "document closed");
            }
        }
    }

    /// Waits for one event and handles it. Each branch is cancel-safe: a channel, sets of futures and a timer.
    async fn turn(&mut self) -> Option<TaskEnd> {
        if self.is_outdated() {
            return Some(TaskEnd::HistoryChanged);
        }
        if self.is_reloading {
            return Some(TaskEnd::Reloading);
        }
        self.throttle.flush(Instant::now());
        let timeout = self.document.timeout();
        let timeout = timeout.map(|at| self.services.clock.instant(at));
        let wake_at = self.next_wake(timeout);
        if let Some(wake_at) = wake_at {
            self.timer.set(wake_at);
        }
        // Checked first: a mailbox that is never empty must not delay the machine's timeouts.
        let is_overdue = timeout.is_some_and(|at| at <= Instant::now());
        let event = select! {
            biased;
            () = std::future::ready(()), if is_overdue => Event::Timeout,
            // Answers of the store come before new messages: they complete what clients wait for.
            Some(completion) = self.pending.next(), if !self.pending.is_empty() => {
                self.slice = completion.slice;
                completion.event
            }
            message = self.mailbox.recv() => self.accept(message?)?,
            Some(event) = self.node_events.next() => match event {
                NodeEvent::Evict => {
                    self.is_evicted = true;
                    self.document.drop_cached_snapshot();
                    return self.check_end();
                }
                // The next turn ends the task.
                NodeEvent::HistoryChanged => return None,
                NodeEvent::OwnerChanged(owner) => Event::OwnerChanged(owner),
                NodeEvent::Reconnected => Event::Reconnected,
                NodeEvent::StoreAway(true) => Event::StoreUnavailable,
                NodeEvent::StoreAway(false) => Event::StoreAvailable,
            },
            () = self.timer.fired() => {
                // The timer may fire early.
                if wake_at.is_none_or(|at| at > Instant::now()) {
                    return None;
                }
                Event::Timeout
            }
        };
        self.handle(event);
        self.check_end()
    }

    /// When the next turn is needed without an event.
    fn next_wake(&self, timeout: Option<Instant>) -> Option<Instant> {
        let idle_close = self.services.settings.idle_close();
        let idle_at = self.idle_since.map(|since| since + idle_close);
        let times = [idle_at, timeout, self.throttle.next_flush()];
        times.into_iter().flatten().min()
    }

    /// Returns true if the log has another history than the one in which the document was opened.
    fn is_outdated(&self) -> bool {
        self.services.log_history.get() != self.history
    }

    /// Returns why the task is to end now, if it is.
    fn check_end(&mut self) -> Option<TaskEnd> {
        if self.is_finishing && self.document.is_settled() && self.mailbox.is_empty() {
            return Some(TaskEnd::Finished);
        }
        if !self.document.is_idle() || !self.pending.is_empty() {
            self.idle_since = None;
            self.is_evicted = false;
            return None;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        // A document that was never written has nothing that is worth keeping in memory.
        let closes_at_once = self.is_evicted || self.document.is_unwritten();
        let is_due = closes_at_once || since.elapsed() >= self.services.settings.idle_close();
        let documents = &self.services.documents;
        (is_due
            && documents.close_if_unused(&self.doc, self.incarnation, || self.mailbox.is_empty()))
        .then_some(TaskEnd::Idle)
    }

    /// The event of a message; `None` if the message needs no event.
    fn accept(&mut self, message: DocumentMessage) -> Option<Event> {
        match message {
            DocumentMessage::Request {
                session,
                outbox,
                reply_to,
                request,
            } => self.accept_request(session, outbox, reply_to, request),
            DocumentMessage::SessionClosed(session) => Some(Event::SessionClosed(session)),
            DocumentMessage::WriteAccessRevoked(session) => {
                Some(Event::WriteAccessRevoked(session))
            }
            DocumentMessage::Peer { from, message } => Some(Event::PeerMessage { from, message }),
            DocumentMessage::Changed(event) => Some(event),
            DocumentMessage::Presence(update) => {
                self.deliver_presence(update);
                None
            }
            DocumentMessage::Reload => {
                self.is_reloading = true;
                None
            }
            DocumentMessage::Finish => {
                self.is_finishing = true;
                Some(Event::Timeout)
            }
        }
    }

    /// The event of a session's request; `None` if the request is dropped or rejected.
    fn accept_request(
        &mut self,
        session: SessionId,
        outbox: Arc<Outbox>,
        reply_to: ReplyTo,
        request: SessionRequest,
    ) -> Option<Event> {
        if outbox.history() != self.history {
            // The request was sent before its socket could be closed. Its client has the state of another log.
            outbox.close(CloseReason::HistoryChanged);
            return None;
        }
        if self.ended.contains_key(&session) {
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let known = self.sessions.entry(session);
        let known = known.or_insert_with(|| DocumentSession::new(outbox));
        let is_accepted = known.add_request(ticket, reply_to, &request);
        is_accepted.then_some(Event::Request {
            session,
            ticket,
            request,
        })
    }

    /// Passes an event to the state machine, and performs its actions.
    fn handle(&mut self, event: Event) {
        let now = self.services.clock.now();
        // Held until all actions are performed.
        let _slice = self.slice.take();
        let is_long = may_take_long(&event);
        self.reader = reader_of(&event);
        let change = OwnershipChange::of(&event);
        if let Event::SessionClosed(session) = &event {
            self.end_session(*session);
        }

        let document = &mut self.document;
        let handle = || document.handle(event, now);
        if is_long {
            work_in_place(handle);
        } else {
            handle();
        }

        while let Some(action) = self.document.poll() {
            self.perform(action);
        }
        self.remove_finished_sessions();
        self.ownership
            .set(self.document.owned_epoch().is_some(), change);
        self.report_status();
    }

    /// Reports to the node what it has of the document. The node compares the newest commit with the log if the store may have
    /// gone back in time.
    fn report_status(&mut self) {
        self.status.set(Ownership {
            owned: self.document.owned_epoch(),
            followed: self.document.followed_revision(),
            is_claiming: self.document.is_claiming(),
        });
        if let Some(contradiction) = self.document.take_contradiction() {
            self.report_contradiction(contradiction);
        }
        let revision = self.document.known_revision();
        if revision == self.reported_revision {
            return;
        }
        self.reported_revision = revision;
        let fingerprint = self.document.known_entry().map(|it| it.fingerprint());
        self.status.set_newest_commit(NewestCommit {
            revision,
            fingerprint,
        });
    }

    /// Has the log compared, because the store may have gone back in time.
    fn report_contradiction(&self, contradiction: Contradiction) {
        let log_history = &self.services.log_history;
        match contradiction {
            Contradiction::LogIsShorter => {
                tracing::warn!(known = %self.document.known_revision(), "a claim returned fewer revisions than this node knows: comparing the log");
            }
            Contradiction::EntryDiffers(mine) => {
                static LIMIT: LineLimit = LineLimit::new();
                if let Some(left_out) = LIMIT.pass() {
                    tracing::warn!(revision = %mine.revision, left_out, "two nodes, or a node and the log, have different entries of a revision: comparing the log");
                }
                let commit = NewestCommit {
                    revision: mine.revision,
                    fingerprint: Some(mine.fingerprint()),
                };
                log_history.keep_commit(self.doc.clone(), commit);
            }
        }
        log_history.suspect();
    }

    /// Transforms a position to the revision that this node's readers have been sent, and delivers it. A position that cannot
    /// be transformed is dropped: positions are sent again.
    fn deliver_presence(&self, mut update: PresenceUpdate) {
        let document = &self.document;
        let rebased = catch_unwind(AssertUnwindSafe(|| {
            document.rebase_presence(&update.client, &mut update.presence);
        }));
        match rebased {
            Ok(()) => self.services.presence.deliver(update),
            Err(_) => tracing::error!("transforming a presence position panicked"),
        }
    }

    /// Removes the answered sessions that need the document no more, and ends those with a closed socket.
    fn remove_finished_sessions(&mut self) {
        for session in std::mem::take(&mut self.answered) {
            let Some(known) = self.sessions.get(&session) else {
                continue;
            };
            if !self.document.has_session(session) {
                self.sessions.remove(&session);
            } else if known.outbox.is_closed() {
                self.end_session(session);
                let closed = Completion::from(Event::SessionClosed(session));
                self.pending.push(std::future::ready(closed).boxed());
            }
        }
    }

    /// Removes a session that ended. Its requests that are still in the mailbox are dropped.
    fn end_session(&mut self, session: SessionId) {
        let Some(known) = self.sessions.remove(&session) else {
            return;
        };
        self.ended.retain(|_, outbox| outbox.strong_count() > 0);
        self.ended.insert(session, Arc::downgrade(&known.outbox));
    }
}

impl Drop for DocumentTask {
    fn drop(&mut self) {
        self.services.documents.remove(&self.doc, self.incarnation);
        let reason = if self.is_outdated() {
            CloseReason::HistoryChanged
        } else {
            if let Some(newest) = self.status.newest_commit() {
                let log_history = &self.services.log_history;
                log_history.keep_commit(self.doc.clone(), newest);
            }
            CloseReason::DocumentClosed
        };
        for session in self.sessions.values() {
            session.outbox.close(reason);
        }
        // Requests that are still in the mailbox would never be answered.
        self.mailbox.close();
        while let Ok(message) = self.mailbox.try_recv() {
            if let DocumentMessage::Request { outbox, .. } = message {
                outbox.close(reason);
            }
        }
    }
}

/// The changes of a watched value, as events. One stream for all of them costs less than waiting for each watch anew in every
/// turn.
fn watch_changes<T, N, F>(watched: watch::Receiver<T>, event: F) -> BoxStream<'static, N>
where
    T: Send + Sync + 'static,
    N: Send + 'static,
    F: Fn(&T) -> N + Send + 'static,
{
    let next = |(mut watched, event): (watch::Receiver<T>, F)| async move {
        watched.changed().await.ok()?;
        let changed = event(&watched.borrow_and_update());
        Some((changed, (watched, event)))
    };
    unfold((watched, event), next).boxed()
}

/// Returns true if an event may keep the thread for long: a large op may have to be transformed over many others.
fn may_take_long(event: &Event) -> bool {
    let submit = match event {
        Event::Request {
            request: SessionRequest::Submit(submit),
            ..
        }
        | Event::PeerMessage {
            message: PeerMessage::Submit(submit, _),
            ..
        } => submit,
        Event::PageLoaded { .. } | Event::SliceGranted(_) => return true,
        _ => return false,
    };
    submit.proposal.size() > IN_PLACE_BYTES
}

/// The session of the read that an event begins or continues.
fn reader_of(event: &Event) -> Option<SessionId> {
    match event {
        Event::Request {
            session, request, ..
        } if is_read(request) => Some(*session),
        Event::PageLoaded {
            requester: PageRequester::CatchUp(session),
            ..
        } => Some(*session),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
