//! One document on one node: a forwarder always, a sequencer while the node owns it. The only file that knows roles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::event::{
    Event, Now, PageRequester, ReadMode, ReadOnly, ReadOnlyCause, SessionRequest, Ticket,
};
use super::forwarder::{Forwarder, Unsettled, Want, Wanted};
use super::peer_message::PeerMessage;
use super::peer_subscriptions::Listeners;
use super::presence::Presence;
use super::rejection::Rejection;
use super::sequencer::{Sequencer, Verdict};
use super::settings::DocumentSettings;
use super::submit::Submit;
use crate::id::{ClientId, NodeId, SessionId};
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot, SubmitId, Tail};
use crate::store::{AppendError, StoreError, StoreErrorKind};

/// One document on one node.
///
/// Driven like this: [`handle`](Self::handle) an event, then [`poll`](Self::poll) until it is empty, then sleep until
/// [`timeout`](Self::timeout). It never fails and never waits; whatever it asks for is answered by an event.
///
/// ```
/// use std::time::Duration;
///
/// use copydesk::doc::{Action, Document, DocumentSettings, Event, Now, SessionRequest, Ticket};
/// use copydesk::id::{NodeId, SessionId};
///
/// let me = NodeId(1);
/// let mut document = Document::new(me, me, DocumentSettings::default());
/// let subscribe = Event::Request {
///     session: SessionId(1),
///     ticket: Ticket(1),
///     request: SessionRequest::Subscribe { since: None },
/// };
/// document.handle(subscribe, Now { clock: Duration::ZERO, wall_ms: 0 });
/// // The document must be loaded first; the caller answers with `Event::SnapshotEncoded`.
/// assert!(matches!(document.poll(), Some(Action::LoadSnapshot)));
/// assert!(document.poll().is_none());
/// ```
#[derive(Debug)]
pub struct Document {
    me: NodeId,
    /// Who should own it, as far as this node knows.
    owner: NodeId,
    forwarder: Forwarder,
    role: Role,
    /// The other nodes that want the commits of whoever becomes the owner here.
    listeners: Listeners,
    /// Submits that wait for the next claim: those that other nodes sent to one who is not the owner yet, and those made
    /// on a revision that this owner does not know. After the claim they are sequenced or refused.
    waiting: Vec<Waiting>,
    /// The earliest time of the next claim that a submit from the future may cause.
    doubt_again: Duration,
    /// How many entries were in a batch that the log refused though nobody else had claimed: as many are appended one by
    /// one by the next sequencer, which so finds the one that cannot be.
    singly: usize,
    /// When to ask again what the store did not answer.
    retry: Option<Duration>,
    /// When to say again what the owner has not answered.
    ask_again: Option<Duration>,
    /// How often it has been said again since the last submit was said first.
    asked_again: u32,
    /// How often in a row the store did not answer.
    failures: u32,
    /// When to tell an owner elsewhere again that its commits are wanted here.
    subscribe: Duration,
    /// Whether a claim found a log that ends before what was known of it, since that was asked for last.
    is_ahead_of_log: bool,
    settings: DocumentSettings,
    /// What the machines want, not yet looked at for what is meant for this node.
    out: VecDeque<Action>,
    /// What the shell is to do.
    ready: VecDeque<Action>,
}

/// A submit that waits for a claim.
#[derive(Debug)]
struct Waiting {
    /// The node that it came from.
    from: NodeId,
    submit: Submit,
    /// Whether it came before the claim that is under way was asked for: only then does that claim know all that its
    /// client was told.
    is_older: bool,
}

/// What was being worked on when a document's machine panicked.
#[derive(Debug)]
pub struct PoisonSubmit {
    /// The node that it came from.
    pub from: NodeId,
    /// The submit.
    pub id: SubmitId,
    /// The requests of this node's sessions that it is.
    pub requests: Vec<(SessionId, Ticket)>,
}

#[derive(Debug)]
enum Role {
    /// Another owns the document, or nobody needs an owner yet.
    Following,
    /// The claim is on its way.
    Claiming,
    /// This node's sequencer serves it.
    Owning(Box<Sequencer>),
}

/// How long after one doubt of its own lease an owner may doubt it again. Short, because an honest client waits; not
/// nothing, because a lying one costs a claim each time.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);

/// How many submits may wait for a claim. Whoever sent one more says it again.
const WAITING_MAX: usize = 1_000;

