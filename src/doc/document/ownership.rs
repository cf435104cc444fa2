//! Becoming the owner, and ceasing to be: claims, appends, and the ends of sequencers.

use std::sync::Arc;

use super::waiting_submits::{Arrival, WaitingSubmit};
use super::{Contradiction, Document, OwnershipState};
use crate::doc::action::Action;
use crate::doc::event::Now;
use crate::doc::forwarder::OwnerPlace;
use crate::doc::peer_message::PeerMessage;
use crate::doc::rejection::Rejection;
use crate::doc::sequencer::{RejectedAppend, Sequencer, SubmitOutcome};
use crate::doc::submit::Submit;
use crate::id::NodeId;
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot, SubmitId, Tail};
use crate::store::{AppendError, StoreError, StoreErrorKind};

/// The most submits of which every later copy is rejected, beyond what one sequencer remembers.
const REJECTED_MAX: usize = 100;

impl Document {
    /// Brings a submit to the owner.
    ///
    /// A node that is sent a submit by another node is the owner or becomes it: a forwarded submit is not forwarded again. Until
    /// this node owns the document, its own forwarder keeps its submits, and those of other nodes wait here.
    ///
    /// `base_fingerprint` is that of the entry at the base that the sender has.
    pub(super) fn submit(
        &mut self,
        from: NodeId,
        submit: Submit,
        base_fingerprint: Option<u64>,
        now: Now,
    ) {
        let owner = match from == self.me && self.owner != self.me {
            true => OwnerPlace::Elsewhere,
            false => OwnerPlace::Here,
        };
        self.forwarder.expire_read_only(now);
        if let Some(rejection) = self.forwarder.read_only_rejection(owner) {
            return self.effects.reject(from, submit.id, rejection.clone());
        }
        if owner == OwnerPlace::Elsewhere {
            let message = PeerMessage::Submit(submit, base_fingerprint);
            return self.effects.send(self.owner, message);
        }
        match &mut self.role {
            OwnershipState::Owning(sequencer) => {
                if let Some(mine) = sequencer.other_base(&submit, base_fingerprint) {
                    return self.submit_diverged(from, mine);
                }
                match sequencer.submit(from, submit, now, &mut self.effects) {
                    SubmitOutcome::Settled => {}
                    SubmitOutcome::FutureBase(submit) => {
                        self.reclaim(from, submit, base_fingerprint, now);
                    }
                }
            }
            OwnershipState::Claiming => self.wait_for_claim(from, submit, base_fingerprint),
            OwnershipState::Following => {
                self.wait_for_claim(from, submit, base_fingerprint);
                self.claim();
            }
        }
    }

    /// Keeps another node's submit until this node owns the document. This node's forwarder keeps its own.
    fn wait_for_claim(&mut self, from: NodeId, submit: Submit, base_fingerprint: Option<u64>) {
        if from != self.me {
            self.add_waiting_submit(from, submit, base_fingerprint);
        }
    }

    fn add_waiting_submit(&mut self, from: NodeId, submit: Submit, base_fingerprint: Option<u64>) {
        let bytes_max = self.settings.staged_bytes_max;
        self.waiting_submits
            .add(from, submit, base_fingerprint, bytes_max);
    }

    /// Claims again because of a base beyond the head. Either the client is faulty, or another node has appended since the
    /// last claim.
    fn reclaim(&mut self, from: NodeId, submit: Submit, base_fingerprint: Option<u64>, now: Now) {
        self.add_waiting_submit(from, submit, base_fingerprint);
        self.reclaim_if_due(now);
    }

    /// Claims, unless the last claim is too recent.
    pub(super) fn reclaim_if_due(&mut self, now: Now) {
        if self.timers.may_reclaim(now) {
            self.claim();
        }
    }

    fn claim(&mut self) {
        if !matches!(self.role, OwnershipState::Claiming) {
            self.change_role(OwnershipState::Claiming);
            self.waiting_submits.claim_requested();
            self.effects.action(Action::Claim);
        }
    }

    /// Changes the role. The subscriptions of a sequencer that ends are kept for the next one, and a snapshot that it owed is
    /// requested again.
    fn change_role(&mut self, role: OwnershipState) {
        if let OwnershipState::Owning(mut sequencer) = std::mem::replace(&mut self.role, role) {
            self.subscriptions = std::mem::take(sequencer.subscriptions_mut());
            self.forwarder.owner_ended_here();
            if sequencer.owes_snapshot() {
                self.forwarder.request_snapshot_again(&mut self.effects);
            }
        }
    }

    /// The answer to a claim: this node becomes the owner, unless the store did not answer or the document's rows are damaged.
    pub(super) fn claimed(
        &mut self,
        result: Result<(Fence, Snapshot, Tail), StoreError>,
        now: Now,
    ) {
        let (fence, head, tail) = match result {
            Ok(claimed) => claimed,
            Err(StoreError {
                kind: StoreErrorKind::Damaged { entry },
                ..
            }) => return self.claim_damaged(entry, now),
            Err(_) => {
                self.role = OwnershipState::Following;
                return self.timers.store_failed(now);
            }
        };
        if !matches!(self.role, OwnershipState::Claiming) {
            return;
        }
        self.timers.store_answered();
        let durable = head.revision;
        if durable < self.forwarder.head() {
            self.contradiction = Some(Contradiction::LogIsShorter);
        }
        let entries: Vec<Arc<Entry>> = tail
            .since(tail.start())
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        self.compare_commits(&entries);
        // Start the sequencer with the subscriptions that waited for it.
        let subscriptions = std::mem::take(&mut self.subscriptions);
        let settings = self.settings.clone();
        let mut sequencer = Sequencer::new(self.me, fence, head, tail, subscriptions, settings);
        sequencer.append_one_by_one(std::mem::take(&mut self.one_by_one));
        sequencer.reject_copies(&self.rejected);
        self.role = OwnershipState::Owning(Box::new(sequencer));
        self.forwarder.owner_started_here();
        self.forwarder.commits(durable, &entries, &mut self.effects);
        self.timers.claimed(now);
        // Sequence what waited for the claim, and send this node's own submits again.
        for waiting in self.waiting_submits.take() {
            self.submit_after_claim(waiting, now);
        }
        self.forwarder.resend(&mut self.effects);
    }

