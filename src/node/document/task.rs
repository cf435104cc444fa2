//! One task for each open document: it drives the document's machine and does what the machine asks for.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll, select_all, unfold};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::select;
use tokio::sync::{SemaphorePermit, mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::slices::Slice;
use crate::doc::{
    Action, Document, EncodedSnapshot, Event, PageRequester, PeerMessage, ReadOnly, ReadOnlyCause,
    Rejection, SessionReply, SessionRequest, Ticket,
};
use crate::id::{ClientId, DocId, NodeId, SessionId, UserId};
use crate::log::{Entry, Fence, Revision, Snapshot, Tail};
use crate::node::cluster::codec::Message;
use crate::node::cluster::history::Known;
use crate::node::cluster::peers;
use crate::node::delivery::outbox::{Outbox, OutboxFull};
use crate::node::delivery::reply::{AnswerFrames, BulkReply, ReplyTo};
use crate::node::delivery::throttle::DeliveryThrottle;
use crate::node::delivery::timer::CoarseTimer;
use crate::node::node::{Node, OpenDocument, Standing};
use crate::node::presence::registry::Heard;
use crate::ot::CONTENT_BYTES_MAX;
use crate::outage::LineLimit;
use crate::protocol::{
    self, CloseReason, Frames, Refusal, encode_snapshot, encode_snapshot_with_notice,
};
use crate::store::{Batch, History, LoadRange, Loaded, StoreError, StoreErrorKind};

/// What reaches a document's task.
#[derive(Debug)]
pub(in crate::node) enum Post {
    /// A session asks.
    Asked {
        session: SessionId,
        outbox: Arc<Outbox>,
        reply: ReplyTo,
        ask: SessionRequest,
    },
    /// A session ended.
    Left(SessionId),
    /// A session may not change the document any more.
    Muted(SessionId),
    /// Another node says something.
    Linked { from: NodeId, link: PeerMessage },
    /// The store says something.
    Told(Event),
    /// A position in the document, of somebody who does not say it here.
    Heard(Heard),
    /// The node stops: end as soon as everything accepted is durable.
    Finish,
}

/// A session that the document knows.
#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    /// What holds its commits back.
    hold: Option<Arc<BulkReply>>,
    /// Its requests that wait for an answer: a few.
    tickets: Vec<(Ticket, ReplyTo)>,
    /// The id that another server gave its client, if it submits under that, and its user.
    foreign: Option<(UserId, ClientId)>,
}

impl Member {
    /// Sends an answer's frames, behind all that is held back.
    fn answer(&mut self, frames: AnswerFrames) {
        match frames {
            AnswerFrames::None => {}
            AnswerFrames::One(frame) => {
                if !self.holds_back(std::slice::from_ref(&frame)) {
                    // A full outbox closes itself; its session ends by that.
                    let _ = self.outbox.push(frame);
                }
            }
            AnswerFrames::Content(pieces) => {
                if !self.holds_back(&pieces) {
                    self.outbox.answer(pieces);
                }
            }
        }
    }

    /// Sends commits in the document's throttle, behind all that is held back.
    fn leave(&mut self, throttle: &mut DeliveryThrottle, frames: Bytes) -> Result<(), OutboxFull> {
        if self.holds_back(std::slice::from_ref(&frames)) {
            return Ok(());
        }
        throttle.leave(&self.outbox, frames)
    }

    /// Holds frames back behind an answer that is not complete; `false`: there is none.
    fn holds_back(&mut self, pieces: &[Bytes]) -> bool {
        let held = self.hold.as_ref();
        let holds = held.is_some_and(|hold| hold.hold(&self.outbox, pieces));
        if !holds {
            self.hold = None;
        }
        holds
    }

    fn take(&mut self, ticket: Ticket) -> Option<ReplyTo> {
        let place = self
            .tickets
            .iter()
            .position(|(waiting, _)| *waiting == ticket)?;
        Some(self.tickets.swap_remove(place).1)
    }
}

/// One document's task.
pub(in crate::node) struct Task {
    doc: DocId,
    /// Which of the document's tasks this is: a later one may have been opened since.
    incarnation: u64,
    /// The history of the log that the document was opened in.
    history: History,
    document: Document,
    node: Arc<Node>,
    mailbox: mpsc::Receiver<Post>,
    /// What all documents are told. Looked at only when there is some: whoever waits on a watch anew each time pays for that.
    news: SelectAll<BoxStream<'static, News>>,
    /// Whether it is to close as soon as nobody needs it.
    is_unwanted: bool,
    standing: Arc<Standing>,
    members: HashMap<SessionId, Member>,
    /// The sessions that left while requests of theirs may still be in the mailbox, which hold their outboxes. Those requests
    /// are dropped: an edit behind one that was given up must not be committed without it.
    left: HashMap<SessionId, Weak<Outbox>>,
    throttle: DeliveryThrottle,
    timer: CoarseTimer,
    next_ticket: u64,
    /// The revision of the newest commit that the node was told of.
    known_revision: Revision,
    /// What the store is doing for the document. Bounded: the machine has one of each kind under way, and a page for each
    /// read of a client that is behind.
    effects: FuturesUnordered<BoxFuture<'static, Effect>>,
    /// The right to work long on the event that came with it.
    slice: Option<Slice>,
    finishing: bool,
    idle_since: Option<Instant>,
    /// The sessions that were answered since they were last looked at.
    answered: Vec<SessionId>,
    /// The session whose read is being handled: commits for it alone are part of the answer.
    asker: Option<SessionId>,
    scratch: Vec<u8>,
}

/// What came of something that the machine asked for.
struct Effect {
    event: Event,
    /// The right to work long on it, where that may be needed.
    slice: Option<Slice>,
}

impl From<Event> for Effect {
    fn from(event: Event) -> Self {
        Self { event, slice: None }
    }
}

/// What all documents of the node are told.
#[derive(Debug)]
enum News {
    /// Who should own the document, as the ring has it now.
    Owner(NodeId),
    /// The node has too many documents, or too many bytes of snapshots.
    Crowded,
    /// The log has another history.
    HistoryChanged,
    /// Messages pass again or go another way, or the store answers again.
    Reopened,
    /// The store is away, or is back.
    StoreAway(bool),
}

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody needed the document.
    Idle,
    /// The node stops, and everything accepted is durable.
    Finished,
    /// The machine panicked.
    Panicked,
    /// The log has another history: what the machine holds may never have been.
    HistoryChanged,
}