/// How long a submit may be with the owner before it is said again: at first, and at last. An owner whose store is away
/// for long has heard it often enough.
const ASK_AGAIN: Duration = Duration::from_millis(400);
const ASK_AGAIN_LAST: Duration = Duration::from_secs(5);

/// How long an owner elsewhere may not be told that its commits are wanted here. It is told at once when it is another,
/// and when the store knows more than it has told.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(10);

/// How often a damaged document that another node may own is loaded again, in the hope that its owner has saved it.
const RESCUE_TRIES: u32 = 4;

/// For how long a damaged document is not loaded again: an operator may have restored it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);

impl Document {
    /// A document that nothing is known of yet.
    #[must_use]
    pub fn new(me: NodeId, owner: NodeId, settings: DocumentSettings) -> Self {
        Self {
            me,
            owner,
            forwarder: Forwarder::new(settings.clone()),
            role: Role::Following,
            listeners: Listeners::default(),
            waiting: Vec::new(),
            doubt_again: Duration::ZERO,
            singly: 0,
            retry: None,
            ask_again: None,
            asked_again: 0,
            failures: 0,
            subscribe: Duration::ZERO,
            is_ahead_of_log: false,
            settings,
            out: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Request {
                session,
                ticket,
                request: ask,
            } => self.asked(session, ticket, ask, now),
            Event::SessionClosed(session) => self.forwarder.left(session),
            Event::WriteAccessRevoked(session) => {
                self.forward(now, |forwarder, wants| forwarder.muted(session, wants));
            }
            Event::PeerMessage { from, message } => self.linked(from, message, now),
            Event::OwnerChanged(owner) => self.ring(owner, now),
            Event::HeadAdvanced(head) => self.newer(head, now),
            Event::SnapshotEncoded(Ok((shown, entries))) => {
                self.answered();
                self.forward(now, |forwarder, wants| {
                    forwarder.shown(shown, &entries, wants)
                });
            }
            Event::SnapshotEncoded(Err(error)) => {
                self.forwarder.not_shown();
                if error.kind == StoreErrorKind::Away || self.forwarder.is_store_away() {
                    self.forward(now, Forwarder::refuse_new_readers);
                }
                self.unanswered(now);
            }
            Event::StoreUnavailable => self.set_store_away(true, now),
            Event::StoreAvailable => self.set_store_away(false, now),
            Event::SnapshotRefolded(shown) => {
                self.forward(now, |forwarder, wants| forwarder.refolded(shown, wants));
            }
            Event::ReadOnly(found) => self.read_only(found, now),
            Event::PageLoaded {
                requester,
                since,
                page,
            } => self.paged(requester, since, page, now),
            Event::Claimed(result) => self.claimed(result, now),
            Event::Appended { fence, result } => self.appended(fence, &result, now),
            Event::SliceGranted(epoch) => self.next_slice(epoch, now),
            Event::Superseded(epoch) => self.deposed(epoch, now),
            Event::Reconnected => self.reopened(now),
            Event::Timeout => self.timed_out(now),
        }
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.ready.pop_front()
    }

    /// When to hand in [`Event::Timeout`] at the latest; none: not before something else happens.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let subscribe = self.listens_elsewhere().then_some(self.subscribe);
        [
            self.retry,
            self.ask_again,
            subscribe,
            self.listeners().expiry(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether nobody needs it: no session, nothing under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let quiet = match &self.role {
            Role::Following => true,
            Role::Claiming => false,
            Role::Owning(sequencer) => sequencer.is_quiet(),
        };
        quiet && self.listeners().is_empty() && self.forwarder.is_idle() && self.waiting.is_empty()
    }

    /// Whether this node knows of no entry of its log, and is not about to write the first.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        matches!(self.role, Role::Following) && self.forwarder.head() == Revision::ZERO
    }

    /// The newest revision that this node's readers were told, where it has any and is not the owner: whoever asks the
    /// store for newer ones asks for these.
    #[must_use]
    pub fn followed_revision(&self) -> Option<Revision> {
        let follows = self.owned_epoch().is_none() && self.forwarder.is_listening();
        follows.then(|| self.forwarder.head())
    }

    /// The newest revision that is known to be durable.
    #[must_use]
    pub fn known_revision(&self) -> Revision {
        self.forwarder.head()
    }

