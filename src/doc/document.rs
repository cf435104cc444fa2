//! One document on one node: always a forwarder, and a sequencer while the node owns the document.

mod damage;
mod divergence;
mod ownership;
mod waiting_submits;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::waiting_submits::WaitingSubmits;
use super::action::Action;
use super::effects::{Attempt, Effect, Effects};
use super::event::{Event, Now, PageRequester, ReadMode, SessionRequest, Ticket};
use super::forwarder::{Forwarder, ReadRequest};
use super::peer_message::PeerMessage;
use super::peer_subscriptions::PeerSubscriptions;
use super::presence::Presence;
use super::rejection::Rejection;
use super::retry_timers::RetryTimers;
use super::sequencer::Sequencer;
use super::settings::DocumentSettings;
use super::submit::Proposal;
use crate::id::{ClientId, NodeId, SessionId};
use crate::log::{Entry, Epoch, Revision, SubmitId};
use crate::store::{StoreError, StoreErrorKind};

/// One document on one node, as a state machine without a clock, randomness, IO or waiting.
///
/// # Contract
///
/// Call [`handle`](Self::handle) with an event, then [`poll`](Self::poll) until it returns `None` and perform each action in
/// order, then [`timeout`](Self::timeout), and hand in [`Event::Timeout`] at that time unless another event comes first. Every
/// action that its documentation calls answered is answered by exactly one event, in any order and at any later time; an answer
/// that is lost is a failure of the store. A document never fails and may be dropped at any time.
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
    /// The owner that the hash ring names, as this node sees it.
    owner: NodeId,
    forwarder: Forwarder,
    role: OwnershipState,
    /// The other nodes that subscribe to the commits, while no sequencer runs here: the next one takes them over.
    subscriptions: PeerSubscriptions,
    waiting_submits: WaitingSubmits,
    /// The number of entries in an append that the log rejected although no other node had claimed. The next sequencer appends
    /// as many one by one, and so finds the entry that cannot be appended.
    one_by_one: usize,
    /// Submits that caused a panic, or that the store refused. Each sequencer rejects their copies.
    rejected: Vec<(SubmitId, Rejection)>,
    timers: RetryTimers,
    /// What was found since the caller asked last.
    contradiction: Option<Contradiction>,
    settings: DocumentSettings,
    /// Empty between calls of [`handle`](Self::handle).
    effects: Effects,
    /// What the caller is to do.
    actions: VecDeque<Action>,
}

/// A sign that the store went back in time: this node has an entry that the log may not have.
#[derive(Debug, Clone, PartialEq)]
pub enum Contradiction {
    /// A claim found a log that ends before what this node knew of it.
    LogIsShorter,
    /// Another node, or the log, has another entry than this one at its revision.
    EntryDiffers(Arc<Entry>),
}

/// What this node is to the document.
#[derive(Debug)]
enum OwnershipState {
    /// Another node owns the document, or no node needs to.
    Following,
    /// The claim is under way.
    Claiming,
    /// This node's sequencer serves the document.
    Owning(Box<Sequencer>),
}

/// The submit that was being processed when a document panicked.
#[derive(Debug)]
pub struct PoisonSubmit {
    /// The node that sent it.
    pub from: NodeId,
    /// The submit.
    pub id: SubmitId,
    /// The revision that it was made on; `None` if its client named none.
    pub base: Option<Revision>,
    /// The change; `None` if it was a copy of a commit.
    pub proposal: Option<Proposal>,
    /// The requests of this node's sessions that wait for it.
    pub requests: Vec<(SessionId, Ticket)>,
}

impl OwnershipState {
    /// The sequencer of this epoch, unless it has ended.
    fn sequencer_of(&mut self, epoch: Epoch) -> Option<&mut Sequencer> {
        match self {
            Self::Owning(sequencer) if sequencer.fence().epoch == epoch => Some(sequencer),
            Self::Owning(_) | Self::Following | Self::Claiming => None,
        }
    }
}

impl Document {
    /// A document of which nothing is known yet, on the node `me`.
    #[must_use]
    pub fn new(me: NodeId, owner: NodeId, settings: DocumentSettings) -> Self {
        Self {
            me,
            owner,
            forwarder: Forwarder::new(settings.clone()),
            role: OwnershipState::Following,
            subscriptions: PeerSubscriptions::default(),
            waiting_submits: WaitingSubmits::default(),
            one_by_one: 0,
            rejected: Vec::new(),
            timers: RetryTimers::default(),
            contradiction: None,
            settings,
            effects: Effects::new(me),
            actions: VecDeque::new(),
        }
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event, now: Now) {
        self.apply(event, now);
        self.run_effects(now);
        if self.hand_over() {
            self.run_effects(now);
        }
        self.renew_subscription(now);
        self.subscriptions_mut().expire(now);
        let is_pending = self.forwarder.is_submit_pending();
        self.timers.arm_resend(is_pending, now);
    }