impl Task {
    pub(in crate::node) fn new(
        doc: DocId,
        (incarnation, history): (u64, History),
        node: Arc<Node>,
        mailbox: mpsc::Receiver<Post>,
        standing: Arc<Standing>,
    ) -> Self {
        let ring = node.peers().watch_ring();
        let owner = peers::owner(&ring.borrow(), &doc, node.id());
        let of_ring = {
            let (doc, me) = (doc.clone(), node.id());
            changes(ring, move |ring| News::Owner(peers::owner(ring, &doc, me)))
        };
        let of_crowd = changes(node.watch_crowd(), |()| News::Crowded);
        let of_history = changes(node.watch_log_history(), |_| News::HistoryChanged);
        let of_ways = changes(node.peers().watch_reopened(), |_| News::Reopened);
        let mut document = Document::new(node.id(), owner, node.settings().document.clone());
        let mut is_away = node.store_status().watch();
        if *is_away.borrow_and_update() {
            document.handle(Event::StoreUnavailable, node.now());
        }
        let of_store = changes(is_away, |is_away| News::StoreAway(*is_away));
        Self {
            doc,
            incarnation,
            history,
            document,
            node,
            mailbox,
            news: select_all([of_ring, of_crowd, of_history, of_ways, of_store]),
            is_unwanted: false,
            standing,
            members: HashMap::new(),
            left: HashMap::new(),
            throttle: DeliveryThrottle::default(),
            timer: CoarseTimer::default(),
            next_ticket: 0,
            known_revision: Revision::ZERO,
            effects: FuturesUnordered::new(),
            slice: None,
            finishing: false,
            idle_since: None,
            answered: Vec::new(),
            asker: None,
            scratch: Vec::new(),
        }
    }

    /// Runs the document until nobody needs it.
    pub(in crate::node) async fn run(mut self) {
        loop {
            if let Some(end) = self.turn().await {
                return tracing::debug!(doc = %self.doc, ?end, "document closed");
            }
        }
    }

    /// Waits for one thing and sees to it. Each branch is cancel-safe: a channel, sets of futures and a timer.
    async fn turn(&mut self) -> Option<End> {
        if self.is_outdated() {
            return Some(End::HistoryChanged);
        }
        let idle_at = self
            .idle_since
            .map(|since| since + self.node.settings().idle_close());
        let timeout = self.document.timeout().map(|at| self.node.instant(at));
        self.throttle.ring(Instant::now());
        let wake = [idle_at, timeout, self.throttle.due()]
            .into_iter()
            .flatten()
            .min();
        if let Some(wake) = wake {
            self.timer.set(wake);
        }
        // A mailbox that is never empty must not keep the document from what it has put off.
        let overdue = timeout.is_some_and(|at| at <= Instant::now());
        let event = select! {
            biased;
            () = std::future::ready(()), if overdue => Event::Timeout,
            // The store's answers first: they let waiting clients go.
            Some(effect) = self.effects.next(), if !self.effects.is_empty() => {
                self.slice = effect.slice;
                effect.event
            }
            post = self.mailbox.recv() => match post? {
                Post::Asked { session, outbox, reply, ask } => {
                    match self.asked(session, outbox, reply, ask) {
                        Some(event) => event,
                        None => return None,
                    }
                }
                Post::Muted(session) => Event::WriteAccessRevoked(session),
                Post::Left(session) => Event::SessionClosed(session),
                Post::Linked { from, link } => Event::PeerMessage { from, message: link },
                Post::Told(event) => event,
                Post::Heard(heard) => {
                    self.heard(heard);
                    return None;
                }
                Post::Finish => {
                    self.finishing = true;
                    Event::Timeout
                }
            },
            Some(news) = self.news.next() => match news {
                News::Owner(owner) => Event::OwnerChanged(owner),
                // Seen at the next turn.
                News::HistoryChanged => return None,
                News::Reopened => Event::Reconnected,
                News::StoreAway(true) => Event::StoreUnavailable,
                News::StoreAway(false) => Event::StoreAvailable,
                News::Crowded => {
                    self.is_unwanted = true;
                    self.document.drop_cached_snapshot();
                    return self.end();
                }
            },
            () = self.timer.ring() => {
                // What it was set for may be over.
                if wake.is_none_or(|wake| wake > Instant::now()) {
                    return None;
                }
                Event::Timeout
            }
        };
        if self.handle(event).is_err() {
            return Some(End::Panicked);
        }
        self.end()
    }

    /// Returns true if the log has another history than the document was opened in.
    fn is_outdated(&self) -> bool {
        self.node.log_history() != self.history
    }