    /// The entry that led to [`known_revision`](Self::known_revision); `None` if only a snapshot of it is held.
    #[must_use]
    pub fn known_entry(&self) -> Option<&Arc<Entry>> {
        self.forwarder.newest()
    }

    /// Returns true if a claim found a log that ends before what this node knew of it, since this was asked last: the store
    /// went back in time.
    pub fn take_ahead_of_log(&mut self) -> bool {
        std::mem::take(&mut self.is_ahead_of_log)
    }

    /// Frees the snapshot that is kept for the next reader. It is loaded again when it is needed.
    pub fn drop_cached_snapshot(&mut self) {
        self.forwarder.forget_snapshot();
    }

    /// Brings a position to the newest revision that this node's readers were told.
    pub fn rebase_presence(&self, client: &ClientId, presence: &mut Presence) {
        self.forwarder.move_position(client, presence);
    }

    /// Whether a session waits for something, or is told the commits.
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        self.forwarder.knows(session)
    }

    /// Whether everything that was accepted is durable, and what came of it is told.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let quiet = match &self.role {
            Role::Following | Role::Claiming => self.waiting.is_empty(),
            Role::Owning(sequencer) => sequencer.is_quiet(),
        };
        quiet && !self.forwarder.is_waiting()
    }

    /// The epoch under which this node owns the document, while it does.
    #[must_use]
    pub fn owned_epoch(&self) -> Option<Epoch> {
        match &self.role {
            Role::Owning(sequencer) => Some(sequencer.fence().epoch),
            Role::Following | Role::Claiming => None,
        }
    }

    /// Whether a claim is under way.
    #[must_use]
    pub fn is_claiming(&self) -> bool {
        matches!(self.role, Role::Claiming)
    }

    /// After a panic: the submit that was being worked on, where it came from, and which requests of this node's sessions
    /// it is.
    #[must_use]
    pub fn poison_submit(&self) -> Option<PoisonSubmit> {
        let Role::Owning(sequencer) = &self.role else {
            return None;
        };
        let (from, id) = sequencer.culprit()?.clone();
        let requests = self.forwarder.waiting_for(&id);
        Some(PoisonSubmit { from, id, requests })
    }

    fn asked(&mut self, session: SessionId, ticket: Ticket, ask: SessionRequest, now: Now) {
        self.forwarder.look_again(now);
        self.forward(now, |forwarder, wants| match ask {
            SessionRequest::Fetch { since } => {
                forwarder.join((session, ticket), Wanted::since(since), false, now, wants);
            }
            SessionRequest::Subscribe { since } => {
                forwarder.join((session, ticket), Wanted::since(since), true, now, wants);
            }
            SessionRequest::ReadFrom { min, mode } => {
                let live = mode == ReadMode::Subscribe;
                forwarder.join((session, ticket), Wanted::from(min), live, now, wants);
            }
            SessionRequest::Unsubscribe => forwarder.unsubscribe(session, ticket, wants),
            SessionRequest::Submit(submit) => forwarder.submit(session, ticket, submit, wants),
            SessionRequest::PublishPresence {
                client,
                mut presence,
            } => {
                forwarder.move_position(&client, &mut presence);
                wants.push(Want::Do(Action::PublishPresence {
                    session,
                    ticket,
                    client,
                    presence,
                }));
            }
        });
        if self.forwarder.is_store_away() {
            self.refuse_readers_of_staged(now);
        }
    }

    fn set_store_away(&mut self, is_away: bool, now: Now) {
        self.forward(now, |forwarder, wants| {
            forwarder.set_store_away(is_away, wants);
        });
        self.refuse_readers_of_staged(now);
    }

    /// An owner whose append is not answered cannot show what it holds, since it may never be durable. While the store is away
    /// new readers do not wait for that.
    fn refuse_readers_of_staged(&mut self, now: Now) {
        if matches!(&self.role, Role::Owning(sequencer) if sequencer.owes_a_snapshot()) {
            self.forward(now, Forwarder::refuse_new_readers);
        }
    }

    fn linked(&mut self, from: NodeId, message: PeerMessage, now: Now) {
        match message {
            PeerMessage::Submit(submit) => self.submit(from, submit, now),
            PeerMessage::Subscribe { since } => match &mut self.role {
                Role::Owning(sequencer) => sequencer.subscribe(from, since, now, &mut self.out),
                // Reading needs no owner. Whoever writes makes one, perhaps of this node.
                Role::Following | Role::Claiming => self.listeners.said(from, now),
            },
            PeerMessage::SaveSnapshot => {
                if self.owned_epoch().is_some() {
                    self.rescue();
                }
            }
            PeerMessage::Commits { head, entries } => {
                self.compare(head, now);
                self.forward(now, |forwarder, wants| {
                    forwarder.commits(head, &entries, wants)
                });
            }
            PeerMessage::Reject { id, rejection } => {
                self.forward(now, |forwarder, wants| {
                    forwarder.rejected(&id, &rejection, wants)
                });
            }
        }
    }

    /// Brings a submit to the owner. Whoever is asked by another node is the owner, or becomes it: nobody forwards what
    /// was forwarded. While nobody owns, the own forwarder remembers its submits, and the others' wait here.
    fn submit(&mut self, from: NodeId, submit: Submit, now: Now) {
        let elsewhere = from == self.me && self.owner != self.me;
        self.forwarder.look_again(now);
        if let Some(rejection) = self.forwarder.refuses(elsewhere).cloned() {
            return self.reject(from, submit.id, rejection);
        }
        match &mut self.role {
            _ if elsewhere => {
                let message = PeerMessage::Submit(submit);
                self.out.push_back(Action::Send {
                    to: self.owner,
                    message,
                });
            }
            Role::Owning(sequencer) => match sequencer.submit(from, submit, now, &mut self.out) {
                Verdict::Settled => {}
                Verdict::Ahead(submit) => self.doubt(from, submit, now),
            },
            Role::Claiming => self.put_off(from, submit),
            Role::Following => {
                self.put_off(from, submit);
                self.claim(now);
            }
        }
    }

    /// Keeps another node's submit for the claim: the own forwarder says its own again by itself.
    fn put_off(&mut self, from: NodeId, submit: Submit) {
        if from != self.me {
            self.wait(from, submit);
        }
    }

    fn wait(&mut self, from: NodeId, submit: Submit) {
        let known = self
            .waiting
            .iter()
            .any(|waiting| waiting.from == from && waiting.submit.id == submit.id);
        let bytes = |waiting: &Waiting| waiting.submit.proposal.size();
        let has_room = self.waiting.len() < WAITING_MAX
            && self.waiting.iter().map(bytes).sum::<usize>() < self.settings.staged_bytes_max;
        if !known && has_room {
            self.waiting.push(Waiting {
                from,
                submit,
                is_older: false,
            });
        }
    }

    /// A base beyond the head: either a lie, or another node has appended since. Only a new claim can tell.
    fn doubt(&mut self, from: NodeId, submit: Submit, now: Now) {
        self.wait(from, submit);
        if now.clock >= self.doubt_again {
            self.claim(now);
        } else {
            self.retry_at(self.doubt_again);
        }
    }

    fn claim(&mut self, now: Now) {
        if !matches!(self.role, Role::Claiming) {
            self.become_other(Role::Claiming, now);
            for waiting in &mut self.waiting {
                waiting.is_older = true;
            }
            self.out.push_back(Action::Claim);
        }
    }

    /// Takes another role. A sequencer that ends takes along the snapshot that it may have promised, and leaves behind
    /// who listened to it.
    fn become_other(&mut self, role: Role, now: Now) {
        if let Role::Owning(mut sequencer) = std::mem::replace(&mut self.role, role) {
            self.listeners = std::mem::take(sequencer.listeners_mut());
            self.forwarder.set_at_home(false);
            if sequencer.owes_a_snapshot() {
                self.forward(now, Forwarder::show_again);
            }
        }
    }

    fn claimed(&mut self, result: Result<(Fence, Snapshot, Tail), StoreError>, now: Now) {
        let Ok((fence, head, tail)) = result else {
            self.role = Role::Following;
            return self.unanswered(now);
        };
        if !matches!(self.role, Role::Claiming) {
            return;
        }
        self.answered();
        let durable = head.revision;
        self.is_ahead_of_log |= durable < self.forwarder.head();
        let entries: Vec<_> = tail
            .since(tail.start())
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let listeners = std::mem::take(&mut self.listeners);
        let settings = self.settings.clone();
        let mut sequencer = Sequencer::new(self.me, fence, head, tail, listeners, settings);
        sequencer.append_singly(std::mem::take(&mut self.singly));
        self.role = Role::Owning(Box::new(sequencer));
        self.forwarder.set_at_home(true);
        self.forward(now, |forwarder, wants| {
            forwarder.commits(durable, &entries, wants)
        });
        self.doubt_again = now.clock + DOUBT_PAUSE;
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.is_older {
                self.submit_surely(waiting.from, waiting.submit, now);
            } else {
                self.submit(waiting.from, waiting.submit, now);
            }
        }
        self.forward(now, |forwarder, wants| forwarder.refresh(wants));
    }

    /// Only a part of the stored log can be folded. That part is shown, and every submit is refused.
    ///
    /// An owner that holds the whole document in memory saves it first, and what was asked is asked again.
    fn read_only(&mut self, found: ReadOnly, now: Now) {
        let is_damaged = matches!(found.cause, ReadOnlyCause::Damaged { .. });
        let may_be_rescued = is_damaged && self.owner != self.me && self.failures < RESCUE_TRIES;
        if self.owned_epoch().is_some() || may_be_rescued {
            if is_damaged {
                self.rescue();
            }
            if !matches!(self.role, Role::Owning(_)) {
                self.role = Role::Following;
            }
            self.forwarder.not_shown();
            return self.unanswered(now);
        }
        self.role = Role::Following;
        self.answered();
        for Waiting { from, submit, .. } in std::mem::take(&mut self.waiting) {
            self.reject(from, submit.id, found.rejection.clone());
        }
        // Submits for an owner elsewhere are its to refuse: it may hold the document in memory.
        let unanswered = match self.owner == self.me || !is_damaged {
            true => Unsettled::Refused,
            false => Unsettled::Kept,
        };
        let look_again = is_damaged.then_some(now.clock + LOOK_AGAIN);
        self.forward(now, |forwarder, wants| {
            forwarder.freeze(found, unanswered, look_again, wants);
        });
    }

    /// The stored log is damaged: the owner is to save what it holds in memory.
    fn rescue(&mut self) {
        match &mut self.role {
            Role::Owning(sequencer) => sequencer.rescue(&mut self.out),
            Role::Following | Role::Claiming if self.owner != self.me => {
                let (to, message) = (self.owner, PeerMessage::SaveSnapshot);
                self.out.push_back(Action::Send { to, message });
            }
            Role::Following | Role::Claiming => {}
        }
    }

    /// Entries that were asked for are damaged: whoever needs them is refused, and asking again would not help.
    fn unreadable(
        &mut self,
        requester: PageRequester,
        since: Revision,
        entry: Option<Revision>,
        now: Now,
    ) {
        self.rescue();
        let rejection = ReadOnlyCause::Damaged { entry }.rejection(None);
        match (requester, &mut self.role) {
            (PageRequester::CatchUp(session), _) => self.forward(now, |forwarder, wants| {
                forwarder.not_walked(session, since, &rejection, wants);
            }),
            (PageRequester::Sequencer(epoch), Role::Owning(sequencer))
                if sequencer.fence().epoch == epoch =>
            {
                sequencer.not_paged(since, rejection, &mut self.out);
            }
            (PageRequester::Sequencer(_), _) => {}
            (PageRequester::Gap, _) => {
                // The owner may have them in memory.
                self.subscribe = now.clock;
                if self.failures >= RESCUE_TRIES {
                    self.out.push_back(Action::CloseSessions);
                }
                self.unanswered(now);
            }
        }
    }

    fn reject(&mut self, to: NodeId, id: SubmitId, rejection: Rejection) {
        let message = PeerMessage::Reject { id, rejection };
        self.out.push_back(Action::Send { to, message });
    }

    /// Gives a submit to the sequencer whose claim was asked for after it came: a base beyond that claim's head is one that
    /// nobody was ever told of.
    fn submit_surely(&mut self, from: NodeId, submit: Submit, now: Now) {
        let Role::Owning(sequencer) = &mut self.role else {
            return;
        };
        if let Verdict::Ahead(submit) = sequencer.submit(from, submit, now, &mut self.out) {
            self.reject(from, submit.id, Rejection::future_revision());
        }
    }

    fn appended(
        &mut self,
        asked: Fence,
        result: &Result<Result<(), AppendError>, StoreError>,
        now: Now,
    ) {
        let Role::Owning(sequencer) = &mut self.role else {
            return;
        };
        if sequencer.fence() != asked {
            return;
        }
        match result {
            Ok(Ok(())) => sequencer.appended(&mut self.out),
            // Fenced, wrong about the log, or nobody knows: this sequencer's time is over. The truth is read by the
            // next claim, and what had been staged is said again by those who still wait for it.
            Ok(Err(AppendError::Fenced)) => self.resign(now),
            Ok(Err(AppendError::Gap)) => {
                self.singly = sequencer.refused(&mut self.out);
                self.resign(now);
            }
            Err(_) => {
                self.resign(now);
                self.unanswered(now);
            }
        }
    }

    /// The ring names an owner, perhaps the same again.
    fn ring(&mut self, owner: NodeId, now: Now) {
        if std::mem::replace(&mut self.owner, owner) != owner {
            self.subscribe = now.clock;
            self.hurry(now);
            self.forward(now, |forwarder, wants| forwarder.refresh(wants));
        }
    }

    /// The store knows of commits that nobody told: they are read there, and the owner is told who wants them.
    fn newer(&mut self, head: Revision, now: Now) {
        if head > self.forwarder.head() {
            self.subscribe = now.clock;
        }
        self.compare(head, now);
        self.forward(now, |forwarder, wants| forwarder.commits(head, &[], wants));
    }

    /// A head beyond all that this node's sequencer has staged proves that another owns: to go on would be to show people
    /// less than what they were told of.
    fn compare(&mut self, told: Revision, now: Now) {
        if matches!(&self.role, Role::Owning(sequencer) if told > sequencer.head()) {
            self.resign(now);
        }
    }

    fn deposed(&mut self, epoch: Epoch, now: Now) {
        if self.owned_epoch() == Some(epoch) {
            self.resign(now);
        }
    }

    fn resign(&mut self, now: Now) {
        self.become_other(Role::Following, now);
        self.retry_at(now.clock + RETRY_FIRST);
    }

    fn paged(
        &mut self,
        requester: PageRequester,
        since: Revision,
        page: Result<Vec<Arc<Entry>>, StoreError>,
        now: Now,
    ) {
        let page = match page {
            Ok(page) => page,
            Err(StoreError {
                kind: StoreErrorKind::Damaged { entry },
                ..
            }) => return self.unreadable(requester, since, entry, now),
            Err(_) => {
                if let PageRequester::CatchUp(session) = requester {
                    self.forward(now, |forwarder, wants| {
                        forwarder.not_paged(session, since, wants)
                    });
                }
                return self.unanswered(now);
            }
        };
        self.answered();
        match (requester, &mut self.role) {
            (PageRequester::Gap, _) => {
                self.forward(now, |forwarder, wants| {
                    forwarder.read_on(since, &page, wants)
                });
            }
            (PageRequester::CatchUp(session), _) => {
                self.forward(now, |forwarder, wants| {
                    forwarder.walk_on(session, since, &page, wants)
                });
            }
            (PageRequester::Sequencer(epoch), Role::Owning(sequencer))
                if sequencer.fence().epoch == epoch =>
            {
                sequencer.paged(since, &page, now, &mut self.out);
            }
            // The sequencer that asked is gone.
            (PageRequester::Sequencer(_), _) => {}
        }
    }

    fn next_slice(&mut self, epoch: Epoch, now: Now) {
        if let Role::Owning(sequencer) = &mut self.role
            && sequencer.fence().epoch == epoch
        {
            sequencer.next_slice(now, &mut self.out);
        }
    }

    fn timed_out(&mut self, now: Now) {
        if self.retry.take_if(|at| *at <= now.clock).is_some() {
            if !self.waiting.is_empty() {
                if now.clock >= self.doubt_again {
                    self.claim(now);
                } else {
                    self.retry_at(self.doubt_again);
                }
            }
            if let Role::Owning(sequencer) = &mut self.role {
                sequencer.ask_for_more(&mut self.out);
            }
            self.forward(now, |forwarder, wants| {
                forwarder.retry(now, wants);
                forwarder.refresh(wants);
            });
        }
        if self.ask_again.take_if(|at| *at <= now.clock).is_some() {
            self.asked_again += 1;
            self.forward(now, |forwarder, wants| forwarder.refresh(wants));
        }
    }

    /// Asks again for whatever waits for an answer: the question or the answer may have been lost, and the store, if it
    /// did not answer, may answer now. Pauses begin anew.
    fn reopened(&mut self, now: Now) {
        self.failures = 0;
        for timer in [&mut self.retry, &mut self.ask_again] {
            *timer = timer.map(|at| at.min(now.clock));
        }
        self.timed_out(now);
        self.asked_again = 0;
    }

    /// What waits is said again soon: to this owner some of it has only just been said.
    fn hurry(&mut self, now: Now) {
        self.asked_again = 0;
        self.ask_again = self.ask_again.map(|at| at.min(now.clock + ASK_AGAIN));
    }

    /// The store answered.
    fn answered(&mut self) {
        self.failures = 0;
    }

    /// The store did not answer: what is still needed is asked again, a little later each time.
    fn unanswered(&mut self, now: Now) {
        let pause = growing(RETRY_FIRST, self.failures, RETRY_LAST);
        self.failures += 1;
        self.retry_at(now.clock + pause);
    }

    fn retry_at(&mut self, at: Duration) {
        self.retry = Some(self.retry.map_or(at, |retry| retry.min(at)));
    }

    /// Lets the forwarder act, and sees to what it wants.
    fn forward(&mut self, now: Now, act: impl FnOnce(&mut Forwarder, &mut Vec<Want>)) {
        let mut wants = Vec::new();
        act(&mut self.forwarder, &mut wants);
        for want in wants {
            match want {
                Want::Later => self.retry_at(now.clock + RETRY_FIRST),
                Want::Do(action) => self.out.push_back(action),
                Want::Submit(submit) => {
                    self.hurry(now);
                    self.submit(self.me, submit, now);
                }
                Want::SubmitAgain(submit) => self.submit(self.me, submit, now),
                Want::Show => match &mut self.role {
                    Role::Owning(sequencer) => sequencer.show(&mut self.out),
                    Role::Following | Role::Claiming => self.out.push_back(Action::LoadSnapshot),
                },
            }
        }
    }

    /// Hands itself what it says to its own node, within the same call: the owner's own sessions take the same path as
    /// everyone's, only shorter.
    fn settle(&mut self, now: Now) {
        self.drain(now);
        self.hand_over(now);
        self.drain(now);
        self.listen(now);
        self.listeners_mut().expire(now);
        // Whoever still waits asks again: an unanswered submit may never have reached its owner, or have come when it was
        // too busy to take it.
        if self.retry.is_some() || !self.forwarder.is_waiting() {
            self.ask_again = None;
        } else {
            let pause = growing(ASK_AGAIN, self.asked_again, ASK_AGAIN_LAST);
            self.ask_again.get_or_insert(now.clock + pause);
        }
    }

    fn drain(&mut self, now: Now) {
        while let Some(action) = self.out.pop_front() {
            match action {
                Action::Send { to, message } if to == self.me => self.linked(self.me, message, now),
                action => self.ready.push_back(action),
            }
        }
    }

    /// Ends a sequencer that the ring names no more, as soon as nothing of it is under way: who listens to the new owner
    /// would not be told what is committed here.
    fn hand_over(&mut self, now: Now) {
        let done = matches!(&self.role, Role::Owning(sequencer) if sequencer.is_quiet());
        if done && self.owner != self.me {
            self.become_other(Role::Following, now);
        }
    }

    /// Tells an owner elsewhere that its commits are wanted here. Said again and again: the owner forgets who is silent.
    fn listen(&mut self, now: Now) {
        if !self.listens_elsewhere() {
            // The next reader is told what follows at once.
            self.subscribe = Duration::ZERO;
        } else if now.clock >= self.subscribe {
            let message = PeerMessage::Subscribe {
                since: self.forwarder.head(),
            };
            self.ready.push_back(Action::Send {
                to: self.owner,
                message,
            });
            self.subscribe = now.clock + SUBSCRIBE_AGAIN;
        }
    }

    fn listens_elsewhere(&self) -> bool {
        self.owner != self.me && self.owned_epoch().is_none() && self.forwarder.is_listening()
    }

    /// The other nodes that want the commits of an owner here.
    fn listeners(&self) -> &Listeners {
        match &self.role {
            Role::Owning(sequencer) => sequencer.listeners(),
            Role::Following | Role::Claiming => &self.listeners,
        }
    }

    fn listeners_mut(&mut self) -> &mut Listeners {
        match &mut self.role {
            Role::Owning(sequencer) => sequencer.listeners_mut(),
            Role::Following | Role::Claiming => &mut self.listeners,
        }
    }
}

/// A pause that doubles from the first to the last.
fn growing(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(1 << times.min(10)).min(last)
}

#[cfg(test)]
mod tests;