    /// Sequences a submit that waited for the claim. If it arrived before the claim was requested and its base is beyond the
    /// head that the claim found, no client was ever told of that base.
    fn submit_after_claim(&mut self, waiting: WaitingSubmit, now: Now) {
        let WaitingSubmit {
            from,
            submit,
            base_fingerprint,
            arrival,
        } = waiting;
        match arrival {
            Arrival::DuringClaim => self.submit(from, submit, base_fingerprint, now),
            Arrival::BeforeClaim => self.submit_or_reject(from, submit, base_fingerprint, now),
        }
    }

    /// Sequences a submit, and rejects it if its base is beyond the head.
    fn submit_or_reject(
        &mut self,
        from: NodeId,
        submit: Submit,
        base_fingerprint: Option<u64>,
        now: Now,
    ) {
        let OwnershipState::Owning(sequencer) = &mut self.role else {
            return;
        };
        if let Some(mine) = sequencer.other_base(&submit, base_fingerprint) {
            return self.submit_diverged(from, mine);
        }
        if let SubmitOutcome::FutureBase(submit) =
            sequencer.submit(from, submit, now, &mut self.effects)
        {
            self.effects
                .reject(from, submit.id, Rejection::future_revision());
        }
    }

    /// The answer to an append.
    pub(super) fn appended(
        &mut self,
        fence: Fence,
        result: &Result<Result<(), AppendError>, StoreError>,
        now: Now,
    ) {
        let OwnershipState::Owning(sequencer) = &mut self.role else {
            return;
        };
        if sequencer.fence() != fence {
            return;
        }
        // A sequencer ends with the first append that did not certainly succeed. The next claim reads the log, and the
        // forwarders send again what was staged.
        match result {
            Ok(Ok(())) => sequencer.appended(&mut self.effects),
            Ok(Err(AppendError::Fenced)) => self.step_down(now),
            Ok(Err(error @ (AppendError::Gap | AppendError::Refused))) => {
                let rejected = sequencer.append_rejected(*error, &mut self.effects);
                match rejected {
                    RejectedAppend::One(id, rejection) => self.reject_copies(id, rejection),
                    RejectedAppend::Several(entries) => self.one_by_one = entries,
                }
                self.step_down(now);
            }
            Err(_) => {
                self.step_down(now);
                self.timers.store_failed(now);
            }
        }
    }

    /// The hash ring names an owner, possibly the same.
    pub(super) fn owner_changed(&mut self, owner: NodeId, now: Now) {
        if std::mem::replace(&mut self.owner, owner) != owner {
            self.timers.renew_subscription(now);
            self.timers.submit_sent(now);
            self.forwarder.resend(&mut self.effects);
        }
    }

    /// The store has commits that this node was not told of: they are read there, and the subscription is renewed.
    pub(super) fn head_advanced(&mut self, head: Revision, now: Now) {
        if head > self.forwarder.head() {
            self.timers.renew_subscription(now);
        }
        self.step_down_if_behind(head, now);
        self.forwarder.commits(head, &[], &mut self.effects);
    }

    /// Ends the sequencer if the log has a head beyond everything that it has staged: then another node owns the document, and
    /// this node's readers would be shown less than was acknowledged.
    pub(super) fn step_down_if_behind(&mut self, head: Revision, now: Now) {
        if matches!(&self.role, OwnershipState::Owning(sequencer) if head > sequencer.head()) {
            self.step_down(now);
        }
    }

    /// Another node has claimed the document since `epoch`.
    pub(super) fn superseded(&mut self, epoch: Epoch, now: Now) {
        if self.owned_epoch() == Some(epoch) {
            self.step_down(now);
        }
    }

    /// Rejects every later copy of this submit: the same would happen again.
    pub(super) fn reject_copies(&mut self, id: SubmitId, rejection: Rejection) {
        if self.rejected.len() < REJECTED_MAX {
            self.rejected.push((id, rejection));
        }
    }

    /// Ends the sequencer, if there is one. What it had staged is dropped.
    pub(super) fn end_sequencer(&mut self) {
        self.change_role(OwnershipState::Following);
    }

    /// Ends the sequencer, and claims again soon if submits wait.
    fn step_down(&mut self, now: Now) {
        self.end_sequencer();
        self.timers.retry_soon(now);
    }

    /// Ends a sequencer that the hash ring does not name any more, as soon as nothing of it is under way: nodes that subscribe
    /// with the new owner would not be told of its commits. Returns true if it ended.
    pub(super) fn hand_over(&mut self) -> bool {
        let is_quiet =
            matches!(&self.role, OwnershipState::Owning(sequencer) if sequencer.is_quiet());
        let hands_over = is_quiet && self.owner != self.me;
        if hands_over {
            self.change_role(OwnershipState::Following);
        }
        hands_over
    }
}