    /// Whether it is time to end.
    fn end(&mut self) -> Option<End> {
        if self.finishing && self.document.is_settled() && self.mailbox.is_empty() {
            return Some(End::Finished);
        }
        if !self.document.is_idle() || !self.effects.is_empty() {
            self.idle_since = None;
            self.is_unwanted = false;
            return None;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        // One that was never written has nothing worth keeping.
        let is_unwanted = self.is_unwanted || self.document.is_unwritten();
        let due = is_unwanted || since.elapsed() >= self.node.settings().idle_close();
        (due && self
            .node
            .close_unless_wanted(&self.doc, self.incarnation, || self.mailbox.is_empty()))
        .then_some(End::Idle)
    }

    /// Takes in a session's request, unless too many of its requests wait already.
    fn asked(
        &mut self,
        session: SessionId,
        outbox: Arc<Outbox>,
        reply: ReplyTo,
        ask: SessionRequest,
    ) -> Option<Event> {
        if outbox.history() != self.history {
            // It was asked before its socket could be closed; what its client holds is of another log.
            outbox.close(CloseReason::HistoryChanged);
            return None;
        }
        if self.left.contains_key(&session) {
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let member = self.members.entry(session).or_insert(Member {
            outbox,
            hold: None,
            tickets: Vec::new(),
            foreign: None,
        });
        if let SessionRequest::Submit(submit) = &ask
            && submit.id.client.is_foreign()
        {
            member.foreign = Some((submit.id.author.clone(), submit.id.client.clone()));
        }
        // Submits have a bound of their own, and what ends a subscription only lessens what waits.
        let reads = matches!(
            ask,
            SessionRequest::Fetch { .. }
                | SessionRequest::Subscribe { .. }
                | SessionRequest::ReadFrom { .. }
        );
        if reads && member.tickets.len() >= READS_MAX {
            let frames = reply.answer(&member.outbox, SessionReply::Rejected(Rejection::busy()));
            member.answer(frames);
            return None;
        }
        // What is held back already stays behind the answer that holds it: commits keep their order.
        if member.hold.as_ref().is_none_or(|hold| !hold.holds()) {
            member.hold = reply.hold();
        }
        member.tickets.push((ticket, reply));
        Some(Event::Request {
            session,
            ticket,
            request: ask,
        })
    }

    /// Lets the machine handle an event, and does what it asks for. A panic is the end of this machine, and of nothing
    /// else: whoever caused it is refused, so that it does not cause the next one.
    fn handle(&mut self, event: Event) -> Result<(), ()> {
        let now = self.node.now();
        // Given back when all is done that follows.
        let _slice = self.slice.take();
        let is_long = may_take_long(&event);
        self.asker = asker(&event);
        if let Event::SessionClosed(session) = &event {
            self.forget_member(*session);
        }
        let document = &mut self.document;
        let handle = || catch_unwind(AssertUnwindSafe(|| document.handle(event, now)));
        let handled = if is_long { aside(handle) } else { handle() };
        if handled.is_err() {
            tracing::error!(doc = %self.doc, "the document's machine panicked: it is closed and opened anew");
            self.refuse_culprit();
            return Err(());
        }
        while let Some(action) = self.document.poll() {
            self.perform(action);
        }
        self.forget_answered();
        self.standing.set(OpenDocument {
            owned: self.document.owned_epoch(),
            followed: self.document.followed_revision(),
            is_claiming: self.document.is_claiming(),
        });
        self.tell_known();
        Ok(())
    }

    /// Tells the node of the newest commit, which it compares with the log if the store may have gone back in time.
    fn tell_known(&mut self) {
        if self.document.take_ahead_of_log() {
            tracing::warn!(doc = %self.doc, known = %self.document.known_revision(), "a claim found fewer revisions than this node knows: the log is compared");
            self.node.histories().suspect();
        }
        let revision = self.document.known_revision();
        if revision == self.known_revision {
            return;
        }
        self.known_revision = revision;
        let fingerprint = self.document.known_entry().map(|it| it.fingerprint());
        self.standing.set_known(Known {
            revision,
            fingerprint,
        });
    }

    /// Brings a position to what this node's readers have been sent, and tells them. One that cannot be moved is as good as
    /// lost: positions are said again.
    fn heard(&self, mut heard: Heard) {
        let document = &self.document;
        let moved = catch_unwind(AssertUnwindSafe(|| {
            document.rebase_presence(&heard.client, &mut heard.presence);
        }));
        match moved {
            Ok(()) => self.node.presence().tell(&heard),
            Err(_) => tracing::error!(doc = %self.doc, "moving a position panicked"),
        }
    }

    /// A message to another node.
    fn message(&self, link: PeerMessage) -> Message {
        Message::Link(self.doc.clone(), link, self.history.mark())
    }

    /// Refuses the submit that made the machine panic, wherever it came from: else it would do so again.
    fn refuse_culprit(&mut self) {
        let Some(culprit) = self.document.poison_submit() else {
            return;
        };
        let rejection = Rejection::op_not_applied();
        for (session, ticket) in culprit.requests {
            self.reply(session, ticket, SessionReply::Rejected(rejection.clone()));
        }
        if culprit.from != self.node.id() {
            let id = culprit.id;
            let message = self.message(PeerMessage::Reject { id, rejection });
            self.node.peers().send(culprit.from, &message);
        }
    }

    /// Forgets the sessions that need the document no more, and says of those whose socket is gone that they left.
    fn forget_answered(&mut self) {
        for session in std::mem::take(&mut self.answered) {
            let Some(member) = self.members.get(&session) else {
                continue;
            };
            if !self.document.has_session(session) {
                self.members.remove(&session);
            } else if member.outbox.is_closed() {
                self.forget_member(session);
                let left = Effect::from(Event::SessionClosed(session));
                self.effects.push(std::future::ready(left).boxed());
            }
        }
    }

    /// Forgets a session that left, and drops the requests that it sent before.
    fn forget_member(&mut self, session: SessionId) {
        let Some(member) = self.members.remove(&session) else {
            return;
        };
        self.left.retain(|_, outbox| outbox.strong_count() > 0);
        self.left.insert(session, Arc::downgrade(&member.outbox));
    }

    /// Does one thing that the machine asked for. Never waits: answers come back as events.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Reply {
                session,
                ticket,
                reply: answer,
            } => self.reply(session, ticket, answer),
            Action::Deliver { to, entries } if self.asker.is_some_and(|asker| *to == [asker]) => {
                self.catch_up(to[0], &entries);
            }
            Action::Deliver { to, entries } => self.deliver(&to, &entries),
            Action::PublishPresence {
                session,
                ticket,
                client,
                presence,
            } => {
                if let Some(member) = self.members.get_mut(&session) {
                    member.take(ticket);
                    self.node
                        .presence()
                        .publish(session, &client, &member.outbox, presence);
                }
                self.answered.push(session);
            }
            Action::Send { to, message: link } => {
                let message = self.message(link);
                self.node.peers().send(to, &message);
            }
            Action::LoadSnapshot => self.effect(|node, doc| async move {
                let shown = node.show(&doc).await;
                shown.unwrap_or_else(|error| Event::SnapshotEncoded(Err(error)))
            }),
            Action::RefoldSnapshot {
                snapshot: shown,
                entries,
            } => self.effect(|node, _| async move {
                Event::SnapshotRefolded(node.refold(shown, entries).await)
            }),
            Action::EncodeSnapshot(snapshot) => self.effect(|node, _| async move {
                let shown = node.encode_in_turn(snapshot).await;
                Event::SnapshotEncoded(shown.map(|shown| (shown, Vec::new())))
            }),
            Action::LoadPage { requester, since } => self.page(requester, since),
            Action::RequestSlice(epoch) => self.effect(move |node, _| async move {
                Effect {
                    slice: node.slice().await,
                    event: Event::SliceGranted(epoch),
                }
            }),
            Action::Claim => {
                self.effect(|node, doc| async move {
                    let claimed = in_time("claim", node.claim(&doc));
                    let claimed = node.unless_store_away("claim", claimed).await;
                    claimed.unwrap_or_else(|error| Event::Claimed(Err(error)))
                });
            }
            Action::Append { fence, entries } => self.append(fence, entries),
            Action::CloseSessions => {
                for member in self.members.values() {
                    member.outbox.close(CloseReason::DocumentClosed);
                }
            }
            Action::SaveSnapshot { fence, snapshot } => {
                let (node, doc) = (self.node.clone(), self.doc.clone());
                // Nobody waits for it, and the store bounds how much it takes on.
                tokio::spawn(async move {
                    if let Err(error) = node.store().save_snapshot(&doc, fence, snapshot).await {
                        static LIMIT: LineLimit = LineLimit::new();
                        if let Some(left_out) = LIMIT.pass() {
                            tracing::warn!(%doc, %error, left_out, "a snapshot was not saved: the document's next one is tried");
                        }
                    }
                });
            }
        }
    }

    fn effect<F, E>(&mut self, act: impl FnOnce(Arc<Node>, DocId) -> F)
    where
        F: Future<Output = E> + Send + 'static,
        E: Into<Effect> + 'static,
    {
        self.effects.push(
            act(self.node.clone(), self.doc.clone())
                .map(E::into)
                .boxed(),
        );
    }

    /// Reads a page of the log. For a client that is behind: when it has read what it was sent before, so that a long way
    /// is walked at its throttle. What the sequencer does with a page may take long.
    fn page(&mut self, requester: PageRequester, since: Revision) {
        let reader = match requester {
            PageRequester::CatchUp(session) => self.members.get(&session),
            PageRequester::Gap | PageRequester::Sequencer(_) => None,
        };
        let reader = reader.map(|member| member.outbox.clone());
        self.effect(move |node, doc| async move {
            let mut turn = None;
            if let (Some(reader), PageRequester::CatchUp(session)) = (reader, requester) {
                reader.drained().await;
                if reader.is_closed() {
                    return Effect::from(Event::SessionClosed(session));
                }
                turn = node.catch_up_turn().await;
            }
            let page = in_time("load", node.store().load(&doc, LoadRange::Since(since)));
            let page = node.unless_store_away("load", page).await;
            drop(turn);
            if let Err(error) = &page
                && let StoreErrorKind::Damaged { entry } = error.kind
            {
                node.report_damage(&doc, entry, None);
            }
            let slice = match requester {
                PageRequester::Sequencer(_) => node.slice().await,
                PageRequester::Gap | PageRequester::CatchUp(_) => None,
            };
            let event = Event::PageLoaded {
                requester,
                since,
                page: page.map(|loaded| loaded.entries),
            };
            Effect { event, slice }
        });
    }

    fn append(&mut self, fence: Fence, entries: Vec<Arc<Entry>>) {
        let batch = Batch {
            doc: self.doc.clone(),
            fence,
            entries,
        };
        self.effect(move |node, _| async move {
            let answers = in_time("append", node.store().append(vec![batch])).await;
            let none = || StoreError::new("append", "no answer for the batch");
            let result = answers.and_then(|mut answers| answers.pop().ok_or_else(none));
            Event::Appended { fence, result }
        });
    }

    fn reply(&mut self, session: SessionId, ticket: Ticket, answer: SessionReply) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        // The commit that it waited for is in its outbox.
        if let SessionReply::Committed(_) = answer {
            self.throttle.hurry(&member.outbox);
        }
        if let Some(reply) = member.take(ticket) {
            let frames = reply.answer(&member.outbox, answer);
            member.answer(frames);
        }
        self.answered.push(session);
    }

    /// Sends commits to the session that asked for them. They do not close it, however slowly it reads: the next page is
    /// read when these are written.
    fn catch_up(&mut self, session: SessionId, entries: &[Arc<Entry>]) {
        let foreign = self.foreign(session);
        let frames = self.encode(entries, foreign.as_ref());
        if let Some(member) = self.members.get_mut(&session) {
            member.answer(AnswerFrames::Content(vec![frames]));
        }
        self.answered.push(session);
    }

    /// The id that another server gave a session's client, if it submits under that, and its user.
    fn foreign(&self, session: SessionId) -> Option<(UserId, ClientId)> {
        self.members.get(&session)?.foreign.clone()
    }

    /// Encodes commits, for the client of `own` under the id that it knows itself by.
    fn encode(&mut self, entries: &[Arc<Entry>], own: Option<&(UserId, ClientId)>) -> Bytes {
        let bytes: usize = entries.iter().map(|entry| entry.size()).sum();
        let mut encode = || {
            let mut frames = Frames::new();
            for entry in entries {
                let client = if own.is_some_and(|own| is_of(entry, own)) {
                    entry.id.client.unmarked()
                } else {
                    entry.id.client.as_str()
                };
                protocol::commit(&self.doc, entry, client, &mut frames, &mut self.scratch);
            }
            frames.finish()
        };
        if bytes > IN_PLACE_BYTES {
            aside(encode)
        } else {
            encode()
        }
    }

    /// Encodes the commits once, and puts the same bytes into each session's outbox.
    fn deliver(&mut self, to: &[SessionId], entries: &[Arc<Entry>]) {
        let for_all = self.encode(entries, None);
        for session in to {
            let foreign = self.foreign(*session);
            let own = foreign.filter(|own| entries.iter().any(|entry| is_of(entry, own)));
            let frames = match own {
                Some(own) => self.encode(entries, Some(&own)),
                None => for_all.clone(),
            };
            let Some(member) = self.members.get_mut(session) else {
                continue;
            };
            if member.leave(&mut self.throttle, frames).is_err() {
                tracing::info!(doc = %self.doc, session = session.0, "a slow reader was closed");
            }
        }
        if let [session] = to {
            self.answered.push(*session);
        }
    }
}