    /// Carries out the effects of both machines until none is left. A message to this node is handled like one from another
    /// node, so the owner's own sessions take the same path as all others.
    fn run_effects(&mut self, now: Now) {
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Action(action) => self.actions.push_back(action),
                Effect::LocalMessage(message) => self.peer_message(self.me, message, now),
                Effect::Submit(submit, attempt) => {
                    if attempt == Attempt::First {
                        self.timers.submit_sent(now);
                    }
                    let base = submit.base.and_then(|base| self.forwarder.entry(base));
                    let fingerprint = base.map(|entry| entry.fingerprint());
                    self.submit(self.me, submit, fingerprint, now);
                }
                Effect::RequestSnapshot => match &mut self.role {
                    OwnershipState::Owning(sequencer) => {
                        sequencer.request_snapshot(&mut self.effects)
                    }
                    OwnershipState::Following | OwnershipState::Claiming => {
                        self.effects.action(Action::LoadSnapshot);
                    }
                },
                Effect::RetrySoon => self.timers.retry_soon(now),
            }
        }
    }

    fn apply(&mut self, event: Event, now: Now) {
        match event {
            Event::Request {
                session,
                ticket,
                request,
            } => self.request(session, ticket, request, now),
            Event::SessionClosed(session) => self.forwarder.session_closed(session),
            Event::WriteAccessRevoked(session) => {
                self.forwarder
                    .write_access_revoked(session, &mut self.effects);
            }
            Event::PeerMessage { from, message } => self.peer_message(from, message, now),
            Event::OwnerChanged(owner) => self.owner_changed(owner, now),
            Event::HeadAdvanced(head) => self.head_advanced(head, now),
            Event::SnapshotEncoded(Ok((snapshot, entries))) => {
                self.timers.store_answered();
                self.forwarder
                    .snapshot_encoded(snapshot, &entries, &mut self.effects);
            }
            Event::SnapshotEncoded(Err(error)) => self.snapshot_failed(&error, now),
            Event::StoreUnavailable => {
                self.forwarder.store_unavailable(&mut self.effects);
                self.reject_readers_of_staged(now);
            }
            Event::StoreAvailable => {
                self.forwarder.store_available(&mut self.effects);
                self.reject_readers_of_staged(now);
            }
            Event::SnapshotRefolded(snapshot) => {
                self.forwarder
                    .snapshot_refolded(snapshot, &mut self.effects);
            }
            Event::ReadOnly(found) => self.read_only(found, now),
            Event::PageLoaded {
                requester,
                since,
                page,
            } => self.page_loaded(requester, since, page, now),
            Event::Claimed(result) => self.claimed(result, now),
            Event::Appended { fence, result } => self.appended(fence, &result, now),
            Event::SliceGranted(epoch) => {
                if let Some(sequencer) = self.role.sequencer_of(epoch) {
                    sequencer.slice_granted(now, &mut self.effects);
                }
            }
            Event::Superseded(epoch) => self.superseded(epoch, now),
            Event::Reconnected => self.reconnected(now),
            Event::Timeout => self.timed_out(now),
        }
    }

    /// Takes out the next action to perform.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to hand in [`Event::Timeout`] at the latest, on the clock of [`Now::clock`]; `None`: not before another event.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let subscription = self.follows_owner().then(|| self.timers.subscription_due());
        [
            self.timers.timeout(),
            subscription,
            self.subscriptions().expiry(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns true if the document may be dropped without a loss to any session or node: no session needs it and nothing is
    /// under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_quiet = match &self.role {
            OwnershipState::Following => true,
            OwnershipState::Claiming => false,
            OwnershipState::Owning(sequencer) => sequencer.is_quiet(),
        };
        is_quiet
            && self.subscriptions().is_empty()
            && self.forwarder.is_idle()
            && self.waiting_submits.is_empty()
    }

    /// Returns true if this node knows of no entry of the log, and is not about to append the first.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        matches!(self.role, OwnershipState::Following) && self.forwarder.head() == Revision::ZERO
    }

    /// The newest revision that this node's subscribers were sent, if there are subscribers and this node is not the owner. The
    /// store's feed of changes is read for newer ones.
    #[must_use]
    pub fn followed_revision(&self) -> Option<Revision> {
        let follows = self.owned_epoch().is_none() && self.forwarder.has_subscribers();
        follows.then(|| self.forwarder.head())
    }

    /// The newest revision that this node knows to be durable.
    #[must_use]
    pub fn known_revision(&self) -> Revision {
        self.forwarder.head()
    }

    /// The entry that led to [`known_revision`](Self::known_revision); `None` if only a snapshot of it is held.
    #[must_use]
    pub fn known_entry(&self) -> Option<&Arc<Entry>> {
        self.forwarder.newest()
    }

    /// The newest sign since the last call that the store went back in time.
    pub fn take_contradiction(&mut self) -> Option<Contradiction> {
        self.contradiction.take()
    }

    /// Drops the encoded snapshot that is kept for the next reader. It is loaded again when needed.
    pub fn drop_cached_snapshot(&mut self) {
        self.forwarder.drop_cached_snapshot();
    }

    /// Transforms a presence of `client` to the newest revision that this node's subscribers were sent.
    pub fn rebase_presence(&self, client: &ClientId, presence: &mut Presence) {
        self.forwarder.rebase_presence(client, presence);
    }

    /// Returns true if the session waits for an answer or is subscribed.
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        self.forwarder.has_session(session)
    }

    /// Returns true if every accepted submit is durable and answered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let is_quiet = match &self.role {
            OwnershipState::Following | OwnershipState::Claiming => self.waiting_submits.is_empty(),
            OwnershipState::Owning(sequencer) => sequencer.is_quiet(),
        };
        is_quiet && !self.forwarder.is_submit_pending()
    }

    /// The epoch under which this node owns the document; `None` if it does not.
    #[must_use]
    pub fn owned_epoch(&self) -> Option<Epoch> {
        match &self.role {
            OwnershipState::Owning(sequencer) => Some(sequencer.fence().epoch),
            OwnershipState::Following | OwnershipState::Claiming => None,
        }
    }

    /// Returns true if a claim is under way.
    #[must_use]
    pub fn is_claiming(&self) -> bool {
        matches!(self.role, OwnershipState::Claiming)
    }

    /// After a panic: the submit that was being processed.
    #[must_use]
    pub fn poison_submit(&self) -> Option<PoisonSubmit> {
        let OwnershipState::Owning(sequencer) = &self.role else {
            return None;
        };
        let submit = sequencer.in_progress()?.clone();
        Some(PoisonSubmit {
            requests: self.forwarder.requests_of(&submit.id),
            from: submit.from,
            id: submit.id,
            base: submit.base,
            proposal: submit.proposal,
        })
    }

    /// Rejects every copy of these submits, which made an earlier state machine of this document panic.
    pub fn reject_poison(&mut self, poison: impl IntoIterator<Item = SubmitId>) {
        for id in poison {
            self.reject_copies(id, Rejection::op_not_applied());
        }
    }

    /// Handles a request of a session.
    fn request(&mut self, session: SessionId, ticket: Ticket, request: SessionRequest, now: Now) {
        self.forwarder.expire_read_only(now);
        let (forwarder, effects) = (&mut self.forwarder, &mut self.effects);
        let mut read = |mode, since, min| {
            let request = ReadRequest {
                session,
                ticket,
                mode,
                since,
                min,
            };
            forwarder.read(request, now, effects);
        };
        match request {
            SessionRequest::Fetch { since } => read(ReadMode::Fetch, since, Revision::ZERO),
            SessionRequest::Subscribe { since } => read(ReadMode::Subscribe, since, Revision::ZERO),
            SessionRequest::ReadFrom { min, mode } => read(mode, None, min),
            SessionRequest::Unsubscribe => forwarder.unsubscribe(session, ticket, effects),
            SessionRequest::Submit(submit) => forwarder.submit(session, ticket, submit, effects),
            SessionRequest::PublishPresence {
                client,
                mut presence,
            } => {
                forwarder.rebase_presence(&client, &mut presence);
                effects.action(Action::PublishPresence {
                    session,
                    ticket,
                    client,
                    presence,
                });
            }
        }
        if self.forwarder.is_store_unavailable() {
            self.reject_readers_of_staged(now);
        }
    }

    /// Rejects new readers while the store does not answer an append of this node: what is staged may never be durable, so it
    /// cannot be shown.
    fn reject_readers_of_staged(&mut self, now: Now) {
        // The request for a snapshot may still be among the effects.
        self.run_effects(now);
        if matches!(&self.role, OwnershipState::Owning(sequencer) if sequencer.owes_snapshot()) {
            self.forwarder.reject_new_readers(&mut self.effects);
        }
    }

    /// Handles a message of another node, or of this node to itself.
    fn peer_message(&mut self, from: NodeId, message: PeerMessage, now: Now) {
        match message {
            PeerMessage::Submit(submit, base_fingerprint) => {
                self.submit(from, submit, base_fingerprint, now);
            }
            PeerMessage::Subscribe { since } => match &mut self.role {
                OwnershipState::Owning(sequencer) => {
                    sequencer.subscribe(from, since, now, &mut self.effects);
                }
                // Reading needs no owner. The first submit makes one, perhaps of this node.
                OwnershipState::Following | OwnershipState::Claiming => {
                    self.subscriptions.renew(from, now)
                }
            },
            PeerMessage::SaveSnapshot => {
                if self.owned_epoch().is_some() {
                    self.request_rescue();
                }
            }
            PeerMessage::Diverged { revision } => {
                let mine = self.forwarder.entry(revision).cloned();
                self.entry_differs(mine);
            }
            PeerMessage::Commits { head, entries } => {
                self.step_down_if_behind(head, now);
                self.compare_commits(&entries);
                self.forwarder.commits(head, &entries, &mut self.effects);
            }
            PeerMessage::Reject { id, rejection } => {
                self.forwarder.rejected(&id, &rejection, &mut self.effects);
            }
        }
    }

    fn snapshot_failed(&mut self, error: &StoreError, now: Now) {
        self.forwarder.snapshot_failed();
        if error.kind == StoreErrorKind::Away || self.forwarder.is_store_unavailable() {
            self.forwarder.reject_new_readers(&mut self.effects);
        }
        self.timers.store_failed(now);
    }

    /// The answer to a request for a page of the log.
    fn page_loaded(
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
            }) => return self.page_damaged(requester, since, entry, now),
            Err(_) => {
                if let PageRequester::CatchUp(session) = requester {
                    self.forwarder
                        .catch_up_failed(session, since, &mut self.effects);
                }
                return self.timers.store_failed(now);
            }
        };
        self.timers.store_answered();
        match requester {
            PageRequester::Gap => self.forwarder.gap_page(since, &page, &mut self.effects),
            PageRequester::CatchUp(session) => {
                self.forwarder
                    .catch_up_page(session, since, &page, &mut self.effects);
            }
            PageRequester::Sequencer(epoch) => {
                if let Some(sequencer) = self.role.sequencer_of(epoch) {
                    sequencer.page_loaded(since, &page, now, &mut self.effects);
                }
            }
        }
    }

    fn timed_out(&mut self, now: Now) {
        if self.timers.take_store_retry(now) {
            if !self.waiting_submits.is_empty() {
                self.reclaim_if_due(now);
            }
            if let OwnershipState::Owning(sequencer) = &mut self.role {
                sequencer.continue_rebase(&mut self.effects);
            }
            self.forwarder.retry(now, &mut self.effects);
            self.forwarder.resend(&mut self.effects);
        }
        if self.timers.take_resend(now) {
            self.forwarder.resend(&mut self.effects);
        }
    }

    /// Repeats every request that waits for an answer: the request or the answer may have been lost, and a store that did not
    /// answer may answer now. The delays start anew.
    fn reconnected(&mut self, now: Now) {
        self.timers.expire(now);
        self.timed_out(now);
        self.timers.restart_resends();
    }

    /// Tells an owner elsewhere that its commits are wanted here. Repeated, since the owner drops subscriptions of silent nodes.
    fn renew_subscription(&mut self, now: Now) {
        if !self.follows_owner() {
            // The next subscriber's node subscribes at once.
            self.timers.subscription_ended();
        } else if now.clock >= self.timers.subscription_due() {
            let since = self.forwarder.head();
            self.actions.push_back(Action::Send {
                to: self.owner,
                message: PeerMessage::Subscribe { since },
            });
            self.timers.subscription_sent(now);
        }
    }

    /// Returns true if an owner elsewhere is to send its commits here.
    fn follows_owner(&self) -> bool {
        self.owner != self.me && self.owned_epoch().is_none() && self.forwarder.has_subscribers()
    }

    /// The other nodes that subscribe to the commits of an owner here.
    fn subscriptions(&self) -> &PeerSubscriptions {
        match &self.role {
            OwnershipState::Owning(sequencer) => sequencer.subscriptions(),
            OwnershipState::Following | OwnershipState::Claiming => &self.subscriptions,
        }
    }

    fn subscriptions_mut(&mut self) -> &mut PeerSubscriptions {
        match &mut self.role {
            OwnershipState::Owning(sequencer) => sequencer.subscriptions_mut(),
            OwnershipState::Following | OwnershipState::Claiming => &mut self.subscriptions,
        }
    }
}

#[cfg(test)]
mod tests;