/// Whether an entry is of the client of `own`, under an id that another server gave it.
fn is_of(entry: &Entry, (author, client): &(UserId, ClientId)) -> bool {
    entry.id.client.is_foreign() && entry.id.author == *author && entry.id.client == *client
}

/// What each change of `watched` says.
fn changes<T, N, S>(watched: watch::Receiver<T>, says: S) -> BoxStream<'static, N>
where
    T: Send + Sync + 'static,
    N: Send + 'static,
    S: Fn(&T) -> N + Send + 'static,
{
    let next = |(mut watched, says): (watch::Receiver<T>, S)| async move {
        watched.changed().await.ok()?;
        let news = says(&watched.borrow_and_update());
        Some((news, (watched, says)))
    };
    unfold((watched, says), next).boxed()
}

impl Drop for Task {
    fn drop(&mut self) {
        // Whatever the reason, whoever is still here comes back with its revision, and the document is opened anew.
        self.node.forget(&self.doc, self.incarnation);
        let reason = if self.is_outdated() {
            CloseReason::HistoryChanged
        } else {
            if let Some(known) = self.standing.known() {
                self.node.histories().closed(self.doc.clone(), known);
            }
            CloseReason::DocumentClosed
        };
        for member in self.members.values() {
            member.outbox.close(reason);
        }
        // Whoever had only just asked would wait for an answer for ever.
        self.mailbox.close();
        while let Ok(post) = self.mailbox.try_recv() {
            if let Post::Asked { outbox, .. } = post {
                outbox.close(reason);
            }
        }
    }
}

/// How many requests of one session may wait for one document before its next fetch is refused. Its client has a few.
const READS_MAX: usize = 100;

/// About how many bytes it is to encode or to fold.
fn weight(snapshot: &Snapshot) -> usize {
    snapshot
        .content
        .as_ref()
        .map_or(0, |content| content.size_bytes())
}

/// What is done in place; more goes to a thread of its own, so that others need not wait.
const IN_PLACE_BYTES: usize = 32 << 10;

/// Whether an event may keep the thread for long: a large op may have many others to be brought past.
fn may_take_long(event: &Event) -> bool {
    let submit = match event {
        Event::Request {
            request: SessionRequest::Submit(submit),
            ..
        }
        | Event::PeerMessage {
            message: PeerMessage::Submit(submit),
            ..
        } => submit,
        Event::PageLoaded { .. } | Event::SliceGranted(_) => return true,
        _ => return false,
    };
    submit.proposal.size() > IN_PLACE_BYTES
}

/// The session whose read an event is, or the answer to.
fn asker(event: &Event) -> Option<SessionId> {
    match event {
        Event::Request {
            session,
            request:
                SessionRequest::Fetch { .. }
                | SessionRequest::Subscribe { .. }
                | SessionRequest::ReadFrom { .. },
            ..
        } => Some(*session),
        Event::PageLoaded {
            requester: PageRequester::CatchUp(session),
            ..
        } => Some(*session),
        _ => None,
    }
}

/// Works while another thread goes on with what this one had to do besides.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

pub(in crate::node) async fn off_path<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= IN_PLACE_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

impl Node {
    /// Loads a document's head, and encodes it.
    async fn show(&self, doc: &DocId) -> Result<Event, StoreError> {
        let _turn = self.snapshot_turn("load").await?;
        let shown = in_time("load", async {
            match self.load_folded(doc).await? {
                Folded::Whole(head, entries) => Ok(Event::SnapshotEncoded(Ok((
                    self.encode(head).await,
                    entries,
                )))),
                Folded::ReadOnly(part) => Ok(self.read_only(doc, part).await),
            }
        });
        self.unless_store_away("load", shown).await
    }

    /// Encodes a snapshot when there is room for it.
    async fn encode_in_turn(&self, snapshot: Snapshot) -> Result<Arc<EncodedSnapshot>, StoreError> {
        let _turn = self.snapshot_turn("encode").await?;
        Ok(self.encode(snapshot).await)
    }

    async fn encode(&self, snapshot: Snapshot) -> Arc<EncodedSnapshot> {
        let shown = off_path(weight(&snapshot), move || encode_snapshot(&snapshot)).await;
        Arc::new(self.snapshots().count(shown))
    }

    /// The event for a document that is larger than what may be held, or damaged.
    async fn read_only(&self, doc: &DocId, part: ReadablePart) -> Event {
        let ReadablePart {
            readable,
            head,
            cause,
        } = part;
        let at = readable.as_ref().map(|it| it.revision);
        match cause {
            ReadOnlyCause::Oversized => tracing::error!(
                %doc, readable = %at.unwrap_or_default(), %head,
                "the document is larger than {CONTENT_BYTES_MAX} bytes: it is read-only until `copydesk repair {doc}` is run"
            ),
            ReadOnlyCause::Damaged { entry } => self.report_damage(doc, entry, at),
        }
        let rejection = cause.rejection(at);
        let readable = match readable {
            Some(readable) => Some(
                self.encode_noticed(readable, &rejection.clone().into())
                    .await,
            ),
            None => None,
        };
        Event::ReadOnly(ReadOnly {
            readable,
            head,
            rejection,
            cause,
        })
    }

    /// Encodes a snapshot that says why it is not the newest state of the document.
    async fn encode_noticed(&self, snapshot: Snapshot, notice: &Refusal) -> Arc<EncodedSnapshot> {
        let notice = notice.clone();
        let encode = move || encode_snapshot_with_notice(&snapshot, &notice);
        Arc::new(self.snapshots().count(off_path(usize::MAX, encode).await))
    }

    /// Waits for the right to load and encode a snapshot.
    pub(in crate::node) async fn snapshot_turn(
        &self,
        verb: &'static str,
    ) -> Result<SemaphorePermit<'_>, StoreError> {
        if self.snapshots().is_short() {
            self.make_room();
        }
        let turn = self.snapshots().turn().await;
        turn.ok_or_else(|| {
            static LIMIT: LineLimit = LineLimit::new();
            if let Some(left_out) = LIMIT.pass() {
                tracing::warn!(
                    left_out,
                    "node.snapshots_bytes_max reached: a read waits until others are written"
                );
            }
            StoreError::new(verb, "too many snapshots wait to be read")
        })
    }

    /// Claims a document, and loads what it is from then on.
    async fn claim(&self, doc: &DocId) -> Result<Event, StoreError> {
        let _permit = self.may_claim().await;
        let lease = self.store().claim(doc, self.id()).await?;
        let (head, entries) = match self.load_folded(doc).await? {
            Folded::Whole(head, entries) => (head, entries),
            Folded::ReadOnly(part) => return Ok(self.read_only(doc, part).await),
        };
        if head.revision != lease.head {
            // Only another claim lets the head move on: ours is void already.
            return Err(StoreError::new("claim", "the document was claimed again"));
        }
        let start = entries
            .first()
            .map_or(head.revision, |entry| entry.revision.before());
        let mut tail = Tail::new(start);
        entries.into_iter().for_each(|entry| tail.push(entry));
        Ok(Event::Claimed(Ok((lease.fence, head, tail))))
    }

    /// The document as it was once.
    ///
    /// # Errors
    /// When the log has not reached that revision, or the store does not answer.
    pub async fn history(
        &self,
        doc: &DocId,
        reach: LoadRange,
    ) -> Result<Arc<EncodedSnapshot>, Refusal> {
        // All there is was there at a time that is not in the past, also where a wrong clock gave entries later times.
        let reach = match reach {
            LoadRange::AtTime(at_ms) if at_ms >= self.time_ms() => LoadRange::Head,
            reach => reach,
        };
        let turn = self.snapshot_turn("load").await;
        let _turn = turn.map_err(|_| Refusal::busy())?;
        let loaded = self
            .unless_store_away("load", self.store().load(doc, reach))
            .await
            .map_err(|error| self.unread(doc, &error))?;
        if let LoadRange::At(revision) = reach
            && revision > loaded.head
        {
            return Err(Rejection::future_revision().into());
        }
        match fold(loaded).await {
            Folded::Whole(then, _) => Ok(self.encode(then).await),
            Folded::ReadOnly(part) => {
                let readable = part.readable.as_ref().map(|it| it.revision);
                Err(part.cause.rejection(readable).into())
            }
        }
    }

    fn unread(&self, doc: &DocId, error: &StoreError) -> Refusal {
        static LIMIT: LineLimit = LineLimit::new();
        if let StoreErrorKind::Damaged { entry } = error.kind {
            self.report_damage(doc, entry, None);
            return ReadOnlyCause::Damaged { entry }.rejection(None).into();
        }
        if let Some(left_out) = LIMIT.pass() {
            tracing::warn!(%doc, %error, left_out, "a document was not read");
        }
        Refusal::store_unavailable()
    }
}

/// How long the store may take for what a document asks. It has limits of its own, which are shorter: an answer that does
/// not come at all must not keep a document from asking again.
const STORE_PATIENCE: Duration = Duration::from_secs(20);

/// What the store answers, or that it does not.
async fn in_time<T>(
    verb: &'static str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| {
        static LIMIT: LineLimit = LineLimit::new();
        if let Some(left_out) = LIMIT.pass() {
            tracing::warn!(verb, left_out, "the store gave no answer at all");
        }
        Err(StoreError::new(verb, "no answer in time"))
    };
    timeout(STORE_PATIENCE, answer).await.unwrap_or_else(late)
}

/// What a document is that was loaded.
#[derive(Debug)]
pub(in crate::node) enum Folded {
    /// The document, and the entries that were loaded with it.
    Whole(Snapshot, Vec<Arc<Entry>>),
    /// Only a part of its log can be folded.
    ReadOnly(ReadablePart),
}

/// What can be shown of a document that cannot be changed.
#[derive(Debug)]
pub(in crate::node) struct ReadablePart {
    /// The newest state that can be held and read; `None` if that is before the document was created.
    pub(in crate::node) readable: Option<Snapshot>,
    /// How many entries the log holds.
    pub(in crate::node) head: Revision,
    /// What stands behind it.
    pub(in crate::node) cause: ReadOnlyCause,
}

/// Folds what was loaded.
pub(in crate::node) async fn fold(loaded: Loaded) -> Folded {
    let Loaded {
        mut snapshot,
        entries,
        head,
    } = loaded;
    let bytes = weight(&snapshot) + entries.iter().map(|entry| entry.size()).sum::<usize>();
    off_path(bytes, move || match snapshot.fold_all(&entries) {
        Ok(()) => Folded::Whole(snapshot, entries),
        Err(error) if error.is_too_large() => Folded::ReadOnly(ReadablePart {
            readable: Some(snapshot),
            head,
            cause: ReadOnlyCause::Oversized,
        }),
        Err(_) => Folded::damaged(snapshot, head),
    })
    .await
}

impl Folded {
    /// The document stands at `snapshot`, and the entry after it cannot be read.
    pub(in crate::node) fn damaged(snapshot: Snapshot, head: Revision) -> Self {
        // A snapshot beyond the head proves that the entries after the head are missing.
        let entry = Some(snapshot.revision.min(head).next());
        Self::ReadOnly(ReadablePart {
            readable: snapshot.content.is_some().then_some(snapshot),
            head,
            cause: ReadOnlyCause::Damaged { entry },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::doc::{Proposal, Submit};
    use crate::log::{Change, Epoch, SubmitId};
    use crate::node::{NodeSettings, RepairMode, repair};
    use crate::ot::{Content, Kind, Op};
    use crate::protocol::{BadRequest, Code, EchoedFields};
    use crate::store::{MemoryStore, Store};

    fn task() -> (Task, mpsc::Sender<Post>) {
        let store = Arc::new(MemoryStore::new());
        let runtime = tokio::runtime::Handle::current();
        let settings = NodeSettings::default();
        let node = Node::new((NodeId(1), "a"), store, None, settings, runtime);
        let (sender, receiver) = mpsc::channel(8);
        let doc = DocId::parse("c", "a").unwrap();
        let opened = (1, History::default());
        (
            Task::new(doc, opened, node, receiver, Arc::default()),
            sender,
        )
    }

    fn echo(text: &str) -> EchoedFields {
        match protocol::parse(text) {
            Ok((_, echo)) | Err(BadRequest::Refused(echo, _)) => echo,
            Err(BadRequest::NotAnObject) => panic!("{text}"),
        }
    }

    fn fetch(outbox: &Arc<Outbox>, reply: ReplyTo) -> Post {
        Post::Asked {
            session: SessionId(1),
            outbox: outbox.clone(),
            reply,
            ask: SessionRequest::Fetch { since: None },
        }
    }

    fn to_socket() -> ReplyTo {
        ReplyTo::Socket(echo(r#"{"a":"f","c":"c","d":"a"}"#))
    }

    /// All that is in the outbox, as text.
    fn sent(outbox: &Outbox) -> String {
        let mut all = String::new();
        while let Poll::Ready(Some(frames)) =
            outbox.poll_take(&mut Context::from_waker(Waker::noop()))
        {
            all.push_str(&String::from_utf8_lossy(&frames));
        }
        all
    }

    fn commit(revision: u64) -> Arc<Entry> {
        Arc::new(Entry {
            revision: Revision(revision),
            epoch: Epoch(1),
            id: SubmitId {
                author: UserId::anyone(),
                client: crate::id::ClientId::parse("ann").unwrap(),
                seq: revision,
            },
            at_ms: 0,
            change: Change::Delete,
        })
    }

    /// Asks until the answer is there, and returns what the outbox then holds.
    async fn shown(node: &Arc<Node>, doc: &DocId, ask: SessionRequest) -> (Arc<Outbox>, String) {
        let outbox = Arc::new(Outbox::new(1 << 20, None));
        let asker = (node.next_session(), &outbox);
        node.ask(doc, asker, ask, to_socket()).await.unwrap();
        let answered = timeout(Duration::from_secs(20), async {
            loop {
                let sent = sent(&outbox);
                if !sent.is_empty() {
                    return sent;
                }
                tokio::task::yield_now().await;
            }
        });
        let answer = answered.await.expect("it is answered");
        (outbox, answer)
    }

    #[tokio::test]
    async fn a_machine_that_panics_takes_its_own_document_along_and_nothing_else() {
        let store = Arc::new(MemoryStore::new());
        let runtime = tokio::runtime::Handle::current();
        let settings = NodeSettings::default();
        let node = Node::new((NodeId(1), "a"), store, None, settings, runtime);
        let [doc, neighbour] = ["a", "b"].map(|id| DocId::parse("c", id).unwrap());
        let subscribe = || SessionRequest::Subscribe { since: None };
        let (outbox, _) = shown(&node, &doc, subscribe()).await;
        let (others, _) = shown(&node, &neighbour, subscribe()).await;
        // No owner tells commits with a hole between them: what the machine stands on would be wrong.
        let entries = vec![commit(1), commit(3)];
        let head = Revision(3);
        node.linked(NodeId(2), &doc, PeerMessage::Commits { head, entries });
        outbox.closed().await;
        assert!(
            sent(&outbox).contains(&*CloseReason::DocumentClosed.text()),
            "whoever was there comes back"
        );
        assert!(!others.is_closed());
        let (_, answer) = shown(&node, &doc, subscribe()).await;
        assert!(
            answer.contains(r#""data":{"v":0"#),
            "it is opened anew: {answer}"
        );
    }

    /// Puts a document into the store that folds to 2 GB: an older version accepted its second entry.
    async fn store_oversized(store: &MemoryStore, doc: &DocId) {
        let runs: Vec<String> = (0..2_000)
            .map(|at| format!(r#"{{"insert":"a","attributes":{{"n":{}}}}}"#, at % 2))
            .collect();
        let content = Content::create(Kind::RichText, Some(&format!("[{}]", runs.join(","))));
        let edit = |json: &str| Change::Edit(Op::parse_logged(Kind::RichText, json).unwrap());
        let big = "x".repeat(1 << 20);
        let changes = [
            Change::Create(content.unwrap()),
            edit(&format!(
                r#"[{{"retain":2000,"attributes":{{"a":"{big}"}}}}]"#
            )),
            edit(r#"[{"retain":2000},{"insert":"the end"}]"#),
        ];
        let lease = store.claim(doc, NodeId(9)).await.unwrap();
        let entries = (1..).zip(changes).map(|(revision, change)| {
            let entry = Arc::unwrap_or_clone(commit(revision));
            let epoch = lease.fence.epoch;
            Arc::new(Entry {
                change,
                epoch,
                ..entry
            })
        });
        let batch = Batch {
            doc: doc.clone(),
            fence: lease.fence,
            entries: entries.collect(),
        };
        store.append(vec![batch]).await.unwrap().remove(0).unwrap();
    }

    #[tokio::test]
    async fn an_oversized_document_is_read_only_until_it_is_repaired() {
        const CODE: &str = "ERR_DOC_OVERSIZED";
        let store = Arc::new(MemoryStore::new());
        let doc = DocId::parse("c", "a").unwrap();
        store_oversized(&store, &doc).await;
        let runtime = tokio::runtime::Handle::current();
        let open = || {
            let settings = NodeSettings::default();
            Node::new(
                (NodeId(1), "a"),
                store.clone(),
                None,
                settings,
                runtime.clone(),
            )
        };
        let subscribe = |since: Option<u64>| SessionRequest::Subscribe {
            since: since.map(Revision),
        };
        let edit = |base: u64| {
            SessionRequest::Submit(Submit {
                id: SubmitId {
                    seq: 100 + base,
                    ..commit(1).id.clone()
                },
                base: Some(Revision(base)),
                proposal: Proposal::Edit(r#"[{"insert":"x"}]"#.into()),
            })
        };
        let node = open();
        // The submit comes first: the claim finds out too, and the submit is not tried for ever.
        for (ask, expected) in [
            (edit(1), CODE),
            (subscribe(None), r#""v":1,"#),
            (edit(1), CODE),
            (subscribe(Some(3)), CODE),
        ] {
            let (_, answer) = shown(&node, &doc, ask).await;
            assert!(
                answer.contains(expected),
                "{expected}: {}",
                &answer[..answer.len().min(300)]
            );
        }
        let past = node
            .history(&doc, LoadRange::At(Revision(1)))
            .await
            .unwrap();
        assert_eq!(past.revision, Revision(1));
        let refusal = node
            .history(&doc, LoadRange::At(Revision(2)))
            .await
            .unwrap_err();
        assert_eq!(refusal.code, Code::DocOversized);

        let looked = repair(&*store, &doc, NodeId(2), RepairMode::DryRun)
            .await
            .unwrap();
        assert_eq!(looked.without_attributes, [Revision(2)]);
        let (_, answer) = shown(&open(), &doc, edit(1)).await;
        assert!(answer.contains(CODE), "to look changes nothing");
        repair(&*store, &doc, NodeId(2), RepairMode::Write)
            .await
            .unwrap();
        let again = repair(&*store, &doc, NodeId(2), RepairMode::Write)
            .await
            .unwrap();
        assert!(again.is_whole());
        let node = open();
        for (ask, expected) in [(subscribe(None), "the end"), (edit(5), r#""v":5,"#)] {
            let (_, answer) = shown(&node, &doc, ask).await;
            assert!(
                answer.contains(expected),
                "{expected}: {}",
                &answer[..answer.len().min(300)]
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_works_aside_lets_others_go_on() {
        let (done, waits) = std::sync::mpsc::channel();
        let worker = tokio::spawn(async {
            tokio::spawn(async move { done.send(()) });
            aside(move || waits.recv_timeout(Duration::from_secs(20)))
        });
        assert!(worker.await.unwrap().is_ok());
        let edit = |bytes: usize| {
            let id = commit(1).id.clone();
            let proposal = Proposal::Edit(" ".repeat(bytes).into());
            let (from, base) = (NodeId(2), None);
            let link = PeerMessage::Submit(Submit { id, base, proposal });
            Event::PeerMessage {
                from,
                message: link,
            }
        };
        assert!(may_take_long(&edit(IN_PLACE_BYTES + 1)) && !may_take_long(&edit(100)));
    }

    #[tokio::test]
    async fn who_had_just_asked_a_document_that_ends_is_told_to_come_back() {
        let (task, sender) = task();
        let outbox = Arc::new(Outbox::new(1_000, None));
        sender.try_send(fetch(&outbox, to_socket())).unwrap();
        drop(task);
        assert!(outbox.is_closed());
        assert!(sender.try_send(Post::Left(SessionId(1))).is_err());
    }

    #[tokio::test]
    async fn requests_behind_those_of_a_session_that_left_are_dropped() {
        let (mut task, _sender) = task();
        let outbox = Arc::new(Outbox::new(100_000, None));
        let fetch = || SessionRequest::Fetch { since: None };
        let asked = task.asked(SessionId(1), outbox.clone(), to_socket(), fetch());
        assert!(asked.is_some());
        outbox.close(CloseReason::ReadsTooSlowly);
        task.handle(Event::SessionClosed(SessionId(1))).unwrap();
        let asked = task.asked(SessionId(1), outbox.clone(), to_socket(), fetch());
        assert!(asked.is_none(), "it came before the session was given up");
        let other = Arc::new(Outbox::new(100_000, None));
        let asked = task.asked(SessionId(2), other, to_socket(), fetch());
        assert!(asked.is_some());
        drop(outbox);
        task.handle(Event::SessionClosed(SessionId(2))).unwrap();
        let left: Vec<_> = task.left.keys().copied().collect();
        assert_eq!(
            left,
            [SessionId(2)],
            "without an outbox nothing more can come"
        );
    }

    #[tokio::test]
    async fn a_session_has_few_reads_waiting() {
        let (mut task, _sender) = task();
        let outbox = Arc::new(Outbox::new(100_000, None));
        for asked in 0..=READS_MAX {
            let fetch = SessionRequest::Fetch { since: None };
            let event = task.asked(SessionId(1), outbox.clone(), to_socket(), fetch);
            assert_eq!(event.is_some(), asked < READS_MAX);
        }
        assert!(sent(&outbox).contains("ERR_BUSY"));
        let end = task.asked(
            SessionId(1),
            outbox,
            to_socket(),
            SessionRequest::Unsubscribe,
        );
        assert!(end.is_some());
    }

    #[tokio::test]
    async fn all_of_a_document_stays_behind_the_answer_that_holds_it() {
        let (mut task, _sender) = task();
        let (session, outbox) = (SessionId(1), Arc::new(Outbox::new(100_000, None)));
        let bulk = BulkReply::new(echo(r#"{"a":"bs","c":"c","b":["a","b"]}"#), true, 2, None);
        let name = |name| crate::id::Name::parse(name).unwrap();
        let subscribe = SessionRequest::Subscribe { since: None };
        let part = ReplyTo::Bulk(bulk.clone(), name("a"), None);
        task.asked(session, outbox.clone(), part, subscribe);
        let shown = Arc::new(encode_snapshot(&Snapshot::default()));
        task.reply(session, Ticket(0), SessionReply::Snapshot(shown.clone()));
        task.deliver(&[session], &[commit(1)]);
        // Another bulk request for it is complete sooner; its commits may not overtake the one before.
        let sooner = BulkReply::new(echo(r#"{"a":"bf","c":"c","b":["a"]}"#), true, 1, None);
        let fetch = SessionRequest::Fetch { since: None };
        task.asked(
            session,
            outbox.clone(),
            ReplyTo::Bulk(sooner, name("a"), None),
            fetch,
        );
        task.reply(session, Ticket(1), SessionReply::Snapshot(shown));
        task.deliver(&[session], &[commit(2)]);
        task.asked(
            session,
            outbox.clone(),
            to_socket(),
            SessionRequest::Unsubscribe,
        );
        task.reply(session, Ticket(2), SessionReply::Done);
        assert!(!sent(&outbox).contains("\"a\":\"op\""));
        bulk.refuse(&outbox, name("b"), Refusal::busy());
        let sent = sent(&outbox);
        let places: Vec<_> = [
            "\"bs\"",
            "\"v\":0,\"src\"",
            "\"v\":1,\"src\"",
            "\"a\":\"f\"",
        ]
        .iter()
        .map(|it| sent.find(it))
        .collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{sent}"
        );
    }

    #[tokio::test]
    async fn no_more_is_held_back_than_a_reader_may_have_waiting() {
        let (mut task, _sender) = task();
        let (session, outbox) = (SessionId(1), Arc::new(Outbox::new(1_000, None)));
        let bulk = BulkReply::new(echo(r#"{"a":"bs","c":"c","b":["a","b"]}"#), true, 2, None);
        let part = ReplyTo::Bulk(bulk, crate::id::Name::parse("a").unwrap(), None);
        task.asked(
            session,
            outbox.clone(),
            part,
            SessionRequest::Subscribe { since: None },
        );
        for revision in 1..100 {
            task.deliver(&[session], &[commit(revision)]);
        }
        assert!(outbox.is_closed());
    }
}
